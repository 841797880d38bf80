//! ECAPA-TDNN (Desplanques et al. 2020), the frame encoder of language identification, in the
//! order that ESPnet runs it: activation before norm everywhere.

use super::batch_norm::BatchNorm;
use super::pass::Pass;
use super::pooling::mean;
use super::sequence::Sequence;
use super::transformer::Linear;
use asr_kernels::linear;
use candle_core::{D, Result, Tensor};
use candle_nn::{Init, VarBuilder};

/// Channel groups of a block, `model_scale`.
const GROUPS: usize = 8;
/// Width of the squeeze in squeeze and excitation.
const SQUEEZE: usize = 128;
/// Kernel and dilation of the blocks.
const BLOCK_KERNEL: usize = 3;
const DILATIONS: [usize; 3] = [2, 3, 4];
/// Kernel of the first convolution.
const FIRST_KERNEL: usize = 5;

/// A convolution over time that keeps the number of frames.
#[derive(Debug)]
struct Conv {
    /// `(outputs, inputs, kernel)`
    weight: Tensor,
    bias: Tensor,
    dilation: usize,
}

impl Conv {
    fn new(
        inputs: usize,
        outputs: usize,
        kernel: usize,
        dilation: usize,
        vb: &VarBuilder,
    ) -> Result<Self> {
        let bound = ((inputs * kernel) as f64).sqrt().recip();
        let start = Init::Uniform { lo: -bound, up: bound };
        Ok(Self {
            weight: vb.get_with_hints((outputs, inputs, kernel), "weight", start)?,
            bias: vb.get_with_hints(outputs, "bias", start)?,
            dilation,
        })
    }

    /// As one matrix product over the frames that each tap sees, side by side.
    fn forward(&self, input: &Sequence, pass: &Pass) -> Result<Tensor> {
        let x = pass.isolate(input)?.hidden;
        let (_, frames, _) = x.dims3()?;
        let (outputs, inputs, kernel) = self.weight.dims3()?;
        let reach = (kernel - 1) / 2 * self.dilation;
        let padded = x.pad_with_zeros(1, reach, reach)?;
        let taps: Vec<Tensor> = (0..kernel)
            .map(|tap| padded.narrow(1, tap * self.dilation, frames))
            .collect::<Result<_>>()?;
        let weight = self.weight.permute((0, 2, 1))?.reshape((outputs, kernel * inputs))?;
        linear::linear(&Tensor::cat(&taps, D::Minus1)?, &weight, &self.bias, pass.precision())
    }
}

/// A map of each frame, ReLU, norm.
#[derive(Debug)]
struct Pointwise {
    map: Linear,
    norm: BatchNorm,
}

impl Pointwise {
    fn new(dim: usize, map: &str, norm: &str, vb: &VarBuilder) -> Result<Self> {
        Ok(Self {
            map: Linear::pointwise(dim, dim, &vb.pp(map))?,
            norm: BatchNorm::new(dim, &vb.pp(norm))?,
        })
    }

    fn forward(&self, x: &Tensor, lengths: &[usize], pass: &Pass) -> Result<Tensor> {
        self.norm.forward(&self.map.forward(x, pass)?.relu()?, lengths, pass)
    }
}

/// Scales each channel by what the whole clip says of it.
#[derive(Debug)]
struct SqueezeExcitation {
    squeeze: Linear,
    norm: BatchNorm,
    excite: Linear,
}

impl SqueezeExcitation {
    fn new(dim: usize, vb: &VarBuilder) -> Result<Self> {
        let vb = vb.pp("se").pp("se");
        Ok(Self {
            squeeze: Linear::pointwise(dim, SQUEEZE, &vb.pp(1))?,
            norm: BatchNorm::new(SQUEEZE, &vb.pp(3))?,
            excite: Linear::pointwise(SQUEEZE, dim, &vb.pp(4))?,
        })
    }

    fn forward(&self, input: &Sequence, pass: &Pass) -> Result<Tensor> {
        let mean = match pass.norm_lengths(&input.lengths) {
            Some(_) => mean(input)?,
            None => input.hidden.mean_keepdim(1)?,
        };
        let every = vec![1; input.lengths.len()];
        let squeezed = self.squeeze.forward(&mean, pass)?.relu()?;
        let squeezed = self.norm.forward(&squeezed, &every, pass)?;
        let scale = candle_nn::ops::sigmoid(&self.excite.forward(&squeezed, pass)?)?;
        input.hidden.broadcast_mul(&scale)
    }
}

/// A block: within, channel groups that each see the group before.
#[derive(Debug)]
struct Block {
    enter: Pointwise,
    convs: Vec<(Conv, BatchNorm)>,
    leave: Pointwise,
    excitation: SqueezeExcitation,
    width: usize,
}

impl Block {
    fn new(dim: usize, dilation: usize, vb: &VarBuilder) -> Result<Self> {
        let width = dim / GROUPS;
        Ok(Self {
            enter: Pointwise::new(dim, "conv1", "bn1", vb)?,
            convs: (0..GROUPS - 1)
                .map(|i| {
                    Ok((
                        Conv::new(width, width, BLOCK_KERNEL, dilation, &vb.pp("convs").pp(i))?,
                        BatchNorm::new(width, &vb.pp("bns").pp(i))?,
                    ))
                })
                .collect::<Result<_>>()?,
            leave: Pointwise::new(dim, "conv3", "bn3", vb)?,
            excitation: SqueezeExcitation::new(dim, vb)?,
            width,
        })
    }

    fn forward(&self, input: &Sequence, pass: &Pass) -> Result<Tensor> {
        let lengths = input.lengths.as_slice();
        let x = self.enter.forward(&input.hidden, lengths, pass)?;
        let group = |i: usize| x.narrow(2, i * self.width, self.width)?.contiguous();
        let mut outputs: Vec<Tensor> = Vec::with_capacity(GROUPS);
        for (i, (conv, norm)) in self.convs.iter().enumerate() {
            let mut x = group(i)?;
            if let Some(before) = outputs.last() {
                x = (x + before)?;
            }
            let x = conv.forward(&input.with_hidden(x), pass)?.relu()?;
            outputs.push(norm.forward(&x, lengths, pass)?);
        }
        // The last group passes untouched.
        outputs.push(group(GROUPS - 1)?);
        let x = self.leave.forward(&Tensor::cat(&outputs, D::Minus1)?, lengths, pass)?;
        self.excitation.forward(&input.with_hidden(x), pass)? + &input.hidden
    }
}

/// The frame encoder.
#[derive(Debug)]
pub struct EcapaTdnn {
    conv: Conv,
    bn: BatchNorm,
    blocks: Vec<Block>,
    layer4: Linear,
}

impl EcapaTdnn {
    /// An encoder of frames of `inputs` numbers, `dim` channels wide inside (512 as published,
    /// a multiple of 8), that gives `outputs` (1536 as published); on the tensors `conv`, `bn`,
    /// `layer1` to `layer4`.
    ///
    /// # Errors
    /// If `dim` is no multiple of 8, or a tensor is missing or has another shape.
    pub fn new(inputs: usize, dim: usize, outputs: usize, vb: &VarBuilder) -> Result<Self> {
        if dim == 0 || !dim.is_multiple_of(GROUPS) {
            candle_core::bail!("ECAPA-TDNN needs a multiple of {GROUPS} channels, not {dim}");
        }
        Ok(Self {
            conv: Conv::new(inputs, dim, FIRST_KERNEL, 1, &vb.pp("conv"))?,
            bn: BatchNorm::new(dim, &vb.pp("bn"))?,
            blocks: DILATIONS
                .into_iter()
                .enumerate()
                .map(|(i, dilation)| Block::new(dim, dilation, &vb.pp(format!("layer{}", i + 1))))
                .collect::<Result<_>>()?,
            layer4: Linear::pointwise(DILATIONS.len() * dim, outputs, &vb.pp("layer4"))?,
        })
    }

    /// Encodes `(batch, frames, inputs)` to `(batch, frames, outputs)`.
    ///
    /// Valid frames do not see padding, unless the pass has padded norms: then convolutions
    /// and means over time see it, as in the reference.
    ///
    /// # Errors
    /// If shapes disagree.
    pub fn forward(&self, input: &Sequence, pass: &Pass) -> Result<Sequence> {
        let x = self.conv.forward(input, pass)?.relu()?;
        let x = self.bn.forward(&x, &input.lengths, pass)?;
        let mut outputs: Vec<Tensor> = Vec::with_capacity(self.blocks.len());
        let mut sum = x;
        for block in &self.blocks {
            let y = block.forward(&input.with_hidden(sum.clone()), pass)?;
            sum = (sum + &y)?;
            outputs.push(y);
        }
        let y = self.layer4.forward(&Tensor::cat(&outputs, D::Minus1)?, pass)?.relu()?;
        Ok(input.with_hidden(y))
    }
}
