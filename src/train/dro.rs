//! CTC-DRO (Bartelds et al. 2025, arXiv 2502.01777): languages that do badly count more.

use super::TrainError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How the weights of the languages move.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CtcDroConfig {
    /// Size of a step of the weights, `eta`.
    pub step: f64,
    /// Smoothing, `alpha`: the larger, the less weights run away from each other.
    pub smoothing: f64,
}

impl CtcDroConfig {
    pub(super) fn validate(&self) -> Result<(), TrainError> {
        let check = |ok: bool, field, expected| {
            if ok { Ok(()) } else { Err(TrainError::Setting { field, expected }) }
        };
        check((0.0..=10.0).contains(&self.step), "ctc_dro.step", "from 0 to 10")?;
        check(
            self.smoothing > 0.0 && self.smoothing <= 1e3,
            "ctc_dro.smoothing",
            "above 0, at most 1000",
        )
    }
}

/// What a clip of a language cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupLoss {
    /// Position of the language in the vocabulary, from 0.
    pub language: usize,
    /// CTC loss, nats.
    pub nats: f64,
    /// Output frames.
    pub frames: usize,
}

/// A weight per language; they sum to 1.
#[derive(Debug, Clone)]
pub(super) struct CtcDro {
    config: CtcDroConfig,
    /// In f32, as they are stored, so that a resumed run has the same.
    weights: Vec<f32>,
}

impl CtcDro {
    pub(super) fn new(config: CtcDroConfig, languages: usize) -> Self {
        Self { config, weights: vec![1.0 / languages.max(1) as f32; languages] }
    }

    pub(super) fn weights(&self) -> &[f32] {
        &self.weights
    }

    pub(super) fn restore(&mut self, weights: Vec<f32>) {
        self.weights = weights;
    }

    /// What the loss of a clip is multiplied by; 1 on average over the languages.
    pub(super) fn factor(&self, language: Option<usize>) -> f32 {
        let weight = language.and_then(|language| self.weights.get(language));
        weight.map_or(1.0, |weight| weight * self.weights.len() as f32)
    }

    /// `q <- q exp(eta loss / (q + alpha))` for each language heard in the step, renormalised.
    /// The loss is in nats per frame: CTC losses grow with length, and batches of one length,
    /// which the paper draws against that, are not needed then.
    pub(super) fn update<'a>(&mut self, losses: impl Iterator<Item = &'a GroupLoss>) {
        let mut sums: BTreeMap<usize, (f64, usize)> = BTreeMap::new();
        for loss in losses {
            let (nats, frames) = sums.entry(loss.language).or_default();
            *nats += loss.nats;
            *frames += loss.frames;
        }
        for (language, (nats, frames)) in sums {
            let loss = nats / frames.max(1) as f64;
            if let Some(weight) = self.weights.get_mut(language)
                && loss.is_finite()
            {
                let q = f64::from(*weight);
                // A bound far above any sound loss keeps the exponential finite.
                let grown = (self.config.step * loss / (q + self.config.smoothing)).min(50.0);
                *weight = (q * grown.exp()) as f32;
            }
        }
        let total: f64 = self.weights.iter().map(|w| f64::from(*w)).sum();
        for weight in &mut self.weights {
            *weight = (f64::from(*weight) / total) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worse_language_counts_more_and_the_mean_stays() {
        let mut dro = CtcDro::new(CtcDroConfig { step: 0.1, smoothing: 0.5 }, 3);
        assert_eq!(dro.factor(Some(1)), 1.0);
        let loss = |language, nats| GroupLoss { language, nats, frames: 10 };
        dro.update([loss(0, 10.0), loss(0, 30.0), loss(1, 5.0)].iter());
        // By hand: q = 1/3, losses 2 and 0.5 per frame.
        let grown = [2.0, 0.5, 0.0].map(|l| (0.1_f64 * l / (1.0 / 3.0 + 0.5)).exp());
        let total: f64 = grown.iter().sum();
        for (language, g) in grown.iter().enumerate() {
            let want = 3.0 * g / total;
            assert!((f64::from(dro.factor(Some(language))) - want).abs() < 1e-6);
        }
        assert_eq!((dro.factor(None), dro.factor(Some(7))), (1.0, 1.0));
        let sum: f32 = dro.weights().iter().sum();
        assert!((sum - 1.0).abs() < 1e-6);
    }
}
