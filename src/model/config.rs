//! Size and shape of an encoder.

use super::adaptation::Adaptation;
use serde::{Deserialize, Serialize};

/// A setting that makes no encoder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("encoder setting `{field}`: {problem}")]
pub struct ConfigError {
    /// Name of the setting.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// One convolution of the front end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvLayer {
    /// Output channels.
    pub dim: usize,
    /// Kernel, input frames.
    pub kernel: usize,
    /// Stride, input frames.
    pub stride: usize,
}

/// Where the front end normalises (fairseq `extractor_mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConvNorm {
    /// Group norm over time after the first convolution only (fairseq `default`, HuBERT base).
    FirstGroup,
    /// Layer norm over channels after every convolution (fairseq `layer_norm`, HuBERT large).
    EveryLayer,
}

/// How the frame rate changes between stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum Sampling {
    /// Convolutional adapter with skip connections, in both directions.
    ConvAdapter {
        /// Kernel of both convolutions; 1 in the published configurations.
        kernel: usize,
    },
    /// One convolution per direction ("simple sampling").
    Plain {
        /// Kernel of the convolution.
        kernel: usize,
    },
}

/// Which of the encoders a configuration describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// A tree of stages at several frame rates ([`super::MrHubert`]).
    #[default]
    MrHubert,
    /// HuBERT (Hsu et al. 2021), mHuBERT-147, WavLabLM.
    Hubert,
    /// wav2vec 2.0 (Baevski et al. 2020), XLS-R, MMS: HuBERT with other weights and, in MMS,
    /// adapters.
    Wav2vec2,
    /// WavLM (Chen et al. 2022): HuBERT with gated relative positions.
    Wavlm,
}

impl Family {
    /// Name as users write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MrHubert => "MR-HuBERT",
            Self::Hubert => "HuBERT",
            Self::Wav2vec2 => "wav2vec 2.0",
            Self::Wavlm => "WavLM",
        }
    }
}

/// Buckets of the relative position bias of WavLM (T5's, in both directions).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelativePositions {
    /// Buckets, half of them for each direction; a multiple of 4.
    pub buckets: usize,
    /// Frames from which on all offsets share a bucket.
    pub max_distance: usize,
}

/// Which up-sampling module of three or more resolutions runs first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpsamplerOrder {
    /// The last module first: it leads up from the lowest rate (fairseq).
    #[default]
    LastFirst,
    /// The first module first (the port in s3prl).
    FirstFirst,
}

/// Where encoders of the same shape differ. The default is the published MR-HuBERT.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Variant {
    /// The encoder.
    pub family: Family,
    /// Convolutions of the front end have a bias (`conv_bias`).
    pub conv_bias: bool,
    /// The front end's output is projected even where it has the Transformer's width, as in
    /// transformers; fairseq projects only where the widths differ.
    pub always_project: bool,
    /// The front end's output is not normalised before the projection
    /// (`feat_proj_layer_norm: false`).
    pub raw_features: bool,
    /// Epsilon of the Transformer's layer norms where it is not 1e-5 (`layer_norm_eps`).
    pub layer_norm_eps: Option<f64>,
    /// Relative position bias.
    pub relative_positions: Option<RelativePositions>,
    /// Width of the adapters after each layer (`adapter_attn_dim` of MMS).
    pub adapter_dim: Option<usize>,
    /// Order of the up-sampling modules.
    pub upsampler_order: UpsamplerOrder,
    /// Modules in its layers that fine-tuning added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adaptation: Option<Adaptation>,
}

/// Configuration of an [`super::Encoder`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderConfig {
    /// Channels of the input: 1 for a waveform, the number of bins for filter-bank features.
    pub input_channels: usize,
    /// Convolutions of the front end, first to last (fairseq `conv_feature_layers`).
    pub conv_layers: Vec<ConvLayer>,
    /// Normalisation of the front end.
    pub conv_norm: ConvNorm,
    /// Width of the Transformer (`encoder_embed_dim`).
    pub embed_dim: usize,
    /// Width of its feed-forward layers (`encoder_ffn_embed_dim`).
    pub ffn_dim: usize,
    /// Attention heads.
    pub heads: usize,
    /// Transformer layers of each stage in the order they run: down-going encoders, the
    /// middle, up-going decoders. One more than twice the number of ratios.
    pub stage_layers: Vec<usize>,
    /// Rate changes on the way down: `[up, down]` multiplies the frame rate by `up / down`
    /// (fairseq `label_rate_ratios` in pairs). Empty for a single resolution.
    pub rate_ratios: Vec<[usize; 2]>,
    /// Modules that change the rate.
    pub sampling: Sampling,
    /// Normalise before each block (large models) instead of after it (base models).
    pub layer_norm_first: bool,
    /// Kernel of the position convolution, frames.
    pub position_kernel: usize,
    /// Groups of the position convolution.
    pub position_groups: usize,
    /// Dropout of residual branches and of each stage's input.
    pub dropout: f32,
    /// Dropout of attention weights.
    #[serde(default)]
    pub attention_dropout: f32,
    /// Dropout after the activation of feed-forward layers.
    pub activation_dropout: f32,
    /// Dropout of the projected front-end output.
    pub input_dropout: f32,
    /// Probability of skipping a Transformer layer in training.
    pub layer_drop: f32,
    /// What is not a matter of size.
    #[serde(default, skip_serializing_if = "is_default")]
    pub variant: Variant,
}

fn is_default(variant: &Variant) -> bool {
    *variant == Variant::default()
}

impl EncoderConfig {
    /// Checks that the settings fit together and are of a sane size.
    ///
    /// # Errors
    /// The first setting that does not, with the reason.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let check = |ok: bool, field, problem| {
            if ok { Ok(()) } else { Err(ConfigError { field, problem }) }
        };
        let dim = |n: usize| (1..=16_384).contains(&n);
        check(dim(self.input_channels), "input_channels", "must be 1 to 16384")?;
        check((1..=16).contains(&self.conv_layers.len()), "conv_layers", "must be 1 to 16 layers")?;
        check(
            self.conv_layers.iter().all(|l| {
                dim(l.dim) && (1..=256).contains(&l.kernel) && (1..=256).contains(&l.stride)
            }),
            "conv_layers",
            "dim must be 1 to 16384, kernel and stride 1 to 256",
        )?;
        check(dim(self.embed_dim), "embed_dim", "must be 1 to 16384")?;
        check((1..=65_536).contains(&self.ffn_dim), "ffn_dim", "must be 1 to 65536")?;
        check(
            self.heads > 0 && self.embed_dim.is_multiple_of(self.heads),
            "heads",
            "must divide embed_dim",
        )?;
        check(
            self.stage_layers.len() == 2 * self.rate_ratios.len() + 1,
            "stage_layers",
            "needs one stage more than twice the number of rate_ratios",
        )?;
        check(
            self.stage_layers.iter().all(|&n| (1..=256).contains(&n)),
            "stage_layers",
            "must be 1 to 256 layers each",
        )?;
        check(
            self.rate_ratios.len() <= 8
                && self.rate_ratios.iter().flatten().all(|n| (1..=64).contains(n)),
            "rate_ratios",
            "must be at most 8 pairs of 1 to 64",
        )?;
        let (kernel, plain) = match self.sampling {
            Sampling::ConvAdapter { kernel } => (kernel, false),
            Sampling::Plain { kernel } => (kernel, true),
        };
        check((1..=255).contains(&kernel), "sampling", "kernel must be 1 to 255")?;
        check(
            !plain || self.rate_ratios.iter().all(|[up, _]| *up == 1),
            "sampling",
            "plain sampling needs ratios of the form [1, down]",
        )?;
        check((1..=1024).contains(&self.position_kernel), "position_kernel", "must be 1 to 1024")?;
        check(
            self.position_groups > 0 && self.embed_dim.is_multiple_of(self.position_groups),
            "position_groups",
            "must divide embed_dim",
        )?;
        self.validate_variant()?;
        for (rate, field) in [
            (self.dropout, "dropout"),
            (self.attention_dropout, "attention_dropout"),
            (self.activation_dropout, "activation_dropout"),
            (self.input_dropout, "input_dropout"),
            (self.layer_drop, "layer_drop"),
        ] {
            check((0.0..1.0).contains(&rate), field, "must be from 0 up to, not including, 1")?;
        }
        Ok(())
    }

    /// Beginnings of the names of the parameters of each block, in the order they run.
    #[must_use]
    pub fn block_names(&self) -> Vec<String> {
        let levels = self.rate_ratios.len();
        let single = self.variant.family != Family::MrHubert;
        let stage = |i: usize| match i {
            _ if single => "encoder".to_owned(),
            i if i < levels => format!("encoders.{i}"),
            i if i == levels => "middle_encoder".to_owned(),
            i => format!("decoders.{}", i - levels - 1),
        };
        let stages = self.stage_layers.iter().enumerate();
        stages
            .flat_map(|(i, &n)| (0..n).map(move |j| format!("{}.layers.{j}.", stage(i))))
            .collect()
    }

    fn validate_variant(&self) -> Result<(), ConfigError> {
        let check = |ok: bool, field, problem| {
            if ok { Ok(()) } else { Err(ConfigError { field, problem }) }
        };
        let variant = &self.variant;
        check(
            variant.family == Family::MrHubert || self.rate_ratios.is_empty(),
            "rate_ratios",
            "must be empty: only MR-HuBERT changes its frame rate",
        )?;
        check(
            variant.layer_norm_eps.is_none_or(|eps| eps > 0.0 && eps < 1.0),
            "layer_norm_eps",
            "must lie between 0 and 1",
        )?;
        check(
            variant.relative_positions.is_some() == (variant.family == Family::Wavlm),
            "relative_positions",
            "WavLM has them, no other encoder does",
        )?;
        check(
            variant.relative_positions.is_none_or(|p| {
                p.buckets % 4 == 0
                    && (4..=65_536).contains(&p.buckets)
                    && (p.buckets / 4 + 1..=1_000_000).contains(&p.max_distance)
            }),
            "relative_positions",
            "needs a multiple of 4 buckets, at most 65536, and a max_distance above a quarter of them",
        )?;
        if let Some(adaptation) = &variant.adaptation {
            adaptation.validate()?;
        }
        check(
            variant.adapter_dim.is_none_or(|n| (1..=16_384).contains(&n)),
            "adapter_dim",
            "must be 1 to 16384",
        )?;
        check(
            variant.adapter_dim.is_none() || self.layer_norm_first,
            "adapter_dim",
            "needs a Transformer that normalises before each block",
        )
    }

    /// Whether the parameters of `other` fit: everything but the dropout rates is the same.
    #[must_use]
    pub fn same_shape(&self, other: &Self) -> bool {
        let rates = Self {
            dropout: self.dropout,
            attention_dropout: self.attention_dropout,
            activation_dropout: self.activation_dropout,
            input_dropout: self.input_dropout,
            layer_drop: self.layer_drop,
            ..other.clone()
        };
        *self == rates
    }

    /// Whether training may skip what a parameter belongs to: a layer, by layer drop.
    #[must_use]
    pub fn may_skip(&self, parameter: &str) -> bool {
        self.layer_drop > 0.0 && parameter.contains(".layers.")
    }

    /// Input steps (samples or feature frames) per frame of the highest resolution.
    #[must_use]
    pub fn input_stride(&self) -> usize {
        self.conv_layers.iter().map(|layer| layer.stride).product()
    }

    /// Fewest input steps that make one frame.
    #[must_use]
    pub fn receptive_field(&self) -> usize {
        self.conv_layers
            .iter()
            .rev()
            .fold(1, |steps, layer| (steps - 1) * layer.stride + layer.kernel)
    }

    /// Frames of the highest resolution that `steps` input steps make.
    #[must_use]
    pub fn frames(&self, steps: usize) -> usize {
        self.conv_layers.iter().fold(steps, |steps, layer| {
            if steps < layer.kernel { 0 } else { (steps - layer.kernel) / layer.stride + 1 }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn hubert_base_front_end() -> Vec<ConvLayer> {
        let layer = |kernel, stride| ConvLayer { dim: 512, kernel, stride };
        [(10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2)].map(|(k, s)| layer(k, s)).to_vec()
    }

    #[test]
    fn hubert_makes_a_frame_of_400_samples_and_one_more_every_320() {
        let config = EncoderConfig {
            input_channels: 1,
            conv_layers: hubert_base_front_end(),
            conv_norm: ConvNorm::FirstGroup,
            embed_dim: 768,
            ffn_dim: 3072,
            heads: 12,
            stage_layers: vec![4, 4, 4],
            rate_ratios: vec![[1, 2]],
            sampling: Sampling::ConvAdapter { kernel: 1 },
            layer_norm_first: false,
            position_kernel: 128,
            position_groups: 16,
            dropout: 0.1,
            attention_dropout: 0.1,
            activation_dropout: 0.1,
            input_dropout: 0.1,
            layer_drop: 0.05,
            variant: Variant::default(),
        };
        assert_eq!(config.validate(), Ok(()));
        assert_eq!((config.input_stride(), config.receptive_field()), (320, 400));
        for (samples, frames) in [(399, 0), (400, 1), (16_000, 49), (16_320, 50), (16_640, 51)] {
            assert_eq!(config.frames(samples), frames);
        }
    }
}
