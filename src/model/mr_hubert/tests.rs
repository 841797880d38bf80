//! The golden numbers of MR-HuBERT: parameters and waveform from a generator anyone can
//! write down, outputs of the reference implementation in f64.

use super::*;
use crate::model::{ConvLayer, ConvNorm, Parameters, Sampling, Variant};
use asr_kernels::Precision;
use asr_kernels::gradients::Gradients;
use candle_core::Device;
use std::collections::HashMap;

fn fnv1a(text: &str) -> u64 {
    text.bytes()
        .fold(0xCBF2_9CE4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3))
}

fn units(seed: u64, n: usize) -> Vec<f64> {
    (1..=n as u64)
        .map(|i| {
            let mut z = seed.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            ((z ^ (z >> 31)) >> 11) as f64 * 2.0_f64.powi(-53)
        })
        .collect()
}

fn config(norm_first: bool, ratios: &[[usize; 2]], kernel: usize) -> EncoderConfig {
    let conv = |(kernel, stride)| ConvLayer { dim: 512, kernel, stride };
    EncoderConfig {
        input_channels: 1,
        conv_layers: [(10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2)].map(conv).to_vec(),
        conv_norm: if norm_first { ConvNorm::EveryLayer } else { ConvNorm::FirstGroup },
        embed_dim: 64,
        ffn_dim: 128,
        heads: 4,
        stage_layers: vec![2; 2 * ratios.len() + 1],
        rate_ratios: ratios.to_vec(),
        sampling: Sampling::ConvAdapter { kernel },
        layer_norm_first: norm_first,
        position_kernel: 128,
        position_groups: 16,
        dropout: 0.1,
        attention_dropout: 0.0,
        activation_dropout: 0.1,
        input_dropout: 0.1,
        layer_drop: 0.05,
        variant: Variant::default(),
    }
}

/// The encoder with generated parameters: names and shapes come from building it once.
fn golden_model(config: &EncoderConfig) -> Result<MrHubert> {
    let started = Parameters::default();
    MrHubert::new(config, &started.seeded(0))?;
    let mut tensors = HashMap::new();
    for (name, var) in started.all() {
        let shape = var.dims().to_vec();
        let fan = (var.elem_count() / shape[0]) as f64;
        let values: Vec<f32> = units(fnv1a(&name), var.elem_count())
            .into_iter()
            .map(|u| {
                let v = 2.0 * u - 1.0;
                let value = if name.ends_with(".bias") {
                    0.1 * v
                } else if name.ends_with("weight_g") || shape.len() == 1 {
                    1.0 + 0.1 * v
                } else {
                    v * (3.0 / fan).sqrt()
                };
                value as f32
            })
            .collect();
        tensors.insert(name, Tensor::from_vec(values, shape, &Device::Cpu)?);
    }
    MrHubert::new(config, &Parameters::from_tensors(tensors)?.frozen())
}

fn wave() -> Vec<f32> {
    use std::f64::consts::TAU;
    units(fnv1a("wav"), 16_640)
        .into_iter()
        .enumerate()
        .map(|(n, u)| {
            let t = n as f64 / 16_000.0;
            (0.3 * (TAU * 220.0 * t).sin()
                + 0.1 * (TAU * 1333.0 * t + 0.5).sin()
                + 0.05 * (2.0 * u - 1.0)) as f32
        })
        .collect()
}

fn batch(clips: &[&[f32]]) -> Result<Sequence> {
    let steps = clips.iter().map(|c| c.len()).max().unwrap_or(0);
    let mut values = Vec::new();
    for clip in clips {
        values.extend_from_slice(clip);
        values.resize(values.len() + steps - clip.len(), 0.0);
    }
    let hidden = Tensor::from_vec(values, (clips.len(), steps, 1), &Device::Cpu)?;
    Ok(Sequence { hidden, lengths: clips.iter().map(|c| c.len()).collect() })
}

/// Mean of |x|, then [0,0], [0,63], [7,5] and [last,31] of one clip's output.
fn probes(output: &Sequence, clip: usize) -> Result<[f32; 5]> {
    let hidden = output.hidden.get(clip)?;
    let rows = hidden.to_vec2::<f32>()?;
    let mean = hidden.abs()?.mean_all()?.to_scalar::<f32>()?;
    let last = rows.len() - 1;
    Ok([mean, rows[0][0], rows[0][63], rows[7][5], rows[last][31]])
}

fn assert_close(name: &str, got: [f32; 5], want: [f64; 5]) {
    for (g, w) in got.iter().zip(want) {
        assert!((f64::from(*g) - w).abs() < 2e-5, "{name}: {got:?} against {want:?}");
    }
}

/// Frames and probes of one resolution.
type Want = (usize, [f64; 5]);

#[test]
fn outputs_are_those_of_the_reference() -> Result<()> {
    let pass = Pass::inference(Precision::F32);
    let wave = wave();
    let input = batch(&[&wave])?;
    let cases: [(&str, EncoderConfig, Vec<Want>); 4] = [
        (
            "A",
            config(false, &[[1, 2]], 1),
            vec![
                (26, [1.389325506, -3.056067283, 2.687351525, -0.564416050, 1.482811959]),
                (51, [1.257950004, -3.387790277, 2.988854372, -0.717447550, 2.054847883]),
            ],
        ),
        (
            "B",
            config(true, &[[1, 2]], 1),
            vec![
                (26, [1.359949691, -0.141174583, 2.824157021, -1.641871165, -0.156200673]),
                (51, [1.394581187, -1.395773197, 2.238315312, -1.944226651, 0.357640735]),
            ],
        ),
        (
            "C",
            config(false, &[[1, 2], [2, 5]], 1),
            vec![
                (11, [1.227720652, 0.583905558, 3.043713824, -1.692262741, 0.176023091]),
                (26, [1.190953754, 0.167664889, 3.630997063, -0.601746503, 1.596934918]),
                (51, [1.155189865, -2.303658601, 1.587817267, -0.515780593, 1.962096555]),
            ],
        ),
        (
            "D",
            config(false, &[[1, 2]], 3),
            vec![
                (26, [1.408372747, -3.389698559, 1.974133829, 0.093183520, 1.861654241]),
                (51, [1.249558687, -3.370943014, 2.324631917, -0.273654905, 2.405037691]),
            ],
        ),
    ];
    for (name, config, wants) in cases {
        let outputs = golden_model(&config)?.forward(&input, &pass)?;
        assert_eq!(outputs.len(), wants.len());
        for (got, (frames, want)) in outputs.iter().zip(wants) {
            assert_eq!(got.output.frames()?, frames, "{name}");
            assert_close(name, probes(&got.output, 0)?, want);
        }
    }
    Ok(())
}

#[test]
fn padded_norms_reproduce_the_reference_batch() -> Result<()> {
    let wave = wave();
    let input = batch(&[&wave, &wave[..12_000]])?;
    let pass = Pass::inference(Precision::F32).with_padded_norms();
    let outputs = golden_model(&config(false, &[[1, 2]], 1))?.forward(&input, &pass)?;
    let low = [1.323751406, -2.634037489, 2.836673530, -1.041557085, -0.448628676];
    let high = [1.233256381, -2.936810969, 3.080560415, -0.229825747, -0.469801965];
    assert_close("E low", probes(&outputs[0].output, 1)?, low);
    assert_close("E high", probes(&outputs[1].output, 1)?, high);
    Ok(())
}

#[test]
fn a_clip_is_the_same_alone_and_in_a_batch() -> Result<()> {
    let wave = wave();
    let pass = Pass::inference(Precision::F32);
    for (norm_first, ratios, kernel) in
        [(false, vec![[1, 2]], 1), (true, vec![[1, 2], [2, 5]], 3), (false, vec![], 1)]
    {
        let model = golden_model(&config(norm_first, &ratios, kernel))?;
        let clips: [&[f32]; 3] = [&wave[..9_111], &wave, &wave[..250]];
        let together = model.forward(&batch(&clips)?, &pass)?;
        for (i, clip) in clips.iter().enumerate() {
            let alone = model.forward(&batch(&[clip])?, &pass)?;
            for (a, t) in alone.iter().zip(&together) {
                let n = a.output.lengths[0];
                assert_eq!(n, t.output.lengths[i]);
                let a = a.output.hidden.get(0)?.narrow(0, 0, n)?;
                let t = t.output.hidden.get(i)?.narrow(0, 0, n)?;
                let worst = (a - t)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
                assert!(worst < 1e-4, "clip {i} differs by {worst}");
            }
        }
    }
    Ok(())
}

#[test]
fn every_parameter_gets_a_gradient() -> Result<()> {
    let wave = wave();
    let parameters = Parameters::default();
    let model = MrHubert::new(&config(true, &[[1, 2], [2, 5]], 3), &parameters.seeded(1))?;
    let mut pass = Pass::training(Precision::F32, 3);
    for attempt in 0.. {
        let outputs = model.forward(&batch(&[&wave, &wave[..9_000]])?, &pass)?;
        let mut loss = outputs[0].output.hidden.sqr()?.mean_all()?;
        for resolution in &outputs[1..] {
            loss = (loss + resolution.output.hidden.sqr()?.mean_all()?)?;
        }
        let grads = loss.backward()?;
        let missing: Vec<String> = parameters
            .all()
            .into_iter()
            .filter(|(_, var)| grads.get(var).is_none())
            .map(|(name, _)| name)
            .collect();
        if missing.is_empty() {
            break;
        }
        // Layer drop leaves out whole layers by chance, never anything else.
        assert!(missing.iter().all(|name| name.contains(".layers.")), "no gradient: {missing:?}");
        assert!(attempt < 20, "no gradient in {attempt} passes: {missing:?}");
        pass = Pass::training(Precision::F32, 4 + attempt);
    }
    Ok(())
}

#[test]
fn layers_that_are_computed_again_have_the_same_gradients() -> Result<()> {
    for norm_first in [false, true] {
        let config = EncoderConfig {
            dropout: 0.0,
            attention_dropout: 0.0,
            activation_dropout: 0.0,
            input_dropout: 0.0,
            layer_drop: 0.0,
            ..config(norm_first, &[[1, 2]], 1)
        };
        let parameters = Parameters::default();
        let model = MrHubert::new(&config, &parameters.seeded(3))?;
        let wave = wave();
        let input = batch(&[&wave[..9_000], &wave[..6_000]])?;
        let mut found = Vec::new();
        for recomputes in [false, true] {
            let pass = Pass::training(Precision::F32, 1).recomputing(recomputes);
            let outputs = model.forward(&input, &pass)?;
            let last = outputs.last().expect("a resolution").output.zero_padding()?;
            let variables = parameters.trainable();
            let mut gradients = Gradients::of(variables.iter().map(|(_, var)| var));
            gradients.backward(&last.hidden.sqr()?.sum_all()?)?;
            let reached = variables
                .iter()
                .map(|(name, var)| (name.clone(), gradients.get(var).map(<[f32]>::to_vec)));
            found.push(reached.collect::<Vec<_>>());
        }
        let mut layers = 0;
        for ((name, kept), (_, again)) in found[0].iter().zip(&found[1]) {
            assert_eq!(kept.is_some(), again.is_some(), "{name}");
            let (Some(kept), Some(again)) = (kept, again) else { continue };
            layers += usize::from(name.contains(".layers."));
            let scale = kept.iter().fold(1e-3_f32, |scale, g| scale.max(g.abs()));
            for (kept, again) in kept.iter().zip(again) {
                assert!((kept - again).abs() <= 1e-5 * scale, "{name}: {kept} {again}");
            }
        }
        assert!(layers > 50, "{layers} parameters of layers");
    }
    Ok(())
}
