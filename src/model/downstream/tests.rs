//! The head against its published size, and frame by frame.

use super::*;
use crate::model::Parameters;
use asr_kernels::Precision;
use asr_kernels::reference::uniform;
use candle_core::{Device, Tensor};

fn small() -> TransformerHeadConfig {
    TransformerHeadConfig {
        projection: 9,
        dim: 8,
        ffn_dim: 12,
        heads: 2,
        ..TransformerHeadConfig::default()
    }
}

fn frames(lengths: &[usize], dim: usize, seed: u64) -> Result<Sequence> {
    let longest = lengths.iter().copied().max().unwrap_or(1);
    let shape = (lengths.len(), longest, dim);
    let values = uniform(lengths.len() * longest * dim, seed);
    let hidden = Tensor::from_vec(values, shape, &Device::Cpu)?;
    Ok(Sequence { hidden, lengths: lengths.to_vec() })
}

#[test]
fn the_published_head_has_its_published_size() -> Result<()> {
    // ML-SUPERB without the output layer, above 768, 1024 and 1280 numbers a frame.
    for (dim, states, millions) in [(768, 13, 4.66), (1024, 25, 4.68), (1280, 49, 4.70)] {
        let parameters = Parameters::default();
        let vb = parameters.seeded(1);
        TransformerHead::new(&TransformerHeadConfig::default(), dim, &vb)?;
        LayerWeights::new(states, &vb)?;
        let found = (parameters.count() as f64 / 1e4).round() / 100.0;
        assert_eq!(found, millions, "above {dim}");
    }
    Ok(())
}

const CONFORMER: HeadLayer = HeadLayer::Conformer { kernel: 15 };
const E_BRANCHFORMER: HeadLayer =
    HeadLayer::EBranchformer { mlp_dim: 3072, kernel: 31, merge_kernel: 31 };

#[test]
fn the_heads_of_2_0_have_their_published_sizes() -> Result<()> {
    // Above MMS 1B, with an output layer of 6,430 tokens.
    for (layers, layer, millions) in
        [(24, HeadLayer::Transformer, 91.12), (12, CONFORMER, 91.25), (12, E_BRANCHFORMER, 92.15)]
    {
        let parameters = Parameters::default();
        let vb = parameters.seeded(1);
        let sizes =
            TransformerHeadConfig { dim: 512, ffn_dim: 2048, layers, layer, ..Default::default() };
        TransformerHead::new(&sizes, 1280, &vb)?;
        LayerWeights::new(49, &vb)?;
        let statistics: usize = parameters.statistics().iter().map(|(_, s)| s.elem_count()).sum();
        let found = parameters.count() - statistics + 6_430 * 513;
        assert_eq!((found as f64 / 1e4).round() / 100.0, millions, "{layer:?}");
    }
    Ok(())
}

#[test]
fn a_clip_is_the_same_alone_and_in_a_batch_and_short_ones_have_a_frame() -> Result<()> {
    alone_and_in_a_batch(HeadLayer::Transformer)
}

#[test]
fn convolutions_and_relative_positions_do_not_see_padding() -> Result<()> {
    alone_and_in_a_batch(HeadLayer::Conformer { kernel: 5 })?;
    alone_and_in_a_batch(HeadLayer::EBranchformer { mlp_dim: 6, kernel: 3, merge_kernel: 5 })
}

fn alone_and_in_a_batch(layer: HeadLayer) -> Result<()> {
    let parameters = Parameters::default();
    let head = TransformerHead::new(
        &TransformerHeadConfig { layer, ..small() },
        5,
        &parameters.seeded(3),
    )?;
    let pass = Pass::inference(Precision::F32);
    let lengths = [31, 12, 2];
    let batch = frames(&lengths, 5, 7)?;
    let together = head.forward(&batch, &pass)?;
    // (31 - 1) / 2 - 2 and (12 - 1) / 2 - 2; at least one.
    assert_eq!(together.lengths, [13, 3, 1]);
    for (i, &n) in lengths.iter().enumerate() {
        let clip = batch.hidden.narrow(0, i, 1)?.narrow(1, 0, n)?.contiguous()?;
        let alone = head.forward(&Sequence { hidden: clip, lengths: vec![n] }, &pass)?;
        assert_eq!(alone.lengths[0], together.lengths[i]);
        let n = alone.lengths[0];
        let (a, b) = (alone.hidden.get(0)?, together.hidden.get(i)?.narrow(0, 0, n)?);
        let worst = (a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
        assert!(worst < 1e-5, "clip {i} differs by {worst}");
    }
    Ok(())
}

#[test]
fn a_subsampled_frame_is_two_convolutions_by_hand() -> Result<()> {
    let (width, dim) = (7, 2);
    let parameters = Parameters::default();
    let head = Subsampling::new(width, dim, &parameters.seeded(5))?;
    let input = frames(&[7], width, 9)?;
    let found = head.forward(&input, &Pass::inference(Precision::F32))?.hidden;
    assert_eq!(found.dims(), [1, 1, dim]);
    let values = |name: &str| -> Result<Vec<f32>> {
        let all = parameters.all();
        let var = all.iter().find(|(n, _)| n == name).expect("there").1.clone();
        var.flatten_all()?.to_vec1::<f32>()
    };
    let x = input.hidden.get(0)?.to_vec2::<f32>()?;
    let (w0, b0) = (values("conv.0.weight")?, values("conv.0.bias")?);
    let (w2, b2) = (values("conv.2.weight")?, values("conv.2.bias")?);
    let (w, b) = (values("out.0.weight")?, values("out.0.bias")?);
    let taps = || (0..3).flat_map(|t| (0..3).map(move |f| (t, f)));
    let first = |c: usize, t: usize, f: usize| -> f32 {
        let sum: f32 = taps().map(|(i, j)| w0[c * 9 + i * 3 + j] * x[2 * t + i][2 * f + j]).sum();
        (sum + b0[c]).max(0.0)
    };
    let second = |c: usize| -> f32 {
        let sum: f32 = (0..dim)
            .flat_map(|k| taps().map(move |(i, j)| (k, i, j)))
            .map(|(k, i, j)| w2[(c * dim + k) * 9 + i * 3 + j] * first(k, i, j))
            .sum();
        (sum + b2[c]).max(0.0)
    };
    for (o, found) in found.flatten_all()?.to_vec1::<f32>()?.iter().enumerate() {
        let want: f32 = b[o] + (0..dim).map(|c| w[o * dim + c] * second(c)).sum::<f32>();
        assert!((found - want).abs() < 1e-5, "{found} against {want}");
    }
    Ok(())
}

#[test]
fn relative_positions_count_from_each_query() -> Result<()> {
    let config = TransformerHeadConfig { layer: CONFORMER, dropout: 0.0, ..small() };
    let parameters = Parameters::default();
    let module = attention::SelfAttention::new(&config, &parameters.seeded(4))?;
    let (n, lengths) = (6, [6, 4]);
    let input = frames(&lengths, config.dim, 8)?.hidden;
    let found = module.forward(&input, &lengths, &Pass::inference(Precision::F32))?;
    let found = found.to_vec3::<f32>()?;
    let all: std::collections::HashMap<String, Vec<f32>> = parameters
        .all()
        .into_iter()
        .map(|(name, var)| Ok((name, var.flatten_all()?.to_vec1::<f32>()?)))
        .collect::<Result<_>>()?;
    let (dim, width) = (config.dim, config.dim / config.heads);
    let map = |name: &str, x: &[f32]| -> Vec<f32> {
        let bias = all.get(&format!("{name}.bias"));
        let row = |o: usize| {
            let w = &all[&format!("{name}.weight")][o * dim..(o + 1) * dim];
            let sum: f32 = w.iter().zip(x).map(|(w, x)| w * x).sum();
            sum + bias.map_or(0.0, |bias| bias[o])
        };
        (0..dim).map(row).collect()
    };
    let x = input.to_vec3::<f32>()?;
    for (clip, &valid) in lengths.iter().enumerate() {
        for i in 0..valid {
            let q = map("linear_q", &x[clip][i]);
            let mut attended = vec![0.0_f32; dim];
            for h in 0..config.heads {
                let head = h * width..(h + 1) * width;
                let score = |j: usize| -> f32 {
                    let k = map("linear_k", &x[clip][j]);
                    let distance: Vec<f32> = subsampling::wave(i as f64 - j as f64, dim).collect();
                    let p = map("linear_pos", &distance);
                    let sum: f32 = head
                        .clone()
                        .map(|c| {
                            let (u, v) = (all["pos_bias_u"][c], all["pos_bias_v"][c]);
                            (q[c] + u) * k[c] + (q[c] + v) * p[c]
                        })
                        .sum();
                    (sum / (width as f32).sqrt()).exp()
                };
                let total: f32 = (0..valid).map(score).sum();
                for (j, frame) in x[clip].iter().enumerate().take(valid) {
                    let v = map("linear_v", frame);
                    head.clone().for_each(|c| attended[c] += score(j) / total * v[c]);
                }
            }
            for (got, want) in found[clip][i].iter().zip(map("linear_out", &attended)) {
                assert!((got - want).abs() < 1e-5, "frame {i} of {n}: {got}, {want}");
            }
        }
    }
    Ok(())
}

#[test]
fn sizes_out_of_range_are_named() {
    for (head, want) in [
        (TransformerHeadConfig { projection: 6, ..small() }, "downstream.projection"),
        (TransformerHeadConfig { heads: 3, ..small() }, "downstream.heads"),
        (TransformerHeadConfig { dim: 5, heads: 1, ..small() }, "downstream.dim"),
        (TransformerHeadConfig { layers: 0, ..small() }, "downstream.layers"),
        (TransformerHeadConfig { dropout: 1.0, ..small() }, "downstream.dropout"),
        (
            TransformerHeadConfig { layer: HeadLayer::Conformer { kernel: 4 }, ..small() },
            "downstream.layer.kernel",
        ),
    ] {
        let config = DownstreamConfig { layer_sum: true, transformer: Some(head) };
        assert_eq!(config.validate().expect_err(want).field, want);
    }
}
