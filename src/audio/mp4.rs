//! What the MP4 demultiplexer leaves out: edit lists, and whether the file is cut off.
//!
//! AAC and other lossy codecs begin with samples that only warm the decoder up and end with
//! padding. MP4 says how many in the edit list of a track (ISO 14496-12, section 8.6.6) or,
//! in files by Apple software, in an `iTunSMPB` tag.

use std::io::{self, Read, Seek, SeekFrom};

use crate::audio::trim::{Padding, PaddingEnd};

/// Boxes visited before the search is given up: far more than any sound file has.
const MAX_BOXES: usize = 100_000;
/// Longest box body that is read into memory.
const MAX_BODY_BYTES: u64 = 1 << 12;

/// What a scan of the boxes found.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// At most one per audio track.
    pub(super) paddings: Vec<Padding>,
    /// A box extends beyond the end of the file.
    pub(super) truncated: bool,
}

/// One box: its type and where its body lies.
#[derive(Clone, Copy)]
struct Box4 {
    kind: [u8; 4],
    body: u64,
    end: u64,
}

/// The parts of a `trak` box that an edit needs.
#[derive(Default)]
struct Trak {
    id: Option<u32>,
    is_audio: bool,
    media_timescale: Option<u32>,
    /// Start in the media timescale, length in the movie timescale.
    edit: Option<(u64, u64)>,
}

/// Scans the boxes of an MP4 file of `len` bytes. Malformed boxes end the scan, not the
/// decoding: the demultiplexer has the last word.
///
/// # Errors
/// Only if reading fails.
pub(super) fn scan(media: &mut (impl Read + Seek), len: u64) -> io::Result<Layout> {
    let mut scan =
        Scan { media, n_boxes: 0, movie_timescale: None, traks: Vec::new(), gapless: None };
    let truncated = scan.file(len)?;
    let movie_timescale = scan.movie_timescale;
    let gapless = scan.gapless;
    let paddings = scan
        .traks
        .iter()
        .filter(|trak| trak.is_audio)
        .filter_map(|trak| trak.padding(movie_timescale, gapless))
        .collect();
    Ok(Layout { paddings, truncated })
}

struct Scan<'m, M> {
    media: &'m mut M,
    n_boxes: usize,
    movie_timescale: Option<u32>,
    traks: Vec<Trak>,
    /// Delay and length in samples, from `iTunSMPB`.
    gapless: Option<(u64, u64)>,
}

impl<M: Read + Seek> Scan<'_, M> {
    /// Walks the top level; true if the file is cut off.
    fn file(&mut self, len: u64) -> io::Result<bool> {
        let mut at = 0;
        while let Some(found) = self.next_box(at, len)? {
            if found.end > len {
                // Anything else is rubbish behind the last box.
                return Ok(matches!(&found.kind, b"mdat" | b"moov" | b"moof"));
            }
            if &found.kind == b"moov" {
                self.walk(found)?;
            }
            at = found.end;
        }
        Ok(false)
    }

    /// The box at `at`, if a whole header lies before `end`. Its own end may lie beyond.
    fn next_box(&mut self, at: u64, end: u64) -> io::Result<Option<Box4>> {
        self.n_boxes += 1;
        if self.n_boxes > MAX_BOXES || at.saturating_add(8) > end {
            return Ok(None);
        }
        self.media.seek(SeekFrom::Start(at))?;
        let mut header = [0; 8];
        if !read_all(self.media, &mut header)? {
            return Ok(None);
        }
        let [s0, s1, s2, s3, k0, k1, k2, k3] = header;
        let (header_bytes, size) = match u32::from_be_bytes([s0, s1, s2, s3]) {
            0 => (8, end - at),
            1 => {
                let mut long = [0; 8];
                if !read_all(self.media, &mut long)? {
                    return Ok(None);
                }
                (16, u64::from_be_bytes(long))
            }
            size => (8, u64::from(size)),
        };
        if size < header_bytes {
            return Ok(None);
        }
        Ok(Some(Box4 {
            kind: [k0, k1, k2, k3],
            body: at + header_bytes,
            end: at.saturating_add(size),
        }))
    }

    /// Visits the children of a container box, depth first, in an explicit stack so that a
    /// hostile nesting costs a heap entry and not the call stack.
    fn walk(&mut self, container: Box4) -> io::Result<()> {
        let mut open = vec![(container.body, container.end)];
        while let Some((at, end)) = open.pop() {
            let Some(found) = self.next_box(at, end)? else {
                continue;
            };
            if found.end > end {
                continue;
            }
            open.push((found.end, end));
            match &found.kind {
                b"trak" => {
                    self.traks.push(Trak::default());
                    open.push((found.body, found.end));
                }
                b"mdia" | b"edts" | b"udta" | b"ilst" => open.push((found.body, found.end)),
                // A full box: version and flags come before the children.
                b"meta" => open.push((found.body.saturating_add(4), found.end)),
                b"mvhd" | b"tkhd" | b"mdhd" | b"hdlr" | b"elst" | b"----" => {
                    let body = self.body(found)?;
                    self.read_leaf(&found.kind, &body);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn body(&mut self, found: Box4) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        self.media.seek(SeekFrom::Start(found.body))?;
        let n_bytes = found.end.saturating_sub(found.body).min(MAX_BODY_BYTES);
        (&mut *self.media).take(n_bytes).read_to_end(&mut body)?;
        Ok(body)
    }

    fn read_leaf(&mut self, kind: &[u8; 4], body: &[u8]) {
        let version = body.first().copied().unwrap_or(0);
        // In version 1 the two dates before these fields take 8 bytes each instead of 4.
        let after_dates = if version == 1 { 20 } else { 12 };
        match (kind, self.traks.last_mut()) {
            (b"mvhd", _) => self.movie_timescale = u32_at(body, after_dates),
            (b"----", _) => self.gapless = self.gapless.or_else(|| read_itun_smpb(body)),
            (b"tkhd", Some(trak)) => trak.id = u32_at(body, after_dates),
            (b"mdhd", Some(trak)) => trak.media_timescale = u32_at(body, after_dates),
            (b"hdlr", Some(trak)) => trak.is_audio |= body.get(8..12) == Some(b"soun"),
            (b"elst", Some(trak)) => trak.edit = read_elst(body, version),
            _ => {}
        }
    }
}

impl Trak {
    fn padding(
        &self,
        movie_timescale: Option<u32>,
        gapless: Option<(u64, u64)>,
    ) -> Option<Padding> {
        let track_id = self.id?;
        let media_timescale = f64::from(self.media_timescale.filter(|&scale| scale > 0)?);
        if let Some((delay, n_samples)) = gapless {
            return Some(Padding {
                track_id,
                skip_s: delay as f64 / media_timescale,
                end: PaddingEnd::Keep { keep_s: n_samples as f64 / media_timescale, unit_s: 0.0 },
            });
        }
        let movie_timescale = f64::from(movie_timescale.filter(|&scale| scale > 0)?);
        let (start, duration) = self.edit?;
        let end = match duration {
            0 => PaddingEnd::Unknown,
            duration => PaddingEnd::Keep {
                keep_s: duration as f64 / movie_timescale,
                unit_s: 1.0 / movie_timescale,
            },
        };
        Some(Padding { track_id, skip_s: start as f64 / media_timescale, end })
    }
}

/// The first edit that shows media; its length only if it is the last one as well.
fn read_elst(body: &[u8], version: u8) -> Option<(u64, u64)> {
    let n_entries = u32_at(body, 4)? as usize;
    let entry_bytes = if version == 1 { 20 } else { 12 };
    let entries = body.get(8..)?.chunks_exact(entry_bytes).take(n_entries);
    let mut edits = entries.filter_map(|entry| {
        let (duration, start) = if version == 1 {
            (u64_at(entry, 0)?, u64_at(entry, 8)? as i64)
        } else {
            (u64::from(u32_at(entry, 0)?), i64::from(u32_at(entry, 4)? as i32))
        };
        // A start of -1 is a pause before the media.
        Some((u64::try_from(start).ok()?, duration))
    });
    let (start, duration) = edits.next()?;
    Some((start, if edits.next().is_some() { 0 } else { duration }))
}

/// Reads an `iTunSMPB` tag: hexadecimal numbers, of which the second is the delay, the third
/// the padding and the fourth the number of samples between.
fn read_itun_smpb(body: &[u8]) -> Option<(u64, u64)> {
    let find = |needle: &[u8]| body.windows(needle.len()).position(|found| found == needle);
    find(b"iTunSMPB")?;
    // The value follows the type and the locale of the data box, 4 bytes each.
    let value = body.get(find(b"data")? + 12..)?;
    let text = std::str::from_utf8(value).ok()?;
    let mut numbers = text.split_ascii_whitespace().skip(1);
    let mut next = || u64::from_str_radix(numbers.next()?, 16).ok();
    let (delay, _padding, n_samples) = (next()?, next()?, next()?);
    (n_samples > 0).then_some((delay, n_samples))
}

/// Fills `buffer`; false if the file ends before.
fn read_all(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn boxed(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let mut bytes = (body.len() as u32 + 8).to_be_bytes().to_vec();
        bytes.extend(kind);
        bytes.extend(body);
        bytes
    }

    fn full(fields: &[u32]) -> Vec<u8> {
        fields.iter().flat_map(|field| field.to_be_bytes()).collect()
    }

    fn file(elst: &[u32], tag: &[u8]) -> Vec<u8> {
        let mdia = [
            boxed(b"mdhd", &full(&[0, 0, 0, 44_100, 0])),
            boxed(b"hdlr", &[&[0; 8], b"soun".as_slice(), &[0; 13]].concat()),
        ];
        let trak = [
            boxed(b"tkhd", &full(&[0, 0, 0, 7, 0])),
            boxed(b"edts", &boxed(b"elst", &full(elst))),
            boxed(b"mdia", &mdia.concat()),
        ];
        let moov = [
            boxed(b"mvhd", &full(&[0, 0, 0, 1_000, 0])),
            boxed(b"trak", &trak.concat()),
            tag.to_vec(),
        ];
        [boxed(b"ftyp", b"M4A "), boxed(b"moov", &moov.concat())].concat()
    }

    fn paddings(bytes: &[u8]) -> Vec<Padding> {
        let layout = scan(&mut Cursor::new(bytes), bytes.len() as u64).expect("memory");
        layout.paddings
    }

    #[test]
    fn the_edit_list_is_read() {
        let padding = Padding {
            track_id: 7,
            skip_s: 1_024.0 / 44_100.0,
            end: PaddingEnd::Keep { keep_s: 2.5, unit_s: 0.001 },
        };
        assert_eq!(paddings(&file(&[0, 1, 2_500, 1_024, 1 << 16], &[])), [padding]);
        let paused = [0, 2, 100, u32::MAX, 1 << 16, 2_500, 1_024, 1 << 16];
        assert_eq!(paddings(&file(&paused, &[])), [padding]);
        let twice = [0, 2, 100, 1_024, 1 << 16, 2_500, 9_000, 1 << 16];
        let open = Padding { end: PaddingEnd::Unknown, ..padding };
        assert_eq!(paddings(&file(&twice, &[])), [open]);
        assert_eq!(paddings(&file(&[0, 0], &[])), []);
    }

    #[test]
    fn the_itunes_tag_has_precedence() {
        let text = b"\0\0\0\x01\0\0\0\0 00000000 00000840 000001C4 000000000000AC44 0 0";
        let tag = [
            boxed(b"mean", b"\0\0\0\0com.apple.iTunes"),
            boxed(b"name", b"\0\0\0\0iTunSMPB"),
            boxed(b"data", text),
        ];
        let ilst = boxed(b"ilst", &boxed(b"----", &tag.concat()));
        let meta = boxed(b"meta", &[&[0; 4], ilst.as_slice()].concat());
        let bytes = file(&[0, 1, 2_500, 1_024, 1 << 16], &boxed(b"udta", &meta));
        let expected = Padding {
            track_id: 7,
            skip_s: 2_112.0 / 44_100.0,
            end: PaddingEnd::Keep { keep_s: 1.0, unit_s: 0.0 },
        };
        assert_eq!(paddings(&bytes), [expected]);
    }

    #[test]
    fn a_cut_file_is_noticed_and_no_cut_fails() {
        let bytes = file(&[0, 1, 2_500, 1_024, 1 << 16], &[]);
        let layout = |bytes: &[u8]| scan(&mut Cursor::new(bytes), bytes.len() as u64);
        assert!(!layout(&bytes).expect("memory").truncated);
        for len in 20..bytes.len() {
            assert!(layout(&bytes[..len]).expect("memory").truncated, "cut at {len}");
        }
        let behind = [bytes.as_slice(), b"\0\0\x10\0junk"].concat();
        let layout = layout(&behind).expect("memory");
        assert!(!layout.truncated);
        assert_eq!(layout.paddings.len(), 1);
    }
}
