//! The loop.

use super::adamw::{AdamW, AdamWConfig};
use super::dro::{CtcDro, CtcDroConfig, GroupLoss};
use super::log::Log;
use super::loss::{LanguageLoss, Losses};
use super::schedule::Schedule;
use super::{TrainError, checkpoint, loader};
use crate::data::{Batch, BatchConfig, Batches, DataError};
use crate::model::{Parameters, Pass, Recogniser, Sequence};
use asr_kernels::gradients::Gradients;
use asr_kernels::{Precision, threads};
use candle_core::{Device, Tensor, Var};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

/// Steps in a row that may fail before the run stops.
const MAX_NOT_FINITE: usize = 20;

/// How a recogniser is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Seed of initial weights, batches, perturbations and dropout.
    pub seed: u64,
    /// Learning rate over the run.
    pub schedule: Schedule,
    /// Optimiser.
    pub optimiser: AdamWConfig,
    /// Batches per step, computed side by side, one thread each; part of the result.
    pub micro_batches: usize,
    /// Share of the loss taken by the lowest resolution.
    pub low_weight: f64,
    /// Weight of the loss on the language tag by itself.
    pub language_weight: f64,
    /// Share of the CTC loss taken by the taps of `joint.intermediate_ctc`, 0 up to 1; 0.3 is a
    /// good start.
    #[serde(default)]
    pub intermediate_weight: f64,
    /// Loss of the language head and the places; needed where `joint` has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language_loss: Option<LanguageLoss>,
    /// Weighs languages by how badly they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ctc_dro: Option<CtcDroConfig>,
    /// What the learning rate of the encoder is multiplied by; heads have the full one.
    #[serde(default = "one")]
    pub encoder_rate: f64,
    /// Beginnings of the names of parameters that stay as they are, such as
    /// `feature_extractor.` or `encoders.0.layers.`; each must be that of one at least.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frozen: Vec<String>,
    /// Most parameters that may be trained; a run that would train more does not start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_trainable: Option<usize>,
    /// Matrix products in bf16 (f32 sums, f32 master weights) where the CPU has them.
    pub bf16: bool,
    /// Steps between lines of the log.
    pub log_every: u64,
    /// Steps between validations; the last step is always validated.
    pub validate_every: u64,
    /// Steps between checkpoints.
    pub save_every: u64,
}

/// The learning rate as it is.
fn one() -> f64 {
    1.0
}

impl TrainConfig {
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
            schedule.warmup_steps < schedule.steps,
            "schedule.warmup_steps",
            "fewer than schedule.steps",
        )?;
        check(
            (0.0..=1.0).contains(&schedule.final_share),
            "schedule.final_share",
            "between 0 and 1",
        )?;
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
        check((0.0..=1.0).contains(&self.low_weight), "low_weight", "between 0 and 1")?;
        check(
            (0.0..=1000.0).contains(&self.language_weight),
            "language_weight",
            "between 0 and 1000",
        )?;
        check(
            (0.0..1.0).contains(&self.intermediate_weight),
            "intermediate_weight",
            "from 0 up to, not including, 1",
        )?;
        check(
            self.encoder_rate > 0.0 && self.encoder_rate <= 1.0,
            "encoder_rate",
            "above 0, at most 1",
        )?;
        if let Some(loss) = &self.language_loss {
            loss.validate()?;
        }
        if let Some(dro) = &self.ctc_dro {
            dro.validate()?;
        }
        check(self.log_every >= 1, "log_every", "at least 1")?;
        check(self.validate_every >= 1, "validate_every", "at least 1")?;
        check(self.save_every >= 1, "save_every", "at least 1")
    }
}

/// What one logged step looked like, averaged since the line before.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepReport {
    /// The step, from 1.
    pub step: u64,
    /// High-resolution CTC loss per token, nats.
    pub loss: f64,
    /// Norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// Learning rate.
    pub lr: f64,
    /// Seconds of audio trained on per second of time.
    pub audio_per_s: f64,
    /// Share of the time spent waiting for data.
    pub waiting: f64,
    /// Clips left out because they are too short for their text.
    pub infeasible: usize,
    /// Steps left out because something was not finite.
    pub not_finite: usize,
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

/// A recogniser in training.
#[derive(Debug)]
pub struct Trainer<'a> {
    /// The model; must have been built on `parameters`.
    pub model: &'a Recogniser,
    /// Its parameters; those that are frozen stay as they are.
    pub parameters: &'a Parameters,
    /// The geolocation vector of each language of the vocabulary, in order, where it has one.
    pub places: &'a [Option<Vec<f32>>],
    /// Where batches come from.
    pub batches: &'a Batches<'a>,
    /// How they are drawn.
    pub batch_config: &'a BatchConfig,
    /// How it is trained.
    pub config: &'a TrainConfig,
    /// Folder of checkpoint and log.
    pub folder: &'a Path,
    /// Set from outside to stop after the current step.
    pub stop: &'a AtomicBool,
}

/// What one micro-batch contributed.
struct Share {
    loss: f64,
    tokens: usize,
    infeasible: usize,
    audio_s: f64,
    groups: Vec<GroupLoss>,
}

/// Sums between two lines of the log.
#[derive(Default)]
struct Tally {
    loss: f64,
    tokens: usize,
    audio_s: f64,
    waited: Duration,
    gradient_norm: f64,
    infeasible: usize,
    not_finite: usize,
    steps: u64,
}

impl Trainer<'_> {
    /// Trains from the checkpoint in `folder`, or from the start, to the last step.
    ///
    /// # Errors
    /// [`TrainError`]; the last checkpoint stays valid.
    pub fn run(&self, observer: &mut dyn Observe) -> Result<Finished, TrainError> {
        self.config.validate()?;
        let trainable = self.trainable()?;
        let mut optimiser = AdamW::new(self.config.optimiser.clone(), trainable);
        let mut dro =
            self.config.ctc_dro.clone().map(|config| CtcDro::new(config, self.places.len()));
        let start = checkpoint::restore(self.folder, &mut optimiser, dro.as_mut())?.unwrap_or(0);
        let mut log = Log::open(self.folder, start)?;
        let steps = self.config.schedule.steps;
        let (sender, receiver) = sync_channel(3);
        std::thread::scope(|scope| {
            // Dropped on the way out, whatever the reason, so that the loader ends too.
            let receiver = receiver;
            let per_step = self.config.micro_batches;
            scope.spawn(move || {
                threads::serial(|| {
                    loader::run(
                        self.batches,
                        self.batch_config,
                        per_step,
                        (start + 1, steps),
                        &sender,
                    );
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
                let shares = self.compute(&batches, step, dro.as_ref(), &mut gradients)?;
                if let Some(dro) = &mut dro {
                    dro.update(shares.iter().flat_map(|share| &share.groups));
                }
                shares.iter().for_each(|share| tally.add(share));
                // The gradient is averaged over tokens.
                let tokens: usize = shares.iter().map(|share| share.tokens).sum();
                let scale = 1.0 / tokens.max(1) as f64;
                let lr = self.config.schedule.at(step);
                let norm = optimiser.step(&mut gradients, scale, lr, step)?;
                tally.steps += 1;
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
                let stop = self.stop.load(Ordering::Relaxed);
                if step % self.config.save_every == 0 || last || stop {
                    checkpoint::save(self.folder, &optimiser, dro.as_ref(), step)?;
                }
                if step % self.config.validate_every == 0 || last {
                    let scores = observer
                        .validate(step)
                        .map_err(|source| TrainError::Observe { step, source })?;
                    log.write(&json!({ "step": step, "dev": scores }))?;
                    since = Instant::now();
                }
                if stop && !last {
                    return Ok(Finished::Interrupted { step });
                }
            }
            Ok(Finished::Done)
        })
    }

    /// What is trained, each with the factor of its learning rate.
    fn trainable(&self) -> Result<Vec<(String, Var, f64)>, TrainError> {
        let all = self.parameters.all();
        for start in &self.config.frozen {
            if !all.iter().any(|(name, _)| name.starts_with(start.as_str())) {
                return Err(TrainError::NothingToFreeze { start: start.clone() });
            }
        }
        let trainable = self.parameters.trainable();
        let count = trainable.iter().map(|(_, var)| var.elem_count()).sum();
        if let Some(limit) = self.config.max_trainable
            && count > limit
        {
            return Err(TrainError::TooManyTrainable { count, limit });
        }
        let heads = ["proj.", "low_proj.", "intermediate_ctc.", "geo.", "language."];
        let rate = |name: &str| {
            if heads.iter().any(|h| name.starts_with(h)) { 1.0 } else { self.config.encoder_rate }
        };
        let with_rate = |(name, var): (String, Var)| {
            let rate = rate(&name);
            (name, var, rate)
        };
        Ok(trainable.into_iter().map(with_rate).collect())
    }

    /// Forward and backward of the micro-batches, side by side on the threads there are; each
    /// fills its own gradients.
    fn compute(
        &self,
        batches: &[Batch],
        step: u64,
        dro: Option<&CtcDro>,
        gradients: &mut [Gradients],
    ) -> Result<Vec<Share>, TrainError> {
        batches
            .par_iter()
            .zip(gradients)
            .with_max_len(1)
            .enumerate()
            .map(|(i, (batch, gradients))| {
                threads::serial(|| self.share(batch, (step, i as u64), dro, gradients))
            })
            .collect()
    }

    fn share(
        &self,
        batch: &Batch,
        (step, number): (u64, u64),
        dro: Option<&CtcDro>,
        gradients: &mut Gradients,
    ) -> Result<Share, TrainError> {
        let precision = if self.config.bf16 { Precision::Bf16 } else { Precision::F32 };
        let seed = crate::data::Random::new(&[self.config.seed, step, number]).next_u64();
        let pass = Pass::training(precision, seed);
        let shape = (batch.lengths.len(), batch.frames, batch.bins);
        let input = Sequence {
            hidden: Tensor::from_slice(&batch.features, shape, &Device::Cpu)?,
            lengths: batch.lengths.clone(),
        };
        let output = self.model.forward(&input, &pass)?;
        let losses = Losses { config: self.config, places: self.places, dro };
        let loss = losses.of(&output, &batch.labels)?;
        gradients.backward(&loss.sum)?;
        let may_be_skipped = self.model.encoder().config().layer_drop > 0.0;
        for (name, var) in self.parameters.trainable() {
            let skipped = may_be_skipped && name.contains(".layers.");
            if gradients.get(&var).is_none() && !skipped {
                return Err(TrainError::NoGradient { name });
            }
        }
        Ok(Share {
            loss: loss.nats,
            tokens: loss.n_tokens,
            infeasible: loss.n_infeasible,
            audio_s: batch.audio_s,
            groups: loss.groups,
        })
    }
}

impl Tally {
    fn add(&mut self, share: &Share) {
        self.tokens += share.tokens;
        self.loss += share.loss;
        self.infeasible += share.infeasible;
        self.audio_s += share.audio_s;
    }

    fn report(self, step: u64, lr: f64, elapsed: Duration) -> StepReport {
        let seconds = elapsed.as_secs_f64().max(1e-9);
        let finite = self.steps.saturating_sub(self.not_finite as u64).max(1);
        StepReport {
            step,
            loss: self.loss / self.tokens.max(1) as f64,
            gradient_norm: self.gradient_norm / finite as f64,
            lr,
            audio_per_s: self.audio_s / seconds,
            waiting: self.waited.as_secs_f64() / seconds,
            infeasible: self.infeasible,
            not_finite: self.not_finite,
        }
    }
}
