//! A stream gives the same whatever its chunks and seams, and its times are in order.

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

/// Six examples.
static CLIPS: LazyLock<[Vec<f32>; 6]> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/audio");
    ["eng.flac", "swa.m4a", "deu.flac", "ell.ogg", "spa.wav", "ces.opus"].map(|name| {
        decode_path(&folder.join(name), &DecodeOptions::default()).expect("decodes").samples
    })
});

/// The six, one after the other: about half a minute.
static SPEECH: LazyLock<Vec<f32>> = LazyLock::new(|| CLIPS.concat());

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
        prop_assert!(!detect_voice || times_are_in_order(&found, duration_s));
        prop_assert!(times_are_in_order(&whole, duration_s));
        if !detect_voice {
            let ends = found.segments.iter().map(|segment| segment.1);
            let starts = found.segments.iter().map(|segment| segment.0).chain([duration_s]);
            prop_assert!(starts.eq([0.0].into_iter().chain(ends)), "nothing is left out");
        }
    }

    /// Recordings with digital silence in between are heard as each alone.
    #[test]
    fn seams_between_recordings_do_not_matter(
        parts in prop::collection::vec((0_usize..CLIPS.len(), 6_000_usize..60_000), 2..8),
        chunk in 1_usize..60_000,
        at_a_time in 1_usize..4,
    ) {
        let mut joined = vec![0.0; parts[0].1 % 20_000];
        let mut texts = Vec::new();
        for (clip, gap) in &parts {
            joined.extend_from_slice(&CLIPS[*clip]);
            joined.resize(joined.len() + gap, 0.0);
            texts.extend(transcribe(&[&CLIPS[*clip]], StreamOptions::default()).segments);
        }
        let options = StreamOptions { detect_voice: true, at_a_time };
        let found = transcribe(&joined.chunks(chunk).collect::<Vec<_>>(), options);
        prop_assert!(times_are_in_order(&found, joined.len() as f64 / 16_000.0));
        prop_assert_eq!(found.segments.len(), texts.len());
        for ((_, _, found), (_, _, alone)) in found.segments.iter().zip(&texts) {
            prop_assert_eq!(&found.text, &alone.text);
            prop_assert_eq!(found.languages.len(), alone.languages.len());
            for language in &found.languages {
                let same = alone.languages.iter().find(|l| l.code == language.code);
                prop_assert!(same.is_some_and(|l| (l.score - language.score).abs() < 1e-4));
            }
        }
    }

    /// What a window holds whole is heard as by the model itself.
    #[test]
    fn full_context_gives_the_text_of_the_whole(
        first in 0_usize..CLIPS.len(),
        second in 0_usize..CLIPS.len(),
        sizes in prop::collection::vec(1_usize..60_000, 1..60),
    ) {
        let speech = [&CLIPS[first][..], &CLIPS[second]].concat();
        let speech = &speech[..speech.len().min(320_000)];
        let options = StreamOptions { detect_voice: false, at_a_time: 1 };
        let found = transcribe(&cut(speech, &sizes), options);
        let whole = TRANSCRIBER.transcribe(&[speech], None).expect("decodes").swap_remove(0);
        prop_assert_eq!(found.text(), whole.text);
    }
}

/// Whether segments and words follow each other and lie inside of the stream.
fn times_are_in_order(found: &Transcription, duration_s: f64) -> bool {
    let follow = |times: Vec<(f64, f64)>| {
        let mut last = 0.0;
        times.into_iter().all(|(start_s, end_s)| {
            let in_order = last <= start_s && start_s <= end_s && end_s <= duration_s;
            last = end_s;
            in_order
        })
    };
    let segments = found.segments.iter().map(|(start_s, end_s, _)| (*start_s, *end_s));
    let words = found.words().map(|word| (word.start_s, word.end_s));
    follow(segments.collect()) && follow(words.collect())
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
        let streamed = transcribe(&[speech], StreamOptions::default());
        let texts: Vec<&str> =
            streamed.segments.iter().map(|s| s.2.text.as_str()).filter(|t| !t.is_empty()).collect();
        let mut last = 0.0;
        prop_assert_eq!(found.len(), whole.len());
        for (a, b) in found.iter().zip(&whole) {
            prop_assert_eq!(&a.understood, &b.understood);
            prop_assert!(last <= a.start_s && a.start_s < a.end_s);
            last = a.end_s;
        }
        prop_assert!(found.iter().map(|live| live.understood.text.as_str()).eq(texts));
    }
}

/// A batch of clips gives what each gives alone.
#[test]
fn clips_of_a_batch_are_heard_as_alone() {
    let silence = vec![0.0; 20_000];
    let mut clips: Vec<&[f32]> = CLIPS.iter().map(Vec::as_slice).collect();
    clips.push(&silence);
    let pieces = Stream::of_clips(&*TRANSCRIBER, &clips, true, None).expect("decodes");
    assert_eq!(pieces.len(), clips.len());
    for (pieces, clip) in pieces.iter().zip(&clips) {
        let alone = transcribe(&[clip], StreamOptions::default());
        assert_eq!(pieces.len(), alone.segments.len());
        for (piece, (start_s, end_s, segment)) in pieces.iter().zip(&alone.segments) {
            assert_eq!((piece.start_s, piece.end_s), (*start_s, *end_s));
            assert_eq!(TRANSCRIBER.read_piece(piece, None).text, segment.text);
        }
    }
}

/// Cut where the language changes, nothing is lost and times stay in order.
#[test]
fn pieces_of_one_language_follow_each_other() {
    let mut stream = Stream::new(&*TRANSCRIBER, StreamOptions::default()).by_language();
    let mut pieces = stream.push(&SPEECH).expect("decodes");
    pieces.extend(stream.finish().expect("decodes"));
    let mut last = 0.0;
    for piece in &pieces {
        assert!(piece.start_s >= last && piece.end_s > piece.start_s, "{} {last}", piece.start_s);
        last = piece.end_s;
    }
    assert!(last <= SPEECH.len() as f64 / 16_000.0);
    let letters = |text: &str| text.chars().filter(|c| *c != ' ').count() as f64;
    let found: f64 =
        pieces.iter().map(|piece| letters(&TRANSCRIBER.read_piece(piece, None).text)).sum();
    let whole = letters(&transcribe(&[&SPEECH], StreamOptions::default()).text());
    assert!((0.85..1.15).contains(&(found / whole)), "{found} letters, {whole} without changes");
}

/// Pauses shorter than those that end an utterance part it where the language changes in them.
#[test]
fn each_language_is_heard_by_itself_though_the_pause_is_short() {
    // Half a second at -70 dB: neither digital silence nor long.
    let mut state = 1_u32;
    let pause: Vec<f32> = (0..8_000)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            1e-3 * (state as f32 / u32::MAX as f32 - 0.5)
        })
        .collect();
    let order = [1, 4];
    let joined: Vec<f32> = order.iter().flat_map(|&i| [&CLIPS[i], &pause[..]].concat()).collect();
    let found = transcribe(&[&joined], StreamOptions::default());
    let spoken: Vec<String> = found
        .segments
        .iter()
        .filter_map(|(_, _, s)| Some(s.languages.first()?.code.to_string()))
        .collect();
    for language in ["swa", "spa"] {
        assert!(spoken.iter().any(|l| l == language), "{language} is not in {spoken:?}");
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

/// The same in a recording of one voice without end: words are parted in pauses or overlap.
#[test]
fn long_speech_without_a_pause_is_heard_to_its_end() {
    let clip = &CLIPS[4][3_000..CLIPS[4].len() - 3_000];
    let speech = clip.repeat(15);
    let found = transcribe(&[&speech], StreamOptions::default());
    let duration_s = speech.len() as f64 / 16_000.0;
    assert!(times_are_in_order(&found, duration_s));
    let last = found.words().last().expect("words").end_s;
    assert!(duration_s - last < 2.0, "{last} of {duration_s}");
    let gaps = found.segments.windows(2).map(|pair| pair[1].0 - pair[0].1);
    assert!(gaps.fold(0.0, f64::max) < 1.0, "{:?}", found.segments);
}
