//! Stored entries of a zip archive, found through its central directory.
//!
//! torch writes entries uncompressed, so a tensor is a run of bytes of the archive. Layout:
//! PKWARE APPNOTE 6.3.10, sections 4.3.7, 4.3.12 and 4.3.14 to 4.3.16. Entry names are only
//! compared, never used as paths.

use super::source::Source;
use super::stored::{Checksum, Region};
use std::collections::HashMap;
use std::sync::Arc;

/// Largest central directory that is read: far more entries than any model has tensors.
const MAX_DIRECTORY_BYTES: u64 = 64 << 20;
const END_BYTES: u64 = 22;
const END64_LOCATOR_BYTES: u64 = 20;
const END64_BYTES: u64 = 56;
const ENTRY_BYTES: usize = 46;
const LOCAL_BYTES: u64 = 30;
/// Stands in 32-bit fields whose value is in the zip64 extra field.
const IN_ZIP64: u64 = u32::MAX as u64;

/// A damaged zip archive, or one that torch did not write.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ZipError {
    /// No end record: the end of the file is missing.
    #[error("it has no zip directory; the file was cut off")]
    NoDirectory,
    /// A record that contradicts the file around it.
    #[error("its zip directory is damaged")]
    Damaged,
    /// More entries than any model has.
    #[error("its zip directory exceeds {MAX_DIRECTORY_BYTES} bytes")]
    TooLarge,
    /// Two entries of one name.
    #[error("entry `{entry}` appears twice")]
    Duplicate {
        /// Its name.
        entry: String,
    },
    /// An entry that torch would have written and is not there.
    #[error("entry `{entry}` is missing")]
    Missing {
        /// Its name.
        entry: String,
    },
    /// A compressed or encrypted entry.
    #[error("entry `{entry}` is compressed or encrypted, torch stores them plainly")]
    NotStored {
        /// Its name.
        entry: String,
    },
    /// Numbers in the other byte order.
    #[error("its byte order is `{order}`, expected `little`")]
    ByteOrder {
        /// What it says.
        order: String,
    },
    /// A pickle larger than any settings and names of tensors are.
    #[error("its pickle has {bytes} bytes, at most {limit} are read")]
    PickleSize {
        /// Its size.
        bytes: u64,
        /// The largest read.
        limit: u64,
    },
    /// The file system refused.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    stored: bool,
    crc32: u32,
    bytes: u64,
    local_header: u64,
}

/// The entries of an archive.
#[derive(Debug)]
pub(super) struct Archive {
    source: Arc<Source>,
    entries: HashMap<String, Entry>,
}

impl Archive {
    /// Reads the central directory.
    pub(super) fn open(source: Arc<Source>) -> Result<Self, ZipError> {
        let (start, bytes, n_entries) = directory(&source)?;
        if bytes > MAX_DIRECTORY_BYTES {
            return Err(ZipError::TooLarge);
        }
        let directory = source.bytes_at(start, bytes).map_err(|_| ZipError::Damaged)?;
        let mut rest = directory.as_slice();
        let mut entries = HashMap::new();
        for _ in 0..n_entries {
            let (name, entry, after) = parse_entry(rest).ok_or(ZipError::Damaged)?;
            rest = after;
            if entries.insert(name.clone(), entry).is_some() {
                return Err(ZipError::Duplicate { entry: name });
            }
        }
        Ok(Self { source, entries })
    }

    /// Names of the entries.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Where the bytes of an entry are.
    pub(super) fn region(&self, name: &str) -> Result<Region, ZipError> {
        let missing = || ZipError::Missing { entry: name.escape_debug().to_string() };
        let entry = self.entries.get(name).ok_or_else(missing)?;
        if !entry.stored {
            return Err(ZipError::NotStored { entry: name.escape_debug().to_string() });
        }
        let local = self.source.bytes_at(entry.local_header, LOCAL_BYTES);
        let local = local.map_err(|_| ZipError::Damaged)?;
        if !local.starts_with(b"PK\x03\x04") {
            return Err(ZipError::Damaged);
        }
        // The local extra field differs from the central one: torch pads with it.
        let skipped = LOCAL_BYTES + u64::from(u16_at(&local, 26)) + u64::from(u16_at(&local, 28));
        let start = entry.local_header.checked_add(skipped).ok_or(ZipError::Damaged)?;
        let end = start.checked_add(entry.bytes).ok_or(ZipError::Damaged)?;
        if end > self.source.len() {
            return Err(ZipError::Damaged);
        }
        // `torch.save` told to compute none writes 0.
        let checksum = (entry.crc32 != 0).then(|| Arc::new(Checksum::new(entry.crc32)));
        Ok(Region { source: Arc::clone(&self.source), start, bytes: entry.bytes, checksum })
    }
}

/// Position, size and number of entries of the central directory.
fn directory(source: &Source) -> Result<(u64, u64, u64), ZipError> {
    let length = source.len();
    let tail_bytes = length.min(END_BYTES + u64::from(u16::MAX));
    let tail_start = length - tail_bytes;
    let tail = source.bytes_at(tail_start, tail_bytes)?;
    let end = (0..=tail.len().saturating_sub(END_BYTES as usize))
        .rev()
        .find(|&at| tail[at..].starts_with(b"PK\x05\x06"))
        .filter(|at| tail.len() - at >= END_BYTES as usize)
        .ok_or(ZipError::NoDirectory)?;
    let record = &tail[end..];
    let mut entries = u64::from(u16_at(record, 10));
    let mut bytes = u64::from(u32_at(record, 12));
    let mut start = u64::from(u32_at(record, 16));
    let position = tail_start + end as u64;
    if let Some(at) = position.checked_sub(END64_LOCATOR_BYTES) {
        let locator = source.bytes_at(at, END64_LOCATOR_BYTES)?;
        if locator.starts_with(b"PK\x06\x07") {
            let record = source.bytes_at(u64_at(&locator, 8), END64_BYTES);
            let record = record.map_err(|_| ZipError::Damaged)?;
            if !record.starts_with(b"PK\x06\x06") {
                return Err(ZipError::Damaged);
            }
            (entries, bytes, start) =
                (u64_at(&record, 32), u64_at(&record, 40), u64_at(&record, 48));
        }
    }
    Ok((start, bytes, entries))
}

/// The entry at the start of `bytes` and what follows it.
fn parse_entry(bytes: &[u8]) -> Option<(String, Entry, &[u8])> {
    let (header, rest) = bytes.split_at_checked(ENTRY_BYTES)?;
    if !header.starts_with(b"PK\x01\x02") {
        return None;
    }
    let (flags, method) = (u16_at(header, 8), u16_at(header, 10));
    let mut packed = u64::from(u32_at(header, 20));
    let mut plain = u64::from(u32_at(header, 24));
    let mut local_header = u64::from(u32_at(header, 42));
    let (name, rest) = rest.split_at_checked(u16_at(header, 28).into())?;
    let (mut extra, rest) = rest.split_at_checked(u16_at(header, 30).into())?;
    let (_comment, rest) = rest.split_at_checked(u16_at(header, 32).into())?;
    while let Some((head, body)) = extra.split_at_checked(4) {
        let (mut body, after) = body.split_at_checked(u16_at(head, 2).into())?;
        if u16_at(head, 0) == 1 {
            for field in [&mut plain, &mut packed, &mut local_header] {
                if *field == IN_ZIP64 {
                    let (word, left) = body.split_at_checked(8)?;
                    *field = u64_at(word, 0);
                    body = left;
                }
            }
        }
        extra = after;
    }
    let stored = method == 0 && flags & 1 == 0 && packed == plain;
    let name = String::from_utf8_lossy(name).into_owned();
    Some((name, Entry { stored, crc32: u32_at(header, 16), bytes: plain, local_header }, rest))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
