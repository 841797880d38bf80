//! The tracks of ML-SUPERB as runs: a small head learns on an encoder by the published recipes.
//!
//! Sources: ESPnet `egs2/ml_superb/asr1` and `egs2/ml_superb2/asr1`; Shi et al. 2023 (arXiv
//! 2305.10615), 2024 (arXiv 2406.08641). Where we differ: Hangul is spelt as jamo, Mandarin and
//! Japanese of the monolingual track as characters and not as phones, weight decay is decoupled
//! (AdamW), and the gradient is averaged over tokens.

mod candidates;
mod head;
mod job;
mod recordings;
mod rounds;
mod standing;
mod trial;

pub use head::Head;
pub use job::{Budget, Chosen, Job, Monolingual, Track, monolingual_configs};
pub use recordings::{Recordings, RecordingsError};
pub use standing::{Scored, System, standings};
pub use trial::{Candidate, Facts, MAX_TRAINABLE, RunFiles, Trial};

use crate::config::FineTuningError;
use crate::data::DataError;
use crate::features::FeatureError;
use crate::model::checkpoint::CheckpointError;
use crate::text::{ScoreError, TextError};
use crate::train::{AdamWConfig, Decay, Schedule, TrainError};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// How heads are trained; the default is published.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Seed of weights, batches and masks.
    pub seed: u64,
    /// What is trained above the encoder.
    #[serde(default)]
    pub head: Head,
    /// Updates of a run; published: a quarter of 15,000 batches (monolingual), 300,000 (10 min) or
    /// 600,000 (1 h and 2.0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updates: Option<u64>,
    /// Updates of a monolingual run, instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monolingual_updates: Option<u64>,
    /// Learning rate, constant.
    pub learning_rate: f64,
    /// What it is multiplied by for parameters of the encoder, where they learn.
    pub encoder_rate: f64,
    /// Utterances of a batch.
    pub batch_utterances: usize,
    /// Batches of an update.
    pub accumulate: usize,
    /// Looks at development; the best states are averaged.
    pub validations: u64,
    /// The optimiser.
    pub optimiser: AdamWConfig,
    /// Matrix products in bf16 where the CPU has them.
    pub bf16: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seed: 1,
            head: Head::default(),
            updates: None,
            monolingual_updates: None,
            learning_rate: 1e-4,
            encoder_rate: 0.1,
            batch_utterances: 8,
            accumulate: 4,
            validations: 30,
            optimiser: AdamWConfig {
                betas: [0.9, 0.999],
                eps: 1e-8,
                weight_decay: 1e-6,
                clip_norm: 5.0,
            },
            bf16: false,
        }
    }
}

impl Settings {
    /// Updates of a run.
    #[must_use]
    pub fn updates(&self, track: Track, budget: Budget) -> u64 {
        let published = match (track, budget) {
            (Track::Monolingual, _) => 15_000,
            (_, Budget::TenMinutes) => 300_000,
            (_, Budget::Hour) => 600_000,
        };
        let given = match track {
            Track::Monolingual => self.monolingual_updates.or(self.updates),
            _ => self.updates,
        };
        given.unwrap_or(published / 4).max(1)
    }

    /// States that are averaged: five, in 2.0 two.
    fn averaged(&self, track: Track) -> usize {
        if track == Track::Second { 2 } else { 5 }
    }

    fn schedule(&self, steps: u64) -> Schedule {
        Schedule {
            peak: self.learning_rate,
            initial_share: 1.0,
            warmup_steps: 0,
            hold_steps: 0,
            steps,
            final_share: 1.0,
            decay: Decay::default(),
        }
    }
}

/// What a run tells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event {
    /// A line of the log.
    Step {
        /// The update, from 1.
        step: u64,
        /// Updates in all.
        steps: u64,
        /// Loss per token, nats.
        loss: f64,
    },
    /// A look at development.
    Validated {
        /// After which update.
        step: u64,
        /// Loss per token, nats.
        loss: f64,
    },
}

/// A run that cannot be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Training.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// Data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Texts or tokens.
    #[error(transparent)]
    Text(#[from] TextError),
    /// Scores.
    #[error(transparent)]
    Score(#[from] ScoreError),
    /// The encoder's input.
    #[error(transparent)]
    Features(#[from] FeatureError),
    /// A model that cannot be put together.
    #[error(transparent)]
    Model(#[from] FineTuningError),
    /// Arithmetic.
    #[error("cannot compute")]
    Compute(#[from] candle_core::Error),
    /// Nothing to learn from, or nothing to look at meanwhile.
    #[error("`{job}` has no utterances to train on, or none for development")]
    Nothing {
        /// The run.
        job: String,
    },
    /// A file of the run.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file of the run.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A list or record of the run that is damaged.
    #[error("`{}` is damaged", path.display())]
    Candidates {
        /// Which.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A state of the model that cannot be read or written.
    #[error("cannot use `{}`", path.display())]
    Checkpoint {
        /// Which.
        path: PathBuf,
        /// Why.
        source: CheckpointError,
    },
    /// States of another model, or none.
    #[error("`{}` holds no state of this model", folder.display())]
    Incomplete {
        /// The run's folder.
        folder: PathBuf,
    },
}
