//! The grouped convolution that tells HuBERT's Transformer where it is in time.

use crate::conv::{Map, scatter, weight_gradient};
#[cfg(feature = "cuda")]
use crate::device::{card::Card, position_conv as on_device};
use crate::matmul::{Matrix, Output, Precision, product};
use crate::storage::{slice, with_slice};
use crate::threads;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use std::sync::{Mutex, PoisonError};

/// Grouped convolution that keeps the number of frames: `kernel / 2` zeros on the left, the rest right.
///
/// Equals PyTorch's `padding = kernel / 2` with the last frame dropped for even kernels.
///
/// # Shapes
/// `x`: `(batch, frames, dim)`; `weight`: `(dim, dim / groups, kernel)`; returns `(batch, frames, dim)`.
///
/// # Errors
/// If shapes disagree or a tensor is not f32 on the CPU.
pub fn position_conv(x: &Tensor, weight: &Tensor, precision: Precision) -> Result<Tensor> {
    let (_, frames, dim) = x.dims3()?;
    let (outputs, per_group, kernel) = weight.dims3()?;
    if outputs != dim || per_group == 0 || dim % per_group != 0 || kernel == 0 || frames == 0 {
        bail!("position_conv: x {:?}, weight {:?}", x.dims(), weight.dims());
    }
    x.contiguous()?
        .apply_op2(&weight.contiguous()?, PositionConv { precision: precision.without_int8() })
}

struct PositionConv {
    precision: Precision,
}

/// One group of one clip, cut out of the interleaved channels.
struct Group {
    frames: usize,
    dim: usize,
    first_channel: usize,
    channels: usize,
}

impl Group {
    /// The group's frames, with `before` zero frames before and `after` behind them.
    fn read(&self, clip: &[f32], before: usize, after: usize) -> Vec<f32> {
        let mut out = vec![0.0; (before + self.frames + after) * self.channels];
        let rows = out[before * self.channels..].chunks_exact_mut(self.channels);
        for (row, frame) in rows.zip(clip.chunks_exact(self.dim)) {
            row.copy_from_slice(&frame[self.first_channel..self.first_channel + self.channels]);
        }
        out
    }

    /// Writes values that lie frame after frame within each channel.
    fn write_transposed(&self, values: &[f32], clip: &mut [f32]) {
        for (t, frame) in clip.chunks_exact_mut(self.dim).enumerate() {
            let channels = &mut frame[self.first_channel..self.first_channel + self.channels];
            for (value, channel) in channels.iter_mut().zip(values.chunks_exact(self.frames)) {
                *value = channel[t];
            }
        }
    }

    fn write(&self, values: &[f32], clip: &mut [f32]) {
        for (row, frame) in values.chunks_exact(self.channels).zip(clip.chunks_exact_mut(self.dim))
        {
            frame[self.first_channel..self.first_channel + self.channels].copy_from_slice(row);
        }
    }
}

impl PositionConv {
    fn map(&self, channels: usize, kernel: usize) -> Map {
        Map {
            short_channels: channels,
            long_channels: channels,
            kernel,
            stride: 1,
            precision: self.precision,
        }
    }
}

impl CustomOp2 for PositionConv {
    fn name(&self) -> &'static str {
        "position-conv"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (batch, frames, dim) = x_layout.shape().dims3()?;
        let (_, channels, kernel) = weight_layout.shape().dims3()?;
        let groups = dim / channels;
        let map = self.map(channels, kernel);
        let x = slice(x, x_layout)?;
        let packed = map.pack(slice(weight, weight_layout)?);
        let y = Mutex::new(vec![0.0; x.len()]);
        threads::for_each(batch * groups, |task| {
            let (clip, g) = (task / groups, task % groups);
            let group = Group { frames, dim, first_channel: g * channels, channels };
            let clip = clip * frames * dim..(clip + 1) * frames * dim;
            let long = group.read(&x[clip.clone()], kernel / 2, kernel - 1 - kernel / 2);
            let size = channels * channels * kernel;
            let weight = &packed[g * size..(g + 1) * size];
            // Channels by frames: groups are too narrow to be the columns of a tile.
            let weight = Matrix::row_major(weight, channels, channels * kernel);
            let windows = map.windows(&long, frames).transposed();
            let short = product(weight, windows, Output::Overwrite, self.precision);
            let mut y = y.lock().unwrap_or_else(PoisonError::into_inner);
            group.write_transposed(&short, &mut y[clip]);
        });
        let y = y.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        weight: &CudaStorage,
        weight_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (clips, frames, dim) = x_layout.shape().dims3()?;
        let (_, width, kernel) = weight_layout.shape().dims3()?;
        let card = Card::of(x);
        let (x, weight) = (card.input(x, x_layout)?, card.input(weight, weight_layout)?);
        let shape = on_device::Shape { clips, frames, dim, width, kernel };
        let y = on_device::forward(&card, x, weight, shape)?;
        Ok((card.storage(y), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (batch, frames, dim) = x.dims3()?;
        let (_, channels, kernel) = weight.dims3()?;
        #[cfg(feature = "cuda")]
        if let Some(card) = Card::holding(x) {
            let shape = on_device::Shape { clips: batch, frames, dim, width: channels, kernel };
            let dy = dy.contiguous()?;
            let (x_in, w_in, dy) = (card.read(x)?, card.read(weight)?, card.read(&dy)?);
            let dx = on_device::input_gradient(&card, dy, w_in, shape)?;
            let dw = on_device::weight_gradient(&card, x_in, dy, shape, self.precision)?;
            let dw = card.tensor(dw, weight.shape());
            return Ok((Some(card.tensor(dx, x.shape())), Some(dw)));
        }
        let map = self.map(channels, kernel);
        let packed = with_slice(weight, |w| map.pack(w).into_owned())?;
        let dx = Mutex::new(vec![0.0; x.elem_count()]);
        let dw = Mutex::new(vec![0.0; packed.len()]);
        let size = channels * channels * kernel;
        let (before, after) = (kernel / 2, kernel - 1 - kernel / 2);
        with_slice(x, |x| {
            with_slice(dy, |dy| {
                threads::for_each(dim / channels, |g| {
                    let group = Group { frames, dim, first_channel: g * channels, channels };
                    let packed = &packed[g * size..(g + 1) * size];
                    let mut gradient = vec![0.0; size];
                    for clip in 0..batch {
                        let clip = clip * frames * dim..(clip + 1) * frames * dim;
                        let long = group.read(&x[clip.clone()], before, after);
                        let short = group.read(&dy[clip.clone()], 0, 0);
                        weight_gradient(map, &short, &long, &mut gradient);
                        let mut dlong = vec![0.0; long.len()];
                        scatter(map, &short, packed, &mut dlong);
                        let inside = &dlong[before * channels..(before + frames) * channels];
                        group.write(
                            inside,
                            &mut dx.lock().unwrap_or_else(PoisonError::into_inner)[clip],
                        );
                    }
                    dw.lock().unwrap_or_else(PoisonError::into_inner)[g * size..(g + 1) * size]
                        .copy_from_slice(&gradient);
                });
            })
        })??;
        let dx = dx.into_inner().unwrap_or_else(PoisonError::into_inner);
        let dw = dw.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok((
            Some(Tensor::from_vec(dx, x.shape(), x.device())?),
            map.deliver(weight, |packed| packed.copy_from_slice(&dw))?,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference;
    use candle_core::{Device, Var};

    #[test]
    fn values_agree_with_candle_and_gradients_with_linearity() -> Result<()> {
        for (frames, dim, groups, kernel) in
            reference::cases([(1, 4, 2, 8), (13, 6, 3, 5), (40, 32, 4, 16)], 2)
        {
            let var = |shape: (usize, usize, usize), seed| -> Result<Var> {
                let n = shape.0 * shape.1 * shape.2;
                Var::from_tensor(&Tensor::from_vec(
                    reference::uniform(n, seed),
                    shape,
                    &Device::Cpu,
                )?)
            };
            let x = var((2, frames, dim), 1)?;
            let w = var((dim, dim / groups, kernel), 2)?;
            let ours = position_conv(&x, &w, Precision::F32)?;
            let theirs = x
                .transpose(1, 2)?
                .conv1d(&w, kernel / 2, 1, 1, groups)?
                .narrow(2, 0, frames)?
                .transpose(1, 2)?;
            let worst = |a: &Tensor, b: &Tensor| -> Result<f32> {
                (a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()
            };
            assert!(worst(&ours, &theirs)? < 1e-5);
            // As in the tests of `conv1d`, gradients are held against linearity.
            let upstream = var((2, frames, dim), 3)?;
            let grads = (&ours * upstream.as_tensor())?.sum_all()?.backward()?;
            let (other_x, other_w) = (var((2, frames, dim), 4)?, var(w.dims3()?, 5)?);
            for (var, moved, along) in [
                (&x, position_conv(&other_x, &w, Precision::F32)?, &other_x),
                (&w, position_conv(&x, &other_w, Precision::F32)?, &other_w),
            ] {
                let gradient = grads.get(var).expect("gradient");
                let got = (gradient * along.as_tensor())?.sum_all()?.to_scalar::<f32>()?;
                let want = (moved * upstream.as_tensor())?.sum_all()?.to_scalar::<f32>()?;
                assert!((got - want).abs() < 1e-3, "{got} against {want}");
            }
        }
        Ok(())
    }
}
