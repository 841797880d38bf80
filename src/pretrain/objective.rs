//! What is hidden and what is predicted, as recipes say it, and the heads that follow.

use super::PretrainError;
use super::span_mask::SpanMask;
use crate::config::FrameTimes;
use crate::model::{EncoderConfig, HeadNames, PredictionShape};
use crate::objective::{LabelAlignment, PredictionWeights};
use serde::{Deserialize, Serialize};

/// Settings of masked prediction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectiveConfig {
    /// Which frames are hidden.
    pub mask: SpanMask,
    /// Weight of hidden frames (`pred_masked_weight`).
    pub masked_weight: f64,
    /// Weight of the others (`pred_nomask_weight`).
    pub unmasked_weight: f64,
    /// Weight of the mean square of the convolutions' output (`loss_weights`).
    pub penalty_weight: f64,
    /// What the gradient that goes back into the convolutions is multiplied by
    /// (`feature_grad_mult`).
    pub front_end_gradient: f64,
    /// Width in which frames and classes are compared (`final_dim`).
    pub final_dim: usize,
    /// Classes before the units that nothing ever is: 4 in fairseq, whose dictionaries begin
    /// with special entries.
    #[serde(default)]
    pub special_classes: usize,
    /// At which resolutions something is predicted.
    #[serde(default)]
    pub predict: Predict,
    /// Which label set each resolution predicts.
    #[serde(default)]
    pub targets: Targets,
}

/// Resolutions that predict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Predict {
    /// Every one.
    #[default]
    Every,
    /// The highest alone (`use_single_prediction`).
    Highest,
}

/// Label sets of resolutions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Targets {
    /// Each predicts every set, of which lower rates keep every second label or so
    /// (`use_single_target` with one set).
    #[default]
    Shared,
    /// Each has its own, highest first, at whatever rate the labels have (fairseq: a file per
    /// rate, or with `use_multi_stream` several at one rate).
    OnePerResolution,
}

/// A prediction head.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Head {
    /// Its resolution, 0 for the highest.
    pub(super) resolution: usize,
    /// Its label set.
    pub(super) set: usize,
    pub(super) alignment: LabelAlignment,
}

/// A label set as the heads need to know it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct LabelTimes {
    pub(super) n_units: usize,
    pub(super) rate_hz: f64,
    /// Middle of what the first label sees.
    pub(super) first_s: f64,
}

impl ObjectiveConfig {
    pub(super) fn validate(&self, resolutions: usize, sets: usize) -> Result<(), PretrainError> {
        let check = |ok: bool, field, expected| {
            if ok { Ok(()) } else { Err(PretrainError::Setting { field, expected }) }
        };
        self.mask.validate()?;
        let weight = |w: f64| (0.0..=1e4).contains(&w);
        check(weight(self.masked_weight), "objective.masked_weight", "0 to 10000")?;
        check(weight(self.unmasked_weight), "objective.unmasked_weight", "0 to 10000")?;
        check(
            self.masked_weight + self.unmasked_weight > 0.0,
            "objective.masked_weight",
            "above 0, or objective.unmasked_weight",
        )?;
        check(weight(self.penalty_weight), "objective.penalty_weight", "0 to 10000")?;
        check(
            (0.0..=10.0).contains(&self.front_end_gradient),
            "objective.front_end_gradient",
            "0 to 10",
        )?;
        check((1..=16_384).contains(&self.final_dim), "objective.final_dim", "1 to 16384")?;
        check(self.special_classes <= 1000, "objective.special_classes", "at most 1000")?;
        check(
            self.targets == Targets::Shared || sets == self.predicting(resolutions),
            "labels",
            "one for each resolution that predicts",
        )
    }

    fn predicting(&self, resolutions: usize) -> usize {
        match self.predict {
            Predict::Every => resolutions,
            Predict::Highest => 1,
        }
    }

    pub(super) fn weights(&self) -> PredictionWeights {
        PredictionWeights {
            masked: self.masked_weight,
            unmasked: self.unmasked_weight,
            penalty: self.penalty_weight,
        }
    }

    /// The heads for an encoder whose frames happen at `times`, highest resolution first.
    pub(super) fn heads(
        &self,
        encoder: &EncoderConfig,
        times: FrameTimes,
        sets: &[LabelTimes],
    ) -> Vec<Head> {
        let steps = frame_steps_s(encoder, times);
        let head = |resolution: usize, set: usize| {
            let LabelTimes { rate_hz, first_s, .. } = sets[set];
            let alignment = LabelAlignment::new(rate_hz, steps[resolution])
                .later((times.first_s - first_s) * rate_hz);
            Head { resolution, set, alignment }
        };
        let resolutions = self.predicting(steps.len());
        match self.targets {
            Targets::Shared => (0..resolutions)
                .flat_map(|resolution| (0..sets.len()).map(move |set| (resolution, set)))
                .map(|(resolution, set)| head(resolution, set))
                .collect(),
            Targets::OnePerResolution => (0..resolutions).map(|i| head(i, i)).collect(),
        }
    }

    /// Shapes of those heads' parameters, and how they are named.
    pub(super) fn shapes(
        &self,
        encoder: &EncoderConfig,
        heads: &[Head],
        sets: &[LabelTimes],
    ) -> (Vec<PredictionShape>, HeadNames) {
        let shape = |head: &Head| PredictionShape {
            classes: sets[head.set].n_units + self.special_classes,
            width: self.final_dim,
        };
        // As fairseq names them: HuBERT keeps its heads together, MR-HuBERT numbers them.
        let tree = encoder.variant.family == crate::model::Family::MrHubert;
        let names = if tree { HeadNames::Numbered } else { HeadNames::Together };
        (heads.iter().map(shape).collect(), names)
    }
}

/// Seconds per frame of each resolution, highest first.
pub(super) fn frame_steps_s(encoder: &EncoderConfig, times: FrameTimes) -> Vec<f64> {
    let mut steps = vec![times.step_s];
    for [up, down] in &encoder.rate_ratios {
        let last = steps[steps.len() - 1];
        steps.push(last * *down as f64 / *up as f64);
    }
    steps
}
