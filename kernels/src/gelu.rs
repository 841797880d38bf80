//! Exact GELU, `x Φ(x)`, to 1e-6.

#[cfg(feature = "cuda")]
use crate::device::{card::Card, pointwise};
use crate::storage::{slice, with_slice, written};
use crate::threads;
use crate::vector::{gelu as gelu_of, gelu_slope, vectorised};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use std::mem::MaybeUninit;

/// GELU of every value; differentiable.
///
/// # Errors
/// If `x` is not an f32 CPU tensor.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Gelu)
}

struct Gelu;

vectorised! {
    fn forward(x: &[f32], y: &mut [MaybeUninit<f32>]) {
        for (y, &x) in y.iter_mut().zip(x) {
            y.write(gelu_of::<FMA>(x));
        }
    }
}

vectorised! {
    /// [`gelu`] in place.
    pub(crate) fn in_place(values: &mut [f32]) {
        for value in values {
            *value = gelu_of::<FMA>(*value);
        }
    }
}

vectorised! {
    /// `dx = dy (Φ(x) + x φ(x))`
    fn backward(x: &[f32], dy: &[f32], dx: &mut [MaybeUninit<f32>]) {
        for ((dx, &x), &dy) in dx.iter_mut().zip(x).zip(dy) {
            dx.write(dy * gelu_slope::<FMA>(x));
        }
    }
}

/// [`gelu`] of a slice.
pub(crate) fn of(x: &[f32]) -> Vec<f32> {
    // SAFETY: the blocks cover the output, and each value is written.
    unsafe {
        written(x.len(), |y| {
            threads::for_row_blocks(y, 1, |start, y| forward(&x[start..start + y.len()], y));
        })
    }
}

/// The gradient of [`gelu`] at `x`, times `dy`.
pub(crate) fn gradient(x: &[f32], dy: &[f32]) -> Vec<f32> {
    let block = |start: usize, dx: &mut [MaybeUninit<f32>]| {
        let range = start..start + dx.len();
        backward(&x[range.clone()], &dy[range], dx);
    };
    // SAFETY: the blocks cover the output, and each value is written.
    unsafe { written(x.len(), |dx| threads::for_row_blocks(dx, 1, block)) }
}

impl CustomOp1 for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = of(slice(storage, layout)?);
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let card = Card::of(x);
        let y = pointwise::gelu(&card, card.input(x, layout)?)?;
        Ok((card.storage(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        #[cfg(feature = "cuda")]
        if let Some(card) = Card::holding(x) {
            let dy = dy.contiguous()?;
            let dx = pointwise::gelu_gradient(&card, card.read(x)?, card.read(&dy)?)?;
            return Ok(Some(card.tensor(dx, x.shape())));
        }
        let dx = with_slice(x, |x| with_slice(dy, |dy| gradient(x, dy)))??;
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference;
    use candle_core::{Device, Var};

    #[test]
    fn values_and_slopes_agree_with_the_formula() -> Result<()> {
        let values: Vec<f32> = (-800..800).map(|i| i as f32 * 0.01).collect();
        let x = Var::from_tensor(&Tensor::new(values.as_slice(), &Device::Cpu)?)?;
        let y = gelu(&x)?;
        let slopes =
            y.sum_all()?.backward()?.get(&x).expect("gelu is differentiable").to_vec1::<f32>()?;
        for ((x, y), slope) in values.iter().zip(y.to_vec1::<f32>()?).zip(slopes) {
            assert!((y - reference::gelu(*x)).abs() < 1e-6, "gelu({x}) = {y}");
            let h = 1e-2;
            let numeric = (f64::from(reference::gelu(x + h)) - f64::from(reference::gelu(x - h)))
                / f64::from(2.0 * h);
            assert!((f64::from(slope) - numeric).abs() < 1e-4, "slope at {x}");
        }
        Ok(())
    }
}
