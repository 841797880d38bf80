//! Finding audio files.

use std::path::{Path, PathBuf};

use crate::audio::AudioError;

/// Extensions of the files that [`audio_files`] lists, in lower case.
pub const AUDIO_EXTENSIONS: &[&str] = &[
    "aac", "aif", "aifc", "aiff", "alac", "caf", "flac", "m4a", "m4b", "mka", "mkv", "mov", "mp1",
    "mp2", "mp3", "mp4", "oga", "ogg", "opus", "wav", "wave", "webm",
];

/// Lists the audio files of a directory, by extension in any case, sorted by path.
/// Hidden files are left out; symbolic links to files are followed, those to directories
/// are not, so that a cycle cannot trap a recursive listing.
///
/// # Errors
/// [`AudioError::List`] if the directory, or one below it, cannot be read.
pub fn audio_files(dir: &Path, recursive: bool) -> Result<Vec<PathBuf>, AudioError> {
    let mut found = Vec::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(dir) = waiting.pop() {
        let list_error = |source| AudioError::List { path: dir.clone(), source };
        for entry in std::fs::read_dir(&dir).map_err(list_error)? {
            let entry = entry.map_err(list_error)?;
            let path = entry.path();
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let kind = entry.file_type().map_err(list_error)?;
            if kind.is_dir() {
                if recursive {
                    waiting.push(path);
                }
            } else if has_audio_extension(&path) && (kind.is_file() || path.is_file()) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn has_audio_extension(path: &Path) -> bool {
    path.extension().and_then(|extension| extension.to_str()).is_some_and(|extension| {
        AUDIO_EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(extension))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_sorted_and_filtered() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let below = dir.path().join("below.wav");
        std::fs::create_dir(&below).expect("create");
        for name in ["b.WAV", "a.mp3", "notes.txt", ".hidden.wav", "none"] {
            std::fs::write(dir.path().join(name), b"x").expect("write");
        }
        std::fs::write(below.join("c.opus"), b"x").expect("write");
        let names = |recursive| -> Vec<String> {
            audio_files(dir.path(), recursive)
                .expect("listing works")
                .iter()
                .map(|path| {
                    let relative = path.strip_prefix(dir.path()).expect("below the directory");
                    relative.display().to_string()
                })
                .collect()
        };
        assert_eq!(names(false), ["a.mp3", "b.WAV"]);
        assert_eq!(names(true), ["a.mp3", "b.WAV", "below.wav/c.opus"]);
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        let missing = Path::new("no/such/directory");
        assert!(matches!(audio_files(missing, false), Err(AudioError::List { .. })));
    }
}
