//! Every kernel of `kernels/cuda`, run on the CPU, against the operation on the CPU.

use super::emulator::{Emulator, Memory};
use super::{Machine, Place};
use crate::attention::Attend;
use crate::dropout::Dropout;
use crate::linear::Activation;
use crate::matmul::Precision;
use crate::reference::uniform;
use candle_core::{Device, Result, Tensor, Var};

/// The machine, or an end of the test that was told of.
macro_rules! emulator {
    () => {
        match Emulator::get() {
            Some(emulator) => emulator,
            None => return Ok(()),
        }
    };
}

fn var(shape: &[usize], seed: u64) -> Result<Var> {
    Var::from_tensor(&Tensor::from_vec(uniform(shape.iter().product(), seed), shape, &Device::Cpu)?)
}

fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.flatten_all()?.to_vec1()
}

/// The values of a tensor in the machine's memory.
fn upload(machine: &Emulator, tensor: &Tensor) -> Result<Memory> {
    machine.floats(&values(tensor)?)
}

/// Says where the first pair lies that differs by more than `tolerance`, of 1 and of its size.
#[track_caller]
fn assert_close(what: &str, got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len(), "{what}: as many values");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let close = (g - w).abs() <= tolerance * (1.0 + w.abs()) || g == w;
        assert!(close, "{what}, value {i} of {}: {g} against {w}", want.len());
    }
}

/// The gradient of `sum(y upstream)` in each variable.
fn gradients(y: &Tensor, upstream: &Tensor, vars: &[&Var]) -> Result<Vec<Vec<f32>>> {
    let store = (y * upstream)?.sum_all()?.backward()?;
    vars.iter().map(|var| values(store.get(var).expect("a gradient"))).collect()
}

#[test]
fn gelu_bias_and_sums() -> Result<()> {
    let machine = emulator!();
    for (rows, cols) in [(1, 1), (3, 7), (129, 33), (300, 65)] {
        let (x, dy) = (var(&[rows, cols], 1)?, var(&[rows, cols], 2)?);
        let wide = Var::from_tensor(&(x.as_tensor() * 4.0)?)?;
        let y = crate::gelu::gelu(&wide)?;
        let want = gradients(&y, &dy, &[&wide])?;
        let (on_device, slopes) = (upload(machine, &wide)?, upload(machine, &dy)?);
        let (place, slopes) = (machine.place(&on_device), machine.place(&slopes));
        assert_close("gelu", &super::pointwise::gelu(machine, place)?.values(), &values(&y)?, 1e-6);
        let dx = super::pointwise::gelu_gradient(machine, place, slopes)?;
        assert_close("gelu gradient", &dx.values(), &want[0], 2e-6);
        let sums = super::column_sums(machine, place, rows, cols)?;
        assert_close("column sums", &sums.values(), &values(&wide.sum(0)?)?, 1e-5);
        let other = super::pointwise::scaled_sum(machine, place, slopes, 0.25)?;
        let want = values(&crate::sum::scaled_sum(&wide, &dy, 0.25)?)?;
        assert_close("scaled sum", &other.values(), &want, 1e-6);
        let scaled = super::pointwise::scaled(machine, place, -0.5)?;
        assert_close("scaled", &scaled.values(), &values(&(wide.as_tensor() * -0.5)?)?, 1e-6);
    }
    Ok(())
}

#[test]
fn linear_with_and_without_gelu() -> Result<()> {
    let machine = emulator!();
    let shapes = [(1, 1, 1), (5, 37, 19), (300, 8, 33)];
    for (precision, tolerance) in [(Precision::F32, 1e-5), (Precision::Bf16, 4e-2)] {
        for (rows, inputs, outputs) in shapes {
            let (x, w, b) =
                (var(&[rows, inputs], 1)?, var(&[outputs, inputs], 2)?, var(&[outputs], 3)?);
            let dy = var(&[rows, outputs], 4)?;
            for activation in [Activation::Identity, Activation::Gelu] {
                let y =
                    crate::linear::activated_linear(&x, &w, &b, None, activation, Precision::F32)?;
                let want = gradients(&y, &dy, &[&x, &w, &b])?;
                let inside: Vec<Memory> =
                    [&x, &w, &b, &dy].iter().map(|t| upload(machine, t)).collect::<Result<_>>()?;
                let [px, pw, pb, pdy] = [0, 1, 2, 3].map(|i| machine.place(&inside[i]));
                let widths = (outputs, inputs);
                for keep in [false, true] {
                    let (got, before) = super::linear::forward(
                        machine,
                        (px, pw, pb),
                        widths,
                        (activation, keep),
                        precision,
                    )?;
                    assert_close("linear", &got.values(), &values(&y)?, tolerance);
                    if !keep {
                        continue;
                    }
                    let before = before.as_ref().map(|before| machine.place(before));
                    let got = super::linear::backward(
                        machine,
                        (px, pw, before, pdy),
                        widths,
                        [true; 3],
                        precision,
                    )?;
                    let scale = (rows as f32).sqrt();
                    for (got, want) in [got.x, got.weight, got.bias].iter().zip(&want) {
                        let got = got.as_ref().expect("all were asked for").values();
                        assert_close("linear gradient", &got, want, tolerance * scale);
                    }
                }
            }
        }
    }
    Ok(())
}

#[test]
fn layer_norm_and_its_gradient() -> Result<()> {
    let machine = emulator!();
    for (rows, dim) in [(1, 1), (1, 7), (5, 256), (300, 39)] {
        let (x, w, b) = (var(&[1, rows, dim], 1)?, var(&[dim], 2)?, var(&[dim], 3)?);
        let dy = var(&[1, rows, dim], 4)?;
        let y = crate::norm::layer_norm(&x, &w, &b, 1e-5)?;
        let want = gradients(&y, &dy, &[&x, &w, &b])?;
        let inside: Vec<Memory> =
            [&x, &w, &b, &dy].iter().map(|t| upload(machine, t)).collect::<Result<_>>()?;
        let [px, pw, pb, pdy] = [0, 1, 2, 3].map(|i| machine.place(&inside[i]));
        let got = super::norm::layer_norm(machine, (px, pw, pb), 1e-5)?;
        assert_close("layer norm", &got.values(), &values(&y)?, 1e-5);
        let (dx, parameters) = super::norm::layer_norm_gradient(machine, (px, pw, pdy), 1e-5)?;
        assert_close("layer norm gradient", &dx.values(), &want[0], 2e-5);
        let parameters = parameters.values();
        assert_close("layer norm weight", &parameters[..dim], &want[1], 5e-5);
        assert_close("layer norm bias", &parameters[dim..], &want[2], 5e-5);
    }
    Ok(())
}

#[test]
fn group_norm_and_its_gradient() -> Result<()> {
    let machine = emulator!();
    for (frames, channels, groups, lengths) in [
        (1, 1, 1, vec![1]),
        (7, 6, 6, vec![7, 3]),
        (300, 35, 35, vec![1, 300]),
        (40, 12, 1, vec![40, 17, 2]),
        (33, 64, 4, vec![20]),
    ] {
        let shape = [lengths.len(), frames, channels];
        let (x, w, b) = (var(&shape, 1)?, var(&[channels], 2)?, var(&[channels], 3)?);
        let dy = var(&shape, 4)?;
        let y = crate::norm::group_norm(&x, &w, &b, groups, 1e-5, Some(&lengths))?;
        let want = gradients(&y, &dy, &[&x, &w, &b])?;
        let inside: Vec<Memory> =
            [&x, &w, &b, &dy].iter().map(|t| upload(machine, t)).collect::<Result<_>>()?;
        let [px, pw, pb, pdy] = [0, 1, 2, 3].map(|i| machine.place(&inside[i]));
        let over = super::norm::Groups { frames, channels, groups, eps: 1e-5, lengths: &lengths };
        let got = super::norm::group_norm(machine, (px, pw, pb), over)?;
        assert_close("group norm", &got.values(), &values(&y)?, 2e-5);
        let (dx, parameters) = super::norm::group_norm_gradient(machine, (px, pw, pdy), over)?;
        // A single frame divides by the root of epsilon alone.
        assert_close("group norm gradient", &dx.values(), &want[0], 1e-4);
        let parameters = parameters.values();
        assert_close("group norm weight", &parameters[..channels], &want[1], 1e-4);
        assert_close("group norm bias", &parameters[channels..], &want[2], 1e-4);
    }
    Ok(())
}

fn attention_case(
    frames: usize,
    heads: usize,
    width: usize,
    lengths: &[usize],
    (gated, dropped): (bool, f32),
) -> Result<()> {
    use super::attention::{Inputs, Shape, backward, forward};
    let machine = emulator!();
    let dim = heads * width;
    let shape = [lengths.len(), frames, dim];
    let (q, k, v, dy) = (var(&shape, 1)?, var(&shape, 2)?, var(&shape, 3)?, var(&shape, 4)?);
    let strip = Var::from_tensor(&(var(&[heads, 2 * frames - 1], 5)?.as_tensor() * 2.0)?)?;
    let gate = var(&[lengths.len(), heads, frames], 6)?;
    let inside: Vec<Memory> = [&q, &k, &v, &dy, &strip, &gate]
        .iter()
        .map(|t| upload(machine, t))
        .collect::<Result<_>>()?;
    let [pq, pk, pv, pdy, pstrip, pgate] = [0, 1, 2, 3, 4, 5].map(|i| machine.place(&inside[i]));
    let dropout = Dropout::new(dropped, 0x1234_5678_9abc)?;
    let how = Attend { heads, lengths, precision: Precision::F32, dropout };
    let (y, vars) = if gated {
        let bias = (strip.as_tensor(), gate.as_tensor());
        let y = crate::attention::gated_attention((&q, &k, &v), bias, &how)?;
        (y, vec![&q, &k, &v, &strip, &gate])
    } else {
        let y = crate::attention::attention(&q, &k, &v, &how)?;
        (y, vec![&q, &k, &v])
    };
    let want = gradients(&y, &dy, &vars)?;
    let inputs = Inputs { q: pq, k: pk, v: pv, bias: gated.then_some((pstrip, pgate)) };
    let over = Shape { frames, dim, heads, lengths, dropout };
    let (out, log_sums) = forward(machine, inputs, over)?;
    assert_close("attention", &out.values(), &values(&y)?, 1e-5);
    let kept = (machine.place(&out), machine.place(&log_sums), pdy);
    let got = backward(machine, inputs, kept, over)?;
    let (qkv, n) = (got.qkv.values(), frames * dim * lengths.len());
    for (i, want) in want.iter().take(3).enumerate() {
        assert_close(["dq", "dk", "dv"][i], &qkv[i * n..(i + 1) * n], want, 2e-5);
    }
    if let Some((dstrip, dgate)) = got.bias {
        assert_close("dstrip", &dstrip.values(), &want[3], 5e-5);
        assert_close("dgate", &dgate.values(), &want[4], 5e-5);
    }
    Ok(())
}

#[test]
fn attention_and_its_gradients() -> Result<()> {
    attention_case(1, 1, 3, &[1], (false, 0.0))?;
    attention_case(33, 2, 5, &[33, 7], (false, 0.0))?;
    attention_case(33, 2, 5, &[33, 7], (false, 0.4))?;
    attention_case(70, 1, 96, &[65], (false, 0.1))
}

#[test]
fn attention_with_a_gated_bias_and_its_gradients() -> Result<()> {
    attention_case(1, 2, 1, &[1], (true, 0.0))?;
    attention_case(31, 2, 3, &[31, 12], (true, 0.0))?;
    attention_case(67, 1, 9, &[64, 67], (true, 0.3))
}

#[test]
fn convolutions_both_ways_and_their_gradients() -> Result<()> {
    let machine = emulator!();
    for (frames, inputs, outputs, kernel, stride) in [
        (1, 1, 1, 1, 1),
        (41, 1, 7, 10, 5),
        (20, 5, 33, 3, 2),
        (9, 4, 3, 2, 2),
        (12, 3, 4, 5, 1),
        (11, 2, 3, 2, 4),
    ] {
        for (precision, tolerance) in [(Precision::F32, 1e-5), (Precision::Bf16, 6e-2)] {
            let x = var(&[2, frames, inputs], 1)?;
            let w = var(&[outputs, inputs, kernel], 2)?;
            let y = crate::conv::conv1d(&x, &w, stride, 0, Precision::F32)?;
            let dy = var(y.dims(), 3)?;
            let want = gradients(&y, &dy, &[&x, &w])?;
            let shape = super::conv::Shape {
                map: crate::conv::Map::of(&w, stride, precision)?,
                clips: 2,
                long_frames: frames,
                short_frames: y.dim(1)?,
            };
            let inside: Vec<Memory> =
                [&x, &w, &dy].iter().map(|t| upload(machine, t)).collect::<Result<_>>()?;
            let [px, pw, pdy] = [0, 1, 2].map(|i| machine.place(&inside[i]));
            let got = super::conv::gather(machine, px, pw, shape)?;
            assert_close("gather", &got.values(), &values(&y)?, tolerance);
            let got = super::conv::scatter(machine, pdy, pw, shape)?;
            assert_close("scatter", &got.values(), &want[0], tolerance);
            let got = super::conv::weight_gradient(machine, pdy, px, shape)?;
            assert_close("weight gradient", &got.values(), &want[1], 2.0 * tolerance);
            // A transposed convolution reads the same map backwards.
            let extra = stride - 1;
            let (short, turned) =
                (var(&[2, frames, inputs], 4)?, var(&[inputs, outputs, kernel], 5)?);
            let long =
                crate::conv::conv_transpose1d(&short, &turned, stride, extra, Precision::F32)?;
            let shape = super::conv::Shape {
                map: crate::conv::Map::of(&turned, stride, precision)?,
                clips: 2,
                long_frames: long.dim(1)?,
                short_frames: frames,
            };
            let (ps, pt) = (upload(machine, &short)?, upload(machine, &turned)?);
            let got = super::conv::scatter(machine, machine.place(&ps), machine.place(&pt), shape)?;
            assert_close("transposed", &got.values(), &values(&long)?, tolerance);
        }
    }
    Ok(())
}

#[test]
fn position_convolution_and_its_gradients() -> Result<()> {
    let machine = emulator!();
    for (frames, dim, groups, kernel) in [(1, 4, 2, 8), (13, 6, 3, 5), (70, 38, 2, 33)] {
        let (x, w) = (var(&[2, frames, dim], 1)?, var(&[dim, dim / groups, kernel], 2)?);
        let dy = var(&[2, frames, dim], 3)?;
        let y = crate::position_conv::position_conv(&x, &w, Precision::F32)?;
        let want = gradients(&y, &dy, &[&x, &w])?;
        let shape =
            super::position_conv::Shape { clips: 2, frames, dim, width: dim / groups, kernel };
        let inside: Vec<Memory> =
            [&x, &w, &dy].iter().map(|t| upload(machine, t)).collect::<Result<_>>()?;
        let [px, pw, pdy] = [0, 1, 2].map(|i| machine.place(&inside[i]));
        let got = super::position_conv::forward(machine, px, pw, shape)?;
        assert_close("position conv", &got.values(), &values(&y)?, 2e-5);
        let got = super::position_conv::input_gradient(machine, pdy, pw, shape)?;
        assert_close("position conv input", &got.values(), &want[0], 2e-5);
        for (precision, tolerance) in [(Precision::F32, 2e-5), (Precision::Bf16, 6e-2)] {
            let got = super::position_conv::weight_gradient(machine, px, pdy, shape, precision)?;
            assert_close("position conv weight", &got.values(), &want[1], tolerance);
        }
    }
    Ok(())
}

#[test]
fn ctc_losses_and_their_gradient() -> Result<()> {
    use crate::ctc::{Target, Term, ctc_losses};
    let machine = emulator!();
    let target = |tokens: &[u32], open_ended| Target { tokens: tokens.to_vec(), open_ended };
    for (frames, vocab, blank) in [(1_usize, 3, 0), (9, 5, 4), (40, 130, 0)] {
        let [a, b] = [(blank + 1) % vocab, (blank + 2) % vocab].map(|t| t as u32);
        let targets = vec![
            target(&[a, b, a], false),
            target(&[b], true),
            target(&[], false),
            target(&[a, a], true),
            target(&[a, a, b, b, a], false),
        ];
        let beginnings: Vec<Target> =
            targets.iter().map(|t| target(&t.tokens[..t.tokens.len().min(1)], true)).collect();
        let terms = [
            Term { targets, weights: vec![1.0, 0.5, 2.0, 0.0, 1.0] },
            Term { targets: beginnings, weights: vec![0.3, 0.0, 0.3, 0.3, 0.3] },
        ];
        let lengths = [frames, frames.div_ceil(2), frames, 1, frames.div_ceil(3)];
        let logits = Var::from_tensor(&(var(&[5, frames, vocab], 7)?.as_tensor() * 3.0)?)?;
        for terms in [&terms[..1], &terms[..]] {
            let (losses, each) = ctc_losses(&logits, terms, &lengths, blank as u32)?;
            let upstream = var(&[5], 8)?;
            let inside = upload(machine, &logits)?;
            let place = machine.place(&inside);
            let shape = super::ctc::Shape { clips: 5, frames, vocab };
            let (found, sums) =
                super::ctc::Losses::new(machine, place, shape, (terms, &lengths, blank as u32))?;
            assert_close("ctc", &sums.values(), &values(&losses)?, 1e-6);
            for (i, each) in each.iter().enumerate() {
                assert_close("ctc term", &found.of_term(i).values(), &values(each)?, 1e-6);
            }
            let want = gradients(&losses, &upstream, &[&logits]);
            let slopes = upload(machine, &upstream)?;
            for _ in 0..2 {
                let got = found.gradient(machine, place, machine.place(&slopes))?;
                assert_close(
                    "ctc gradient",
                    &got.values(),
                    &want.as_ref().expect("gradients")[0],
                    2e-6,
                );
            }
        }
    }
    Ok(())
}

#[test]
fn cross_entropy_and_its_gradient() -> Result<()> {
    let machine = emulator!();
    for (rows, classes) in [(1, 1), (7, 2), (70, 500)] {
        let logits = Var::from_tensor(&(var(&[rows, classes], 1)?.as_tensor() * 40.0)?)?;
        let targets: Vec<u32> = (0..rows).map(|i| (i * 7 % classes) as u32).collect();
        let upstream = var(&[rows], 2)?;
        let losses = crate::cross_entropy::cross_entropy(&logits, &targets)?;
        let want = gradients(&losses, &upstream, &[&logits])?;
        let (inside, slopes) = (upload(machine, &logits)?, upload(machine, &upstream)?);
        let place = machine.place(&inside);
        let got = super::loss::cross_entropy(machine, place, &targets, classes)?;
        assert_close("cross entropy", &got.values(), &values(&losses)?, 1e-6);
        let got = super::loss::cross_entropy_gradient(
            machine,
            place,
            machine.place(&slopes),
            &targets,
            classes,
        )?;
        assert_close("cross entropy gradient", &got.values(), &want[0], 1e-5);
    }
    Ok(())
}

#[test]
fn dropout_padding_and_masking_are_those_of_the_cpu() -> Result<()> {
    let machine = emulator!();
    for (frames, dim) in [(1, 1), (9, 7), (130, 40)] {
        let (x, dy, row) =
            (var(&[2, frames, dim], 1)?, var(&[2, frames, dim], 2)?, var(&[dim], 3)?);
        let (inside, slopes, middle) =
            (upload(machine, &x)?, upload(machine, &dy)?, upload(machine, &row)?);
        let (place, slopes, middle) =
            (machine.place(&inside), machine.place(&slopes), machine.place(&middle));
        let seed = 0x1234_5678_9abc_def0;
        let got = super::pointwise::dropout(machine, place, Dropout::new(0.3, seed)?)?;
        assert_close(
            "dropout",
            &got.values(),
            &values(&crate::dropout::dropout(&x, 0.3, seed)?)?,
            1e-7,
        );
        let lengths = [frames.div_ceil(2), frames];
        let got = super::pointwise::zero_padding(machine, place, &lengths, (frames, dim))?;
        assert_eq!(got.values(), values(&crate::padding::zero_padding(&x, &lengths)?)?);
        let masked: Vec<bool> = (0..2 * frames).map(|i| i % 3 == 0).collect();
        let y = crate::masking::replace_frames(&x, &row, &masked)?;
        let got = super::pointwise::replace_rows(machine, place, middle, &masked)?;
        assert_eq!(got.values(), values(&y)?);
        let want = gradients(&y, &dy, &[&x, &row])?;
        let (dx, drow) = super::pointwise::replace_rows_gradient(machine, slopes, dim, &masked)?;
        assert_eq!(dx.values(), want[0]);
        assert_close("gradient of the vector", &drow.values(), &want[1], 1e-5);
    }
    Ok(())
}

#[test]
fn the_nearest_centroid_is_that_of_the_cpu() -> Result<()> {
    let machine = emulator!();
    for (frames, centroids, dim) in [(1, 1, 1), (5, 3, 7), (121, 16, 39), (300, 333, 5)] {
        let (x, c) = (uniform(frames * dim, 1), uniform(centroids * dim, 2));
        let doubled: Vec<f32> = c.iter().map(|v| -2.0 * v).collect();
        let squares: Vec<f32> = c.chunks(dim).map(|c| c.iter().map(|v| v * v).sum()).collect();
        let (x_in, doubled, squares) =
            (machine.floats(&x)?, machine.floats(&doubled)?, machine.floats(&squares)?);
        let found = machine.buffer(frames)?;
        let prepared = (machine.place(&doubled), machine.place(&squares));
        super::loss::nearest(machine, machine.place(&x_in), prepared, dim, machine.place(&found))?;
        let want = crate::reference::nearest(&x, &c, dim);
        for (i, (found, (want, _, margin))) in found.words().iter().zip(&want).enumerate() {
            assert!(found == want || *margin < 1e-4, "frame {i}: {found} for {want}");
        }
    }
    // The first of equals, and no number at all.
    let (x, squares) = (machine.floats(&[0.0, f32::NAN])?, machine.floats(&[4.0, 1.0, 1.0, 1.0])?);
    let doubled = machine.floats(&[0.0; 4])?;
    let found = machine.buffer(2)?;
    let prepared = (machine.place(&doubled), machine.place(&squares));
    super::loss::nearest(machine, machine.place(&x), prepared, 1, machine.place(&found))?;
    assert_eq!(found.words(), [1, 0]);
    Ok(())
}

#[test]
fn adamw_clips_steps_and_waits_for_numbers() -> Result<()> {
    use crate::adamw::{Step, update};
    let machine = emulator!();
    let step =
        Step { betas: [0.9, 0.98], scale: 1.0, shrink: 0.999, rate: 0.01, root: 1.3, eps: 1e-8 };
    for n in [1, 255, 70_001] {
        let (start, gradient) = (uniform(n, 1), uniform(n, 2));
        let moments = (uniform(n, 3), uniform(n, 4).iter().map(|v| v.abs()).collect::<Vec<f32>>());
        let squares: f64 = gradient.iter().map(|g| f64::from(*g).powi(2)).sum();
        let norm = squares.sqrt() * 0.5;
        let inside = machine.floats(&gradient)?;
        let slopes = machine.place(&inside);
        let sums = machine.buffer(1)?;
        super::optimiser::sum_of_squares(machine, slopes, machine.place(&sums))?;
        assert_close("squares", &sums.values(), &[squares as f32], 1e-6);
        for clip in [0.1, 1e6] {
            let factor =
                super::optimiser::norm_and_factor(machine, machine.place(&sums), 0.5, clip)?;
            let scale = if norm > clip { 0.5 * clip / norm } else { 0.5 } as f32;
            assert_close("norm", &factor.values(), &[norm as f32, scale], 1e-6);
            let var = Var::from_vec(start.clone(), n, &Device::Cpu)?;
            let (mut mean, mut square) = moments.clone();
            let on_cpu = Step { scale, ..step };
            update(&var, on_cpu, (&mut mean, &mut square), &gradient)?;
            let device: Vec<Memory> = [&start, &moments.0, &moments.1]
                .iter()
                .map(|values| machine.floats(values))
                .collect::<Result<_>>()?;
            let places: [Place<'_>; 3] = std::array::from_fn(|i| machine.place(&device[i]));
            let [values_in, mean_in, square_in] = places;
            let factor = machine.place(&factor).from(1)?;
            super::optimiser::adamw(
                machine,
                (values_in, mean_in, square_in),
                slopes,
                factor,
                step,
            )?;
            assert_close("values", &device[0].values(), &values(&var)?, 1e-6);
            assert_close("mean", &device[1].values(), &mean, 1e-6);
            assert_close("square", &device[2].values(), &square, 1e-6);
            let held = device[0].values();
            for none in [f32::NAN, f32::INFINITY] {
                let sums = machine.floats(&[none])?;
                let factor =
                    super::optimiser::norm_and_factor(machine, machine.place(&sums), 0.5, clip)?;
                assert!(factor.values().iter().all(|v| !v.is_finite()));
                let factor = machine.place(&factor).from(1)?;
                super::optimiser::adamw(
                    machine,
                    (values_in, mean_in, square_in),
                    slopes,
                    factor,
                    step,
                )?;
                assert_eq!(device[0].values(), held, "nothing changes");
            }
        }
    }
    Ok(())
}

#[test]
fn every_kernel_is_in_the_library_of_the_tests() {
    let listed = include_str!("../../cuda/host/main.cpp");
    let declared =
        super::SOURCES.iter().flat_map(|source| source.split("__global__ void ").skip(1));
    let names: Vec<&str> = declared.filter_map(|rest| rest.split('(').next()).collect();
    assert!(names.len() > 30);
    for name in names {
        assert!(listed.contains(&format!("KERNEL({name});")), "`{name}` is not listed");
    }
}
