//! The loop.

use super::adamw::AdamW;
use super::checkpoint::Beside;
use super::log::Log;
use super::run_config::RunConfig;
use super::task::{BatchLoss, Source, Task, Telling, Told};
use super::{TrainError, checkpoint, loader};
use crate::data::{DataError, Random};
use crate::model::{BatchStatistics, Parameters, Pass};
use asr_kernels::gradients::Gradients;
use asr_kernels::{Precision, threads};
use candle_core::Var;
use rayon::prelude::*;
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

/// Steps in a row that may fail before the run stops.
const MAX_NOT_FINITE: usize = 20;

/// What one logged step looked like, averaged since the line before.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepReport {
    /// The step, from 1.
    pub step: u64,
    /// Loss per token or predicted frame, nats.
    pub loss: f64,
    /// Norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// Learning rate.
    pub lr: f64,
    /// Seconds of audio trained on per second of time.
    pub audio_per_s: f64,
    /// Share of the time spent waiting for data.
    pub waiting: f64,
    /// Steps left out because something was not finite.
    pub not_finite: usize,
    /// What the task counts, such as clips left out because they are too short for their text.
    #[serde(flatten)]
    pub counts: BTreeMap<&'static str, usize>,
    /// What the task averages, such as the share of units that were predicted.
    #[serde(flatten)]
    pub means: BTreeMap<String, f64>,
}

/// What the run tells, and asks, while it goes.
pub trait Observe {
    /// Called for every line of the log.
    fn step(&mut self, report: &StepReport);

    /// Called now and then: how good is the model? What is returned is put into the log.
    ///
    /// # Errors
    /// Whatever goes wrong; the run stops.
    fn validate(
        &mut self,
        step: u64,
    ) -> Result<serde_json::Value, Box<dyn std::error::Error + Send + Sync>>;
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// All steps are done.
    Done,
    /// It was asked to stop after this step; its checkpoint is written.
    Interrupted {
        /// The last step done.
        step: u64,
    },
}

/// A run.
#[derive(Debug)]
pub struct Trainer<'a, S> {
    /// The parameters; those that are frozen stay as they are.
    pub parameters: &'a Parameters,
    /// SHA-256 of an upstream whose weights are not in checkpoints, if there is one.
    pub upstream: Option<[u8; 32]>,
    /// Where batches come from.
    pub source: &'a S,
    /// How they are used.
    pub config: &'a RunConfig,
    /// Folder of checkpoint and log.
    pub folder: &'a Path,
    /// Set from outside to stop after the current step.
    pub stop: &'a AtomicBool,
}

/// What a micro-batch gave besides gradients.
struct Share<N> {
    divisor: usize,
    telling: Telling<N>,
    /// What batch norms found in it.
    statistics: Vec<BatchStatistics>,
}

/// Sums between two lines of the log.
#[derive(Default)]
struct Tally {
    loss: f64,
    divisor: usize,
    audio_s: f64,
    waited: Duration,
    gradient_norm: f64,
    not_finite: usize,
    steps: u64,
    counts: BTreeMap<&'static str, usize>,
    means: BTreeMap<String, (f64, usize)>,
}

impl<S: Source> Trainer<'_, S> {
    /// Trains from the checkpoint in `folder`, or from the start, to the last step. The model
    /// of `task` must have been built on the parameters.
    ///
    /// # Errors
    /// [`TrainError`]; the last checkpoint stays valid.
    pub fn run<T: Task<Batch = S::Batch>>(
        &self,
        task: &mut T,
        observer: &mut dyn Observe,
    ) -> Result<Finished, TrainError> {
        self.config.validate()?;
        let trainable = self.trainable(task)?;
        let mut optimiser = AdamW::new(self.config.optimiser.clone(), trainable)?;
        optimiser.hold(|name| task.held(name));
        let beside = Beside { parameters: self.parameters, upstream: self.upstream.as_ref() };
        let start = checkpoint::restore(self.folder, &mut optimiser, task, beside)?.unwrap_or(0);
        let mut log = Log::open(self.folder, start)?;
        let steps = self.config.schedule.steps;
        let (sender, receiver) = sync_channel(3);
        std::thread::scope(|scope| {
            // Dropped on the way out, whatever the reason, so that the loader ends too.
            let receiver = receiver;
            let per_step = self.config.micro_batches;
            scope.spawn(move || {
                threads::serial(|| {
                    loader::run(self.source, per_step, (start + 1, steps), &sender);
                });
            });
            let variables = self.parameters.trainable();
            let mut gradients: Vec<Gradients> = (0..per_step)
                .map(|_| Gradients::of(variables.iter().map(|(_, var)| var)))
                .collect();
            let mut tally = Tally::default();
            let mut since = Instant::now();
            let mut failures = 0;
            for step in start + 1..=steps {
                let waiting = Instant::now();
                let batches = receiver.recv().map_err(|_| DataError::Empty)??;
                tally.waited += waiting.elapsed();
                task.begin(step);
                let shares = self.compute(task, &batches, step, &mut gradients)?;
                // The gradient is averaged over tokens or frames.
                let divisor: usize = shares.iter().map(|share| share.divisor).sum();
                tally.divisor += divisor;
                let scale = 1.0 / divisor.max(1) as f64;
                let lr = self.config.schedule.at(step);
                // Nothing was read from a device up to here, and then only the norm: all waits once.
                let norm = optimiser.step(&mut gradients, scale, lr, step)?;
                tally.steps += 1;
                let mut notes = Vec::with_capacity(per_step);
                for share in shares {
                    if norm.is_finite() {
                        self.parameters.follow(&share.statistics)?;
                    }
                    notes.push(tally.add(share.telling.read()?));
                }
                task.learn(notes);
                if norm.is_finite() {
                    tally.gradient_norm += norm;
                    failures = 0;
                } else {
                    tally.not_finite += 1;
                    failures += 1;
                    if failures >= MAX_NOT_FINITE {
                        return Err(TrainError::NotFinite { count: failures, step });
                    }
                }
                let last = step == steps;
                if step % self.config.log_every == 0 || last {
                    let report = std::mem::take(&mut tally).report(step, lr, since.elapsed());
                    since = Instant::now();
                    log.write(&json!(report))?;
                    observer.step(&report);
                }
                if step % self.config.validate_every == 0 || last {
                    let scores = observer
                        .validate(step)
                        .map_err(|source| TrainError::Observe { step, source })?;
                    log.write(&json!({ "step": step, "dev": scores }))?;
                    since = Instant::now();
                }
                // After what the log says of the step, so that a resumed run says it, too.
                let stop = self.stop.load(Ordering::Relaxed);
                if step % self.config.save_every == 0 || last || stop {
                    checkpoint::save(self.folder, &optimiser, task, beside, step)?;
                }
                if stop && !last {
                    return Ok(Finished::Interrupted { step });
                }
            }
            Ok(Finished::Done)
        })
    }

    /// What is trained, each with the factor of its learning rate.
    fn trainable(&self, task: &impl Task) -> Result<Vec<(String, Var, f64)>, TrainError> {
        let all = self.parameters.all();
        for start in &self.config.frozen {
            if !all.iter().any(|(name, _)| name.starts_with(start.as_str())) {
                return Err(TrainError::NothingToFreeze { start: start.clone() });
            }
        }
        let trainable = self.parameters.trainable();
        self.config.check_trainable(trainable.iter().map(|(_, var)| var.elem_count()).sum())?;
        let with_rate = |(name, var): (String, Var)| {
            let rate = task.rate(&name);
            (name, var, rate)
        };
        Ok(trainable.into_iter().map(with_rate).collect())
    }

    /// Forward and backward of the micro-batches, side by side on the threads there are; each
    /// fills its own gradients.
    fn compute<T: Task<Batch = S::Batch>>(
        &self,
        task: &T,
        batches: &[S::Batch],
        step: u64,
        gradients: &mut [Gradients],
    ) -> Result<Vec<Share<T::Note>>, TrainError> {
        batches
            .par_iter()
            .zip(gradients)
            .with_max_len(1)
            .enumerate()
            .map(|(i, (batch, gradients))| {
                threads::serial(|| self.share(task, batch, (step, i as u64), gradients))
            })
            .collect()
    }

    fn share<T: Task<Batch = S::Batch>>(
        &self,
        task: &T,
        batch: &S::Batch,
        (step, number): (u64, u64),
        gradients: &mut Gradients,
    ) -> Result<Share<T::Note>, TrainError> {
        let precision = if self.config.bf16 { Precision::Bf16 } else { Precision::F32 };
        let seed = Random::new(&[self.config.seed, step, number]).next_u64();
        let pass = Pass::training(precision, seed).recomputing(self.config.recompute);
        let BatchLoss { sum, divisor, telling } = task.loss(batch, &pass)?;
        gradients.backward(&sum)?;
        drop(sum);
        for (name, var) in self.parameters.trainable() {
            if !gradients.reached(&var) && !task.may_lack_gradient(&name) {
                return Err(TrainError::NoGradient { name });
            }
        }
        Ok(Share { divisor, telling, statistics: pass.take_statistics() })
    }
}

impl Tally {
    /// Adds what a batch told; returns what is for the task.
    fn add<N>(&mut self, told: Told<N>) -> N {
        self.loss += told.nats;
        self.audio_s += told.audio_s;
        for (name, count) in told.counts {
            *self.counts.entry(name).or_default() += count;
        }
        for mean in told.means {
            let (sum, count) = self.means.entry(mean.name).or_default();
            *sum += mean.sum;
            *count += mean.count;
        }
        told.note
    }

    fn report(self, step: u64, lr: f64, elapsed: Duration) -> StepReport {
        let seconds = elapsed.as_secs_f64().max(1e-9);
        let finite = self.steps.saturating_sub(self.not_finite as u64).max(1);
        let mean = |(name, (sum, count)): (String, (f64, usize))| (name, sum / count.max(1) as f64);
        StepReport {
            step,
            loss: self.loss / self.divisor.max(1) as f64,
            gradient_norm: self.gradient_norm / finite as f64,
            lr,
            audio_per_s: self.audio_s / seconds,
            waiting: self.waited.as_secs_f64() / seconds,
            not_finite: self.not_finite,
            counts: self.counts,
            means: self.means.into_iter().map(mean).collect(),
        }
    }
}
