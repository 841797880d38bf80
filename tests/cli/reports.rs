//! Reports: pages that stand alone, and files that other programs read.

use super::{asr, run};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// Whether every element is closed in order, and nothing is loaded from anywhere.
fn assert_stands_alone(html: &str) {
    assert!(html.starts_with("<!DOCTYPE html>"));
    for banned in [
        "http:",
        "https:",
        "src=",
        "url(",
        "@import",
        "<script",
        "javascript:",
        "<link rel=\"style",
    ] {
        assert!(!html.contains(banned), "the page has `{banned}`");
    }
    let mut open = Vec::new();
    let mut ids = std::collections::BTreeSet::new();
    let body = &html["<!DOCTYPE html>".len()..];
    // Styles are the one place where `>` is no markup.
    let style = body.find("<style>").expect("styles")..body.find("</style>").expect("styles");
    let body = format!("{}{}", &body[..style.start], &body[style.end + "</style>".len()..]);
    for tag in body.split('<').skip(1) {
        let (tag, text) = tag.split_once('>').unwrap_or_else(|| panic!("`<{tag}` has no end"));
        assert!(!text.contains('>'), "a bare > after {tag}");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name.to_owned()), "closed out of order");
            continue;
        }
        assert_eq!(tag.matches('"').count() % 2, 0, "quotes of {tag}");
        if let Some((_, rest)) = tag.split_once(" id=\"") {
            let id = rest.split('"').next().expect("a value").to_owned();
            assert!(ids.insert(id.clone()), "id {id} twice");
        }
        if !tag.ends_with('/') {
            open.push(tag.split_whitespace().next().expect("a name").to_owned());
        }
    }
    assert!(open.is_empty(), "never closed: {open:?}");
    for part in html.split("href=\"#").skip(1) {
        let anchor = part.split('"').next().expect("a value");
        assert!(ids.contains(anchor), "no section {anchor}");
    }
}

/// The four files of a report.
fn report(folder: &Path) -> (String, String, Value, String) {
    let read = |name: &str| fs::read_to_string(folder.join(name)).expect(name);
    let json = serde_json::from_str(&read("report.json")).expect("JSON");
    assert_eq!(fs::read_dir(folder).expect("listed").count(), 4, "nothing else is left");
    (read("report.html"), read("report.md"), json, read("report.csv"))
}

/// Rows of comma-separated values without quotes in them.
fn columns(csv: &str) -> Vec<Vec<&str>> {
    let rows: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert!(rows.iter().all(|row| row.len() == rows[0].len()), "{csv}");
    rows
}

#[test]
fn a_corpus_becomes_a_page() {
    let folder = tempfile::tempdir().expect("a folder");
    let manifest = folder.path().join("manifest.tsv");
    let mut rows = String::from("path\tlanguage\tduration_s\ttext\n");
    for (file, language) in [("eng.flac", "eng"), ("swa.m4a", "swa"), ("rus.opus", "rus")] {
        let audio = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/audio");
        let text = fs::read_to_string(audio.join(language).with_extension("txt")).expect("read");
        let path = audio.join(file);
        rows.push_str(&format!("{}\t{language}\t4\t{}\n", path.display(), text.trim()));
    }
    fs::write(&manifest, rows).expect("written");
    fs::write(
        folder.path().join("log.jsonl"),
        "{\"step\":1,\"loss\":4.0}\n{\"step\":9,\"loss\":2.0}\n\
         {\"step\":5,\"dev\":{\"seen\":{\"cer\":0.9}}}\n{\"step\":9,\"dev\":{\"seen\":{\"cer\":0.8}}}\n",
    )
    .expect("written");
    fs::write(folder.path().join("weights.json"), "{\"40 <ms>\": [0.1, 0.7, 0.2]}")
        .expect("written");
    let out = folder.path().join("new/report");
    let (code, _, err) = run(asr()
        .args(["bench", "corpus", "--manifest"])
        .arg(&manifest)
        .arg("--report")
        .arg(&out)
        .arg("--training-log")
        .arg(folder.path().join("log.jsonl"))
        .arg("--layer-weights")
        .arg(folder.path().join("weights.json")));
    assert_eq!(code, 0, "{err}");
    let (html, markdown, json, csv) = report(&out);
    assert_stands_alone(&html);
    for wanted in
        ["World map", "Swahili", "Layer weights", "40 &lt;ms&gt;", "Training loss", "MMS-1B"]
    {
        assert!(html.contains(wanted), "{wanted}");
    }
    assert!(markdown.contains("## Languages") && markdown.contains("| swa Swahili |"));
    assert_eq!(json["schema"], 1);
    assert_eq!(json["languages"].as_array().expect("a list").len(), 3);
    assert_eq!(json["curves"].as_array().expect("a list").len(), 2);
    let provenance = &json["provenance"];
    assert_eq!(provenance["model"]["name"], "default");
    assert_eq!(provenance["model"]["sha256"].as_str().expect("a digest").len(), 64);
    assert_eq!(provenance["precision"], "f32");
    let command = provenance["command"].as_str().expect("a command");
    assert!(command.starts_with("asr bench corpus --manifest "), "{command}");
    assert_eq!(provenance["inputs"].as_array().expect("a list").len(), 3);
    assert_eq!(json["ml_superb2"][0]["scorer"], "recipe");
    let rows = columns(&csv);
    assert_eq!((rows.len(), rows[0][0], rows[0][9]), (4, "language", "cer"));
    for row in &rows[1..] {
        assert!(row[9].parse::<f64>().is_ok() && row[2].parse::<f64>().is_ok(), "{row:?}");
    }
}

#[test]
fn anyones_transcripts_become_a_page() {
    let folder = tempfile::tempdir().expect("a folder");
    let reference = "tests/golden/mlsuperb-scoring/dev.ref.txt";
    let hypothesis = "tests/golden/mlsuperb-scoring/dev.hyp.txt";
    for (scheme, wanted) in [
        ("plain", "Confused languages"),
        ("ml-superb", "mHuBERT-147 (3rd iteration)"),
        ("ml-superb2", "E-Branchformer 12"),
    ] {
        let out = folder.path().join(scheme);
        let (code, plain, err) = run(asr()
            .args(["score", reference, hypothesis, "--scheme", scheme, "-f", "json"])
            .args(["--variant", "server", "--labels", "refined", "--report"])
            .arg(&out));
        assert_eq!(code, 0, "{err}");
        let (html, markdown, json, csv) = report(&out);
        assert_stands_alone(&html);
        assert!(html.contains(wanted) && markdown.contains("## Summary"), "{scheme}");
        assert_eq!(json["provenance"]["labels"], "refined");
        assert!(columns(&csv).len() > 20);
        let scores: Value = serde_json::from_str(&plain).expect("JSON");
        let of_language = &scores["per_language"]["swa"]["cer"];
        let rows = json["languages"].as_array().expect("a list");
        let swahili = rows.iter().find(|row| row["code"] == "swa").expect("Swahili");
        assert_eq!(&swahili["cer"], of_language);
        if scheme == "ml-superb2" {
            assert_eq!(json["ml_superb2"][0]["scorer"], "server");
            assert_eq!(json["ml_superb2"][0]["labels"], "refined");
            assert_eq!(json["ml_superb2"][0]["cer"], scores["cer"]);
        }
    }
}

#[test]
fn markup_in_transcripts_stays_text_and_faults_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let (reference, hypothesis) = (folder.path().join("<b>&\"ref"), folder.path().join("hyp"));
    fs::write(&reference, "a [eng] <script>x</script>\n").expect("written");
    fs::write(&hypothesis, "a [deu] \"><img src=x>\n").expect("written");
    let out = folder.path().join("report");
    let (code, _, err) =
        run(asr().arg("score").arg(&reference).arg(&hypothesis).arg("--report").arg(&out));
    assert_eq!(code, 0, "{err}");
    assert_stands_alone(&report(&out).0);
    // A file where the folder should be.
    let (code, _, err) =
        run(asr().arg("score").arg(&reference).arg(&hypothesis).arg("--report").arg(&hypothesis));
    assert_eq!(code, 1);
    assert!(err.contains("cannot write `"), "{err}");
    let (code, _, _) =
        run(asr().arg("score").arg(&reference).arg(&hypothesis).args(["--labels", "refined"]));
    assert_eq!(code, 2, "labels belong to a report");
}
