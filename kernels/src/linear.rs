//! Affine map of the last dimension.

#[cfg(feature = "cuda")]
use crate::device::{card::Card, linear as on_device};
use crate::gradients::{deliver, deliver_sum};
use crate::matmul::{
    Matrix, Output, Packed, Precision, PreparedWeight, matmul, matmul_packed, product,
};
use crate::storage::{slice, with_slice};
use crate::vector::vectorised;
use crate::{gelu, threads};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

/// What follows the affine map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activation {
    /// Nothing.
    #[default]
    Identity,
    /// [`mod@crate::gelu`]
    Gelu,
}

/// `y = x wᵀ + bias`; differentiable in all three.
///
/// # Shapes
/// - `x`: `(..., inputs)`; `weight`: `(outputs, inputs)`; `bias`: `(outputs,)`
/// - returns `(..., outputs)`
///
/// # Errors
/// If shapes disagree or a tensor is not f32 on the CPU.
pub fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor, precision: Precision) -> Result<Tensor> {
    activated_linear(x, weight, bias, None, Activation::Identity, precision)
}

/// [`linear`] and what follows it, with a weight that is prepared once if it is not trained.
///
/// # Errors
/// As [`linear`].
pub fn activated_linear(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    prepared: Option<&PreparedWeight>,
    activation: Activation,
    precision: Precision,
) -> Result<Tensor> {
    let (weight, bias) = (weight.contiguous()?, bias.contiguous()?);
    let (outputs, inputs) = weight.dims2()?;
    let pack =
        |w: &[f32]| Packed::new(Matrix::row_major(w, outputs, inputs).transposed(), precision);
    let packed = match prepared.filter(|_| weight.device().is_cpu()) {
        Some(prepared) => prepared.get(&weight, precision, pack)?,
        None => None,
    };
    let trained = x.track_op() || weight.track_op() || bias.track_op();
    let op = Linear {
        precision,
        packed,
        activation,
        trained,
        before: Mutex::new(Vec::new()),
        #[cfg(feature = "cuda")]
        before_on_device: Mutex::new(None),
    };
    x.contiguous()?.apply_op3(&weight, &bias, op)
}

struct Linear {
    precision: Precision,
    packed: Option<Arc<Packed>>,
    activation: Activation,
    /// Whether a backward pass may come.
    trained: bool,
    /// What went into the activation, for the backward pass.
    before: Mutex<Vec<f32>>,
    /// The same on a device.
    #[cfg(feature = "cuda")]
    before_on_device: Mutex<Option<Tensor>>,
}

vectorised! {
    /// Adds the rows of `dy` to `sum`.
    pub(crate) fn add_rows(dy: &[f32], sum: &mut [f32]) {
        for row in dy.chunks_exact(sum.len()) {
            for (s, d) in sum.iter_mut().zip(row) {
                *s += d;
            }
        }
    }
}

/// The dimensions of `x`, and `(outputs, inputs)` of the weight, if everything fits.
fn shapes(x: &Layout, weight: &Layout, bias: &Layout) -> Result<(Vec<usize>, (usize, usize))> {
    let (outputs, inputs) = weight.shape().dims2()?;
    let (x, weight, bias) = (x.dims(), weight.dims(), bias.dims());
    if x.last() != Some(&inputs) || bias != [outputs] {
        bail!("linear: x {x:?}, weight {weight:?}, bias {bias:?} do not fit");
    }
    Ok((x.to_vec(), (outputs, inputs)))
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (mut dims, (outputs, inputs)) = shapes(x_layout, weight_layout, bias_layout)?;
        let x = slice(x, x_layout)?;
        let weight = slice(weight, weight_layout)?;
        let rows = x.len().checked_div(inputs).unwrap_or(0);
        let output = Output::Bias(slice(bias, bias_layout)?);
        let x = Matrix::row_major(x, rows, inputs);
        let mut y = match &self.packed {
            Some(packed) => matmul_packed(x, packed, output),
            None => {
                let weight = Matrix::row_major(weight, outputs, inputs).transposed();
                product(x, weight, output, self.precision)
            }
        };
        if self.activation == Activation::Gelu {
            if self.trained {
                let before = std::mem::take(&mut y);
                y = gelu::of(&before);
                *self.before.lock().unwrap_or_else(PoisonError::into_inner) = before;
            } else {
                threads::for_row_blocks(&mut y, 1, |_, y| gelu::in_place(y));
            }
        }
        if let Some(last) = dims.last_mut() {
            *last = outputs;
        }
        Ok((CpuStorage::F32(y), dims.into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        weight: &CudaStorage,
        weight_layout: &Layout,
        bias: &CudaStorage,
        bias_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (mut dims, (outputs, inputs)) = shapes(x_layout, weight_layout, bias_layout)?;
        let card = Card::of(x);
        let places = (
            card.input(x, x_layout)?,
            card.input(weight, weight_layout)?,
            card.input(bias, bias_layout)?,
        );
        let what = (self.activation, self.trained);
        let (y, before) =
            on_device::forward(&card, places, (outputs, inputs), what, self.precision)?;
        if let Some(last) = dims.last_mut() {
            *last = outputs;
        }
        let before = before.map(|before| card.tensor(before, dims.as_slice()));
        *self.before_on_device.lock().unwrap_or_else(PoisonError::into_inner) = before;
        Ok((card.storage(y), dims.into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (outputs, inputs) = weight.dims2()?;
        #[cfg(feature = "cuda")]
        if let Some(card) = Card::holding(x) {
            let before = self.before_on_device.lock().unwrap_or_else(PoisonError::into_inner);
            let before = before.as_ref().map(|before| card.read(before)).transpose()?;
            let dy = dy.contiguous()?;
            let places = (card.read(x)?, card.read(weight)?, before, card.read(&dy)?);
            let wanted = [x, weight, bias].map(Tensor::track_op);
            let got =
                on_device::backward(&card, places, (outputs, inputs), wanted, self.precision)?;
            return Ok((
                got.x.map(|dx| card.tensor(dx, x.shape())),
                got.weight.map(|dw| card.tensor(dw, weight.shape())),
                got.bias.map(|db| card.tensor(db, bias.shape())),
            ));
        }
        let rows = dy.elem_count() / outputs;
        with_slice(dy, |dy| {
            let before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
            let inner = match self.activation {
                Activation::Identity => Cow::Borrowed(dy),
                Activation::Gelu => Cow::Owned(gelu::gradient(&before, dy)),
            };
            let dy_rows = Matrix::row_major(&inner, rows, outputs);
            let dx = if x.track_op() {
                let dx = with_slice(weight, |weight| {
                    let weight = Matrix::row_major(weight, outputs, inputs);
                    product(dy_rows, weight, Output::Overwrite, self.precision)
                })?;
                Some(Tensor::from_vec(dx, x.shape(), x.device())?)
            } else {
                None
            };
            let dw = with_slice(x, |x| {
                let x = Matrix::row_major(x, rows, inputs);
                let dy_columns = dy_rows.transposed();
                deliver(weight, |dw, output| {
                    matmul(dy_columns, x, dw, inputs, output, self.precision);
                })
            })??;
            let db = deliver_sum(bias, |db| add_rows(&inner, db))?;
            Ok((dx, dw, db))
        })?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference;
    use candle_core::{Device, Var};

    #[test]
    fn values_and_gradients_agree_with_candle() -> Result<()> {
        let device = Device::Cpu;
        let var = |shape: &[usize], seed| -> Result<Var> {
            let n = shape.iter().product();
            Var::from_tensor(&Tensor::from_vec(reference::uniform(n, seed), shape, &device)?)
        };
        for (rows, inputs, outputs) in [(1, 1, 1), (1, 65, 3), (5, 37, 19)] {
            let (x, w, b) =
                (var(&[2, rows, inputs], 1)?, var(&[outputs, inputs], 2)?, var(&[outputs], 3)?);
            let upstream = var(&[2, rows, outputs], 4)?;
            let ours = linear(&x, &w, &b, Precision::F32)?;
            let theirs = x.broadcast_matmul(&w.t()?)?.broadcast_add(&b)?;
            let loss = |y: &Tensor| (y * upstream.as_tensor())?.sum_all()?.backward();
            let (got, want) = (loss(&ours)?, loss(&theirs)?);
            let close = |a: &Tensor, b: &Tensor| -> Result<()> {
                let worst = (a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
                assert!(worst < 1e-5, "differs by {worst}");
                Ok(())
            };
            close(&ours, &theirs)?;
            for var in [&x, &w, &b] {
                let gradient = |store: &candle_core::backprop::GradStore| {
                    store.get(var).expect("has a gradient").clone()
                };
                close(&gradient(&got), &gradient(&want))?;
            }
        }
        Ok(())
    }

    #[test]
    fn a_following_gelu_changes_neither_values_nor_gradients() -> Result<()> {
        let var = |shape: &[usize], seed| -> Result<Var> {
            let n = shape.iter().product();
            Var::from_tensor(&Tensor::from_vec(reference::uniform(n, seed), shape, &Device::Cpu)?)
        };
        let (x, w, b) = (var(&[1, 13, 21], 1)?, var(&[35, 21], 2)?, var(&[35], 3)?);
        let upstream = var(&[1, 13, 35], 4)?;
        let fused = |w: &Tensor, prepared: Option<&PreparedWeight>| {
            activated_linear(&x, w, &b, prepared, Activation::Gelu, Precision::F32)
        };
        let ours = fused(&w, Some(&PreparedWeight::default()))?;
        let theirs = crate::gelu::gelu(&linear(&x, &w, &b, Precision::F32)?)?;
        let close = |a: &Tensor, b: &Tensor| -> Result<()> {
            let worst = (a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
            assert!(worst < 1e-5, "differs by {worst}");
            Ok(())
        };
        close(&ours, &theirs)?;
        let loss = |y: &Tensor| (y * upstream.as_tensor())?.sum_all()?.backward();
        let (got, want) = (loss(&ours)?, loss(&theirs)?);
        for var in [&x, &w, &b] {
            close(got.get(var).expect("has a gradient"), want.get(var).expect("has a gradient"))?;
        }
        // A weight that is not trained is prepared once, for every kind of arithmetic.
        let (fixed, prepared) = (w.detach(), PreparedWeight::default());
        for _ in 0..2 {
            close(&fused(&fixed, Some(&prepared))?, &theirs)?;
        }
        for (precision, tolerance) in [(Precision::Bf16, 0.05), (Precision::Int8, 0.1)] {
            let y = activated_linear(&x, &fixed, &b, Some(&prepared), Activation::Gelu, precision)?;
            let worst = (y - &theirs)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
            assert!(worst < tolerance, "{precision:?} differs by {worst}");
        }
        Ok(())
    }
}
