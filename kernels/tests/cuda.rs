//! Every operation on a CUDA device against the same operation on the CPU: `bash tests/gpu.sh`.
#![cfg(feature = "cuda")]

use asr_kernels::attention::Attend;
use asr_kernels::ctc::{Target, Term};
use asr_kernels::dropout::Dropout;
use asr_kernels::linear::Activation;
use asr_kernels::reference::uniform;
use asr_kernels::{Precision, accelerator, adamw, attention, conv, cross_entropy, ctc, dropout};
use asr_kernels::{gelu, linear, masking, nearest, norm, padding, position_conv, sum};
use candle_core::{Device, Result, Tensor, Var};

fn card() -> Device {
    accelerator::cuda(0).expect("these tests are for machines with a CUDA device")
}

/// Runs `operation` on inputs of these shapes on both devices, and compares its output and the
/// gradients of a weighted sum of it in every input. `tolerance` is of 1 and of a value's size.
fn compare(
    what: &str,
    shapes: &[&[usize]],
    tolerance: f32,
    operation: impl Fn(&[Tensor]) -> Result<Tensor>,
) -> Result<()> {
    let run = |device: &Device| -> Result<Vec<Vec<f32>>> {
        let vars: Vec<Var> = (1..)
            .zip(shapes)
            .map(|(seed, shape)| {
                let values = uniform(shape.iter().product(), seed);
                Var::from_vec(values, *shape, device)
            })
            .collect::<Result<_>>()?;
        let inputs: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
        let y = operation(&inputs)?;
        let weights = Tensor::from_vec(uniform(y.elem_count(), 99), y.shape(), device)?;
        let gradients = (&y * weights)?.sum_all()?.backward()?;
        let flat = |t: &Tensor| t.flatten_all()?.to_vec1::<f32>();
        let mut all = vec![flat(&y)?];
        for var in &vars {
            all.push(flat(gradients.get(var).expect("a gradient"))?);
        }
        Ok(all)
    };
    let (want, got) = (run(&Device::Cpu)?, run(&card())?);
    for (part, (got, want)) in got.iter().zip(&want).enumerate() {
        assert_eq!(got.len(), want.len());
        for (i, (g, w)) in got.iter().zip(want).enumerate() {
            let close = (g - w).abs() <= tolerance * (1.0 + w.abs());
            assert!(close, "{what}, part {part}, value {i}: {g} on the device, {w} on the CPU");
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs a CUDA device: bash tests/gpu.sh"]
fn maps_and_activations() -> Result<()> {
    for rows in [1, 37, 499] {
        compare("gelu", &[&[rows, 33]], 1e-5, |x| gelu::gelu(&x[0]))?;
        let shapes: [&[usize]; 3] = [&[1, rows, 37], &[65, 37], &[65]];
        for (precision, tolerance) in [(Precision::F32, 1e-4), (Precision::Bf16, 0.3)] {
            for activation in [Activation::Identity, Activation::Gelu] {
                compare("linear", &shapes, tolerance, |x| {
                    linear::activated_linear(&x[0], &x[1], &x[2], None, activation, precision)
                })?;
            }
        }
        compare("sum", &[&[rows, 5], &[rows, 5]], 1e-6, |x| sum::scaled_sum(&x[0], &x[1], 0.5))?;
    }
    Ok(())
}

#[test]
#[ignore = "needs a CUDA device: bash tests/gpu.sh"]
fn norms() -> Result<()> {
    for frames in [1_usize, 7, 3200] {
        let shapes: [&[usize]; 3] = [&[2, frames, 64], &[64], &[64]];
        let layer = |x: &[Tensor]| norm::layer_norm(&x[0], &x[1], &x[2], 1e-5);
        compare("layer norm", &shapes, 1e-3, layer)?;
        let lengths = [frames, frames.div_ceil(2)];
        for groups in [1, 64] {
            compare("group norm", &shapes, 2e-3, |x| {
                norm::group_norm(&x[0], &x[1], &x[2], groups, 1e-5, Some(&lengths))
            })?;
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs a CUDA device: bash tests/gpu.sh"]
fn convolutions() -> Result<()> {
    for (frames, inputs, outputs, kernel, stride) in
        [(4000, 1, 64, 10, 5), (399, 64, 48, 3, 2), (9, 4, 3, 2, 2)]
    {
        let shapes: [&[usize]; 2] = [&[2, frames, inputs], &[outputs, inputs, kernel]];
        compare("convolution", &shapes, 2e-3, |x| {
            conv::conv1d(&x[0], &x[1], stride, 0, Precision::F32)
        })?;
        let turned: [&[usize]; 2] = [&[2, frames / stride, outputs], &[outputs, inputs, kernel]];
        compare("transposed convolution", &turned, 2e-3, |x| {
            conv::conv_transpose1d(&x[0], &x[1], stride, stride - 1, Precision::F32)
        })?;
    }
    for (frames, dim, groups, kernel) in [(1, 4, 2, 8), (131, 96, 2, 128)] {
        let shapes: [&[usize]; 2] = [&[2, frames, dim], &[dim, dim / groups, kernel]];
        compare("position convolution", &shapes, 2e-3, |x| {
            position_conv::position_conv(&x[0], &x[1], Precision::F32)
        })?;
    }
    Ok(())
}

#[test]
#[ignore = "needs a CUDA device: bash tests/gpu.sh"]
fn attention_with_and_without_a_bias() -> Result<()> {
    for (frames, heads, width) in [(1_usize, 1, 3), (131, 3, 64), (70, 2, 96)] {
        let lengths = [frames, frames.div_ceil(2)];
        let x: &[usize] = &[2, frames, heads * width];
        let plain = Attend::new(heads, &lengths, Precision::F32);
        let dropped = Attend { dropout: Dropout::new(0.3, 0x1234_5678_9abc)?, ..plain };
        let shapes = [x, x, x, &[heads, 2 * frames - 1], &[2, heads, frames]];
        for how in [&plain, &dropped] {
            compare("attention", &[x, x, x], 1e-4, |x| {
                attention::attention(&x[0], &x[1], &x[2], how)
            })?;
            compare("gated attention", &shapes, 1e-3, |x| {
                attention::gated_attention((&x[0], &x[1], &x[2]), (&x[3], &x[4]), how)
            })?;
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs a CUDA device: bash tests/gpu.sh"]
fn losses() -> Result<()> {
    let target = |tokens: &[u32], open_ended| Target { tokens: tokens.to_vec(), open_ended };
    let targets = vec![target(&[1, 2, 1], false), target(&[3], true), target(&[2, 2, 1, 3], false)];
    let other = vec![target(&[1], true); 3];
    let terms = [
        Term { targets, weights: vec![1.0, 0.5, 2.0] },
        Term { targets: other, weights: vec![0.3, 0.0, 1.0] },
    ];
    for frames in [9_usize, 500] {
        let lengths = [frames, frames / 2, frames];
        compare("ctc", &[&[3, frames, 60]], 1e-4, |x| {
            Ok(ctc::ctc_losses(&x[0], &terms, &lengths, 0)?.0)
        })?;
    }
    let classes: Vec<u32> = (0..77).map(|i| i * 5 % 504).collect();
    compare("cross entropy", &[&[77, 504]], 1e-4, |x| cross_entropy::cross_entropy(&x[0], &classes))
}

#[test]
#[ignore = "needs a CUDA device: bash tests/gpu.sh"]
fn masks() -> Result<()> {
    let x: &[usize] = &[2, 50, 33];
    compare("dropout", &[x], 1e-6, |x| dropout::dropout(&x[0], 0.3, 0x1234_5678_9abc))?;
    compare("padding", &[x], 1e-6, |x| padding::zero_padding(&x[0], &[50, 11]))?;
    let masked: Vec<bool> = (0..100).map(|i| i % 3 == 0).collect();
    compare("masking", &[x, &[33]], 1e-4, |x| masking::replace_frames(&x[0], &x[1], &masked))?;
    compare("damping", &[x], 1e-6, |x| masking::scale_gradient(&x[0], 0.1))
}

#[test]
#[ignore = "needs a CUDA device: bash tests/gpu.sh"]
fn the_nearest_centroid() -> Result<()> {
    let (frames, count, dim) = (5000, 500, 39);
    let values = uniform(frames * dim, 1);
    let centroids = nearest::Centroids::new(uniform(count * dim, 2), dim);
    let want = centroids.nearest(&values);
    let on_device = nearest::DeviceCentroids::new(&centroids, &card())?;
    let x = Tensor::from_vec(values, (frames, dim), &card())?;
    let found = on_device.nearest(&x)?.to_vec1::<u32>()?;
    let other = found.iter().zip(&want).filter(|(a, b)| a != b).count();
    // Of two centroids as near, either may be found.
    assert!(other <= frames / 1000, "{other} of {frames} frames have another centroid");
    Ok(())
}

#[test]
#[ignore = "needs a CUDA device: bash tests/gpu.sh"]
fn a_step_of_the_optimiser() -> Result<()> {
    let n = 70_001;
    let step = adamw::Step {
        betas: [0.9, 0.98],
        scale: 1.0,
        shrink: 0.999,
        rate: 0.01,
        root: 1.3,
        eps: 1e-8,
    };
    let device = card();
    let gradient = uniform(n, 2);
    let squares: f64 = gradient.iter().map(|g| f64::from(*g).powi(2)).sum();
    let here = Var::from_vec(uniform(n, 1), n, &Device::Cpu)?;
    let (mut mean, mut square) = (vec![0.1; n], vec![0.2; n]);
    let scale = (0.1 / squares.sqrt()) as f32;
    adamw::update(&here, adamw::Step { scale, ..step }, (&mut mean, &mut square), &gradient)?;
    let there = Var::from_vec(uniform(n, 1), n, &device)?;
    let moments = [0.1_f32, 0.2].map(|v| Tensor::full(v, n, &device));
    let [mean_there, square_there] = moments;
    let (mean_there, square_there) = (mean_there?, square_there?);
    let slopes = Tensor::from_vec(gradient, n, &device)?;
    let norm = adamw::norm_and_factor(std::slice::from_ref(&slopes), 1.0, 0.1)?;
    adamw::update_on_device(&there, step, (&mean_there, &square_there), &slopes, &norm)?;
    let found = norm.to_vec1::<f32>()?[0];
    assert!((f64::from(found) - squares.sqrt()).abs() < 1e-3 * squares.sqrt());
    for (got, want) in there.to_vec1::<f32>()?.iter().zip(here.to_vec1::<f32>()?) {
        assert!((got - want).abs() < 1e-5, "{got} on the device, {want} on the CPU");
    }
    Ok(())
}
