//! Event files that TensorBoard shows: the numbers of the log as curves.
//!
//! A file is a sequence of records, each `length u64, crc(length) u32, data, crc(data) u32`,
//! little-endian (tensorflow `lib/io/record_writer.h`); the data are protocol buffers of
//! `Event` (`core/util/event.proto`). The checksum is CRC-32C, rotated and shifted so that
//! checksums of checksums stay sound.

use serde_json::Value;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Name of the file: TensorBoard looks for `tfevents`.
const FILE: &str = "events.out.tfevents.0.asr";
/// Added to a rotated checksum.
const MASK: u32 = 0xa282_ead8;

/// The event file of a run.
#[derive(Debug)]
pub(super) struct Events {
    file: File,
}

impl Events {
    /// Writes the file anew with the lines of a log, and goes on from there.
    pub(super) fn create(folder: &Path, lines: &[Value]) -> io::Result<Self> {
        let mut file = File::create(folder.join(FILE))?;
        let mut version = Vec::new();
        field(&mut version, 3, b"brain.Event:2");
        record(&mut file, &event(0, &version))?;
        let mut events = Self { file };
        for line in lines {
            events.write(line)?;
        }
        Ok(events)
    }

    /// Adds the numbers of a line of the log at its step.
    pub(super) fn write(&mut self, line: &Value) -> io::Result<()> {
        let step = line["step"].as_u64().unwrap_or(0);
        let mut values = Vec::new();
        scalars("", line, &mut values);
        let mut summary = Vec::new();
        for (tag, value) in values {
            let mut scalar = Vec::new();
            field(&mut scalar, 1, tag.as_bytes());
            // Field 2, four bytes.
            scalar.push(2 << 3 | 5);
            scalar.extend((value as f32).to_le_bytes());
            field(&mut summary, 1, &scalar);
        }
        let mut data = Vec::new();
        field(&mut data, 5, &summary);
        record(&mut self.file, &event(step, &data))
    }
}

/// The numbers of a line by their path, such as `dev/heads/40ms/accuracy`.
fn scalars(prefix: &str, value: &Value, into: &mut Vec<(String, f64)>) {
    let Some(entries) = value.as_object() else { return };
    for (key, value) in entries {
        if prefix.is_empty() && key == "step" {
            continue;
        }
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}/{key}") };
        match value.as_f64() {
            Some(number) => into.push((name, number)),
            None => scalars(&name, value, into),
        }
    }
}

/// An event now: field 1 the time, field 2 the step, and what `data` adds.
fn event(step: u64, data: &[u8]) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64());
    let mut event = vec![1 << 3 | 1];
    event.extend(now.to_le_bytes());
    event.push(2 << 3);
    varint(&mut event, step);
    event.extend_from_slice(data);
    event
}

/// A field of bytes.
fn field(message: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    message.push(number << 3 | 2);
    varint(message, bytes.len() as u64);
    message.extend_from_slice(bytes);
}

/// Seven bits a byte, lowest first.
fn varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

fn record(file: &mut File, data: &[u8]) -> io::Result<()> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + 16);
    record.extend(length);
    record.extend(masked(crc32c(&length)).to_le_bytes());
    record.extend_from_slice(data);
    record.extend(masked(crc32c(data)).to_le_bytes());
    file.write_all(&record)
}

fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(MASK)
}

/// CRC-32C (Castagnoli; RFC 3720, appendix B.4), bit by bit: records are short.
fn crc32c(bytes: &[u8]) -> u32 {
    let of_byte = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    };
    !bytes.iter().fold(u32::MAX, of_byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn checksums_are_those_of_the_standard() {
        // RFC 3720, B.4: 32 bytes of zeros, of ones, rising.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn records_hold_what_the_log_says() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = json!({ "step": 300, "loss": 1.5 });
        let mut events = Events::create(folder.path(), &[first]).expect("written");
        events
            .write(&json!({ "step": 301, "dev": { "heads": { "40ms": { "accuracy": 0.25 } } } }))
            .expect("written");
        let bytes = std::fs::read(folder.path().join(FILE)).expect("a file");
        let mut rest = bytes.as_slice();
        let mut records = Vec::new();
        while !rest.is_empty() {
            let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().expect("four"));
            let n = u64::from_le_bytes(rest[..8].try_into().expect("eight")) as usize;
            assert_eq!(word(8), masked(crc32c(&rest[..8])));
            let data = rest[12..12 + n].to_vec();
            assert_eq!(word(12 + n), masked(crc32c(&data)));
            records.push(data);
            rest = &rest[16 + n..];
        }
        assert_eq!(records.len(), 3);
        assert!(records[0].ends_with(b"brain.Event:2"));
        // The step is field 2 behind nine bytes of time: 300 = 0b10_0101100.
        assert_eq!(records[1][9..12], [16, 0xac, 2]);
        let mut scalar = vec![10, 4];
        scalar.extend(b"loss");
        scalar.push(21);
        scalar.extend(1.5_f32.to_le_bytes());
        assert!(records[1].ends_with(&scalar));
        let name = b"dev/heads/40ms/accuracy";
        assert!(records[2].windows(name.len()).any(|w| w == name));
    }
}
