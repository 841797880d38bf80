//! Tables with a header line.

use super::{SourceClip, fault, seconds};
use crate::data::DataError;
use crate::data::manifest::Table;
use crate::text::Language;
use std::path::Path;

/// Names of the columns, ours first, then those of others.
const PATH: &[&str] = &["path", "audio", "file", "filename", "wav"];
const LANGUAGE: &[&str] = &["language", "lang", "locale"];
const SPEAKER: &[&str] = &["speaker", "speaker_id", "client_id"];
const DURATION: &[&str] = &["duration_s", "duration"];
const TEXT: &[&str] = &["text", "sentence", "transcript", "transcription"];

/// Reads a table; audio lies beside it, or beside it in `clips/` as in Common Voice.
pub(super) fn read(text: &str, path: &Path) -> Result<Vec<SourceClip>, DataError> {
    let table = Table::parse(text, path)?;
    let column = |names: &[&str]| names.iter().find_map(|name| table.columns.get(name).copied());
    let Some(audio) = column(PATH) else {
        return Err(DataError::Column { path: path.to_owned(), column: "path" });
    };
    let [language, speaker, duration, text] = [LANGUAGE, SPEAKER, DURATION, TEXT].map(column);
    let dataset = column(&["dataset"]);
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut clips = Vec::with_capacity(table.rows.len());
    for (line, row) in &table.rows {
        let value = |column: Option<usize>| {
            column.map(|column| row[column].trim()).filter(|v| !v.is_empty() && *v != "-")
        };
        let Some(name) = value(Some(audio)) else {
            return Err(fault(path, *line, "path", row[audio], "a path"));
        };
        let language =
            match value(language) {
                Some(code) => Some(code.parse::<Language>().map_err(|source| {
                    DataError::Language { path: path.to_owned(), line: *line, source }
                })?),
                None => None,
            };
        let duration_s = match value(duration) {
            Some(text) => Some(
                seconds(text)
                    .ok_or_else(|| fault(path, *line, "duration_s", text, "a number of seconds"))?,
            ),
            None => None,
        };
        let beside = folder.join(name);
        let in_clips = folder.join("clips").join(name);
        clips.push(SourceClip {
            path: if !beside.exists() && in_clips.exists() { in_clips } else { beside },
            name: name.to_owned(),
            part: None,
            language,
            dataset: value(dataset).map(str::to_owned),
            speaker: value(speaker).map(str::to_owned),
            duration_s,
            text: value(text).map(str::to_owned),
        });
    }
    Ok(clips)
}
