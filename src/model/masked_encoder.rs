//! An encoder in pre-training: part of its frames is hidden, and what they held is predicted.

use super::config::{EncoderConfig, UpsamplerOrder};
use super::encoder::Encoder;
use super::parameters::Parameters;
use super::pass::Pass;
use super::prediction_heads::{HeadNames, PredictionShape, PretrainingHeads};
use super::sequence::Sequence;
use super::transformer::Trace;
use asr_kernels::masking;
use candle_core::{Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};

/// Size of a [`MaskedEncoder`].
#[derive(Debug, Clone, PartialEq)]
pub struct MaskedEncoderConfig {
    /// The encoder.
    pub encoder: EncoderConfig,
    /// What is predicted.
    pub heads: Vec<PredictionShape>,
    /// Names of the heads' parameters.
    pub head_names: HeadNames,
    /// What the gradient that goes back into the convolutions is multiplied by
    /// (`feature_grad_mult`); 0 leaves them as they are.
    pub front_end_gradient: f64,
}

/// An encoder with a mask embedding (`mask_emb`) and heads of masked prediction.
#[derive(Debug)]
pub struct MaskedEncoder {
    encoder: Encoder,
    mask_emb: Tensor,
    heads: PretrainingHeads,
    front_end_gradient: f64,
}

/// What an encoder makes of a batch with hidden frames.
#[derive(Debug, Clone)]
pub struct MaskedOutput {
    /// Outputs, highest resolution first.
    pub resolutions: Vec<Sequence>,
    /// Mean square of the convolutions' output, padding included (`features_pen`).
    pub penalty: Tensor,
}

impl MaskedEncoder {
    /// An encoder on existing parameters, with gradients.
    ///
    /// # Errors
    /// If a parameter is missing or has another shape.
    pub fn new(config: &MaskedEncoderConfig, parameters: &Parameters) -> Result<Self> {
        Self::build(config, &parameters.existing())
    }

    /// An encoder for training: parameters that are not there yet start from `seed`. With a
    /// `front_end_gradient` of 0 the convolutions are frozen.
    ///
    /// # Errors
    /// If a parameter that is there has another shape.
    pub fn for_training(
        config: &MaskedEncoderConfig,
        parameters: &Parameters,
        seed: u64,
    ) -> Result<Self> {
        if config.front_end_gradient == 0.0 {
            parameters.freeze(|name| name.starts_with("feature_extractor."));
        }
        Self::build(config, &parameters.seeded(seed))
    }

    /// An encoder on what `vb` hands out.
    ///
    /// # Errors
    /// If a parameter is missing or has another shape.
    pub fn build(config: &MaskedEncoderConfig, vb: &VarBuilder) -> Result<Self> {
        let dim = config.encoder.embed_dim;
        let start = Init::Uniform { lo: 0.0, up: 1.0 };
        Ok(Self {
            encoder: Encoder::new(&config.encoder, vb)?,
            mask_emb: vb.get_with_hints(dim, "mask_emb", start)?,
            heads: PretrainingHeads::new(dim, &config.heads, config.head_names, vb)?,
            front_end_gradient: config.front_end_gradient,
        })
    }

    /// The encoder.
    #[must_use]
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// The heads.
    #[must_use]
    pub fn heads(&self) -> &PretrainingHeads {
        &self.heads
    }

    /// Encodes a batch whose frames are hidden where `masks` (one per clip, at the rate of the
    /// front end) are true. Of the front end's frames the first `keep` go on, all by default:
    /// HuBERT cuts them to what the labels reach before it takes the penalty.
    ///
    /// # Errors
    /// If shapes disagree or a mask is shorter than the frames.
    pub fn forward(
        &self,
        input: &Sequence,
        masks: &[Vec<bool>],
        keep: Option<usize>,
        pass: &Pass,
    ) -> Result<MaskedOutput> {
        let front_end = self.encoder.front_end();
        let mut frames = front_end.extract(input, pass)?;
        if frames.hidden.track_op() && self.front_end_gradient != 1.0 {
            let damped = masking::scale_gradient(&frames.hidden, self.front_end_gradient as f32)?;
            frames = frames.with_hidden(damped);
        }
        if let Some(keep) = keep {
            frames = frames.cut(keep)?;
        }
        let penalty = frames.hidden.sqr()?.mean_all()?;
        let projected = front_end.project(&frames, pass)?;
        let n = projected.frames()?;
        if masks.len() != projected.lengths.len() || masks.iter().any(|mask| mask.len() < n) {
            bail!("masks of {} clips for {n} frames of {}", masks.len(), projected.lengths.len());
        }
        let flat: Vec<bool> = masks.iter().flat_map(|mask| &mask[..n]).copied().collect();
        let hidden = masking::replace_frames(&projected.hidden, &self.mask_emb, &flat)?;
        let hidden = projected.with_hidden(hidden);
        let resolutions = self.encoder.encode(&hidden, pass, &mut Trace::default())?;
        let resolutions = resolutions.into_iter().rev().map(|r| r.output).collect();
        Ok(MaskedOutput { resolutions, penalty })
    }
}

impl EncoderConfig {
    /// What becomes of a mask at each resolution, highest first. It goes down and up with the
    /// frames, so that at the highest resolution, too, it is the mask that came back: where a
    /// lower rate saw a frame as hidden, so is every frame made from it.
    #[must_use]
    pub fn masks(&self, mask: &[bool]) -> Vec<Vec<bool>> {
        let mut mask = mask.to_vec();
        let mut lengths = Vec::new();
        for &[up, down] in &self.rate_ratios {
            lengths.push(mask.len());
            mask = resampled(&mask, up, down);
        }
        let mut masks = vec![mask.clone()];
        for (j, length) in lengths.iter().rev().enumerate() {
            let module = match self.variant.upsampler_order {
                UpsamplerOrder::LastFirst => lengths.len() - 1 - j,
                UpsamplerOrder::FirstFirst => j,
            };
            let [up, down] = self.rate_ratios[module];
            mask = resampled(&mask, down, up);
            mask.truncate(*length);
            masks.push(mask.clone());
        }
        masks.reverse();
        masks
    }
}

/// Each entry `up` times, of which every `down`-th is kept.
fn resampled(mask: &[bool], up: usize, down: usize) -> Vec<bool> {
    (0..(mask.len() * up).div_ceil(down)).map(|i| mask[i * down / up]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ConvLayer, ConvNorm, Sampling, Variant};
    use asr_kernels::Precision;

    fn config(rate_ratios: Vec<[usize; 2]>) -> EncoderConfig {
        EncoderConfig {
            input_channels: 1,
            conv_layers: vec![ConvLayer { dim: 4, kernel: 2, stride: 2 }],
            conv_norm: ConvNorm::EveryLayer,
            embed_dim: 8,
            ffn_dim: 8,
            heads: 1,
            stage_layers: vec![1; 2 * rate_ratios.len() + 1],
            rate_ratios,
            sampling: Sampling::ConvAdapter { kernel: 1 },
            layer_norm_first: false,
            position_kernel: 2,
            position_groups: 1,
            dropout: 0.0,
            attention_dropout: 0.0,
            activation_dropout: 0.0,
            input_dropout: 0.0,
            layer_drop: 0.0,
            variant: Variant::default(),
        }
    }

    #[test]
    fn a_mask_comes_back_in_pairs() {
        let trip = |mask: [u8; 7], ratios| -> Vec<Vec<u8>> {
            let masks = config(ratios).masks(&mask.map(|m| m == 1));
            masks.iter().map(|m| m.iter().map(|&m| u8::from(m)).collect()).collect()
        };
        let mask = [0, 1, 1, 0, 0, 0, 1];
        assert_eq!(trip(mask, vec![]), [mask]);
        assert_eq!(trip(mask, vec![[1, 2]]), [vec![0, 0, 1, 1, 0, 0, 1], vec![0, 1, 0, 1]]);
        // 20, 40 and 100 ms: 7 frames, 4, 2. The second frame of 100 ms begins in the third of
        // 40 ms; back at 40 ms it is the last one.
        assert_eq!(
            trip([1, 1, 0, 0, 0, 0, 1], vec![[1, 2], [2, 5]]),
            [vec![1, 1, 1, 1, 1, 1, 0], vec![1, 1, 1, 0], vec![1, 0]]
        );
    }

    #[test]
    fn hidden_frames_are_not_seen_and_frozen_convolutions_stay() -> Result<()> {
        let shape = PredictionShape { classes: 5, width: 4 };
        let settings = |front_end_gradient| MaskedEncoderConfig {
            encoder: config(vec![[1, 2]]),
            heads: vec![shape; 2],
            head_names: HeadNames::Numbered,
            front_end_gradient,
        };
        let parameters = Parameters::default();
        let model = MaskedEncoder::for_training(&settings(0.0), &parameters, 1)?;
        let input = |first: f32| -> Result<Sequence> {
            let mut values = vec![0.5_f32; 12];
            values[0] = first;
            let hidden = Tensor::from_vec(values, (1, 12, 1), &candle_core::Device::Cpu)?;
            Ok(Sequence { hidden, lengths: vec![12] })
        };
        let mut mask = vec![false; 6];
        mask[0] = true;
        let pass = Pass::inference(Precision::F32);
        let of = |first: f32, mask: &[bool]| -> Result<Vec<f32>> {
            let output = model.forward(&input(first)?, &[mask.to_vec()], None, &pass)?;
            let logits = model.heads().logits(0, &output.resolutions[0].hidden, &pass)?;
            logits.flatten_all()?.to_vec1::<f32>()
        };
        assert_eq!(of(0.1, &mask)?, of(9.0, &mask)?);
        assert_ne!(of(0.1, &[false; 6])?, of(9.0, &[false; 6])?);
        let frozen = |name: &str| name.starts_with("feature_extractor.");
        assert!(!parameters.trainable().iter().any(|(name, _)| frozen(name)));
        assert!(model.forward(&input(0.0)?, &[vec![true; 5]], None, &pass).is_err());
        assert_eq!(
            model.forward(&input(0.0)?, &[mask], Some(4), &pass)?.resolutions[0].frames()?,
            4
        );
        Ok(())
    }
}
