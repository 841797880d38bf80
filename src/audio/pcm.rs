//! Uncompressed samples, with or without a WAV header.

use std::io::{ErrorKind, Read};

use crate::audio::damage::DamageLog;
use crate::audio::input::Watch;
use crate::audio::stream::BlockSource;
use crate::audio::track::{check_channel, check_channel_count, check_rate};
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

/// How one sample is written. Integers of more than 8 bits and floats are little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    U8,
    S16,
    S24,
    S32,
    F32,
    F64,
    /// ITU-T G.711, 8 bits.
    MuLaw,
    /// ITU-T G.711, 8 bits.
    ALaw,
}

impl From<RawFormat> for Encoding {
    fn from(format: RawFormat) -> Self {
        match format {
            RawFormat::S16le => Self::S16,
            RawFormat::F32le => Self::F32,
        }
    }
}

impl Encoding {
    pub(super) fn sample_bytes(self) -> usize {
        match self {
            Self::U8 | Self::MuLaw | Self::ALaw => 1,
            Self::S16 => 2,
            Self::S24 => 3,
            Self::S32 | Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::U8 => "pcm_u8",
            Self::S16 => "pcm_s16le",
            Self::S24 => "pcm_s24le",
            Self::S32 => "pcm_s32le",
            Self::F32 => "pcm_f32le",
            Self::F64 => "pcm_f64le",
            Self::MuLaw => "pcm_mulaw",
            Self::ALaw => "pcm_alaw",
        }
    }

    /// Appends the mean of all channels, or one of them, of interleaved `bytes`.
    fn append_mono(
        self,
        bytes: &[u8],
        n_channels: usize,
        channel: Option<usize>,
        mono: &mut Vec<f32>,
    ) {
        let mut append = |sample: fn(&[u8]) -> f32| {
            let n_bytes = self.sample_bytes();
            let frames = bytes.chunks_exact(n_bytes * n_channels);
            match channel {
                Some(channel) => {
                    mono.extend(frames.map(|frame| sample(&frame[channel * n_bytes..])));
                }
                None => mono.extend(frames.map(|frame| {
                    let sum: f32 = frame.chunks_exact(n_bytes).map(sample).sum();
                    sum / n_channels as f32
                })),
            }
        };
        match self {
            Self::U8 => append(|b| (f32::from(b[0]) - 128.0) / 128.0),
            Self::S16 => append(|b| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32_768.0),
            Self::S24 => append(|b| i32::from_le_bytes([0, b[0], b[1], b[2]]) as f32 / I32_SCALE),
            Self::S32 => {
                append(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]) as f32 / I32_SCALE);
            }
            Self::F32 => append(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            Self::F64 => append(|b| {
                f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32
            }),
            Self::MuLaw => append(|b| f32::from(mu_law(b[0])) / 32_768.0),
            Self::ALaw => append(|b| f32::from(a_law(b[0])) / 32_768.0),
        }
    }
}

/// Full scale of a 32-bit integer.
const I32_SCALE: f32 = 2_147_483_648.0;

/// Expands a µ-law code to 16 bits (ITU-T G.711, table 2).
fn mu_law(code: u8) -> i16 {
    let code = !code;
    let magnitude = ((i16::from(code & 0x0F) << 3) + 0x84) << (code >> 4 & 7);
    if code & 0x80 == 0 { magnitude - 0x84 } else { 0x84 - magnitude }
}

/// Expands an A-law code to 16 bits (ITU-T G.711, table 1).
fn a_law(code: u8) -> i16 {
    let code = code ^ 0x55;
    let mantissa = i16::from(code & 0x0F) << 4;
    let magnitude = match code >> 4 & 7 {
        0 => mantissa + 8,
        exponent => (mantissa + 0x108) << (exponent - 1),
    };
    if code & 0x80 == 0 { -magnitude } else { magnitude }
}

/// Everything that must be known to read samples.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PcmLayout {
    /// Short name of the container.
    pub(super) container: &'static str,
    pub(super) encoding: Encoding,
    pub(super) sample_rate_hz: u32,
    pub(super) n_channels: usize,
    /// How many frames there should be, if that is known.
    pub(super) n_frames: Option<u64>,
}

/// A reader of interleaved samples.
pub(super) struct PcmSource<R> {
    reader: R,
    layout: PcmLayout,
    channel: Option<usize>,
    name: String,
    watch: Watch,
    info: SourceInfo,
    bytes: Vec<u8>,
    /// Bytes of an incomplete frame at the start of `bytes`.
    n_kept: usize,
    n_frames: u64,
    ended: bool,
}

impl<R: Read> PcmSource<R> {
    /// Reads samples from where `reader` stands to its end.
    ///
    /// # Errors
    /// [`AudioError::SampleRate`], [`AudioError::ChannelCount`], [`AudioError::Channel`].
    pub(super) fn new(
        reader: R,
        layout: PcmLayout,
        name: &str,
        channel: Option<usize>,
        watch: &Watch,
    ) -> Result<Self, AudioError> {
        let (sample_rate_hz, n_channels) = (layout.sample_rate_hz, layout.n_channels);
        check_rate(sample_rate_hz)?;
        check_channel_count(name, n_channels)?;
        check_channel(name, channel, n_channels)?;
        Ok(Self {
            reader,
            channel,
            name: name.to_owned(),
            watch: watch.clone(),
            info: SourceInfo {
                container: layout.container.to_owned(),
                codec: layout.encoding.name().to_owned(),
                sample_rate_hz,
                n_channels,
                duration_s: layout
                    .n_frames
                    .map(|n_frames| n_frames as f64 / f64::from(sample_rate_hz)),
            },
            layout,
            bytes: vec![0; READ_BYTES],
            n_kept: 0,
            n_frames: 0,
            ended: false,
        })
    }

    fn read(&mut self) -> Result<usize, AudioError> {
        loop {
            let outcome = self.reader.read(&mut self.bytes[self.n_kept..]);
            self.watch.check(&self.name)?;
            match outcome {
                Ok(n) => return Ok(n),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(AudioError::Read { name: self.name.clone(), source });
                }
            }
        }
    }

    /// At the end: is that all there should be?
    fn report_length(&self, damage: &mut DamageLog) {
        let rate = f64::from(self.layout.sample_rate_hz);
        let declared = self.layout.n_frames.filter(|&n| n > self.n_frames);
        if declared.is_some() || self.n_kept > 0 {
            let declared_s = declared.map(|n_frames| n_frames as f64 / rate);
            damage.truncated(self.n_frames as f64 / rate, declared_s);
        }
    }
}

impl<R: Read + Send> BlockSource for PcmSource<R> {
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
        let n_read = self.read()?;
        if n_read == 0 {
            self.ended = true;
            self.report_length(damage);
            return Ok(None);
        }
        let layout = &self.layout;
        let filled = self.n_kept + n_read;
        let n_left = filled % (layout.encoding.sample_bytes() * layout.n_channels);
        let whole = &self.bytes[..filled - n_left];
        let start = mono.len();
        layout.encoding.append_mono(whole, layout.n_channels, self.channel, mono);
        damage.sound(mono.len() - start);
        self.n_frames += (mono.len() - start) as u64;
        self.bytes.copy_within(filled - n_left..filled, 0);
        self.n_kept = n_left;
        Ok(Some(layout.sample_rate_hz))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_scaled() {
        let cases: [(Encoding, &[u8], [f32; 2]); 6] = [
            (Encoding::U8, &[0, 192], [-1.0, 0.5]),
            (Encoding::S16, &[0, 0x80, 0, 0x40], [-1.0, 0.5]),
            (Encoding::S24, &[0, 0, 0x80, 0, 0, 0x40], [-1.0, 0.5]),
            (Encoding::S32, &[0, 0, 0, 0x80, 0, 0, 0, 0x40], [-1.0, 0.5]),
            // The codes of silence, of the quietest and the loudest values.
            (Encoding::MuLaw, &[0xFF, 0x00], [0.0, -32_124.0 / 32_768.0]),
            (Encoding::ALaw, &[0xD5, 0x2A], [8.0 / 32_768.0, -32_256.0 / 32_768.0]),
        ];
        for (encoding, bytes, expected) in cases {
            let mut mono = Vec::new();
            encoding.append_mono(bytes, 1, None, &mut mono);
            assert_eq!(mono, expected, "{encoding:?}");
            let mut second = Vec::new();
            encoding.append_mono(bytes, 2, Some(1), &mut second);
            assert_eq!(second, [expected[1]], "{encoding:?}");
        }
    }
}
