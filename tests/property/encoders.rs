//! Small random encoders and clips.

use asr::model::{
    ConvLayer, ConvNorm, EncoderConfig, Parameters, Sampling, Sequence, UpsamplerOrder, Variant,
};
use asr::model::{DownstreamConfig, JointConfig, Recogniser, RecogniserConfig};
use asr_kernels::reference::uniform;
use candle_core::{Device, Result, Tensor};
use proptest::prelude::*;
use std::collections::HashMap;

/// Rate changes and the modules that make them.
fn rates() -> impl Strategy<Value = (Vec<[usize; 2]>, Sampling)> {
    let adapter = (
        prop::sample::select(vec![
            vec![],
            vec![[1, 1]],
            vec![[1, 2]],
            vec![[2, 3]],
            vec![[1, 2], [2, 5]],
            vec![[1, 2], [1, 2]],
        ]),
        prop::sample::select(vec![1, 2, 3, 4]),
    )
        .prop_map(|(ratios, kernel)| (ratios, Sampling::ConvAdapter { kernel }));
    let plain = (
        prop::sample::select(vec![vec![[1, 1]], vec![[1, 2]], vec![[1, 3]], vec![[1, 2], [1, 2]]]),
        prop::sample::select(vec![1, 2, 3, 4]),
    )
        .prop_map(|(ratios, kernel)| (ratios, Sampling::Plain { kernel }));
    prop_oneof![adapter, plain]
}

/// Encoders of every kind that a configuration can ask for, a few thousand parameters each.
pub(crate) fn encoder_config() -> impl Strategy<Value = EncoderConfig> {
    let front = (
        prop::sample::select(vec![ConvNorm::FirstGroup, ConvNorm::EveryLayer]),
        prop::sample::select(vec![1, 3]),
        prop::sample::select(vec![
            vec![(3, 2)],
            vec![(5, 3), (2, 2)],
            vec![(3, 1), (3, 2), (2, 2)],
        ]),
        prop::sample::select(vec![8, 12]),
    );
    let position = prop::sample::select(vec![(1, 2), (4, 2), (7, 4)]);
    let order = prop::sample::select(vec![UpsamplerOrder::LastFirst, UpsamplerOrder::FirstFirst]);
    (front, rates(), any::<bool>(), position, order).prop_map(
        |(
            (conv_norm, input_channels, layers, front_dim),
            (rate_ratios, sampling),
            first,
            position,
            upsampler_order,
        )| {
            let layer = |(kernel, stride)| ConvLayer { dim: front_dim, kernel, stride };
            EncoderConfig {
                input_channels,
                conv_layers: layers.into_iter().map(layer).collect(),
                conv_norm,
                embed_dim: 8,
                ffn_dim: 12,
                heads: 2,
                stage_layers: vec![1; 2 * rate_ratios.len() + 1],
                rate_ratios,
                sampling,
                layer_norm_first: first,
                position_kernel: position.0,
                position_groups: position.1,
                dropout: 0.1,
                attention_dropout: 0.0,
                activation_dropout: 0.1,
                input_dropout: 0.1,
                layer_drop: 0.0,
                variant: Variant { upsampler_order, ..Variant::default() },
            }
        },
    )
}

pub(crate) const VOCAB_SIZE: usize = 5;

/// Parameters of a recogniser, those of training too. Nothing is left at 0 or 1, so that no
/// bias or scale can be forgotten unnoticed.
pub(crate) fn random_parameters(config: &EncoderConfig, seed: u64) -> Result<Parameters> {
    let started = Parameters::default();
    Recogniser::for_training(&recogniser_config(config), &started, seed)?;
    let mut tensors = HashMap::new();
    for (i, (name, var)) in started.all().into_iter().enumerate() {
        let shape = var.dims();
        let fan = (var.elem_count() / shape[0]) as f32;
        let (mean, width) = match shape.len() {
            1 if name.ends_with("bias") => (0.0, 0.3),
            1 => (1.0, 0.3),
            _ => (0.0, (3.0 / fan).sqrt()),
        };
        let unit = uniform(var.elem_count(), seed.wrapping_add(i as u64 * 7919));
        let values = unit.into_iter().map(|u| mean + width * u).collect();
        tensors.insert(name, Tensor::from_vec(values, shape, &Device::Cpu)?);
    }
    Parameters::from_tensors(tensors)
}

pub(crate) fn recogniser_config(config: &EncoderConfig) -> RecogniserConfig {
    RecogniserConfig {
        encoder: config.clone(),
        vocab_size: VOCAB_SIZE,
        n_languages: 2,
        joint: JointConfig::default(),
        downstream: DownstreamConfig::default(),
    }
}

/// A clip of `steps` input steps.
pub(crate) fn clip(config: &EncoderConfig, steps: usize, seed: u64) -> Vec<f32> {
    uniform(steps * config.input_channels, seed)
}

/// Clips one under the other, each followed by zeros up to the longest and `extra` steps more.
pub(crate) fn batch(config: &EncoderConfig, clips: &[&[f32]], extra: usize) -> Result<Sequence> {
    let channels = config.input_channels;
    let lengths: Vec<usize> = clips.iter().map(|clip| clip.len() / channels).collect();
    let steps = lengths.iter().max().expect("a batch has clips") + extra;
    let mut values = Vec::with_capacity(clips.len() * steps * channels);
    for clip in clips {
        values.extend_from_slice(clip);
        values.resize(values.len() + steps * channels - clip.len(), 0.0);
    }
    let hidden = Tensor::from_vec(values, (clips.len(), steps, channels), &Device::Cpu)?;
    Ok(Sequence { hidden, lengths })
}
