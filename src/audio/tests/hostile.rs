//! Inputs that are not audio, or lie about it: an error, soon, and without much memory.

use std::time::{Duration, Instant};

use super::pcm::wav;
use super::*;
use crate::audio::Limits;

fn error(bytes: Vec<u8>) -> AudioError {
    match decode_memory(bytes) {
        Err(error) => error,
        Ok(audio) => panic!("decoded {} samples", audio.samples.len()),
    }
}

#[test]
fn what_is_not_audio_is_named_so() {
    let text = b"Dear reader,\nthis is not a recording.\n".repeat(100);
    for bytes in [text, vec![0; 10_000], b"x".to_vec(), b"RIFF".to_vec()] {
        let error = error(bytes);
        assert!(
            matches!(error, AudioError::UnknownFormat { .. } | AudioError::Headers { .. }),
            "{error}"
        );
    }
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("letter.wav");
    std::fs::write(&path, "Dear reader").expect("write");
    let error = decode_path(&path, &DecodeOptions::default()).expect_err("text");
    assert_eq!(
        error.to_string(),
        format!("`{}` is not an audio file in a known format", path.display())
    );
}

#[test]
fn what_is_empty_is_named_so() {
    for bytes in [Vec::new(), wav(1, 16, 1, 16_000, &[]), wav(3, 32, 2, 44_100, &[])] {
        let error = error(bytes);
        assert!(matches!(error, AudioError::Empty { .. }), "{error}");
    }
}

#[test]
fn a_missing_file_and_a_directory_are_named_so() {
    let options = DecodeOptions::default();
    let error = decode_path("no-such.wav".as_ref(), &options).expect_err("missing");
    assert!(matches!(error, AudioError::Open { .. }));
    assert_eq!(error.to_string(), "cannot open audio file `no-such.wav`");
    let dir = tempfile::tempdir().expect("temporary directory");
    let error = decode_path(dir.path(), &options).expect_err("a directory");
    assert!(matches!(error, AudioError::Open { .. }), "{error}");
}

#[test]
fn absurd_claims_are_refused() {
    let sample = &[0; 64];
    for n_channels in [0, 257, 65_535] {
        for tag in [1, 3, 7, 0xFFFE] {
            let error = error(wav(tag, 32, n_channels, 16_000, sample));
            let refused = matches!(
                error,
                AudioError::ChannelCount { .. }
                    | AudioError::Headers { .. }
                    | AudioError::Codec { .. }
            );
            assert!(refused, "{n_channels} channels, format {tag}: {error}");
        }
    }
    for rate_hz in [0, 1, 999, 768_001, 4_000_000_000] {
        let error = error(wav(1, 16, 1, rate_hz, sample));
        let refused = matches!(error, AudioError::SampleRate { .. } | AudioError::Headers { .. });
        assert!(refused, "{rate_hz} Hz: {error}");
    }
    for bits in [0, 33, 48, 65_535] {
        let outcome = decode_memory(wav(1, bits, 1, 16_000, sample));
        assert!(outcome.is_err(), "{bits} bits");
    }
}

#[test]
fn a_claimed_length_beyond_the_limit_is_refused() {
    let mut flac = fixture_bytes("sentence.flac");
    // STREAMINFO follows `fLaC` and its block header; the last 36 bits of the 8 bytes at its
    // offset 10 are the number of samples.
    flac[21] |= 0x0F;
    flac[22..26].fill(0xFF);
    let error = error(flac);
    assert!(matches!(error, AudioError::TooLong { .. }), "{error}");
}

#[test]
fn a_claimed_length_that_is_not_there_costs_nothing() {
    let mut bytes = wav(1, 16, 1, 16_000, &[0, 64]);
    let data_at = bytes.len() - 2 - 4;
    bytes[data_at..data_at + 4].copy_from_slice(&0x7000_0000_u32.to_le_bytes());
    let audio = decode_memory(bytes).expect("one sample is there");
    assert_eq!(audio.samples, [0.5]);
    assert_eq!(audio.damage.len(), 1);
}

fn limited(limits: Limits) -> DecodeOptions {
    DecodeOptions { limits, ..DecodeOptions::default() }
}

#[test]
fn limits_hold_for_files_and_pipes() {
    let bytes = fixture_bytes("sentence.mp3");
    let few_bytes = limited(Limits { max_bytes: 1_000, ..Limits::default() });
    let short = limited(Limits { max_duration_s: 0.25, ..Limits::default() });
    let hasty = limited(Limits { max_decode_time: Some(Duration::ZERO), ..Limits::default() });
    let both = |options: &DecodeOptions| {
        let file = decode_bytes(bytes.clone(), "file", None, options);
        let pipe = std::io::Cursor::new(bytes.clone());
        let pipe = crate::audio::decode_reader(pipe, "pipe", None, options);
        [file, pipe].map(|outcome| outcome.expect_err("beyond the limit"))
    };
    for error in both(&few_bytes) {
        assert!(matches!(error, AudioError::TooManyBytes { limit_bytes: 1_000, .. }), "{error}");
    }
    for error in both(&short) {
        assert!(matches!(error, AudioError::TooLong { .. }), "{error}");
    }
    for error in both(&hasty) {
        assert!(matches!(error, AudioError::TooSlow { .. }), "{error}");
    }
}

#[test]
fn a_pipe_without_end_stops_at_the_limit() {
    struct Endless;
    impl std::io::Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            buffer.fill(0);
            Ok(buffer.len())
        }
    }
    let options =
        limited(Limits { max_bytes: 1 << 20, max_buffered_bytes: 1 << 16, ..Limits::default() });
    for start in [wav(1, 16, 1, 16_000, &[]), b"\0\0\0\x08ftyp".to_vec(), Vec::new()] {
        let reader = std::io::Read::chain(std::io::Cursor::new(start), Endless);
        let error = crate::audio::decode_reader(reader, "pipe", None, &options)
            .expect_err("there is no end");
        let refused = matches!(
            error,
            AudioError::TooManyBytes { .. }
                | AudioError::UnknownFormat { .. }
                | AudioError::Empty { .. }
        );
        assert!(refused, "{error}");
    }
}

/// A small generator (SplitMix64), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

/// Every fixture, many times over, with a few bytes changed, mostly near the start where the
/// headers are. Whatever comes out, it comes out soon and within the limits.
#[test]
fn changed_bytes_never_hang_or_fail() {
    let options = limited(Limits {
        max_duration_s: 60.0,
        max_decode_time: Some(Duration::from_secs(5)),
        ..Limits::default()
    });
    for name in fixture_names() {
        let sound = fixture_bytes(&name);
        let mut random = Random(sound.len() as u64);
        for round in 0..40 {
            let mut bytes = sound.clone();
            for _ in 0..=random.below(6) {
                let reach = [64, 512, bytes.len()][random.below(3)].min(bytes.len());
                let at = random.below(reach);
                bytes[at] = [0, 0xFF, 0x7F, random.below(256) as u8][random.below(4)];
            }
            if random.below(4) == 0 {
                bytes.truncate(random.below(bytes.len()));
            }
            let started = Instant::now();
            let outcome = decode_bytes(bytes, &name, None, &options);
            assert!(
                started.elapsed() < Duration::from_secs(10),
                "{name}, round {round}: {:?}",
                started.elapsed()
            );
            match outcome {
                Ok(audio) => {
                    let sound = |sample: &f32| sample.abs() <= 1.0;
                    assert!(audio.samples.iter().all(sound), "{name}, round {round}");
                    assert!(audio.samples.len() <= 61 * 16_000, "{name}, round {round}");
                }
                Err(AudioError::DecoderPanic { message, .. }) => {
                    // Contained, but worth knowing which.
                    println!("{name}, round {round}: {message}");
                }
                Err(_) => {}
            }
        }
    }
}
