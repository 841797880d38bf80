//! What to decode to, and how much of a machine an input may use.

use std::time::Duration;

/// What to turn an input into.
#[derive(Clone, Debug)]
pub struct DecodeOptions {
    /// Sample rate of the result, in Hz.
    pub sample_rate_hz: u32,
    /// The channel to take, counted from 0; `None` for the mean of all channels.
    pub channel: Option<usize>,
    /// Bounds on the input.
    pub limits: Limits,
}

impl Default for DecodeOptions {
    /// 16 kHz, the mean of all channels, [`Limits::default`].
    fn default() -> Self {
        Self { sample_rate_hz: 16_000, channel: None, limits: Limits::default() }
    }
}

/// Bounds on one input. Beyond them decoding stops with an error; nothing is ever allocated
/// on the word of a header.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Most bytes of encoded audio.
    pub max_bytes: u64,
    /// Most seconds of decoded audio.
    pub max_duration_s: f64,
    /// Most time spent reading and decoding, if limited.
    pub max_decode_time: Option<Duration>,
    /// Most bytes of a pipe held in memory, for the formats that cannot be read from front
    /// to back (MP4, CAF).
    pub max_buffered_bytes: u64,
}

impl Default for Limits {
    /// 8 GiB, 24 hours, any time, 1 GiB in memory.
    fn default() -> Self {
        Self {
            max_bytes: 8 << 30,
            max_duration_s: 24.0 * 3600.0,
            max_decode_time: None,
            max_buffered_bytes: 1 << 30,
        }
    }
}
