//! What stands between an encoder and the output layer: nothing, a learned weighted sum of the
//! encoder's layers, or the head of the ML-SUPERB benchmark.
//!
//! Sources: ESPnet `egs2/ml_superb/asr1/conf`, `espnet2/asr/{specaug,layers,encoder}`; Shi et
//! al. 2023 (arXiv 2305.10615).

mod attention;
mod layer_sum;
mod layers;
mod spec_augment;
mod subsampling;

pub(super) use layer_sum::LayerWeights;

use super::config::ConfigError;
use super::pass::Pass;
use super::pooling::mean;
use super::sequence::Sequence;
use super::transformer::Linear;
use candle_core::Result;
use candle_nn::VarBuilder;
use layers::Layers;
use serde::{Deserialize, Serialize};
use spec_augment::SpecAugment;
use subsampling::Subsampling;

/// Modules between the encoder and the output layer; none by default.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DownstreamConfig {
    /// Read a weighted sum of every hidden state instead of the encoder's output. The weights
    /// are learned, start equal and are those of a softmax.
    pub layer_sum: bool,
    /// Layers of its own; without any the output layer reads the frames as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transformer: Option<TransformerHeadConfig>,
}

/// Size of the head of ML-SUPERB; the default is the published one.
///
/// Frames are repeated if asked for, masked in training, lose their mean over the clip, are
/// projected, halved in rate by two convolutions and encoded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransformerHeadConfig {
    /// How often each frame of the encoder is read, 1 or 2: the head is made for frames of 20 ms,
    /// and an encoder of 40 ms is read twice.
    #[serde(skip_serializing_if = "is_one")]
    pub repeat: usize,
    /// Width of the projection, at least 7.
    pub projection: usize,
    /// Width of the convolutions and of the Transformer.
    pub dim: usize,
    /// Width of its feed-forward layers.
    pub ffn_dim: usize,
    /// Attention heads.
    pub heads: usize,
    /// Layers.
    pub layers: usize,
    /// What they are.
    #[serde(skip_serializing_if = "HeadLayer::is_transformer")]
    pub layer: HeadLayer,
    /// Dropout everywhere, in training.
    pub dropout: f32,
    /// Masks in training: 2 over channels, each up to 26 wide, 10 over time, each up to a
    /// twentieth of the clip, after a time warp of up to 5 frames.
    pub spec_augment: bool,
}

fn is_one(n: &usize) -> bool {
    *n == 1
}

/// A kind of layer of the head. Convolutions over time look at `kernel` frames, an odd number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum HeadLayer {
    /// Norms first, ReLU, positions added to the frames.
    #[default]
    Transformer,
    /// Conformer with two feed-forward maps and relative positions; 2.0 has a kernel of 15.
    Conformer {
        /// Of the convolution.
        kernel: usize,
    },
    /// E-Branchformer with one feed-forward map and relative positions; 2.0 has a width of 3072
    /// and kernels of 31.
    EBranchformer {
        /// Width of the gated map, even.
        mlp_dim: usize,
        /// Of the convolution of its gates.
        kernel: usize,
        /// Of the convolution over both branches.
        merge_kernel: usize,
    },
}

impl HeadLayer {
    fn is_transformer(&self) -> bool {
        *self == Self::Transformer
    }

    fn has_relative_positions(self) -> bool {
        self != Self::Transformer
    }

    fn validate(self) -> std::result::Result<(), ConfigError> {
        let odd = |n: usize, field| {
            let ok = n % 2 == 1 && n < 1024;
            let problem = "must be odd, 1 to 1023";
            if ok { Ok(()) } else { Err(ConfigError { field, problem }) }
        };
        match self {
            Self::Transformer => Ok(()),
            Self::Conformer { kernel } => odd(kernel, "downstream.layer.kernel"),
            Self::EBranchformer { mlp_dim, kernel, merge_kernel } => {
                odd(kernel, "downstream.layer.kernel")?;
                odd(merge_kernel, "downstream.layer.merge_kernel")?;
                let ok = mlp_dim.is_multiple_of(2) && (2..=16_384).contains(&mlp_dim);
                let problem = "must be even, 2 to 16384";
                let field = "downstream.layer.mlp_dim";
                if ok { Ok(()) } else { Err(ConfigError { field, problem }) }
            }
        }
    }
}

impl Default for TransformerHeadConfig {
    fn default() -> Self {
        Self {
            repeat: 1,
            projection: 80,
            dim: 256,
            ffn_dim: 1024,
            heads: 8,
            layers: 2,
            layer: HeadLayer::default(),
            dropout: 0.1,
            spec_augment: true,
        }
    }
}

impl DownstreamConfig {
    /// Whether the output layer reads the encoder's output as it is.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// Checks every size.
    ///
    /// # Errors
    /// The first setting out of range.
    pub fn validate(&self) -> std::result::Result<(), ConfigError> {
        let Some(head) = &self.transformer else { return Ok(()) };
        let check = |ok: bool, field, problem| {
            if ok { Ok(()) } else { Err(ConfigError { field, problem }) }
        };
        let width = |n: usize| (1..=16_384).contains(&n);
        let range = subsampling::RECEPTIVE_FIELD..=16_384;
        check(range.contains(&head.projection), "downstream.projection", "must be 7 to 16384")?;
        check(
            width(head.dim) && head.dim.is_multiple_of(2),
            "downstream.dim",
            "must be even, 2 to 16384",
        )?;
        check((1..=2).contains(&head.repeat), "downstream.repeat", "must be 1 or 2")?;
        check(width(head.ffn_dim), "downstream.ffn_dim", "must be 1 to 16384")?;
        check(
            head.heads > 0 && head.dim.is_multiple_of(head.heads),
            "downstream.heads",
            "must divide downstream.dim",
        )?;
        check((1..=64).contains(&head.layers), "downstream.layers", "must be 1 to 64")?;
        head.layer.validate()?;
        check(
            (0.0..1.0).contains(&head.dropout),
            "downstream.dropout",
            "must be from 0 up to, not including, 1",
        )
    }

    /// Encoder frames per frame of the output, and encoder frames that one sees through the
    /// convolutions.
    #[must_use]
    pub fn frame(&self) -> (usize, usize) {
        match &self.transformer {
            Some(head) => (
                subsampling::STRIDE / head.repeat.clamp(1, subsampling::STRIDE),
                subsampling::RECEPTIVE_FIELD.div_ceil(head.repeat.max(1)),
            ),
            None => (1, 1),
        }
    }

    /// Width of what the output layer reads, above an encoder of width `dim`.
    #[must_use]
    pub fn output_dim(&self, dim: usize) -> usize {
        self.transformer.as_ref().map_or(dim, |head| head.dim)
    }
}

/// The head of ML-SUPERB without its output layer.
#[derive(Debug)]
pub(super) struct TransformerHead {
    repeat: usize,
    spec_augment: Option<SpecAugment>,
    projection: Linear,
    subsampling: Subsampling,
    layers: Layers,
}

impl TransformerHead {
    /// The head on frames of `dim` numbers, with the tensor names of ESPnet:
    /// `preencoder.linear_out`, `encoder.embed`, `encoder.encoders.{i}`, `encoder.after_norm`.
    pub(super) fn new(config: &TransformerHeadConfig, dim: usize, vb: &VarBuilder) -> Result<Self> {
        let encoder = vb.pp("encoder");
        Ok(Self {
            repeat: config.repeat,
            spec_augment: config.spec_augment.then(SpecAugment::default),
            projection: Linear::uniform(dim, config.projection, &vb.pp("preencoder.linear_out"))?,
            subsampling: Subsampling::new(config.projection, config.dim, &encoder.pp("embed"))?,
            layers: Layers::new(config, &encoder)?,
        })
    }

    /// Frames at half the rate they are read at, `(batch, (frames - 1) / 2 - 2, dim)`; a clip of
    /// fewer than 7 frames is taken as if zeros followed it.
    pub(super) fn forward(&self, input: &Sequence, pass: &Pass) -> Result<Sequence> {
        let read = input.each_repeated(self.repeat)?;
        let masked = match &self.spec_augment {
            Some(masks) => masks.apply(&read, pass)?,
            None => read,
        };
        let centred = masked.hidden.broadcast_sub(&mean(&masked)?)?;
        let projected = masked.with_hidden(centred).zero_padding()?;
        let projected = projected.with_hidden(self.projection.forward(&projected.hidden, pass)?);
        self.layers.forward(&self.subsampling.forward(&projected, pass)?, pass)
    }
}

#[cfg(test)]
mod tests;
