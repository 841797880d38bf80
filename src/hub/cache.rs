//! The cache on disk, in the layout of Python's `huggingface_hub`.
//!
//! `refs/REVISION` holds a commit, `snapshots/COMMIT/FILE` links to `blobs/ETAG`.

use super::error::HubError;
use super::repository::{Repository, is_plain_path};
use std::fs;
use std::path::{Path, PathBuf};

/// Longest name of a commit or blob.
const MAX_NAME: usize = 128;

/// The folder of one model in the cache.
pub(super) struct CachedModel {
    folder: PathBuf,
    revision: String,
}

pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> HubError {
    let path = path.to_owned();
    |source| HubError::Io { path, source }
}

/// Whether the Hub may name a file of the cache so.
pub(super) fn is_plain_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    !name.is_empty() && name.len() <= MAX_NAME && name.chars().all(allowed)
}

impl CachedModel {
    pub(super) fn new(cache: &Path, repository: &Repository) -> Self {
        let folder = cache.join(format!("models--{}", repository.name.replace('/', "--")));
        Self { folder, revision: repository.revision.clone() }
    }

    /// The snapshot of the revision, if one was downloaded.
    pub(super) fn snapshot(&self) -> Option<PathBuf> {
        let named = fs::read_to_string(self.folder.join("refs").join(&self.revision)).ok();
        let commit = named.as_deref().map_or(self.revision.as_str(), str::trim);
        let snapshot = self.folder.join("snapshots").join(commit);
        (is_plain_name(commit) && snapshot.is_dir()).then_some(snapshot)
    }

    /// Where the files of a commit are or will be.
    pub(super) fn snapshot_of(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// Remembers what the revision stands for.
    pub(super) fn set_revision(&self, commit: &str) -> Result<(), HubError> {
        if self.revision == commit {
            return Ok(());
        }
        let path = self.folder.join("refs").join(&self.revision);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(io(parent))?;
        }
        let partial = path.with_extension(format!("{}.partial", std::process::id()));
        fs::write(&partial, commit).map_err(io(&partial))?;
        fs::rename(&partial, &path).map_err(io(&path))
    }

    /// Where the bytes of an etag are or will be; makes the folder.
    pub(super) fn blob(&self, etag: &str) -> Result<PathBuf, HubError> {
        let blobs = self.folder.join("blobs");
        fs::create_dir_all(&blobs).map_err(io(&blobs))?;
        Ok(blobs.join(etag))
    }

    /// Puts a blob into a snapshot under the name of its file.
    pub(super) fn link(&self, commit: &str, file: &str, blob: &Path) -> Result<(), HubError> {
        debug_assert!(is_plain_path(file));
        let path = self.snapshot_of(commit).join(file);
        if path.exists() {
            return Ok(());
        }
        let parent = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(parent).map_err(io(parent))?;
        // A link whose blob is gone is in the way of the new one.
        if path.symlink_metadata().is_ok() {
            fs::remove_file(&path).map_err(io(&path))?;
        }
        let mut target = PathBuf::from("../..");
        target.extend(file.split('/').skip(1).map(|_| ".."));
        target.push("blobs");
        target.extend(blob.file_name());
        if symlink(&target, &path).is_ok() {
            return Ok(());
        }
        // File systems without links keep the file itself, as Python does.
        fs::rename(blob, &path).map_err(io(&path))
    }
}

#[cfg(unix)]
fn symlink(target: &Path, path: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

#[cfg(windows)]
fn symlink(target: &Path, path: &Path) -> std::io::Result<()> {
    std::os::windows::fs::symlink_file(target, path)
}
