//! One file from the Hub into the cache: continued where it stopped, checked when complete.

use super::Progress;
use super::cache::io;
use super::client::{Client, FileFacts};
use super::error::HubError;
use super::repository::Repository;
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Times that a connection may fail without a byte more than before.
const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(200);
const CHUNK_BYTES: usize = 64 << 10;

/// The file that is wanted.
pub(super) struct Wanted<'a> {
    pub(super) repository: &'a Repository,
    /// The commit, or the revision where the Hub names none.
    pub(super) revision: &'a str,
    pub(super) file: &'a str,
    pub(super) facts: &'a FileFacts,
}

/// Brings the bytes of a file to `blob`.
pub(super) fn download(
    client: &Client,
    wanted: &Wanted<'_>,
    blob: &Path,
    progress: &dyn Progress,
) -> Result<(), HubError> {
    let mut partial = blob.as_os_str().to_owned();
    partial.push(".incomplete");
    let partial = PathBuf::from(partial);
    let mut file = OpenOptions::new()
        .create(true)
        .read(true)
        .write(true)
        .truncate(false)
        .open(&partial)
        .map_err(io(&partial))?;
    // Another process may be at it: wait for it, and look at what it left.
    file.lock().map_err(io(&partial))?;
    if blob.is_file() && !partial.exists() {
        return Ok(());
    }
    let mut there = file.seek(SeekFrom::End(0)).map_err(io(&partial))?;
    if wanted.facts.bytes.is_some_and(|bytes| there > bytes) {
        there = 0;
    }
    progress.start(wanted.file, wanted.facts.bytes, there);
    let got = receive(client, wanted, &mut file, &partial, there, progress)?;
    file.set_len(got).and_then(|()| file.sync_all()).map_err(io(&partial))?;
    if is_sha256(&wanted.facts.etag)
        && sha256(&mut file).map_err(io(&partial))? != wanted.facts.etag
    {
        std::fs::remove_file(&partial).map_err(io(&partial))?;
        return Err(HubError::Checksum { file: wanted.file.to_owned() });
    }
    std::fs::rename(&partial, blob).map_err(io(blob))?;
    progress.finish();
    Ok(())
}

/// Receives until the file is complete; returns its size.
fn receive(
    client: &Client,
    wanted: &Wanted<'_>,
    file: &mut File,
    partial: &Path,
    mut there: u64,
    progress: &dyn Progress,
) -> Result<u64, HubError> {
    let mut expected = wanted.facts.bytes;
    let mut most = there;
    let mut failures = 0;
    loop {
        if expected == Some(there) {
            return Ok(there);
        }
        let failure = match client.open(wanted.repository, wanted.revision, wanted.file, there) {
            Ok(mut incoming) => {
                if incoming.start != there {
                    progress.start(wanted.file, expected.or(incoming.bytes), incoming.start);
                }
                there = incoming.start;
                expected = expected.or(incoming.bytes);
                file.seek(SeekFrom::Start(there)).map_err(io(partial))?;
                let ended =
                    copy(&mut incoming.body, file, &mut there, progress).map_err(io(partial))?;
                match expected {
                    None if ended => return Ok(there),
                    Some(bytes) if bytes == there => return Ok(there),
                    Some(bytes) if there > bytes => {
                        return Err(HubError::Checksum { file: wanted.file.to_owned() });
                    }
                    _ => None,
                }
            }
            Err(error @ HubError::Connection { .. }) => Some(error),
            // Asked for what is past the end: what is there is something else.
            Err(HubError::Status { status: 416, .. }) if there > 0 => {
                there = 0;
                None
            }
            Err(error) => return Err(error),
        };
        failures = if there > most { 1 } else { failures + 1 };
        most = most.max(there);
        if failures >= ATTEMPTS {
            return Err(failure.unwrap_or(HubError::Truncated {
                file: wanted.file.to_owned(),
                got: there,
                expected: expected.unwrap_or(there),
            }));
        }
        std::thread::sleep(failures * PAUSE);
    }
}

/// Copies until the end (true) or until the connection fails (false).
fn copy(
    from: &mut dyn Read,
    to: &mut File,
    there: &mut u64,
    progress: &dyn Progress,
) -> std::io::Result<bool> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match from.read(&mut chunk) {
            Ok(0) => return Ok(true),
            Ok(n) => {
                to.write_all(&chunk[..n])?;
                *there += n as u64;
                progress.advance(n as u64);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return Ok(false),
        }
    }
}

fn is_sha256(etag: &str) -> bool {
    etag.len() == 64 && etag.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn sha256(file: &mut File) -> std::io::Result<String> {
    file.seek(SeekFrom::Start(0))?;
    let mut digest = Sha256::new();
    std::io::copy(file, &mut digest)?;
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
