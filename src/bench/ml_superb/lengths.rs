//! How long recordings are.

use crate::audio::{AudioError, AudioStream, DecodeOptions};
use std::path::Path;

/// Seconds of a recording: as its header says, or by decoding where it does not; 0 without samples.
pub(super) fn seconds(path: &Path) -> Result<f64, AudioError> {
    length(AudioStream::open(path, &DecodeOptions::default()))
}

/// As [`seconds`], of a file held in memory; `name` is for messages.
pub(super) fn seconds_of_bytes(bytes: Vec<u8>, name: &str) -> Result<f64, AudioError> {
    length(AudioStream::from_bytes(bytes, name, None, &DecodeOptions::default()))
}

fn length(stream: Result<AudioStream, AudioError>) -> Result<f64, AudioError> {
    let mut stream = match stream {
        Ok(stream) => stream,
        Err(AudioError::Empty { .. }) => return Ok(0.0),
        Err(error) => return Err(error),
    };
    if let Some(seconds) = stream.source().duration_s {
        return Ok(seconds);
    }
    let mut n_samples = 0;
    loop {
        match stream.next_block() {
            Ok(Some(block)) => n_samples += block.len(),
            Ok(None) | Err(AudioError::Empty { .. }) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(n_samples as f64 / 16_000.0)
}
