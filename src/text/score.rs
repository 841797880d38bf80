//! Scoring recognised text against references: character and word error rates, language identification accuracy.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;

use super::ml_superb::{self, MlSuperbReport};
use super::ml_superb2::{self, MlSuperb2Report};
use super::transcripts::{MAX_UTTERANCE_CHARS, NamedIds, Pair, Side, pair};
use super::{EditCounts, Language, TextError, edit_counts, one_line, shortened};

/// The rules by which texts are compared and scores averaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// Errors summed over all utterances, then divided; text in NFC, case and punctuation counted.
    #[default]
    Plain,
    /// ML-SUPERB 1.0: pooled per group of languages (trained, reserved).
    MlSuperb,
    /// ML-SUPERB 2.0 and the 2025 challenge: means over languages of means over utterances.
    MlSuperb2,
}

/// Which of the two published scorers of ML-SUPERB 2.0 is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// `local/score.py` of the recipe: all Unicode punctuation is removed.
    #[default]
    Recipe,
    /// The challenge server: a list of ASCII punctuation is removed, and the first word of each text.
    Server,
}

impl FromStr for Scheme {
    type Err = ScoreError;

    fn from_str(given: &str) -> Result<Self, ScoreError> {
        match given {
            "plain" => Ok(Self::Plain),
            "ml-superb" => Ok(Self::MlSuperb),
            "ml-superb2" => Ok(Self::MlSuperb2),
            _ => Err(ScoreError::Scheme { given: shortened(given) }),
        }
    }
}

impl FromStr for Variant {
    type Err = ScoreError;

    fn from_str(given: &str) -> Result<Self, ScoreError> {
        match given {
            "recipe" => Ok(Self::Recipe),
            "server" => Ok(Self::Server),
            _ => Err(ScoreError::Variant { given: shortened(given) }),
        }
    }
}

/// Why texts cannot be scored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScoreError {
    /// Not the name of a scheme.
    #[error("unknown scoring scheme `{given}`, expected plain, ml-superb or ml-superb2")]
    Scheme {
        /// What was given.
        given: String,
    },
    /// Not the name of a variant.
    #[error("unknown scorer variant `{given}`, expected recipe or server")]
    Variant {
        /// What was given.
        given: String,
    },
    /// A text without utterances.
    #[error("the {side} has no utterances")]
    Empty {
        /// Which text.
        side: Side,
    },
    /// Utterances listed twice.
    #[error("the {side} lists an utterance twice: {ids}")]
    Duplicate {
        /// Which text.
        side: Side,
        /// The repeated ids.
        ids: NamedIds,
    },
    /// References without a hypothesis.
    #[error("the hypothesis lacks utterances of the reference: {ids}")]
    Missing {
        /// Their ids.
        ids: NamedIds,
    },
    /// Hypotheses without a reference.
    #[error("the hypothesis has utterances that the reference lacks: {ids}")]
    Extra {
        /// Their ids.
        ids: NamedIds,
    },
    /// A table row that does not fit the header.
    #[error("line {line} of the {side} has {found} columns, its header has {expected}")]
    Columns {
        /// Which text.
        side: Side,
        /// Line number from 1.
        line: usize,
        /// Columns in the row.
        found: usize,
        /// Columns in the header.
        expected: usize,
    },
    /// A table row whose language column holds none.
    #[error("line {line} of the {side} has no usable language")]
    Language {
        /// Which text.
        side: Side,
        /// Line number from 1.
        line: usize,
        /// What is wrong with it.
        source: TextError,
    },
    /// An utterance longer than [`MAX_UTTERANCE_CHARS`].
    #[error("utterance `{id}` of the {side} has more than {MAX_UTTERANCE_CHARS} characters")]
    TooLong {
        /// Which text.
        side: Side,
        /// The utterance.
        id: String,
    },
    /// A reference without its language where the scheme needs one.
    #[error(
        "the reference of utterance `{id}` must have exactly one language tag such as [eng], at its start"
    )]
    ReferenceTag {
        /// The utterance.
        id: String,
    },
    /// A hypothesis with nothing after its id, which the ML-SUPERB 2.0 scorer refuses.
    #[error("the hypothesis of utterance `{id}` is empty, expected a language tag at least")]
    EmptyHypothesis {
        /// The utterance.
        id: String,
    },
    /// An id that does not carry its language as ML-SUPERB ids do.
    #[error("utterance id `{id}` has no language as its second-to-last part, as in cv_eng_000001")]
    UtteranceId {
        /// The id.
        id: String,
    },
    /// Every reference is empty after the scheme's normalisation.
    #[error("no reference has any text to score after normalisation")]
    NothingToScore,
}

/// Scores of one scheme; serialised with the field `scheme`, rates as fractions, unrounded.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "scheme", rename_all = "kebab-case")]
pub enum ScoreReport {
    /// [`Scheme::Plain`].
    Plain(PlainReport),
    /// [`Scheme::MlSuperb`].
    MlSuperb(MlSuperbReport),
    /// [`Scheme::MlSuperb2`].
    MlSuperb2(MlSuperb2Report),
}

/// Scores pooled over utterances.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlainReport {
    /// Character errors over reference characters, spaces included; `None` if all references are empty.
    pub cer: Option<f64>,
    /// Word errors over reference words, split at whitespace.
    pub wer: Option<f64>,
    /// Share of the utterances with a reference language whose hypothesis has the same; `None` if there are none.
    pub lid_accuracy: Option<f64>,
    /// Number of utterances.
    pub utterances: usize,
    /// The character errors by kind.
    pub characters: EditCounts,
    /// The word errors by kind.
    pub words: EditCounts,
    /// The same by reference language; `und` holds the utterances without one.
    pub per_language: BTreeMap<String, PlainLanguage>,
}

/// Pooled scores of one language.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlainLanguage {
    /// As [`PlainReport::cer`].
    pub cer: Option<f64>,
    /// As [`PlainReport::wer`].
    pub wer: Option<f64>,
    /// As [`PlainReport::lid_accuracy`].
    pub lid_accuracy: Option<f64>,
    /// Number of utterances.
    pub utterances: usize,
}

/// Scores `hypothesis` against `reference`.
///
/// Each text holds one utterance per line, `utt_id [lang] words`, or is a tab-separated table whose header names an id
/// (`utt_id`, `utterance`, `id`, `path` or `file`), a text (`text`, `transcript` or `sentence`) and perhaps a language
/// (`language` or `lang`). Utterances are matched by id, in any order; the language tag may be absent where the scheme
/// allows it. `variant` matters to [`Scheme::MlSuperb2`] alone.
///
/// # Errors
/// [`ScoreError`]: utterances that are missing, extra or repeated are named, never dropped.
///
/// # Example
/// Two of eleven characters are wrong:
/// ```
/// use asr::text::{Scheme, ScoreReport, Variant, score};
///
/// let report = score("a [eng] hello world", "a [eng] hallo word", Scheme::Plain, Variant::Recipe)?;
/// let ScoreReport::Plain(plain) = report else { unreachable!() };
/// assert_eq!((plain.cer, plain.wer, plain.lid_accuracy), (Some(2.0 / 11.0), Some(1.0), Some(1.0)));
/// # Ok::<(), asr::text::ScoreError>(())
/// ```
pub fn score(
    reference: &str,
    hypothesis: &str,
    scheme: Scheme,
    variant: Variant,
) -> Result<ScoreReport, ScoreError> {
    Ok(score_utterances(reference, hypothesis, scheme, variant)?.0)
}

/// What one utterance brings to the scores, compared by the rules of its scheme.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UtteranceScore {
    /// The utterance.
    pub id: String,
    /// Language of the reference, if stated.
    pub language: Option<String>,
    /// Language that the hypothesis claims; `None` where there is no tag.
    pub predicted: Option<String>,
    /// Character errors.
    pub errors: usize,
    /// Characters of the reference.
    pub characters: usize,
}

/// As [`score`], with the scored utterances in the order of the reference.
///
/// # Errors
/// As [`score`].
pub fn score_utterances(
    reference: &str,
    hypothesis: &str,
    scheme: Scheme,
    variant: Variant,
) -> Result<(ScoreReport, Vec<UtteranceScore>), ScoreError> {
    let pairs = pair(reference, hypothesis)?;
    Ok(match scheme {
        Scheme::Plain => {
            let (report, utterances) = score_plain(&pairs);
            (ScoreReport::Plain(report), utterances)
        }
        Scheme::MlSuperb => {
            let (report, utterances) = ml_superb::score(&pairs)?;
            (ScoreReport::MlSuperb(report), utterances)
        }
        Scheme::MlSuperb2 => {
            let (report, utterances) = ml_superb2::score(&pairs, variant)?;
            (ScoreReport::MlSuperb2(report), utterances)
        }
    })
}

#[derive(Default)]
struct PlainTally {
    characters: EditCounts,
    words: EditCounts,
    utterances: usize,
    with_language: usize,
    language_correct: usize,
}

impl PlainTally {
    fn lid_accuracy(&self) -> Option<f64> {
        share(self.language_correct, self.with_language)
    }
}

fn score_plain(pairs: &[Pair]) -> (PlainReport, Vec<UtteranceScore>) {
    let mut utterances = Vec::with_capacity(pairs.len());
    let mut total = PlainTally::default();
    let mut by_language: BTreeMap<String, PlainTally> = BTreeMap::new();
    for pair in pairs {
        let (language, reference) = split_language(&pair.reference);
        let (hypothesis_language, hypothesis) = split_language(&pair.hypothesis);
        let (reference, hypothesis) = (folded(reference), folded(hypothesis));
        let characters = count_characters(&reference, &hypothesis);
        let words = count_words(&reference, &hypothesis);
        utterances.push(UtteranceScore {
            id: pair.id.clone(),
            language: language.map(|language| language.code().to_owned()),
            predicted: hypothesis_language.map(|language| language.code().to_owned()),
            errors: characters.errors(),
            characters: characters.reference,
        });
        let name = language.map_or_else(|| "und".to_owned(), |language| language.code().to_owned());
        for tally in [&mut total, by_language.entry(name).or_default()] {
            tally.characters += characters;
            tally.words += words;
            tally.utterances += 1;
            tally.with_language += usize::from(language.is_some());
            tally.language_correct +=
                usize::from(language.is_some() && language == hypothesis_language);
        }
    }
    let report = PlainReport {
        cer: total.characters.rate(),
        wer: total.words.rate(),
        lid_accuracy: total.lid_accuracy(),
        utterances: total.utterances,
        characters: total.characters,
        words: total.words,
        per_language: by_language
            .into_iter()
            .map(|(name, tally)| {
                let scores = PlainLanguage {
                    cer: tally.characters.rate(),
                    wer: tally.words.rate(),
                    lid_accuracy: tally.lid_accuracy(),
                    utterances: tally.utterances,
                };
                (name, scores)
            })
            .collect(),
    };
    (report, utterances)
}

/// Edits between the Unicode scalar values of two texts.
///
/// Both should be in NFC; a space is a character like any other.
pub fn count_characters(reference: &str, hypothesis: &str) -> EditCounts {
    let reference: Vec<char> = reference.chars().collect();
    let hypothesis: Vec<char> = hypothesis.chars().collect();
    edit_counts(&reference, &hypothesis)
}

/// Edits between the words of two texts, split at whitespace; also phone errors, for texts of phones.
pub fn count_words(reference: &str, hypothesis: &str) -> EditCounts {
    let reference: Vec<&str> = reference.split_whitespace().collect();
    let hypothesis: Vec<&str> = hypothesis.split_whitespace().collect();
    edit_counts(&reference, &hypothesis)
}

/// A leading `[lang]` and the rest; anything else in brackets is text.
fn split_language(body: &str) -> (Option<Language>, &str) {
    let tagged = body.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    match tagged.map(|(tag, rest)| (Language::lookup(tag), rest)) {
        Some((Some(language), rest)) => (Some(language), rest),
        _ => (None, body),
    }
}

/// NFC, whitespace runs as one space, none at the ends.
fn folded(text: &str) -> String {
    one_line(&text.nfc().collect::<String>())
}

/// `part / whole`, or `None` of nothing.
pub(super) fn share(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(reference: &str, hypothesis: &str) -> PlainReport {
        match score(reference, hypothesis, Scheme::Plain, Variant::Recipe).expect("valid") {
            ScoreReport::Plain(report) => report,
            other => panic!("another scheme: {other:?}"),
        }
    }

    #[test]
    fn plain_scores_by_hand() {
        let report = plain(
            "a [eng] ab cd\nb [deu] caf\u{E9}\nc no tag [x]\nd [eng]",
            "a [en] ab  xcd \nb [nld] cafe\u{301}\nc [eng] no tag [x]\nd z",
        );
        // a: one insertion of 5 characters, 1 of 2 words; b: none of 4; c: none of 10 and 3; d: one insertion of 0
        assert_eq!(report.cer, Some(2.0 / 19.0));
        assert_eq!(report.wer, Some(2.0 / 6.0));
        assert_eq!(report.lid_accuracy, Some(1.0 / 3.0));
        assert_eq!(
            report.characters,
            EditCounts { insertions: 2, reference: 19, ..EditCounts::default() }
        );
        let languages: Vec<&str> = report.per_language.keys().map(String::as_str).collect();
        assert_eq!(languages, ["deu", "eng", "und"]);
        let english = &report.per_language["eng"];
        assert_eq!(
            (english.cer, english.lid_accuracy, english.utterances),
            (Some(2.0 / 5.0), Some(0.5), 2)
        );
        assert_eq!(report.per_language["und"].lid_accuracy, None);
    }

    #[test]
    fn utterances_bring_what_the_scheme_counts() {
        let (reference, hypothesis) = (
            "cv_eng_1 [eng] ab, c\ncv_deu_2 [deu] !\ncv_fra_3 [fra] oui",
            "cv_eng_1 [eng] ab c\ncv_deu_2 [nld] !\ncv_fra_3 [ita]",
        );
        let utterances = |scheme| {
            let (_, found) = score_utterances(reference, hypothesis, scheme, Variant::Recipe)
                .expect("valid transcripts");
            found
                .into_iter()
                .map(|u| (u.id, u.predicted.unwrap_or_default(), u.errors, u.characters))
                .collect::<Vec<_>>()
        };
        let row = |id: &str, predicted: &str, errors, characters| {
            (id.to_owned(), predicted.to_owned(), errors, characters)
        };
        assert_eq!(
            utterances(Scheme::Plain),
            [
                row("cv_eng_1", "eng", 1, 5),
                row("cv_deu_2", "nld", 0, 1),
                row("cv_fra_3", "ita", 3, 3)
            ]
        );
        // The space after a tag counts; a tag alone lacks it.
        assert_eq!(
            utterances(Scheme::MlSuperb),
            [
                row("cv_eng_1", "eng", 1, 6),
                row("cv_deu_2", "nld", 0, 2),
                row("cv_fra_3", "ita", 4, 4)
            ]
        );
        // Punctuation does not count, and nothing is left of the second reference.
        assert_eq!(
            utterances(Scheme::MlSuperb2),
            [row("cv_eng_1", "eng", 0, 4), row("cv_fra_3", "ita", 3, 3)]
        );
    }

    #[test]
    fn plain_scores_of_nothing_are_absent() {
        let report = plain("a", "a x");
        assert_eq!((report.cer, report.wer, report.lid_accuracy), (None, None, None));
        let json = serde_json::to_string(&ScoreReport::Plain(report)).expect("serialisable");
        assert!(
            json.starts_with(
                r#"{"scheme":"plain","cer":null,"wer":null,"lid_accuracy":null,"utterances":1,"#
            ),
            "{json}"
        );
    }

    #[test]
    fn names_of_schemes_and_variants() {
        for name in ["plain", "ml-superb", "ml-superb2"] {
            let scheme: Scheme = name.parse().expect("known");
            assert_eq!(
                serde_json::to_string(&scheme).expect("serialisable"),
                format!("\"{name}\"")
            );
        }
        for name in ["recipe", "server"] {
            let variant: Variant = name.parse().expect("known");
            assert_eq!(
                serde_json::to_string(&variant).expect("serialisable"),
                format!("\"{name}\"")
            );
        }
        assert!("ml-superb3".parse::<Scheme>().is_err() && "".parse::<Variant>().is_err());
    }
}
