//! Files that are there whole or not at all: written under another name, synced, renamed.
//!
//! The layer knows nothing of what is in them. A kill or a full disk leaves the file of before as
//! it was, and beside it what was written of the new one.

use std::fs::File;
use std::io::{Result, Write};
use std::path::{Path, PathBuf};

/// The name of a file until it is whole: its own with `.partial` behind it. What is no file, such
/// as `/dev/null` or a pipe, is written to as it is: no other may take its place.
#[must_use]
pub fn partial(path: &Path) -> PathBuf {
    if std::fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir()) {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

/// Gives `path` the file under its [`partial`] name, once that is safe on the disk.
///
/// # Errors
/// If the file is not there, or cannot be synced or renamed.
pub fn put_in_place(path: &Path) -> Result<()> {
    let partial = partial(path);
    if partial == path {
        return Ok(());
    }
    File::options().append(true).open(&partial)?.sync_all()?;
    std::fs::rename(partial, path)
}

/// Writes `bytes` as the file at `path`.
///
/// # Errors
/// If the file cannot be written, synced or renamed.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    File::create(partial(path))?.write_all(bytes)?;
    put_in_place(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_the_old_one_until_the_new_one_is_whole() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("a.b");
        write_whole(&path, b"old")?;
        std::fs::write(partial(&path), b"new, bu")?;
        assert_eq!(std::fs::read(&path)?, b"old");
        write_whole(&path, b"new")?;
        assert_eq!(std::fs::read(&path)?, b"new");
        assert_eq!(std::fs::read_dir(folder.path())?.count(), 1, "nothing else stays");
        assert!(put_in_place(&path).is_err(), "there is nothing to put in place");
        Ok(())
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_keeps_its_place() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("socket");
        let _socket = std::os::unix::net::UnixListener::bind(&path)?;
        assert_eq!(partial(&path), path);
        put_in_place(&path)?;
        assert!(!std::fs::metadata(&path)?.is_file());
        Ok(())
    }
}
