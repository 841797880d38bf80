//! Uncompressed audio in every sample format, made here byte by byte.

use super::*;

/// How a sample is written.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sample {
    U8,
    S16,
    S24,
    S32,
    F32,
    F64,
}

impl Sample {
    const ALL: [Self; 6] = [Self::U8, Self::S16, Self::S24, Self::S32, Self::F32, Self::F64];

    fn bytes(self) -> u16 {
        match self {
            Self::U8 => 1,
            Self::S16 => 2,
            Self::S24 => 3,
            Self::S32 | Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64)
    }

    fn little_endian(self, value: f64) -> Vec<u8> {
        match self {
            Self::U8 => vec![(value * 128.0 + 128.0) as u8],
            Self::S16 => ((value * 32_768.0) as i16).to_le_bytes().to_vec(),
            Self::S24 => ((value * 8_388_608.0) as i32).to_le_bytes()[..3].to_vec(),
            Self::S32 => ((value * 2_147_483_648.0) as i32).to_le_bytes().to_vec(),
            Self::F32 => (value as f32).to_le_bytes().to_vec(),
            Self::F64 => value.to_le_bytes().to_vec(),
        }
    }

    fn big_endian(self, value: f64) -> Vec<u8> {
        let mut bytes = match self {
            // AIFF and CAF write 8 bits with a sign.
            Self::U8 => vec![(value * 128.0) as i8 as u8],
            other => other.little_endian(value),
        };
        bytes.reverse();
        bytes
    }
}

/// Values that every format holds exactly.
const VALUES: [f64; 6] = [0.0, 0.5, -0.5, -1.0, 0.25, 0.0078125];

fn chunk(id: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut bytes = id.to_vec();
    bytes.extend((body.len() as u32).to_le_bytes());
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    bytes
}

/// A WAV file; `data` are the bytes of the samples.
pub(super) fn wav(
    format_tag: u16,
    bits: u16,
    n_channels: u16,
    rate_hz: u32,
    data: &[u8],
) -> Vec<u8> {
    let frame_bytes = (bits / 8).wrapping_mul(n_channels);
    let mut format = format_tag.to_le_bytes().to_vec();
    format.extend(n_channels.to_le_bytes());
    format.extend(rate_hz.to_le_bytes());
    format.extend(rate_hz.wrapping_mul(u32::from(frame_bytes)).to_le_bytes());
    format.extend(frame_bytes.to_le_bytes());
    format.extend(bits.to_le_bytes());
    if format_tag == 0xFFFE {
        // WAVEFORMATEXTENSIBLE: valid bits, speakers, and the GUID of PCM or float.
        let tag: u16 = if bits == 32 { 3 } else { 1 };
        format.extend(22_u16.to_le_bytes());
        format.extend(bits.to_le_bytes());
        format.extend(0_u32.to_le_bytes());
        format.extend(tag.to_le_bytes());
        format.extend(b"\0\0\0\0\x10\0\x80\0\0\xAA\0\x38\x9B\x71");
    }
    let body = [
        b"WAVE".to_vec(),
        chunk(b"fmt ", &format),
        chunk(b"LIST", b"INFOx and more"),
        chunk(b"data", data),
    ];
    chunk(b"RIFF", &body.concat())
}

fn at_rate(bytes: Vec<u8>, sample_rate_hz: u32) -> Audio {
    let options = DecodeOptions { sample_rate_hz, ..DecodeOptions::default() };
    decode_bytes(bytes, "memory", None, &options).expect("decodes")
}

fn expected() -> Vec<f32> {
    VALUES.iter().map(|&value| value as f32).collect()
}

#[test]
fn wav_in_every_sample_format() {
    for sample in Sample::ALL {
        let data: Vec<u8> = VALUES.iter().flat_map(|&v| sample.little_endian(v)).collect();
        let tag = if sample.is_float() { 3 } else { 1 };
        let audio = at_rate(wav(tag, 8 * sample.bytes(), 1, 22_050, &data), 22_050);
        assert_eq!(audio.samples, expected(), "{sample:?}");
        assert_eq!(audio.source.sample_rate_hz, 22_050);
        assert_eq!(audio.damage, [], "{sample:?}");
    }
}

#[test]
fn extensible_wav() {
    for sample in [Sample::S16, Sample::S24, Sample::F32] {
        let data: Vec<u8> = VALUES.iter().flat_map(|&v| sample.little_endian(v)).collect();
        let audio = at_rate(wav(0xFFFE, 8 * sample.bytes(), 1, 8_000, &data), 8_000);
        assert_eq!(audio.samples, expected(), "{sample:?}");
    }
}

/// G.711: the codes of silence, of the quietest and the loudest values.
#[test]
fn companded_wav() {
    let mu_law = at_rate(wav(7, 8, 1, 8_000, &[0xFF, 0x7F, 0x80, 0x00]), 8_000);
    let scaled: Vec<f32> = mu_law.samples.iter().map(|s| s * 32_768.0).collect();
    assert_eq!(scaled, [0.0, 0.0, 32_124.0, -32_124.0]);
    let a_law = at_rate(wav(6, 8, 1, 8_000, &[0xD5, 0x55, 0xAA, 0x2A]), 8_000);
    let scaled: Vec<f32> = a_law.samples.iter().map(|s| s * 32_768.0).collect();
    assert_eq!(scaled, [8.0, -8.0, 32_256.0, -32_256.0]);
}

#[test]
fn channels_are_mixed_or_taken() {
    for n_channels in [2_u16, 3, 6, 8, 32] {
        // Channel c holds c / 64 in its first frame and the negative of it in its second.
        let level = |c: u16| f64::from(c) / 64.0;
        let frame = |sign: f64| {
            (0..n_channels).flat_map(move |c| Sample::S16.little_endian(sign * level(c)))
        };
        let data: Vec<u8> = frame(1.0).chain(frame(-1.0)).collect();
        let bytes = wav(1, 16, n_channels, 16_000, &data);
        let mean = (0..n_channels).map(level).sum::<f64>() / f64::from(n_channels);
        let mixed = decode_memory(bytes.clone()).expect("decodes");
        assert_eq!(mixed.source.n_channels, usize::from(n_channels));
        assert!((f64::from(mixed.samples[0]) - mean).abs() < 1e-6);
        assert!((f64::from(mixed.samples[1]) + mean).abs() < 1e-6);
        for c in 0..n_channels {
            let options =
                DecodeOptions { channel: Some(usize::from(c)), ..DecodeOptions::default() };
            let one = decode_bytes(bytes.clone(), "memory", None, &options).expect("decodes");
            let wanted = level(c) as f32;
            assert_eq!(one.samples, [wanted, -wanted], "channel {c} of {n_channels}");
        }
    }
}

fn aiff(sample: Sample, compression: Option<&[u8; 4]>) -> Vec<u8> {
    let chunk = |id: &[u8; 4], body: &[u8]| {
        let mut bytes = id.to_vec();
        bytes.extend((body.len() as u32).to_be_bytes());
        bytes.extend(body);
        bytes
    };
    let data: Vec<u8> = VALUES.iter().flat_map(|&v| sample.big_endian(v)).collect();
    let mut common = vec![0, 1];
    common.extend((VALUES.len() as u32).to_be_bytes());
    common.extend((8 * sample.bytes()).to_be_bytes());
    // 16000 as an 80-bit extended float: 1.953125 x 2^13.
    common.extend([0x40, 0x0C, 0xFA, 0, 0, 0, 0, 0, 0, 0]);
    let mut form = b"AIFF".to_vec();
    if let Some(compression) = compression {
        form = b"AIFC".to_vec();
        common.extend(compression);
        common.extend([0, 0]);
    }
    form.extend(chunk(b"COMM", &common));
    form.extend(chunk(b"SSND", &[&[0; 8], data.as_slice()].concat()));
    chunk(b"FORM", &form)
}

#[test]
fn aiff_in_every_sample_format() {
    for sample in [Sample::U8, Sample::S16, Sample::S24, Sample::S32] {
        let audio = decode_memory(aiff(sample, None)).expect("decodes");
        assert_eq!(audio.samples, expected(), "{sample:?}");
    }
    for (sample, compression) in
        [(Sample::F32, b"fl32"), (Sample::F64, b"fl64"), (Sample::S16, b"NONE")]
    {
        let audio = decode_memory(aiff(sample, Some(compression))).expect("decodes");
        assert_eq!(audio.samples, expected(), "{sample:?}");
    }
}

#[test]
fn caf_in_every_sample_format() {
    for sample in [Sample::S16, Sample::S24, Sample::S32, Sample::F32, Sample::F64] {
        for is_little_endian in [false, true] {
            let mut description = 16_000_f64.to_be_bytes().to_vec();
            description.extend(b"lpcm");
            let flags = u32::from(sample.is_float()) | u32::from(is_little_endian) << 1;
            description.extend(flags.to_be_bytes());
            for field in [u32::from(sample.bytes()), 1, 1, 8 * u32::from(sample.bytes())] {
                description.extend(field.to_be_bytes());
            }
            let data: Vec<u8> = VALUES
                .iter()
                .flat_map(|&value| {
                    if is_little_endian {
                        sample.little_endian(value)
                    } else {
                        sample.big_endian(value)
                    }
                })
                .collect();
            let mut bytes = b"caff\0\x01\0\0desc".to_vec();
            bytes.extend((description.len() as u64).to_be_bytes());
            bytes.extend(description);
            bytes.extend(b"data");
            bytes.extend((data.len() as u64 + 4).to_be_bytes());
            bytes.extend([0; 4]);
            bytes.extend(data);
            let audio = decode_memory(bytes).expect("decodes");
            assert_eq!(audio.samples, expected(), "{sample:?} {is_little_endian}");
        }
    }
}

#[test]
fn one_sample_is_enough() {
    let audio = decode_memory(wav(1, 16, 1, 16_000, &[0, 64])).expect("decodes");
    assert_eq!(audio.samples, [0.5]);
    let audio = decode_memory(wav(1, 16, 1, 48_000, &[0, 64])).expect("decodes");
    assert_eq!(audio.samples.len(), 1);
}

#[test]
fn lengths_that_the_writer_did_not_know() {
    let sound = wav(1, 16, 1, 16_000, &[0, 64, 0, 32, 0, 16]);
    let data_at = sound.len() - 6 - 4;
    for (riff, data) in
        [(u32::MAX, u32::MAX), (0, 0), (0x7FFF_F024, 0x7FFF_F000), (u32::MAX, 0x8000_0000), (8, 6)]
    {
        let mut bytes = sound.clone();
        bytes[4..8].copy_from_slice(&riff.to_le_bytes());
        bytes[data_at..data_at + 4].copy_from_slice(&data.to_le_bytes());
        let audio = decode_memory(bytes).unwrap_or_else(|error| panic!("{riff} {data}: {error}"));
        assert_eq!(audio.samples, [0.5, 0.25, 0.125], "{riff:#x} {data:#x}");
        assert_eq!(audio.damage, [], "{riff:#x} {data:#x}");
    }
}
