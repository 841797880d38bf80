//! Pipes, raw samples and blocks give what whole files give.

use std::io::{Cursor, Read};

use super::*;
use crate::audio::{AudioStream, RawFormat, SourceInfo, decode_raw, decode_reader};

/// A pipe that hands out a few bytes at a time.
struct Trickle {
    bytes: Cursor<Vec<u8>>,
    step: usize,
}

impl Read for Trickle {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.step = self.step % 700 + 1;
        let n = buffer.len().min(self.step);
        self.bytes.read(&mut buffer[..n])
    }
}

#[test]
fn a_pipe_gives_what_the_file_gives() {
    for name in fixture_names() {
        let whole = decode(&name);
        let pipe = Trickle { bytes: Cursor::new(fixture_bytes(&name)), step: 0 };
        let piped = decode_reader(pipe, "pipe", None, &DecodeOptions::default())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(piped.damage, [], "{name}");
        assert_eq!(
            piped.source,
            SourceInfo { duration_s: piped.source.duration_s, ..whole.source.clone() },
            "{name}"
        );
        // Matroska declares the padding at its end, which a pipe has not shown yet.
        if whole.source.container == "matroska" {
            let n = whole.samples.len();
            // The filter of the resampler reaches from there 256 samples back.
            let snr = snr_db(&piped.samples, &whole.samples[..n - 256], 0);
            assert!(snr > 100.0, "{name}: {snr:.1} dB");
            assert!(piped.samples.len() - n <= 320, "{name}");
        } else {
            assert!(piped.samples == whole.samples, "{name}");
        }
    }
}

#[test]
fn blocks_add_up_to_the_file() {
    for name in ["sentence.mp3", "sentence.opus", "eight-channels-192k.flac"] {
        let options = DecodeOptions::default();
        let mut stream = AudioStream::open(&fixture(name), &options).expect("opens");
        let declared_s = stream.source().duration_s.expect("these declare it");
        let mut samples = Vec::new();
        while let Some(block) = stream.next_block().expect("decodes") {
            assert!(!block.is_empty());
            samples.extend(block);
        }
        assert!(matches!(stream.next_block(), Ok(None)), "the end stays the end");
        assert_eq!(stream.damage(), []);
        assert!(samples == decode(name).samples, "{name}");
        assert!((declared_s - samples.len() as f64 / 16_000.0).abs() < 0.01, "{name}");
    }
}

#[test]
fn raw_samples_are_read() {
    let options = DecodeOptions::default();
    let s16: Vec<u8> =
        [16_384_i16, -8_192, 0, 4_096].iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let mono = decode_raw(Cursor::new(s16.clone()), RawFormat::S16le, 16_000, 1, &options);
    assert_eq!(mono.expect("decodes").samples, [0.5, -0.25, 0.0, 0.125]);
    let stereo = decode_raw(Cursor::new(s16.clone()), RawFormat::S16le, 16_000, 2, &options);
    assert_eq!(stereo.expect("decodes").samples, [0.125, 0.0625]);
    let right = DecodeOptions { channel: Some(1), ..DecodeOptions::default() };
    let right = decode_raw(Cursor::new(s16), RawFormat::S16le, 16_000, 2, &right);
    assert_eq!(right.expect("decodes").samples, [-0.25, 0.125]);
    let f32le: Vec<u8> = [0.5_f32, f32::NAN].iter().flat_map(|s| s.to_le_bytes()).collect();
    let float = decode_raw(Cursor::new(f32le), RawFormat::F32le, 16_000, 1, &options);
    let float = float.expect("decodes");
    assert_eq!(float.samples, [0.5, 0.0]);
    assert_eq!(float.damage.len(), 1);
}

#[test]
fn raw_samples_arrive_in_any_pieces() {
    let samples: Vec<i16> = (0..50_000).map(|i| (i * 37 % 20_000) as i16).collect();
    let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let options = DecodeOptions { sample_rate_hz: 8_000, ..DecodeOptions::default() };
    let at_once = decode_raw(Cursor::new(bytes.clone()), RawFormat::S16le, 8_000, 5, &options)
        .expect("decodes");
    assert_eq!(at_once.samples.len(), 10_000);
    let pipe = Trickle { bytes: Cursor::new(bytes), step: 0 };
    let trickled = decode_raw(pipe, RawFormat::S16le, 8_000, 5, &options).expect("decodes");
    assert!(trickled.samples == at_once.samples);
}

#[test]
fn raw_input_has_sense() {
    let options = DecodeOptions::default();
    let outcome = |bytes: &[u8], rate_hz, n_channels| {
        decode_raw(Cursor::new(bytes.to_vec()), RawFormat::S16le, rate_hz, n_channels, &options)
    };
    assert!(matches!(outcome(&[], 16_000, 1), Err(AudioError::Empty { .. })));
    assert!(matches!(outcome(&[0, 0], 0, 1), Err(AudioError::SampleRate { .. })));
    assert!(matches!(outcome(&[0, 0], 16_000, 0), Err(AudioError::ChannelCount { .. })));
    let cut = outcome(&[0, 64, 1], 16_000, 1).expect("one whole sample");
    assert_eq!(cut.samples, [0.5]);
    assert_eq!(cut.damage.len(), 1, "half a sample was lost");
}
