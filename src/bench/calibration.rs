//! Making language scores honest: a temperature and a threshold fitted on held-out clips.

use super::corpus::{CorpusError, batches, transcribed};
use crate::config::Calibration;
use crate::data::Corpus;
use crate::decode::{ScoredLanguage, Transcriber};
use crate::text::Language;

/// Share of the clips whose language is rightly named that may fall below the threshold.
const REJECTED: f64 = 0.02;
/// Bins of the expected calibration error.
const BINS: usize = 10;
/// Probabilities below this are taken for it: their logarithm says no more.
const LEAST: f64 = 1e-30;

/// A calibration and what it was fitted on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fitted {
    /// The calibration.
    pub calibration: Calibration,
    /// Clips it was fitted on.
    pub clips: usize,
    /// Expected calibration error with it (Naeini et al. 2015, 10 bins of equal width).
    pub error: f64,
    /// The same without it.
    pub error_before: f64,
}

/// Logarithms of the scores of a clip, and which is right.
struct Case {
    log_scores: Vec<f64>,
    right: usize,
}

impl Case {
    fn new(scores: &[ScoredLanguage], language: Language) -> Option<Self> {
        let right = scores.iter().position(|s| s.code == language)?;
        Some(Self { log_scores: scores.iter().map(|s| s.score.max(LEAST).ln()).collect(), right })
    }

    /// Probabilities at a temperature.
    fn probabilities(&self, temperature: f64) -> Vec<f64> {
        let highest = self.log_scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let powers: Vec<f64> =
            self.log_scores.iter().map(|s| ((s - highest) / temperature).exp()).collect();
        let total: f64 = powers.iter().sum();
        powers.into_iter().map(|p| p / total).collect()
    }

    /// Score of the first language and whether it is right.
    fn best(&self, temperature: f64) -> (f64, bool) {
        let probabilities = self.probabilities(temperature);
        let first = (0..probabilities.len())
            .max_by(|&a, &b| probabilities[a].total_cmp(&probabilities[b]))
            .unwrap_or(0);
        (probabilities[first], first == self.right)
    }
}

/// Fits a calibration for `transcriber`, which has none yet, on the clips of `corpus` in which
/// it hears a voice and whose language it knows; `None` if there are none.
///
/// The temperature is the one under which the right languages are likeliest. The threshold is
/// the highest that turns away at most 2 % of the clips whose language is rightly named.
///
/// # Errors
/// [`CorpusError`] if a clip cannot be read any more or the model not be run.
pub fn calibrate(
    transcriber: &Transcriber,
    corpus: &Corpus,
) -> Result<Option<Fitted>, CorpusError> {
    let mut cases = Vec::new();
    for clips in batches(corpus) {
        for (i, found) in transcribed(transcriber, corpus, &clips)? {
            let language = corpus.clips()[i].language;
            cases.extend(language.and_then(|language| Case::new(&found.languages, language)));
        }
    }
    Ok(fit(&cases))
}

fn fit(cases: &[Case]) -> Option<Fitted> {
    if cases.is_empty() {
        return None;
    }
    let temperature = best_temperature(cases);
    let mut named: Vec<f64> = cases
        .iter()
        .map(|case| case.best(temperature))
        .filter_map(|(score, right)| right.then_some(score))
        .collect();
    named.sort_by(f64::total_cmp);
    let rejected = (named.len() as f64 * REJECTED) as usize;
    Some(Fitted {
        calibration: Calibration {
            temperature,
            unknown_threshold: named.get(rejected).copied().unwrap_or(0.0),
        },
        clips: cases.len(),
        error: calibration_error(cases, temperature),
        error_before: calibration_error(cases, 1.0),
    })
}

/// Mean negative log-probability of the right languages.
fn loss(cases: &[Case], temperature: f64) -> f64 {
    let losses = cases.iter().map(|case| {
        let highest = case.log_scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = case.log_scores.iter().map(|s| ((s - highest) / temperature).exp()).sum();
        total.ln() - (case.log_scores[case.right] - highest) / temperature
    });
    losses.sum::<f64>() / cases.len() as f64
}

/// The temperature of least loss from 0.05 to 20, by golden section on its logarithm: the loss
/// is convex in the inverse temperature, so it has one valley.
fn best_temperature(cases: &[Case]) -> f64 {
    let ratio = (5.0_f64.sqrt() - 1.0) / 2.0;
    let (mut low, mut high) = (0.05_f64.ln(), 20.0_f64.ln());
    for _ in 0..60 {
        let width = ratio * (high - low);
        let (a, b) = (high - width, low + width);
        if loss(cases, a.exp()) <= loss(cases, b.exp()) {
            high = b;
        } else {
            low = a;
        }
    }
    (0.5 * (low + high)).exp()
}

/// Expected calibration error: how far scores and hits are apart, bin by bin.
fn calibration_error(cases: &[Case], temperature: f64) -> f64 {
    let mut bins = [(0.0, 0.0); BINS];
    for case in cases {
        let (score, right) = case.best(temperature);
        let (scores, hits) = &mut bins[((score * BINS as f64) as usize).min(BINS - 1)];
        *scores += score;
        *hits += f64::from(u8::from(right));
    }
    bins.iter().map(|(scores, hits)| (scores - hits).abs()).sum::<f64>() / cases.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `n` clips over two languages, scored `score` for the first, of which `right` are so.
    fn cases(n: usize, right: usize, score: f64) -> Vec<Case> {
        (0..n)
            .map(|i| Case {
                log_scores: vec![score.ln(), (1.0 - score).ln()],
                right: usize::from(i >= right),
            })
            .collect()
    }

    #[test]
    fn scores_become_shares_of_hits() {
        // 0.99 is claimed and 80 of 100 are right: odds of 99 must become odds of 4.
        let cases = cases(100, 80, 0.99);
        let fitted = fit(&cases).expect("there are cases");
        let want = 99.0_f64.ln() / 4.0_f64.ln();
        assert!((fitted.calibration.temperature - want).abs() < 1e-4, "{fitted:?}");
        assert!((fitted.error_before - 0.19).abs() < 1e-9 && fitted.error < 1e-4, "{fitted:?}");
        assert!((fitted.calibration.unknown_threshold - 0.8).abs() < 1e-4);
        assert_eq!(fit(&[]), None);
    }

    #[test]
    fn the_threshold_turns_away_two_in_a_hundred() {
        let mut all: Vec<Case> =
            (0..100).flat_map(|i| cases(1, 1, 0.55 + 0.004 * f64::from(i))).collect();
        all.extend(cases(30, 0, 0.6));
        let fitted = fit(&all).expect("there are cases");
        let threshold = fitted.calibration.unknown_threshold;
        let below = all
            .iter()
            .map(|case| case.best(fitted.calibration.temperature))
            .filter(|(score, right)| *right && *score < threshold)
            .count();
        assert_eq!(below, 2);
    }
}
