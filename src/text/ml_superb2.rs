//! ML-SUPERB 2.0 and the 2025 challenge: means over languages of means over utterances.

use std::collections::BTreeMap;

use serde::Serialize;

use super::punctuation::is_punctuation;
use super::score::{ScoreError, UtteranceScore, Variant, count_characters};
use super::shortened;
use super::transcripts::Pair;

/// Languages whose spaces are not scored.
const UNSPACED: [&str; 4] = ["cmn", "jpn", "tha", "yue"];
/// How many languages the worst-languages mean is divided by, however many there are.
const WORST: usize = 15;
/// Characters of a tag such as `[eng]`.
const TAG_CHARS: usize = 5;
/// What the challenge server removes; `+ = |` and the backtick stay.
const SERVER_PUNCTUATION: &str = "!()-[]{};:'\"\\,<>./?@#$%^&*_~";

/// Scores of ML-SUPERB 2.0.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MlSuperb2Report {
    /// Which published scorer was followed.
    pub variant: Variant,
    /// Mean over languages of their CER.
    pub cer: f64,
    /// Mean over languages of their LID accuracy.
    pub lid_accuracy: f64,
    /// Sample standard deviation (n - 1) of the languages' CER; `None` for one language.
    pub std_cer: Option<f64>,
    /// Sum of the 15 largest CER over 15, even with fewer languages.
    pub worst15_cer: f64,
    /// Number of scored utterances.
    pub utterances: usize,
    /// Utterances left out of CER and LID because their reference is empty after normalisation.
    pub skipped: Vec<String>,
    /// Languages left out because all their references are empty after normalisation.
    pub languages_without_text: Vec<String>,
    /// Scores by reference language.
    pub per_language: BTreeMap<String, MlSuperb2Language>,
}

/// Means over the utterances of one language.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MlSuperb2Language {
    /// Mean of the utterances' error rates, each not clipped.
    pub cer: f64,
    /// Share of utterances with the right tag.
    pub lid_accuracy: f64,
    /// Number of scored utterances.
    pub utterances: usize,
}

#[derive(Default)]
struct Tally {
    rates: f64,
    lid_correct: usize,
    utterances: usize,
}

pub(super) fn score(
    pairs: &[Pair],
    variant: Variant,
) -> Result<(MlSuperb2Report, Vec<UtteranceScore>), ScoreError> {
    let mut utterances = Vec::with_capacity(pairs.len());
    let mut by_language: BTreeMap<String, Tally> = BTreeMap::new();
    let mut skipped = Vec::new();
    for pair in pairs {
        let language = reference_language(&pair.reference)
            .ok_or_else(|| ScoreError::ReferenceTag { id: shortened(&pair.id) })?;
        if variant == Variant::Recipe && pair.hypothesis.is_empty() {
            return Err(ScoreError::EmptyHypothesis { id: shortened(&pair.id) });
        }
        let (_, reference) = split_body(&pair.reference, variant);
        let (predicted, hypothesis) = split_body(&pair.hypothesis, variant);
        let unspaced = UNSPACED.contains(&language);
        let reference = normalise(reference, unspaced, variant);
        let tally = by_language.entry(language.to_owned()).or_default();
        if reference.is_empty() {
            skipped.push(pair.id.clone());
            continue;
        }
        let hypothesis = normalise(hypothesis, unspaced, variant);
        // jiwer strips both sides, and divides by 1 where nothing but spaces was left of the reference.
        let counts = count_characters(strip(&reference), strip(&hypothesis));
        utterances.push(UtteranceScore {
            id: pair.id.clone(),
            language: Some(language.to_owned()),
            predicted: (!predicted.is_empty()).then(|| predicted.to_owned()),
            errors: counts.errors(),
            characters: counts.reference,
        });
        tally.rates += counts.errors() as f64 / counts.reference.max(1) as f64;
        tally.lid_correct += usize::from(predicted == language);
        tally.utterances += 1;
    }
    Ok((report(by_language, skipped, variant)?, utterances))
}

fn report(
    by_language: BTreeMap<String, Tally>,
    skipped: Vec<String>,
    variant: Variant,
) -> Result<MlSuperb2Report, ScoreError> {
    let mut languages_without_text = Vec::new();
    let mut per_language = BTreeMap::new();
    let mut utterances = 0;
    for (language, tally) in by_language {
        if tally.utterances == 0 {
            languages_without_text.push(language);
            continue;
        }
        let n = tally.utterances as f64;
        let scores = MlSuperb2Language {
            cer: tally.rates / n,
            lid_accuracy: tally.lid_correct as f64 / n,
            utterances: tally.utterances,
        };
        utterances += tally.utterances;
        per_language.insert(language, scores);
    }
    if per_language.is_empty() {
        return Err(ScoreError::NothingToScore);
    }
    let mut rates: Vec<f64> = per_language.values().map(|scores| scores.cer).collect();
    let n = rates.len() as f64;
    let cer = rates.iter().sum::<f64>() / n;
    let squares: f64 = rates.iter().map(|rate| (rate - cer).powi(2)).sum();
    rates.sort_by(|a, b| b.total_cmp(a));
    Ok(MlSuperb2Report {
        variant,
        cer,
        lid_accuracy: per_language.values().map(|scores| scores.lid_accuracy).sum::<f64>() / n,
        std_cer: (rates.len() > 1).then(|| (squares / (n - 1.0)).sqrt()),
        worst15_cer: rates.iter().take(WORST).sum::<f64>() / WORST as f64,
        utterances,
        skipped,
        languages_without_text,
        per_language,
    })
}

/// The code in a tag of three lowercase letters at the start of a reference.
fn reference_language(body: &str) -> Option<&str> {
    let tag = body.split_whitespace().next()?;
    let code = tag.strip_prefix('[')?.strip_suffix(']')?;
    (code.len() == 3 && code.bytes().all(|b| b.is_ascii_lowercase())).then_some(code)
}

/// The language that a body claims, and its text.
///
/// The recipe takes the first five characters for the tag whatever they are; the server takes the first word.
fn split_body(body: &str, variant: Variant) -> (&str, &str) {
    match variant {
        Variant::Recipe => {
            let end = body.char_indices().nth(TAG_CHARS).map_or(body.len(), |(at, _)| at);
            let (tag, text) = body.split_at(end);
            let code = tag.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            (code.unwrap_or_default(), strip(text))
        }
        Variant::Server => {
            let body = strip(body);
            let (tag, text) = body.split_once(is_space).unwrap_or((body, ""));
            (tag.trim_matches(['[', ']']), strip(text))
        }
    }
}

/// Spaces out where the language does not write them, punctuation out, full Unicode uppercase.
fn normalise(text: &str, unspaced: bool, variant: Variant) -> String {
    let removed = |c: char| {
        let punctuation = match variant {
            Variant::Recipe => is_punctuation(c),
            Variant::Server => SERVER_PUNCTUATION.contains(c),
        };
        punctuation || (unspaced && is_space(c))
    };
    text.replace(removed, "").to_uppercase()
}

/// Whitespace as Python has it: Unicode's and the four ASCII separators.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1C}'..='\u{1F}').contains(&c)
}

fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

#[cfg(test)]
mod tests {
    use super::super::transcripts::pair;
    use super::*;

    fn scored(
        reference: &str,
        hypothesis: &str,
        variant: Variant,
    ) -> Result<MlSuperb2Report, ScoreError> {
        score(&pair(reference, hypothesis).expect("pairs"), variant).map(|(report, _)| report)
    }

    #[test]
    fn one_language_by_hand() {
        let report = scored(
            "a [eng] Ab, c.\nb [eng] xy\nc [eng] …",
            "a [eng] ab c\nb [deu] xyzzy\nc [eng] q",
            Variant::Recipe,
        )
        .expect("valid");
        // a is right; b has three insertions in two characters; c is skipped
        assert_eq!((report.cer, report.lid_accuracy, report.std_cer), (0.75, 0.5, None));
        assert_eq!((report.worst15_cer, report.utterances), (0.75 / 15.0, 2));
        assert_eq!(
            (report.skipped, report.languages_without_text.len()),
            (vec!["c".to_owned()], 0)
        );
    }

    #[test]
    fn utterances_weigh_the_same_within_a_language_and_languages_within_the_mean() {
        // eng: 1 of 2 and 0 of 8 wrong is (0.5 + 0) / 2, though pooled it would be 1 of 10;
        // deu: 6 insertions in 2 characters is 3, not clipped.
        let report = scored(
            "a [eng] ab\nb [eng] abcdefgh\nc [deu] ja",
            "a [eng] ax\nb [deu] abcdefgh\nc [deu] jaxxxxxx",
            Variant::Recipe,
        )
        .expect("valid");
        assert_eq!((report.per_language["eng"].cer, report.per_language["deu"].cer), (0.25, 3.0));
        // Over utterances it would be 3.5 / 3.
        assert_eq!(report.cer, (0.25 + 3.0) / 2.0);
        assert_eq!(report.lid_accuracy, (0.5 + 1.0) / 2.0);
        // Squares of 1.375 twice, over n - 1 = 1.
        assert_eq!(report.std_cer, Some((2.0_f64 * 1.375 * 1.375).sqrt()));
        assert_eq!(report.worst15_cer, 3.25 / 15.0);
    }

    #[test]
    fn the_worst_fifteen_are_the_largest_fifteen() {
        // Language i of 17 has i insertions in ten characters; the best two, 0 and 1, do not count.
        let lines = |text: &dyn Fn(usize) -> String| -> String {
            (0..17)
                .map(|i| format!("u{i} [aa{}] {}\n", char::from(b'a' + i as u8), text(i)))
                .collect()
        };
        let report = scored(
            &lines(&|_| "abcdefghij".to_owned()),
            &lines(&|i| "abcdefghij".to_owned() + &"x".repeat(i)),
            Variant::Recipe,
        )
        .expect("valid");
        let want = (2..17).map(|i| f64::from(i) / 10.0).sum::<f64>() / 15.0;
        assert!((report.worst15_cer - want).abs() < 1e-12, "{}", report.worst15_cer);
        assert!((report.cer - 0.8).abs() < 1e-12);
    }

    #[test]
    fn the_server_keeps_unicode_punctuation_and_loses_the_first_word() {
        let reference = "a [fra] «oui» + non\nb [fra] non";
        let hypothesis = "a oui + non\nb";
        let server = scored(reference, hypothesis, Variant::Server).expect("valid");
        // a: "+ NON" against "«OUI» + NON" lacks 6 of 11 characters; b: nothing of 3
        assert!((server.cer - (6.0 / 11.0 + 1.0) / 2.0).abs() < 1e-12);
        assert_eq!(server.lid_accuracy, 0.0);
        let empty = scored(reference, hypothesis, Variant::Recipe).expect_err("empty hypothesis");
        assert_eq!(
            empty.to_string(),
            "the hypothesis of utterance `b` is empty, expected a language tag at least"
        );
    }

    #[test]
    fn the_recipe_takes_five_characters_whatever_they_are() {
        let report =
            scored("a [eng] no\nb [cmn] 好 的", "a é🙂abcno\nb [cmn]好的", Variant::Recipe)
                .expect("valid");
        assert_eq!(
            (report.per_language["eng"].cer, report.per_language["eng"].lid_accuracy),
            (0.0, 0.0)
        );
        assert_eq!(
            (report.per_language["cmn"].cer, report.per_language["cmn"].lid_accuracy),
            (0.0, 1.0)
        );
    }

    #[test]
    fn references_need_a_tag_and_some_text() {
        assert!(matches!(
            scored("a hello", "a [eng] x", Variant::Recipe),
            Err(ScoreError::ReferenceTag { .. })
        ));
        assert!(matches!(
            scored("a [org_jpn] x", "a x", Variant::Server),
            Err(ScoreError::ReferenceTag { .. })
        ));
        assert!(matches!(
            scored("a [eng] !", "a [eng] x", Variant::Recipe),
            Err(ScoreError::NothingToScore)
        ));
        let report = scored("a [eng] !\nb [deu] ja", "a [eng] x\nb [deu] ja", Variant::Recipe)
            .expect("valid");
        assert_eq!(report.languages_without_text, ["eng"]);
        assert_eq!(report.per_language.len(), 1);
    }

    #[test]
    fn a_reference_of_spaces_alone_counts_insertions() {
        let report =
            scored("a [eng] ! !", "a [eng] xyz", Variant::Recipe).expect("one space is left");
        assert_eq!(report.cer, 3.0);
    }
}
