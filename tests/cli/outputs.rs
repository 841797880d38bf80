//! Formats, folders of results, resuming, alignment.

use super::{asr, fixture, objects, run, wav};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// Samples of an example, 16 kHz.
fn samples(name: &str) -> Vec<f32> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/audio").join(name);
    let options = asr::audio::DecodeOptions::default();
    asr::audio::decode_path(&path, &options).expect("the example is there").samples
}

fn seconds(clock: &str, point: char) -> f64 {
    let (hms, ms) = clock.split_once(point).expect("HH:MM:SS and milliseconds");
    let parts: Vec<u32> = hms.split(':').map(|part| part.parse().expect("a number")).collect();
    assert!(parts.len() == 3 && parts[1] < 60 && parts[2] < 60 && ms.len() == 3, "{clock}");
    let whole = f64::from(parts[0] * 3600 + parts[1] * 60 + parts[2]);
    whole + f64::from(ms.parse::<u32>().expect("a number")) / 1000.0
}

/// Checks times and lines of SRT or VTT blocks; returns the text.
fn check_cues(
    blocks: &str,
    point: char,
    numbered: bool,
    limits: (usize, usize),
    end_s: f64,
) -> String {
    let mut text = String::new();
    let mut last = 0.0;
    for (number, block) in (1..).zip(blocks.split("\n\n").filter(|block| !block.is_empty())) {
        let mut lines = block.lines();
        if numbered {
            assert_eq!(lines.next(), Some(number.to_string().as_str()));
        }
        let (start, end) = lines.next().and_then(|l| l.split_once(" --> ")).expect("times");
        let (start, end) = (seconds(start, point), seconds(end, point));
        assert!(last <= start && start < end && end <= end_s + 0.04, "{block}");
        last = end;
        let lines: Vec<&str> = lines.collect();
        assert!((1..=limits.1).contains(&lines.len()), "{block}");
        for line in lines {
            assert!(line.chars().count() <= limits.0 || !line.contains(' '), "{line}");
            text.push_str(line);
        }
    }
    text.retain(|c| c != ' ');
    text
}

#[test]
fn subtitles_follow_the_grammar_and_hold_the_text() {
    let path = "examples/audio/fra.mp3";
    let (code, out, _) = run(asr().args(["transcribe", "-f", "json", "--word-timestamps", path]));
    assert_eq!(code, 0);
    let found: Value = serde_json::from_str(&out).expect("JSON");
    let found = &found[0];
    let end_s = found["duration_s"].as_f64().expect("a number");
    let letters: String = found["text"].as_str().expect("text").replace(' ', "");
    let words = found["segments"][0]["words"].as_array().expect("words");
    let joined: String = words.iter().map(|w| w["word"].as_str().expect("a word")).collect();
    assert_eq!(joined, letters);
    let mut last = 0.0;
    for word in words {
        let time = |key: &str| word[key].as_f64().expect("a number");
        assert!(last <= time("start_s") && time("start_s") <= time("end_s"), "{word}");
        assert!(time("end_s") <= end_s && (0.0..=1.0).contains(&time("score")), "{word}");
        last = time("end_s");
    }
    let get = |more: &[&str]| {
        let (code, out, err) = run(asr().arg("transcribe").args(more).arg(path));
        assert_eq!(code, 0, "{err}");
        out
    };
    let srt = get(&["-f", "srt", "--max-line-chars", "20", "--max-lines", "1"]);
    assert_eq!(check_cues(&srt, ',', true, (20, 1), end_s), letters);
    let vtt = get(&["-f", "vtt", "--max-words", "2"]);
    let blocks = vtt.strip_prefix("WEBVTT\n\n").expect("the heading of WebVTT");
    assert_eq!(check_cues(blocks, '.', false, (42, 2), end_s), letters);
    assert_eq!(blocks.matches(" --> ").count(), words.len().div_ceil(2));
    let ctm = get(&["-f", "ctm"]);
    assert_eq!(ctm.lines().count(), words.len());
    for line in ctm.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        assert_eq!((fields.len(), fields[0], fields[1]), (6, path, "1"), "{line}");
        let number = |i: usize| fields[i].parse::<f64>().expect("a number");
        assert!(number(2) + number(3) <= end_s + 1e-3 && number(5) <= 1.0, "{line}");
    }
    let tsv = get(&["-f", "tsv"]);
    let mut rows = tsv.lines();
    assert_eq!(rows.next(), Some("start\tend\ttext"));
    let text: String = rows.map(|row| row.split('\t').nth(2).expect("three columns")).collect();
    assert_eq!(text.replace(' ', ""), letters);
}

#[test]
fn folders_of_results_mirror_the_input_and_resume() {
    let folder = tempfile::tempdir().expect("a folder");
    let (input, output) = (folder.path().join("in"), folder.path().join("out"));
    fs::create_dir_all(input.join("deep/er")).expect("created");
    for name in ["a.flac", "deep/a.flac", "deep/er/b.flac"] {
        fs::copy(fixture("sentence.flac"), input.join(name)).expect("copied");
    }
    fs::write(input.join("deep/broken.wav"), b"no sound").expect("written");
    let command = || {
        let mut command = asr();
        command.args(["transcribe", "--recursive", "--resume", "-f", "srt", "-o"]);
        command.arg(format!("{}/", output.display())).arg(&input);
        command
    };
    let (code, out, err) = run(&mut command());
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(err.contains("broken.wav"), "{err}");
    for name in ["a.srt", "deep/a.srt", "deep/er/b.srt"] {
        assert!(output.join(name).is_file(), "{name}");
    }
    assert!(!output.join("deep/broken.srt").exists());
    // What is there is left alone, what is missing is done, what failed is tried again.
    fs::write(output.join("a.srt"), "mine").expect("written");
    fs::remove_file(output.join("deep/a.srt")).expect("removed");
    let (code, _, err) = run(&mut command());
    assert_eq!(code, 1, "{err}");
    assert_eq!(fs::read_to_string(output.join("a.srt")).expect("there"), "mine");
    assert!(output.join("deep/a.srt").is_file());
    fs::remove_file(input.join("deep/broken.wav")).expect("removed");
    let lines = folder.path().join("out.jsonl");
    let jsonl = |list: &[&str]| {
        let mut command = asr();
        command.args(["transcribe", "--resume", "-f", "jsonl", "-o"]).arg(&lines);
        let (code, _, err) = run(command.args(list.iter().map(|name| input.join(name))));
        assert_eq!(code, 0, "{err}");
        objects(&fs::read_to_string(&lines).expect("written"))
    };
    assert_eq!(jsonl(&["a.flac"]).len(), 1);
    assert_eq!(jsonl(&["a.flac", "deep/a.flac"]).len(), 2);
    assert_eq!(jsonl(&["a.flac", "deep/a.flac"]).len(), 2);
}

#[test]
fn formats_of_one_recording_are_refused_for_several() {
    for args in [
        &["transcribe", "-f", "srt", "examples/audio"][..],
        &["transcribe", "--resume", "examples/audio"],
        &["transcribe", "--resume", "-f", "json", "-o", "x.json", "examples/audio"],
    ] {
        let (code, out, err) = run(asr().args(args));
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {err}");
    }
}

#[test]
fn batches_give_what_single_files_give() {
    let get = |size: &str| {
        let args = ["transcribe", "-f", "jsonl", "--batch-size", size, "examples/audio"];
        let (code, out, err) = run(asr().args(args));
        assert_eq!(code, 0, "{err}");
        objects(&out)
    };
    let (single, batched) = (get("1"), get("5"));
    assert_eq!(single.len(), 12);
    for (single, batched) in single.iter().zip(&batched) {
        for key in ["file", "text", "language", "duration_s"] {
            assert_eq!(single[key], batched[key]);
        }
        let score = |value: &Value| value["segments"][0]["score"].as_f64().expect("a number");
        assert!((score(single) - score(batched)).abs() <= 1e-4 + 1e-9, "{single} {batched}");
    }
}

#[test]
fn a_long_pipe_gives_segments_as_they_come_and_then_the_whole() {
    let joined: Vec<f32> = ["eng.flac", "swa.m4a", "deu.flac", "ell.ogg", "spa.wav", "ces.opus"]
        .iter()
        .flat_map(|name| samples(name))
        .collect();
    assert!(joined.len() > 16_000 * 21, "longer than one piece");
    let bytes = wav(&joined, 16_000);
    let (code, out, err) =
        run(asr().args(["transcribe", "-f", "jsonl", "-"]).write_stdin(bytes.clone()));
    assert_eq!(code, 0, "{err}");
    let mut lines = objects(&out);
    let whole = lines.pop().expect("a result");
    assert!(lines.len() > 1 && lines.iter().all(|line| line["partial"] == true), "{out}");
    let segments = whole["segments"].as_array().expect("segments");
    assert_eq!(segments.len(), lines.len());
    let mut last = 0.0;
    for (segment, line) in segments.iter().zip(&lines) {
        for key in ["start_s", "end_s", "text", "language", "score"] {
            assert_eq!(segment[key], line[key]);
        }
        assert!(segment["start_s"].as_f64() >= Some(last), "{segment}");
        last = segment["end_s"].as_f64().expect("a number");
    }
    assert!(whole["duration_s"].as_f64() >= Some(last));
    // A file gives the same text, whatever is decoded side by side.
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("long.wav");
    fs::write(&path, bytes).expect("written");
    let (_, from_file, _) = run(asr().args(["transcribe", "-f", "jsonl"]).arg(&path));
    assert_eq!(objects(&from_file)[0]["text"], whole["text"]);
    let (code, windows, _) = run(asr().args(["identify", "--windows"]).arg(&path));
    assert_eq!(code, 0);
    assert!(windows.lines().nth(1).is_some_and(|line| line.starts_with("0.000 ")), "{windows}");
}

#[test]
fn hotwords_and_language_models_change_what_is_heard() {
    let folder = tempfile::tempdir().expect("a folder");
    let get = |more: &[&str]| {
        let command = ["transcribe", "examples/audio/eng.flac"];
        let (code, out, err) = run(asr().args(command).args(more));
        assert_eq!(code, 0, "{err}");
        (out, err)
    };
    let path = |name: &str, content: &str| {
        let path = folder.path().join(name);
        fs::write(&path, content).expect("written");
        path.display().to_string()
    };
    let plain = get(&["--beam", "8"]).0;
    assert_eq!(plain, get(&["--beam", "8"]).0);
    let hotwords = path("hot.txt", "the\t20\nჰჰ\n");
    let (hot, err) = get(&["--beam", "64", "--hotwords", &hotwords]);
    let count = |text: &str| text.split_whitespace().filter(|word| *word == "the").count();
    assert!(count(&hot) > count(&plain), "{hot} against {plain}");
    assert!(err.contains("cannot write the hotword") || !err.is_empty(), "{err}");
    let model = path(
        "lm.arpa",
        "\\data\\\nngram 1=4\n\n\\1-grams:\n-1\t</s>\n-99\t<s>\n-9\t<unk>\n-0.1\the\n\n\\end\\\n",
    );
    let (with_model, _) = get(&["--lm", &model, "--lm-weight", "2", "--lm-bonus", "0"]);
    assert_ne!(with_model, plain);
    let broken = path("broken.arpa", "\\data\\\nngram 1=4\n");
    let (code, _, err) =
        run(asr().args(["transcribe", "examples/audio/eng.flac", "--lm", &broken]));
    assert_eq!(code, 1);
    assert!(err.contains("broken.arpa") && err.contains("line"), "{err}");
}

#[test]
fn alignments_lie_in_the_file_in_every_format() {
    for (name, language) in [("swa.m4a", "auto"), ("rus.opus", "rus"), ("ell.ogg", "ell")] {
        let audio = format!("examples/audio/{name}");
        let text = Path::new(&audio).with_extension("txt").display().to_string();
        let get = |form: &str| {
            let args = ["align", &audio, &text, "-l", language, "-f", form];
            let (code, out, err) = run(asr().args(args));
            assert_eq!(code, 0, "{err}");
            out
        };
        let found: Value = serde_json::from_str(&get("json")).expect("JSON");
        let end_s = found["duration_s"].as_f64().expect("a number");
        let mut last = 0.0;
        let mut n_words = 0;
        for line in found["segments"].as_array().expect("lines") {
            for word in line["words"].as_array().expect("words") {
                n_words += 1;
                let time = |value: &Value, key: &str| value[key].as_f64().expect("a number");
                assert!(last <= time(word, "start_s") + 1e-9, "{word}");
                let mut inside = time(word, "start_s");
                for character in word["characters"].as_array().expect("characters") {
                    assert!(inside <= time(character, "start_s") + 1e-9, "{word}");
                    inside = time(character, "end_s");
                }
                last = time(word, "end_s");
                assert!(inside <= last + 1e-9 && last <= end_s + 1e-9, "{word}");
            }
        }
        let written = fs::read_to_string(&text).expect("the text is there");
        assert_eq!(n_words, written.split_whitespace().count());
        assert_eq!(get("tsv").lines().count(), n_words + 1);
        assert_eq!(get("ctm").lines().count(), n_words);
        let grid = get("textgrid");
        assert!(grid.starts_with("File type = \"ooTextFile\"\nObject class = \"TextGrid\"\n"));
        assert_eq!(grid.matches("class = \"IntervalTier\"").count(), 3);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let text = folder.path().join("long.txt");
    fs::write(&text, "word ".repeat(5_000)).expect("written");
    let align =
        |text: &Path| run(asr().args(["align", "-l", "eng", "examples/audio/eng.flac"]).arg(text));
    let (code, _, err) = align(&text);
    assert!(code == 1 && err.contains("long.txt") && err.contains("frames"), "{err}");
    fs::write(&text, " \n").expect("written");
    let (code, _, err) = align(&text);
    assert!(code == 1 && err.contains("no words"), "{err}");
}

#[cfg(unix)]
#[test]
fn what_ctrl_c_cuts_off_is_not_kept_as_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    // A quarter of an hour of one example, again and again.
    let long = samples("spa.wav").repeat(250);
    let recording = folder.path().join("long.wav");
    fs::write(&recording, wav(&long, 16_000)).expect("written");
    let subtitles = folder.path().join("subtitles");
    let child = std::process::Command::new(env!("CARGO_BIN_EXE_asr"))
        .args(["transcribe", "-f", "srt", "--threads", "1", "-o"])
        .args([subtitles.join(""), recording])
        .spawn()
        .expect("the binary runs");
    std::thread::sleep(std::time::Duration::from_millis(500));
    let pid = child.id().to_string();
    let told = std::process::Command::new("kill").args(["-INT", &pid]).status().expect("kill");
    assert!(told.success(), "it was already done");
    let ended = child.wait_with_output().expect("it ends");
    assert_eq!(ended.status.code(), Some(130));
    let kept = fs::read_dir(&subtitles).map_or(0, Iterator::count);
    assert_eq!(kept, 0, "files");
}
