//! Attention and feed-forward maps of the head's layers, with the tensor names of ESPnet.

use super::TransformerHeadConfig;
use super::subsampling::wave;
use crate::model::pass::Pass;
use crate::model::transformer::Linear;
use asr_kernels::attention::attention;
use candle_core::{D, Device, Result, Tensor};
use candle_nn::{Init, VarBuilder};

/// Attention over the frames of a clip.
#[derive(Debug)]
pub(super) struct SelfAttention {
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    relative: Option<Relative>,
    heads: usize,
    dropout: f32,
}

/// What relative positions add to scores (Dai et al. 2019, section 3.3).
#[derive(Debug)]
struct Relative {
    /// `linear_pos`: of sines of the distance, without bias.
    map: Tensor,
    /// Added to queries that meet keys, `(heads, width)`.
    content: Tensor,
    /// Added to queries that meet positions, `(heads, width)`.
    position: Tensor,
}

impl SelfAttention {
    pub(super) fn new(config: &TransformerHeadConfig, vb: &VarBuilder) -> Result<Self> {
        let dim = config.dim;
        let map = |name| Linear::uniform(dim, dim, &vb.pp(name));
        let relative = config.layer.has_relative_positions();
        Ok(Self {
            q: map("linear_q")?,
            k: map("linear_k")?,
            v: map("linear_v")?,
            out: map("linear_out")?,
            relative: relative.then(|| Relative::new(dim, config.heads, vb)).transpose()?,
            heads: config.heads,
            dropout: config.dropout,
        })
    }

    pub(super) fn forward(&self, x: &Tensor, lengths: &[usize], pass: &Pass) -> Result<Tensor> {
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|map| map.forward(x, pass));
        let (q, k, v) = (q?, k?, v?);
        let attended = match &self.relative {
            Some(relative) => self.relative(relative, (&q, &k, &v), lengths, pass)?,
            None => attention(&q, &k, &v, &pass.attend(self.heads, lengths, self.dropout)?)?,
        };
        pass.dropout(&self.out.forward(&attended, pass)?, self.dropout)
    }

    /// Holds the scores of all pairs of frames: a head has few.
    fn relative(
        &self,
        relative: &Relative,
        (q, k, v): (&Tensor, &Tensor, &Tensor),
        lengths: &[usize],
        pass: &Pass,
    ) -> Result<Tensor> {
        let (batch, frames, dim) = q.dims3()?;
        let shape = (batch, frames, self.heads, dim / self.heads);
        let by_head = |x: &Tensor| x.reshape(shape)?.transpose(1, 2)?.contiguous();
        let query = |bias: &Tensor| by_head(&q.reshape(shape)?.broadcast_add(bias)?);
        let content = query(&relative.content)?.matmul(&by_head(k)?.t()?.contiguous()?)?;
        let position = relative.scores(&query(&relative.position)?, dim)?;
        let scale = ((dim / self.heads) as f64).sqrt().recip();
        let masked =
            |&n: &usize| (0..frames).map(move |j| if j < n { 0.0 } else { f32::NEG_INFINITY });
        let mask: Vec<f32> = lengths.iter().flat_map(masked).collect();
        let mask = Tensor::from_vec(mask, (batch, 1, 1, frames), q.device())?;
        let scores = ((content + position)? * scale)?.broadcast_add(&mask)?;
        let weights = candle_nn::ops::softmax(&scores, D::Minus1)?;
        let weights = pass.dropout(&weights, self.dropout)?;
        weights.matmul(&by_head(v)?)?.transpose(1, 2)?.reshape((batch, frames, dim))
    }
}

impl Relative {
    fn new(dim: usize, heads: usize, vb: &VarBuilder) -> Result<Self> {
        let width = dim / heads;
        let bound = (dim as f64).sqrt().recip();
        let map = Init::Uniform { lo: -bound, up: bound };
        // Xavier.
        let bound = (6.0 / (heads + width) as f64).sqrt();
        let bias = Init::Uniform { lo: -bound, up: bound };
        Ok(Self {
            map: vb.get_with_hints((dim, dim), "linear_pos.weight", map)?,
            content: vb.get_with_hints((heads, width), "pos_bias_u", bias)?,
            position: vb.get_with_hints((heads, width), "pos_bias_v", bias)?,
        })
    }

    /// `(batch, heads, frames, frames)`: query `i` against the position of key `j`.
    fn scores(&self, queries: &Tensor, dim: usize) -> Result<Tensor> {
        let (batch, heads, frames, width) = queries.dims4()?;
        let positions = distances(frames, dim, queries.device())?.matmul(&self.map.t()?)?;
        let n = 2 * frames - 1;
        let positions = positions.reshape((n, heads, width))?.permute((1, 2, 0))?.contiguous()?;
        let by_distance = queries.broadcast_matmul(&positions.unsqueeze(0)?)?;
        // Row `i` begins at the distance `i` of its first key: with a column more, rows of one
        // value less shift each against the one before.
        let column = by_distance.narrow(3, 0, 1)?.zeros_like()?;
        let wider = Tensor::cat(&[&column, &by_distance], 3)?;
        let shifted =
            wider.reshape((batch, heads, n + 1, frames))?.narrow(2, 1, n)?.contiguous()?;
        shifted.reshape((batch, heads, frames, n))?.narrow(3, 0, frames)?.contiguous()
    }
}

/// Sines and cosines of the distances `frames - 1` down to `1 - frames`, `(2 frames - 1, dim)`.
fn distances(frames: usize, dim: usize, device: &Device) -> Result<Tensor> {
    let n = 2 * frames - 1;
    let rows = (0..n).flat_map(|row| wave(frames as f64 - 1.0 - row as f64, dim));
    Tensor::from_vec(rows.collect(), (n, dim), device)
}

/// What follows the first of two maps.
#[derive(Debug, Clone, Copy)]
pub(super) enum Activation {
    Relu,
    Swish,
}

/// Two affine maps, `w_1` and `w_2`.
#[derive(Debug)]
pub(super) struct FeedForward {
    w_1: Linear,
    w_2: Linear,
    activation: Activation,
    dropout: f32,
}

impl FeedForward {
    pub(super) fn new(
        config: &TransformerHeadConfig,
        activation: Activation,
        vb: &VarBuilder,
    ) -> Result<Self> {
        let (dim, inner) = (config.dim, config.ffn_dim);
        Ok(Self {
            w_1: Linear::uniform(dim, inner, &vb.pp("w_1"))?,
            w_2: Linear::uniform(inner, dim, &vb.pp("w_2"))?,
            activation,
            dropout: config.dropout,
        })
    }

    pub(super) fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let hidden = self.w_1.forward(x, pass)?;
        let hidden = match self.activation {
            Activation::Relu => hidden.relu()?,
            Activation::Swish => hidden.silu()?,
        };
        let y = self.w_2.forward(&pass.dropout(&hidden, self.dropout)?, pass)?;
        pass.dropout(&y, self.dropout)
    }
}
