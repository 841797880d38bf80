//! Encoders of one frame rate: a clip has the same hidden states alone and in any batch.

use crate::encoders::{batch, clip};
use asr::model::{
    ConvLayer, ConvNorm, Encoder, EncoderConfig, Family, LanguageAdapter, Parameters, Pass,
    RelativePositions, Sampling, Variant,
};
use asr_kernels::Precision;
use asr_kernels::reference::uniform;
use candle_core::{Device, Result, Tensor};
use proptest::prelude::*;
use std::collections::HashMap;

/// HuBERT, wav2vec 2.0 with and without adapters, WavLM: each with either norm.
fn config() -> impl Strategy<Value = EncoderConfig> {
    let family = prop::sample::select(vec![Family::Hubert, Family::Wav2vec2, Family::Wavlm]);
    (family, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(family, layer_norm, first, conv_bias)| EncoderConfig {
            input_channels: 1,
            conv_layers: [(5, 3), (3, 2), (2, 2)]
                .map(|(kernel, stride)| ConvLayer { dim: 6, kernel, stride })
                .to_vec(),
            conv_norm: if layer_norm { ConvNorm::EveryLayer } else { ConvNorm::FirstGroup },
            embed_dim: 8,
            ffn_dim: 12,
            heads: 2,
            stage_layers: vec![2],
            rate_ratios: vec![],
            sampling: Sampling::ConvAdapter { kernel: 1 },
            layer_norm_first: first,
            position_kernel: 4,
            position_groups: 2,
            dropout: 0.1,
            activation_dropout: 0.1,
            input_dropout: 0.1,
            layer_drop: 0.0,
            variant: Variant {
                family,
                conv_bias,
                always_project: true,
                relative_positions: (family == Family::Wavlm)
                    .then_some(RelativePositions { buckets: 16, max_distance: 20 }),
                adapter_dim: (family == Family::Wav2vec2 && first).then_some(3),
                ..Variant::default()
            },
        },
    )
}

/// Parameters of the encoder and two languages, none left at 0 or 1.
fn parameters(config: &EncoderConfig, seed: u64, language: bool) -> Result<Parameters> {
    let started = Parameters::default();
    if language {
        LanguageAdapter::new(config, 5, &started.seeded(seed))?;
    } else {
        Encoder::new(config, &started.seeded(seed))?;
    }
    let mut tensors = HashMap::new();
    for (i, (name, var)) in started.all().into_iter().enumerate() {
        let shape = var.dims();
        let scale = if shape.len() == 1 { 1.0 } else { 0.5 };
        let unit = uniform(var.elem_count(), seed.wrapping_add(i as u64 * 7919));
        let mean = if shape.len() == 1 && name.ends_with("weight") { 1.0 } else { 0.0 };
        let values = unit.into_iter().map(|u| mean + scale * u).collect();
        tensors.insert(name, Tensor::from_vec(values, shape, &Device::Cpu)?);
    }
    Parameters::from_tensors(tensors)
}

fn largest_difference(
    config: &EncoderConfig,
    steps: &[usize],
    extra: usize,
    seed: u64,
) -> Result<f32> {
    let encoder = Encoder::new(config, &parameters(config, seed, false)?.existing())?;
    let languages = if config.variant.adapter_dim.is_some() {
        (0..2)
            .map(|i| {
                let parameters = parameters(config, seed ^ (77 + i), true)?;
                LanguageAdapter::new(config, 5, &parameters.existing())
            })
            .collect::<Result<Vec<_>>>()?
    } else {
        Vec::new()
    };
    let of = |i: usize| languages.get(i % languages.len().max(1));
    let all: Vec<&LanguageAdapter> = (0..steps.len()).filter_map(of).collect();
    let clips: Vec<Vec<f32>> =
        (0_u64..).zip(steps).map(|(i, &n)| clip(config, n, seed ^ (i + 1))).collect();
    let views: Vec<&[f32]> = clips.iter().map(Vec::as_slice).collect();
    let pass = Pass::inference(Precision::F32);
    let together = encoder.trace(&batch(config, &views, extra)?, &all, &pass)?;
    let mut largest = 0.0_f32;
    for i in 0..clips.len() {
        let own: Vec<&LanguageAdapter> = of(i).into_iter().collect();
        let alone = encoder.trace(&batch(config, &views[i..=i], 0)?, &own, &pass)?;
        let mut pairs: Vec<_> =
            alone.hidden_states().into_iter().zip(together.hidden_states()).collect();
        pairs.push((alone.output().clone(), together.output().clone()));
        for (alone, together) in pairs {
            let frames = alone.lengths[0];
            assert_eq!(frames, together.lengths[i], "valid frames of clip {i}");
            let alone = alone.hidden.get(0)?.narrow(0, 0, frames)?;
            let together = together.hidden.get(i)?.narrow(0, 0, frames)?;
            let difference = (alone - together)?.abs()?.flatten_all()?.max(0)?.to_scalar()?;
            largest = largest.max(difference);
        }
    }
    Ok(largest)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_family_encodes_a_clip_the_same_alone_and_in_a_batch(
        config in config(),
        steps in prop::collection::vec(1_usize..400, 1..5),
        extra in 0_usize..60,
        seed in any::<u64>(),
    ) {
        let difference = largest_difference(&config, &steps, extra, seed).expect("encodes");
        prop_assert!(difference < 1e-4, "differs by {difference}");
    }
}
