//! A stream gives the same whatever its chunks, and its times are in order.

use asr::audio::{DecodeOptions, decode_path};
use asr::config::embedded_model;
use asr::decode::{
    FrameModel, Live, LiveSegment, Stream, StreamOptions, Transcriber, Transcription,
};
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
    let mut stream = Stream::new(&*TRANSCRIBER, options);
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
        let chunks = cut(speech, &sizes);
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

/// The pieces of `speech`, of the sizes given over and over.
fn cut<'a>(speech: &'a [f32], sizes: &[usize]) -> Vec<&'a [f32]> {
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
    chunks
}

fn live(chunks: &[&[f32]]) -> (Vec<LiveSegment>, usize) {
    let mut live = Live::new(&*TRANSCRIBER, None);
    let mut segments = Vec::new();
    for chunk in chunks {
        segments.extend(live.push(chunk).expect("decodes"));
    }
    segments.extend(live.finish().expect("decodes"));
    let n = segments.len();
    segments.retain(|segment| segment.is_final && !segment.understood.text.is_empty());
    let n_partial = n - segments.len();
    (segments, n_partial)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3))]

    #[test]
    fn live_text_does_not_depend_on_how_sound_arrives(
        sizes in prop::collection::vec(1_usize..20_000, 1..30),
        skip in 0_usize..30_000,
    ) {
        let speech = &SPEECH[skip..];
        let (found, n_partial) = live(&cut(speech, &sizes));
        let (whole, _) = live(&[speech]);
        prop_assert!(n_partial > 0 && !whole.is_empty());
        prop_assert_eq!(found.len(), whole.len());
        let mut last = 0.0;
        for (a, b) in found.iter().zip(&whole) {
            prop_assert_eq!(&a.understood, &b.understood);
            prop_assert!(last <= a.start_s && a.start_s < a.end_s);
            last = a.end_s;
        }
    }
}

/// Cut where the language changes, nothing is lost and times stay in order.
#[test]
fn pieces_of_one_language_follow_each_other() {
    let mut stream = Stream::new(&*TRANSCRIBER, StreamOptions::default()).by_language(None);
    let mut pieces = stream.push(&SPEECH).expect("decodes");
    pieces.extend(stream.finish().expect("decodes"));
    let mut last = 0.0;
    for piece in &pieces {
        assert!(piece.start_s == last && piece.end_s >= piece.start_s, "{} {last}", piece.start_s);
        last = piece.end_s;
    }
    assert!((last - SPEECH.len() as f64 / 16_000.0).abs() < 1e-9);
    let letters = |text: &str| text.chars().filter(|c| *c != ' ').count() as f64;
    let found: f64 =
        pieces.iter().map(|piece| letters(&TRANSCRIBER.read_piece(piece, None).text)).sum();
    let whole = letters(&transcribe(&[&SPEECH], StreamOptions::default()).text());
    assert!((0.85..1.15).contains(&(found / whole)), "{found} letters, {whole} without changes");
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

/// Clips of a folder, joined to half-minutes: streamed with any seams, the text is that of the
/// whole heard at once. `ASR_CLIPS` names the folder. Not reached yet: 62 % of held-out clips' characters.
#[test]
#[ignore = "needs a folder of clips: ASR_CLIPS=FOLDER cargo clips"]
fn streamed_text_is_that_of_the_whole() {
    let folder = std::env::var_os("ASR_CLIPS").expect("ASR_CLIPS names a folder");
    let clips = asr::audio::audio_files(folder.as_ref(), true).expect("listed");
    let (mut errors, mut characters) = (0, 0);
    let mut joined: Vec<f32> = Vec::new();
    for (i, clip) in clips.iter().enumerate() {
        joined.extend(decode_path(clip, &DecodeOptions::default()).expect("decodes").samples);
        joined.extend([0.0; 8_000]);
        if joined.len() < 16_000 * 30 && i + 1 < clips.len() {
            continue;
        }
        let whole = TRANSCRIBER.transcribe(&[&joined], None).expect("decodes").swap_remove(0);
        let chunk = 1_000 + 7_919 * i % 50_000;
        let chunks: Vec<&[f32]> = joined.chunks(chunk).collect();
        let streamed = transcribe(&chunks, StreamOptions { detect_voice: false, at_a_time: 1 });
        let letters = |text: &str| text.chars().filter(|c| *c != ' ').collect::<Vec<char>>();
        let counts = asr::text::edit_counts(&letters(&whole.text), &letters(&streamed.text()));
        errors += counts.errors();
        characters += counts.reference;
        joined.clear();
    }
    let same = 1.0 - errors as f64 / characters.max(1) as f64;
    println!("{:.3} % of {characters} characters are the same", 100.0 * same);
    assert!(same >= 0.995, "{:.3} % of {characters} characters", 100.0 * same);
}
