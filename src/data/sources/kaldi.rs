//! Kaldi and ESPnet data directories.

use super::{SourceClip, fault, read_text, seconds};
use crate::data::DataError;
use crate::text::Language;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Lines `key value`, in order.
fn pairs<'a>(text: &'a str, path: &Path) -> Result<Vec<(usize, &'a str, &'a str)>, DataError> {
    let mut seen = HashMap::new();
    let mut pairs = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let line = line.trim();
        let (key, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        if seen.insert(key, i).is_some() {
            let clip = key.to_owned();
            return Err(DataError::Duplicate { path: path.to_owned(), line: i + 1, clip });
        }
        pairs.push((i + 1, key, value.trim()));
    }
    Ok(pairs)
}

/// The values of a file that need not be there, by key.
fn values(folder: &Path, name: &str) -> Result<HashMap<String, (usize, String)>, DataError> {
    let path = folder.join(name);
    if !path.is_file() {
        return Ok(HashMap::new());
    }
    let text = read_text(&path)?;
    let owned =
        |(line, key, value): (usize, &str, &str)| (key.to_owned(), (line, value.to_owned()));
    Ok(pairs(&text, &path)?.into_iter().map(owned).collect())
}

/// The text without `[lang]` before it, as ML-SUPERB writes, and that language.
fn tagged(text: &str) -> (Option<Language>, &str) {
    let inside = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    match inside.and_then(|(code, rest)| Some((code.parse::<Language>().ok()?, rest))) {
        Some((language, rest)) => (Some(language), rest.trim_start()),
        None => (None, text),
    }
}

/// Reads a directory.
pub(super) fn read(folder: &Path) -> Result<Vec<SourceClip>, DataError> {
    let scp = folder.join("wav.scp");
    let text = read_text(&scp)?;
    let mut recordings: Vec<(&str, PathBuf)> = Vec::new();
    for (line, key, value) in pairs(&text, &scp)? {
        if value.is_empty() || value.ends_with('|') {
            return Err(fault(&scp, line, "path", value, "a file: commands are not run"));
        }
        let path = Path::new(value);
        // Kaldi means the folder it is run from; lists that were moved mean their own.
        let path = if path.exists() { path.to_owned() } else { folder.join(path) };
        recordings.push((key, path));
    }
    let texts = values(folder, "text")?;
    let languages = values(folder, "utt2lang")?;
    let speakers = values(folder, "utt2spk")?;
    let mut durations = values(folder, "reco2dur")?;
    durations.extend(values(folder, "utt2dur")?);
    let clip =
        |name: &str, path: PathBuf, part: Option<(f64, f64)>| -> Result<SourceClip, DataError> {
            let (tag, text) = match texts.get(name) {
                Some((_, text)) => {
                    let (tag, text) = tagged(text);
                    (tag, Some(text.to_owned()).filter(|text| !text.is_empty()))
                }
                None => (None, None),
            };
            let language = match languages.get(name) {
                Some((line, code)) => Some(code.parse::<Language>().map_err(|source| {
                    DataError::Language { path: folder.join("utt2lang"), line: *line, source }
                })?),
                None => tag,
            };
            let stated = durations.get(name).and_then(|(_, value)| seconds(value));
            Ok(SourceClip {
                path,
                name: name.to_owned(),
                part,
                language,
                dataset: None,
                speaker: speakers.get(name).map(|(_, speaker)| speaker.clone()),
                duration_s: part.map(|(start, end)| end - start).or(stated),
                text,
            })
        };
    let segments = folder.join("segments");
    if !segments.is_file() {
        return recordings.into_iter().map(|(name, path)| clip(name, path, None)).collect();
    }
    let recordings: HashMap<&str, PathBuf> = recordings.into_iter().collect();
    let text = read_text(&segments)?;
    let mut clips = Vec::new();
    for (line, name, value) in pairs(&text, &segments)? {
        let fields: Vec<&str> = value.split_whitespace().collect();
        let [recording, start, end] = fields[..] else {
            return Err(fault(&segments, line, "segment", value, "recording, begin and end"));
        };
        let Some(path) = recordings.get(recording) else {
            return Err(fault(&segments, line, "recording", recording, "one of `wav.scp`"));
        };
        let part = seconds(start).zip(seconds(end)).filter(|(start, end)| start < end);
        if part.is_none() {
            return Err(fault(&segments, line, "times", value, "a begin before an end, seconds"));
        }
        clips.push(clip(name, path.clone(), part)?);
    }
    Ok(clips)
}
