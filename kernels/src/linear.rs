//! Affine map of the last dimension.

use crate::matmul::{Matrix, Output, Precision, matmul};
use crate::storage::{slice, with_slice};
use crate::vector::vectorised;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};

/// `y = x wᵀ + bias`; differentiable in all three.
///
/// # Shapes
/// - `x`: `(..., inputs)`; `weight`: `(outputs, inputs)`; `bias`: `(outputs,)`
/// - returns `(..., outputs)`
///
/// # Errors
/// If shapes disagree or a tensor is not f32 on the CPU.
pub fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor, precision: Precision) -> Result<Tensor> {
    x.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, Linear { precision })
}

struct Linear {
    precision: Precision,
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
        let mut dims = x_layout.dims().to_vec();
        let (outputs, inputs) = weight_layout.shape().dims2()?;
        if dims.last() != Some(&inputs) || bias_layout.dims() != [outputs] {
            bail!(
                "linear: x {dims:?}, weight {:?}, bias {:?} do not fit",
                weight_layout.dims(),
                bias_layout.dims()
            );
        }
        let x = slice(x, x_layout)?;
        let weight = slice(weight, weight_layout)?;
        let rows = x.len().checked_div(inputs).unwrap_or(0);
        let mut y = vec![0.0; rows * outputs];
        matmul(
            Matrix::row_major(x, rows, inputs),
            Matrix::row_major(weight, outputs, inputs).transposed(),
            &mut y,
            outputs,
            Output::Bias(slice(bias, bias_layout)?),
            self.precision,
        );
        if let Some(last) = dims.last_mut() {
            *last = outputs;
        }
        Ok((CpuStorage::F32(y), dims.into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _bias: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (outputs, inputs) = weight.dims2()?;
        let rows = dy.elem_count() / outputs;
        let mut dx = vec![0.0; rows * inputs];
        let mut dw = vec![0.0; outputs * inputs];
        let mut db = vec![0.0; outputs];
        with_slice(dy, |dy| -> Result<()> {
            let dy_rows = Matrix::row_major(dy, rows, outputs);
            with_slice(weight, |weight| {
                let weight = Matrix::row_major(weight, outputs, inputs);
                matmul(dy_rows, weight, &mut dx, inputs, Output::Overwrite, self.precision);
            })?;
            with_slice(x, |x| {
                let x = Matrix::row_major(x, rows, inputs);
                let dy_columns = dy_rows.transposed();
                matmul(dy_columns, x, &mut dw, inputs, Output::Overwrite, self.precision);
            })?;
            add_rows(dy, &mut db);
            Ok(())
        })??;
        let device = x.device();
        Ok((
            Some(Tensor::from_vec(dx, x.shape(), device)?),
            Some(Tensor::from_vec(dw, weight.shape(), device)?),
            Some(Tensor::from_vec(db, outputs, device)?),
        ))
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
        let (x, w, b) = (var(&[2, 5, 37], 1)?, var(&[19, 37], 2)?, var(&[19], 3)?);
        let upstream = var(&[2, 5, 19], 4)?;
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
            close(got.get(var).expect("has a gradient"), want.get(var).expect("has a gradient"))?;
        }
        Ok(())
    }
}
