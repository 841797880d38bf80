//! Results as text and JSON.

use super::failure::{AnyError, CliError, chain};
use super::input::Input;
use super::model::LoadedModel;
use super::recognise::{InputError, Recognised};
use crate::decode::{ScoredLanguage, SegmentText};
use crate::files;
use crate::model::GeoPoint;
use crate::text::TimedWord;
use clap::ValueEnum;
use serde::Serialize;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Languages listed per file in JSON.
const LISTED: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// One line per file: language and text
    Text,
    /// A JSON array with one object per file
    Json,
    /// One JSON object per line, written as files are done
    Jsonl,
}

/// A language with its name and probability.
#[derive(Debug, Serialize)]
pub(super) struct LanguageEntry {
    code: String,
    name: Option<&'static str>,
    score: f64,
}

impl From<&ScoredLanguage> for LanguageEntry {
    fn from(language: &ScoredLanguage) -> Self {
        Self {
            code: language.code.to_string(),
            name: language.code.name(),
            score: rounded(language.score),
        }
    }
}

/// A place, degrees.
#[derive(Debug, Serialize)]
pub(super) struct LocationEntry {
    lat: f64,
    lon: f64,
}

impl From<GeoPoint> for LocationEntry {
    fn from(place: GeoPoint) -> Self {
        // A tenth of a degree is finer than any such guess.
        let [lat, lon] = [place.latitude, place.longitude].map(|v| (v * 10.0).round() / 10.0);
        Self { lat, lon }
    }
}

#[derive(Debug, Serialize)]
struct SegmentEntry<'a> {
    start_s: f64,
    end_s: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    language: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    language_score: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    words: Option<Vec<WordEntry<'a>>>,
}

#[derive(Debug, Serialize)]
struct WordEntry<'a> {
    word: &'a str,
    start_s: f64,
    end_s: f64,
    score: f64,
}

impl<'a> From<&'a TimedWord> for WordEntry<'a> {
    fn from(word: &'a TimedWord) -> Self {
        Self {
            word: &word.word,
            start_s: seconds(word.start_s),
            end_s: seconds(word.end_s),
            score: rounded(word.score),
        }
    }
}

/// What of a segment is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    /// The text.
    Text,
    /// The text, word by word too.
    Words,
    /// The language alone.
    Language,
}

fn segment_entry(
    (start, end, segment): &(f64, f64, SegmentText),
    detail: Detail,
) -> SegmentEntry<'_> {
    let language = segment.languages.first();
    let with_text = detail != Detail::Language;
    SegmentEntry {
        start_s: seconds(*start),
        end_s: seconds(*end),
        text: with_text.then_some(&segment.text),
        language: language.map(|l| l.code.to_string()),
        language_score: language.filter(|_| !with_text).map(|l| rounded(l.score)),
        score: with_text.then(|| rounded(segment.score)),
        words: (detail == Detail::Words).then(|| segment.words.iter().map(Into::into).collect()),
    }
}

/// Stretches of one language each.
fn stretches(found: &Recognised) -> Vec<SegmentEntry<'static>> {
    let changes = found.transcription.language_changes(found.duration_s);
    let entry = |(start, end, language): &(f64, f64, Option<ScoredLanguage>)| SegmentEntry {
        start_s: seconds(*start),
        end_s: seconds(*end),
        text: None,
        language: language.map(|l| l.code.to_string()),
        language_score: language.map(|l| rounded(l.score)),
        score: None,
        words: None,
    };
    changes.iter().map(entry).collect()
}

/// A segment of an input that still goes on, as JSON: `"partial": true` tells it from the result.
pub(super) fn segment_json(
    input: &Input,
    segment: &(f64, f64, SegmentText),
    detail: Detail,
) -> Result<serde_json::Value, AnyError> {
    #[derive(Serialize)]
    struct PartialEntry<'a> {
        schema: u32,
        file: String,
        partial: bool,
        #[serde(flatten)]
        segment: SegmentEntry<'a>,
    }
    Ok(serde_json::to_value(PartialEntry {
        schema: 1,
        file: input.name(),
        partial: true,
        segment: segment_entry(segment, detail),
    })?)
}

/// Identity of the model behind a result.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ModelEntry {
    name: String,
    sha256: String,
}

impl ModelEntry {
    pub(super) fn new(model: &LoadedModel) -> Result<Self, AnyError> {
        Ok(Self { name: model.name.clone(), sha256: model.sha256()? })
    }
}

/// One file's result; the layout of schema 1.
#[derive(Debug, Serialize)]
struct FileEntry<'a> {
    schema: u32,
    file: String,
    duration_s: f64,
    language: Option<String>,
    language_score: Option<f64>,
    languages: Vec<LanguageEntry>,
    /// Where on the map the voice points; null for models without a head for it.
    location: Option<LocationEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    segments: Option<Vec<SegmentEntry<'a>>>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    warnings: &'a [String],
    model: &'a ModelEntry,
}

#[derive(Debug, Serialize)]
struct FailedEntry {
    file: String,
    error: String,
}

/// Four decimals: what probabilities are worth.
pub(super) fn rounded(score: f64) -> f64 {
    (score * 1e4).round() / 1e4
}

/// Milliseconds: finer than any frame.
pub(super) fn seconds(time: f64) -> f64 {
    (time * 1e3).round() / 1e3
}

/// The result of one input as JSON, with what `detail` says of its segments, if anything; below
/// a score of `threshold` the language is unknown.
pub(super) fn json(
    input: &Input,
    result: &Result<Recognised, InputError>,
    listed: Option<usize>,
    detail: Option<Detail>,
    threshold: f64,
    model: &ModelEntry,
) -> Result<serde_json::Value, AnyError> {
    let found = match result {
        Ok(found) => found,
        Err(error) => {
            return Ok(serde_json::to_value(FailedEntry {
                file: input.name(),
                error: chain(error),
            })?);
        }
    };
    let transcription = &found.transcription;
    let best = transcription.language(threshold);
    let with_text = detail.is_some_and(|detail| detail != Detail::Language);
    Ok(serde_json::to_value(FileEntry {
        schema: 1,
        file: input.name(),
        duration_s: seconds(found.duration_s),
        language: best.map(|l| l.code.to_string()),
        language_score: best.map(|l| rounded(l.score)),
        languages: transcription
            .languages
            .iter()
            .take(listed.unwrap_or(LISTED))
            .map(Into::into)
            .collect(),
        location: transcription.location().map(Into::into),
        text: with_text.then(|| transcription.text()),
        segments: detail.map(|detail| match detail {
            Detail::Language => stretches(found),
            _ => transcription.segments.iter().map(|s| segment_entry(s, detail)).collect(),
        }),
        warnings: &found.warnings,
        model,
    })?)
}

/// Standard output or a file that appears under its name only when it is complete.
pub(super) enum Output {
    Stdout,
    File { path: PathBuf, file: BufWriter<File> },
}

impl Output {
    pub(super) fn create(path: Option<&Path>) -> Result<Self, CliError> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            return Ok(Self::Stdout);
        };
        let write = |source| CliError::Write { path: path.to_owned(), source };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(write)?;
        }
        let file = BufWriter::new(File::create(files::partial(path)).map_err(write)?);
        Ok(Self::File { path: path.to_owned(), file })
    }

    /// Writes `text` and makes it visible to whoever reads along.
    pub(super) fn write(&mut self, text: &str) -> Result<(), AnyError> {
        match self {
            Self::Stdout => Ok(write_stdout(text.as_bytes())?),
            Self::File { path, file, .. } => Ok(file
                .write_all(text.as_bytes())
                .and_then(|()| file.flush())
                .map_err(|source| CliError::Write { path: path.clone(), source })?),
        }
    }

    pub(super) fn finish(self) -> Result<(), CliError> {
        let Self::File { path, file } = self else { return Ok(()) };
        let write = |source| CliError::Write { path: path.clone(), source };
        drop(file.into_inner().map_err(|e| write(e.into_error()))?);
        files::put_in_place(&path).map_err(write)
    }
}

/// Writes to standard output at once.
pub(super) fn write_stdout(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}
