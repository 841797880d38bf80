//! From frames to one vector per clip.

use super::batch_norm::BatchNorm;
use super::pass::Pass;
use super::sequence::Sequence;
use super::transformer::Linear;
use candle_core::{D, Result, Tensor};
use candle_nn::VarBuilder;

/// Smallest variance; a root has no gradient at 0.
const MIN_VARIANCE: f64 = 1e-4;
/// Largest variance of the pooled frames, as in the reference.
const MAX_VARIANCE: f64 = 1e4;
/// Added to the logits of padded frames: their weight is exactly 0.
const NEVER: f32 = -1e30;

/// 1 on valid frames and 0 on padding: `(batch, frames, 1)`.
pub(super) fn mask(input: &Sequence) -> Result<Tensor> {
    let frames = input.frames()?;
    let values: Vec<f32> = input
        .lengths
        .iter()
        .flat_map(|&n| (0..frames).map(move |t| f32::from(u8::from(t < n))))
        .collect();
    Tensor::from_vec(values, (input.lengths.len(), frames, 1), input.hidden.device())
}

/// Mean over the valid frames of each clip: `(batch, 1, dim)`.
pub(super) fn mean(input: &Sequence) -> Result<Tensor> {
    let clean = input.zero_padding()?.hidden;
    let shares: Vec<f32> = input.lengths.iter().map(|&n| 1.0 / n.max(1) as f32).collect();
    let shares = Tensor::from_vec(shares, (input.lengths.len(), 1, 1), clean.device())?;
    clean.sum_keepdim(1)?.broadcast_mul(&shares)
}

/// Channel-attentive statistics pooling (Desplanques et al. 2020, ECAPA-TDNN, section 3.1).
///
/// Each channel's frames are weighted by an attention that sees the frame and the mean and
/// deviation of the whole clip; weighted mean and deviation are the result, twice as many
/// numbers as channels.
#[derive(Debug)]
pub struct AttentivePooling {
    attention_in: Linear,
    norm: BatchNorm,
    attention_out: Linear,
    dim: usize,
}

impl AttentivePooling {
    /// Pooling of `dim` channels with an attention `bottleneck` wide, on the tensors
    /// `attention.{0,2,3}`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(dim: usize, bottleneck: usize, vb: &VarBuilder) -> Result<Self> {
        let vb = vb.pp("attention");
        Ok(Self {
            attention_in: Linear::pointwise(3 * dim, bottleneck, &vb.pp(0))?,
            norm: BatchNorm::new(bottleneck, &vb.pp(2))?,
            attention_out: Linear::pointwise(bottleneck, dim, &vb.pp(3))?,
            dim,
        })
    }

    /// Pools `(batch, frames, dim)` to `(batch, 2 dim)`: means, then deviations.
    ///
    /// # Errors
    /// If shapes disagree.
    pub fn forward(&self, input: &Sequence, pass: &Pass) -> Result<Tensor> {
        let (batch, frames, dim) = input.hidden.dims3()?;
        if dim != self.dim {
            candle_core::bail!("pooling of {} channels was given {dim}", self.dim);
        }
        let mask = mask(input)?;
        let x = &input.zero_padding()?.hidden;
        let mean = mean(input)?;
        let squares = input.with_hidden(x.broadcast_sub(&mean)?.sqr()?);
        let deviation = self::mean(&squares)?.maximum(MIN_VARIANCE)?.sqrt()?;
        let context = Tensor::cat(&[mean, deviation], D::Minus1)?;
        let context = context.broadcast_as((batch, frames, 2 * dim))?;
        let hidden = Tensor::cat(&[x, &context], D::Minus1)?;
        let hidden = self.attention_in.forward(&hidden, pass)?.relu()?;
        let hidden = self.norm.forward(&hidden, &input.lengths, pass)?;
        let logits = self.attention_out.forward(&hidden, pass)?;
        let logits = logits.broadcast_add(&mask.affine(-f64::from(NEVER), f64::from(NEVER))?)?;
        let highest = logits.max_keepdim(1)?.detach();
        let weights = logits.broadcast_sub(&highest)?.exp()?;
        let weights = weights.broadcast_div(&weights.sum_keepdim(1)?)?;
        let weighted = (&weights * x)?;
        let means = weighted.sum(1)?;
        let squares = (weighted * x)?.sum(1)?;
        let variances = (squares - means.sqr()?)?.maximum(MIN_VARIANCE)?.minimum(MAX_VARIANCE)?;
        Tensor::cat(&[means, variances.sqrt()?], D::Minus1)
    }
}

/// Batch norm and an affine map: pooled statistics to an embedding (ESPnet `rawnet3` projector).
#[derive(Debug)]
pub struct Projector {
    bn: BatchNorm,
    fc: Linear,
}

impl Projector {
    /// A map from `inputs` to `outputs` numbers, on the tensors `bn` and `fc`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(inputs: usize, outputs: usize, vb: &VarBuilder) -> Result<Self> {
        Ok(Self {
            bn: BatchNorm::new(inputs, &vb.pp("bn"))?,
            fc: Linear::uniform(inputs, outputs, &vb.pp("fc"))?,
        })
    }

    /// Maps `(batch, inputs)` to `(batch, outputs)`; the result is not normalised.
    ///
    /// # Errors
    /// If shapes disagree.
    pub fn forward(&self, pooled: &Tensor, pass: &Pass) -> Result<Tensor> {
        let every = vec![1; pooled.dim(0)?];
        let normed = self.bn.forward(&pooled.unsqueeze(1)?, &every, pass)?.squeeze(1)?;
        self.fc.forward(&normed, pass)
    }
}
