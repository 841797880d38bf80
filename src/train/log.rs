//! The log of a run: one JSON object per line.

use super::TrainError;
use super::checkpoint::write_whole;
use serde_json::Value;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

const FILE: &str = "log.jsonl";

/// Appends to `log.jsonl`.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Opens the log of a run that stands at `step`: lines past it, of steps that will be
    /// done again, are dropped.
    pub(super) fn open(folder: &Path, step: u64) -> Result<Self, TrainError> {
        let path = folder.join(FILE);
        let write = |source| TrainError::Write { path: path.clone(), source };
        let kept: String = match std::fs::read_to_string(&path) {
            Ok(text) => text
                .lines()
                .filter(|line| {
                    serde_json::from_str::<Value>(line)
                        .is_ok_and(|v| v["step"].as_u64().is_some_and(|s| s <= step))
                })
                .flat_map(|line| [line, "\n"])
                .collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(write(error)),
        };
        write_whole(&path, kept.as_bytes())?;
        let file = File::options().append(true).open(&path).map_err(write)?;
        Ok(Self { path, file })
    }

    pub(super) fn write(&mut self, line: &Value) -> Result<(), TrainError> {
        writeln!(self.file, "{line}")
            .map_err(|source| TrainError::Write { path: self.path.clone(), source })
    }
}
