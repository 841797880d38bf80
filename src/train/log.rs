//! The log of a run: one JSON object per line, and its numbers for TensorBoard.

use super::TrainError;
use super::checkpoint::write_whole;
use super::tensorboard::Events;
use serde_json::Value;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

const FILE: &str = "log.jsonl";

/// Appends to `log.jsonl` and to the event file.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    events: Events,
}

impl Log {
    /// Opens the log of a run that stands at `step`: lines past it, of steps that will be
    /// done again, are dropped.
    pub(super) fn open(folder: &Path, step: u64) -> Result<Self, TrainError> {
        let path = folder.join(FILE);
        let write = |source| TrainError::Write { path: path.clone(), source };
        let kept: Vec<Value> = match std::fs::read_to_string(&path) {
            Ok(text) => text
                .lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok())
                .filter(|line| line["step"].as_u64().is_some_and(|s| s <= step))
                .collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(write(error)),
        };
        let text: String = kept.iter().map(|line| format!("{line}\n")).collect();
        write_whole(&path, text.as_bytes())?;
        let file = File::options().append(true).open(&path).map_err(write)?;
        let events = Events::create(folder, &kept).map_err(write)?;
        Ok(Self { path, file, events })
    }

    pub(super) fn write(&mut self, line: &Value) -> Result<(), TrainError> {
        writeln!(self.file, "{line}")
            .and_then(|()| self.events.write(line))
            .map_err(|source| TrainError::Write { path: self.path.clone(), source })
    }
}
