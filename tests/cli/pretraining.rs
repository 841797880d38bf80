//! Pre-training from labels in files: whole and killed, with what follows, and its faults.

use super::{asr, run, wav};
use assert_cmd::Command;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const CLIPS: usize = 16;
const UNITS: usize = 5;

fn samples(clip: usize) -> usize {
    17_000 + 700 * clip
}

/// Labels every 10 ms, one line per clip.
fn labels(folder: &Path, name: &str, of_clip: impl Fn(usize) -> usize) {
    let folder = folder.join(name);
    fs::create_dir_all(&folder).expect("created");
    let line = |clip: usize| {
        let units: Vec<String> =
            (0..of_clip(clip)).map(|t| ((t / 7 + clip) % UNITS).to_string()).collect();
        units.join(" ") + "\n"
    };
    fs::write(folder.join("train.km"), (0..CLIPS).map(line).collect::<String>()).expect("written");
    let dictionary: String = (0..UNITS).map(|unit| format!("{unit} 1\n")).collect();
    fs::write(folder.join("dict.km.txt"), dictionary).expect("written");
    fs::write(folder.join("rate.km.txt"), "100\n").expect("written");
}

fn manifest(folder: &Path, rows: impl Iterator<Item = usize>) {
    let mut text = String::from("path\tlanguage\tduration_s\n");
    for i in rows {
        let language = if i % 2 == 0 { "eng" } else { "deu" };
        text.push_str(&format!("{i}.wav\t{language}\t{}\n", samples(i) as f32 / 16_000.0));
    }
    fs::write(folder.join("manifest.tsv"), text).expect("written");
}

/// Tones in two "languages", labels that fit them, and the recipe of the tiny preset.
fn corpus(folder: &Path) {
    for i in 0..CLIPS {
        let pitch = 0.05 + 0.01 * i as f32;
        let tone: Vec<f32> = (0..samples(i))
            .map(|n| 0.2 * (n as f32 * pitch).sin() * (n as f32 * 4e-4).sin())
            .collect();
        fs::write(folder.join(format!("{i}.wav")), wav(&tone, 16_000)).expect("written");
    }
    manifest(folder, 0..CLIPS);
    labels(folder, "labels", |clip| 1 + (samples(clip) - 400) / 160);
    fs::write(folder.join("dev.tsv"), "path\tcondition\n0.wav\tseen\n1.wav\tunseen\n")
        .expect("written");
    let recipe = fs::read_to_string("models/mr-hubert-tiny.toml").expect("the recipe is there");
    fs::write(folder.join("recipe.toml"), recipe).expect("written");
}

/// A HuBERT, then a MR-HuBERT, both on the labels of the folder.
fn pretrain(folder: &Path, output: &str, more: &[&str]) -> Command {
    let path = folder.join("labels/train.km");
    let labels = format!("labels = [{{ from = 'file', path = '{}' }}]", path.display());
    let tree = "encoder = { stage_layers = [1, 1, 1], rate_ratios = [[1, 2]], variant = { family = 'mr_hubert' } }";
    let mut command = asr();
    command.arg("pretrain").arg(folder.join("recipe.toml")).args(more);
    for set in [
        format!("data.root='{}'", folder.display()),
        format!("output='{}'", folder.join(output).display()),
        format!("stage={{ it1 = {{ {labels} }}, mr-hubert = {{ {labels}, {tree} }} }}"),
    ] {
        command.arg("--set").arg(set);
    }
    for set in [
        "stages=['it1', 'mr-hubert']",
        "data.manifests=['manifest.tsv']",
        "data.dev='dev.tsv'",
        "data.max_unreadable=0.1",
        "batch.seconds=5.0",
        "batch.max_crop_s=1.4",
        "encoder.conv_layers=[{ dim = 16, kernel = 3, stride = 2 }, { dim = 16, kernel = 3, stride = 2 }]",
        "encoder.embed_dim=16",
        "encoder.ffn_dim=32",
        "encoder.heads=2",
        "encoder.stage_layers=[2]",
        "encoder.position_groups=2",
        "encoder.layer_drop=0.2",
        "encoder.dropout=0.1",
        "objective.final_dim=8",
        "objective.penalty_weight=1.0",
        "objective.front_end_gradient=0.5",
        "mixing={ probability = 0.5, noise_share = 0.1, noise_snr_db = [0.0, 5.0], voice_snr_db = [0.0, 5.0] }",
        "train.schedule.steps=40",
        "train.schedule.warmup_steps=5",
        "train.log_every=10",
        "train.validate_every=20",
        "train.save_every=3",
    ] {
        command.arg("--set").arg(set);
    }
    command
}

fn log(folder: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(folder.join("log.jsonl")).expect("a log");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn a_run_killed_and_resumed_ends_like_one_never_stopped() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    corpus(folder);
    let start = Instant::now();
    let (code, _, err) = run(&mut pretrain(folder, "whole", &[]));
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("whole, 2 stages") || err.contains("2 stages"), "{err}");
    assert!(err.contains("held out") && err.contains("left"), "{err}");

    let seed = kill_at_ten_moments(folder, start.elapsed());
    let (code, _, err) = run(&mut pretrain(folder, "killed", &["--resume"]));
    assert_eq!(code, 0, "{err}");
    for stage in ["it1", "mr-hubert"] {
        let read = |run: &str| {
            let model = folder.join(run).join(stage).join("model/model.safetensors");
            fs::read(model).expect("a model")
        };
        assert!(read("whole") == read("killed"), "the weights of {stage} differ, seed {seed}");
        let validations = |run: &str| -> Vec<serde_json::Value> {
            let lines = log(&folder.join(run).join(stage));
            lines.into_iter().filter(|line| line.get("dev").is_some()).collect()
        };
        assert_eq!(validations("whole"), validations("killed"), "seed {seed}");
        assert_eq!(validations("whole").len(), 2);
        assert!(folder.join("whole").join(stage).join("events.out.tfevents.0.asr").is_file());
    }
    // Both resolutions of the second stage are in its log.
    let last = log(&folder.join("whole/mr-hubert")).pop().expect("lines");
    for rate in ["40ms", "80ms"] {
        let head = &last["dev"]["heads"][rate];
        assert!(head["accuracy"].as_f64().is_some_and(|a| (0.0..=1.0).contains(&a)), "{last}");
        assert!(head["perplexity_labels"].as_f64().is_some_and(|p| p > 3.0), "{last}");
    }

    // What is done is skipped; another recipe, or a run without `--resume`, is refused.
    let (code, _, err) = run(&mut pretrain(folder, "whole", &["--resume"]));
    assert_eq!(code, 0, "{err}");
    assert_eq!(err.matches("done, skipped").count(), 2, "{err}");
    assert!(!err.contains("  lr "), "{err}");
    let (code, _, err) = run(&mut pretrain(folder, "whole", &[]));
    assert_eq!(code, 1);
    assert!(err.contains("already holds a run") && err.contains("--resume"), "{err}");
    let (code, _, err) =
        run(pretrain(folder, "whole", &["--resume"]).args(["--set", "train.seed=5"]));
    assert_eq!(code, 1);
    assert!(err.contains("other settings of `it1`"), "{err}");

    the_encoder_is_a_model(folder);
}

/// Kills the run `killed` ten times, each time at a random moment after it was started or
/// resumed; the seed of the moments. `whole` is how long a run takes.
fn kill_at_ten_moments(folder: &Path, whole: Duration) -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let seed = since_1970.as_nanos() as u64;
    let mut random = asr::data::Random::new(&[seed]);
    let mut kills = 0;
    while kills < 10 {
        let exists = folder.join("killed").exists();
        let assembled = pretrain(folder, "killed", if exists { &["--resume"] } else { &[] });
        let mut child = std::process::Command::new(assembled.get_program())
            .args(assembled.get_args())
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary runs");
        std::thread::sleep(whole.mul_f64(random.between(0.0, 0.4)));
        if child.try_wait().expect("a child").is_some() {
            // It came to its end: the next begins anew.
            fs::remove_dir_all(folder.join("killed")).expect("removed");
            continue;
        }
        child.kill().expect("killed");
        child.wait().expect("ended");
        kills += 1;
    }
    seed
}

/// Its layers can be had, and a recogniser starts from it.
fn the_encoder_is_a_model(folder: &Path) {
    let model = folder.join("whole/mr-hubert/model");
    let tensors = folder.join("out.safetensors");
    let (code, _, err) = run(asr()
        .args(["features", "--layers", "0,3", "-m"])
        .arg(&model)
        .arg(folder.join("3.wav"))
        .arg("-o")
        .arg(&tensors));
    assert_eq!(code, 0, "{err}");
    let tensors =
        candle_core::safetensors::load(&tensors, &candle_core::Device::Cpu).expect("tensors");
    let names: Vec<&str> = ["final", "hidden_states.0", "resolution.40ms", "resolution.80ms"]
        .into_iter()
        .filter(|name| tensors.contains_key(*name))
        .collect();
    assert_eq!(names.len(), 4, "{:?}", tensors.keys());
    let (code, out, err) = run(asr().args(["models", "inspect", "--json"]).arg(&model));
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("MR-HuBERT"), "{out}");

    let text: String = (0..CLIPS)
        .map(|i| format!("{i}.wav\t{}\t1.2\ta b\n", if i % 2 == 0 { "eng" } else { "deu" }))
        .collect();
    fs::write(folder.join("text.tsv"), format!("path\tlanguage\tduration_s\ttext\n{text}"))
        .expect("written");
    let finetune = |shape: &str| {
        let mut command = asr();
        command.args(["finetune", "models/default.toml"]);
        for set in [
            format!("data.root='{}'", folder.display()),
            format!("data.dev='{}'", folder.join("dev.tsv").display()),
            format!("output='{}'", folder.join("recogniser").display()),
            format!("initial_model='{}'", model.display()),
        ] {
            command.arg("--set").arg(set);
        }
        for set in [
            "data.manifests=['text.tsv']",
            "data.weights=[]",
            "data.min_character_count=1",
            "data.batch.seconds=5.0",
            "data.batch.max_clip_s=5.0",
            "encoder.conv_layers=[{ dim = 16, kernel = 3, stride = 2 }, { dim = 16, kernel = 3, stride = 2 }]",
            "encoder.embed_dim=16",
            "encoder.heads=2",
            "encoder.stage_layers=[1, 1, 1]",
            "encoder.position_groups=2",
            "train.schedule.steps=1",
            "train.schedule.warmup_steps=0",
            "train.schedule.peak=1e-12",
            "train.save_every=1",
        ] {
            command.arg("--set").arg(set);
        }
        command.arg("--set").arg(shape);
        command
    };
    let (code, _, err) = run(&mut finetune("encoder.ffn_dim=48"));
    assert_eq!(code, 1);
    assert!(err.contains("another encoder"), "{err}");
    let _ = fs::remove_dir_all(folder.join("recogniser"));
    let (code, _, err) = run(&mut finetune("encoder.ffn_dim=32"));
    assert_eq!(code, 0, "{err}");
    // A step of next to nothing: the recogniser's encoder is the pre-trained one.
    let weights = |path: &Path| {
        candle_core::safetensors::load(path.join("model.safetensors"), &candle_core::Device::Cpu)
            .expect("weights")
    };
    let (before, after) = (weights(&model), weights(&folder.join("recogniser/model")));
    let values = |tensors: &std::collections::HashMap<String, candle_core::Tensor>, name: &str| {
        let tensor = tensors[name].to_dtype(candle_core::DType::F16).expect("floats");
        let tensor = tensor.to_dtype(candle_core::DType::F32).expect("floats");
        tensor.flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("f32")
    };
    let name = "middle_encoder.layers.0.fc1.weight";
    let pairs = values(&before, name).into_iter().zip(values(&after, name));
    assert!(pairs.clone().count() > 0 && pairs.clone().all(|(b, a)| (b - a).abs() < 1e-3));
    assert!(after.keys().all(|name| !name.starts_with("final_proj") && name != "mask_emb"));
}

#[test]
fn faults_in_data_and_labels_are_named_and_nothing_is_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    corpus(folder);
    let fault = |want: &str, more: &[&str]| {
        let (code, _, err) = run(&mut pretrain(folder, "faulty", more));
        assert_eq!(code, 1, "{want}: {err}");
        assert!(err.contains(want) && err.contains("error: "), "{want}: {err}");
    };
    // Labels that end 0.3 s before their clip are a mismatch, not a warning.
    labels(folder, "labels", |clip| (samples(clip) - 400) / 160 - if clip == 5 { 30 } else { 0 });
    fault("5.wav", &[]);
    labels(folder, "labels", |clip| 1 + (samples(clip) - 400) / 160);
    manifest(folder, 0..CLIPS - 1);
    fault("16 clips", &["--resume"]);
    manifest(folder, [0, 1, 2, 1].into_iter());
    fault("line 5: `1.wav` is listed twice", &["--resume"]);
}

#[cfg(not(feature = "faiss"))]
#[test]
fn labels_that_would_have_to_be_made_need_faiss() {
    let folder = tempfile::tempdir().expect("a folder");
    corpus(folder.path());
    let sets = ["--set", "stage.it1.labels=[{ from = 'mfcc', units = 5 }]"];
    let (code, _, err) = run(pretrain(folder.path(), "none", &[]).args(sets));
    assert_eq!(code, 1);
    assert!(err.contains("built without `faiss`; rebuild with `--features faiss`"), "{err}");
    assert!(err.contains("hint: "), "{err}");
}

/// The clusters of MFCC, then of a layer; the second run finds all of it done.
#[cfg(feature = "faiss")]
#[test]
fn labels_are_made_of_mfcc_and_of_layers() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    corpus(folder);
    let sets = [
        "--set",
        "stage.it1.labels=[{ from = 'mfcc', units = 5 }]",
        "--set",
        "stage.mr-hubert.labels=[{ from = 'layer', of = { stage = 'it1' }, layer = 1, units = 4 }]",
    ];
    let (code, _, err) = run(pretrain(folder, "made", &[]).args(sets));
    assert_eq!(code, 0, "{err}");
    for (stage, rate_hz, first_s) in [("it1", 100.0, 0.0125), ("mr-hubert", 25.0, 0.0425)] {
        let at = folder.join("made").join(stage);
        assert!(at.join("labels-0.units").is_file() && at.join("labels-0.faiss").is_file());
        let notes = fs::read_to_string(at.join("labels-0.json")).expect("notes");
        let notes: serde_json::Value = serde_json::from_str(&notes).expect("JSON");
        let found = notes["first_s"].as_f64().expect("seconds");
        assert!((found - first_s).abs() < 1e-9, "{stage}: {found}");
        let labels = asr::pretrain::UnitLabels::open(&at.join("labels-0.units")).expect("labels");
        assert_eq!(labels.n_clips(), CLIPS);
        assert!((labels.rate_hz() - rate_hz).abs() < 1e-9, "{}", labels.rate_hz());
    }
    let (code, _, err) = run(pretrain(folder, "made", &["--resume"]).args(sets));
    assert_eq!(code, 0, "{err}");
    assert_eq!(err.matches("done, skipped").count(), 2, "{err}");
}

#[test]
fn unreadable_clips_are_listed_and_left_out_up_to_a_share() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    corpus(folder);
    fs::write(folder.join("7.wav"), "no sound at all").expect("written");
    let short = ["--set", "train.schedule.steps=6"];
    let (code, _, err) = run(pretrain(folder, "one", &[]).args(short));
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("left out") && err.contains("7.wav"), "{err}");
    fs::remove_file(folder.join("8.wav")).expect("removed");
    let (code, _, err) = run(pretrain(folder, "two", &[]).args(short));
    assert_eq!(code, 1);
    assert!(err.contains("2 of 16 clips cannot be read"), "{err}");
    // A language of which no clip is of a usable length.
    fs::write(folder.join("7.wav"), fs::read(folder.join("6.wav")).expect("a clip"))
        .expect("written");
    manifest(folder, 0..7);
    let mut text = fs::read_to_string(folder.join("manifest.tsv")).expect("a manifest");
    text.push_str("15.wav\tfra\t1.7\n");
    fs::write(folder.join("manifest.tsv"), text).expect("written");
    let line = |clip: usize| vec!["1"; 1 + (samples(clip) - 400) / 160].join(" ") + "\n";
    let lines: String = (0..7).chain([15]).map(line).collect();
    fs::write(folder.join("labels/train.km"), lines).expect("written");
    let sets = ["--set", "data.max_clip_s=1.6", "--set", "train.schedule.steps=6"];
    let (code, _, err) = run(pretrain(folder, "three", &[]).args(sets));
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("no clip of language fra is left to train on"), "{err}");
    let (code, _, err) = run(pretrain(folder, "none", &[]).args([
        "--set",
        "data.min_clip_s=1.9",
        "--set",
        "batch.max_crop_s=2.0",
    ]));
    assert_eq!(code, 1);
    assert!(err.contains("no clip is left to train on"), "{err}");
}

/// Everything a run writes goes to a file system of a megabyte: it fills while labels, checkpoints
/// or the model are written. What was whole stays whole, and with more room the run goes on.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_named_and_nothing_is_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    corpus(folder);
    let (code, _, err) = run(&mut pretrain(folder, "whole", &[]));
    assert_eq!(code, 0, "{err}");
    let small = folder.join("small");
    fs::create_dir(&small).expect("created");
    let assembled = pretrain(folder, "small/run", &[]);
    let quoted = |word: &std::ffi::OsStr| {
        format!("'{}'", word.to_str().expect("UTF-8").replace('\'', "'\\''"))
    };
    let command: Vec<String> =
        std::iter::once(assembled.get_program()).chain(assembled.get_args()).map(quoted).collect();
    let command = command.join(" ");
    // As many kilobytes as a checkpoint and a half of the second stage need, then enough.
    let checkpoint = folder.join("whole/mr-hubert/checkpoint.safetensors");
    let room = fs::metadata(&checkpoint).expect("a checkpoint").len() * 3 / 2 / 1024 + 40;
    let script = format!(
        "mount -t tmpfs -o size={room}k small '{small}' || exit 99\n\
         {command}; echo first $?\n\
         mount -o remount,size=64m '{small}'\n\
         {command} --resume; echo second $?\n\
         cp -r '{small}/run' '{result}'",
        small = small.display(),
        result = folder.join("result").display(),
    );
    // A mount that only this process sees.
    let output = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    let Ok(output) = output else {
        eprintln!("skipped: `unshare` is not there");
        return;
    };
    let err = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(99) || err.contains("unshare failed") {
        eprintln!("skipped: this user may not mount: {err}");
        return;
    }
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(out.contains("first 1") && out.contains("second 0"), "{out}{err}");
    assert!(err.contains("No space left on device") && err.contains("small/run/"), "{err}");
    for stage in ["it1", "mr-hubert"] {
        let weights =
            |run: &str| fs::read(folder.join(run).join(stage).join("model/model.safetensors"));
        assert!(
            weights("whole").expect("a model") == weights("result").expect("a model"),
            "the weights of {stage} differ"
        );
    }
}
