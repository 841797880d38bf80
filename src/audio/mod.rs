//! Sound in and out: files, pipes and raw samples become one channel of f32 at one rate.
//!
//! This is the only layer that knows containers, codecs, resamplers and devices (Symphonia,
//! ropus, rubato, cpal), and it knows nothing of features or models. Everything is built on
//! [`AudioStream`], which decodes block by block in constant memory; [`decode_path`] and
//! its siblings collect the blocks.
//!
//! Inputs are not trusted: sizes are checked before anything is allocated, a panic in a
//! decoder is an error, and what is damaged but still decodable is decoded and reported as
//! [`Damage`].

mod aac;
mod codec;
mod container;
mod damage;
mod error;
mod files;
mod input;
mod live;
mod matroska;
#[cfg(feature = "microphone")]
mod microphone;
mod mix;
mod mp4;
mod ogg;
mod options;
mod opus;
mod pcm;
mod prepare;
mod replay;
mod resample;
mod stream;
#[cfg(test)]
mod tests;
mod track;
mod trim;
mod wav;
mod wav_header;

use std::io::Read;
use std::path::Path;

pub use codec::{mu_law_round_trip, opus_round_trip};
pub use damage::Damage;
pub use error::AudioError;
pub use files::{AUDIO_EXTENSIONS, audio_files};
pub use live::{LiveCounts, LiveInput, LiveReader, LiveState, LiveWriter, live_ring};
#[cfg(feature = "microphone")]
pub use microphone::{Microphone, MicrophoneInfo, microphones};
pub use options::{DecodeOptions, Limits};
pub use pcm::RawFormat;
pub use replay::Replay;
pub use resample::{MAX_SAMPLE_RATE_HZ, MIN_SAMPLE_RATE_HZ, Resampler, resample};
pub use stream::{AudioStream, panic_is_contained};
pub use wav::{WavFormat, WavRecorder, write_wav};

/// A decoded input.
#[derive(Clone, Debug)]
pub struct Audio {
    /// Mono samples in [-1, 1].
    pub samples: Vec<f32>,
    /// Rate of `samples`, in Hz.
    pub sample_rate_hz: u32,
    /// What was decoded.
    pub source: SourceInfo,
    /// What was lost or repaired; empty for a sound input.
    pub damage: Vec<Damage>,
}

/// What an input holds.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceInfo {
    /// Short name of the container, such as `wave` or `ogg`; `raw` for headerless PCM.
    pub container: String,
    /// Short name of the codec, such as `pcm_s16le` or `opus`.
    pub codec: String,
    /// Sample rate of the input in Hz, before any resampling.
    pub sample_rate_hz: u32,
    /// Number of channels of the input; 0 where only decoding would tell.
    pub n_channels: usize,
    /// Length in seconds: of an [`AudioStream`] as declared by the container, if it says;
    /// of an [`Audio`] as decoded.
    pub duration_s: Option<f64>,
}

/// Decodes a file. The format is recognised by content first and extension second.
///
/// # Errors
/// Any [`AudioError`]: not readable, not audio, no samples, beyond the limits. A file that
/// is damaged but has sound parts is not an error; see [`Audio::damage`].
///
/// # Example
/// ```
/// # let dir = std::env::temp_dir().join(format!("asr-doc-{}", std::process::id()));
/// # std::fs::create_dir_all(&dir)?;
/// # let path = dir.join("tone.wav");
/// use asr::audio::{DecodeOptions, WavFormat, decode_path, write_wav};
///
/// write_wav(&path, &[0.0, 0.5, -0.5], 16_000, WavFormat::F32)?;
/// let audio = decode_path(&path, &DecodeOptions::default())?;
/// assert_eq!(audio.samples, [0.0, 0.5, -0.5]);
/// assert!(audio.damage.is_empty());
/// # std::fs::remove_dir_all(&dir)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn decode_path(path: &Path, options: &DecodeOptions) -> Result<Audio, AudioError> {
    collect(AudioStream::open(path, options)?, options)
}

/// Decodes a pipe, such as standard input: read once from front to back, of unknown length.
/// `name` is for messages.
///
/// # Errors
/// As [`decode_path`].
pub fn decode_reader(
    reader: impl Read + Send + Sync + 'static,
    name: &str,
    extension: Option<&str>,
    options: &DecodeOptions,
) -> Result<Audio, AudioError> {
    collect(AudioStream::from_reader(reader, name, extension, options)?, options)
}

/// Decodes a file held in memory. `name` is for messages.
///
/// # Errors
/// As [`decode_path`].
pub fn decode_bytes(
    bytes: Vec<u8>,
    name: &str,
    extension: Option<&str>,
    options: &DecodeOptions,
) -> Result<Audio, AudioError> {
    collect(AudioStream::from_bytes(bytes, name, extension, options)?, options)
}

/// Reads headerless PCM with interleaved channels.
///
/// # Errors
/// As [`decode_path`].
pub fn decode_raw(
    reader: impl Read + Send + Sync + 'static,
    format: RawFormat,
    sample_rate_hz: u32,
    n_channels: usize,
    options: &DecodeOptions,
) -> Result<Audio, AudioError> {
    let stream = AudioStream::from_raw(reader, format, sample_rate_hz, n_channels, options)?;
    collect(stream, options)
}

fn collect(mut stream: AudioStream, options: &DecodeOptions) -> Result<Audio, AudioError> {
    let mut samples = Vec::new();
    while let Some(block) = stream.next_block()? {
        samples.extend_from_slice(&block);
    }
    let sample_rate_hz = options.sample_rate_hz;
    let duration_s = samples.len() as f64 / f64::from(sample_rate_hz);
    let (mut source, damage) = stream.into_parts();
    source.duration_s = Some(duration_s);
    Ok(Audio { samples, sample_rate_hz, source, damage })
}
