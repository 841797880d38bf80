//! The arithmetic of AdamW (Loshchilov and Hutter 2019), in place.

#[cfg(feature = "cuda")]
use crate::device::{Machine, card::Card, optimiser};
use crate::linear::add_rows;
use crate::vector::vectorised;
use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Tensor, bail};
use std::sync::{Mutex, PoisonError};

/// What one step does to every value of a parameter.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Decay rates of the running mean of the gradient and of its square.
    pub betas: [f32; 2],
    /// Factor of the gradient.
    pub scale: f32,
    /// Factor of the value: one less its decay.
    pub shrink: f32,
    /// Learning rate, corrected for the start of the mean.
    pub rate: f32,
    /// Reciprocal root of the correction for the start of the square.
    pub root: f32,
    /// Added to the root of the mean square.
    pub eps: f32,
}

vectorised! {
    fn squares(values: &[f32]) -> f64 {
        let mut sums = [0.0_f64; 16];
        let mut chunks = values.chunks_exact(16);
        for chunk in &mut chunks {
            for (sum, &v) in sums.iter_mut().zip(chunk) {
                *sum += f64::from(v) * f64::from(v);
            }
        }
        let rest: f64 = chunks.remainder().iter().map(|&v| f64::from(v) * f64::from(v)).sum();
        sums.iter().sum::<f64>() + rest
    }
}

/// Adds `others` to `gradient` and returns the sum of the squares of the result.
///
/// The order of summation is fixed by the length alone.
#[must_use]
pub fn add_and_square(gradient: &mut [f32], others: &[&[f32]]) -> f64 {
    // A piece stays in the first-level cache from the first sum to the squares.
    const PIECE: usize = 2048;
    let mut total = 0.0;
    for (i, piece) in gradient.chunks_mut(PIECE).enumerate() {
        for other in others {
            add_rows(&other[i * PIECE..i * PIECE + piece.len()], piece);
        }
        total += squares(piece);
    }
    total
}

vectorised! {
    fn apply(step: Step, values: &mut [f32], mean: &mut [f32], square: &mut [f32], gradient: &[f32]) {
        let [beta1, beta2] = step.betas;
        for (((value, mean), square), &g) in
            values.iter_mut().zip(mean).zip(square).zip(gradient)
        {
            let g = g * step.scale;
            *mean = beta1 * *mean + (1.0 - beta1) * g;
            *square = beta2 * *square + (1.0 - beta2) * g * g;
            *value = *value * step.shrink - step.rate * *mean / (square.sqrt() * step.root + step.eps);
        }
    }
}

/// Updates a parameter and its moments from its gradient.
///
/// # Errors
/// If a length differs from the parameter's or it is not f32 on the CPU.
pub fn update(
    parameter: &Tensor,
    step: Step,
    moments: (&mut [f32], &mut [f32]),
    gradient: &[f32],
) -> Result<()> {
    let n = parameter.elem_count();
    if moments.0.len() != n || moments.1.len() != n || gradient.len() != n {
        bail!("adamw: moments or gradient do not have the parameter's {n} values");
    }
    parameter.inplace_op1(&Update { step, moments: Mutex::new(moments), gradient })
}

struct Update<'a> {
    step: Step,
    moments: Mutex<(&'a mut [f32], &'a mut [f32])>,
    gradient: &'a [f32],
}

impl InplaceOp1 for Update<'_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (CpuStorage::F32(values), Some((start, end))) = (storage, layout.contiguous_offsets())
        else {
            bail!("adamw takes contiguous f32 parameters");
        };
        let mut moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        let (mean, square) = &mut *moments;
        apply(self.step, &mut values[start..end], mean, square, self.gradient);
        Ok(())
    }
}

/// Of gradients on one CUDA device, one per parameter: the norm of all together times `scale`,
/// and the factor of every value that also keeps this norm below `clip`, `(2,)`. Where the norm is
/// not finite, neither is. Nothing waits for the device.
///
/// # Errors
/// If a gradient lies elsewhere.
#[cfg(feature = "cuda")]
pub fn norm_and_factor(gradients: &[Tensor], scale: f64, clip: f64) -> Result<Tensor> {
    let Some(card) = gradients.first().and_then(Card::holding) else {
        bail!("gradients of a device are on it");
    };
    let squares = card.buffer(gradients.len())?;
    for (i, gradient) in gradients.iter().enumerate() {
        let gradient = gradient.contiguous()?;
        optimiser::sum_of_squares(&card, card.read(&gradient)?, card.place(&squares).from(i)?)?;
    }
    let out = optimiser::norm_and_factor(&card, card.place(&squares), scale, clip)?;
    Ok(card.tensor(out, 2))
}

/// As [`update`], of a parameter on a CUDA device. The factor of the gradient is the second value
/// of `norm`, which [`norm_and_factor`] made, in place of `step.scale`; nothing changes where it is
/// not finite.
///
/// # Errors
/// If a shape differs from the parameter's or something lies elsewhere.
#[cfg(feature = "cuda")]
pub fn update_on_device(
    parameter: &Tensor,
    step: Step,
    moments: (&Tensor, &Tensor),
    gradient: &Tensor,
    norm: &Tensor,
) -> Result<()> {
    let Some(card) = Card::holding(parameter) else { bail!("the parameter lies on no device") };
    let gradient = gradient.contiguous()?;
    let places = (card.read(parameter)?, card.read(moments.0)?, card.read(moments.1)?);
    let factor = card.read(norm)?.from(1)?;
    optimiser::adamw(&card, places, card.read(&gradient)?, factor, step)
}

/// See the build with the feature `cuda`.
///
/// # Errors
/// Always: this build has no devices.
#[cfg(not(feature = "cuda"))]
pub fn norm_and_factor(_gradients: &[Tensor], _scale: f64, _clip: f64) -> Result<Tensor> {
    bail!("built without `cuda`")
}

/// See the build with the feature `cuda`.
///
/// # Errors
/// Always: this build has no devices.
#[cfg(not(feature = "cuda"))]
pub fn update_on_device(
    _parameter: &Tensor,
    _step: Step,
    _moments: (&Tensor, &Tensor),
    _gradient: &Tensor,
    _norm: &Tensor,
) -> Result<()> {
    bail!("built without `cuda`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference;

    #[test]
    fn steps_are_those_of_the_formula() -> Result<()> {
        let step =
            Step { betas: [0.9, 0.98], scale: 0.7, shrink: 0.99, rate: 0.01, root: 1.3, eps: 1e-6 };
        for n in [1, 15, 17, 5003] {
            let (start, gradient) = (reference::uniform(n, 1), reference::uniform(n, 2));
            let parameter =
                candle_core::Var::from_vec(start.clone(), n, &candle_core::Device::Cpu)?;
            let mut mean = reference::uniform(n, 3);
            let mut square: Vec<f32> = reference::uniform(n, 4).iter().map(|v| v.abs()).collect();
            let before = (mean.clone(), square.clone());
            update(&parameter, step, (&mut mean, &mut square), &gradient)?;
            let after = parameter.to_vec1::<f32>()?;
            for i in 0..n {
                let g = f64::from(gradient[i]) * f64::from(step.scale);
                let m = 0.9 * f64::from(before.0[i]) + 0.1 * g;
                let s = 0.98 * f64::from(before.1[i]) + 0.02 * g * g;
                let moved = 0.01 * m / (s.sqrt() * 1.3 + 1e-6);
                let want = f64::from(start[i]) * 0.99 - moved;
                for (got, want) in [(mean[i], m), (square[i], s), (after[i], want)] {
                    assert!((f64::from(got) - want).abs() < 1e-6, "{i} of {n}: {got}, {want}");
                }
            }
        }
        assert!(
            update(
                &Tensor::zeros(2, candle_core::DType::F32, &candle_core::Device::Cpu)?,
                step,
                (&mut [0.0], &mut [0.0]),
                &[0.0]
            )
            .is_err()
        );
        Ok(())
    }

    #[test]
    fn sums_and_squares_are_those_of_the_loop() {
        for n in reference::cases([0, 1, 15, 16, 2047, 2048, 5003], 5) {
            let (mut a, b) = (reference::uniform(n, 1), reference::uniform(n, 2));
            let want: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
            let squares: f64 = want.iter().map(|v| f64::from(*v).powi(2)).sum();
            let got = add_and_square(&mut a, &[&b]);
            assert_eq!(a, want);
            assert!((got - squares).abs() <= 1e-12 * squares.max(1.0), "{got} against {squares}");
        }
    }
}
