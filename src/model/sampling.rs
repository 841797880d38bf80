//! Modules that change the frame rate between stages (MR-HuBERT, `ConvAdapter` and plain sampling).

use super::config::Sampling;
use super::conv_stack::EPS;
use super::pass::Pass;
use super::sequence::Sequence;
use asr_kernels::sum::scaled_sum;
use asr_kernels::{conv, gelu, norm};
use candle_core::{Result, Tensor};
use candle_nn::{Init, VarBuilder};

/// Weight of each sum of two branches, sqrt(0.4): keeps their variance near one.
const BRANCH_SCALE: f32 = 0.632_455_5;

/// Multiplies the frame rate by `up / down`.
#[derive(Debug)]
pub(super) struct Resample {
    up: usize,
    down: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Adapter { up: Conv, down: Conv },
    PlainUp(Conv),
    PlainDown(Conv),
}

/// A convolution, normalised over all channels and frames, then GELU.
#[derive(Debug)]
struct Conv {
    weight: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    kernel: usize,
}

impl Conv {
    fn new(dim: usize, kernel: usize, vb: &VarBuilder) -> Result<Self> {
        // PyTorch's default, kaiming_uniform(a = sqrt 5): both directions have dim * kernel inputs.
        let bound = ((dim * kernel) as f64).sqrt().recip();
        let start = Init::Uniform { lo: -bound, up: bound };
        Ok(Self {
            weight: vb.get_with_hints((dim, dim, kernel), "0.weight", start)?,
            norm_weight: vb.get_with_hints(dim, "2.weight", Init::Const(1.0))?,
            norm_bias: vb.get_with_hints(dim, "2.bias", Init::Const(0.0))?,
            kernel,
        })
    }

    fn activate(&self, x: &Tensor, lengths: &[usize], pass: &Pass) -> Result<Tensor> {
        let lengths = pass.norm_lengths(lengths);
        gelu::gelu(&norm::group_norm(x, &self.norm_weight, &self.norm_bias, 1, EPS, lengths)?)
    }

    /// Transposed convolution; `frames * up + kernel - 1` frames, of which norms over `lengths`
    /// count as many past each end.
    fn upsample(&self, x: &Tensor, up: usize, lengths: &[usize], pass: &Pass) -> Result<Tensor> {
        let y = conv::conv_transpose1d(x, &self.weight, up, up - 1, pass.precision())?;
        let lengths: Vec<usize> = lengths.iter().map(|n| n * up + self.kernel - 1).collect();
        self.activate(&y, &lengths, pass)
    }

    fn downsample(
        &self,
        x: &Tensor,
        down: usize,
        lengths: &[usize],
        pass: &Pass,
    ) -> Result<Tensor> {
        let padding = (self.kernel - 1) / 2;
        let y = conv::conv1d(x, &self.weight, down, padding, pass.precision())?;
        let lengths: Vec<usize> = lengths.iter().map(|n| n.div_ceil(down)).collect();
        self.activate(&y, &lengths, pass)
    }
}

/// Each frame `times` times.
fn repeat(x: &Tensor, times: usize) -> Result<Tensor> {
    if times == 1 {
        return Ok(x.clone());
    }
    let (batch, frames, dim) = x.dims3()?;
    let x = x.unsqueeze(2)?.broadcast_as((batch, frames, times, dim))?;
    x.reshape((batch, frames * times, dim))
}

/// Every `step`-th frame, from the first.
fn every(x: &Tensor, step: usize) -> Result<Tensor> {
    if step == 1 {
        return Ok(x.clone());
    }
    let (batch, frames, dim) = x.dims3()?;
    let whole = frames.div_ceil(step);
    let x = x.pad_with_zeros(1, 0, whole * step - frames)?;
    x.reshape((batch, whole, step, dim))?.narrow(2, 0, 1)?.squeeze(2)?.contiguous()
}

/// `sqrt(0.4) (a + b)` over the frames both have.
fn join(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let frames = a.dim(1)?.min(b.dim(1)?);
    scaled_sum(&a.narrow(1, 0, frames)?, &b.narrow(1, 0, frames)?, BRANCH_SCALE)
}

impl Resample {
    /// On the way down, `ratio` as configured.
    pub(super) fn down(
        sampling: Sampling,
        [up, down]: [usize; 2],
        dim: usize,
        vb: &VarBuilder,
    ) -> Result<Self> {
        let kind = match sampling {
            Sampling::ConvAdapter { kernel } => adapter(dim, kernel, vb)?,
            Sampling::Plain { kernel } => {
                Kind::PlainDown(Conv::new(dim, kernel, &vb.pp("downsample_conv"))?)
            }
        };
        Ok(Self { up, down, kind })
    }

    /// On the way up, the inverse of `ratio`.
    pub(super) fn up(
        sampling: Sampling,
        [up, down]: [usize; 2],
        dim: usize,
        vb: &VarBuilder,
    ) -> Result<Self> {
        let kind = match sampling {
            Sampling::ConvAdapter { kernel } => adapter(dim, kernel, vb)?,
            Sampling::Plain { kernel } => {
                Kind::PlainUp(Conv::new(dim, kernel, &vb.pp("upsample_conv"))?)
            }
        };
        Ok(Self { up: down, down: up, kind })
    }

    pub(super) fn forward(&self, input: &Sequence, pass: &Pass) -> Result<Sequence> {
        let raised: Vec<usize> = input.lengths.iter().map(|n| n * self.up).collect();
        let lengths: Vec<usize> = raised.iter().map(|n| n.div_ceil(self.down)).collect();
        let input = pass.isolate(input)?;
        let hidden = match &self.kind {
            Kind::Adapter { up, down } => {
                let repeated = repeat(&input.hidden, self.up)?;
                let y = up.upsample(&input.hidden, self.up, &input.lengths, pass)?;
                let y = Sequence { hidden: join(&y, &repeated)?, lengths: raised.clone() };
                let y = pass.isolate(&y)?.hidden;
                let z = down.downsample(&y, self.down, &raised, pass)?;
                let z = join(&z, &every(&y, self.down)?)?;
                join(&z, &every(&repeated, self.down)?)?
            }
            Kind::PlainUp(conv) => {
                let y = conv.upsample(&input.hidden, self.up, &input.lengths, pass)?;
                join(&y, &repeat(&input.hidden, self.up)?)?
            }
            Kind::PlainDown(conv) => {
                let y = conv.downsample(&input.hidden, self.down, &input.lengths, pass)?;
                join(&y, &every(&input.hidden, self.down)?)?
            }
        };
        Ok(Sequence { hidden, lengths })
    }
}

fn adapter(dim: usize, kernel: usize, vb: &VarBuilder) -> Result<Kind> {
    Ok(Kind::Adapter {
        up: Conv::new(dim, kernel, &vb.pp("upsample_conv"))?,
        down: Conv::new(dim, kernel, &vb.pp("downsample_conv"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Parameters;
    use asr_kernels::Precision;
    use candle_core::Device;

    #[test]
    fn lengths_follow_the_ratio() -> Result<()> {
        let pass = Pass::inference(Precision::F32);
        for (ratio, frames, want) in
            [([1, 2], 7, 4), ([1, 2], 8, 4), ([2, 5], 26, 11), ([1, 1], 5, 5)]
        {
            for kernel in [1, 3, 7] {
                let vb = Parameters::default().seeded(1);
                let down = Resample::down(Sampling::ConvAdapter { kernel }, ratio, 8, &vb.pp("d"))?;
                let up = Resample::up(Sampling::ConvAdapter { kernel }, ratio, 8, &vb.pp("u"))?;
                let x = Tensor::zeros((1, frames, 8), candle_core::DType::F32, &Device::Cpu)?;
                let low = down.forward(&Sequence { hidden: x, lengths: vec![frames] }, &pass)?;
                assert_eq!((low.frames()?, low.lengths[0]), (want, want));
                let high = up.forward(&low, &pass)?;
                let back = (want * ratio[1]).div_ceil(ratio[0]);
                assert_eq!((high.frames()?, high.lengths[0]), (back, back));
                assert!(back >= frames);
            }
        }
        Ok(())
    }
}
