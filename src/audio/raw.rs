//! Headerless PCM.

use std::io::{ErrorKind, Read};

use crate::audio::damage::DamageLog;
use crate::audio::input::Watch;
use crate::audio::stream::BlockSource;
use crate::audio::track::{MAX_CHANNELS, check_channel, check_rate};
use crate::audio::{AudioError, SourceInfo};

/// Bytes asked of the reader at a time.
const READ_BYTES: usize = 1 << 16;

/// Sample format of headerless PCM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawFormat {
    /// Signed 16-bit integers, little-endian.
    S16le,
    /// 32-bit floats, little-endian, full scale 1.
    F32le,
}

impl RawFormat {
    fn sample_bytes(self) -> usize {
        match self {
            Self::S16le => 2,
            Self::F32le => 4,
        }
    }

    /// Reads the sample at the start of `bytes`.
    fn sample(self, bytes: &[u8]) -> f32 {
        match (self, bytes) {
            (Self::S16le, &[b0, b1, ..]) => f32::from(i16::from_le_bytes([b0, b1])) / 32_768.0,
            (Self::F32le, &[b0, b1, b2, b3, ..]) => f32::from_le_bytes([b0, b1, b2, b3]),
            _ => 0.0,
        }
    }
}

/// A reader of interleaved PCM.
pub(super) struct RawSource<R> {
    reader: R,
    format: RawFormat,
    channel: Option<usize>,
    name: String,
    watch: Watch,
    info: SourceInfo,
    bytes: Vec<u8>,
    /// Bytes of an incomplete frame at the start of `bytes`.
    n_kept: usize,
    n_read: u64,
    n_frames: u64,
    ended: bool,
}

impl<R: Read + Send> RawSource<R> {
    pub(super) fn new(
        reader: R,
        format: RawFormat,
        sample_rate_hz: u32,
        n_channels: usize,
        name: &str,
        channel: Option<usize>,
        watch: &Watch,
    ) -> Result<Self, AudioError> {
        check_rate(sample_rate_hz)?;
        if n_channels == 0 || n_channels > MAX_CHANNELS {
            return Err(AudioError::ChannelCount {
                name: name.to_owned(),
                found: n_channels,
            });
        }
        check_channel(name, channel, n_channels)?;
        let codec = match format {
            RawFormat::S16le => "pcm_s16le",
            RawFormat::F32le => "pcm_f32le",
        };
        Ok(Self {
            reader,
            format,
            channel,
            name: name.to_owned(),
            watch: watch.clone(),
            info: SourceInfo {
                container: "raw".to_owned(),
                codec: codec.to_owned(),
                sample_rate_hz,
                n_channels,
                duration_s: None,
            },
            bytes: vec![0; READ_BYTES],
            n_kept: 0,
            n_read: 0,
            n_frames: 0,
            ended: false,
        })
    }

    fn read(&mut self) -> Result<usize, AudioError> {
        loop {
            match self.reader.read(&mut self.bytes[self.n_kept..]) {
                Ok(n) => {
                    self.n_read += n as u64;
                    self.watch.check_bytes(self.n_read);
                    self.watch.check(&self.name)?;
                    return Ok(n);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(AudioError::Read {
                        name: self.name.clone(),
                        source,
                    });
                }
            }
        }
    }
}

impl<R: Read + Send> BlockSource for RawSource<R> {
    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn next_block(
        &mut self,
        mono: &mut Vec<f32>,
        damage: &mut DamageLog,
    ) -> Result<Option<u32>, AudioError> {
        if self.ended {
            return Ok(None);
        }
        let rate = self.info.sample_rate_hz;
        let n = self.read()?;
        if n == 0 {
            self.ended = true;
            if self.n_kept > 0 {
                damage.truncated(self.n_frames as f64 / f64::from(rate), None);
            }
            return Ok(None);
        }
        let sample_bytes = self.format.sample_bytes();
        let n_channels = self.info.n_channels;
        let frame_bytes = sample_bytes * n_channels;
        let filled = self.n_kept + n;
        let frames = self.bytes[..filled].chunks_exact(frame_bytes);
        let n_left = frames.remainder().len();
        self.n_frames += frames.len() as u64;
        match self.channel {
            Some(channel) => mono
                .extend(frames.map(|frame| self.format.sample(&frame[channel * sample_bytes..]))),
            None => mono.extend(frames.map(|frame| {
                let samples = frame.chunks_exact(sample_bytes);
                let sum: f32 = samples.map(|bytes| self.format.sample(bytes)).sum();
                sum / n_channels as f32
            })),
        }
        self.bytes.copy_within(filled - n_left..filled, 0);
        self.n_kept = n_left;
        Ok(Some(rate))
    }
}
