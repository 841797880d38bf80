//! fairseq's manifests, and those of mHuBERT-147 with language and data set.

use super::{SourceClip, fault, read_text};
use crate::data::DataError;
use crate::text::Language;
use std::path::Path;

/// Samples per second of the audio that fairseq's manifests count.
const SAMPLE_RATE_HZ: f64 = 16_000.0;

/// Reads a manifest: the folder in the first line, then `name`, `samples` and perhaps
/// `language` and `dataset`, separated by tabs.
pub(super) fn read(text: &str, path: &Path) -> Result<Vec<SourceClip>, DataError> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let root = lines.next().map_or("", |(_, line)| line.trim());
    let folder = path.parent().unwrap_or(Path::new("."));
    let root = folder.join(root);
    let mut clips = Vec::new();
    for (i, line) in lines {
        let fields: Vec<&str> = line.split('\t').map(str::trim).collect();
        let (name, samples, rest) = match fields[..] {
            [name, samples] => (name, samples, None),
            [name, samples, language, dataset] => (name, samples, Some((language, dataset))),
            _ => {
                let expected = "2 (name, samples) or 4 (and language, dataset)";
                let found = fields.len().to_string();
                return Err(fault(path, i + 1, "number of columns", &found, expected));
            }
        };
        let Ok(count) = samples.parse::<u64>() else {
            return Err(fault(path, i + 1, "samples", samples, "a number of samples"));
        };
        let language = match rest {
            Some((code, _)) => Some(code.parse::<Language>().map_err(|source| {
                DataError::Language { path: path.to_owned(), line: i + 1, source }
            })?),
            None => None,
        };
        clips.push(SourceClip {
            path: root.join(name),
            name: name.to_owned(),
            part: None,
            language,
            dataset: rest.map(|(_, dataset)| dataset.to_owned()),
            speaker: None,
            duration_s: Some(count as f64 / SAMPLE_RATE_HZ),
            text: None,
        });
    }
    add_texts(&mut clips, path)?;
    Ok(clips)
}

/// Adds the texts beside the manifest: words of `.wrd`, else letters of `.ltr`.
fn add_texts(clips: &mut [SourceClip], path: &Path) -> Result<(), DataError> {
    let (words, letters) = (path.with_extension("wrd"), path.with_extension("ltr"));
    let (path, is_letters) = if words.is_file() {
        (words, false)
    } else if letters.is_file() {
        (letters, true)
    } else {
        return Ok(());
    };
    let text = read_text(&path)?;
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() != clips.len() {
        let found = lines.len().to_string();
        return Err(fault(&path, lines.len(), "number of lines", &found, "one for each clip"));
    }
    for (clip, line) in clips.iter_mut().zip(lines) {
        let said = if is_letters {
            line.replace(char::is_whitespace, "").replace('|', " ").trim().to_owned()
        } else {
            line.trim().to_owned()
        };
        clip.text = Some(said).filter(|said| !said.is_empty());
    }
    Ok(())
}
