//! WAV headers, of all the kinds that are written.
//!
//! Plain samples behind such a header are read here (see [`crate::audio::pcm`]); compressed
//! ones are left to the demultiplexer, behind a header cleaned of what it stumbles over.
//!
//! Writers to a pipe cannot know the length and put 0, 0x7FFFFxxx or 0xFFFFFFFF into the
//! size fields; RF64 and BW64 (EBU Tech 3306, ITU-R BS.2088) keep the true size in a `ds64`
//! chunk because it may exceed 4 GiB.

use std::io::{self, Cursor, Read};

use crate::audio::pcm::{Encoding, PcmLayout};

/// Stands for an unknown length.
const UNKNOWN: u32 = u32::MAX;
/// What programs that cannot seek back write, rounded down to whole frames, for a stream of
/// 31-bit length.
const STREAMED: u32 = 0x7FFF_F000;
/// Most bytes of chunks in front of the samples.
const MAX_HEADER_BYTES: u64 = 1 << 24;
/// Most bytes of a format chunk; the largest in use has some 50.
const MAX_FORMAT_BYTES: u64 = 1 << 10;

/// Format tags (mmreg.h).
const PCM: u16 = 1;
const IEEE_FLOAT: u16 = 3;
const A_LAW: u16 = 6;
const MU_LAW: u16 = 7;
const EXTENSIBLE: u16 = 0xFFFE;
/// The last 14 bytes of the identifiers that stand for a format tag (ksmedia.h).
const TAG_GUID_TAIL: &[u8] = b"\0\0\0\0\x10\0\x80\0\0\xAA\0\x38\x9B\x71";

/// A header read up to the samples.
#[derive(Debug)]
pub(super) struct WavHeader {
    /// The body of the format chunk.
    format: Vec<u8>,
    data: DataSize,
}

/// How many bytes of samples follow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum DataSize {
    Exactly(u64),
    /// The size was not known when the header was written, but it is at most this.
    AtMost(u64),
}

/// What can be made of a header.
pub(super) enum WavContent {
    /// Samples to be read as they are, so many bytes at most.
    Pcm(PcmLayout, u64),
    /// For the demultiplexer: a header to put in front of the rest, and how much of that to
    /// read.
    Other(Vec<u8>, u64),
}

impl WavHeader {
    /// Whether `start` begins a WAV file of any kind.
    pub(super) fn matches(start: &[u8]) -> bool {
        let (magic, form) = (start.get(..4), start.get(8..12));
        form == Some(b"WAVE")
            && [b"RIFF", b"RF64", b"BW64"].iter().any(|known| magic == Some(known.as_slice()))
    }

    /// Reads up to the samples; `None` if there are none. `file_bytes` is the length of the
    /// whole file, if known.
    ///
    /// # Errors
    /// Only if reading fails.
    pub(super) fn read(
        reader: &mut impl Read,
        file_bytes: Option<u64>,
    ) -> io::Result<Option<Self>> {
        let Some([_, _, _, _, r0, r1, r2, r3, ..]) = read_array::<12>(reader)? else {
            return Ok(None);
        };
        let riff_bytes = u32::from_le_bytes([r0, r1, r2, r3]);
        let mut format = Vec::new();
        let mut long_bytes = None;
        let mut at = 12;
        while at < MAX_HEADER_BYTES {
            let Some([i0, i1, i2, i3, s0, s1, s2, s3]) = read_array::<8>(reader)? else {
                break;
            };
            at += 8;
            let size = u32::from_le_bytes([s0, s1, s2, s3]);
            let id = [i0, i1, i2, i3];
            if &id == b"data" {
                let declared =
                    Declared { riff_bytes, data_bytes: size, long_bytes, header_bytes: at };
                return Ok(Some(Self { format, data: declared.data_size(file_bytes) }));
            }
            // Chunks are padded to an even length.
            let padded = u64::from(size) + u64::from(size & 1);
            let mut body = Vec::new();
            let wanted = if matches!(&id, b"fmt " | b"ds64") {
                u64::from(size).min(MAX_FORMAT_BYTES)
            } else {
                0
            };
            (&mut *reader).take(wanted).read_to_end(&mut body)?;
            io::copy(&mut (&mut *reader).take(padded - wanted), &mut io::sink())?;
            at = at.saturating_add(padded);
            match &id {
                b"fmt " => format = body,
                b"ds64" => long_bytes = u64_at(&body, 8),
                _ => {}
            }
        }
        Ok(None)
    }

    /// What follows the header and how to read it.
    pub(super) fn content(&self) -> WavContent {
        let (DataSize::Exactly(n_bytes) | DataSize::AtMost(n_bytes)) = self.data;
        match self.pcm_layout() {
            Some(layout) => WavContent::Pcm(layout, n_bytes),
            None => WavContent::Other(self.cleaned(), n_bytes),
        }
    }

    fn pcm_layout(&self) -> Option<PcmLayout> {
        let format = self.format.as_slice();
        let n_channels = usize::from(u16_at(format, 2)?);
        let sample_rate_hz = u32_at(format, 4)?;
        let n_bits = u16_at(format, 14)?;
        let tag = match u16_at(format, 0)? {
            EXTENSIBLE if format.get(26..40) == Some(TAG_GUID_TAIL) => u16_at(format, 24)?,
            tag => tag,
        };
        // Odd numbers of bits take up whole bytes and are left-aligned in them.
        let encoding = match (tag, n_bits.div_ceil(8)) {
            (PCM, 1) => Encoding::U8,
            (PCM, 2) => Encoding::S16,
            (PCM, 3) => Encoding::S24,
            (PCM, 4) => Encoding::S32,
            (IEEE_FLOAT, 4) => Encoding::F32,
            (IEEE_FLOAT, 8) => Encoding::F64,
            (MU_LAW, 1) => Encoding::MuLaw,
            (A_LAW, 1) => Encoding::ALaw,
            _ => return None,
        };
        let frame_bytes = (encoding.sample_bytes() * n_channels) as u64;
        let n_frames = match self.data {
            DataSize::Exactly(n_bytes) => n_bytes.checked_div(frame_bytes),
            DataSize::AtMost(_) => None,
        };
        Some(PcmLayout { container: "wave", encoding, sample_rate_hz, n_channels, n_frames })
    }

    /// Number of channels that the header claims.
    pub(super) fn n_channels(&self) -> usize {
        u16_at(&self.format, 2).map_or(0, usize::from)
    }

    /// A header with the same format and nothing else.
    fn cleaned(&self) -> Vec<u8> {
        let data_bytes = match self.data {
            DataSize::Exactly(n_bytes) => u32::try_from(n_bytes).unwrap_or(UNKNOWN),
            DataSize::AtMost(_) => UNKNOWN,
        };
        let mut bytes = b"RIFF\xFF\xFF\xFF\xFFWAVEfmt ".to_vec();
        bytes.extend((self.format.len() as u32).to_le_bytes());
        bytes.extend(&self.format);
        bytes.resize(bytes.len().next_multiple_of(2), 0);
        bytes.extend(b"data");
        bytes.extend(data_bytes.to_le_bytes());
        bytes
    }
}

/// Puts a header back in front of what `rest` still holds.
pub(super) fn rejoin<R: Read>(
    header: Vec<u8>,
    rest: R,
    n_bytes: u64,
) -> io::Chain<Cursor<Vec<u8>>, io::Take<R>> {
    Cursor::new(header).chain(rest.take(n_bytes))
}

/// The sizes as they are written.
struct Declared {
    riff_bytes: u32,
    data_bytes: u32,
    long_bytes: Option<u64>,
    header_bytes: u64,
}

impl Declared {
    fn data_size(&self, file_bytes: Option<u64>) -> DataSize {
        let follows = |bytes: u32| {
            file_bytes.is_some_and(|file_bytes| self.header_bytes + u64::from(bytes) <= file_bytes)
        };
        // Whether the outer size covers no more than the header.
        let covers_nothing = u64::from(self.riff_bytes) + 8 <= self.header_bytes;
        match (self.data_bytes, self.long_bytes) {
            (UNKNOWN, Some(long_bytes)) if long_bytes > 0 => DataSize::Exactly(long_bytes),
            (UNKNOWN, _) => DataSize::AtMost(u64::MAX),
            // Either there is nothing, or it was not known.
            (0, _) if covers_nothing || self.riff_bytes >= STREAMED => DataSize::AtMost(u64::MAX),
            (STREAMED.., _) if !follows(self.data_bytes) => {
                DataSize::AtMost(u64::from(self.data_bytes))
            }
            _ => DataSize::Exactly(u64::from(self.data_bytes)),
        }
    }
}

/// The next `N` bytes; `None` if the file ends before.
fn read_array<const N: usize>(reader: &mut impl Read) -> io::Result<Option<[u8; N]>> {
    let mut bytes = [0; N];
    match reader.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MONO_16_BIT: &[u8] = b"\x01\0\x01\0\x80\x3E\0\0\0\x7D\0\0\x02\0\x10\0";

    /// A header with `riff` and `data` sizes, four bytes of samples and a trailing chunk.
    fn file(magic: &[u8; 4], riff: u32, ds64: Option<u64>, data: u32) -> Vec<u8> {
        let mut bytes = magic.to_vec();
        bytes.extend(riff.to_le_bytes());
        bytes.extend(b"WAVE");
        if let Some(data_bytes) = ds64 {
            bytes.extend(b"ds64");
            bytes.extend(28_u32.to_le_bytes());
            bytes.extend([0; 8]);
            bytes.extend(data_bytes.to_le_bytes());
            bytes.extend([0; 12]);
        }
        bytes.extend(b"LIST\x03\0\0\0odd\0fmt \x10\0\0\0");
        bytes.extend(MONO_16_BIT);
        bytes.extend(b"data");
        bytes.extend(data.to_le_bytes());
        bytes.extend(b"abcdLIST");
        bytes
    }

    #[test]
    fn sizes_are_understood() {
        use DataSize::{AtMost, Exactly};
        let cases = [
            ("plain", b"RIFF", 60, None, 4, Exactly(4)),
            ("truly empty", b"RIFF", 60, None, 0, Exactly(0)),
            ("promises more than there is", b"RIFF", 60, None, 99, Exactly(99)),
            ("streamed by ffmpeg", b"RIFF", UNKNOWN, None, UNKNOWN, AtMost(u64::MAX)),
            ("streamed, zeros", b"RIFF", 0, None, 0, AtMost(u64::MAX)),
            ("streamed, header only", b"RIFF", 48, None, 0, AtMost(u64::MAX)),
            ("streamed by sox", b"RIFF", 0x7FFF_F024, None, 0x7FFF_F000, AtMost(0x7FFF_F000)),
            ("RF64", b"RF64", UNKNOWN, Some(4), UNKNOWN, Exactly(4)),
            ("BW64 beyond 4 GiB", b"BW64", UNKNOWN, Some(1 << 33), UNKNOWN, Exactly(1 << 33)),
            ("RF64 streamed", b"RF64", UNKNOWN, Some(0), UNKNOWN, AtMost(u64::MAX)),
        ];
        for (why, magic, riff, ds64, data, expected) in cases {
            let bytes = file(magic, riff, ds64, data);
            assert!(WavHeader::matches(&bytes), "{why}");
            let mut reader = Cursor::new(bytes.as_slice());
            let header = WavHeader::read(&mut reader, Some(bytes.len() as u64)).expect("memory");
            let header = header.expect("there are samples");
            assert_eq!(header.data, expected, "{why}");
            assert_eq!(header.format, MONO_16_BIT, "{why}");
            let mut rest = Vec::new();
            reader.read_to_end(&mut rest).expect("memory");
            assert_eq!(rest, b"abcdLIST", "{why}");
        }
    }

    #[test]
    fn formats_are_understood() {
        let format = |tag: u16, n_bits: u16| {
            let mut format = MONO_16_BIT.to_vec();
            format[..2].copy_from_slice(&tag.to_le_bytes());
            format[14..].copy_from_slice(&n_bits.to_le_bytes());
            format
        };
        let extensible = |tag: u16, n_bits: u16| {
            let mut format = format(EXTENSIBLE, n_bits);
            format.extend([22, 0, n_bits as u8, 0, 0, 0, 0, 0]);
            format.extend(tag.to_le_bytes());
            format.extend(TAG_GUID_TAIL);
            format
        };
        let cases = [
            (format(PCM, 8), Some(Encoding::U8)),
            (format(PCM, 12), Some(Encoding::S16)),
            (format(PCM, 16), Some(Encoding::S16)),
            (format(PCM, 20), Some(Encoding::S24)),
            (format(PCM, 32), Some(Encoding::S32)),
            (format(PCM, 0), None),
            (format(PCM, 33), None),
            (format(PCM, u16::MAX), None),
            (format(IEEE_FLOAT, 32), Some(Encoding::F32)),
            (format(IEEE_FLOAT, 64), Some(Encoding::F64)),
            (format(IEEE_FLOAT, 16), None),
            (format(MU_LAW, 8), Some(Encoding::MuLaw)),
            (format(A_LAW, 8), Some(Encoding::ALaw)),
            (format(2, 4), None),
            (extensible(PCM, 24), Some(Encoding::S24)),
            (extensible(IEEE_FLOAT, 32), Some(Encoding::F32)),
            (extensible(MU_LAW, 8), Some(Encoding::MuLaw)),
            (format(EXTENSIBLE, 16), None),
            (Vec::new(), None),
        ];
        for (format, expected) in cases {
            let header = WavHeader { format: format.clone(), data: DataSize::Exactly(240) };
            let layout = header.pcm_layout();
            assert_eq!(layout.as_ref().map(|layout| layout.encoding), expected, "{format:?}");
            if let Some(layout) = layout {
                assert_eq!((layout.n_channels, layout.sample_rate_hz), (1, 16_000));
                let n_frames = 240 / layout.encoding.sample_bytes() as u64;
                assert_eq!(layout.n_frames, Some(n_frames));
            }
        }
    }

    #[test]
    fn what_is_not_plain_goes_on_with_a_clean_header() {
        let mut bytes = file(b"RIFF", 60, None, 4);
        let format_at = bytes.len() - 8 - 8 - 16;
        bytes[format_at] = 2;
        let mut reader = Cursor::new(bytes.as_slice());
        let header = WavHeader::read(&mut reader, None).expect("memory");
        let WavContent::Other(clean, n_bytes) = header.expect("there are samples").content() else {
            panic!("format 2 is not plain");
        };
        let mut joined = Vec::new();
        rejoin(clean, reader, n_bytes).read_to_end(&mut joined).expect("memory");
        assert!(joined.starts_with(b"RIFF\xFF\xFF\xFF\xFFWAVEfmt \x10\0\0\0\x02\0"));
        assert!(joined.ends_with(b"data\x04\0\0\0abcd"));
    }

    #[test]
    fn a_truncated_header_has_no_samples() {
        let bytes = file(b"RF64", UNKNOWN, Some(4), UNKNOWN);
        for len in 0..bytes.len() - 8 {
            let header = WavHeader::read(&mut Cursor::new(&bytes[..len]), Some(len as u64));
            assert!(header.expect("memory").is_none(), "cut at {len}");
        }
    }
}
