//! The audio layer as a whole, over every format. The files are described in
//! `tests/data/audio/README.md`.

mod damaged;
mod formats;
mod hostile;
mod pcm;
mod streams;

use std::path::PathBuf;

use crate::audio::{Audio, AudioError, DecodeOptions, decode_bytes, decode_path};

/// Number of samples of the sentence, at 16 kHz.
const SENTENCE_SAMPLES: usize = 11_111;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/audio").join(name)
}

fn fixture_bytes(name: &str) -> Vec<u8> {
    std::fs::read(fixture(name)).expect("the fixture is in the repository")
}

/// Every fixture, sorted.
fn fixture_names() -> Vec<String> {
    let files = crate::audio::audio_files(&fixture(""), false).expect("the fixtures are there");
    files.iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect()
}

fn decode(name: &str) -> Audio {
    decode_path(&fixture(name), &DecodeOptions::default())
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn decode_memory(bytes: Vec<u8>) -> Result<Audio, AudioError> {
    decode_bytes(bytes, "memory", None, &DecodeOptions::default())
}

/// The sentence as it was before any lossy codec.
fn sentence() -> Vec<f32> {
    let audio = decode("sentence.flac");
    assert_eq!(audio.samples.len(), SENTENCE_SAMPLES);
    audio.samples
}

/// Signal-to-noise ratio in dB of `got` shifted to the left by `lag` samples.
fn snr_db(got: &[f32], wanted: &[f32], lag: isize) -> f64 {
    let (mut signal, mut noise) = (0.0, 0.0);
    for (index, &want) in wanted.iter().enumerate() {
        let shifted = usize::try_from(index as isize + lag).ok();
        if let Some(&got) = shifted.and_then(|shifted| got.get(shifted)) {
            signal += f64::from(want).powi(2);
            noise += (f64::from(got) - f64::from(want)).powi(2);
        }
    }
    10.0 * (signal / (noise + 1e-30)).log10()
}

/// The lag within ±100 samples at which `got` is most like `wanted`.
fn best_lag(got: &[f32], wanted: &[f32]) -> isize {
    (-100..=100)
        .max_by(|&a, &b| snr_db(got, wanted, a).total_cmp(&snr_db(got, wanted, b)))
        .unwrap_or(0)
}
