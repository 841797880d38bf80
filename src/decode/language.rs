//! Which language the CTC output begins with.

use crate::text::{Language, Vocabulary};
use std::ops::Range;

/// Probability of each language being the first token, over all alignments.
#[derive(Debug, Clone, PartialEq)]
pub struct LanguageScores {
    /// Languages with their probability, most likely first; they sum to 1.
    pub ranked: Vec<(Language, f64)>,
    /// Probability that the output begins with a language tag at all.
    pub mass: f64,
}

/// Where the language of a clip is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LanguageSource {
    /// The head for languages where the model has one, else the tag that the text begins with.
    #[default]
    Auto,
    /// The tag that the text begins with.
    Tag,
    /// What the model has besides: the head for languages, else the last CTC output inside the
    /// encoder that names the language.
    Aux,
    /// Both: the product of their probabilities.
    Both,
}

/// Probability of each token of `ids` being the first, over all alignments, from
/// `(frames, vocab)` log-probabilities.
pub(super) fn first_tokens(log_probs: &[f32], vocab: usize, ids: Range<u32>) -> Vec<f64> {
    let mut sums = vec![0.0_f64; ids.len()];
    let mut all_blank = 1.0_f64;
    for row in log_probs.chunks_exact(vocab.max(1)) {
        for (sum, id) in sums.iter_mut().zip(ids.clone()) {
            *sum += all_blank * f64::from(row[id as usize]).exp();
        }
        all_blank *= f64::from(row[0]).exp();
    }
    sums
}

/// The languages of `vocabulary` (or only `candidates`) by weight, most likely first; their
/// scores sum to 1.
pub(super) fn ranked(
    weights: &[f64],
    vocabulary: &Vocabulary,
    candidates: Option<&[Language]>,
) -> Vec<(Language, f64)> {
    let mut ranked: Vec<(Language, f64)> = vocabulary
        .language_ids()
        .zip(weights)
        .filter_map(|(id, &weight)| Some((vocabulary.language_of(id)?, weight)))
        .filter(|(language, _)| candidates.is_none_or(|c| c.contains(language)))
        .collect();
    let total: f64 = ranked.iter().map(|(_, weight)| weight).sum();
    for (_, score) in &mut ranked {
        *score = if total > 0.0 { *score / total } else { 0.0 };
    }
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    ranked
}

/// Least probability that one of two sources can give a language: neither can rule it out alone.
const LEAST: f64 = 1e-6;

/// The product of two rankings of the same languages, normalised.
pub(super) fn fused(one: &[(Language, f64)], other: &[(Language, f64)]) -> Vec<(Language, f64)> {
    let score = |language| other.iter().find(|(l, _)| *l == language).map_or(0.0, |(_, s)| *s);
    let mut fused: Vec<(Language, f64)> = one
        .iter()
        .map(|&(language, s)| (language, s.max(LEAST) * score(language).max(LEAST)))
        .collect();
    calibrated(&mut fused, 1.0);
    fused
}

/// Scores the languages of `vocabulary` (or only `candidates`) from `(frames, vocab)` log-probabilities.
///
/// The probability that the first token is `k` is `sum_t p_t(k) prod_{s<t} p_s(blank)`: the
/// frames before are blank, those after are free. On silence nearly all of the mass is
/// "no token at all".
#[must_use]
pub fn score_languages(
    log_probs: &[f32],
    vocabulary: &Vocabulary,
    candidates: Option<&[Language]>,
) -> LanguageScores {
    let sums = first_tokens(log_probs, vocabulary.len(), vocabulary.language_ids());
    LanguageScores { mass: sums.iter().sum(), ranked: ranked(&sums, vocabulary, candidates) }
}

/// What cosines are multiplied by before the softmax: the scale that language heads are usually
/// trained with; a calibration makes up for another.
const COSINE_SCALE: f64 = 30.0;

/// Probabilities of the languages (or only `candidates`), most likely first, from the cosines
/// of a language head, one per language of `vocabulary`.
pub(super) fn score_classes(
    cosines: &[f32],
    vocabulary: &Vocabulary,
    candidates: Option<&[Language]>,
) -> Vec<(Language, f64)> {
    let mut ranked: Vec<(Language, f64)> = vocabulary
        .language_ids()
        .zip(cosines)
        .filter_map(|(id, &cosine)| Some((vocabulary.language_of(id)?, f64::from(cosine))))
        .filter(|(language, _)| candidates.is_none_or(|c| c.contains(language)))
        .collect();
    let highest = ranked.iter().map(|(_, cosine)| *cosine).fold(f64::NEG_INFINITY, f64::max);
    for (_, score) in &mut ranked {
        *score = (COSINE_SCALE * (*score - highest)).exp();
    }
    calibrated(&mut ranked, 1.0);
    ranked
}

/// Raises scores to the power `1 / temperature`, makes them sum to 1 and sorts them.
pub(super) fn calibrated(ranked: &mut [(Language, f64)], temperature: f64) {
    let highest = ranked.iter().map(|(_, score)| *score).fold(0.0, f64::max);
    if highest > 0.0 {
        for (_, score) in &mut *ranked {
            *score = (*score / highest).powf(temperature.recip());
        }
        let total: f64 = ranked.iter().map(|(_, score)| score).sum();
        for (_, score) in &mut *ranked {
            *score /= total;
        }
    }
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::TextError;

    #[test]
    fn the_first_tag_counts_and_silence_has_no_mass() -> Result<(), TextError> {
        let (eng, swa) = ("eng".parse()?, "swa".parse()?);
        let vocabulary = Vocabulary::build([eng, swa], ["a"], 1)?;
        // Tokens: blank, [eng], [swa], |, a.
        let rows = [[0.5, 0.3, 0.1, 0.0, 0.1], [0.1, 0.1, 0.7, 0.0, 0.1]];
        let log_probs: Vec<f32> = rows.iter().flatten().map(|p: &f32| p.ln()).collect();
        let scores = score_languages(&log_probs, &vocabulary, None);
        let (e, s) = (0.3 + 0.5 * 0.1, 0.1 + 0.5 * 0.7);
        assert!((scores.mass - (e + s)).abs() < 1e-6);
        assert_eq!(scores.ranked[0].0, swa);
        assert!((scores.ranked[0].1 - s / (e + s)).abs() < 1e-6);
        let only = score_languages(&log_probs, &vocabulary, Some(&[eng]));
        assert_eq!(only.ranked.len(), 1);
        assert!((only.ranked[0].1 - 1.0).abs() < 1e-12);
        let silence: Vec<f32> = [1.0_f32, 1e-9, 1e-9, 1e-9, 1e-9].map(f32::ln).repeat(50);
        assert!(score_languages(&silence, &vocabulary, None).mass < 1e-6);
        Ok(())
    }

    #[test]
    fn two_sources_are_stronger_than_one() -> Result<(), TextError> {
        let [eng, swa, deu] = ["eng", "swa", "deu"].map(str::parse);
        let (eng, swa, deu) = (eng?, swa?, deu?);
        let tag = [(eng, 0.5), (swa, 0.4), (deu, 0.1)];
        let aux = [(swa, 0.6), (deu, 0.4), (eng, 0.0)];
        let both = fused(&tag, &aux);
        let total = 0.4 * 0.6 + 0.1 * 0.4 + 0.5 * 1e-6;
        assert_eq!(both.iter().map(|l| l.0).collect::<Vec<_>>(), [swa, deu, eng]);
        assert!((both[0].1 - 0.24 / total).abs() < 1e-9);
        assert!(both[2].1 > 0.0, "one source alone rules nothing out");
        Ok(())
    }

    #[test]
    fn temperature_flattens_and_cosines_are_a_softmax() -> Result<(), TextError> {
        let [eng, swa, deu] = ["eng", "swa", "deu"].map(str::parse);
        let (eng, swa, deu) = (eng?, swa?, deu?);
        let mut ranked = vec![(swa, 0.2), (eng, 0.8)];
        calibrated(&mut ranked, 2.0);
        let want = 0.8_f64.sqrt() / (0.8_f64.sqrt() + 0.2_f64.sqrt());
        assert_eq!(ranked[0].0, eng);
        assert!((ranked[0].1 - want).abs() < 1e-12);
        let mut nothing = vec![(swa, 0.0)];
        calibrated(&mut nothing, 2.0);
        assert_eq!(nothing[0].1, 0.0);
        let vocabulary = Vocabulary::build([eng, swa, deu], ["a"], 1)?;
        let order: Vec<Language> =
            vocabulary.language_ids().filter_map(|id| vocabulary.language_of(id)).collect();
        let cosines: Vec<f32> = order
            .iter()
            .map(|l| {
                if *l == swa {
                    0.9
                } else if *l == eng {
                    0.8
                } else {
                    -1.0
                }
            })
            .collect();
        let ranked = score_classes(&cosines, &vocabulary, Some(&[eng, swa]));
        assert_eq!((ranked.len(), ranked[0].0), (2, swa));
        let want = 1.0 / (1.0 + (-3.0_f64).exp());
        assert!((ranked[0].1 - want).abs() < 1e-6);
        Ok(())
    }
}
