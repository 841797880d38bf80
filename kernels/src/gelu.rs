//! Exact GELU, `x Φ(x)`, to 1e-6.

use crate::storage::{slice, with_slice};
use crate::threads;
use crate::vector::{erf_and_gaussian, vectorised};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use std::f32::consts::FRAC_1_SQRT_2;

/// GELU of every value; differentiable.
///
/// # Errors
/// If `x` is not an f32 CPU tensor.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Gelu)
}

struct Gelu;

vectorised! {
    fn forward(x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            let (erf, _) = erf_and_gaussian(x * FRAC_1_SQRT_2);
            *y = 0.5 * x * (1.0 + erf);
        }
    }
}

vectorised! {
    /// `dx = dy (Φ(x) + x φ(x))`; `dx` holds `dy` on entry.
    fn backward(x: &[f32], dx: &mut [f32]) {
        const INV_SQRT_TAU: f32 = 0.398_942_3;
        for (dx, &x) in dx.iter_mut().zip(x) {
            let (erf, gaussian) = erf_and_gaussian(x * FRAC_1_SQRT_2);
            *dx *= 0.5 * (1.0 + erf) + x * INV_SQRT_TAU * gaussian;
        }
    }
}

impl CustomOp1 for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice(storage, layout)?;
        let mut y = vec![0.0; x.len()];
        threads::for_row_blocks(&mut y, 1, |start, y| forward(&x[start..start + y.len()], y));
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let mut dx = with_slice(dy, <[f32]>::to_vec)?;
        with_slice(x, |x| {
            threads::for_row_blocks(&mut dx, 1, |start, dx| {
                backward(&x[start..start + dx.len()], dx);
            });
        })?;
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
