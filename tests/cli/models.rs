//! `asr models`.

use crate::{asr, run};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn broken(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/broken-checkpoints").join(path)
}

/// What the message of a file must say.
const REASONS: [(&str, &str); 40] = [
    ("pickle/os_system.pt", "`posix.system`"),
    ("pickle/eval.pt", "`__builtin__.eval`"),
    ("pickle/legacy_exec.pt", "exec`"),
    ("pickle/raw_pickle.bin", "`posix.system`"),
    ("pickle/nested_subprocess.pt", "`commands.call`"),
    ("pickle/getattr_chain.pt", "`_operator.call`"),
    ("pickle/truncated_zip.pt", "cut off"),
    ("pickle/truncated_legacy.pt", "cut off"),
    ("pickle/empty.pt", "empty"),
    ("pickle/html_page.pt", "web page"),
    ("pickle/git_lfs_pointer.bin", "Git LFS pointer"),
    ("pickle/zip_without_data_pkl.pt", "`data.pkl` is missing"),
    ("pickle/missing_storage.pt", "is missing"),
    ("pickle/short_storage.pt", "bytes, the file holds"),
    ("pickle/out_of_bounds_view.pt", "its storage holds"),
    ("pickle/memo_bomb.bin", "memo slot 2147483647"),
    ("pickle/unknown_opcode.bin", "0xff"),
    ("safetensors/huge_header_length.safetensors", "header claims"),
    ("safetensors/header_not_utf8.safetensors", "UTF-8"),
    ("safetensors/overlapping_offsets.safetensors", "overlaps"),
    ("safetensors/reversed_offsets.safetensors", "ends before it begins"),
    ("safetensors/unknown_dtype.safetensors", "`Q7`"),
    ("safetensors/shape_overflow.safetensors", "overflows"),
    ("safetensors/hole.safetensors", "belong to none"),
    ("safetensors/trailing_bytes.safetensors", "after the last tensor"),
    ("safetensors/duplicate_key.safetensors", "\"a\" appears twice"),
    ("folders/missing_key", "`encoder.layers.1.attention.k_proj.weight`"),
    ("folders/missing_layer", "encoder.layers.2."),
    ("folders/shape_mismatch", "[16, 9], the configuration asks for [16, 8]"),
    ("folders/nan_weight", "NaN or infinity"),
    ("folders/inf_weight", "NaN or infinity"),
    ("folders/integer_weight", "i64"),
    ("folders/head_count_does_not_divide", "head"),
    ("folders/unknown_model_type", "model_type"),
    ("folders/absurd_config", "layers"),
    ("folders/conv_lists_disagree", "conv_"),
    ("folders/config_not_json", "config.json"),
    ("folders/no_config", "config.json"),
    ("folders/missing_shard", "model-00002-of-00002.safetensors"),
    ("folders/shard_traversal", "PWNED.safetensors"),
];

/// Whether a file called PWNED is anywhere below.
fn is_pwned(folder: &Path) -> bool {
    std::fs::read_dir(folder).expect("a folder").flatten().any(|entry| {
        let path = entry.path();
        entry.file_name().to_string_lossy().starts_with("PWNED")
            || (path.is_dir() && is_pwned(&path))
    })
}

#[test]
fn inspect_refuses_what_is_broken_and_runs_nothing() {
    let outcomes = std::fs::read_to_string(broken("OUTCOMES.txt")).expect("the case is there");
    let elsewhere = tempfile::tempdir().expect("a folder");
    let mut seen = 0;
    for line in outcomes.lines() {
        let mut words = line.split_whitespace();
        let (Some(outcome), Some(path)) = (words.next(), words.next()) else { continue };
        if !["pickle/", "safetensors/", "folders/"].iter().any(|kind| path.starts_with(kind)) {
            continue;
        }
        seen += 1;
        let started = Instant::now();
        let (code, out, err) = run(asr()
            .current_dir(elsewhere.path())
            .args(["models", "inspect", "--offline"])
            .arg(broken(path)));
        assert!(started.elapsed() < Duration::from_secs(5), "{path} takes {:?}", started.elapsed());
        match outcome {
            "load" => assert!(code == 0 && !out.is_empty(), "{path}: {err}"),
            "warn" => {
                assert_eq!(code, 0, "{path}: {err}");
                assert!(err.starts_with("warning: "), "{err}");
                assert!(err.matches('`').count() >= 6, "names two tensors: {err}");
            }
            "error" => {
                assert_eq!(code, 1, "{path}: {out}{err}");
                let name = Path::new(path).file_name().expect("a name").to_string_lossy();
                assert!(err.starts_with("error: ") && err.contains(name.as_ref()), "{path}: {err}");
                assert_eq!(out, "", "{path}");
            }
            "load-or-error" => assert!(code == 0 || code == 1, "{path}: {err}"),
            other => panic!("{path}: what is {other}?"),
        }
        if let Some((_, reason)) = REASONS.iter().find(|(file, _)| *file == path) {
            assert!(err.contains(reason), "{path}: {err} does not say {reason}");
        }
    }
    assert_eq!(seen, 62);
    assert!(!is_pwned(elsewhere.path()) && !is_pwned(&broken("")), "code of a file was run");
}

#[test]
fn inspect_describes_models() {
    let (code, out, err) = run(asr().args(["models", "inspect", "default", "--json"]));
    assert_eq!((code, err.as_str()), (0, ""));
    let report: Value = serde_json::from_str(&out).expect("one JSON object");
    assert_eq!(report["container"], "safetensors");
    assert_eq!(report["model"]["family"], "MR-HuBERT");
    assert_eq!(report["model"]["resolutions_ms"], serde_json::json!([80.0, 40.0]));
    assert_eq!(report["model"]["head"], "ctc");
    assert!(report["tensors"].as_array().is_some_and(|tensors| tensors.len() > 100));
    let control = broken("folders/control");
    let (code, out, err) = run(asr().args(["models", "inspect"]).arg(&control));
    assert_eq!((code, err.as_str()), (0, ""));
    for fact in ["family        HuBERT", "container     safetensors", "licence       not stated"] {
        assert!(out.contains(fact), "{out}");
    }
    assert!(out.contains("\nencoder.layers.0.attention.k_proj.weight "), "{out}");
}

#[test]
fn models_of_the_hub_are_listed_and_found_in_the_cache() {
    let home = tempfile::tempdir().expect("a folder");
    let model = home.path().join("hub/models--org--tiny");
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let snapshot = model.join("snapshots").join(commit);
    std::fs::create_dir_all(&snapshot).expect("space is left");
    std::fs::create_dir_all(model.join("refs")).expect("space is left");
    std::fs::write(model.join("refs/main"), commit).expect("space is left");
    for file in ["config.json", "model.safetensors", "preprocessor_config.json"] {
        std::fs::copy(broken("folders/control").join(file), snapshot.join(file)).expect("a copy");
    }
    std::fs::write(snapshot.join("README.md"), "---\nlicense: cc-by-nc-4.0\n---\n")
        .expect("space is left");
    // An endpoint where nobody answers: the cache has to do.
    let hub = || {
        let mut command = asr();
        command.env("HF_HOME", home.path()).env("HF_ENDPOINT", "http://127.0.0.1:9");
        command.env_remove("HF_HUB_CACHE").env_remove("HF_HUB_OFFLINE");
        command
    };
    let (code, out, _) = run(hub().args(["models", "list"]));
    assert_eq!(code, 0);
    assert!(out.contains("default") && out.contains("org/tiny"), "{out}");
    let (code, out, err) = run(hub().args(["models", "inspect", "org/tiny"]));
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("licence       cc-by-nc-4.0"), "{out}");
    let (code, out, _) = run(hub().args(["models", "pull", "org/tiny", "--offline"]));
    assert_eq!((code, out.trim()), (0, snapshot.to_str().expect("UTF-8")));
    let (code, _, err) = run(hub().args(["models", "pull", "org/other", "--offline"]));
    assert_eq!(code, 1);
    assert!(err.contains("`org/other` is not in the cache") && err.contains("hint: "), "{err}");
    let (code, _, err) = run(hub().args(["models", "pull", "not-a-name"]));
    assert!(code == 1 && err.contains("ORG/NAME"), "{err}");
}

#[test]
fn candidates_that_a_classifier_does_not_know_are_an_error() {
    let identify = |candidates| {
        let arguments = ["identify", "examples/audio/eng.flac", "--candidates", candidates];
        run(asr().args(arguments).args(["-m", "tests/golden/mms-lid"]))
    };
    let (code, out, err) = identify("kor");
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("none of the languages asked for: kor"), "{err}");
    let (code, out, _) = identify("kor,spa");
    assert_eq!(code, 0);
    assert!(out.contains("spa"), "{out}");
}

/// Tensors that `asr features` writes of a clip.
fn features(model: &Path, extra: &[&str], to: &Path) -> Vec<u8> {
    let mut command = asr();
    command.args(["features", "examples/audio/eng.flac", "--layers", "0,1", "-m"]).arg(model);
    let (code, _, err) = run(command.args(extra).arg("-o").arg(to));
    assert_eq!(code, 0, "{err}");
    std::fs::read(to).expect("it was written")
}

#[test]
fn an_imported_folder_gives_the_same_bytes_and_says_where_it_is_from() {
    let here = tempfile::tempdir().expect("a folder");
    let (out, file) = (here.path().join("mr hubert"), here.path().join("x.safetensors"));
    let source = Path::new("tests/golden/mr-hubert-2res-large/checkpoint.pt");
    let import = || {
        let mut command = asr();
        command.args(["models", "import"]).arg(source).arg(&out);
        run(&mut command)
    };
    let (code, printed, err) = import();
    assert_eq!((code, printed.trim()), (0, out.to_str().expect("UTF-8")), "{err}");
    assert!(err.contains("does not say what its licence is"), "{err}");
    assert_eq!(features(source, &[], &file), features(&out, &[], &file), "other numbers");
    assert!(out.join("config.json").is_file() && out.join("model.safetensors").is_file());
    assert_eq!(std::fs::read_dir(&out).expect("a folder").count(), 2, "nothing else stays");

    let (code, text, err) = run(asr().args(["models", "inspect", "--json"]).arg(&out));
    assert_eq!((code, err.as_str()), (0, ""));
    let report: Value = serde_json::from_str(&text).expect("one JSON object");
    assert_eq!(report["model"]["family"], "MR-HuBERT");
    assert_eq!(report["source"]["files"][0]["file"], "checkpoint.pt");
    let sha256 = report["source"]["files"][0]["sha256"].as_str().expect("a text");
    assert_eq!(sha256.len(), 64);

    let (code, out_text, err) = import();
    assert_eq!((code, out_text.as_str()), (1, ""));
    assert!(err.contains("already holds a model") && err.contains("hint: "), "{err}");
    for ours in ["default", "models/default", out.to_str().expect("UTF-8")] {
        let other = here.path().join("other");
        let (code, _, err) = run(asr().args(["models", "import", ours]).arg(&other));
        assert!(code == 1 && err.contains("a model of ours already"), "{err}");
        assert!(!other.exists());
    }
}

#[test]
fn languages_of_an_import_and_of_every_command_go_by_any_of_their_names() {
    let here = tempfile::tempdir().expect("a folder");
    let (out, file) = (here.path().join("mms"), here.path().join("x.safetensors"));
    let mms = Path::new("tests/golden/mms-adapters");
    let (code, _, err) =
        run(asr().args(["models", "import", "-l", "fr,kmr-script_latin"]).arg(mms).arg(&out));
    assert_eq!(code, 0, "{err}");
    assert!(out.join("adapter.fra.safetensors").is_file());
    assert!(!out.join("adapter.eng.safetensors").exists());
    let french = features(mms, &["-l", "fra"], &file);
    assert_eq!(features(&out, &["-l", "French"], &file), french);
    assert_ne!(features(&out, &[], &file), french, "the model's own language is another");

    let (code, _, err) =
        run(asr().args(["models", "import", "-l", "kmr"]).arg(mms).arg(here.path().join("no")));
    assert!(code == 1 && err.contains("`kmr-script_latin`"), "near names are missing: {err}");
    assert!(!here.path().join("no").exists());

    let transcribe = |language: &str| {
        let arguments = ["transcribe", "examples/audio/eng.flac", "-f", "json", "-l", language];
        let (code, text, err) = run(asr().args(arguments).arg("-m").arg(mms));
        assert_eq!(code, 0, "{language}: {err}");
        let all: Value = serde_json::from_str(&text).expect("JSON");
        all[0].clone()
    };
    let alone: Vec<Value> = ["fr", "kmr-script_latin"].map(transcribe).to_vec();
    assert_eq!((&alone[0]["language"], &alone[1]["language"]), (&"fra".into(), &"kmr".into()));
    let both = transcribe("fra,kmr-script_latin");
    assert!(alone.iter().any(|one| one["text"] == both["text"]), "{both}");
    assert_eq!(both["languages"].as_array().map(Vec::len), Some(2));
}

#[test]
fn each_input_may_have_a_language_of_its_own() {
    let here = tempfile::tempdir().expect("a folder");
    let file = here.path().join("x.safetensors");
    let features = |clips: &[&str], language: &str| {
        let mut command = asr();
        command.arg("features").args(clips).args(["--kind", "logits", "-l", language]);
        command.args(["-m", "tests/golden/mms-adapters", "-o"]).arg(&file);
        run(&mut command)
    };
    let tensor = |name: &str| {
        let bytes = std::fs::read(&file).expect("it was written");
        let file = safetensors::SafeTensors::deserialize(&bytes).expect("sound");
        file.tensor(name).expect("it is there").data().to_vec()
    };
    let (eng, fra) = ("examples/audio/eng.flac", "examples/audio/fra.mp3");
    assert_eq!(features(&[eng, fra], "eng,fr").0, 0);
    let both = (tensor("eng/logits"), tensor("fra/logits"));
    assert_eq!(features(&[fra], "fra").0, 0);
    assert_eq!(tensor("logits"), both.1);
    assert_eq!(features(&[eng], "eng").0, 0);
    assert_eq!(tensor("logits"), both.0);
    let (code, _, err) = features(&[eng, fra], "eng,fra,kmr-script_latin");
    assert!(code == 2 && err.contains("3 languages for 2 inputs"), "{err}");
}

#[test]
fn eight_bits_of_any_model_are_a_folder_that_works() {
    let here = tempfile::tempdir().expect("a folder");
    let out = here.path().join("small");
    let source = "tests/golden/hubert-base/hubert_fairseq.pt";
    let (code, _, err) = run(asr().args(["models", "quantize", source, "-o"]).arg(&out));
    assert_eq!(code, 0, "{err}");
    let (code, text, err) = run(asr().args(["models", "inspect"]).arg(&out));
    assert_eq!((code, err.as_str()), (0, ""), "no tensor is without use");
    assert!(text.contains("made from     hubert_fairseq.pt, SHA-256 "), "{text}");
    let weights = |folder: &Path| folder.metadata().expect("a file").len();
    let small = weights(&out.join("model.safetensors"));
    assert!(small * 2 < weights(Path::new(source)), "{small} bytes");
}

#[test]
fn released_models_tell_when_words_are_said_search_and_align() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = folder.path().join("text.txt");
    std::fs::write(&text, "Hello world").expect("written");
    let model = ["-m", "tests/golden/wav2vec2-ctc-masked"];
    let found = |options: &[&str]| {
        let json = ["transcribe", "-f", "json", "--word-timestamps", "examples/audio/eng.flac"];
        let (code, out, err) = run(asr().args(json).args(options).args(model));
        assert_eq!(code, 0, "{err}");
        let all: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        all[0].clone()
    };
    let time = |value: &serde_json::Value| value.as_f64().expect("a time");
    for options in [[].as_slice(), &["--beam", "8"]] {
        let result = found(options);
        let (mut end, mut spelt) = (0.0, String::new());
        for word in result["segments"][0]["words"].as_array().expect("words") {
            assert!(
                end <= time(&word["start_s"]) && time(&word["start_s"]) <= time(&word["end_s"])
            );
            end = time(&word["end_s"]);
            spelt.push_str(word["word"].as_str().expect("a word"));
        }
        assert!(end > 0.0 && end <= time(&result["duration_s"]));
        let text = result["text"].as_str().expect("a text");
        assert_eq!(spelt, text.split_whitespace().collect::<String>());
    }
    let (code, out, err) =
        run(asr().args(["align", "-l", "eng", "examples/audio/eng.flac"]).arg(&text).args(model));
    assert_eq!(code, 0, "{err}");
    let aligned: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let words = aligned["segments"][0]["words"].as_array().expect("words");
    let names: Vec<&str> = words.iter().filter_map(|word| word["word"].as_str()).collect();
    assert_eq!(names, ["Hello", "world"]);
    assert!(time(&words[0]["end_s"]) <= time(&words[1]["start_s"]));
    assert!(!err.contains("cannot write"), "capitals are letters: {err}");
}
