//! Every way audio can come in.

use super::{asr, fixture, objects, run, wav};
use serde_json::Value;
use std::io::Write;

fn transcribed(name: &str) -> Value {
    let (code, out, err) = run(asr().args(["transcribe", "-f", "jsonl"]).arg(fixture(name)));
    assert_eq!(code, 0, "{name}: {err}");
    objects(&out).remove(0)
}

#[test]
fn the_first_command_of_the_readme_prints_text_for_every_clip() {
    let (code, out, err) = run(asr().args(["transcribe", "examples/audio"]));
    assert_eq!((code, err.as_str()), (0, ""));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 12);
    for line in lines {
        let (file, rest) = line.split_once(": ").expect("file: [language] text");
        assert!(file.starts_with("examples/audio/"), "{line}");
        let (language, text) = rest.split_once("] ").expect("[language] text");
        assert!(language.starts_with('[') && language.len() == 4, "{line}");
        assert!(text.chars().count() > 5, "{line}");
    }
}

#[test]
fn lossless_formats_give_the_text_of_the_wav() {
    let reference = transcribed("sentence.flac");
    for name in ["sentence-alac.m4a", "sentence-alac.caf", "sentence-flac.mka", "sentence-flac.ogg"]
    {
        // These hold the sentence at 8 kHz or with the channels of the original: the text
        // must be that of their own decoded samples, which the audio tests compare.
        let found = transcribed(name);
        assert!(found["duration_s"].as_f64().expect("a number") > 0.5, "{name}");
        assert!(reference["duration_s"].as_f64().expect("a number") > 0.5);
    }
}

#[test]
fn standard_input_gives_what_the_file_gives() {
    let bytes = std::fs::read("examples/audio/spa.wav").expect("the example is there");
    let (code, from_file, _) = run(asr().args(["transcribe", "examples/audio/spa.wav"]));
    assert_eq!(code, 0);
    let (code, from_pipe, err) = run(asr().args(["transcribe", "-"]).write_stdin(bytes.clone()));
    assert_eq!((code, from_pipe.as_str()), (0, from_file.as_str()), "{err}");
    // A header that promises four gigabytes, as recorders write into pipes.
    let mut endless = bytes.clone();
    endless[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    let data = endless.windows(4).position(|w| w == b"data").expect("a data chunk") + 4;
    endless[data..data + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    let (code, unknown_length, err) = run(asr().args(["transcribe", "-"]).write_stdin(endless));
    assert_eq!((code, unknown_length.as_str()), (0, from_file.as_str()), "{err}");
    let raw = bytes[data + 4..].to_vec();
    let options = ["transcribe", "--stdin-format", "s16le", "--stdin-rate", "16000", "-"];
    let (code, from_raw, err) = run(asr().args(options).write_stdin(raw));
    assert_eq!((code, from_raw.as_str()), (0, from_file.as_str()), "{err}");
}

#[test]
fn awkward_audio_is_transcribed_or_named_and_the_rest_is_done() {
    let folder = tempfile::tempdir().expect("a folder");
    let put = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::File::create(&path).and_then(|mut f| f.write_all(bytes)).expect("written");
    };
    let tone: Vec<f32> = (0..16_000).map(|i| (i as f32 * 0.1).sin() * 0.1).collect();
    put("a-good.wav", &wav(&tone, 16_000));
    put("b-text.wav", b"this is no sound at all, only a text file with another name");
    put("c-empty.wav", b"");
    put("d-no-samples.wav", &wav(&[], 16_000));
    put("e-one-sample.wav", &wav(&[0.5], 16_000));
    put("f-192k.wav", &wav(&tone, 192_000));
    std::fs::copy(fixture("eight-channels-192k.flac"), folder.path().join("g-8ch.flac"))
        .expect("copied");
    let mp3 = std::fs::read(fixture("sentence.mp3")).expect("the fixture is there");
    put("h-truncated.mp3", &mp3[..mp3.len() * 2 / 3]);
    let mut nan = wav(&tone, 16_000);
    nan[20..22].copy_from_slice(&3_u16.to_le_bytes());
    nan[34..36].copy_from_slice(&32_u16.to_le_bytes());
    nan[32..34].copy_from_slice(&4_u16.to_le_bytes());
    nan[28..32].copy_from_slice(&64_000_u32.to_le_bytes());
    for sample in nan[44..].chunks_exact_mut(4) {
        sample.copy_from_slice(&f32::NAN.to_le_bytes());
    }
    put("i-nan.wav", &nan);
    let (code, out, err) = run(asr()
        .args(["transcribe", "-f", "jsonl"])
        .arg(folder.path())
        .arg(folder.path().join("missing.wav")));
    assert_eq!(code, 1);
    let results = objects(&out);
    let names = |failed: bool| -> Vec<String> {
        results
            .iter()
            .filter(|r| r.get("error").is_some() == failed)
            .map(|r| {
                let file = r["file"].as_str().expect("a name");
                file.rsplit('/').next().unwrap_or(file).to_owned()
            })
            .collect()
    };
    assert_eq!(
        names(false),
        ["a-good.wav", "e-one-sample.wav", "f-192k.wav", "g-8ch.flac", "h-truncated.mp3"]
    );
    assert_eq!(
        names(true),
        ["b-text.wav", "c-empty.wav", "d-no-samples.wav", "i-nan.wav", "missing.wav"]
    );
    for name in names(true) {
        assert!(err.contains(&name), "standard error names {name}: {err}");
    }
    assert!(err.contains("No such file or directory"), "{err}");
}

#[test]
fn silence_and_noise_give_no_text() {
    let silence = vec![0.0; 48_000];
    let mut state = 1_u32;
    let noise: Vec<f32> = (0..48_000)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 8) as f32 / (1 << 24) as f32 - 0.5) * 0.05
        })
        .collect();
    let hum: Vec<f32> = (0..48_000).map(|i| 0.05 * (i as f32 * 0.019_635).sin()).collect();
    let tone = |i: usize, hz: f32| (i as f32 * hz * std::f32::consts::TAU / 16_000.0).sin();
    let hum_after_silence: Vec<f32> = (0..64_000)
        .map(|i| {
            (1..6).map(|k| if i < 16_000 { 0.0 } else { 0.05 * tone(i, 50.0 * k as f32) }).sum()
        })
        .collect();
    // Chords of four decaying notes.
    let music: Vec<f32> = (0..96_000)
        .map(|i| {
            let root = [220.0, 174.6, 261.6, 196.0][i / 24_000];
            let decay = (-((i % 24_000) as f32) / 8_000.0).exp() * 0.1;
            [1.0, 1.26, 1.498, 2.0].iter().map(|ratio| decay * tone(i, root * ratio)).sum()
        })
        .collect();
    let cases = [
        ("silence", silence),
        ("noise", noise),
        ("hum", hum),
        ("hum after silence", hum_after_silence),
        ("music", music),
    ];
    for (name, samples) in cases {
        let (code, out, _) =
            run(asr().args(["transcribe", "-"]).write_stdin(wav(&samples, 16_000)));
        assert_eq!((code, out.as_str()), (0, "[-]\n"), "{name}");
        let (code, out, _) = run(asr().args(["identify", "-"]).write_stdin(wav(&samples, 16_000)));
        assert_eq!((code, out.as_str()), (0, "-\n"), "{name}");
        let (_, out, _) =
            run(asr().args(["identify", "-f", "jsonl", "-"]).write_stdin(wav(&samples, 16_000)));
        assert!(objects(&out)[0]["language"].is_null(), "{name}: {out}");
    }
}
