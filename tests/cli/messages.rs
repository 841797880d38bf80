//! Help, results, and what is said when something is wrong.

use super::{asr, objects, run};
use std::fs;

#[test]
fn help_shows_every_command_and_how_to_start() {
    let (code, out, _) = run(asr().arg("--help"));
    assert_eq!(code, 0);
    for command in [
        "transcribe",
        "identify",
        "listen",
        "align",
        "finetune",
        "score",
        "bench",
        "doctor",
        "completions",
    ] {
        assert!(out.contains(command), "{command} in {out}");
        let (code, help, _) = run(asr().args([command, "--help"]));
        assert_eq!(code, 0);
        assert!(help.len() > 100, "{command}: {help}");
    }
    assert!(out.contains("asr transcribe recording.mp3"));
}

#[test]
fn misuse_exits_with_two() {
    for args in [
        vec!["transcribe"],
        vec!["transcribe", "x.wav", "-f", "poem"],
        vec!["nonsense"],
        vec!["transcribe", "-", "--stdin-format", "s16le"],
        vec!["transcribe", "-", "-"],
        vec!["transcribe", "x.wav", "--device", "gpu"],
        vec!["--quiet", "--verbose", "doctor"],
    ] {
        let (code, out, err) = run(asr().args(&args));
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {err}");
        assert!(err.starts_with("error: "), "{args:?}: {err}");
    }
}

#[test]
fn failures_say_what_why_and_what_to_try() {
    let (code, out, err) = run(asr().args(["transcribe", "missing.wav"]));
    assert_eq!((code, out.as_str()), (1, ""));
    assert_eq!(
        err,
        "error: cannot open audio file `missing.wav`: No such file or directory (os error 2)\n"
    );
    let (code, _, err) = run(asr().args(["transcribe", "examples/audio", "-m", "no-such-model"]));
    assert_eq!(code, 1);
    assert!(err.contains("no model `no-such-model`") && err.contains("\n\nhint: "), "{err}");
    let (code, _, err) = run(asr().args(["transcribe", "-l", "qqqq", "examples/audio"]));
    assert_eq!(code, 1);
    assert!(err.contains("unknown language `qqqq`"), "{err}");
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_device_of_another_build_is_said_to_be_one() {
    let clip = "examples/audio/ces.opus";
    let (code, out, err) = run(asr().args(["transcribe", clip, "--device", "cuda:1"]));
    assert_eq!((code, out.as_str()), (1, ""));
    let said = "error: cannot compute on a CUDA device: built without `cuda`; rebuild with \
                `--features cuda`\n\nhint: leave out `--device` to compute on what there is\n";
    assert!(err.ends_with(said), "{err}");
}

#[test]
fn json_follows_the_documented_layout() {
    let (code, out, _) = run(asr().args(["transcribe", "-f", "json", "examples/audio/ces.opus"]));
    assert_eq!(code, 0);
    let array: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let found = &array[0];
    assert_eq!(found["schema"], 1);
    assert_eq!(found["file"], "examples/audio/ces.opus");
    assert!((found["duration_s"].as_f64().expect("a number") - 3.4).abs() < 0.2);
    let degrees = |name: &str| found["location"][name].as_f64().expect("degrees");
    assert!(degrees("lat").abs() <= 90.0 && degrees("lon").abs() <= 180.0);
    let languages = found["languages"].as_array().expect("languages");
    assert_eq!(languages[0]["code"], found["language"]);
    assert!(
        languages.windows(2).all(|pair| pair[0]["score"].as_f64() >= pair[1]["score"].as_f64())
    );
    let segment = &found["segments"][0];
    let time = |value: &serde_json::Value| value.as_f64().expect("a time");
    assert!(time(&segment["start_s"]) < 0.5 && time(&segment["start_s"]) < time(&segment["end_s"]));
    assert!(time(&segment["end_s"]) <= time(&found["duration_s"]));
    assert_eq!(segment["text"], found["text"]);
    assert_eq!(found["model"]["name"], "default");
    assert_eq!(found["model"]["sha256"].as_str().expect("a digest").len(), 64);
}

#[test]
fn output_files_are_whole_and_languages_can_be_restricted() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("new/out.jsonl");
    let (code, out, _) = run(asr()
        .args(["transcribe", "-l", "swa,en", "-f", "jsonl", "examples/audio/deu.flac", "-o"])
        .arg(&path));
    assert_eq!((code, out.as_str()), (0, ""));
    let found = objects(&fs::read_to_string(&path).expect("written")).remove(0);
    for language in found["languages"].as_array().expect("languages") {
        assert!(["swa", "eng"].contains(&language["code"].as_str().expect("a code")));
    }
    assert_eq!(fs::read_dir(path.parent().expect("a folder")).expect("listed").count(), 1);
}

#[test]
fn scores_are_those_of_the_texts() {
    let folder = tempfile::tempdir().expect("a folder");
    let (reference, hypothesis) = (folder.path().join("ref"), folder.path().join("hyp"));
    fs::write(&reference, "a [eng] hello world\nb [deu] ja\n").expect("written");
    fs::write(&hypothesis, "a [eng] hallo word\nb [eng] ja\n").expect("written");
    let (code, out, _) =
        run(asr().arg("score").arg(&reference).arg(&hypothesis).args(["-f", "json"]));
    assert_eq!(code, 0);
    let report: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(report["scheme"], "plain");
    assert!((report["cer"].as_f64().expect("a rate") - 2.0 / 13.0).abs() < 1e-12);
    assert_eq!(report["lid_accuracy"], 0.5);
    fs::write(&hypothesis, "a [eng] hallo word\n").expect("written");
    let (code, _, err) = run(asr().arg("score").arg(&reference).arg(&hypothesis));
    assert_eq!(code, 1);
    assert!(err.contains('b') && err.contains("hint: "), "{err}");
}
