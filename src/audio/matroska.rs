//! What the Matroska demultiplexer leaves out: padding at the ends of a track, and whether
//! the file is cut off.
//!
//! `CodecDelay` of a track says how much to leave out at its start, `DiscardPadding` of its
//! last block how much at its end (RFC 9559, sections 5.1.4.1.28 and 5.1.3.5.7).

use std::io::{self, Read, Seek, SeekFrom};

use crate::audio::trim::{Padding, PaddingEnd};

const EBML_HEADER: u32 = 0x1A45_DFA3;
const SEGMENT: u32 = 0x1853_8067;
const TRACKS: u32 = 0x1654_AE6B;
const TRACK_ENTRY: u32 = 0xAE;
const TRACK_NUMBER: u32 = 0xD7;
const CODEC_ID: u32 = 0x86;
const CODEC_DELAY: u32 = 0x56AA;
const CLUSTER: u32 = 0x1F43_B675;
const BLOCK_GROUP: u32 = 0xA0;
const BLOCK: u32 = 0xA1;
const SIMPLE_BLOCK: u32 = 0xA3;
const DISCARD_PADDING: u32 = 0x75A2;

/// Elements visited before the search is given up: three days of 1 s clusters.
const MAX_ELEMENTS: usize = 300_000;
/// Nanoseconds, the unit of both paddings.
const SECOND_NS: f64 = 1e9;
/// A padding longer than this is not believed.
const MAX_PADDING_S: f64 = 1.0;

/// What a scan of the elements found.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// One per track. Nothing is skipped at the start of Opus tracks: their decoder takes
    /// the delay from the codec's own header.
    pub(super) paddings: Vec<Padding>,
    /// The segment extends beyond the end of the file.
    pub(super) truncated: bool,
}

/// One element: its identifier with the length marker, and where its body lies.
#[derive(Clone, Copy)]
struct Element {
    id: u32,
    body: u64,
    /// `None` for the unknown length of a live stream.
    end: Option<u64>,
}

/// Scans the elements of a Matroska or WebM file of `len` bytes. Malformed elements end the
/// scan, not the decoding: the demultiplexer has the last word.
///
/// # Errors
/// Only if reading fails.
pub(super) fn scan(media: &mut (impl Read + Seek), len: u64) -> io::Result<Layout> {
    let mut scan = Scan { media, n_elements: 0 };
    let mut layout = Layout::default();
    let Some(header) = scan.element(0, len)?.filter(|found| found.id == EBML_HEADER) else {
        return Ok(layout);
    };
    let Some(segment) = scan.element(header.end.unwrap_or(len), len)? else {
        return Ok(layout);
    };
    if segment.id != SEGMENT {
        return Ok(layout);
    }
    layout.truncated = segment.end.is_some_and(|end| end > len);
    let mut last_cluster = None;
    let mut at = segment.body;
    while let Some(found) = scan.element(at, len)? {
        let Some(end) = found.end.filter(|&end| end <= len) else {
            // A live stream or a cut: where the track ends is not known.
            last_cluster = None;
            break;
        };
        match found.id {
            TRACKS => layout.paddings = scan.tracks(found.body, end)?,
            CLUSTER => last_cluster = Some((found.body, end)),
            _ => {}
        }
        at = end;
    }
    if let Some((body, end)) = last_cluster
        && !layout.truncated
        && scan.n_elements < MAX_ELEMENTS
    {
        scan.cluster(body, end, &mut layout.paddings)?;
    }
    Ok(layout)
}

struct Scan<'m, M> {
    media: &'m mut M,
    n_elements: usize,
}

impl<M: Read + Seek> Scan<'_, M> {
    /// The element at `at`, if its whole header lies before `end`.
    fn element(&mut self, at: u64, end: u64) -> io::Result<Option<Element>> {
        self.n_elements += 1;
        if self.n_elements > MAX_ELEMENTS || at >= end {
            return Ok(None);
        }
        let header = self.bytes(at, end.min(at.saturating_add(12)))?;
        let Some((id, id_bytes)) = vint(&header, 4, true) else {
            return Ok(None);
        };
        let Some((size, size_bytes)) = vint(&header[id_bytes..], 8, false) else {
            return Ok(None);
        };
        let body = at + (id_bytes + size_bytes) as u64;
        let unknown = size == (1 << (7 * size_bytes)) - 1;
        Ok(Some(Element {
            id: id as u32,
            body,
            end: (!unknown).then(|| body.saturating_add(size)),
        }))
    }

    fn bytes(&mut self, at: u64, end: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.media.seek(SeekFrom::Start(at))?;
        let n_bytes = end.saturating_sub(at);
        (&mut *self.media).take(n_bytes).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// The body of a number or a short text, big-endian.
    fn short_body(&mut self, found: Element) -> io::Result<Vec<u8>> {
        let end = found.end.unwrap_or(found.body);
        self.bytes(found.body, end.min(found.body.saturating_add(16)))
    }

    fn tracks(&mut self, mut at: u64, end: u64) -> io::Result<Vec<Padding>> {
        let mut paddings = Vec::new();
        while let Some(entry) = self.element(at, end)? {
            let Some(entry_end) = entry.end.filter(|&entry_end| entry_end <= end) else {
                break;
            };
            if entry.id == TRACK_ENTRY {
                paddings.push(self.track(entry.body, entry_end)?);
            }
            at = entry_end;
        }
        Ok(paddings)
    }

    fn track(&mut self, mut at: u64, end: u64) -> io::Result<Padding> {
        let mut padding = Padding { track_id: 0, skip_s: 0.0, end: PaddingEnd::Unknown };
        let mut is_opus = false;
        while let Some(found) = self.element(at, end)? {
            match found.id {
                TRACK_NUMBER => {
                    padding.track_id = unsigned(&self.short_body(found)?) as u32;
                }
                CODEC_ID => is_opus = self.short_body(found)?.starts_with(b"A_OPUS"),
                CODEC_DELAY => {
                    padding.skip_s = unsigned(&self.short_body(found)?) as f64 / SECOND_NS;
                }
                _ => {}
            }
            at = found.end.unwrap_or(end);
        }
        if is_opus || padding.skip_s > MAX_PADDING_S {
            padding.skip_s = 0.0;
        }
        Ok(padding)
    }

    /// Reads the padding of the last block of each track in a cluster.
    fn cluster(&mut self, mut at: u64, end: u64, paddings: &mut [Padding]) -> io::Result<()> {
        while let Some(found) = self.element(at, end)? {
            let found_end = found.end.unwrap_or(end).min(end);
            match found.id {
                SIMPLE_BLOCK => {
                    let number = self.block_track(found)?;
                    set_end(paddings, number, 0.0);
                }
                BLOCK_GROUP => {
                    let (number, discard_ns) = self.block_group(found.body, found_end)?;
                    set_end(paddings, number, discard_ns as f64 / SECOND_NS);
                }
                _ => {}
            }
            at = found_end;
        }
        Ok(())
    }

    fn block_group(&mut self, mut at: u64, end: u64) -> io::Result<(u32, i64)> {
        let (mut number, mut discard_ns) = (0, 0);
        while let Some(found) = self.element(at, end)? {
            match found.id {
                BLOCK => number = self.block_track(found)?,
                DISCARD_PADDING => discard_ns = signed(&self.short_body(found)?),
                _ => {}
            }
            at = found.end.unwrap_or(end);
        }
        Ok((number, discard_ns))
    }

    /// A block begins with the number of its track.
    fn block_track(&mut self, block: Element) -> io::Result<u32> {
        let start = self.short_body(block)?;
        Ok(vint(&start, 8, false).map_or(0, |(number, _)| number as u32))
    }
}

fn set_end(paddings: &mut [Padding], track_id: u32, drop_s: f64) {
    for padding in paddings {
        if padding.track_id == track_id && (0.0..=MAX_PADDING_S).contains(&drop_s) {
            padding.end = PaddingEnd::Drop { drop_s };
        }
    }
}

/// A number whose first byte says its length by its leading zeros (RFC 8794, section 4), and
/// that length. Identifiers keep the marker bit, sizes do not.
fn vint(bytes: &[u8], max_bytes: usize, keep_marker: bool) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let n_bytes = first.leading_zeros() as usize + 1;
    if n_bytes > max_bytes || n_bytes > bytes.len() {
        return None;
    }
    let first =
        if keep_marker { u64::from(first) } else { u64::from(first) & ((1 << (8 - n_bytes)) - 1) };
    let number =
        bytes[1..n_bytes].iter().fold(first, |number, &byte| number << 8 | u64::from(byte));
    Some((number, n_bytes))
}

fn unsigned(bytes: &[u8]) -> u64 {
    let start = bytes.len().saturating_sub(8);
    bytes[start..].iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// Two's complement of as many bytes as there are.
fn signed(bytes: &[u8]) -> i64 {
    let n_bits = 8 * bytes.len().min(8) as u32;
    if n_bits == 0 {
        return 0;
    }
    let shift = 64 - n_bits;
    ((unsigned(bytes) << shift) as i64) >> shift
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn element(id: u32, body: &[u8]) -> Vec<u8> {
        let id_bytes = id.to_be_bytes();
        let start = id.leading_zeros() as usize / 8;
        let mut bytes = id_bytes[start..].to_vec();
        bytes.extend((body.len() as u32 | 0x1000_0000).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn file(codec: &[u8], last: &[u8]) -> Vec<u8> {
        let entry = [
            element(TRACK_NUMBER, &[1]),
            element(CODEC_ID, codec),
            element(CODEC_DELAY, &6_500_000_u32.to_be_bytes()),
        ];
        let tracks = element(TRACKS, &element(TRACK_ENTRY, &entry.concat()));
        let group = [
            element(BLOCK, &[0x81, 0, 0, 0, 9, 9]),
            element(DISCARD_PADDING, &13_500_000_u32.to_be_bytes()),
        ];
        let first = element(CLUSTER, &element(BLOCK_GROUP, &group.concat()));
        let second = [element(BLOCK_GROUP, &group.concat()), last.to_vec()];
        let segment = [tracks, first, element(CLUSTER, &second.concat())];
        [element(EBML_HEADER, b"x"), element(SEGMENT, &segment.concat())].concat()
    }

    fn scanned(bytes: &[u8]) -> Layout {
        scan(&mut Cursor::new(bytes), bytes.len() as u64).expect("memory")
    }

    #[test]
    fn paddings_are_read() {
        let cases: [(&[u8], Vec<u8>, f64, f64); 3] = [
            (b"A_OPUS", Vec::new(), 0.0, 0.0135),
            (b"A_AAC", Vec::new(), 0.0065, 0.0135),
            (b"A_AAC", element(SIMPLE_BLOCK, &[0x81, 0, 0, 0]), 0.0065, 0.0),
        ];
        for (codec, last, skip_s, drop_s) in cases {
            let layout = scanned(&file(codec, &last));
            assert!(!layout.truncated);
            let expected = Padding { track_id: 1, skip_s, end: PaddingEnd::Drop { drop_s } };
            assert_eq!(layout.paddings, [expected]);
        }
    }

    #[test]
    fn a_cut_file_is_noticed_and_no_cut_fails() {
        let bytes = file(b"A_OPUS", &[]);
        for len in 20..bytes.len() {
            let layout = scanned(&bytes[..len]);
            assert!(layout.truncated, "cut at {len}");
            let ends = layout.paddings.iter().map(|padding| padding.end);
            assert!(ends.into_iter().all(|end| end == PaddingEnd::Unknown));
        }
    }

    #[test]
    fn numbers_are_read() {
        assert_eq!(vint(&[0x81], 8, false), Some((1, 1)));
        assert_eq!(vint(&[0x40, 0x02], 8, false), Some((2, 2)));
        assert_eq!(vint(&[0x40], 8, false), None);
        assert_eq!(vint(&[0x00, 1], 8, false), None);
        assert_eq!(signed(&[0xFF]), -1);
        assert_eq!(signed(&[0x01, 0x00]), 256);
        assert_eq!(signed(&[]), 0);
    }
}
