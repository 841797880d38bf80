//! How a run goes, whatever it trains.

use super::{AdamWConfig, Decay, Schedule, TrainError};
use serde::{Deserialize, Deserializer, Serialize};

/// Settings of the loop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Seed of initial weights, batches, perturbations and dropout.
    pub seed: u64,
    /// Learning rate over the run.
    pub schedule: Schedule,
    /// Optimiser.
    pub optimiser: AdamWConfig,
    /// Batches per step, computed side by side, one thread each; part of the result.
    pub micro_batches: usize,
    /// Beginnings of the names of parameters that stay as they are, such as
    /// `feature_extractor.` or `encoders.0.layers.`; each must be that of one at least.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frozen: Vec<String>,
    /// Most parameters that may be trained; a run that would train more does not start.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "count")]
    pub max_trainable: Option<usize>,
    /// Matrix products in bf16 (f32 sums, f32 master weights) where the CPU has them.
    pub bf16: bool,
    /// Compute Transformer layers again in the backward pass instead of keeping what they computed
    /// on the way: less memory, a third more time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recompute: bool,
    /// Steps between lines of the log.
    pub log_every: u64,
    /// Steps between validations; the last step is always validated.
    pub validate_every: u64,
    /// Steps between checkpoints.
    pub save_every: u64,
}

/// A whole number, also of the form 100e6.
pub(super) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    let number = f64::deserialize(deserializer)?;
    if number.fract() == 0.0 && (0.0..1e15).contains(&number) {
        return Ok(Some(number as usize));
    }
    let found = serde::de::Unexpected::Float(number);
    Err(serde::de::Error::invalid_value(found, &"a whole number such as 100e6"))
}

impl RunConfig {
    /// Checks that so many parameters may be trained.
    ///
    /// # Errors
    /// [`TrainError::TooManyTrainable`] above `max_trainable`.
    pub fn check_trainable(&self, count: usize) -> Result<(), TrainError> {
        match self.max_trainable {
            Some(limit) if count > limit => Err(TrainError::TooManyTrainable { count, limit }),
            _ => Ok(()),
        }
    }

    /// Checks every range.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for the first setting out of range.
    pub fn validate(&self) -> Result<(), TrainError> {
        let check = |ok: bool, field, expected| {
            if ok { Ok(()) } else { Err(TrainError::Setting { field, expected }) }
        };
        let schedule = &self.schedule;
        check(schedule.peak > 0.0 && schedule.peak < 1.0, "schedule.peak", "above 0 and below 1")?;
        check(schedule.steps >= 1 && schedule.steps < 1 << 31, "schedule.steps", "1 to 2^31")?;
        check(
            (0.0..=1.0).contains(&schedule.initial_share),
            "schedule.initial_share",
            "between 0 and 1",
        )?;
        check(
            schedule.warmup_steps.saturating_add(schedule.hold_steps) < schedule.steps,
            "schedule.warmup_steps",
            "with schedule.hold_steps fewer than schedule.steps",
        )?;
        check(
            (0.0..=1.0).contains(&schedule.final_share),
            "schedule.final_share",
            "between 0 and 1",
        )?;
        match schedule.decay {
            Decay::Polynomial { power } => {
                check(power > 0.0 && power <= 100.0, "schedule.decay.power", "above 0, up to 100")?;
            }
            Decay::Exponential => check(
                schedule.final_share > 0.0,
                "schedule.final_share",
                "above 0 where decay is exponential",
            )?,
        }
        let optimiser = &self.optimiser;
        check(
            optimiser.betas.iter().all(|b| (0.0..1.0).contains(b)),
            "optimiser.betas",
            "from 0 up to 1",
        )?;
        check(optimiser.eps > 0.0, "optimiser.eps", "above 0")?;
        check(optimiser.weight_decay >= 0.0, "optimiser.weight_decay", "at least 0")?;
        check(optimiser.clip_norm > 0.0, "optimiser.clip_norm", "above 0")?;
        check((1..=1024).contains(&self.micro_batches), "micro_batches", "1 to 1024")?;
        check(self.log_every >= 1, "log_every", "at least 1")?;
        check(self.validate_every >= 1, "validate_every", "at least 1")?;
        check(self.save_every >= 1, "save_every", "at least 1")
    }
}
