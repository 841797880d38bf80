//! Lists of clips: tab-separated, with a header line that names the columns.

use super::DataError;
use crate::text::Language;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest list that is read.
const MAX_BYTES: u64 = 1 << 30;

/// Text column of a clip in which nobody speaks.
pub(super) const SILENCE: &str = "<silence>";

/// What is said in a clip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transcript {
    /// These words.
    Text(String),
    /// Something, but nobody wrote it down.
    Unknown,
    /// Nothing.
    Silence,
}

/// One line of a manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Clip {
    /// The file: the manifest's folder joined with the path it gives.
    pub path: PathBuf,
    /// The path as the manifest gives it.
    pub name: String,
    /// Language spoken; `None` where nobody speaks.
    pub language: Option<Language>,
    /// Speaker, if known.
    pub speaker: Option<String>,
    /// Where the clip comes from, if stated.
    pub dataset: Option<String>,
    /// Length in seconds.
    pub duration_s: f64,
    /// What is said.
    pub transcript: Transcript,
    /// Share of the rounds through its language in which training draws it, 0 to 1; a
    /// manifest does not say, so 1.
    pub weight: f64,
}

/// A table with named columns, checked to be of one width.
pub(super) struct Table<'a> {
    pub(super) columns: HashMap<&'a str, usize>,
    pub(super) rows: Vec<(usize, Vec<&'a str>)>,
}

/// A list of at most [`MAX_BYTES`].
pub(super) fn read_text(path: &Path) -> Result<String, DataError> {
    let read = |source| DataError::Read { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(read)?;
    let mut text = String::new();
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(read)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(DataError::TooLarge { path: path.to_owned(), limit: MAX_BYTES });
    }
    Ok(text)
}

impl<'a> Table<'a> {
    pub(super) fn parse(text: &'a str, path: &Path) -> Result<Self, DataError> {
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty());
        let header: Vec<&str> =
            lines.next().map_or(Vec::new(), |(_, line)| line.split('\t').collect());
        let mut rows = Vec::new();
        for (i, line) in lines {
            let fields: Vec<&str> = line.split('\t').collect();
            if fields.len() != header.len() {
                return Err(DataError::Field {
                    path: path.to_owned(),
                    line: i + 1,
                    field: "number of columns",
                    value: fields.len().to_string(),
                    expected: "that of the first line",
                });
            }
            rows.push((i + 1, fields));
        }
        let columns = header.into_iter().enumerate().map(|(i, name)| (name, i)).collect();
        Ok(Self { columns, rows })
    }

    fn required(&self, column: &'static str, path: &Path) -> Result<usize, DataError> {
        self.columns
            .get(column)
            .copied()
            .ok_or_else(|| DataError::Column { path: path.to_owned(), column })
    }
}

/// Reads a manifest.
///
/// Columns `path` (relative to the manifest's folder, or absolute), `language` (any code that
/// [`Language`] takes, `-` for none) and `duration_s` are needed; `speaker`, `dataset` and
/// `text` are used where present, other columns ignored. `-` stands for "unknown";
/// `<silence>` as text for a clip in which nobody speaks.
///
/// # Errors
/// [`DataError`] naming file, line and column.
pub fn read_manifest(path: &Path) -> Result<Vec<Clip>, DataError> {
    let text = read_text(path)?;
    parse_manifest(&text, path)
}

pub(super) fn parse_manifest(text: &str, path: &Path) -> Result<Vec<Clip>, DataError> {
    let table = Table::parse(text, path)?;
    let path_column = table.required("path", path)?;
    let language_column = table.required("language", path)?;
    let duration_column = table.required("duration_s", path)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let optional = |row: &[&str], column: &str| {
        let value = row[*table.columns.get(column)?];
        (value != "-" && !value.is_empty()).then(|| value.to_owned())
    };
    let mut seen = HashSet::new();
    let mut clips = Vec::with_capacity(table.rows.len());
    for (line, row) in &table.rows {
        let name = row[path_column];
        let field = |field, value: &str, expected| DataError::Field {
            path: path.to_owned(),
            line: *line,
            field,
            value: value.chars().take(64).collect(),
            expected,
        };
        if name.is_empty() {
            return Err(field("path", name, "a path"));
        }
        if !seen.insert(name) {
            return Err(DataError::Duplicate {
                path: path.to_owned(),
                line: *line,
                clip: name.to_owned(),
            });
        }
        let language = match row[language_column] {
            "-" => None,
            code => Some(code.parse::<Language>().map_err(|source| DataError::Language {
                path: path.to_owned(),
                line: *line,
                source,
            })?),
        };
        let duration_s = row[duration_column]
            .parse::<f64>()
            .ok()
            .filter(|d| d.is_finite() && *d >= 0.0)
            .ok_or_else(|| field("duration_s", row[duration_column], "a number of seconds"))?;
        let transcript = match optional(row, "text") {
            None => Transcript::Unknown,
            Some(text) if text == SILENCE => Transcript::Silence,
            Some(text) => Transcript::Text(text),
        };
        if language.is_none() && transcript != Transcript::Silence {
            return Err(field("language", "-", "the language of a clip with speech"));
        }
        clips.push(Clip {
            path: folder.join(name),
            name: name.to_owned(),
            language,
            speaker: optional(row, "speaker"),
            dataset: optional(row, "dataset"),
            duration_s,
            transcript,
            weight: 1.0,
        });
    }
    Ok(clips)
}

/// How a held-out clip relates to the training data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Its speaker is also in training.
    Seen,
    /// Its speaker is not.
    Unseen,
}

/// The clips held out for development, by the path their manifest gives.
#[derive(Debug, Clone, Default)]
pub struct DevList {
    conditions: BTreeMap<String, Condition>,
}

impl DevList {
    /// Reads a list with the columns `path` and `condition` (`seen` or `unseen`).
    ///
    /// # Errors
    /// [`DataError`] naming file, line and column.
    pub fn read(path: &Path) -> Result<Self, DataError> {
        let text = read_text(path)?;
        let table = Table::parse(&text, path)?;
        let (name, condition) = (table.required("path", path)?, table.required("condition", path)?);
        let mut conditions = BTreeMap::new();
        for (line, row) in &table.rows {
            let held_out = match row[condition] {
                "seen" => Condition::Seen,
                "unseen" => Condition::Unseen,
                other => {
                    return Err(DataError::Field {
                        path: path.to_owned(),
                        line: *line,
                        field: "condition",
                        value: other.chars().take(64).collect(),
                        expected: "`seen` or `unseen`",
                    });
                }
            };
            if conditions.insert(row[name].to_owned(), held_out).is_some() {
                let clip = row[name].to_owned();
                return Err(DataError::Duplicate { path: path.to_owned(), line: *line, clip });
            }
        }
        Ok(Self { conditions })
    }

    /// The condition of a clip, `None` if it is not held out.
    #[must_use]
    pub fn condition(&self, name: &str) -> Option<Condition> {
        self.conditions.get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "path\tlanguage\tspeaker\tduration_s\ttext\n";

    fn parse(rows: &str) -> Result<Vec<Clip>, DataError> {
        parse_manifest(&format!("{HEADER}{rows}"), Path::new("corpus/manifest.tsv"))
    }

    #[test]
    fn columns_mean_what_the_header_says() -> Result<(), DataError> {
        let clips =
            parse("a.ogg\ten\t-\t1.5\tHello\nb.ogg\tces\tx\t2\t-\nn.wav\t-\t-\t3\t<silence>\n")?;
        assert_eq!(clips[0].path, Path::new("corpus/a.ogg"));
        assert_eq!(clips[0].language.map(|l| l.to_string()).as_deref(), Some("eng"));
        assert_eq!(clips[0].speaker, None);
        assert_eq!(clips[0].transcript, Transcript::Text("Hello".into()));
        assert_eq!(
            (clips[1].speaker.as_deref(), &clips[1].transcript),
            (Some("x"), &Transcript::Unknown)
        );
        assert_eq!((clips[2].language, &clips[2].transcript), (None, &Transcript::Silence));
        Ok(())
    }

    #[test]
    fn every_fault_names_its_line() {
        for (rows, want) in [
            ("a\teng\t-\tlong\tx\n", "line 2: duration_s `long`"),
            ("a\teng\t-\tNaN\tx\n", "line 2: duration_s `NaN`"),
            ("a\teng\t-\t1\tx\na\teng\t-\t1\tx\n", "line 3: `a` is listed twice"),
            ("a\tqqqq\t-\t1\tx\n", "line 2"),
            ("a\t-\t-\t1\tx\n", "line 2: language `-`"),
            ("a\teng\n", "line 2: number of columns `2`"),
        ] {
            let error = parse(rows).expect_err(rows).to_string();
            assert!(error.contains(want), "{error}");
        }
        let error = parse_manifest("path\ttext\n", Path::new("m.tsv")).expect_err("no language");
        assert_eq!(error.to_string(), "`m.tsv` has no column `language` in its first line");
    }
}
