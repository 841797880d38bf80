//! The layers of the head: Transformer (norms first), Conformer (Gulati et al. 2020, arXiv
//! 2005.08100) or E-Branchformer (Kim et al. 2022, arXiv 2210.00077), as ESPnet has them.

use super::attention::{Activation, FeedForward, SelfAttention};
use super::subsampling::positions;
use super::{HeadLayer, TransformerHeadConfig};
use crate::model::batch_norm::BatchNorm;
use crate::model::pass::Pass;
use crate::model::sequence::Sequence;
use crate::model::transformer::{LayerNorm, Linear};
use asr_kernels::depthwise::depthwise_conv;
use asr_kernels::padding::zero_padding;
use candle_core::{Result, Tensor};
use candle_nn::{Init, VarBuilder};

/// Epsilon of ESPnet's layer norms.
const NORM_EPS: f64 = 1e-12;

fn norm(dim: usize, vb: &VarBuilder) -> Result<LayerNorm> {
    LayerNorm::with_eps(dim, Some(NORM_EPS), vb)
}

/// A layer of any kind.
#[derive(Debug)]
enum Layer {
    Transformer(Box<Transformer>),
    Conformer(Box<Conformer>),
    EBranchformer(Box<EBranchformer>),
}

#[derive(Debug)]
struct Transformer {
    norm1: LayerNorm,
    attention: SelfAttention,
    norm2: LayerNorm,
    feed_forward: FeedForward,
}

impl Transformer {
    fn new(config: &TransformerHeadConfig, vb: &VarBuilder) -> Result<Self> {
        Ok(Self {
            norm1: norm(config.dim, &vb.pp("norm1"))?,
            attention: SelfAttention::new(config, &vb.pp("self_attn"))?,
            norm2: norm(config.dim, &vb.pp("norm2"))?,
            feed_forward: FeedForward::new(config, Activation::Relu, &vb.pp("feed_forward"))?,
        })
    }

    fn forward(&self, x: &Tensor, lengths: &[usize], pass: &Pass) -> Result<Tensor> {
        let x = (x + self.attention.forward(&self.norm1.forward(x)?, lengths, pass)?)?;
        &x + self.feed_forward.forward(&self.norm2.forward(&x)?, pass)?
    }
}

/// A convolution over time of each channel, `kernel` frames wide, with bias.
#[derive(Debug)]
struct Depthwise {
    weight: Tensor,
    bias: Tensor,
}

impl Depthwise {
    fn new(dim: usize, kernel: usize, vb: &VarBuilder) -> Result<Self> {
        let bound = (kernel as f64).sqrt().recip();
        let start = Init::Uniform { lo: -bound, up: bound };
        Self::starting((dim, kernel), (start, start), vb)
    }

    fn starting(
        (dim, kernel): (usize, usize),
        (weight, bias): (Init, Init),
        vb: &VarBuilder,
    ) -> Result<Self> {
        Ok(Self {
            weight: vb.get_with_hints((dim, 1, kernel), "weight", weight)?,
            bias: vb.get_with_hints(dim, "bias", bias)?,
        })
    }

    /// What lies past a clip's length counts as zero.
    fn forward(&self, x: &Tensor, lengths: &[usize]) -> Result<Tensor> {
        depthwise_conv(&zero_padding(x, lengths)?, &self.weight)?.broadcast_add(&self.bias)
    }
}

/// Half a feed-forward map, attention, convolution, half a feed-forward map.
#[derive(Debug)]
struct Conformer {
    norm_macaron: LayerNorm,
    macaron: FeedForward,
    norm_attention: LayerNorm,
    attention: SelfAttention,
    norm_convolution: LayerNorm,
    convolution: Convolution,
    norm_feed_forward: LayerNorm,
    feed_forward: FeedForward,
    norm_final: LayerNorm,
    dropout: f32,
}

/// A gated map, a convolution per channel, a batch norm and a map.
#[derive(Debug)]
struct Convolution {
    /// Values, then their gates.
    inward: Linear,
    depthwise: Depthwise,
    norm: BatchNorm,
    outward: Linear,
}

impl Convolution {
    fn new(dim: usize, kernel: usize, vb: &VarBuilder) -> Result<Self> {
        Ok(Self {
            inward: Linear::pointwise(dim, 2 * dim, &vb.pp("pointwise_conv1"))?,
            depthwise: Depthwise::new(dim, kernel, &vb.pp("depthwise_conv"))?,
            norm: BatchNorm::new(dim, &vb.pp("norm"))?,
            outward: Linear::pointwise(dim, dim, &vb.pp("pointwise_conv2"))?,
        })
    }

    fn forward(&self, x: &Tensor, lengths: &[usize], pass: &Pass) -> Result<Tensor> {
        let both = self.inward.forward(x, pass)?;
        let dim = x.dim(2)?;
        let (values, gates) = (both.narrow(2, 0, dim)?, both.narrow(2, dim, dim)?);
        let gated = (values * candle_nn::ops::sigmoid(&gates.contiguous()?)?)?;
        let y = self.depthwise.forward(&gated, lengths)?;
        let y = self.norm.forward(&y, lengths, pass)?.silu()?;
        self.outward.forward(&y, pass)
    }
}

impl Conformer {
    fn new(config: &TransformerHeadConfig, kernel: usize, vb: &VarBuilder) -> Result<Self> {
        let dim = config.dim;
        let feed_forward = |name| FeedForward::new(config, Activation::Swish, &vb.pp(name));
        Ok(Self {
            norm_macaron: norm(dim, &vb.pp("norm_ff_macaron"))?,
            macaron: feed_forward("feed_forward_macaron")?,
            norm_attention: norm(dim, &vb.pp("norm_mha"))?,
            attention: SelfAttention::new(config, &vb.pp("self_attn"))?,
            norm_convolution: norm(dim, &vb.pp("norm_conv"))?,
            convolution: Convolution::new(dim, kernel, &vb.pp("conv_module"))?,
            norm_feed_forward: norm(dim, &vb.pp("norm_ff"))?,
            feed_forward: feed_forward("feed_forward")?,
            norm_final: norm(dim, &vb.pp("norm_final"))?,
            dropout: config.dropout,
        })
    }

    fn forward(&self, x: &Tensor, lengths: &[usize], pass: &Pass) -> Result<Tensor> {
        let x = (x + (self.macaron.forward(&self.norm_macaron.forward(x)?, pass)? * 0.5)?)?;
        let attended = self.norm_attention.forward(&x)?;
        let x = (&x + self.attention.forward(&attended, lengths, pass)?)?;
        let heard = self.norm_convolution.forward(&x)?;
        let heard = self.convolution.forward(&heard, lengths, pass)?;
        let x = (&x + pass.dropout(&heard, self.dropout)?)?;
        let fed = self.feed_forward.forward(&self.norm_feed_forward.forward(&x)?, pass)?;
        self.norm_final.forward(&(&x + (fed * 0.5)?)?)
    }
}

/// Attention and a gated map side by side, merged with what lies around them, and a feed-forward
/// map.
#[derive(Debug)]
struct EBranchformer {
    norm_attention: LayerNorm,
    attention: SelfAttention,
    norm_local: LayerNorm,
    local: GatedMap,
    fusion: Depthwise,
    merge: Linear,
    norm_feed_forward: LayerNorm,
    feed_forward: FeedForward,
    norm_final: LayerNorm,
    dropout: f32,
}

/// A map whose one half gates the other after a convolution per channel (Sakuma et al. 2022).
#[derive(Debug)]
struct GatedMap {
    inward: Linear,
    norm: LayerNorm,
    depthwise: Depthwise,
    outward: Linear,
    dropout: f32,
}

impl GatedMap {
    fn new(
        config: &TransformerHeadConfig,
        (inner, kernel): (usize, usize),
        vb: &VarBuilder,
    ) -> Result<Self> {
        let unit = vb.pp("csgu");
        // Nearly a gate that is open everywhere.
        let start = (Init::Randn { mean: 0.0, stdev: 1e-6 }, Init::Const(1.0));
        Ok(Self {
            inward: Linear::uniform(config.dim, inner, &vb.pp("channel_proj1.0"))?,
            norm: norm(inner / 2, &unit.pp("norm"))?,
            depthwise: Depthwise::starting((inner / 2, kernel), start, &unit.pp("conv"))?,
            outward: Linear::uniform(inner / 2, config.dim, &vb.pp("channel_proj2"))?,
            dropout: config.dropout,
        })
    }

    fn forward(&self, x: &Tensor, lengths: &[usize], pass: &Pass) -> Result<Tensor> {
        let both = self.inward.forward_gelu(x, pass)?;
        let half = both.dim(2)? / 2;
        let gates = self.norm.forward(&both.narrow(2, half, half)?.contiguous()?)?;
        let gated = (both.narrow(2, 0, half)? * self.depthwise.forward(&gates, lengths)?)?;
        self.outward.forward(&pass.dropout(&gated, self.dropout)?, pass)
    }
}

impl EBranchformer {
    fn new(
        config: &TransformerHeadConfig,
        (inner, kernel, merge_kernel): (usize, usize, usize),
        vb: &VarBuilder,
    ) -> Result<Self> {
        let dim = config.dim;
        Ok(Self {
            norm_attention: norm(dim, &vb.pp("norm_mha"))?,
            attention: SelfAttention::new(config, &vb.pp("attn"))?,
            norm_local: norm(dim, &vb.pp("norm_mlp"))?,
            local: GatedMap::new(config, (inner, kernel), &vb.pp("cgmlp"))?,
            fusion: Depthwise::new(2 * dim, merge_kernel, &vb.pp("depthwise_conv_fusion"))?,
            merge: Linear::uniform(2 * dim, dim, &vb.pp("merge_proj"))?,
            norm_feed_forward: norm(dim, &vb.pp("norm_ff"))?,
            feed_forward: FeedForward::new(config, Activation::Swish, &vb.pp("feed_forward"))?,
            norm_final: norm(dim, &vb.pp("norm_final"))?,
            dropout: config.dropout,
        })
    }

    fn forward(&self, x: &Tensor, lengths: &[usize], pass: &Pass) -> Result<Tensor> {
        let wide = self.attention.forward(&self.norm_attention.forward(x)?, lengths, pass)?;
        let near = self.local.forward(&self.norm_local.forward(x)?, lengths, pass)?;
        let both = Tensor::cat(&[wide, pass.dropout(&near, self.dropout)?], 2)?;
        let both = (&both + self.fusion.forward(&both, lengths)?)?;
        let x = (x + pass.dropout(&self.merge.forward(&both, pass)?, self.dropout)?)?;
        let fed = self.feed_forward.forward(&self.norm_feed_forward.forward(&x)?, pass)?;
        self.norm_final.forward(&(&x + fed)?)
    }
}

impl Layer {
    fn new(config: &TransformerHeadConfig, vb: &VarBuilder) -> Result<Self> {
        Ok(match config.layer {
            HeadLayer::Transformer => Self::Transformer(Box::new(Transformer::new(config, vb)?)),
            HeadLayer::Conformer { kernel } => {
                Self::Conformer(Box::new(Conformer::new(config, kernel, vb)?))
            }
            HeadLayer::EBranchformer { mlp_dim, kernel, merge_kernel } => {
                let sizes = (mlp_dim, kernel, merge_kernel);
                Self::EBranchformer(Box::new(EBranchformer::new(config, sizes, vb)?))
            }
        })
    }

    fn forward(&self, x: &Tensor, lengths: &[usize], pass: &Pass) -> Result<Tensor> {
        match self {
            Self::Transformer(layer) => layer.forward(x, lengths, pass),
            Self::Conformer(layer) => layer.forward(x, lengths, pass),
            Self::EBranchformer(layer) => layer.forward(x, lengths, pass),
        }
    }
}

/// Positions and layers.
#[derive(Debug)]
pub(super) struct Layers {
    layers: Vec<Layer>,
    after_norm: LayerNorm,
    has_positions: bool,
    dropout: f32,
}

impl Layers {
    pub(super) fn new(config: &TransformerHeadConfig, vb: &VarBuilder) -> Result<Self> {
        let layer = |i| Layer::new(config, &vb.pp("encoders").pp(i));
        Ok(Self {
            layers: (0..config.layers).map(layer).collect::<Result<_>>()?,
            after_norm: norm(config.dim, &vb.pp("after_norm"))?,
            has_positions: !config.layer.has_relative_positions(),
            dropout: config.dropout,
        })
    }

    pub(super) fn forward(&self, input: &Sequence, pass: &Pass) -> Result<Sequence> {
        let (_, frames, dim) = input.hidden.dims3()?;
        let mut x = (&input.hidden * (dim as f64).sqrt())?;
        if self.has_positions {
            x = x.broadcast_add(&positions(frames, dim, x.device())?)?;
        }
        let mut x = pass.dropout(&x, self.dropout)?;
        for layer in &self.layers {
            x = layer.forward(&x, &input.lengths, pass)?;
        }
        Ok(input.with_hidden(self.after_norm.forward(&x)?))
    }
}
