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
            attention_dropout: 0.0,
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
    let encoder = Encoder::new(config, &parameters(config, seed, false)?.frozen())?;
    let languages = if config.variant.adapter_dim.is_some() {
        (0..2)
            .map(|i| {
                let parameters = parameters(config, seed ^ (77 + i), true)?;
                LanguageAdapter::new(config, 5, &parameters.frozen())
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

/// A loss of two clips that weighs every output with a number of its own.
fn loss(
    config: &EncoderConfig,
    parameters: &[Parameters],
    clips: &[Vec<f32>; 2],
) -> Result<Tensor> {
    let encoder = Encoder::new(config, &parameters[0].seeded(0))?;
    let adapters = parameters[1..]
        .iter()
        .map(|parameters| LanguageAdapter::new(config, 5, &parameters.seeded(0)))
        .collect::<Result<Vec<_>>>()?;
    let views = [clips[0].as_slice(), clips[1].as_slice()];
    let pass = Pass::training(Precision::F32, 1);
    let adapters: Vec<&LanguageAdapter> = adapters.iter().collect();
    let encoded = encoder.outputs(&batch(config, &views, 0)?, &adapters, &pass)?;
    let output = encoded.output();
    let weights = Tensor::from_vec(
        uniform(output.hidden.elem_count(), 5),
        output.hidden.shape(),
        &Device::Cpu,
    )?;
    let weighed = (&output.hidden * weights)?;
    let sums = output.lengths.iter().enumerate();
    let sums = sums.map(|(i, &n)| weighed.get(i)?.narrow(0, 0, n)?.sum_all());
    sums.reduce(|a, b| a? + b?).expect("two clips")
}

proptest! {
    // One seed, as for the other differences of losses.
    #![proptest_config(ProptestConfig {
        rng_seed: proptest::test_runner::RngSeed::Fixed(1),
        ..ProptestConfig::with_cases(10)
    })]

    /// Every family can be trained: along the gradient of each parameter of the encoder the loss
    /// rises as fast as the gradient is long.
    #[test]
    fn gradients_of_every_family_are_finite_differences(config in config(), seed in any::<u64>()) {
        let clips = [clip(&config, 90, seed ^ 1), clip(&config, 61, seed ^ 2)];
        let languages = if config.variant.adapter_dim.is_some() { 2 } else { 0 };
        let parameters: Vec<Parameters> = (0..=languages)
            .map(|i| parameters(&config, seed ^ (31 * i), i > 0).expect("a valid configuration"))
            .collect();
        let at = || loss(&config, &parameters, &clips).expect("a loss");
        let gradients = at().backward().expect("differentiable");
        for (name, var) in parameters[0].all() {
            let gradient = gradients.get(&var).unwrap_or_else(|| panic!("no gradient for {name}"));
            let length = gradient.sqr().and_then(|g| g.sum_all()).and_then(|g| g.sqrt());
            let length = f64::from(length.and_then(|g| g.to_scalar::<f32>()).expect("a number"));
            if length < 1e-3 {
                // Nothing to be seen over the rounding of the loss, as with a bias under a softmax.
                continue;
            }
            let direction = (gradient / length).expect("a tensor");
            let before = var.as_tensor().copy().expect("a copy");
            let moved = |step: f64| {
                let to = (&before + (&direction * step).expect("a tensor")).expect("a tensor");
                var.set(&to).expect("the same shape");
                let loss = at().to_scalar::<f32>().expect("a number");
                var.set(&before).expect("the same shape");
                f64::from(loss)
            };
            let slope = |step| (moved(step) - moved(-step)) / (2.0 * step);
            let step = (0.03 / length).min(1e-2);
            let numeric = (4.0 * slope(step / 2.0) - slope(step)) / 3.0;
            prop_assert!(
                (numeric - length).abs() < 1e-2 * length + 2e-3,
                "{name}: gradient {length}, difference {numeric}"
            );
        }
    }
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
