//! Layer norm over the last dimension.

#[cfg(feature = "cuda")]
use crate::device::{card::Card, norm as on_device};
use crate::gradients::deliver_sum;
use crate::linear::add_rows;
use crate::storage::{slice, with_slice, written};
use crate::threads;
use crate::vector::{sum_of, vectorised};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use std::mem::MaybeUninit;

/// Normalises each frame to mean 0 and biased variance 1, then scales and shifts (Ba et al. 2016).
///
/// # Shapes
/// `x` `(..., dim)`, `weight` and `bias` `(dim,)`; returns the shape of `x`.
///
/// # Errors
/// If shapes disagree or a tensor is not f32 on the CPU.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    x.contiguous()?.apply_op3(weight, bias, LayerNorm { eps: eps as f32 })
}

struct LayerNorm {
    eps: f32,
}

#[inline(always)]
fn statistics(row: &[f32], eps: f32) -> (f32, f32) {
    let n = row.len() as f32;
    let mean = sum_of(row.len(), |i| row[i]) / n;
    let variance = sum_of(row.len(), |i| (row[i] - mean) * (row[i] - mean)) / n;
    (mean, (variance + eps).sqrt().recip())
}

vectorised! {
    fn forward(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, y: &mut [MaybeUninit<f32>]) {
        let dim = weight.len();
        for (x, y) in x.chunks_exact(dim).zip(y.chunks_exact_mut(dim)) {
            let (mean, scale) = statistics(x, eps);
            for (((y, &x), &w), &b) in y.iter_mut().zip(x).zip(weight).zip(bias) {
                y.write((x - mean) * scale * w + b);
            }
        }
    }
}

vectorised! {
    /// [`layer_norm`] in place.
    pub(crate) fn layer_norm_in_place(rows: &mut [f32], weight: &[f32], bias: &[f32], eps: f32) {
        for row in rows.chunks_exact_mut(weight.len()) {
            let (mean, scale) = statistics(row, eps);
            for ((x, &w), &b) in row.iter_mut().zip(weight).zip(bias) {
                *x = (*x - mean) * scale * w + b;
            }
        }
    }
}

vectorised! {
    /// Writes `dx`, adds to `dw` and `db`.
    fn backward(x: &[f32], dy: &[f32], weight: &[f32], eps: f32, dx: &mut [MaybeUninit<f32>], dw: &mut [f32], db: &mut [f32]) {
        let dim = weight.len();
        let rows = x.chunks_exact(dim).zip(dy.chunks_exact(dim));
        for ((x, d), dx) in rows.zip(dx.chunks_exact_mut(dim)) {
            let (mean, scale) = statistics(x, eps);
            for (((&x, &d), dw), db) in x.iter().zip(d.iter()).zip(dw.iter_mut()).zip(db.iter_mut()) {
                *dw += d * (x - mean) * scale;
                *db += d;
            }
            let n = dim as f32;
            let mean_d = sum_of(dim, |i| d[i] * weight[i]) / n;
            let mean_dx = sum_of(dim, |i| d[i] * weight[i] * (x[i] - mean)) * scale / n;
            for (((dx, &d), &x), &w) in dx.iter_mut().zip(d).zip(x).zip(weight) {
                dx.write(scale * (d * w - mean_d - (x - mean) * scale * mean_dx));
            }
        }
    }
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
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
        let (x, weight, bias) =
            (slice(x, x_layout)?, slice(weight, weight_layout)?, slice(bias, bias_layout)?);
        let dim = weight.len();
        if x_layout.dims().last() != Some(&dim) || bias.len() != dim || dim == 0 {
            bail!("layer norm of width {dim} over a tensor of shape {:?}", x_layout.dims());
        }
        let block = |start: usize, y: &mut [MaybeUninit<f32>]| {
            forward(&x[start * dim..start * dim + y.len()], weight, bias, self.eps, y);
        };
        // SAFETY: the blocks cover the output in whole rows, and each value is written.
        let y = unsafe { written(x.len(), |y| threads::for_row_blocks(y, dim, block)) };
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
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
        let card = Card::of(x);
        let places = (
            card.input(x, x_layout)?,
            card.input(weight, weight_layout)?,
            card.input(bias, bias_layout)?,
        );
        let dim = weight_layout.shape().elem_count();
        if x_layout.dims().last() != Some(&dim) || dim == 0 {
            bail!("layer norm of width {dim} over a tensor of shape {:?}", x_layout.dims());
        }
        let y = on_device::layer_norm(&card, places, self.eps)?;
        Ok((card.storage(y), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let dim = weight.elem_count();
        #[cfg(feature = "cuda")]
        if let Some(card) = Card::holding(x) {
            let dy = dy.contiguous()?;
            let places = (card.read(x)?, card.read(weight)?, card.read(&dy)?);
            let (dx, parameters) = on_device::layer_norm_gradient(&card, places, self.eps)?;
            let parameters = card.tensor(parameters, 2 * dim);
            return Ok((
                Some(card.tensor(dx, x.shape())),
                Some(parameters.narrow(0, 0, dim)?),
                Some(parameters.narrow(0, dim, dim)?),
            ));
        }
        let (mut dw, mut db) = (vec![0.0; dim], vec![0.0; dim]);
        let dx = with_slice(x, |x| {
            with_slice(dy, |dy| {
                with_slice(weight, |w| {
                    // SAFETY: rows cover `dx`, and each value is written.
                    unsafe {
                        written(x.len(), |dx| backward(x, dy, w, self.eps, dx, &mut dw, &mut db))
                    }
                })
            })
        })???;
        Ok((
            Some(Tensor::from_vec(dx, x.shape(), x.device())?),
            deliver_sum(weight, |sum| add_rows(&dw, sum))?,
            deliver_sum(bias, |sum| add_rows(&db, sum))?,
        ))
    }
}
