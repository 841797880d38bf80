//! ML-SUPERB 1.0: text preparation and scores per group of languages.

use std::collections::BTreeMap;

use serde::Serialize;

use super::score::{ScoreError, UtteranceScore, share};
use super::transcripts::Pair;
use super::{EditCounts, edit_counts, shortened};

/// The languages with five training utterances (ESPnet `egs2/ml_superb/asr1/local/split_results.py`).
pub const RESERVED_LANGUAGES: [&str; 20] = [
    "bos", "ceb", "dan", "epo", "frr", "ful", "kaz", "kea", "lit", "luo", "srp", "sun", "tok",
    "tos", "tsn", "tso", "tur", "umb", "vie", "zul",
];

/// Scores of ML-SUPERB 1.0, pooled within groups.
///
/// Characters are compared as they stand, every space of the line included (the recipe prepares its texts with
/// [`normalise_ml_superb`]); tags are removed, the space after a tag stays and counts on both sides. Edits are minimal;
/// sclite's weights can find a few more.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MlSuperbReport {
    /// Languages trained on in full ("normal"); `None` without utterances.
    pub trained: Option<MlSuperbGroup>,
    /// Languages with five training utterances ("few-shot"); `None` without utterances.
    pub reserved: Option<MlSuperbGroup>,
    /// The same by language, from the id.
    pub per_language: BTreeMap<String, MlSuperbGroup>,
}

/// Pooled scores of a group of languages.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MlSuperbGroup {
    /// Errors over reference characters, spaces included.
    pub cer: Option<f64>,
    /// Share of utterances whose first tag is right; `None` if no reference in the text has a tag.
    pub lid_accuracy: Option<f64>,
    /// Number of utterances.
    pub utterances: usize,
    /// Character errors.
    pub errors: usize,
    /// Reference characters.
    pub reference_tokens: usize,
    /// Utterances whose first tag is right.
    pub lid_correct: usize,
}

#[derive(Default)]
struct Tally {
    characters: EditCounts,
    utterances: usize,
    lid_correct: usize,
}

impl Tally {
    fn group(&self, with_tags: bool) -> MlSuperbGroup {
        MlSuperbGroup {
            cer: self.characters.rate(),
            lid_accuracy: share(self.lid_correct, self.utterances).filter(|_| with_tags),
            utterances: self.utterances,
            errors: self.characters.errors(),
            reference_tokens: self.characters.reference,
            lid_correct: self.lid_correct,
        }
    }
}

/// Scores all pairs; the language is the second-to-last part of the id.
///
/// References hold exactly one tag each (joint recognition and identification), or none at all (recognition alone).
pub(super) fn score(pairs: &[Pair]) -> Result<(MlSuperbReport, Vec<UtteranceScore>), ScoreError> {
    let mut utterances = Vec::with_capacity(pairs.len());
    let with_tags = pairs.iter().any(|pair| first_tag(&pair.reference).is_some());
    let mut groups = [Tally::default(), Tally::default()];
    let mut by_language: BTreeMap<String, Tally> = BTreeMap::new();
    for pair in pairs {
        let language = language_of_id(&pair.id)
            .ok_or_else(|| ScoreError::UtteranceId { id: shortened(&pair.id) })?;
        let (reference_tags, reference) = untagged(&pair.reference);
        let (_, hypothesis) = untagged(&pair.hypothesis);
        if with_tags && reference_tags != 1 {
            return Err(ScoreError::ReferenceTag { id: shortened(&pair.id) });
        }
        let characters = edit_counts(&reference, &hypothesis);
        let correct = with_tags && first_tag(&pair.hypothesis) == first_tag(&pair.reference);
        utterances.push(UtteranceScore {
            id: pair.id.clone(),
            language: Some(language.to_owned()),
            predicted: first_tag(&pair.hypothesis)
                .map(|tag| language_of_tag(tag).to_owned())
                .filter(|_| with_tags),
            errors: characters.errors(),
            characters: characters.reference,
        });
        let reserved = RESERVED_LANGUAGES.contains(&language);
        for tally in [
            &mut groups[usize::from(reserved)],
            by_language.entry(language.to_owned()).or_default(),
        ] {
            tally.characters += characters;
            tally.utterances += 1;
            tally.lid_correct += usize::from(correct);
        }
    }
    let [trained, reserved] =
        groups.map(|tally| (tally.utterances > 0).then(|| tally.group(with_tags)));
    let per_language = by_language
        .into_iter()
        .map(|(language, tally)| (language, tally.group(with_tags)))
        .collect();
    Ok((MlSuperbReport { trained, reserved, per_language }, utterances))
}

/// The second-to-last part of an id such as `cv_eng_000001`; `cv_org_jpn_000001` counts as `jpn`.
fn language_of_id(id: &str) -> Option<&str> {
    id.rsplit('_').nth(1).filter(|language| !language.is_empty())
}

/// Length in bytes of a tag at the start of `text`: `[eng]`, or `[org_jpn]` where `parts` is 2.
fn tag_length(text: &str, parts: usize) -> Option<usize> {
    let length = 4 * parts + 1;
    let inner = text.as_bytes().get(..length)?.strip_prefix(b"[")?.strip_suffix(b"]")?;
    let well_formed = inner
        .split(|&b| b == b'_')
        .all(|part| part.len() == 3 && part.iter().all(u8::is_ascii_lowercase));
    well_formed.then_some(length)
}

/// The first three-letter tag anywhere in the text; failing that, the first of the form `[xxx_xxx]`.
fn first_tag(text: &str) -> Option<&str> {
    [1, 2].into_iter().find_map(|parts| {
        text.match_indices('[')
            .find_map(|(at, _)| tag_length(&text[at..], parts).map(|length| &text[at..at + length]))
    })
}

/// The language of a tag: `eng` of `[eng]`, `jpn` of `[org_jpn]`, as ids have it.
fn language_of_tag(tag: &str) -> &str {
    let inner = tag.trim_matches(['[', ']']);
    inner.rsplit('_').next().unwrap_or(inner)
}

/// How many tags there are, and the characters without them (ESPnet `CharTokenizer` with the tags as symbols to remove).
fn untagged(body: &str) -> (usize, Vec<char>) {
    let mut rest = body;
    let (mut n_tags, mut characters) = (0, Vec::with_capacity(body.len()));
    while let Some(c) = rest.chars().next() {
        if let Some(length) = tag_length(rest, 1).or_else(|| tag_length(rest, 2)) {
            n_tags += 1;
            rest = &rest[length..];
        } else {
            characters.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    (n_tags, characters)
}

/// Prepares a transcript as the 1.0 recipe does: ASCII punctuation out, full Unicode uppercase.
///
/// The multilingual tracks first delete the longest span from a `[` to a `]` that has no parenthesis in it
/// (`data_prep.py`); the monolingual ones do not (`single_lang_data_prep.py`). Spaces stay as they are.
///
/// # Example
/// ```
/// assert_eq!(asr::text::normalise_ml_superb("it's [laughter] fine", true), "ITS  FINE");
/// ```
pub fn normalise_ml_superb(text: &str, multilingual: bool) -> String {
    let without_span = if multilingual { remove_bracketed(text) } else { text.to_owned() };
    without_span.replace(|c: char| c.is_ascii_punctuation(), "").to_uppercase()
}

/// Deletes every match of the expression `\[[^()]*\]`, greedy, left to right.
fn remove_bracketed(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find('[') {
        let (before, from_open) = rest.split_at(open);
        kept.push_str(before);
        let reach = from_open.find(['(', ')']).unwrap_or(from_open.len());
        if let Some(close) = from_open[..reach].rfind(']') {
            rest = &from_open[close + 1..];
        } else {
            // No bracket opened before the next parenthesis can close either.
            kept.push_str(&from_open[..reach]);
            rest = &from_open[reach..];
        }
    }
    kept.push_str(rest);
    kept
}

#[cfg(test)]
mod tests {
    use super::super::transcripts::pair;
    use super::*;

    fn scored(reference: &str, hypothesis: &str) -> MlSuperbReport {
        score(&pair(reference, hypothesis).expect("pairs")).expect("valid").0
    }

    #[test]
    fn groups_by_hand() {
        let report = scored(
            "cv_eng_1 [eng] ab c\ncv_org_jpn_2 [org_jpn] x\nfleurs_dan_3 [dan] på",
            "cv_eng_1 [deu] ab [eng]c\ncv_org_jpn_2 [org_jpn]\nfleurs_dan_3 [dan] pa",
        );
        let trained = report.trained.expect("eng and jpn");
        // " ab c" is 5 tokens, all there; " x" is 2, both missing
        assert_eq!((trained.utterances, trained.reference_tokens, trained.errors), (2, 7, 2));
        assert_eq!((trained.lid_correct, trained.lid_accuracy), (1, Some(0.5)));
        let reserved = report.reserved.expect("dan");
        assert_eq!((reserved.cer, reserved.lid_accuracy), (Some(1.0 / 3.0), Some(1.0)));
        assert_eq!(report.per_language.keys().collect::<Vec<_>>(), ["dan", "eng", "jpn"]);
    }

    #[test]
    fn groups_pool_errors_whatever_the_language_and_length() {
        // 6 errors of 4 characters and none of 36: 0.15, though the mean of both would be 0.75.
        let long = "x".repeat(35);
        let report = scored(
            &format!("cv_eng_1 [eng] abc\ncv_deu_2 [deu] {long}"),
            &format!("cv_eng_1 [eng]xyzuvw\ncv_deu_2 [deu] {long}"),
        );
        let trained = report.trained.expect("two languages");
        // " abc" against "xyzuvw" takes six edits of four characters: not clipped.
        assert_eq!((trained.errors, trained.reference_tokens), (6, 40));
        assert_eq!(trained.cer, Some(0.15));
        assert_eq!(report.per_language["eng"].cer, Some(1.5));
    }

    #[test]
    fn recognition_alone_has_no_tags() {
        let report = scored("cv_eng_1 AB", "cv_eng_1 [eng] AB");
        let trained = report.trained.expect("eng");
        assert_eq!((trained.errors, trained.lid_accuracy), (1, None));
        assert_eq!(report.reserved, None);
    }

    #[test]
    fn tags_must_be_in_order() {
        let fails = |reference: &str, hypothesis: &str| {
            score(&pair(reference, hypothesis).expect("pairs")).is_err()
        };
        assert!(fails("cv_eng_1 [eng] [deu] a", "cv_eng_1 a"));
        assert!(fails("cv_eng_1 [eng] a\ncv_eng_2 b", "cv_eng_1 a\ncv_eng_2 b"));
        assert!(fails("eng [eng] a", "eng a"));
        assert!(fails("_1 [eng] a", "_1 a"));
    }

    #[test]
    fn tags_by_hand() {
        assert_eq!(first_tag("x [org_jpn] [ab] [ABC] [eng] [deu]"), Some("[eng]"));
        assert_eq!(first_tag("x[org_jpn"), None);
        assert_eq!(first_tag("é[org_jpn]é"), Some("[org_jpn]"));
        assert_eq!(first_tag("[en🙂]"), None);
        assert_eq!(untagged(" [eng]a [x]  é[org_jpn] "), (2, " a [x]  é ".chars().collect()));
    }

    #[test]
    fn bracketed_spans_by_hand() {
        struct Case(&'static str, &'static str);
        let cases = [
            Case("a [b] c [d] e", "a  e"),
            Case("a [b (c) [d] e", "a [b (c)  e"),
            Case("a [b] (c) [d] e", "a  (c)  e"),
            Case("] [ (", "] [ ("),
            Case("[[é]é]", ""),
            Case("[a", "[a"),
        ];
        for Case(text, want) in cases {
            assert_eq!(remove_bracketed(text), want, "{text}");
        }
    }

    #[test]
    fn reserved_languages_are_twenty_and_sorted() {
        assert!(RESERVED_LANGUAGES.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
