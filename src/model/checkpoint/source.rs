//! Where the bytes of a checkpoint are: a file read at positions, or memory.
//!
//! Nothing is mapped: a file that shrinks while it is read is an error, not a signal, and the
//! pages of a file that was converted do not count as memory of the process.

use std::fs::File;
use std::io;
use std::path::Path;

/// Bytes with a known length.
#[derive(Debug)]
pub(super) enum Source {
    File { file: File, bytes: u64 },
    Memory(Vec<u8>),
    Static(&'static [u8]),
}

impl Source {
    /// Opens a file; folders, pipes and devices are refused.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        // Opening a pipe would wait for its writer: look before.
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self::File { file, bytes })
    }

    pub(super) fn len(&self) -> u64 {
        match self {
            Self::File { bytes, .. } => *bytes,
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Static(bytes) => bytes.len() as u64,
        }
    }

    /// Fills `buffer` with the bytes from `position` on.
    pub(super) fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        let memory: &[u8] = match self {
            Self::File { file, .. } => return read_file_at(file, position, buffer),
            Self::Memory(bytes) => bytes,
            Self::Static(bytes) => bytes,
        };
        let there = usize::try_from(position)
            .ok()
            .and_then(|start| memory.get(start..start.checked_add(buffer.len())?))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(there);
        Ok(())
    }

    /// `n` bytes from `position` on; checked against the length before anything is allocated.
    pub(super) fn bytes_at(&self, position: u64, n: u64) -> io::Result<Vec<u8>> {
        let end = position.checked_add(n).filter(|end| *end <= self.len());
        let n = usize::try_from(n).ok().filter(|_| end.is_some());
        let mut bytes = vec![0; n.ok_or(io::ErrorKind::UnexpectedEof)?];
        self.read_at(position, &mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(unix)]
fn read_file_at(file: &File, position: u64, buffer: &mut [u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, position)
}

#[cfg(windows)]
fn read_file_at(file: &File, mut position: u64, mut buffer: &mut [u8]) -> io::Result<()> {
    while !buffer.is_empty() {
        let n = std::os::windows::fs::FileExt::seek_read(file, buffer, position)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer = &mut buffer[n..];
        position += n as u64;
    }
    Ok(())
}
