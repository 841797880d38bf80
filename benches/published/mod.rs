//! The published sizes that benches measure.

use asr::model::{ConvLayer, ConvNorm, EncoderConfig, Family, Sampling, Variant};

/// The published configurations: twelve layers, all at 20 ms, or the middle four at 40 ms.
pub(crate) fn base(multi_resolution: bool) -> EncoderConfig {
    let layer = |(kernel, stride)| ConvLayer { dim: 512, kernel, stride };
    let shapes = [(10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2)];
    let family = if multi_resolution { Family::MrHubert } else { Family::Hubert };
    EncoderConfig {
        input_channels: 1,
        conv_layers: shapes.map(layer).to_vec(),
        conv_norm: ConvNorm::FirstGroup,
        embed_dim: 768,
        ffn_dim: 3072,
        heads: 12,
        stage_layers: if multi_resolution { vec![4, 4, 4] } else { vec![12] },
        rate_ratios: if multi_resolution { vec![[1, 2]] } else { Vec::new() },
        sampling: Sampling::ConvAdapter { kernel: 1 },
        layer_norm_first: false,
        position_kernel: 128,
        position_groups: 16,
        dropout: 0.0,
        attention_dropout: 0.0,
        activation_dropout: 0.0,
        input_dropout: 0.0,
        layer_drop: 0.0,
        variant: Variant { family, ..Variant::default() },
    }
}
