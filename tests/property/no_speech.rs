//! What is no speech gives no text and no language.

use asr::config::embedded_model;
use asr::decode::{FrameModel, Stream, Transcriber};
use asr_kernels::Precision;
use std::f32::consts::TAU;
use std::sync::LazyLock;

static TRANSCRIBER: LazyLock<Transcriber> = LazyLock::new(|| {
    Transcriber::new(&embedded_model().expect("embedded"), Precision::F32).expect("fits")
});

const RATE: usize = 16_000;

/// A tone with overtones that decay as a plucked string's do.
fn string(hz: f32, seconds: f32) -> Vec<f32> {
    let n = (seconds * RATE as f32) as usize;
    (0..n)
        .map(|i| {
            let t = i as f32 / RATE as f32;
            (1..6)
                .map(|k| {
                    let k = k as f32;
                    (TAU * hz * k * t).sin() * (-t * (1.0 + k)).exp() / k
                })
                .sum::<f32>()
                * 0.15
        })
        .collect()
}

fn noise(n: usize) -> Vec<f32> {
    let mut state = 1_u32;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state as f32 / u32::MAX as f32 - 0.5
        })
        .collect()
}

fn hum(seconds: usize, level: f32) -> Vec<f32> {
    let wave = |i: usize| {
        let t = i as f32 / RATE as f32;
        (1..8).map(|k| (TAU * 50.0 * k as f32 * t).sin() / k as f32).sum::<f32>() * level
    };
    (0..seconds * RATE).map(wave).collect()
}

fn mixed(parts: &[Vec<f32>]) -> Vec<f32> {
    let longest = parts.iter().map(Vec::len).max().unwrap_or(0);
    (0..longest).map(|i| parts.iter().filter_map(|part| part.get(i)).sum()).collect()
}

fn chords() -> Vec<f32> {
    let chord = |root: f32| {
        let notes = [1.0, 1.26, 1.498, 2.0].map(|ratio| string(root * ratio, 1.5));
        mixed(&notes)
    };
    [220.0, 174.6, 261.6, 196.0].map(chord).concat()
}

fn arpeggio() -> Vec<f32> {
    let notes = [261.6, 329.6, 392.0, 523.3, 392.0, 329.6];
    notes.iter().cycle().take(36).flat_map(|&hz| string(hz, 0.2)).collect()
}

fn drums() -> Vec<f32> {
    let beat = |i: usize| {
        let snare = i % 2 == 1;
        let burst = noise(RATE / 2).into_iter().enumerate().map(move |(i, x)| {
            let t = i as f32 / RATE as f32;
            let kick = (TAU * 60.0 * t).sin() * (-t * 12.0).exp() * 0.5;
            if snare { x * (-t * 20.0).exp() * 0.5 } else { kick }
        });
        burst.collect::<Vec<f32>>()
    };
    (0..14).flat_map(beat).collect()
}

#[test]
fn silence_hum_and_music_give_no_text_and_at_most_an_unknown_language() {
    let silence = vec![0.0; 3 * RATE];
    let quiet = noise(8 * RATE).iter().map(|x| x * 1e-3).collect();
    let cases = [
        ("digital silence", silence.repeat(9)),
        ("quiet noise", quiet),
        ("loud noise", noise(8 * RATE)),
        ("hum", hum(8, 0.05)),
        ("loud hum", hum(8, 0.3)),
        ("hum after silence", [silence.clone(), hum(6, 0.2)].concat()),
        ("hum that comes and goes", [hum(2, 0.2), silence.clone()].concat().repeat(3)),
        ("chords", chords()),
        ("arpeggio", arpeggio()),
        ("drums", drums()),
        ("a band", mixed(&[chords(), arpeggio(), drums()])),
        ("a band after silence", [silence, mixed(&[chords(), drums()])].concat()),
    ];
    let threshold = TRANSCRIBER.calibration().expect("fitted").unknown_threshold;
    for (name, samples) in &cases {
        let pieces = Stream::of_clips(&*TRANSCRIBER, &[samples], true, None);
        for piece in pieces.expect("decodes").swap_remove(0) {
            let heard = TRANSCRIBER.read_piece(&piece, None);
            assert_eq!(heard.text, "", "{name}");
            let best = heard.languages.first();
            assert!(best.is_none_or(|best| best.score < threshold), "{name}: {best:?}");
        }
    }
}
