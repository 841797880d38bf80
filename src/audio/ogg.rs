//! Where an Ogg stream ends, which the demultiplexer does not find out in damaged files.

use std::io::{self, Read, Seek, SeekFrom};

/// Longest page: header, 255 lengths and 255 segments of 255 bytes (RFC 3533, section 6).
const MAX_PAGE_BYTES: u64 = 27 + 255 + 255 * 255;

/// The end of a file that holds a single logical stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct OggEnd {
    /// Serial number of the stream.
    pub(super) serial: u32,
    /// Granule position of its last page: for audio codecs the number of frames before its
    /// end, the pre-skip of Opus included.
    pub(super) granule: u64,
}

/// Reads the first and the last page header of a file of `len` bytes; `None` if they are of
/// different streams, as in a chained file, or the last cannot be found.
///
/// # Errors
/// Only if reading fails.
pub(super) fn scan(media: &mut (impl Read + Seek), len: u64) -> io::Result<Option<OggEnd>> {
    let first = read_at(media, 0, 27)?;
    let start = len.saturating_sub(MAX_PAGE_BYTES);
    let last = read_at(media, start, MAX_PAGE_BYTES)?;
    let end = (0..last.len()).rev().find_map(|at| page_end(&last[at..]));
    let first_serial = page_end(&first).map(|page| page.serial);
    Ok(end.filter(|end| Some(end.serial) == first_serial))
}

fn read_at(media: &mut (impl Read + Seek), at: u64, n_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    media.seek(SeekFrom::Start(at))?;
    media.take(n_bytes).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The fields of the page header at the start of `bytes`.
fn page_end(bytes: &[u8]) -> Option<OggEnd> {
    let header = bytes.strip_prefix(b"OggS\0")?.get(..22)?;
    let granule = i64::from_le_bytes(header[1..9].try_into().ok()?);
    Some(OggEnd {
        serial: u32::from_le_bytes(header[9..13].try_into().ok()?),
        // -1 marks a page on which no packet ends.
        granule: u64::try_from(granule).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn page(serial: u32, granule: i64, body: &[u8]) -> Vec<u8> {
        let mut bytes = b"OggS\0\0".to_vec();
        bytes.extend(granule.to_le_bytes());
        bytes.extend(serial.to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend([1, body.len() as u8]);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn the_last_page_with_a_position_is_found() {
        let end = |serial, granule| Some(OggEnd { serial, granule });
        let pages = |pages: &[Vec<u8>]| {
            let bytes = pages.concat();
            scan(&mut Cursor::new(&bytes), bytes.len() as u64).expect("memory")
        };
        let (first, last) = (page(7, 0, b"a"), page(7, 960, b"OggS"));
        assert_eq!(pages(&[first.clone(), last.clone()]), end(7, 960));
        let unfinished = page(7, -1, b"b");
        assert_eq!(pages(&[first.clone(), last.clone(), unfinished]), end(7, 960));
        let chained = page(8, 480, b"c");
        assert_eq!(pages(&[first.clone(), last, chained]), None);
        let filler = page(7, 1, &[0; 200]).repeat(400);
        assert_eq!(pages(&[first.clone(), filler]), end(7, 1));
        assert_eq!(pages(&[first[..20].to_vec()]), None);
    }
}
