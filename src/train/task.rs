//! What is trained, as the loop sees it: batches and their loss.

use super::TrainError;
use crate::data::{Batch, BatchPlan, Batches};
use crate::model::Pass;
use candle_core::Tensor;
use std::fmt;

/// Where batches come from; they are made ahead on another thread.
pub trait Source: Sync {
    /// A batch.
    type Batch: Send + Sync;

    /// The clips of each batch of an epoch.
    fn plan(&self, epoch: u64) -> BatchPlan;

    /// The batch of `clips`; `key` (epoch and number) decides what is left to chance.
    ///
    /// # Errors
    /// [`TrainError`] if a clip cannot be used.
    fn make(&self, clips: &[usize], key: u64) -> Result<Self::Batch, TrainError>;
}

/// The loss of a batch, not yet averaged.
pub struct BatchLoss<N> {
    /// Sum, to be differentiated.
    pub sum: Tensor,
    /// What the gradient is divided by, summed over the batches of a step: tokens, frames.
    pub divisor: usize,
    /// What there is to tell of the batch.
    pub telling: Telling<N>,
}

impl<N> BatchLoss<N> {
    /// `tell` is asked once the step is under way: on a device reading numbers waits for what was
    /// asked of it before. What it keeps should be detached from the gradient.
    pub fn new(
        sum: Tensor,
        divisor: usize,
        tell: impl FnOnce() -> candle_core::Result<Told<N>> + Send + 'static,
    ) -> Self {
        Self { sum, divisor, telling: Telling(Box::new(tell)) }
    }
}

impl<N> fmt::Debug for BatchLoss<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchLoss")
            .field("sum", &self.sum)
            .field("divisor", &self.divisor)
            .finish_non_exhaustive()
    }
}

/// What there is to tell of a batch, before it is read.
pub struct Telling<N>(Box<dyn FnOnce() -> candle_core::Result<Told<N>> + Send>);

impl<N> Telling<N> {
    /// Reads it.
    ///
    /// # Errors
    /// If the device fails.
    pub fn read(self) -> candle_core::Result<Told<N>> {
        self.0()
    }
}

impl<N> fmt::Debug for Telling<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telling").finish_non_exhaustive()
    }
}

/// What a batch tells the log and the task.
#[derive(Debug)]
pub struct Told<N> {
    /// The loss, as a sum, nats.
    pub nats: f64,
    /// Seconds of audio.
    pub audio_s: f64,
    /// What is counted between two lines of the log.
    pub counts: Vec<(&'static str, usize)>,
    /// What is averaged between two lines of the log.
    pub means: Vec<Mean>,
    /// What the task wants to know of the batch once the step is done.
    pub note: N,
}

/// A sum with the number of its terms.
#[derive(Debug, Clone, PartialEq)]
pub struct Mean {
    /// Its name in the log.
    pub name: String,
    /// The sum.
    pub sum: f64,
    /// Of how many.
    pub count: usize,
}

/// What is trained.
pub trait Task: Sync {
    /// What a loss is computed of.
    type Batch: Send + Sync;
    /// What a batch tells [`Task::learn`].
    type Note: Send;

    /// The loss of a batch.
    ///
    /// # Errors
    /// [`TrainError`] if it cannot be computed.
    fn loss(&self, batch: &Self::Batch, pass: &Pass) -> Result<BatchLoss<Self::Note>, TrainError>;

    /// What the learning rate is multiplied by for a parameter.
    fn rate(&self, _name: &str) -> f64 {
        1.0
    }

    /// Steps for which a parameter stays as it is.
    fn held(&self, _name: &str) -> u64 {
        0
    }

    /// Called before the batches of a step, counted from 1.
    fn begin(&mut self, _step: u64) {}

    /// Whether a batch may leave a parameter without gradient; for all others that is an error.
    fn may_lack_gradient(&self, _name: &str) -> bool {
        false
    }

    /// Called after each step with what its batches told.
    fn learn(&mut self, _notes: Vec<Self::Note>) {}

    /// State of the task that a checkpoint keeps, each with its name.
    fn state(&self) -> Vec<(&'static str, Vec<f32>)> {
        Vec::new()
    }

    /// Takes back what [`Task::state`] gave: as many lists, each of the same length.
    fn restore(&mut self, _state: Vec<Vec<f32>>) {}
}

/// Batches of labelled clips with how they are drawn.
#[derive(Debug)]
pub struct Transcribed<'a> {
    /// The batches.
    pub batches: &'a Batches<'a>,
    /// How they are drawn.
    pub config: &'a crate::data::BatchConfig,
}

impl Source for Transcribed<'_> {
    type Batch = Batch;

    fn plan(&self, epoch: u64) -> BatchPlan {
        BatchPlan::draw(self.batches.corpus, self.config, self.batches.seed, epoch)
    }

    fn make(&self, clips: &[usize], key: u64) -> Result<Batch, TrainError> {
        Ok(self.batches.make(clips, key)?)
    }
}
