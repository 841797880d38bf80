//! What can go wrong while reading, resampling or writing audio.

use std::path::PathBuf;
use std::time::Duration;

/// An error of the audio layer. `name` is the file or stream as the caller called it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AudioError {
    /// The file cannot be opened.
    #[error("cannot open audio file `{}`", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Reading failed, by the operating system's fault and not the file's.
    #[error("cannot read `{name}`")]
    Read {
        /// The input.
        name: String,
        /// Why.
        source: std::io::Error,
    },
    /// No known container format starts here: not audio, or a format we do not know.
    #[error("`{name}` is not an audio file in a known format")]
    UnknownFormat {
        /// The input.
        name: String,
    },
    /// The container is recognised but its headers cannot be understood.
    #[error("`{name}` has damaged or unsupported headers")]
    Headers {
        /// The input.
        name: String,
        /// What the demultiplexer or the decoder said.
        source: symphonia::core::errors::Error,
    },
    /// An Opus stream whose header cannot be understood.
    #[error("`{name}` has an Opus stream that cannot be decoded")]
    OpusStream {
        /// The input.
        name: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Opus as a disturbance that could not be made.
    #[error("cannot encode and decode with Opus")]
    OpusRoundTrip {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A container without an audio track.
    #[error("`{name}` has no audio track")]
    NoTrack {
        /// The input.
        name: String,
    },
    /// No decoder for the codec.
    #[error("`{name}` holds {codec} audio, for which there is no decoder")]
    Codec {
        /// The input.
        name: String,
        /// Name of the codec, or its number.
        codec: String,
    },
    /// The requested channel does not exist. Channels count from 0.
    #[error("`{name}` has no channel {asked}: it has {found}, counted from 0")]
    Channel {
        /// The input.
        name: String,
        /// The channel asked for.
        asked: usize,
        /// Number of channels in the input.
        found: usize,
    },
    /// A channel count of zero or beyond what any decoder handles.
    #[error("`{name}` claims {found} channels")]
    ChannelCount {
        /// The input.
        name: String,
        /// The number of channels claimed.
        found: usize,
    },
    /// A sample rate outside the supported range.
    #[error(
        "a sample rate of {found_hz} Hz is outside {} to {} Hz",
        crate::audio::MIN_SAMPLE_RATE_HZ,
        crate::audio::MAX_SAMPLE_RATE_HZ
    )]
    SampleRate {
        /// The rate found or asked for, in Hz.
        found_hz: u32,
    },
    /// The input holds no samples at all.
    #[error("`{name}` is empty: no samples")]
    Empty {
        /// The input.
        name: String,
    },
    /// There is audio data, but none of it decodes.
    #[error("nothing in `{name}` can be decoded: {first}")]
    NothingDecoded {
        /// The input.
        name: String,
        /// The first thing that was lost.
        first: crate::audio::Damage,
    },
    /// Every sample is NaN or infinite.
    #[error("`{name}` holds only NaN or infinite samples")]
    NotFinite {
        /// The input.
        name: String,
    },
    /// More bytes than [`Limits::max_bytes`](crate::audio::Limits::max_bytes).
    #[error("`{name}` is larger than the limit of {limit_bytes} bytes")]
    TooManyBytes {
        /// The input.
        name: String,
        /// The limit.
        limit_bytes: u64,
    },
    /// Longer than [`Limits::max_duration_s`](crate::audio::Limits::max_duration_s).
    #[error("`{name}` is longer than the limit of {limit_s} s")]
    TooLong {
        /// The input.
        name: String,
        /// The limit, in seconds.
        limit_s: f64,
    },
    /// Decoding took longer than
    /// [`Limits::max_decode_time`](crate::audio::Limits::max_decode_time).
    #[error("decoding `{name}` took longer than the limit of {limit:?}")]
    TooSlow {
        /// The input.
        name: String,
        /// The limit.
        limit: Duration,
    },
    /// A demultiplexer or decoder gave up in a way it should not have.
    #[error("the decoder failed on `{name}`: {message}")]
    DecoderPanic {
        /// The input.
        name: String,
        /// The panic message.
        message: String,
    },
    /// The resampler could not be set up.
    #[error("cannot resample from {from_hz} Hz to {to_hz} Hz")]
    Resampler {
        /// Input rate in Hz.
        from_hz: u32,
        /// Output rate in Hz.
        to_hz: u32,
        /// Why.
        source: rubato::ResamplerConstructionError,
    },
    /// No such microphone.
    #[error("there is no microphone `{name}`")]
    NoDevice {
        /// What was asked for.
        name: String,
    },
    /// A microphone that cannot be listened to.
    #[error("cannot listen to the microphone `{name}`")]
    Device {
        /// What was asked for.
        name: String,
        /// What the system said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A directory cannot be listed.
    #[error("cannot list directory `{}`", path.display())]
    List {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// More samples than a WAV file can hold (4 GiB of data).
    #[error("{n_samples} samples do not fit into the WAV file `{}`", path.display())]
    WavTooLong {
        /// The file.
        path: PathBuf,
        /// Number of samples.
        n_samples: usize,
    },
}
