//! Convolution over time of each channel by itself.

use crate::storage::{slice, with_slice};
use crate::threads;
use crate::vector::{mul_add, vectorised};
use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};

/// `y[t, c] = sum over k of weight[c, k] x[t + k - (kernel - 1) / 2, c]`, as if zeros lay around
/// the clip. Differentiable in both.
///
/// # Shapes
/// `x`: `(batch, frames, dim)`; `weight`: `(dim, 1, kernel)`, `kernel` odd; returns
/// `(batch, frames, dim)`.
///
/// # Errors
/// If shapes disagree or a tensor is not f32.
pub fn depthwise_conv(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (batch, frames, dim) = x.dims3()?;
    let (channels, per_group, kernel) = weight.dims3()?;
    if channels != dim || per_group != 1 || kernel % 2 == 0 || frames == 0 {
        bail!("depthwise_conv: x {:?}, weight {:?}", x.dims(), weight.dims());
    }
    let by_tap = weight.squeeze(1)?.t()?.contiguous()?;
    if x.device().is_cpu() {
        return x.contiguous()?.apply_op2(&by_tap, Depthwise);
    }
    let around = Tensor::zeros((batch, kernel / 2, dim), DType::F32, x.device())?;
    let padded = Tensor::cat(&[&around, x, &around], 1)?;
    let tap = |k: usize| padded.narrow(1, k, frames)?.broadcast_mul(&by_tap.get(k)?);
    (1..kernel).try_fold(tap(0)?, |sum, k| sum + tap(k)?)
}

/// The weight lies tap by tap, `(kernel, dim)`.
struct Depthwise;

vectorised! {
    /// `y += w x`.
    fn add_product(w: &[f32], x: &[f32], y: &mut [f32]) {
        for ((y, &w), &x) in y.iter_mut().zip(w).zip(x) {
            *y = mul_add::<FMA>(w, x, *y);
        }
    }
}

/// Which frame of `frames` tap `k` of `kernel` sees at frame `t`, if any.
fn seen(t: usize, k: usize, (frames, kernel): (usize, usize)) -> Option<usize> {
    (t + k).checked_sub(kernel / 2).filter(|&frame| frame < frames)
}

/// The convolution, or with the taps from last to first its gradient.
fn convolve(x: &[f32], by_tap: &[f32], (frames, dim): (usize, usize), reversed: bool) -> Vec<f32> {
    let kernel = by_tap.len() / dim;
    let mut y = vec![0.0; x.len()];
    threads::for_row_blocks(&mut y, dim, |start, rows| {
        for (row, y) in (start..).zip(rows.chunks_exact_mut(dim)) {
            let (clip, t) = (row / frames, row % frames);
            for k in 0..kernel {
                let Some(frame) = seen(t, k, (frames, kernel)) else { continue };
                let tap = if reversed { kernel - 1 - k } else { k };
                let at = (clip * frames + frame) * dim;
                add_product(&by_tap[tap * dim..(tap + 1) * dim], &x[at..at + dim], y);
            }
        }
    });
    y
}

impl CustomOp2 for Depthwise {
    fn name(&self) -> &'static str {
        "depthwise-conv"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        by_tap: &CpuStorage,
        tap_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (_, frames, dim) = x_layout.shape().dims3()?;
        let (x, by_tap) = (slice(x, x_layout)?, slice(by_tap, tap_layout)?);
        let y = convolve(x, by_tap, (frames, dim), false);
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        by_tap: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (_, frames, dim) = x.dims3()?;
        let kernel = by_tap.dim(0)?;
        let dx = with_slice(by_tap, |by_tap| {
            with_slice(dy, |dy| convolve(dy, by_tap, (frames, dim), true))
        })??;
        let mut dw = vec![0.0; kernel * dim];
        with_slice(x, |x| {
            with_slice(dy, |dy| {
                threads::for_row_blocks(&mut dw, dim, |first, taps| {
                    for (k, dw) in (first..).zip(taps.chunks_exact_mut(dim)) {
                        for (row, dy) in dy.chunks_exact(dim).enumerate() {
                            let (clip, t) = (row / frames, row % frames);
                            let Some(frame) = seen(t, k, (frames, kernel)) else { continue };
                            let at = (clip * frames + frame) * dim;
                            add_product(dy, &x[at..at + dim], dw);
                        }
                    }
                });
            })
        })??;
        let dx = Tensor::from_vec(dx, x.shape(), x.device())?;
        let dw = Tensor::from_vec(dw, by_tap.shape(), x.device())?;
        Ok((Some(dx), Some(dw)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference;
    use candle_core::{Device, Var};

    #[test]
    fn values_and_gradients_are_those_of_the_reference() -> Result<()> {
        let var = |shape: &[usize], seed| -> Result<Var> {
            let values = reference::uniform(shape.iter().product(), seed);
            Var::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu)?)
        };
        for (batch, frames, dim, kernel) in
            reference::cases([(2, 5, 3, 7), (1, 1, 1, 1), (1, 1, 4, 3), (3, 700, 17, 31)], 3)
        {
            let (x, w) = (var(&[batch, frames, dim], 1)?, var(&[dim, 1, kernel], 2)?);
            let upstream = var(&[batch, frames, dim], 3)?.as_tensor().detach();
            let y = depthwise_conv(&x, &w)?;
            // What the reference does with a clip between zeros.
            let weight = w.flatten_all()?.to_vec1::<f32>()?;
            let around = Tensor::zeros((1, kernel / 2, dim), DType::F32, &Device::Cpu)?;
            for clip in 0..batch {
                let padded = Tensor::cat(&[&around, &x.narrow(0, clip, 1)?, &around], 1)?;
                let padded = padded.flatten_all()?.to_vec1::<f32>()?;
                let want = reference::conv1d(&padded, dim, &weight, (dim, kernel), 1, dim);
                let got = y.get(clip)?.flatten_all()?.to_vec1::<f32>()?;
                assert_eq!(got.len(), want.len());
                let worst = got.iter().zip(&want).map(|(g, w)| (g - w).abs()).fold(0.0, f32::max);
                assert!(worst < 1e-5, "{frames} frames: {worst}");
            }
            // It is linear in both: a gradient times a change is the change of the output.
            let gradients = (&y * &upstream)?.sum_all()?.backward()?;
            let inner = |a: &Tensor, b: &Tensor| -> Result<f64> {
                let product = (a * b)?.flatten_all()?.to_vec1::<f32>()?;
                Ok(product.iter().map(|p| f64::from(*p)).sum())
            };
            let (dx, dw) = (gradients.get(&x).expect("dx"), gradients.get(&w).expect("dw"));
            let (other_x, other_w) = (var(x.dims(), 4)?, var(w.dims(), 5)?);
            for (found, want) in [
                (inner(dx, &other_x)?, inner(&depthwise_conv(&other_x, &w)?, &upstream)?),
                (inner(dw, &other_w)?, inner(&depthwise_conv(&x, &other_w)?, &upstream)?),
            ] {
                assert!((found - want).abs() < 1e-3 * (1.0 + want.abs()), "{found}, {want}");
            }
        }
        Ok(())
    }
}
