//! Sizes of an encoder read off the shapes of its weights, for files without settings.

use super::error::ImportError;
use super::weights::Weights;
use crate::model::{
    ConvLayer, ConvNorm, EncoderConfig, Family, RelativePositions, Sampling, Variant,
};

/// Offset from which on WavLM's released sizes put all offsets into one bucket.
const WAVLM_MAX_DISTANCE: usize = 800;
/// Width of a head in every released encoder of this layout.
const HEAD_WIDTH: usize = 64;

/// The encoder of torchaudio weights, which come without settings.
///
/// Heads are those of the released models, 64 wide, or as many as WavLM's gates say; norms are
/// where the released models have them: before the blocks if every convolution has one.
pub(super) fn encoder(weights: &Weights) -> Result<EncoderConfig, ImportError> {
    let name = || weights.file().name().to_owned();
    let missing = |ours: &str| ImportError::Missing {
        name: name(),
        missing: weights.naming().places(ours).into_iter().take(1).map(|p| p.name).collect(),
    };
    let shape = |ours: &str| weights.shape(ours).ok_or_else(|| missing(ours));
    let mut conv_layers = Vec::new();
    while let Some(shape) =
        weights.shape(&format!("feature_extractor.conv_layers.{}.0.weight", conv_layers.len()))
    {
        let [dim, _, kernel] = shape[..] else { break };
        // The published strides: 5 for the kernel of 10, 2 for those of 3 and 2.
        let stride = if kernel >= 10 { 5 } else { 2 };
        conv_layers.push(ConvLayer { dim, kernel, stride });
    }
    let conv_norm = if weights.shape("feature_extractor.conv_layers.1.2.1.weight").is_some() {
        ConvNorm::EveryLayer
    } else {
        ConvNorm::FirstGroup
    };
    let layer = |i: usize| format!("encoder.layers.{i}.fc1.weight");
    let mut layers = 0;
    while weights.shape(&layer(layers)).is_some() {
        layers += 1;
    }
    let ffn = shape(&layer(0))?;
    let position = shape("encoder.pos_conv.0.weight_v")?;
    let ([ffn_dim, embed_dim], [_, per_group, position_kernel]) = (&ffn[..], &position[..]) else {
        return Err(missing("encoder.pos_conv.0.weight_v"));
    };
    let (ffn_dim, embed_dim, position_kernel) = (*ffn_dim, *embed_dim, *position_kernel);
    let bias = weights.shape("encoder.layers.0.self_attn.relative_attention_bias.weight");
    let (heads, relative_positions) = match bias.as_deref() {
        Some([buckets, heads]) => {
            let positions =
                RelativePositions { buckets: *buckets, max_distance: WAVLM_MAX_DISTANCE };
            (*heads, Some(positions))
        }
        _ => (embed_dim.div_ceil(HEAD_WIDTH), None),
    };
    let config = EncoderConfig {
        input_channels: 1,
        conv_layers,
        conv_norm,
        embed_dim,
        ffn_dim,
        heads,
        stage_layers: vec![layers],
        rate_ratios: Vec::new(),
        sampling: Sampling::ConvAdapter { kernel: 1 },
        layer_norm_first: conv_norm == ConvNorm::EveryLayer,
        position_kernel,
        position_groups: embed_dim.checked_div(*per_group).unwrap_or(0),
        dropout: 0.0,
        attention_dropout: 0.0,
        activation_dropout: 0.0,
        input_dropout: 0.0,
        layer_drop: 0.0,
        variant: Variant {
            family: if relative_positions.is_some() { Family::Wavlm } else { Family::Hubert },
            conv_bias: weights.shape("feature_extractor.conv_layers.0.0.bias").is_some(),
            always_project: true,
            relative_positions,
            ..Variant::default()
        },
    };
    config.validate().map_err(|source| ImportError::Encoder { name: name(), source })?;
    Ok(config)
}
