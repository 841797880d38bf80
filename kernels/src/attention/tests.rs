use super::*;
use crate::reference;
use candle_core::{D, DType, Device, Var};

#[test]
fn one_head_agrees_with_the_formula() -> Result<()> {
    for (frames, dim, valid) in reference::cases([(1, 3, 1), (7, 8, 5), (201, 64, 130)], 2) {
        let n = frames * dim;
        let parts: Vec<Vec<f32>> = (1..4).map(|s| reference::uniform(n, s)).collect();
        let tensors = parts
            .iter()
            .map(|p| Tensor::from_vec(p.clone(), (1, frames, dim), &Device::Cpu))
            .collect::<Result<Vec<_>>>()?;
        let [q, k, v] = &tensors[..] else { unreachable!("three parts") };
        let got = attention(q, k, v, &Attend::new(1, &[valid], Precision::F32))?
            .flatten_all()?
            .to_vec1::<f32>()?;
        let want = reference::attention(&parts[0], &parts[1], &parts[2], dim, valid);
        for (g, w) in got.iter().zip(&want) {
            assert!((g - w).abs() < 1e-5, "({frames},{dim},{valid}): {g} against {w}");
        }
    }
    Ok(())
}

#[test]
fn a_gated_bias_is_added_to_the_scores_by_offset() -> Result<()> {
    let (batch, frames, heads, width) = (2, if cfg!(miri) { 71 } else { 131 }, 2, 3);
    let dim = heads * width;
    let tensor = |shape: &[usize], seed| {
        let n = shape.iter().product();
        Tensor::from_vec(reference::uniform(n, seed), shape, &Device::Cpu)
    };
    let (q, k, v) = (
        tensor(&[batch, frames, dim], 1)?,
        tensor(&[batch, frames, dim], 2)?,
        tensor(&[batch, frames, dim], 3)?,
    );
    let strip = (tensor(&[heads, 2 * frames - 1], 4)? * 3.0)?;
    let gate = tensor(&[batch, heads, frames], 5)?;
    let lengths = [70, frames];
    let how = Attend::new(heads, &lengths, Precision::F32);
    let got = gated_attention((&q, &k, &v), (&strip, &gate), &how)?;
    let (got, q, k, v) =
        (got.to_vec3::<f32>()?, q.to_vec3::<f32>()?, k.to_vec3::<f32>()?, v.to_vec3::<f32>()?);
    let (strip, gate) = (strip.to_vec2::<f32>()?, gate.to_vec3::<f32>()?);
    for (b, valid) in lengths.into_iter().enumerate() {
        for h in 0..heads {
            let of = |row: &[f32]| row[h * width..(h + 1) * width].to_vec();
            for i in 0..frames {
                let weights: Vec<f64> = (0..valid)
                    .map(|j| {
                        let dot: f32 =
                            of(&q[b][i]).iter().zip(of(&k[b][j])).map(|(a, b)| a * b).sum();
                        let bias = gate[b][h][i] * strip[h][frames - 1 + j - i];
                        f64::from(dot / (width as f32).sqrt() + bias).exp()
                    })
                    .collect();
                let total: f64 = weights.iter().sum();
                for c in 0..width {
                    let want: f64 = (0..valid)
                        .map(|j| weights[j] / total * f64::from(v[b][j][h * width + c]))
                        .sum();
                    let got = f64::from(got[b][i][h * width + c]);
                    assert!((got - want).abs() < 1e-5, "({b},{i},{h},{c}): {got}, {want}");
                }
            }
        }
    }
    Ok(())
}

/// With gradients, the same numbers, and gradients that are differences.
#[test]
fn a_gated_bias_has_gradients() -> Result<()> {
    let (batch, frames, heads, width) = (2, 9, 2, 3);
    let shapes: [&[usize]; 5] = [
        &[batch, frames, heads * width],
        &[batch, frames, heads * width],
        &[batch, frames, heads * width],
        &[heads, 2 * frames - 1],
        &[batch, heads, frames],
    ];
    let lengths = [5, 9];
    let values = |shape: &[usize], seed| {
        Tensor::from_vec(reference::uniform(shape.iter().product(), seed), shape, &Device::Cpu)
    };
    let vars: Vec<Var> = (1..)
        .zip(shapes)
        .map(|(seed, shape)| Var::from_tensor(&(values(shape, seed)? * 2.0)?))
        .collect::<Result<_>>()?;
    let attend = |t: [&Tensor; 5]| {
        let how = Attend::new(heads, &lengths, Precision::F32);
        gated_attention((t[0], t[1], t[2]), (t[3], t[4]), &how)
    };
    let with = attend(std::array::from_fn(|i| vars[i].as_tensor()))?;
    let detached: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().detach()).collect();
    let without = attend(std::array::from_fn(|i| &detached[i]))?;
    let difference = (&with - &without)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
    assert!(difference < 1e-5, "differs by {difference}");
    // The loss counts valid queries alone, each with a weight of its own.
    let weights = values(shapes[0], 9)?;
    let loss = |t: [&Tensor; 5]| -> Result<Tensor> {
        let out = (attend(t)? * &weights)?;
        out.get(0)?.narrow(0, 0, lengths[0])?.sum_all()? + out.get(1)?.sum_all()?
    };
    let gradients = loss(std::array::from_fn(|i| vars[i].as_tensor()))?.backward()?;
    for (moved, var) in vars.iter().enumerate() {
        let gradient = gradients.get(var).expect("a gradient").flatten_all()?;
        let n = var.elem_count();
        let every = if cfg!(miri) { 61 } else { 1 };
        for (at, got) in gradient.to_vec1::<f32>()?.into_iter().enumerate().step_by(every) {
            let nudged = |by: f32| -> Result<f32> {
                let mut all = var.as_tensor().flatten_all()?.to_vec1::<f32>()?;
                all[at] += by;
                let all = Tensor::from_vec(all, var.shape(), &Device::Cpu)?;
                loss(std::array::from_fn(|i| if i == moved { &all } else { &detached[i] }))?
                    .to_scalar()
            };
            let step = 1e-2;
            let want = (nudged(step)? - nudged(-step)?) / (2.0 * step);
            assert!((got - want).abs() < 5e-3, "{moved}, {at} of {n}: {got}, {want}");
        }
    }
    Ok(())
}

/// Attention of operations of candle; `kept` is what each weight is multiplied by,
/// `(batch, heads, frames, frames)`.
fn composed(
    [q, k, v]: [&Tensor; 3],
    bias: Option<(&Tensor, &Tensor)>,
    (heads, lengths): (usize, &[usize]),
    kept: &Tensor,
) -> Result<Tensor> {
    let (batch, frames, dim) = q.dims3()?;
    let width = dim / heads;
    let split =
        |x: &Tensor| x.reshape((batch, frames, heads, width))?.transpose(1, 2)?.contiguous();
    let mut scores = (split(q)?.matmul(&split(k)?.t()?)? * (width as f64).powf(-0.5))?;
    if let Some((strip, gate)) = bias {
        let offset = |(i, j): (usize, usize)| (frames - 1 + j - i) as u32;
        let pairs = (0..frames).flat_map(|i| (0..frames).map(move |j| (i, j)));
        let offsets = Tensor::from_vec(pairs.map(offset).collect(), frames * frames, q.device())?;
        let bias = strip.index_select(&offsets, 1)?.reshape((1, heads, frames, frames))?;
        scores = (scores + gate.unsqueeze(3)?.broadcast_mul(&bias)?)?;
    }
    let mask: Vec<f32> = lengths
        .iter()
        .flat_map(|&n| (0..frames).map(move |t| if t < n { 0.0 } else { f32::NEG_INFINITY }))
        .collect();
    let scores =
        scores.broadcast_add(&Tensor::from_vec(mask, (batch, 1, 1, frames), q.device())?)?;
    let scores = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?.exp()?;
    let weights = scores.broadcast_div(&scores.sum_keepdim(D::Minus1)?)?;
    (weights * kept)?.matmul(&split(v)?)?.transpose(1, 2)?.reshape((batch, frames, dim))
}

#[test]
fn values_and_gradients_agree_with_candle_on_a_padded_batch() -> Result<()> {
    let (batch, frames, heads, width) = (2, if cfg!(miri) { 51 } else { 103 }, 3, 5);
    let lengths = [frames, 38];
    let var = |shape: &[usize], seed| -> Result<Var> {
        let n = shape.iter().product();
        Var::from_tensor(&Tensor::from_vec(reference::uniform(n, seed), shape, &Device::Cpu)?)
    };
    let shape = [batch, frames, heads * width];
    let (q, k, v) = (var(&shape, 1)?, var(&shape, 2)?, var(&shape, 3)?);
    let (strip, gate) = (var(&[heads, 2 * frames - 1], 4)?, var(&[batch, heads, frames], 5)?);
    let upstream = var(&shape, 6)?.as_tensor().detach();
    let ones = Tensor::ones((batch, heads, frames, frames), DType::F32, &Device::Cpu)?;
    for (gated, rate) in reference::cases([(true, 0.3), (false, 0.0), (false, 0.4), (true, 0.0)], 1)
    {
        let dropout = Dropout::new(rate, 0x1234_5678_9abc)?;
        let how = Attend { dropout, ..Attend::new(heads, &lengths, Precision::F32) };
        let bias = (strip.as_tensor(), gate.as_tensor());
        let ours = if gated {
            gated_attention((&q, &k, &v), bias, &how)?
        } else {
            attention(&q, &k, &v, &how)?
        };
        let kept = crate::dropout::dropout(&ones, rate, 0x1234_5678_9abc)?;
        let theirs = composed([&q, &k, &v], gated.then_some(bias), (heads, &lengths), &kept)?;
        let worst = |a: &Tensor, b: &Tensor| -> Result<f32> {
            (a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar()
        };
        assert!(worst(&ours, &theirs)? < 1e-5);
        let gradients = |y: &Tensor| (y * &upstream)?.sum_all()?.backward();
        let (got, want) = (gradients(&ours)?, gradients(&theirs)?);
        let learning = [&q, &k, &v, &strip, &gate];
        for (i, var) in learning.into_iter().enumerate().take(if gated { 5 } else { 3 }) {
            let (g, w) = (got.get(var).expect("gradient"), want.get(var).expect("gradient"));
            let worst = worst(g, w)?;
            assert!(worst < 2e-5, "gradient {i}, gated {gated}, {rate}: differs by {worst}");
        }
    }
    Ok(())
}
