//! Any bytes as an audio file: a result or an error, within the limits.
//!
//! The last byte selects how they are read, so that any audio file is a seed; those in
//! `tests/data/audio` are short and of every format.

#![no_main]

use std::io::Cursor;
use std::sync::Once;
use std::time::Duration;

use asr::audio::{Audio, AudioError, DecodeOptions, Limits, RawFormat};
use asr::audio::{decode_bytes, decode_raw, decode_reader};
use libfuzzer_sys::fuzz_target;

static QUIET: Once = Once::new();

fn check(outcome: Result<Audio, AudioError>, max_duration_s: f64) {
    match outcome {
        Ok(audio) => {
            assert!(!audio.samples.is_empty());
            assert!(audio.samples.iter().all(|sample| sample.abs() <= 1.0));
            let duration_s = audio.samples.len() as f64 / f64::from(audio.sample_rate_hz);
            assert!(duration_s <= max_duration_s + 0.001);
            for damage in &audio.damage {
                assert!(!damage.to_string().is_empty());
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fuzz_target!(|data: &[u8]| {
    // libFuzzer aborts on any panic, also on those of a codec that the audio layer contains.
    // Without its hook only a panic that nobody catches ends the process.
    QUIET.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    let Some((&how, bytes)) = data.split_last() else {
        return;
    };
    let options = DecodeOptions {
        sample_rate_hz: [8_000, 16_000, 44_100, 48_000][usize::from(how & 3)],
        channel: [None, Some(0), Some(1), Some(7)][usize::from(how >> 2 & 3)],
        limits: Limits {
            max_bytes: 1 << 20,
            max_duration_s: 20.0,
            max_decode_time: Some(Duration::from_secs(10)),
            max_buffered_bytes: 1 << 20,
        },
    };
    let max_duration_s = options.limits.max_duration_s;
    let outcome = match how >> 4 & 3 {
        0 => decode_reader(Cursor::new(bytes.to_vec()), "pipe", None, &options),
        1 => {
            let n_channels = usize::from(how >> 6) + 1;
            let reader = Cursor::new(bytes.to_vec());
            decode_raw(reader, RawFormat::F32le, 11_025, n_channels, &options)
        }
        _ => decode_bytes(bytes.to_vec(), "bytes", None, &options),
    };
    check(outcome, max_duration_s);
});
