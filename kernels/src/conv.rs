//! Convolution over time, channels last, as matrix products over overlapping rows.
//!
//! With channels last, output frame `t` is the product of the weights with the contiguous
//! stretch of `kernel * inputs` values that starts at frame `t * stride`: a matrix whose rows
//! overlap, read where it lies. A transposed convolution is the same map read backwards, so
//! three functions (`gather`, `scatter`, `weight_gradient`) make both and their gradients.

#[cfg(feature = "cuda")]
use crate::device::{card::Card, conv as on_device};
use crate::gradients::deliver;
use crate::matmul::{Matrix, Output, Precision, matmul};
use crate::storage::{slice, with_slice};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use std::borrow::Cow;

/// Shape of a map between a `long` sequence (convolution input) and a `short` one (its output).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Map {
    pub(crate) short_channels: usize,
    pub(crate) long_channels: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) precision: Precision,
}

impl Map {
    /// The map of `weight`, `(short, long, kernel)`.
    pub(crate) fn of(weight: &Tensor, stride: usize, precision: Precision) -> Result<Self> {
        let (short_channels, long_channels, kernel) = weight.dims3()?;
        let precision = precision.without_int8();
        Ok(Self { short_channels, long_channels, kernel, stride, precision })
    }

    /// The windows of the first `frames` short frames, one a row.
    pub(crate) fn windows<'a>(&self, long: &'a [f32], frames: usize) -> Matrix<'a> {
        let row = self.kernel * self.long_channels;
        Matrix::strided(long, frames, row, self.stride * self.long_channels, 1)
    }

    /// Weights `(short, long, kernel)` reordered to `(short, kernel, long)`.
    pub(crate) fn pack<'a>(&self, weight: &'a [f32]) -> Cow<'a, [f32]> {
        if self.kernel == 1 || self.long_channels == 1 {
            return Cow::Borrowed(weight);
        }
        let mut packed = vec![0.0; weight.len()];
        let per_output = self.long_channels * self.kernel;
        for (w, p) in weight.chunks_exact(per_output).zip(packed.chunks_exact_mut(per_output)) {
            for c in 0..self.long_channels {
                for j in 0..self.kernel {
                    p[j * self.long_channels + c] = w[c * self.kernel + j];
                }
            }
        }
        Cow::Owned(packed)
    }

    /// The inverse of [`Map::pack`], put into `weight` as `output` says.
    fn unpack(&self, packed: &[f32], weight: &mut [f32], output: Output<'_>) {
        if !matches!(output, Output::Accumulate) {
            weight.fill(0.0);
        }
        let per_output = self.long_channels * self.kernel;
        for (w, p) in weight.chunks_exact_mut(per_output).zip(packed.chunks_exact(per_output)) {
            for c in 0..self.long_channels {
                for j in 0..self.kernel {
                    w[c * self.kernel + j] += p[j * self.long_channels + c];
                }
            }
        }
    }

    /// Hands over the gradient of `weight`, which `add` adds to a packed buffer.
    pub(crate) fn deliver(
        &self,
        weight: &Tensor,
        add: impl FnOnce(&mut [f32]),
    ) -> Result<Option<Tensor>> {
        deliver(weight, |gradient, output| {
            let mut packed = vec![0.0; gradient.len()];
            add(&mut packed);
            self.unpack(&packed, gradient, output);
        })
    }
}

/// `short[t] = sum_j w_j long[t * stride + j]`.
fn gather(map: Map, long: &[f32], packed: &[f32], short: &mut [f32]) {
    let frames = short.len() / map.short_channels;
    let weight = Matrix::row_major(packed, map.short_channels, map.kernel * map.long_channels);
    let windows = map.windows(long, frames);
    let width = map.short_channels;
    matmul(windows, weight.transposed(), short, width, Output::Overwrite, map.precision);
}

/// `long[t * stride + j] += w_jᵀ short[t]`.
pub(crate) fn scatter(map: Map, short: &[f32], packed: &[f32], long: &mut [f32]) {
    let frames = short.len() / map.short_channels;
    let short = Matrix::row_major(short, frames, map.short_channels);
    for j in 0..map.kernel {
        let tap = Matrix::strided(
            &packed[j * map.long_channels..],
            map.short_channels,
            map.long_channels,
            map.kernel * map.long_channels,
            1,
        );
        let row_stride = map.stride * map.long_channels;
        let long = &mut long[j * map.long_channels..];
        matmul(short, tap, long, row_stride, Output::Accumulate, map.precision);
    }
}

/// Adds `sum_t short[t] ⊗ long[t * stride + j]` to the packed gradient.
pub(crate) fn weight_gradient(map: Map, short: &[f32], long: &[f32], packed: &mut [f32]) {
    let frames = short.len() / map.short_channels;
    let short = Matrix::row_major(short, frames, map.short_channels);
    let width = map.kernel * map.long_channels;
    let windows = map.windows(long, frames);
    matmul(short.transposed(), windows, packed, width, Output::Accumulate, map.precision);
}

/// Convolution over time.
///
/// # Shapes
/// - `x`: `(batch, frames, inputs)`; `weight`: `(outputs, inputs, kernel)`, as published checkpoints store it
/// - `padding`: zero frames put at both ends
/// - returns `(batch, (frames + 2 padding - kernel) / stride + 1, outputs)`
///
/// # Errors
/// If shapes disagree, the input is shorter than the kernel, or a tensor is not f32 on the CPU.
pub fn conv1d(
    x: &Tensor,
    weight: &Tensor,
    stride: usize,
    padding: usize,
    precision: Precision,
) -> Result<Tensor> {
    let (_, frames, inputs) = x.dims3()?;
    let (_, expected, kernel) = weight.dims3()?;
    if inputs != expected || stride == 0 || kernel == 0 {
        bail!("conv1d: x {:?}, weight {:?}, stride {stride}", x.dims(), weight.dims());
    }
    if frames + 2 * padding < kernel {
        bail!("conv1d: {frames} frames are fewer than the kernel of {kernel}");
    }
    let x = if padding == 0 { x.contiguous()? } else { x.pad_with_zeros(1, padding, padding)? };
    x.apply_op2(&weight.contiguous()?, Conv { map: Map::of(weight, stride, precision)? })
}

/// Transposed convolution over time: each frame adds `kernel` frames of output, `stride` apart.
///
/// # Shapes
/// - `x`: `(batch, frames, inputs)`; `weight`: `(inputs, outputs, kernel)`, as published checkpoints store it
/// - returns `(batch, (frames - 1) stride + kernel + output_padding, outputs)`
///
/// # Errors
/// If shapes disagree or a tensor is not f32 on the CPU.
pub fn conv_transpose1d(
    x: &Tensor,
    weight: &Tensor,
    stride: usize,
    output_padding: usize,
    precision: Precision,
) -> Result<Tensor> {
    let (_, frames, inputs) = x.dims3()?;
    let (expected, _, kernel) = weight.dims3()?;
    if inputs != expected || stride == 0 || kernel == 0 || frames == 0 {
        bail!("conv_transpose1d: x {:?}, weight {:?}, stride {stride}", x.dims(), weight.dims());
    }
    let op = ConvTranspose { map: Map::of(weight, stride, precision)?, output_padding };
    x.contiguous()?.apply_op2(&weight.contiguous()?, op)
}

struct Conv {
    map: Map,
}

impl CustomOp2 for Conv {
    fn name(&self) -> &'static str {
        "conv1d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (batch, frames, inputs) = x_layout.shape().dims3()?;
        let map = self.map;
        let short_frames = (frames - map.kernel) / map.stride + 1;
        let packed = map.pack(slice(weight, weight_layout)?);
        let mut y = vec![0.0; batch * short_frames * map.short_channels];
        let clips = slice(x, x_layout)?.chunks_exact(frames * inputs);
        for (x, y) in clips.zip(y.chunks_exact_mut(short_frames * map.short_channels)) {
            gather(map, x, &packed, y);
        }
        Ok((CpuStorage::F32(y), (batch, short_frames, map.short_channels).into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        weight: &CudaStorage,
        weight_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (clips, frames, _) = x_layout.shape().dims3()?;
        let map = self.map;
        let card = Card::of(x);
        let (x, weight) = (card.input(x, x_layout)?, card.input(weight, weight_layout)?);
        let short_frames = (frames - map.kernel) / map.stride + 1;
        let shape = on_device::Shape { map, clips, long_frames: frames, short_frames };
        let y = on_device::gather(&card, x, weight, shape)?;
        Ok((card.storage(y), (clips, short_frames, map.short_channels).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let map = self.map;
        let (_, long_frames, _) = x.dims3()?;
        let (_, short_frames, _) = dy.dims3()?;
        gradients(map, weight, (x, long_frames), (dy, short_frames), Wanted::Long)
    }
}

struct ConvTranspose {
    map: Map,
    output_padding: usize,
}

impl CustomOp2 for ConvTranspose {
    fn name(&self) -> &'static str {
        "conv-transpose1d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (batch, frames, inputs) = x_layout.shape().dims3()?;
        let map = self.map;
        let long_frames = (frames - 1) * map.stride + map.kernel + self.output_padding;
        let packed = map.pack(slice(weight, weight_layout)?);
        let mut y = vec![0.0; batch * long_frames * map.long_channels];
        let clips = slice(x, x_layout)?.chunks_exact(frames * inputs);
        for (x, y) in clips.zip(y.chunks_exact_mut(long_frames * map.long_channels)) {
            scatter(map, x, &packed, y);
        }
        Ok((CpuStorage::F32(y), (batch, long_frames, map.long_channels).into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        weight: &CudaStorage,
        weight_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (clips, frames, _) = x_layout.shape().dims3()?;
        let map = self.map;
        let card = Card::of(x);
        let (x, weight) = (card.input(x, x_layout)?, card.input(weight, weight_layout)?);
        let long_frames = (frames - 1) * map.stride + map.kernel + self.output_padding;
        let shape = on_device::Shape { map, clips, long_frames, short_frames: frames };
        let y = on_device::scatter(&card, x, weight, shape)?;
        Ok((card.storage(y), (clips, long_frames, map.long_channels).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let map = self.map;
        let (_, short_frames, _) = x.dims3()?;
        let (_, long_frames, _) = dy.dims3()?;
        gradients(map, weight, (dy, long_frames), (x, short_frames), Wanted::Short)
    }
}

/// Which side of a [`Map`] was the input, and so gets a gradient.
#[derive(Clone, Copy, PartialEq)]
enum Wanted {
    Long,
    Short,
}

/// Gradients of the input side and of the weights.
fn gradients(
    map: Map,
    weight: &Tensor,
    (long, long_frames): (&Tensor, usize),
    (short, short_frames): (&Tensor, usize),
    wanted: Wanted,
) -> Result<(Option<Tensor>, Option<Tensor>)> {
    let (long_len, short_len) =
        (long_frames * map.long_channels, short_frames * map.short_channels);
    let target = if wanted == Wanted::Long { long } else { short };
    let clips = target.dim(0)?;
    #[cfg(feature = "cuda")]
    if let Some(card) = Card::holding(weight) {
        let shape = on_device::Shape { map, clips, long_frames, short_frames };
        let (long, short) = (long.contiguous()?, short.contiguous()?);
        let (from, to) = (card.read(&short)?, card.read(&long)?);
        let dw = match weight.track_op() {
            true => Some(on_device::weight_gradient(&card, from, to, shape)?),
            false => None,
        };
        let dw = dw.map(|dw| card.tensor(dw, weight.shape()));
        if !target.track_op() {
            return Ok((None, dw));
        }
        let weight = card.read(weight)?;
        let dx = match wanted {
            Wanted::Long => on_device::scatter(&card, from, weight, shape)?,
            Wanted::Short => on_device::gather(&card, to, weight, shape)?,
        };
        return Ok((Some(card.tensor(dx, target.shape())), dw));
    }
    let dw = with_slice(long, |long| {
        with_slice(short, |short| {
            map.deliver(weight, |packed| {
                for (long, short) in long.chunks_exact(long_len).zip(short.chunks_exact(short_len))
                {
                    weight_gradient(map, short, long, packed);
                }
            })
        })
    })???;
    if !target.track_op() {
        return Ok((None, dw));
    }
    let len = if wanted == Wanted::Long { long_len } else { short_len };
    let mut dx = vec![0.0; clips * len];
    let source = if wanted == Wanted::Long { short } else { long };
    let source_len = if wanted == Wanted::Long { short_len } else { long_len };
    with_slice(weight, |weight| {
        let packed = map.pack(weight);
        with_slice(source, |source| {
            for (source, dx) in source.chunks_exact(source_len).zip(dx.chunks_exact_mut(len)) {
                match wanted {
                    Wanted::Long => scatter(map, source, &packed, dx),
                    Wanted::Short => gather(map, source, &packed, dx),
                }
            }
        })
    })??;
    Ok((Some(Tensor::from_vec(dx, target.shape(), target.device())?), dw))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference;
    use candle_core::{Device, Var};

    fn var(shape: (usize, usize, usize), seed: u64) -> Result<Var> {
        let n = shape.0 * shape.1 * shape.2;
        Var::from_tensor(&Tensor::from_vec(reference::uniform(n, seed), shape, &Device::Cpu)?)
    }

    fn assert_close(a: &Tensor, b: &Tensor) -> Result<()> {
        assert_eq!(a.dims(), b.dims());
        let worst = (a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
        assert!(worst < 1e-5, "differs by {worst}");
        Ok(())
    }

    #[test]
    fn convolution_agrees_with_candle_and_gradients_with_linearity() -> Result<()> {
        for (frames, inputs, outputs, kernel, stride, padding) in reference::cases(
            [(1, 1, 1, 1, 1, 0), (41, 1, 7, 10, 5, 0), (20, 5, 33, 3, 2, 1), (9, 4, 3, 2, 2, 0)],
            2,
        ) {
            let x = var((2, frames, inputs), 1)?;
            let w = var((outputs, inputs, kernel), 2)?;
            let ours = conv1d(&x, &w, stride, padding, Precision::F32)?;
            let theirs = x.transpose(1, 2)?.conv1d(&w, padding, stride, 1, 1)?.transpose(1, 2)?;
            assert_close(&ours, &theirs)?;
            // candle's own gradient of the weights is wrong for batches, so gradients are held
            // against the definition: y is linear in x and in w, so <dx, x'> = <dy, conv(x', w)>.
            let upstream = var(ours.dims3()?, 3)?;
            let grads = (&ours * upstream.as_tensor())?.sum_all()?.backward()?;
            let (other_x, other_w) =
                (var((2, frames, inputs), 4)?, var((outputs, inputs, kernel), 5)?);
            for (var, moved, along) in [
                (&x, conv1d(&other_x, &w, stride, padding, Precision::F32)?, &other_x),
                (&w, conv1d(&x, &other_w, stride, padding, Precision::F32)?, &other_w),
            ] {
                let gradient = grads.get(var).expect("gradient");
                let got = (gradient * along.as_tensor())?.sum_all()?.to_scalar::<f32>()?;
                let want = (moved * upstream.as_tensor())?.sum_all()?.to_scalar::<f32>()?;
                assert!((got - want).abs() < 1e-4, "{got} against {want}");
            }
        }
        Ok(())
    }

    #[test]
    fn plain_loops_give_the_same_convolution() -> Result<()> {
        let (x, w) = (var((1, 30, 6), 3)?, var((4, 6, 3), 4)?);
        let got = conv1d(&x, &w, 2, 0, Precision::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let (x, w) = (x.flatten_all()?.to_vec1::<f32>()?, w.flatten_all()?.to_vec1::<f32>()?);
        for (g, w) in got.iter().zip(reference::conv1d(&x, 6, &w, (4, 3), 2, 1)) {
            assert!((g - w).abs() < 1e-5);
        }
        Ok(())
    }

    #[test]
    fn transposed_convolution_and_gradients_agree_with_candle() -> Result<()> {
        for (frames, inputs, outputs, kernel, stride) in
            [(1, 2, 3, 1, 1), (7, 5, 4, 1, 2), (6, 3, 5, 7, 3)]
        {
            let x = var((2, frames, inputs), 5)?;
            let w = var((inputs, outputs, kernel), 6)?;
            let extra = stride - 1;
            let ours = conv_transpose1d(&x, &w, stride, extra, Precision::F32)?;
            let theirs =
                x.transpose(1, 2)?.conv_transpose1d(&w, 0, extra, stride, 1, 1)?.transpose(1, 2)?;
            assert_close(&ours, &theirs)?;
        }
        // candle's own gradient of a transposed convolution with output padding fails, so
        // the gradients are held against the definition: <scatter(x), g> = <x, gather(g)>.
        let (x, w, g) = (var((1, 7, 5), 7)?, var((5, 4, 3), 8)?, var((1, 16, 4), 9)?);
        let y = conv_transpose1d(&x, &w, 2, 1, Precision::F32)?;
        let grads = (y * g.as_tensor())?.sum_all()?.backward()?;
        let dx = conv1d(&g, &w, 2, 0, Precision::F32)?;
        assert_close(grads.get(&x).expect("gradient"), &dx.narrow(1, 0, 7)?)?;
        let along = var((5, 4, 3), 10)?;
        let moved = conv_transpose1d(&x, &along, 2, 1, Precision::F32)?;
        let want = (moved * g.as_tensor())?.sum_all()?.to_scalar::<f32>()?;
        let got = (grads.get(&w).expect("gradient") * along.as_tensor())?
            .sum_all()?
            .to_scalar::<f32>()?;
        assert!((got - want).abs() < 1e-4, "{got} against {want}");
        Ok(())
    }
}
