//! Repairs of WAV headers, before the demultiplexer sees them.
//!
//! Writers to a pipe cannot know the length and put 0, 0x7FFFFxxx or 0xFFFFFFFF into the
//! size fields; RF64 and BW64 (EBU Tech 3306, ITU-R BS.2088) keep the true size in a `ds64`
//! chunk because it may exceed 4 GiB. All of them become a plain RIFF header, which says
//! 0xFFFFFFFF where the length is not known.

use std::io::{self, Cursor, Read};

/// Stands for an unknown length.
const UNKNOWN: u32 = u32::MAX;
/// What programs that cannot seek back write, rounded down to whole frames, for a stream of
/// 31-bit length.
const STREAMED: u32 = 0x7FFF_F000;
/// Most bytes of chunks in front of the samples.
const MAX_HEADER_BYTES: usize = 1 << 20;

/// The repaired header, to be followed by the rest of the file.
pub(super) struct WavHeader {
    bytes: Vec<u8>,
    /// Bytes of samples that follow, where the header cannot say it.
    data_bytes: Option<u64>,
}

impl WavHeader {
    /// Whether `start` begins a WAV file of any of these kinds.
    pub(super) fn matches(start: &[u8]) -> bool {
        let (magic, form) = (start.get(..4), start.get(8..12));
        form == Some(b"WAVE")
            && [b"RIFF", b"RF64", b"BW64"]
                .iter()
                .any(|known| magic == Some(known.as_slice()))
    }

    /// Reads up to the samples. `file_bytes` is the length of the whole file, if known.
    pub(super) fn read(reader: &mut impl Read, file_bytes: Option<u64>) -> io::Result<Self> {
        let mut header = Self {
            bytes: Vec::new(),
            data_bytes: None,
        };
        if header.append(reader, 12)?.is_none() {
            return Ok(header);
        }
        let riff_bytes = u32_at(&header.bytes, 4).unwrap_or(0);
        header.bytes[..4].copy_from_slice(b"RIFF");
        header.bytes[4..8].copy_from_slice(&UNKNOWN.to_le_bytes());
        let mut long_bytes = None;
        while let Some(start) = header.append(reader, 8)? {
            let size = u32_at(&header.bytes, start + 4).unwrap_or(0);
            if header.bytes[start..].starts_with(b"data") {
                header.repair_data(start + 4, riff_bytes, long_bytes, file_bytes);
                break;
            }
            // Chunks are padded to an even length.
            let padded = size as usize + (size as usize & 1);
            if header.bytes.len() + padded > MAX_HEADER_BYTES {
                break;
            }
            let Some(body) = header.append(reader, padded)? else {
                break;
            };
            if header.bytes[start..].starts_with(b"ds64") {
                long_bytes = header
                    .bytes
                    .get(body + 8..body + 16)
                    .and_then(|bytes| bytes.try_into().ok())
                    .map(u64::from_le_bytes);
            }
        }
        Ok(header)
    }

    /// Puts the header back in front of what `rest` still holds.
    pub(super) fn before<R: Read>(self, rest: R) -> io::Chain<Cursor<Vec<u8>>, io::Take<R>> {
        Cursor::new(self.bytes).chain(rest.take(self.data_bytes.unwrap_or(u64::MAX)))
    }

    /// Appends `n` bytes and returns where they start, or `None` if the file ends before.
    fn append(&mut self, reader: &mut impl Read, n: usize) -> io::Result<Option<usize>> {
        let start = self.bytes.len();
        reader.take(n as u64).read_to_end(&mut self.bytes)?;
        Ok((self.bytes.len() == start + n).then_some(start))
    }

    /// Settles the size of the data chunk, written at `at`.
    fn repair_data(
        &mut self,
        at: usize,
        riff_bytes: u32,
        long_bytes: Option<u64>,
        file_bytes: Option<u64>,
    ) {
        let header_bytes = self.bytes.len() as u64;
        let declared = u32_at(&self.bytes, at).unwrap_or(0);
        let follows = |bytes: u32| {
            file_bytes.is_some_and(|file_bytes| header_bytes + u64::from(bytes) <= file_bytes)
        };
        let size = match (declared, long_bytes) {
            (UNKNOWN, Some(long_bytes)) if long_bytes > 0 => match u32::try_from(long_bytes) {
                Ok(size) if size != UNKNOWN => size,
                _ => {
                    self.data_bytes = Some(long_bytes);
                    UNKNOWN
                }
            },
            // Nothing is said to follow: either there is nothing, or it was not known.
            (0, _) if u64::from(riff_bytes) + 8 <= header_bytes || riff_bytes >= STREAMED => {
                UNKNOWN
            }
            (STREAMED..UNKNOWN, _) if !follows(declared) => {
                self.data_bytes = Some(u64::from(declared));
                UNKNOWN
            }
            _ => declared,
        };
        self.bytes[at..at + 4].copy_from_slice(&size.to_le_bytes());
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        bytes.extend(b"fmt ");
        bytes.extend(2_u32.to_le_bytes());
        bytes.extend([1, 2]);
        bytes.extend(b"data");
        bytes.extend(data.to_le_bytes());
        bytes.extend(b"abcdLIST");
        bytes
    }

    #[test]
    fn sizes_are_repaired() {
        struct Case {
            why: &'static str,
            magic: &'static [u8; 4],
            riff: u32,
            ds64: Option<u64>,
            data: u32,
            expected: u32,
            rest: &'static [u8],
        }
        let plain = Case {
            why: "plain",
            magic: b"RIFF",
            riff: 34,
            ds64: None,
            data: 4,
            expected: 4,
            rest: b"abcdLIST",
        };
        let cases = [
            Case {
                why: "streamed by ffmpeg",
                riff: UNKNOWN,
                data: UNKNOWN,
                expected: UNKNOWN,
                ..plain
            },
            Case {
                why: "streamed, zeros",
                riff: 0,
                data: 0,
                expected: UNKNOWN,
                ..plain
            },
            Case {
                why: "streamed, header only",
                riff: 22,
                data: 0,
                expected: UNKNOWN,
                ..plain
            },
            Case {
                why: "truly empty",
                riff: 38,
                data: 0,
                expected: 0,
                ..plain
            },
            Case {
                why: "streamed by sox",
                riff: 0x7FFF_F024,
                data: 0x7FFF_F000,
                expected: UNKNOWN,
                ..plain
            },
            Case {
                why: "RF64",
                magic: b"RF64",
                riff: UNKNOWN,
                ds64: Some(4),
                data: UNKNOWN,
                expected: 4,
                ..plain
            },
            Case {
                why: "BW64 beyond 4 GiB",
                magic: b"BW64",
                riff: UNKNOWN,
                ds64: Some(1 << 33),
                data: UNKNOWN,
                expected: UNKNOWN,
                ..plain
            },
            plain,
        ];
        for case in cases {
            let bytes = file(case.magic, case.riff, case.ds64, case.data);
            assert!(WavHeader::matches(&bytes), "{}", case.why);
            let mut reader = Cursor::new(bytes.clone());
            let header = WavHeader::read(&mut reader, Some(bytes.len() as u64)).expect("memory");
            let at = header.bytes.len() - 4;
            assert_eq!(
                u32_at(&header.bytes, at),
                Some(case.expected),
                "{}",
                case.why
            );
            let mut repaired = Vec::new();
            header
                .before(reader)
                .read_to_end(&mut repaired)
                .expect("memory");
            assert_eq!(&repaired[at + 4..], case.rest, "{}", case.why);
            assert_eq!(&repaired[..4], b"RIFF", "{}", case.why);
        }
    }

    #[test]
    fn a_truncated_header_is_passed_on() {
        let bytes = file(b"RIFF", 34, None, 4);
        for len in 0..bytes.len() {
            let mut reader = Cursor::new(bytes[..len].to_vec());
            let header = WavHeader::read(&mut reader, Some(len as u64)).expect("memory");
            let mut repaired = Vec::new();
            header
                .before(reader)
                .read_to_end(&mut repaired)
                .expect("memory");
            assert_eq!(repaired.len(), len);
        }
    }
}
