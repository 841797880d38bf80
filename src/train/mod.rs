//! Training: steps, optimiser, checkpoints, log.
//!
//! The layer knows nothing of decoding: how good a model is, it asks through [`Observe`]. One
//! loop trains everything: what is trained is a [`Task`], where its batches come from a
//! [`Source`].
//! A run is a function of its configuration and seed; it can be killed at any moment and
//! goes on from its last checkpoint to the same result.

mod adamw;
mod checkpoint;
mod ctc;
mod dro;
mod loader;
mod log;
mod loss;
mod run_config;
mod schedule;
mod stored;
mod task;
mod tensorboard;
mod trainer;

pub use adamw::AdamWConfig;
pub use ctc::{Recognition, TrainConfig};
pub use dro::{CtcDroConfig, GroupLoss};
pub use loss::LanguageLoss;
pub use run_config::RunConfig;
pub use schedule::{Decay, Schedule};
pub use stored::StatesPlan;
pub use task::{BatchLoss, Mean, Source, Task, Telling, Told, Transcribed};
pub use trainer::{Finished, Observe, StepReport, Trainer};

use crate::data::DataError;
use crate::model::checkpoint::CheckpointError;
use std::path::PathBuf;

/// A run that cannot start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A setting out of range.
    #[error("training setting `{field}` must be {expected}")]
    Setting {
        /// Name of the setting.
        field: &'static str,
        /// What is accepted.
        expected: &'static str,
    },
    /// The data failed.
    #[error("cannot make a batch")]
    Data(#[from] DataError),
    /// The batches of a layer above failed.
    #[error("cannot make a batch")]
    Source(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The arithmetic failed.
    #[error("cannot compute a step")]
    Compute(#[from] candle_core::Error),
    /// Parameters that the loss does not reach.
    #[error("no gradient reaches parameter `{name}`")]
    NoGradient {
        /// The first of them.
        name: String,
    },
    /// A beginning of names that no parameter has.
    #[error("no parameter's name begins with `{start}`, which is to be frozen")]
    NothingToFreeze {
        /// What was given.
        start: String,
    },
    /// More parameters than may be trained.
    #[error("{count} parameters would be trained, `max_trainable` allows {limit}")]
    TooManyTrainable {
        /// How many.
        count: usize,
        /// The bound.
        limit: usize,
    },
    /// Loss or gradient is not a number, again and again.
    #[error("loss or gradient was not finite in {count} steps in a row, last at step {step}")]
    NotFinite {
        /// How many.
        count: usize,
        /// The last of them.
        step: u64,
    },
    /// A checkpoint that cannot be read or written.
    #[error("cannot use the checkpoint in `{}`", folder.display())]
    Checkpoint {
        /// The run's folder.
        folder: PathBuf,
        /// Why.
        source: Box<CheckpointError>,
    },
    /// A checkpoint of another configuration or upstream.
    #[error("the checkpoint in `{}` is of another configuration: {problem}", folder.display())]
    OtherRun {
        /// The run's folder.
        folder: PathBuf,
        /// What differs.
        problem: &'static str,
    },
    /// A file of the run that cannot be read or written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The observer failed, for instance while validating.
    #[error("cannot validate at step {step}")]
    Observe {
        /// The step.
        step: u64,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
