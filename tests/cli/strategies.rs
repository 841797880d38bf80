//! Fine-tuning a released encoder: frozen, in part, with adapters.

use super::training::corpus;
use super::{asr, run};
use assert_cmd::Command;
use std::fs;
use std::path::Path;

const UPSTREAM: &str = "tests/golden/hubert-base";

const RECIPE: &str = r#"
schema = 1
name = "tuned"
output = "set by each run"

[downstream]
layer_sum = true
transformer = { projection = 8, dim = 8, ffn_dim = 16, heads = 2, layers = 1 }

[data]
root = "set by each run"
manifests = ["manifest.tsv"]
dev = "dev.tsv"
min_character_count = 1
batch = { seconds = 5.0, max_clip_s = 5.0, first_epoch_max_clip_s = 5.0, temperature = 0.5, max_repeats = 10 }
augmentation = {}

[train]
seed = 1
micro_batches = 1
low_weight = 0.0
language_weight = 0.5
bf16 = false
log_every = 4
validate_every = 8
save_every = 4
schedule = { peak = 1e-3, warmup_steps = 2, steps = 8, final_share = 0.1 }
optimiser = { betas = [0.9, 0.98], eps = 1e-8, weight_decay = 0.0, clip_norm = 1.0 }
"#;

fn tune(folder: &Path, output: &str, sets: &[&str]) -> Command {
    let mut command = asr();
    command.arg("finetune").arg(folder.join("recipe.toml"));
    for set in [
        format!("data.root='{}'", folder.display()),
        format!("output='{}'", folder.join(output).display()),
        format!("upstream='{UPSTREAM}'"),
    ] {
        command.arg("--set").arg(set);
    }
    for set in sets {
        command.arg("--set").arg(set);
    }
    command
}

type Tensors = std::collections::HashMap<String, candle_core::Tensor>;

fn tensors(path: &Path) -> Tensors {
    candle_core::safetensors::load(path, &candle_core::Device::Cpu).expect("tensors")
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    corpus(folder.path());
    fs::write(folder.path().join("recipe.toml"), RECIPE).expect("written");
    folder
}

#[test]
fn a_head_on_a_frozen_encoder_is_trained_from_stored_states() {
    let folder = folder();
    let cache = format!("strategy.cache='{}'", folder.path().join("cache").display());
    let frozen = ["strategy.kind=frozen", cache.as_str()];
    let (code, _, err) = run(&mut tune(folder.path(), "first", &frozen));
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("hidden states of 12 clips: 0.00 GB in"), "{err}");
    let states = |suffix: &str| {
        let found = fs::read_dir(folder.path().join("cache")).expect("a cache");
        let mut paths = found.map(|entry| entry.expect("an entry").path());
        paths.find(|path| path.to_string_lossy().ends_with(suffix)).expect("states")
    };
    // Cut short, the states are completed and the same model comes out.
    let bytes = fs::read(states(".states")).expect("states");
    fs::write(states(".states"), &bytes[..bytes.len() / 2]).expect("cut");
    let (code, _, err) = run(&mut tune(folder.path(), "again", &frozen));
    assert_eq!(code, 0, "{err}");
    assert!(fs::read(states(".states")).expect("states") == bytes, "the states differ");
    let model = |run: &str| folder.path().join(run).join("model");
    let weights = |run: &str| fs::read(model(run).join("model.safetensors")).expect("a model");
    assert!(weights("first") == weights("again"), "the models differ");

    // The checkpoint holds what is trained, and which upstream it goes with.
    let checkpoint = tensors(&folder.path().join("first/checkpoint.safetensors"));
    assert_eq!(checkpoint["upstream_sha256"].dims(), [32]);
    let trained = checkpoint.keys().filter_map(|name| name.strip_prefix("parameter."));
    let mut heads = 0;
    for name in trained {
        assert!(name.starts_with("downstream.") || name.starts_with("proj."), "{name}");
        heads += 1;
    }
    assert!(heads > 20);
    let sums = tensors(&model("first").join("model.safetensors"));
    let weights = sums["downstream.featurizer.weights"].to_dtype(candle_core::DType::F32);
    let weights = weights.and_then(|w| w.to_vec1::<f32>()).expect("weights");
    assert!(weights.iter().any(|&w| w != 0.0), "the sum of layers has learned");

    // The folder is a model like any other.
    let clip = folder.path().join("3.wav");
    for command in
        [&["transcribe", "-f", "json"][..], &["identify"], &["features", "-o", "/dev/null"]]
    {
        let (code, _, err) = run(asr().args(command).arg("-m").arg(model("first")).arg(&clip));
        assert_eq!(code, 0, "{command:?}: {err}");
    }
    assert!(!fs::metadata("/dev/null").expect("a device").is_file(), "devices keep their place");
    let (code, out, err) = run(asr()
        .args(["bench", "corpus", "-f", "json", "--disturb", "mu_law", "--manifest"])
        .arg(folder.path().join("manifest.tsv"))
        .arg("--list")
        .arg(folder.path().join("dev.tsv"))
        .arg("-m")
        .arg(model("first")));
    assert_eq!(code, 0, "{err}");
    let scores: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&scores["all"]["clips"], &scores["few_shot"]["clips"]), (&2.into(), &2.into()));

    // Going on with another upstream would make nonsense.
    let other = "upstream='tests/golden/xls-r-pretraining'";
    let (code, _, err) = run(tune(folder.path(), "first", &[frozen[0], other]).arg("--resume"));
    assert_eq!(code, 1, "{err}");
}

#[test]
fn part_of_an_encoder_or_adapters_in_it_are_trained() {
    let folder = folder();
    let before = tensors(&Path::new(UPSTREAM).join("model.safetensors"));
    let values = |tensors: &Tensors, name: &str| {
        let tensor = tensors[name].to_dtype(candle_core::DType::F16).expect("floats");
        tensor
            .flatten_all()
            .and_then(|t| t.to_dtype(candle_core::DType::F32)?.to_vec1::<f32>())
            .expect("values")
    };
    // Map of a layer here, there.
    let query = |layer: usize| {
        let ours = format!("encoder.layers.{layer}.self_attn.q_proj.weight");
        (ours, format!("encoder.layers.{layer}.attention.q_proj.weight"))
    };
    for (kind, sets, changed, absent) in [
        (
            "partial",
            &["strategy.layers=[1, 1]", "train.unfreeze_after=4"][..],
            [false, true],
            "lora",
        ),
        ("lora", &["strategy.rank=2", "strategy.alpha=4.0"], [true, true], "lora"),
        ("adapter", &["strategy.width=4", "upstream_rates={}"], [false, false], "lora"),
        ("full", &["data.augmentation.noise=0.5"], [true, true], "lora"),
    ] {
        let strategy = format!("strategy.kind={kind}");
        let mut all = vec![strategy.as_str()];
        all.extend(sets);
        let (code, _, err) = run(&mut tune(folder.path(), kind, &all));
        assert_eq!(code, 0, "{kind}: {err}");
        let after = tensors(&folder.path().join(kind).join("model/model.safetensors"));
        assert!(after.keys().all(|name| !name.contains(absent)), "{kind}");
        for (layer, changed) in changed.into_iter().enumerate() {
            let (ours, theirs) = query(layer);
            assert_eq!(
                values(&after, &ours) != values(&before, &theirs),
                changed,
                "{kind} {layer}"
            );
        }
        let front = values(&after, "feature_extractor.conv_layers.0.0.weight");
        let theirs = values(&before, "feature_extractor.conv_layers.0.conv.weight");
        assert_eq!(front, theirs, "{kind}: the front end stays");
        let (code, _, err) = run(asr()
            .args(["identify", "-m"])
            .arg(folder.path().join(kind).join("model"))
            .arg(folder.path().join("3.wav")));
        assert_eq!(code, 0, "{kind}: {err}");
    }
    let lora = tensors(&folder.path().join("lora/lora/adapter_model.safetensors"));
    let name = "base_model.model.encoder.layers.0.attention.q_proj.lora_B.weight";
    assert!(lora[name].abs().and_then(|t| t.sum_all()?.to_scalar::<f32>()).expect("a sum") > 0.0);
    let checkpoint = tensors(&folder.path().join("lora/checkpoint.safetensors"));
    assert!(!checkpoint.contains_key("parameter.encoder.layers.0.fc1.weight"));
}

#[test]
fn what_cannot_be_tuned_is_said_before_anything_is_computed() {
    let folder = folder();
    for (sets, want) in [
        (&["train.max_trainable=1e2"][..], "`max_trainable` allows 100"),
        (&["strategy.kind=partial", "strategy.layers=[1, 99]"], "strategy.layers"),
        (&["strategy.kind=frozen", "strategy.cache=c", "data.augmentation.noise=0.5"], "noise"),
        (&["data.augmentation.warp=0.1"], "warp"),
        (&["upstream='nothing-here'"], "nothing-here"),
        (&["initial_model='somewhere'"], "either `upstream`"),
        (&["downstream.transformer.heads=3"], "downstream.heads"),
    ] {
        let (code, _, err) = run(&mut tune(folder.path(), "refused", sets));
        assert_eq!(code, 1, "{sets:?}: {err}");
        assert!(err.contains(want), "{sets:?}: {err}");
    }
    assert!(!Path::new("c").exists());
}

#[test]
fn variants_are_compared_in_one_table_and_not_trained_twice() {
    let folder = folder();
    let path = folder.path();
    let compare = || {
        let mut command = asr();
        command.args(["bench", "ablation"]).arg(path.join("recipe.toml"));
        command.args(["--seeds", "1,2", "--disturb", "noise=10", "-o"]).arg(path.join("runs"));
        command.args(["--variant", "frozen: strategy.kind=frozen"]);
        command.args(["--variant", "wide: strategy.kind=adapter; strategy.width=3"]);
        for set in [
            format!("data.root='{}'", path.display()),
            format!("upstream='{UPSTREAM}'"),
            "train.schedule.steps=3".to_owned(),
        ] {
            command.arg("--set").arg(set);
        }
        run(&mut command)
    };
    let (code, table, err) = compare();
    assert_eq!(code, 0, "{err}");
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 2 + 2 * 2, "{table}");
    assert!(lines[0].contains("CER unseen %") && lines[0].contains("LID few-shot %"));
    assert!(
        lines[2].starts_with("| frozen | clean |") && lines[5].starts_with("| wide | noise=10 |")
    );
    assert!(lines[2].contains(" ± "), "{table}");
    let (code, again, err) = compare();
    assert_eq!((code, again.as_str()), (0, table.as_str()), "{err}");
    assert!(!err.contains("training") && !err.contains("scoring"), "{err}");
}
