//! Corpora in the layout of ML-SUPERB: made, checked, and broken.

use super::{asr, run, wav};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// A manifest with 24 clips in three languages of two datasets.
fn manifest(folder: &Path) -> std::path::PathBuf {
    let mut rows = String::from("path\tlanguage\tdataset\tduration_s\ttext\n");
    for i in 0..24 {
        let samples: Vec<f32> =
            (0..8_000 + 100 * i).map(|n| 0.2 * (n as f32 * 0.05).sin()).collect();
        let name = format!("{i}.wav");
        fs::write(folder.join(&name), wav(&samples, 16_000)).expect("written");
        let (language, dataset) = [("eng", "my_set"), ("deu", "my_set"), ("dan", "other")][i % 3];
        rows.push_str(&format!(
            "{name}\t{language}\t{dataset}\t{}\tclip  number {i}\n",
            samples.len() as f32 / 16_000.0
        ));
    }
    rows.push_str("missing.wav\teng\tmy_set\t1\tnever recorded\n0.mp3\teng\tmy_set\t1\t-\n");
    let path = folder.join("manifest.tsv");
    fs::write(&path, rows).expect("written");
    let list: String =
        (0..12).map(|i| format!("{i}.wav\t{}\n", ["seen", "unseen"][i % 2])).collect();
    fs::write(folder.join("dev.tsv"), format!("path\tcondition\n{list}")).expect("written");
    path
}

/// Exit code and result of a check.
fn checked(folder: &Path) -> (i32, Value) {
    let (code, out, err) = run(asr().args(["bench", "ml-superb", "check", "--json"]).arg(folder));
    (code, serde_json::from_str(&out).unwrap_or_else(|_| panic!("no JSON: {out}{err}")))
}

/// Kind, count and first example of each problem.
fn problems(check: &Value) -> Vec<(String, u64, String)> {
    let list = check["problems"].as_array().expect("a list").iter();
    list.map(|problem| {
        let text = |value: &Value| value.as_str().expect("a string").to_owned();
        let count = problem["count"].as_u64().expect("a count");
        (text(&problem["kind"]), count, text(&problem["examples"][0]))
    })
    .collect()
}

fn mini(folder: &Path) -> std::path::PathBuf {
    let manifest = manifest(folder);
    let out = folder.join("mini");
    let (code, text, err) = run(asr()
        .args(["bench", "ml-superb", "make-mini"])
        .arg(&out)
        .arg("--manifest")
        .arg(&manifest)
        .arg("--list")
        .arg(folder.join("dev.tsv")));
    // The recording that is not there is named.
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("missing.wav") && err.contains("1 clips without"), "{err}");
    assert!(text.contains("3 pairs"), "{text}");
    out
}

#[test]
fn a_small_corpus_checks_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = mini(folder.path());
    let transcript = fs::read_to_string(out.join("my_set/eng/transcript_10min_dev.txt"));
    assert_eq!(
        transcript.expect("written"),
        "my-set_eng_000001\teng\tclip number 0\nmy-set_eng_000003\teng\tclip number 6\n"
    );
    let (code, check) = checked(&out);
    assert_eq!(code, 0, "{check}");
    let found: Vec<String> = problems(&check).into_iter().map(|(kind, _, _)| kind).collect();
    // None of the five Danish utterances that the benchmark trains on is in it.
    assert_eq!(found, ["few_shot_missing"]);
    assert_eq!((&check["languages"], &check["few_shot_languages"]), (&3.into(), &1.into()));
    let count = |i: usize| check["splits"][i]["utterances"].as_u64().expect("a count");
    // Train 10 min, as trained on, train 1 h, as trained on, dev, test.
    assert_eq!([0, 1, 2, 3, 4, 5].map(count), [12, 8, 12, 8, 6, 6]);
    let hours = check["splits"][2]["hours"].as_f64().expect("hours");
    let want: f64 = (12..24).map(|i| f64::from(8_000 + 100 * i) / 16_000.0 / 3_600.0).sum();
    assert!((hours - want).abs() < 1e-9, "{hours} {want}");
    // A second time there is something in the way.
    let (code, _, err) = run(asr()
        .args(["bench", "ml-superb", "make-mini"])
        .arg(&out)
        .arg("--manifest")
        .arg(folder.path().join("manifest.tsv")));
    assert_eq!(code, 1);
    assert!(err.contains("not empty"), "{err}");
    // As people read it, one folder up: archives unpack into a folder of their own.
    let above = folder.path().join("above");
    fs::create_dir(&above).expect("made");
    fs::rename(&out, above.join("seventh_version")).expect("moved");
    let (code, text, _) = run(asr().args(["bench", "ml-superb", "check"]).arg(&above));
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("seventh_version: 2 datasets, 3 languages (1 few-shot)"), "{text}");
    assert!(text.contains("ML-SUPERB 1.0 (2023)  languages"), "{text}");
}

#[test]
fn what_is_broken_is_named_and_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = mini(folder.path());
    let put = |name: &str, text: &[u8]| {
        let path = out.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    };
    let dev = "my_set/eng/transcript_10min_dev.txt";
    let lines = fs::read_to_string(out.join(dev)).expect("read");
    put(
        dev,
        format!(
            "{lines}my-set_eng_000001\tx\tagain\nalone\nmy-set_eng_000090\tx\tno recording\n\
             my-set_eng_000005\tx\tfrom training\nmy-set_deu_000091\tx\tother folder\n\
             my-set_eng_000092\tx\n"
        )
        .as_bytes(),
    );
    fs::remove_file(out.join("my_set/deu/transcript_10min_test.txt")).expect("removed");
    put("my_set/eng/wav/my-set_deu_000091.wav", &wav(&[0.1; 1_600], 16_000));
    put("my_set/eng/wav/my-set_eng_000092.wav", &wav(&[], 16_000));
    put("my_set/eng/wav/my-set_eng_000093.wav", b"no sound");
    put("my_set/qqx/transcript_10min_dev.txt", b"a_qqx_1\tx\ttext\n");
    put("stray/notes/readme.txt", b"nothing of a corpus");
    put("other/dan/transcript_10min_test.txt", b"\xff\xfe\n");
    let (code, check) = checked(&out);
    assert_eq!(code, 1);
    let found = problems(&check);
    for (kind, count, example) in [
        ("unknown_language", 1, "my_set/qqx"),
        ("wrong_layout", 2, "my_set/qqx: no folder wav"),
        ("missing_transcript", 4, "my_set/deu/transcript_10min_test.txt"),
        ("malformed_line", 2, "my_set/eng/transcript_10min_dev.txt, line 4: one field"),
        ("duplicate_id", 1, "my_set/eng/transcript_10min_dev.txt, line 3: my-set_eng_000001"),
        ("split_overlap", 1, "my-set_eng_000005: dev and train"),
        ("language_mismatch", 1, "my_set/eng: my-set_deu_000091"),
        ("missing_audio", 1, "my_set/eng: my-set_eng_000090"),
        ("empty_transcript", 1, "other/dan/transcript_10min_test.txt"),
        ("no_text", 1, "my_set/eng: my-set_eng_000092"),
        ("empty_audio", 1, "my_set/eng/wav/my-set_eng_000092.wav"),
    ] {
        let problem = found.iter().find(|problem| problem.0 == kind);
        let problem = problem.unwrap_or_else(|| panic!("{kind} is not in {found:#?}"));
        assert_eq!((problem.1, problem.2.as_str()), (count, example), "{found:#?}");
    }
    // One recording without a line, the two Danish ones whose lines went, and two of German tests.
    let unlisted = found.iter().find(|problem| problem.0 == "unlisted_audio").expect("some");
    assert_eq!(unlisted.1, 5, "{found:#?}");
}

#[test]
fn a_folder_that_is_no_corpus_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (code, out, err) = run(asr().args(["bench", "ml-superb", "check"]).arg(folder.path()));
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("does not have the layout of ML-SUPERB"), "{err}");
    assert!(err.contains("hint: unpack"), "{err}");
}

/// Both versions on the encoder inside the binary, a few updates each, into `out`.
fn benchmark(corpus: &Path, out: &Path, version: &str) -> assert_cmd::Command {
    let mut command = asr();
    command.arg("bench");
    match version {
        "1" => command.args(["ml-superb", "run"]),
        _ => command.args(["ml-superb2", "--strategy", "frozen", "--strategy", "lora=2"]),
    };
    command.arg(corpus).args(["-m", "small=default", "--updates", "4", "--validations", "4"]);
    command.args(["--learning-rate", "1e-3", "--accumulate", "2", "-o"]).arg(out);
    if version == "1" {
        command.args(["--budget", "1h", "--mono-updates", "1", "--track", "mono,lid,asr-lid"]);
    }
    command
}

/// Every hypothesis of the runs in `out`, by the run's folder.
fn hypotheses(out: &Path) -> Vec<(String, String)> {
    let runs = fs::read_dir(out.join("runs/small")).expect("runs");
    let mut found: Vec<(String, String)> = runs
        .map(|run| {
            let run = run.expect("a run");
            let text = fs::read_to_string(run.path().join("hypotheses.txt")).expect("hypotheses");
            (run.file_name().into_string().expect("UTF-8"), text)
        })
        .collect();
    found.sort();
    found
}

#[test]
fn both_versions_run_stop_anywhere_and_end_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let corpus = mini(folder.path());
    let whole = folder.path().join("whole");
    let (code, table, err) = run(&mut benchmark(&corpus, &whole, "1"));
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("GB in") && err.contains("for all runs"), "{err}");
    assert!(table.contains("| **small** | ") && table.contains("mHuBERT-147"), "{table}");
    let (code, table, err) = run(&mut benchmark(&corpus, &whole, "2"));
    assert_eq!(code, 0, "{err}");
    assert!(table.contains("**small, frozen**") && table.contains("**small, lora=2**"), "{table}");
    let report = fs::read_to_string(whole.join("report/report.json")).expect("a report");
    let report: Value = serde_json::from_str(&report).expect("JSON");
    // The report of the second command has the runs of the first as well.
    let hour = &report["ml_superb"][0]["budgets"][1];
    for column in ["monolingual", "lid", "joint_lid", "joint", "joint_few_shot"] {
        assert!(hour[column].is_f64(), "{column}: {hour}");
    }
    assert!(
        hour["multilingual"].is_null() && report["ml_superb2"].as_array().expect("rows").len() == 2
    );
    assert_eq!(report["layer_weights"][0]["weights"].as_array().expect("weights").len(), 9);
    let page = fs::read_to_string(whole.join("report/report.html")).expect("a page");
    assert!(page.contains("small: both, 1h") && page.contains("2.0, lora=2"), "rows are missing");

    // Killed after the first candidate of a run, and gone on with.
    let parts = folder.path().join("parts");
    let assembled = benchmark(&corpus, &parts, "1");
    let mut child = std::process::Command::new(assembled.get_program())
        .args(assembled.get_args())
        .stderr(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("the binary runs");
    let candidate = parts.join("runs/small/lid-1h/candidates.json");
    let start = std::time::Instant::now();
    while !candidate.exists() && child.try_wait().expect("a child").is_none() {
        assert!(start.elapsed().as_secs() < 120, "no candidate appears");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().expect("killed");
    child.wait().expect("ended");
    for version in ["1", "2"] {
        let (code, _, err) = run(&mut benchmark(&corpus, &parts, version));
        assert_eq!(code, 0, "{err}");
    }
    assert_eq!(hypotheses(&parts), hypotheses(&whole));
    // Finished runs are not trained again; other settings are another run.
    let (code, _, err) = run(&mut benchmark(&corpus, &whole, "1"));
    assert_eq!((code, err.contains("update 1 of")), (0, false), "{err}");
    let (code, _, err) = run(benchmark(&corpus, &whole, "1").args(["--seed", "7"]));
    assert_eq!(code, 1);
    assert!(err.contains("other settings"), "{err}");
}
