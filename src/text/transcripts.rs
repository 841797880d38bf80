//! Reading reference and hypothesis transcripts, and pairing them by utterance id.

use std::collections::{HashMap, HashSet};

use super::score::ScoreError;
use super::shortened;

/// Longest utterance that is scored; the cost of the edit distance grows with its square.
pub const MAX_UTTERANCE_CHARS: usize = 100_000;
/// Most ids named in one error.
const MAX_NAMED_IDS: usize = 10;

const ID_COLUMNS: [&str; 5] = ["utt_id", "utterance", "id", "path", "file"];
const LANGUAGE_COLUMNS: [&str; 2] = ["language", "lang"];
const TEXT_COLUMNS: [&str; 3] = ["text", "transcript", "sentence"];

/// Which of the two texts an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// What was said.
    Reference,
    /// What was recognised.
    Hypothesis,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Reference => "reference",
            Self::Hypothesis => "hypothesis",
        })
    }
}

/// Utterance ids for an error message: the first few, and how many there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedIds {
    /// The first ids, in file order, each cut to 64 characters.
    pub first: Vec<String>,
    /// How many ids there are in all.
    pub count: usize,
}

impl std::fmt::Display for NamedIds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.first.join(", "))?;
        if self.count > self.first.len() {
            write!(f, " and {} more", self.count - self.first.len())?;
        }
        Ok(())
    }
}

impl NamedIds {
    fn of<'a>(ids: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut named = Self { first: Vec::new(), count: 0 };
        for id in ids {
            named.count += 1;
            if named.first.len() < MAX_NAMED_IDS {
                named.first.push(shortened(id));
            }
        }
        (named.count > 0).then_some(named)
    }
}

/// One utterance in both texts; a body is everything after the id, usually `[lang] words`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) id: String,
    pub(super) reference: String,
    pub(super) hypothesis: String,
}

struct Entry {
    id: String,
    body: String,
}

/// Reads both texts and pairs their utterances in the order of the reference.
pub(super) fn pair(reference: &str, hypothesis: &str) -> Result<Vec<Pair>, ScoreError> {
    let references = entries(reference, Side::Reference)?;
    let hypotheses = entries(hypothesis, Side::Hypothesis)?;
    let known: HashSet<&str> = references.iter().map(|entry| entry.id.as_str()).collect();
    if let Some(ids) = NamedIds::of(
        hypotheses.iter().map(|entry| entry.id.as_str()).filter(|id| !known.contains(id)),
    ) {
        return Err(ScoreError::Extra { ids });
    }
    let mut by_id: HashMap<String, String> =
        hypotheses.into_iter().map(|entry| (entry.id, entry.body)).collect();
    if let Some(ids) = NamedIds::of(
        references.iter().map(|entry| entry.id.as_str()).filter(|id| !by_id.contains_key(*id)),
    ) {
        return Err(ScoreError::Missing { ids });
    }
    Ok(references
        .into_iter()
        .filter_map(|Entry { id, body }| {
            let hypothesis = by_id.remove(&id)?;
            Some(Pair { id, reference: body, hypothesis })
        })
        .collect())
}

/// The utterances of one text, none twice.
fn entries(text: &str, side: Side) -> Result<Vec<Entry>, ScoreError> {
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
    let entries = match Columns::of_header(text.lines().next().unwrap_or_default()) {
        Some(columns) => table_entries(text, &columns, side)?,
        None => text.lines().filter_map(line_entry).collect(),
    };
    if entries.is_empty() {
        return Err(ScoreError::Empty { side });
    }
    let mut seen = HashSet::new();
    if let Some(ids) =
        NamedIds::of(entries.iter().map(|entry| entry.id.as_str()).filter(|id| !seen.insert(*id)))
    {
        return Err(ScoreError::Duplicate { side, ids });
    }
    if let Some(entry) =
        entries.iter().find(|entry| entry.body.chars().nth(MAX_UTTERANCE_CHARS).is_some())
    {
        return Err(ScoreError::TooLong { side, id: shortened(&entry.id) });
    }
    Ok(entries)
}

/// A Kaldi-style line: id, whitespace, body; blank lines are no entries.
fn line_entry(line: &str) -> Option<Entry> {
    let line = line.trim_start();
    let (id, body) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    (!id.is_empty()).then(|| Entry { id: id.to_owned(), body: body.trim_start().to_owned() })
}

/// Where a table with a header keeps what is scored.
struct Columns {
    id: usize,
    language: Option<usize>,
    text: usize,
    n_columns: usize,
}

impl Columns {
    /// The columns of a tab-separated header that names an id and a text; anything else is no header.
    fn of_header(line: &str) -> Option<Self> {
        let names: Vec<String> = line.split('\t').map(|name| name.trim().to_lowercase()).collect();
        let find = |wanted: &[&str]| {
            wanted.iter().find_map(|name| names.iter().position(|found| found == name))
        };
        Some(Self {
            id: find(&ID_COLUMNS)?,
            language: find(&LANGUAGE_COLUMNS),
            text: find(&TEXT_COLUMNS)?,
            n_columns: names.len(),
        })
    }
}

fn table_entries(text: &str, columns: &Columns, side: Side) -> Result<Vec<Entry>, ScoreError> {
    let mut entries = Vec::new();
    for (index, line) in text.lines().enumerate().skip(1).filter(|(_, line)| !line.is_empty()) {
        let fields: Vec<&str> = line.split('\t').collect();
        if fields.len() != columns.n_columns {
            let (found, expected) = (fields.len(), columns.n_columns);
            return Err(ScoreError::Columns { side, line: index + 1, found, expected });
        }
        let text = fields[columns.text];
        let body = match columns.language.map(|column| fields[column].trim()) {
            None | Some("" | "-") => text.to_owned(),
            Some(language) => {
                let language = language.parse().map_err(|source| ScoreError::Language {
                    side,
                    line: index + 1,
                    source,
                })?;
                let _: super::Language = language;
                format!("[{language}] {text}")
            }
        };
        entries.push(Entry { id: fields[columns.id].to_owned(), body });
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bodies(reference: &str, hypothesis: &str) -> Vec<[String; 3]> {
        let pairs = pair(reference, hypothesis).expect("valid");
        pairs.into_iter().map(|pair| [pair.id, pair.reference, pair.hypothesis]).collect()
    }

    #[test]
    fn lines_and_tables_pair_by_id_in_reference_order() {
        let lines = "\u{FEFF}b [eng] two  words\r\n\n a\tx\nc\n";
        assert_eq!(
            bodies(lines, "a \nc z\nb [deu] y "),
            [["b", "[eng] two  words", "[deu] y "], ["a", "x", ""], ["c", "", "z"]]
                .map(|row| row.map(str::to_owned))
        );
        let table = "Path\tspeaker\tlanguage\ttext\na.wav\ts\ten\tHello, you\nb.wav\t-\t-\t\n";
        assert_eq!(
            bodies(table, "b.wav q\na.wav [eng] hello"),
            [["a.wav", "[eng] Hello, you", "[eng] hello"], ["b.wav", "", "q"]]
                .map(|row| row.map(str::to_owned))
        );
    }

    #[test]
    fn what_does_not_pair_is_named() {
        let message = |reference: &str, hypothesis: &str| {
            pair(reference, hypothesis).expect_err("invalid").to_string()
        };
        assert_eq!(message("", "a x"), "the reference has no utterances");
        assert_eq!(message("a x", "\n \n"), "the hypothesis has no utterances");
        assert_eq!(message("a x\na y", "a x"), "the reference lists an utterance twice: a");
        assert_eq!(
            message("a x\nb y\nc z", "b y"),
            "the hypothesis lacks utterances of the reference: a, c"
        );
        assert_eq!(
            message("a x", "a x\nd y"),
            "the hypothesis has utterances that the reference lacks: d"
        );
        let many: String = (0..25).map(|n| format!("u{n} x\n")).collect();
        let named = message(&many, "u0 x");
        assert!(named.ends_with("u9, u10 and 14 more"), "{named}");
        assert_eq!(
            message("id\ttext\na\tb\tc", "a b"),
            "line 2 of the reference has 3 columns, its header has 2"
        );
        let language = pair("id\tlang\ttext\na\tzz\tc", "a b").expect_err("invalid");
        assert_eq!(language.to_string(), "line 2 of the reference has no usable language");
        let long = "x".repeat(MAX_UTTERANCE_CHARS + 1);
        assert_eq!(
            message(&format!("a {long}"), "a"),
            "utterance `a` of the reference has more than 100000 characters"
        );
    }
}
