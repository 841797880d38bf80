//! Manifests of others' lists, units of their frames, and labels.

use super::{asr, run, wav};
use asr::data::read_manifest;
use asr::pretrain::{Clustering, UnitLabels};
use std::fs;
use std::path::{Path, PathBuf};

/// A folder of tones in two languages and its manifest, made by `asr manifest`.
fn corpus(folder: &Path) -> PathBuf {
    for i in 0..6 {
        let language = if i % 2 == 0 { "swa" } else { "fra" };
        let samples: Vec<f32> = (0..16_000 + 800 * i)
            .map(|n| 0.2 * (n as f32 * (0.02 + 0.02 * (n / 4000 + i) as f32)).sin())
            .collect();
        let path = folder.join("speech").join(language).join(format!("{i}.wav"));
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, wav(&samples, 16_000)).expect("written");
    }
    let manifest = folder.join("train.tsv");
    let (code, stdout, stderr) =
        run(asr().arg("manifest").arg(folder.join("speech")).arg("-o").arg(&manifest));
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.starts_with("fra         3 clips"), "{stdout}");
    assert!(stdout.contains("swa         3 clips") && stdout.contains("all         6 clips"));
    manifest
}

/// A clustering of MFCC into five units, without faiss.
fn clustering(folder: &Path) -> PathBuf {
    let path = folder.join("units.faiss");
    let centroids = (0..5 * 39).map(|i| (i % 39) as f32 * 0.1 + (i / 39) as f32 * 5.0 - 15.0);
    let clustering = Clustering::from_centroids(centroids.collect(), 39).expect("five");
    clustering.save(&path).expect("saved");
    path
}

#[test]
fn a_manifest_of_a_folder_is_read_back_and_filtered() {
    let folder = tempfile::tempdir().expect("a folder");
    let manifest = corpus(folder.path());
    let clips = read_manifest(&manifest).expect("sound");
    let names: Vec<&str> = clips.iter().map(|clip| clip.name.as_str()).collect();
    assert_eq!(names[0], "speech/fra/1.wav");
    assert_eq!(clips[0].dataset.as_deref(), Some("speech"));
    assert!((clips[0].duration_s - 1.05).abs() < 1e-9);
    // Joined as mHuBERT-147 does: no clip has two seconds.
    let joined = folder.path().join("joined.tsv");
    let mut command = asr();
    command.arg("manifest").arg(&manifest).arg("-o").arg(&joined);
    let filters = ["--min-s", "2", "--max-s", "30", "--join", "--clips"];
    let (code, _, stderr) = run(command.args(filters).arg(folder.path().join("clips")));
    assert_eq!((code, stderr.contains("6 short clips were joined")), (0, true), "{stderr}");
    let clips = read_manifest(&joined).expect("sound");
    assert_eq!(clips.len(), 2);
    assert!(clips.iter().all(|clip| clip.duration_s > 3.0));
    assert!(clips.iter().all(|clip| clip.name.starts_with("clips/")));
}

#[test]
fn sources_that_cannot_be_used_are_told_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("m.tsv");
    let manifest = |source: &Path| {
        let (code, _, stderr) = run(asr().arg("manifest").arg(source).arg("-o").arg(&output));
        assert!(code != 0 && !output.exists());
        stderr
    };
    let stderr = manifest(folder.path());
    assert!(stderr.contains("lists no clip"), "{stderr}");
    fs::write(folder.path().join("a.wav"), wav(&[0.1; 16_000], 16_000)).expect("written");
    let stderr = manifest(folder.path());
    assert!(stderr.contains("does not tell the language of `a.wav`"), "{stderr}");
    assert!(stderr.contains("hint: name it with `--language LANG`"), "{stderr}");
    let kaldi = folder.path().join("kaldi");
    fs::create_dir(&kaldi).expect("made");
    fs::write(kaldi.join("wav.scp"), "u1 touch pwned |\n").expect("written");
    let stderr = manifest(&kaldi);
    assert!(stderr.contains("commands are not run"), "{stderr}");
}

#[test]
fn labels_are_assigned_in_both_layouts_without_faiss() {
    let folder = tempfile::tempdir().expect("a folder");
    let (manifest, units) = (corpus(folder.path()), clustering(folder.path()));
    let mut found = Vec::new();
    for name in ["train.km", "train.units"] {
        let labels = folder.path().join(name);
        let mut command = asr();
        command.args(["cluster", "assign"]).arg(&manifest).arg("-c").arg(&units);
        let (code, stdout, stderr) = run(command.arg("-o").arg(&labels));
        assert_eq!(code, 0, "{stderr}");
        assert!(stdout.contains("100 per second") && stdout.contains("units           5"));
        let labels = UnitLabels::open(&labels).expect("sound");
        assert_eq!((labels.n_clips(), labels.n_units(), labels.rate_hz()), (6, 5, 100.0));
        let clips: Vec<Vec<u16>> = (0..6).map(|clip| labels.clip(clip).expect("there")).collect();
        // A frame of 25 ms every 10 ms: the first clip has 16 800 samples.
        assert_eq!(clips[0].len(), 1 + (16_800 - 400) / 160);
        found.push(clips);
    }
    assert_eq!(found[0], found[1]);
    // Labels compared with themselves agree wholly.
    let mut command = asr();
    command.args(["cluster", "assign"]).arg(&manifest).arg("-c").arg(&units).arg("--reference");
    command.arg(folder.path().join("train.km")).arg("-o").arg(folder.path().join("again.units"));
    let (code, stdout, stderr) = run(&mut command);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("purity          1.0000 (of units), 1.0000 (of labels)"), "{stdout}");
}

#[test]
fn frames_that_are_not_those_clustered_are_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let (manifest, units) = (corpus(folder.path()), clustering(folder.path()));
    let output = folder.path().join("x.km");
    let mut command = asr();
    command.args(["cluster", "assign", "--features", "fbank"]).arg(&manifest);
    let (code, _, stderr) = run(command.arg("-c").arg(&units).arg("-o").arg(&output));
    assert_eq!(code, 1);
    assert!(stderr.contains("frames have 80 values, 39 are expected"), "{stderr}");
    assert!(!output.exists());
}

#[cfg(not(feature = "faiss"))]
#[test]
fn a_build_without_faiss_says_so() {
    let (code, _, stderr) =
        run(asr().args(["cluster", "fit", "train.tsv", "-k", "10", "-o", "units.faiss"]));
    assert_eq!(code, 1);
    let wanted = "error: built without `faiss`; rebuild with `--features faiss`\n";
    assert!(stderr.starts_with(wanted), "{stderr}");
}

#[cfg(feature = "faiss")]
#[test]
fn units_are_fitted_described_and_assigned() {
    let folder = tempfile::tempdir().expect("a folder");
    let manifest = corpus(folder.path());
    for (name, more) in [
        ("mfcc.faiss", &["--init", "k-means++", "--runs", "2"][..]),
        ("layer.faiss", &["--layer", "2"][..]),
    ] {
        let units = folder.path().join(name);
        let mut command = asr();
        command.args(["cluster", "fit", "-k", "8"]).args(more).arg(&manifest);
        let (code, stdout, stderr) = run(command.arg("-o").arg(&units));
        assert_eq!(code, 0, "{stderr}");
        assert!(stdout.contains("units           8, 0 empty"), "{stdout}");
        let card = fs::read_to_string(folder.path().join(format!("{name}.json"))).expect("a card");
        let card: serde_json::Value = serde_json::from_str(&card).expect("JSON");
        assert_eq!(card["options"]["n_units"], 8);
        let kind = if name == "mfcc.faiss" { "mfcc" } else { "layer" };
        assert_eq!(card["frames"]["kind"], kind);
        // The frames are those of the description.
        let labels = folder.path().join(format!("{name}.units"));
        let mut command = asr();
        command.args(["cluster", "assign"]).arg(&manifest).arg("-c").arg(&units);
        let (code, _, stderr) = run(command.arg("-o").arg(&labels));
        assert_eq!(code, 0, "{stderr}");
        let labels = UnitLabels::open(&labels).expect("sound");
        let mut used: Vec<u16> =
            (0..6).flat_map(|clip| labels.clip(clip).expect("there")).collect();
        used.sort_unstable();
        used.dedup();
        assert_eq!(used.len(), 8, "every unit is in use");
    }
}

#[cfg(feature = "faiss")]
#[test]
fn more_units_than_frames_and_unreadable_clips_are_errors() {
    let folder = tempfile::tempdir().expect("a folder");
    let manifest = corpus(folder.path());
    let fit = |k: &str, more: &[&str]| {
        let mut command = asr();
        command.args(["cluster", "fit", "-k", k]).args(more).arg(&manifest);
        let (code, _, stderr) = run(command.arg("-o").arg(folder.path().join("u.faiss")));
        assert!(!folder.path().join("u.faiss").exists() || code == 1);
        (code, stderr)
    };
    let (code, stderr) = fit("60000", &[]);
    assert!(code == 1 && stderr.contains("frames cannot make 60000 units"), "{stderr}");
    fs::write(folder.path().join("speech/fra/3.wav"), "no audio").expect("written");
    let (code, stderr) = fit("8", &[]);
    assert!(code == 1 && stderr.contains("1 of 6 clips cannot be read"), "{stderr}");
    let (code, stderr) = fit("8", &["--max-unreadable", "0.2"]);
    assert!(code == 1 && stderr.contains("warning: left out"), "what is left is still done");
    assert!(folder.path().join("u.faiss").exists());
}
