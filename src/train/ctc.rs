//! Training a recogniser: its settings, and its batches and losses as the loop sees them.

use super::dro::{CtcDro, CtcDroConfig, GroupLoss};
use super::loss::{LanguageLoss, Losses};
use super::run_config::{RunConfig, count};
use super::task::{BatchLoss, Task, Told};
use super::{AdamWConfig, Schedule, TrainError};
use crate::data::Batch;
use crate::model::{Pass, Recogniser, Sequence, is_encoder_parameter};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

/// Name of the weights of the languages in checkpoints of runs that have them.
const DRO: &str = "ctc_dro";

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
    /// Steps for which the encoder's own parameters stay as they are, while heads and modules
    /// beside it learn.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unfreeze_after: u64,
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

fn is_zero(n: &u64) -> bool {
    *n == 0
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
        self.run().validate()?;
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
        check(
            self.unfreeze_after < self.schedule.steps,
            "unfreeze_after",
            "fewer than schedule.steps",
        )?;
        if let Some(loss) = &self.language_loss {
            loss.validate()?;
        }
        if let Some(dro) = &self.ctc_dro {
            dro.validate()?;
        }
        Ok(())
    }

    /// What the loop needs to know.
    #[must_use]
    pub fn run(&self) -> RunConfig {
        RunConfig {
            seed: self.seed,
            schedule: self.schedule.clone(),
            optimiser: self.optimiser.clone(),
            micro_batches: self.micro_batches,
            frozen: self.frozen.clone(),
            max_trainable: self.max_trainable,
            bf16: self.bf16,
            recompute: self.recompute,
            log_every: self.log_every,
            validate_every: self.validate_every,
            save_every: self.save_every,
        }
    }
}

/// A recogniser that learns to write and to tell languages.
#[derive(Debug)]
pub struct Recognition<'a> {
    model: &'a Recogniser,
    early: Option<&'a Recogniser>,
    places: &'a [Option<Vec<f32>>],
    config: &'a TrainConfig,
    dro: Option<CtcDro>,
    /// The step at work.
    step: u64,
}

impl<'a> Recognition<'a> {
    /// The task of training `model`; `places` are the geolocation vectors of the languages of
    /// the vocabulary, in order, where they have one.
    #[must_use]
    pub fn new(
        model: &'a Recogniser,
        places: &'a [Option<Vec<f32>>],
        config: &'a TrainConfig,
    ) -> Self {
        let dro = config.ctc_dro.clone().map(|config| CtcDro::new(config, places.len()));
        Self { model, early: None, places, config, dro, step: 0 }
    }

    /// The same with a model whose encoder is frozen, for the steps up to `unfreeze_after`;
    /// without it the encoder's gradients are computed there too.
    #[must_use]
    pub fn with_early(self, early: Option<&'a Recogniser>) -> Self {
        Self { early, ..self }
    }

    /// Whether the encoder stays as it is in this step.
    fn is_early(&self) -> bool {
        self.step <= self.config.unfreeze_after
    }
}

impl Task for Recognition<'_> {
    type Batch = Batch;
    type Note = Vec<GroupLoss>;

    fn loss(&self, batch: &Batch, pass: &Pass) -> Result<BatchLoss<Self::Note>, TrainError> {
        let shape = (batch.lengths.len(), batch.frames, batch.bins);
        let input = Sequence {
            hidden: Tensor::from_slice(&batch.features, shape, &Device::Cpu)?,
            lengths: batch.lengths.clone(),
        };
        let model = self.early.filter(|_| self.is_early()).unwrap_or(self.model);
        let output = model.forward(&input, pass)?;
        let losses = Losses { config: self.config, places: self.places, dro: self.dro.as_ref() };
        let loss = losses.of(&output, &batch.labels)?;
        let (clips, audio_s) = (loss.clips, batch.audio_s);
        let counts = vec![("infeasible", loss.n_infeasible)];
        Ok(BatchLoss::new(loss.sum, loss.n_tokens, move || {
            let (nats, note) = clips.read()?;
            Ok(Told { nats, audio_s, counts, means: Vec::new(), note })
        }))
    }

    fn rate(&self, name: &str) -> f64 {
        if is_encoder_parameter(name) { self.config.encoder_rate } else { 1.0 }
    }

    fn may_lack_gradient(&self, name: &str) -> bool {
        let waits = self.is_early() && is_encoder_parameter(name);
        waits || self.model.encoder().config().may_skip(name)
    }

    fn held(&self, name: &str) -> u64 {
        if is_encoder_parameter(name) { self.config.unfreeze_after } else { 0 }
    }

    fn begin(&mut self, step: u64) {
        self.step = step;
    }

    fn learn(&mut self, notes: Vec<Self::Note>) {
        if let Some(dro) = &mut self.dro {
            dro.update(notes.iter().flatten());
        }
    }

    fn state(&self) -> Vec<(&'static str, Vec<f32>)> {
        self.dro.iter().map(|dro| (DRO, dro.weights().to_vec())).collect()
    }

    fn restore(&mut self, state: Vec<Vec<f32>>) {
        if let (Some(dro), Some(weights)) = (&mut self.dro, state.into_iter().next()) {
            dro.restore(weights);
        }
    }
}
