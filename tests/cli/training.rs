//! A training run, whole and interrupted.

use super::{asr, run, wav};
use assert_cmd::Command;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// A corpus of tones in two "languages" with a dev list, and the recipe to train on it.
pub(crate) fn corpus(folder: &Path) {
    let mut manifest = String::from("path\tlanguage\tduration_s\ttext\n");
    for i in 0..14 {
        let (language, text) = if i % 2 == 0 { ("eng", "a b") } else { ("deu", "b a c") };
        let pitch = 0.05 + 0.01 * i as f32;
        let samples: Vec<f32> = (0..12_000 + 400 * i)
            .map(|n| 0.2 * (n as f32 * pitch).sin() * (n as f32 * 4e-4).sin())
            .collect();
        let name = format!("{i}.wav");
        fs::write(folder.join(&name), wav(&samples, 16_000)).expect("written");
        manifest.push_str(&format!(
            "{name}\t{language}\t{}\t{text}\n",
            samples.len() as f32 / 16_000.0
        ));
    }
    fs::write(folder.join("manifest.tsv"), manifest).expect("written");
    fs::write(folder.join("dev.tsv"), "path\tcondition\n0.wav\tseen\n1.wav\tunseen\n")
        .expect("written");
    let recipe = fs::read_to_string("models/default.toml").expect("the recipe is there");
    fs::write(folder.join("recipe.toml"), recipe).expect("written");
}

fn finetune(folder: &Path, output: &str, more: &[&str]) -> Command {
    let mut command = asr();
    command.arg("finetune").arg(folder.join("recipe.toml")).args(more);
    let output = folder.join(output);
    for set in [
        &format!("data.root='{}'", folder.display()),
        &format!("output='{}'", output.display()),
        "data.manifests=['manifest.tsv']",
        "data.weights=[]",
        "data.dev='dev.tsv'",
        "data.min_character_count=1",
        "data.batch.seconds=5.0",
        "data.batch.max_clip_s=5.0",
        "encoder.conv_layers=[{ dim = 16, kernel = 3, stride = 2 }, { dim = 16, kernel = 3, stride = 2 }]",
        "encoder.embed_dim=16",
        "encoder.ffn_dim=32",
        "encoder.heads=2",
        "encoder.stage_layers=[1, 1, 1]",
        "encoder.position_groups=2",
        "encoder.layer_drop=0.2",
        "train.schedule.steps=60",
        "train.schedule.warmup_steps=5",
        "train.log_every=10",
        "train.validate_every=30",
        "train.save_every=3",
    ] {
        command.arg("--set").arg(set);
    }
    command
}

/// The log without what depends on the clock.
fn losses(log: &Path) -> Vec<(u64, String)> {
    fs::read_to_string(log)
        .expect("a log")
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
        .filter(|line| line.get("lr").is_some())
        .map(|line| (line["step"].as_u64().expect("a step"), line["lr"].to_string()))
        .collect()
}

#[test]
fn a_run_killed_and_resumed_ends_like_one_never_stopped() {
    let folder = tempfile::tempdir().expect("a folder");
    corpus(folder.path());
    let (code, _, err) = run(&mut finetune(folder.path(), "whole", &[]));
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("step     60"), "{err}");

    // Killed twice at moments of its own choosing, each time after a checkpoint appeared.
    let checkpoint = folder.path().join("killed/checkpoint.safetensors");
    for more in [&[][..], &["--resume"]] {
        let before = fs::metadata(&checkpoint).and_then(|m| m.modified()).ok();
        let assembled = finetune(folder.path(), "killed", more);
        let mut child = std::process::Command::new(assembled.get_program())
            .args(assembled.get_args())
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary runs");
        let start = Instant::now();
        while fs::metadata(&checkpoint).and_then(|m| m.modified()).ok() == before {
            assert!(start.elapsed() < Duration::from_secs(60), "no checkpoint appears");
            if child.try_wait().expect("a child").is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(3));
        }
        child.kill().expect("killed");
        child.wait().expect("ended");
    }
    let (code, _, err) = run(&mut finetune(folder.path(), "killed", &["--resume"]));
    assert_eq!(code, 0, "{err}");
    let read = |run: &str| {
        fs::read(folder.path().join(run).join("model/model.safetensors")).expect("a model")
    };
    assert!(read("whole") == read("killed"), "the weights differ");
    let logs = ["whole", "killed"].map(|run| losses(&folder.path().join(run).join("log.jsonl")));
    assert_eq!(logs[0], logs[1]);

    // A folder that holds a run is not overwritten, and its model can be used.
    let (code, _, err) = run(&mut finetune(folder.path(), "whole", &[]));
    assert_eq!(code, 1);
    assert!(err.contains("already holds a run") && err.contains("--resume"), "{err}");
    let (code, out, err) = run(asr()
        .args(["bench", "corpus", "-f", "json", "--min-minutes", "0", "--manifest"])
        .arg(folder.path().join("manifest.tsv"))
        .arg("--list")
        .arg(folder.path().join("dev.tsv"))
        .arg("-m")
        .arg(folder.path().join("whole/model")));
    assert_eq!(code, 0, "{err}");
    let scores: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(scores["all"]["clips"], 2);
}

#[test]
fn faults_in_recipe_and_data_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    corpus(folder.path());
    for (set, want) in [
        ("train.schedule.peak=0", "schedule.peak"),
        ("encoder.heads=3", "heads"),
        ("data.manifests=['absent.tsv']", "absent.tsv"),
        ("data.batch.temperature=2.0", "temperature"),
        ("train.colour='red'", "colour"),
    ] {
        // Of two settings of one key the last counts.
        let (code, _, err) = run(finetune(folder.path(), "faulty", &[]).args(["--set", set]));
        assert_eq!(code, 1, "{set}: {err}");
        assert!(err.contains(want) && err.starts_with("error: "), "{set}: {err}");
    }
    fs::remove_file(folder.path().join("5.wav")).expect("removed");
    let (code, _, err) = run(&mut finetune(folder.path(), "faulty", &[]));
    assert_eq!(code, 1);
    assert!(err.contains("5.wav"), "{err}");
}

#[test]
fn an_interrupted_run_saves_and_exits_with_130() {
    let folder = tempfile::tempdir().expect("a folder");
    corpus(folder.path());
    let assembled = finetune(folder.path(), "stopped", &["--set", "train.log_every=1"]);
    let mut child = std::process::Command::new(assembled.get_program())
        .args(assembled.get_args())
        .args(["--set", "train.schedule.steps=100000"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary runs");
    let start = Instant::now();
    let log = folder.path().join("stopped/log.jsonl");
    while fs::metadata(&log).map_or(0, |m| m.len()) == 0 {
        assert!(start.elapsed() < Duration::from_secs(60), "nothing is logged");
        std::thread::sleep(Duration::from_millis(5));
    }
    let interrupted =
        std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(interrupted.expect("kill runs").success());
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "the run does not stop");
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(status.code(), Some(130));
    assert!(folder.path().join("stopped/checkpoint.safetensors").exists());
    assert!(folder.path().join("stopped/model/model.safetensors").exists());
}

/// A plain model is given heads for language and place and goes on learning: other dropout
/// rates and new modules are no other model.
#[test]
fn a_model_is_given_heads_and_says_where_the_voice_points() {
    let folder = tempfile::tempdir().expect("a folder");
    corpus(folder.path());
    let short = ["--set", "train.schedule.steps=12", "--set", "train.validate_every=12"];
    let (code, _, err) = run(&mut finetune(folder.path(), "plain", &short));
    assert_eq!(code, 0, "{err}");
    let initial = format!("initial_model='{}'", folder.path().join("plain/model").display());
    let more = [
        initial.as_str(),
        "encoder.dropout=0.2",
        "joint.intermediate_ctc={ taps = [{ block = 0, predicts = 'language_per_word' }], projection = 'own', conditioning = false }",
        "joint.geo={ blocks = [1], bottleneck = 4, embedding = 8, conditioning = 'shared_frozen' }",
        "joint.language={ bottleneck = 4, embedding = 8, sub_centres = 2, location = true }",
        "train.intermediate_weight=0.3",
        "train.language_loss={ weight = 1.0, margin = { margin = 0.2, scale = 30.0 }, places = { share = 0.2, intermediate = 0.4, blending = 'documented' } }",
        "train.ctc_dro={ step = 0.01, smoothing = 0.1 }",
        "train.encoder_rate=0.5",
        "train.frozen=['feature_extractor.']",
    ];
    let joint = |output: &str, more: &[&str], extra: &[&str]| {
        let mut command = finetune(folder.path(), output, &short);
        for set in more.iter().chain(extra) {
            command.arg("--set").arg(set);
        }
        command
    };
    let (code, _, err) = run(&mut joint("joint", &more, &[]));
    assert_eq!(code, 0, "{err}");

    // What only teaches is left out, but for what can name the language; what is frozen is what
    // it was.
    let model = folder.path().join("joint/model");
    let config = fs::read_to_string(model.join("config.json")).expect("a configuration");
    let config: serde_json::Value = serde_json::from_str(&config).expect("JSON");
    assert!(config["joint"]["geo"].is_object() && config["joint"]["language"].is_object());
    assert!(config["joint"]["intermediate_ctc"].is_object(), "{config}");
    let weights = |run: &str| {
        let path = folder.path().join(run).join("model/model.safetensors");
        candle_core::safetensors::load(path, &candle_core::Device::Cpu).expect("weights")
    };
    let (plain, after) = (weights("plain"), weights("joint"));
    assert!(after.contains_key("intermediate_ctc.proj.weight"));
    assert!(after.keys().all(|name| !name.starts_with("low_proj.")));
    let values = |tensors: &std::collections::HashMap<String, candle_core::Tensor>, name: &str| {
        let tensor = tensors[name].to_dtype(candle_core::DType::F32).expect("floats");
        tensor.flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("f32")
    };
    let frozen = "feature_extractor.conv_layers.0.0.weight";
    assert_eq!(values(&plain, frozen), values(&after, frozen));
    let learned = "encoders.0.layers.0.fc1.weight";
    assert_ne!(values(&plain, learned), values(&after, learned));

    // Whatever it hears in a tone, it answers in the form that was promised.
    let (code, out, err) = run(asr()
        .args(["identify", "-f", "json", "--unknown-threshold", "1", "-m"])
        .arg(&model)
        .arg(folder.path().join("3.wav")));
    assert_eq!(code, 0, "{err}");
    let found: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let found = &found[0];
    let heard = found["languages"].as_array().is_some_and(|l| !l.is_empty());
    assert_eq!(found["location"].is_object(), heard, "{out}");
    if heard {
        let latitude = found["location"]["lat"].as_f64().expect("degrees");
        assert!((-90.0..=90.0).contains(&latitude));
    }
    // Every source of the language can be asked; the embedded model may have the tag alone.
    for source in ["tag", "aux", "both"] {
        let (code, _, err) = run(asr()
            .args(["identify", "--lid-from", source, "-m"])
            .arg(&model)
            .arg(folder.path().join("3.wav")));
        assert_eq!(code, 0, "{source}: {err}");
    }
    let (code, _, err) = run(asr()
        .args(["identify", "--lid-from", "both", "-m"])
        .arg(folder.path().join("plain/model"))
        .arg(folder.path().join("3.wav")));
    assert_eq!(code, 1);
    assert!(err.contains("no choice of where the language is taken from"), "{err}");
    let (code, _, err) = run(asr().args(["identify", "--unknown-threshold", "2", "x.wav"]));
    assert_eq!(code, 2);
    assert!(err.contains("0 to 1"), "{err}");

    for (set, want) in [
        ("train.frozen=['nothing.']", "`nothing.`"),
        ("train.max_trainable=1e1", "`max_trainable` allows 10"),
        ("train.max_trainable=0.5", "a whole number"),
        ("encoder.ffn_dim=48", "another encoder"),
    ] {
        let (code, _, err) = run(&mut joint("refused", &more, &[set]));
        assert_eq!(code, 1, "{set}: {err}");
        assert!(err.contains(want), "{set}: {err}");
        let _ = fs::remove_dir_all(folder.path().join("refused"));
    }
}
