//! Two convolutions over time and channels that halve the frame rate (ESPnet
//! `Conv2dSubsampling2`), and sinusoidal positions (Vaswani et al. 2017).

use crate::model::pass::Pass;
use crate::model::sequence::Sequence;
use crate::model::transformer::Linear;
use asr_kernels::conv::conv1d;
use candle_core::{Device, Result, Tensor};
use candle_nn::{Init, VarBuilder};

/// Frames per frame of the output.
pub(super) const STRIDE: usize = 2;
/// Kernel of both convolutions, in both directions.
const KERNEL: usize = 3;
/// Frames that a frame of the output sees: 3 of the second convolution, 2 apart, each of 3.
pub(super) const RECEPTIVE_FIELD: usize = (KERNEL - 1) * STRIDE + KERNEL;

/// `n` after both convolutions.
fn reduced(n: usize) -> usize {
    ((n - KERNEL) / STRIDE + 1) - (KERNEL - 1)
}

/// The convolutions, each followed by ReLU, and an affine map.
#[derive(Debug)]
pub(super) struct Subsampling {
    convs: [Conv; 2],
    out: Linear,
}

/// A 3 x 3 convolution over time and channels.
#[derive(Debug)]
struct Conv {
    /// `(outputs, inputs, 3, 3)`: over time, then over channels.
    weight: Tensor,
    bias: Tensor,
    stride: usize,
}

impl Conv {
    fn new(inputs: usize, outputs: usize, stride: usize, vb: &VarBuilder) -> Result<Self> {
        let bound = ((inputs * KERNEL * KERNEL) as f64).sqrt().recip();
        let start = Init::Uniform { lo: -bound, up: bound };
        Ok(Self {
            weight: vb.get_with_hints((outputs, inputs, KERNEL, KERNEL), "weight", start)?,
            bias: vb.get_with_hints(outputs, "bias", start)?,
            stride,
        })
    }

    /// `(batch, frames, width, inputs)` to `(batch, frames', width', outputs)`, with ReLU: one
    /// convolution over the width, whose inputs are those of three frames side by side.
    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let (batch, frames, width, inputs) = x.dims4()?;
        let n = (frames - KERNEL) / self.stride + 1;
        let taps: Vec<Tensor> = (0..KERNEL)
            .map(|tap| {
                if self.stride == 1 {
                    return x.narrow(1, tap, n);
                }
                let frames: Vec<u32> = (0..n).map(|t| (t * self.stride + tap) as u32).collect();
                x.index_select(&Tensor::from_vec(frames, n, x.device())?, 1)
            })
            .collect::<Result<_>>()?;
        let side_by_side = Tensor::cat(&taps, 3)?.reshape((batch * n, width, KERNEL * inputs))?;
        let outputs = self.weight.dim(0)?;
        let weight = self.weight.permute((0, 2, 1, 3))?;
        let weight = weight.reshape((outputs, KERNEL * inputs, KERNEL))?;
        let y = conv1d(&side_by_side, &weight, self.stride, 0, pass.precision())?;
        let y = y.broadcast_add(&self.bias)?.relu()?;
        y.reshape((batch, n, (width - KERNEL) / self.stride + 1, outputs))
    }
}

impl Subsampling {
    /// On the tensors `conv.0`, `conv.2` and `out.0`.
    pub(super) fn new(width: usize, dim: usize, vb: &VarBuilder) -> Result<Self> {
        let conv = vb.pp("conv");
        Ok(Self {
            convs: [Conv::new(1, dim, STRIDE, &conv.pp(0))?, Conv::new(dim, dim, 1, &conv.pp(2))?],
            out: Linear::uniform(dim * reduced(width), dim, &vb.pp("out.0"))?,
        })
    }

    /// `(batch, frames, width)` to `(batch, frames', dim)`; padding is zeroed before.
    pub(super) fn forward(&self, input: &Sequence, pass: &Pass) -> Result<Sequence> {
        let frames = input.frames()?;
        let missing = RECEPTIVE_FIELD.saturating_sub(frames);
        let x = input.zero_padding()?.hidden.pad_with_zeros(1, 0, missing)?;
        let mut x = x.unsqueeze(3)?;
        for conv in &self.convs {
            x = conv.forward(&x, pass)?;
        }
        // The map reads channel by channel, each with its whole width.
        let (batch, n, width, dim) = x.dims4()?;
        let x = x.transpose(2, 3)?.contiguous()?.reshape((batch, n, dim * width))?;
        let lengths = input.lengths.iter().map(|&n| reduced(n.max(RECEPTIVE_FIELD))).collect();
        Ok(Sequence { hidden: self.out.forward(&x, pass)?, lengths })
    }
}

/// Sines and cosines of the positions, `(frames, dim)`, `dim` even.
pub(super) fn positions(frames: usize, dim: usize, device: &Device) -> Result<Tensor> {
    let values = (0..frames).flat_map(|t| wave(t as f64, dim));
    Tensor::from_vec(values.collect(), (frames, dim), device)
}

/// Sines and cosines of one position, `dim` values.
pub(super) fn wave(position: f64, dim: usize) -> impl Iterator<Item = f32> {
    (0..dim).step_by(2).flat_map(move |i| {
        let angle = position * (-(i as f64) * 10_000_f64.ln() / dim as f64).exp();
        [angle.sin() as f32, angle.cos() as f32]
    })
}
