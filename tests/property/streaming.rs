//! A stream gives the same whatever its chunks, and its times are in order.

use asr::audio::{DecodeOptions, decode_path};
use asr::config::embedded_model;
use asr::decode::{Stream, StreamOptions, Transcriber, Transcription};
use asr_kernels::Precision;
use proptest::prelude::*;
use std::path::Path;
use std::sync::LazyLock;

static TRANSCRIBER: LazyLock<Transcriber> = LazyLock::new(|| {
    Transcriber::new(&embedded_model().expect("embedded"), Precision::F32).expect("fits")
});

/// Six examples, one after the other: about half a minute.
static SPEECH: LazyLock<Vec<f32>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/audio");
    ["eng.flac", "swa.m4a", "deu.flac", "ell.ogg", "spa.wav", "ces.opus"]
        .iter()
        .flat_map(|name| {
            decode_path(&folder.join(name), &DecodeOptions::default()).expect("decodes").samples
        })
        .collect()
});

fn transcribe(chunks: &[&[f32]], options: StreamOptions) -> Transcription {
    let mut stream = Stream::new(&TRANSCRIBER, options);
    let mut transcription = Transcription::default();
    let mut take = |pieces| {
        for piece in pieces {
            let text = TRANSCRIBER.read_piece(&piece, None);
            transcription.push(piece.start_s, piece.end_s, text);
        }
    };
    for chunk in chunks {
        take(stream.push(chunk).expect("decodes"));
    }
    take(stream.finish().expect("decodes"));
    transcription
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn chunks_do_not_matter_and_times_are_in_order(
        sizes in prop::collection::vec(1_usize..60_000, 1..60),
        skip in 0_usize..30_000,
        detect_voice in any::<bool>(),
        at_a_time in 1_usize..4,
    ) {
        let speech = &SPEECH[skip..];
        let mut chunks: Vec<&[f32]> = Vec::new();
        let mut rest = speech;
        for size in sizes.iter().cycle() {
            let (chunk, after) = rest.split_at((*size).min(rest.len()));
            chunks.push(chunk);
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        let found = transcribe(&chunks, StreamOptions { detect_voice, at_a_time });
        let whole = transcribe(&[speech], StreamOptions { detect_voice, at_a_time: 1 });
        prop_assert_eq!(found.text(), whole.text());
        prop_assert!(!whole.text().is_empty());
        let duration_s = speech.len() as f64 / 16_000.0;
        let mut last = 0.0;
        for (start_s, end_s, _) in &found.segments {
            prop_assert!(*start_s == last && end_s > start_s, "{start_s} {end_s}");
            last = *end_s;
        }
        prop_assert_eq!(last, duration_s);
        let mut last = 0.0;
        for word in found.words() {
            prop_assert!(last <= word.start_s && word.start_s <= word.end_s, "{word:?}");
            prop_assert!(word.end_s <= duration_s, "{word:?}");
            last = word.end_s;
        }
    }
}

/// The same clip over and over: between the seams the text does not depend on where they are.
#[test]
fn no_text_is_lost_or_doubled_at_seams() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/audio");
    let clip = decode_path(&folder.join("spa.wav"), &DecodeOptions::default()).expect("decodes");
    let alone = TRANSCRIBER.transcribe(&[&clip.samples], None).expect("decodes").remove(0);
    let pause = vec![0.0; 12_800];
    let n = 12;
    let mut chunks: Vec<&[f32]> = Vec::new();
    for _ in 0..n {
        chunks.extend([&pause[..], &clip.samples]);
    }
    let joined = transcribe(&chunks, StreamOptions::default());
    let letters = |text: &str| text.chars().filter(|c| *c != ' ').count();
    let (got, want) = (letters(&joined.text()), n * letters(&alone.text));
    let ratio = got as f64 / want as f64;
    assert!((0.8..1.2).contains(&ratio), "{got} letters, {want} by the single clip");
}
