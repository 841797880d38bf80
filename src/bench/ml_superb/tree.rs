//! The corpus as unpacked from its archives: `DATASET/LANGUAGE/wav/ID.wav` and four transcripts.

use super::labels::{Label, label, language_of_id};
use super::problems::{Problem, ProblemKind, Problems};
use super::published::LabelSet;
use super::{MlSuperbError, Split, TRANSCRIPTS, hugging_face};
use crate::text::Language;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Longest line of a transcript that is read.
const MAX_LINE_BYTES: usize = 1 << 20;

/// One line of a transcript.
#[derive(Debug, Clone, PartialEq)]
pub struct Utterance {
    /// `PREFIX_LANGUAGE_NUMBER`.
    pub id: String,
    /// Folder of the dataset.
    pub dataset: String,
    /// Evaluation label.
    pub language: Language,
    /// Part of the corpus.
    pub split: Split,
    /// What is said, as published; may be empty.
    pub text: String,
    /// The recording, or the file that holds it among others.
    pub audio: PathBuf,
    /// Length of a recording that had to be read anyway.
    pub seconds: Option<f64>,
}

/// The lines of a release; recordings in files of their own are not looked at.
#[derive(Debug, Clone)]
pub struct Release {
    /// The folder that holds the datasets.
    pub root: PathBuf,
    /// Labels applied.
    pub labels: LabelSet,
    /// Folders of datasets, sorted.
    pub datasets: Vec<String>,
    /// Every line of every transcript, none left out but those among the problems.
    pub utterances: Vec<Utterance>,
    /// What is wrong with it so far.
    pub(super) problems: Problems,
}

impl Release {
    /// Reads the transcripts below `root`, or below the only folder in it; or the Parquet files in it.
    ///
    /// Faults are collected, not fatal: see [`check`](fn@super::check).
    ///
    /// # Errors
    /// [`MlSuperbError::Layout`] where nothing has the layout of the corpus, [`MlSuperbError::Read`] where the system
    /// refuses, [`MlSuperbError::Parquet`] for a damaged file.
    pub fn read(root: &Path, labels: LabelSet) -> Result<Self, MlSuperbError> {
        let files = hugging_face::files(root)?;
        if !files.is_empty() {
            let mut release = hugging_face::read(root, &files, labels)?;
            release.find_overlaps();
            return Ok(release);
        }
        let root = corpus_root(root)?;
        let mut release = Self {
            root: root.clone(),
            labels,
            datasets: Vec::new(),
            utterances: Vec::new(),
            problems: Problems::default(),
        };
        for dataset in folders(&root)? {
            let path = root.join(&dataset);
            let languages = folders(&path)?;
            let is_dataset = languages.iter().any(|code| {
                path.join(code).join("wav").is_dir()
                    || TRANSCRIPTS.iter().any(|(_, file)| path.join(code).join(file).is_file())
            });
            if !is_dataset {
                let what = || format!("{dataset}: no LANGUAGE/wav or LANGUAGE/transcript in it");
                release.problems.add(ProblemKind::WrongLayout, what);
                continue;
            }
            for code in languages {
                release.read_language(&dataset, &code)?;
            }
            release.datasets.push(dataset);
        }
        release.find_overlaps();
        Ok(release)
    }

    /// What is wrong with the transcripts, faults first; recordings are looked at by
    /// [`check`](fn@super::check).
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        self.problems.clone().into_list()
    }

    fn read_language(&mut self, dataset: &str, code: &str) -> Result<(), MlSuperbError> {
        let folder = self.root.join(dataset).join(code);
        let here = format!("{dataset}/{code}");
        if label(code, Split::Test, self.labels) == Label::Unknown {
            self.problems.add(ProblemKind::UnknownLanguage, || here.clone());
        }
        let recordings = recordings(&folder.join("wav"))?;
        if recordings.is_none() {
            self.problems.add(ProblemKind::WrongLayout, || format!("{here}: no folder wav"));
        }
        let mut recordings = recordings.unwrap_or_default();
        let mut listed = HashSet::new();
        for (split, file_name) in TRANSCRIPTS {
            let path = folder.join(file_name);
            let name = || format!("{here}/{file_name}");
            let file = match std::fs::File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    self.problems.add(ProblemKind::MissingTranscript, name);
                    continue;
                }
                Err(source) => return Err(MlSuperbError::Read { path, source }),
            };
            let read = |source| MlSuperbError::Read { path: path.clone(), source };
            let mut reader = BufReader::new(file);
            let mut bytes = Vec::new();
            let mut seen = HashSet::new();
            let mut n_lines = 0;
            for number in 1.. {
                bytes.clear();
                let mut limited = reader.by_ref().take(MAX_LINE_BYTES as u64 + 1);
                if limited.read_until(b'\n', &mut bytes).map_err(read)? == 0 {
                    break;
                }
                let at = || format!("{here}/{file_name}, line {number}");
                if bytes.len() > MAX_LINE_BYTES {
                    if !bytes.ends_with(b"\n") {
                        reader.skip_until(b'\n').map_err(read)?;
                    }
                    self.problems.add(ProblemKind::MalformedLine, || format!("{}: too long", at()));
                    continue;
                }
                let Ok(line) = std::str::from_utf8(&bytes) else {
                    self.problems.add(ProblemKind::MalformedLine, || format!("{}: no UTF-8", at()));
                    continue;
                };
                if line.trim().is_empty() {
                    continue;
                }
                n_lines += 1;
                let Some((id, text)) = fields(line) else {
                    self.problems
                        .add(ProblemKind::MalformedLine, || format!("{}: one field", at()));
                    continue;
                };
                listed.insert(id.to_owned());
                if !seen.insert(id.to_owned()) {
                    self.problems.add(ProblemKind::DuplicateId, || format!("{}: {id}", at()));
                    continue;
                }
                let language = match label(code, split, self.labels) {
                    Label::Language(language) => language,
                    Label::LeftOut => {
                        self.problems.add(ProblemKind::LeftOutByLabels, || format!("{here}: {id}"));
                        continue;
                    }
                    // The folder has been named.
                    Label::Unknown => continue,
                };
                match language_of_id(id).map(|code| label(code, split, self.labels)) {
                    Some(Label::Language(of_id)) if of_id == language => {}
                    Some(Label::Language(_) | Label::LeftOut) => {
                        self.problems
                            .add(ProblemKind::LanguageMismatch, || format!("{here}: {id}"));
                    }
                    Some(Label::Unknown) | None => {
                        self.problems.add(ProblemKind::UnknownLanguage, || format!("{here}: {id}"));
                    }
                }
                if text.is_empty() {
                    self.problems.add(ProblemKind::NoText, || format!("{here}: {id}"));
                }
                let Some(file) = recordings.get(id) else {
                    self.problems.add(ProblemKind::MissingAudio, || format!("{here}: {id}"));
                    continue;
                };
                self.utterances.push(Utterance {
                    id: id.to_owned(),
                    dataset: dataset.to_owned(),
                    language,
                    split,
                    text: text.to_owned(),
                    audio: file.clone(),
                    seconds: None,
                });
            }
            if n_lines == 0 {
                self.problems.add(ProblemKind::EmptyTranscript, name);
            }
        }
        recordings.retain(|id, _| !listed.contains(id));
        for id in recordings.keys() {
            self.problems.add(ProblemKind::UnlistedAudio, || format!("{here}: {id}"));
        }
        Ok(())
    }

    /// Ids that are in training and evaluation, or in two evaluation sets; the 10 minutes are part of the hour.
    fn find_overlaps(&mut self) {
        let mut splits: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for utterance in &self.utterances {
            let part = if utterance.split.is_training() { "train" } else { utterance.split.name() };
            splits.entry(&utterance.id).or_default().insert(part);
        }
        for (id, parts) in splits.into_iter().filter(|(_, parts)| parts.len() > 1) {
            let parts: Vec<&str> = parts.into_iter().collect();
            self.problems
                .add(ProblemKind::SplitOverlap, || format!("{id}: {}", parts.join(" and ")));
        }
    }
}

/// Id and text of a line; the second field, which everybody ignores, may be last.
fn fields(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_start_matches('\u{FEFF}').trim_start().trim_end_matches(['\r', '\n']);
    let (id, rest) = line.split_once(char::is_whitespace)?;
    let rest = rest.trim_start();
    if rest.is_empty() {
        return None;
    }
    let text = rest.split_once(char::is_whitespace).map_or("", |(_, text)| text.trim());
    Some((id, text))
}

/// The folder with the datasets: `root`, or the only folder in it, as archives have it.
fn corpus_root(root: &Path) -> Result<PathBuf, MlSuperbError> {
    let holds_datasets = |root: &Path| -> Result<bool, MlSuperbError> {
        for dataset in folders(root)? {
            for code in folders(&root.join(dataset.as_str()))? {
                let folder = root.join(&dataset).join(code);
                if TRANSCRIPTS.iter().any(|(_, file)| folder.join(file).is_file()) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    };
    if holds_datasets(root)? {
        return Ok(root.to_owned());
    }
    for below in folders(root)? {
        let below = root.join(below);
        if holds_datasets(&below)? {
            return Ok(below);
        }
    }
    Err(MlSuperbError::Layout { root: root.to_owned() })
}

/// Names of the folders in a folder, sorted; hidden ones are left out.
fn folders(folder: &Path) -> Result<Vec<String>, MlSuperbError> {
    let read = |source| MlSuperbError::Read { path: folder.to_owned(), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(read)? {
        let entry = entry.map_err(read)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && entry.path().is_dir() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Recordings of a language by id; `None` without their folder.
fn recordings(folder: &Path) -> Result<Option<BTreeMap<String, PathBuf>>, MlSuperbError> {
    let read = |source| MlSuperbError::Read { path: folder.to_owned(), source };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(read(error)),
    };
    let mut found = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(read)?.path();
        let is_wav =
            path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("wav"));
        if let Some(id) = path.file_stem().and_then(|stem| stem.to_str()).filter(|_| is_wav) {
            found.insert(id.to_owned(), path.clone());
        }
    }
    Ok(Some(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_leniently() {
        assert_eq!(fields("cv_eng_1\tx\thello  there \r\n"), Some(("cv_eng_1", "hello  there")));
        assert_eq!(fields("cv_eng_1 x\n"), Some(("cv_eng_1", "")));
        assert_eq!(fields("\u{FEFF}cv_eng_1   x   a b"), Some(("cv_eng_1", "a b")));
        assert_eq!(fields("cv_eng_1 \n"), None);
        assert_eq!(fields("cv_eng_1"), None);
    }
}
