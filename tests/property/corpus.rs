//! Clips of a folder, alone and joined to recordings of many minutes, streamed with any chunks and
//! seams. `ASR_CLIPS` names the folder.

use asr::audio::{DecodeOptions, audio_files, decode_path};
use asr::config::embedded_model;
use asr::decode::{FrameModel, Live, Stream, StreamOptions, Transcriber, Transcription};
use asr::text::edit_counts;
use asr_kernels::{Precision, threads};
use rayon::prelude::*;
use std::sync::LazyLock;

static TRANSCRIBER: LazyLock<Transcriber> = LazyLock::new(|| {
    Transcriber::new(&embedded_model().expect("embedded"), Precision::F32).expect("fits")
});

/// Seconds of a joined recording.
const JOINED_S: usize = 600;

/// The clips of the folder; of a folder without a list of them every one.
static CLIPS: LazyLock<Vec<Vec<f32>>> = LazyLock::new(|| {
    let folder = std::env::var_os("ASR_CLIPS").expect("ASR_CLIPS names a folder of clips");
    let paths = audio_files(folder.as_ref(), true).expect("listed");
    assert!(!paths.is_empty(), "ASR_CLIPS names a folder without clips");
    let decode = |path| decode_path(path, &DecodeOptions::default()).expect("decodes").samples;
    paths.par_iter().map(|path| decode(path)).collect()
});

/// Clips one after the other, with so many samples of digital silence before each.
fn joined(gap: impl Fn(usize) -> usize) -> Vec<(Vec<f32>, Vec<usize>)> {
    let mut recordings: Vec<(Vec<f32>, Vec<usize>)> = vec![Default::default()];
    // In an order without one speaker after another.
    let n = CLIPS.len();
    let stride = (1..).map(|k| n / 3 + k).find(|&stride| gcd(stride, n) == 1).unwrap_or(1);
    for i in 0..n {
        let clip = i * stride % n;
        if recordings.last().is_none_or(|last| last.0.len() > JOINED_S * 16_000) {
            recordings.push(Default::default());
        }
        let (samples, clips) = recordings.last_mut().expect("one was pushed");
        samples.resize(samples.len() + gap(i), 0.0);
        samples.extend_from_slice(&CLIPS[clip]);
        clips.push(clip);
    }
    recordings
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Numbers without a pattern, from 0 to `below`.
fn scattered(seed: usize, below: usize) -> usize {
    (seed.wrapping_mul(2_654_435_761) >> 7) % below
}

/// What is heard in chunks of sizes that `seed` scatters; at once where it is 0.
fn stream(samples: &[f32], seed: usize) -> Transcription {
    threads::serial(|| {
        let mut stream = Stream::new(&*TRANSCRIBER, StreamOptions::default());
        let mut found = Transcription::default();
        let mut rest = samples;
        for i in 1.. {
            let size = if seed == 0 { rest.len() } else { 1 + scattered(seed + i, 60_000) };
            let (chunk, after) = rest.split_at(size.min(rest.len()));
            let pieces = if chunk.is_empty() { break } else { stream.push(chunk) };
            for piece in pieces.expect("decodes") {
                let text = TRANSCRIBER.read_piece(&piece, None);
                found.push(piece.start_s, piece.end_s, text);
            }
            rest = after;
        }
        for piece in stream.finish().expect("decodes") {
            found.push(piece.start_s, piece.end_s, TRANSCRIBER.read_piece(&piece, None));
        }
        found
    })
}

fn letters(text: &str) -> Vec<char> {
    text.chars().filter(|c| *c != ' ').collect()
}

/// Share of the characters of the first texts that the second have too.
fn same(pairs: &[(String, String)]) -> f64 {
    let count = |(a, b): &(String, String)| {
        let counts = edit_counts(&letters(a), &letters(b));
        (counts.errors(), counts.reference)
    };
    let sums = pairs.par_iter().map(count).reduce(|| (0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    1.0 - sums.0 as f64 / sums.1.max(1) as f64
}

fn is_in_order(found: &Transcription, duration_s: f64) -> bool {
    let mut last = 0.0;
    found.words().all(|word| {
        let follows = last <= word.start_s && word.start_s <= word.end_s;
        last = word.end_s;
        follows && last <= duration_s
    })
}

/// A recording in chunks of any sizes, to a pipe or to a microphone, gives the text of the file.
#[test]
#[ignore = "needs a folder of clips: ASR_CLIPS=FOLDER cargo clips"]
fn chunks_of_any_size_give_the_text_of_the_file() {
    let clips = CLIPS.iter().map(Vec::as_slice).enumerate();
    let recordings = joined(|i| scattered(i, 30_000));
    let all: Vec<(usize, &[f32])> =
        clips.chain(recordings.iter().map(|(samples, _)| samples.as_slice()).enumerate()).collect();
    let heard = |(i, samples): &(usize, &[f32])| {
        let (whole, streamed) = (stream(samples, 0), stream(samples, 1 + i));
        assert!(is_in_order(&streamed, samples.len() as f64 / 16_000.0), "recording {i}");
        (whole.text(), streamed.text())
    };
    let pairs: Vec<(String, String)> = all.par_iter().map(heard).collect();
    let same = same(&pairs);
    println!("{:.3} % of the characters are the same, {} recordings", 100.0 * same, all.len());
    assert!(same >= 0.995, "{same}");
}

/// Clips with digital silence of any length between them are heard as each alone.
#[test]
#[ignore = "needs a folder of clips: ASR_CLIPS=FOLDER cargo clips"]
fn joined_clips_give_the_texts_of_the_clips() {
    let alone: Vec<String> = CLIPS.par_iter().map(|clip| stream(clip, 0).text()).collect();
    let recordings = joined(|i| 6_400 + scattered(i, 30_000));
    let heard = |(samples, clips): &(Vec<f32>, Vec<usize>)| {
        let texts: Vec<&str> = clips.iter().map(|&clip| alone[clip].as_str()).collect();
        (texts.join(" "), stream(samples, samples.len()).text())
    };
    let pairs: Vec<(String, String)> = recordings.par_iter().map(heard).collect();
    let same = same(&pairs);
    println!("{:.3} % of the characters are the same, {} clips", 100.0 * same, CLIPS.len());
    assert!(same >= 0.995, "{same}");
}

/// What is said live is what the file gives.
#[test]
#[ignore = "needs a folder of clips: ASR_CLIPS=FOLDER cargo clips"]
fn live_text_is_that_of_the_file() {
    let recordings = joined(|i| scattered(i, 30_000));
    let (samples, _) = &recordings[0];
    let samples = &samples[..samples.len().min(120 * 16_000)];
    let mut live = Live::new(&*TRANSCRIBER, None);
    let mut found = Transcription::default();
    let mut take = |segments: Vec<asr::decode::LiveSegment>| {
        for segment in segments.into_iter().filter(|segment| segment.is_final) {
            found.push(segment.start_s, segment.end_s, segment.understood);
        }
    };
    for chunk in samples.chunks(3_333) {
        take(live.push(chunk).expect("decodes"));
    }
    take(live.finish().expect("decodes"));
    assert_eq!(found.text(), stream(samples, 0).text());
}

/// How far windows are from the model hearing half-minutes at once, which it is not trained on:
/// a number to look at.
#[test]
#[ignore = "needs a folder of clips: ASR_CLIPS=FOLDER cargo clips"]
fn windows_against_one_pass() {
    let mut halves: Vec<Vec<f32>> = vec![Vec::new()];
    for clip in CLIPS.iter() {
        if halves.last().is_none_or(|last| last.len() > 30 * 16_000) {
            halves.push(Vec::new());
        }
        let last = halves.last_mut().expect("one was pushed");
        last.extend_from_slice(clip);
        last.resize(last.len() + 8_000, 0.0);
    }
    for detect_voice in [true, false] {
        let heard = |samples: &Vec<f32>| {
            threads::serial(|| {
                let whole = TRANSCRIBER.transcribe(&[samples], None).expect("decodes");
                let mut text = Transcription::default();
                let pieces = Stream::of_clips(&*TRANSCRIBER, &[samples], detect_voice, None);
                for piece in pieces.expect("decodes").swap_remove(0) {
                    let heard = TRANSCRIBER.read_piece(&piece, None);
                    text.push(piece.start_s, piece.end_s, heard);
                }
                (whole[0].text.clone(), text.text())
            })
        };
        let pairs: Vec<(String, String)> = halves.par_iter().map(heard).collect();
        let same = same(&pairs);
        println!("voice detection {detect_voice}: {:.2} % as in one pass", 100.0 * same);
        assert!(same > 0.1);
    }
}
