//! Which language the CTC output begins with.

use crate::text::{Language, Vocabulary};

/// Probability of each language being the first token, over all alignments.
#[derive(Debug, Clone, PartialEq)]
pub struct LanguageScores {
    /// Languages with their probability, most likely first; they sum to 1.
    pub ranked: Vec<(Language, f64)>,
    /// Probability that the output begins with a language tag at all.
    pub mass: f64,
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
    let vocab = vocabulary.len();
    let ids = vocabulary.language_ids();
    let mut sums = vec![0.0_f64; ids.len()];
    let mut all_blank = 1.0_f64;
    for row in log_probs.chunks_exact(vocab.max(1)) {
        for (sum, id) in sums.iter_mut().zip(ids.clone()) {
            *sum += all_blank * f64::from(row[id as usize]).exp();
        }
        all_blank *= f64::from(row[0]).exp();
    }
    let mass = sums.iter().sum();
    let mut ranked: Vec<(Language, f64)> = ids
        .zip(sums)
        .filter_map(|(id, sum)| Some((vocabulary.language_of(id)?, sum)))
        .filter(|(language, _)| candidates.is_none_or(|c| c.contains(language)))
        .collect();
    let total: f64 = ranked.iter().map(|(_, sum)| sum).sum();
    for (_, score) in &mut ranked {
        *score = if total > 0.0 { *score / total } else { 0.0 };
    }
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    LanguageScores { ranked, mass }
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
}
