//! Opus streams, decoded by `ropus`, a port of the fixed-point libopus.
//!
//! Symphonia demultiplexes Opus but does not decode it. This decoder reads the
//! identification header (RFC 7845, section 5.1), drops the pre-skip and applies the output
//! gain.

use ropus::{OPUS_BUFFER_TOO_SMALL, OPUS_INVALID_PACKET, OpusMSDecoder};

use crate::audio::resample::resampled_len;

/// The rate that Opus counts time in, whatever rate it is decoded to.
pub(super) const OPUS_RATE_HZ: u32 = 48_000;
/// 120 ms at 48 kHz, the longest packet (RFC 6716, section 3.2).
const MAX_PACKET_FRAMES: u32 = 5_760;

/// Why a packet or a stream cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpusError {
    #[error("the Opus identification header is missing or malformed")]
    Header,
    #[error("malformed Opus packet")]
    Packet,
    #[error("the Opus decoder failed with code {code}")]
    Decoder { code: i32 },
}

impl OpusError {
    fn of(code: i32) -> Self {
        match code {
            OPUS_INVALID_PACKET | OPUS_BUFFER_TOO_SMALL => Self::Packet,
            code => Self::Decoder { code },
        }
    }
}

/// The fields of an `OpusHead` packet that decoding needs.
#[derive(Debug, PartialEq)]
pub(super) struct OpusHead {
    pub(super) n_channels: usize,
    /// Frames at 48 kHz to drop at the start.
    pub(super) pre_skip: u32,
    /// Q8 dB.
    output_gain: i16,
    n_streams: u8,
    n_coupled: u8,
    /// Per output channel the stream channel it comes from, 255 for silence.
    mapping: Vec<u8>,
}

impl OpusHead {
    /// Reads an identification header, with the `OpusHead` signature.
    pub(super) fn parse(head: &[u8]) -> Option<Self> {
        let body = head.strip_prefix(b"OpusHead")?;
        let (fixed, rest) = body.split_first_chunk::<11>()?;
        let &[version, n_channels, skip_0, skip_1, _, _, _, _, gain_0, gain_1, family] = fixed;
        // Version 0 is the big-endian `dOps` box of MP4, handed on under the same name.
        let u16_of = match version {
            0 => u16::from_be_bytes,
            _ => u16::from_le_bytes,
        };
        let plain = Self {
            pre_skip: u32::from(u16_of([skip_0, skip_1])),
            output_gain: u16_of([gain_0, gain_1]) as i16,
            ..Self::without(usize::from(n_channels)).unwrap_or(Self::SILENT)
        };
        let head = match family {
            0 => plain,
            _ => {
                let (&[n_streams, n_coupled], mapping) = rest.split_first_chunk::<2>()?;
                Self {
                    n_channels: usize::from(n_channels),
                    n_streams,
                    n_coupled,
                    mapping: mapping.get(..usize::from(n_channels))?.to_vec(),
                    ..plain
                }
            }
        };
        head.is_sound().then_some(head)
    }

    /// What holds for a stream of one or two channels without a header, as in CAF.
    pub(super) fn without(n_channels: usize) -> Option<Self> {
        let (n_coupled, mapping) = match n_channels {
            1 => (0, vec![0]),
            2 => (1, vec![0, 1]),
            _ => return None,
        };
        Some(Self { n_channels, n_streams: 1, n_coupled, mapping, ..Self::SILENT })
    }

    /// No stream at all, to be filled in.
    const SILENT: Self = Self {
        n_channels: 0,
        pre_skip: 0,
        output_gain: 0,
        n_streams: 0,
        n_coupled: 0,
        mapping: Vec::new(),
    };

    /// RFC 7845, section 5.1.1: every index is 255 or below streams + coupled streams.
    fn is_sound(&self) -> bool {
        let n_decoded = u16::from(self.n_streams) + u16::from(self.n_coupled);
        let is_decoded = |&index: &u8| index == 255 || u16::from(index) < n_decoded;
        self.n_channels > 0
            && self.n_streams > 0
            && self.n_coupled <= self.n_streams
            && n_decoded <= 255
            && self.mapping.iter().all(is_decoded)
    }
}

/// An Opus stream, decoded to one channel.
pub(super) struct OpusDecoder {
    head: OpusHead,
    /// Set up for the first packet.
    streams: Option<Streams>,
    sample_rate_hz: u32,
    wanted_rate_hz: u32,
    channel: Option<usize>,
    /// Frames still to be dropped at the start of the stream.
    skip_left: usize,
    /// Frames decoded, without those dropped.
    n_returned: u64,
    interleaved: Vec<i16>,
}

/// The libopus decoders of a stream.
enum Streams {
    /// One stream of one or two channels, and how many of them to decode to.
    One(Box<ropus::OpusDecoder>, usize),
    Many(Box<OpusMSDecoder>, usize),
}

impl Streams {
    /// Sets the decoders up for a stream that begins with `packet`.
    fn new(
        head: &OpusHead,
        channel: Option<usize>,
        sample_rate_hz: u32,
        packet: &[u8],
    ) -> Result<Self, OpusError> {
        let gain = i32::from(head.output_gain);
        let n_channels = match (head.n_streams, head.n_coupled, head.mapping.as_slice()) {
            (1, 0, [0]) => 1,
            // The mean of a stereo stream comes at half the cost from a decoder with one
            // channel, which mixes before synthesis. In the CELT mode (music) that is the mean
            // but for the noise in collapsed bands; with SILK the two part audibly where the
            // encoder changes modes.
            (1, 1, [0, 1]) if channel.is_none() && is_celt(packet) => 1,
            (1, 1, [0, 1]) => 2,
            (_, _, mapping) => {
                let mut decoder = OpusMSDecoder::new(
                    sample_rate_hz as i32,
                    head.n_channels as i32,
                    i32::from(head.n_streams),
                    i32::from(head.n_coupled),
                    mapping,
                )
                .map_err(OpusError::of)?;
                decoder.set_gain(gain);
                return Ok(Self::Many(Box::new(decoder), head.n_channels));
            }
        };
        let mut decoder =
            ropus::OpusDecoder::new(sample_rate_hz as i32, n_channels).map_err(OpusError::of)?;
        decoder.set_gain(gain).map_err(OpusError::of)?;
        Ok(Self::One(Box::new(decoder), n_channels as usize))
    }

    fn n_channels(&self) -> usize {
        match self {
            Self::One(_, n_channels) | Self::Many(_, n_channels) => *n_channels,
        }
    }

    /// Decodes a packet of `n_frames` into `interleaved` and returns the frames decoded.
    fn decode(
        &mut self,
        packet: &[u8],
        n_frames: u32,
        interleaved: &mut Vec<i16>,
    ) -> Result<usize, OpusError> {
        interleaved.resize(n_frames as usize * self.n_channels(), 0);
        let n_frames = n_frames as i32;
        let n_decoded = match self {
            Self::One(decoder, _) => decoder.decode(Some(packet), interleaved, n_frames, false),
            Self::Many(decoder, _) => {
                let n_bytes = i32::try_from(packet.len()).map_err(|_| OpusError::Packet)?;
                decoder.decode(Some(packet), n_bytes, interleaved, n_frames, false)
            }
        };
        usize::try_from(n_decoded.map_err(OpusError::of)?).map_err(|_| OpusError::Packet)
    }
}

impl OpusDecoder {
    /// Prepares decoding one `channel` of the stream, or the mean of all, that will be
    /// resampled to `wanted_rate_hz`.
    pub(super) fn new(head: OpusHead, channel: Option<usize>, wanted_rate_hz: u32) -> Self {
        let sample_rate_hz = decoding_rate(head.pre_skip, wanted_rate_hz);
        Self {
            skip_left: (head.pre_skip / (OPUS_RATE_HZ / sample_rate_hz)) as usize,
            head,
            streams: None,
            sample_rate_hz,
            wanted_rate_hz,
            channel,
            n_returned: 0,
            interleaved: Vec::new(),
        }
    }

    /// The rate it decodes to, in Hz.
    pub(super) fn sample_rate_hz(&self) -> u32 {
        self.sample_rate_hz
    }

    /// Decodes `packet` and appends its samples to `mono`, without the last `trim_end`
    /// frames, counted at 48 kHz.
    pub(super) fn decode(
        &mut self,
        packet: &[u8],
        trim_end: u64,
        mono: &mut Vec<f32>,
    ) -> Result<(), OpusError> {
        let ratio = OPUS_RATE_HZ / self.sample_rate_hz;
        let n_frames = packet_frames(packet).ok_or(OpusError::Packet)? / ratio;
        let streams = match &mut self.streams {
            Some(streams) => streams,
            none => {
                none.insert(Streams::new(&self.head, self.channel, self.sample_rate_hz, packet)?)
            }
        };
        let n_channels = streams.n_channels();
        let n_decoded = streams.decode(packet, n_frames, &mut self.interleaved)?;
        let skipped = self.skip_left.min(n_decoded);
        self.skip_left -= skipped;
        let end = n_decoded - self.trimmed_frames(n_decoded - skipped, trim_end);
        self.n_returned += (end - skipped) as u64;
        let frames =
            self.interleaved[skipped * n_channels..end * n_channels].chunks_exact(n_channels);
        let scale = 1.0 / 32_768.0;
        match self.channel {
            Some(channel) => mono.extend(frames.map(|frame| f32::from(frame[channel]) * scale)),
            None => {
                let scale = scale / n_channels as f32;
                mono.extend(frames.map(|frame| {
                    let sum: i32 = frame.iter().map(|&sample| i32::from(sample)).sum();
                    sum as f32 * scale
                }));
            }
        }
        Ok(())
    }

    /// How many of `n_decoded` frames to drop for `trim_end` frames at 48 kHz, so that the
    /// length is right at the rate wanted in the end.
    fn trimmed_frames(&self, n_decoded: usize, trim_end: u64) -> usize {
        let ratio = u64::from(OPUS_RATE_HZ / self.sample_rate_hz);
        let wanted_len = |n, rate_hz| resampled_len(n, rate_hz, self.wanted_rate_hz);
        let n_before = self.n_returned + n_decoded as u64;
        let n_exact = (n_before * ratio).saturating_sub(trim_end);
        let rounded_up = n_exact.div_ceil(ratio);
        let n_after =
            if wanted_len(rounded_up, self.sample_rate_hz) > wanted_len(n_exact, OPUS_RATE_HZ) {
                n_exact / ratio
            } else {
                rounded_up
            };
        let n_trimmed = n_before - n_after.min(n_before);
        usize::try_from(n_trimmed).map_or(n_decoded, |n| n.min(n_decoded))
    }
}

/// The rate to decode at for a result at `wanted_rate_hz`.
///
/// The lower the cheaper; but below 48 kHz Opus folds what lies just above half the rate to
/// just below it, hence the wide margin for the resampler to cut that off. The pre-skip has
/// to be a whole number of samples.
fn decoding_rate(pre_skip: u32, wanted_rate_hz: u32) -> u32 {
    let rate_hz = match wanted_rate_hz {
        0..=8_000 => 16_000,
        8_001..=16_000 => 24_000,
        _ => OPUS_RATE_HZ,
    };
    if pre_skip.is_multiple_of(OPUS_RATE_HZ / rate_hz) { rate_hz } else { OPUS_RATE_HZ }
}

/// Whether a packet is of the CELT mode (RFC 6716, table 2).
fn is_celt(packet: &[u8]) -> bool {
    packet.first().is_some_and(|configuration| configuration & 0x80 != 0)
}

/// Frames at 48 kHz in a packet, by its first two bytes (RFC 6716, section 3.1).
fn packet_frames(packet: &[u8]) -> Option<u32> {
    let &configuration = packet.first()?;
    let frame = match configuration >> 3 {
        silk @ 0..12 => [480, 960, 1_920, 2_880][usize::from(silk % 4)],
        hybrid @ 12..16 => [480, 960][usize::from(hybrid % 2)],
        celt => [120, 240, 480, 960][usize::from(celt % 4)],
    };
    let n_frames = match configuration & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(packet.get(1)? & 0x3F),
    };
    Some(frame * n_frames).filter(|&n| n > 0 && n <= MAX_PACKET_FRAMES)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"OpusHead\x01\x02\x38\x01\x80\xBB\0\0\0\xFF\0";

    #[test]
    fn headers_are_read() {
        let stereo = OpusHead {
            n_channels: 2,
            pre_skip: 312,
            output_gain: -256,
            n_streams: 1,
            n_coupled: 1,
            mapping: vec![0, 1],
        };
        assert_eq!(OpusHead::parse(HEAD).as_ref(), Some(&stereo));
        let mp4 = b"OpusHead\0\x02\x01\x38\0\0\xBB\x80\xFF\0\0";
        assert_eq!(OpusHead::parse(mp4), Some(stereo));
        let mut surround = HEAD.to_vec();
        surround[9] = 3;
        surround[18] = 1;
        assert_eq!(OpusHead::parse(&surround), None, "no mapping");
        surround.extend([2, 1, 0, 2, 1]);
        let parsed = OpusHead::parse(&surround).expect("a sound header");
        assert_eq!((parsed.n_streams, parsed.n_coupled), (2, 1));
        assert_eq!(parsed.mapping, [0, 2, 1]);
        surround[22] = 3;
        assert_eq!(OpusHead::parse(&surround), None, "index beyond the streams");
        for len in 0..HEAD.len() {
            assert_eq!(OpusHead::parse(&HEAD[..len]), None);
        }
    }

    #[test]
    fn packet_lengths_follow_the_first_bytes() {
        let cases: [(&[u8], Option<u32>); 9] = [
            (&[], None),
            (&[0 << 3], Some(480)),
            (&[11 << 3 | 1], Some(5_760)),
            (&[15 << 3], Some(960)),
            (&[16 << 3 | 2], Some(240)),
            (&[31 << 3], Some(960)),
            (&[31 << 3 | 3, 6], Some(5_760)),
            (&[31 << 3 | 3, 7], None),
            (&[31 << 3 | 3, 0], None),
        ];
        for (packet, expected) in cases {
            assert_eq!(packet_frames(packet), expected, "{packet:?}");
        }
    }

    #[test]
    fn the_decoding_rate_leaves_a_margin_and_whole_samples() {
        let cases = [
            (312, 8_000, 16_000),
            (312, 11_025, 24_000),
            (312, 16_000, 24_000),
            (312, 22_050, 48_000),
            (312, 48_000, 48_000),
            (313, 16_000, 48_000),
            (313, 8_000, 48_000),
        ];
        for (pre_skip, wanted_rate_hz, expected) in cases {
            assert_eq!(decoding_rate(pre_skip, wanted_rate_hz), expected);
        }
    }

    #[test]
    fn the_trimmed_length_is_exact_at_the_wanted_rate() {
        for wanted_rate_hz in [8_000, 16_000, 44_100] {
            let head = OpusHead::parse(HEAD).expect("a sound header");
            let decoder = OpusDecoder::new(head, None, wanted_rate_hz);
            let n_decoded = decoder.sample_rate_hz() as usize / 50;
            for trim_end in 0..=961 {
                let n = n_decoded - decoder.trimmed_frames(n_decoded, trim_end);
                let exact = 960_u64.saturating_sub(trim_end);
                assert_eq!(
                    resampled_len(n as u64, decoder.sample_rate_hz(), wanted_rate_hz),
                    resampled_len(exact, OPUS_RATE_HZ, wanted_rate_hz),
                    "{trim_end} of 960 to {wanted_rate_hz} Hz"
                );
            }
        }
    }
}
