//! Transformer stages: the same class at every resolution.

use super::config::EncoderConfig;
use super::conv_stack::EPS;
use super::pass::Pass;
use super::sequence::Sequence;
use asr_kernels::{attention, gelu, linear, norm, position_conv};
use candle_core::{Result, Tensor};
use candle_nn::{Init, VarBuilder};

/// Affine map.
#[derive(Debug)]
pub(super) struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    /// Weights from N(0, 0.02), bias 0: how HuBERT starts its Transformer.
    pub(super) fn new(inputs: usize, outputs: usize, vb: &VarBuilder) -> Result<Self> {
        let weight =
            vb.get_with_hints((outputs, inputs), "weight", Init::Randn { mean: 0.0, stdev: 0.02 })?;
        let bias = vb.get_with_hints(outputs, "bias", Init::Const(0.0))?;
        Ok(Self { weight, bias })
    }

    /// Weights and bias uniform in ±1/sqrt(inputs): PyTorch's default.
    pub(super) fn uniform(inputs: usize, outputs: usize, vb: &VarBuilder) -> Result<Self> {
        let bound = (inputs as f64).sqrt().recip();
        let start = Init::Uniform { lo: -bound, up: bound };
        let weight = vb.get_with_hints((outputs, inputs), "weight", start)?;
        let bias = vb.get_with_hints(outputs, "bias", start)?;
        Ok(Self { weight, bias })
    }

    pub(super) fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        linear::linear(x, &self.weight, &self.bias, pass.precision())
    }
}

/// Layer norm over the last dimension.
#[derive(Debug)]
pub(super) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
}

impl LayerNorm {
    pub(super) fn new(dim: usize, vb: &VarBuilder) -> Result<Self> {
        Ok(Self {
            weight: vb.get_with_hints(dim, "weight", Init::Const(1.0))?,
            bias: vb.get_with_hints(dim, "bias", Init::Const(0.0))?,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        norm::layer_norm(x, &self.weight, &self.bias, EPS)
    }
}

/// Grouped convolution with weight norm over its kernel axis, bias and GELU.
#[derive(Debug)]
struct PositionConv {
    /// `(1, 1, kernel)`
    weight_g: Tensor,
    /// `(dim, dim / groups, kernel)`
    weight_v: Tensor,
    bias: Tensor,
}

impl PositionConv {
    fn new(config: &EncoderConfig, vb: &VarBuilder) -> Result<Self> {
        let (dim, kernel) = (config.embed_dim, config.position_kernel);
        let per_group = dim / config.position_groups;
        let deviation = (4.0 / (kernel * dim) as f64).sqrt();
        // fairseq starts g at the norm of v's slices; its expectation is used here, which
        // needs no look at v.
        let norm = deviation * ((dim * per_group) as f64).sqrt();
        Ok(Self {
            weight_g: vb.get_with_hints((1, 1, kernel), "weight_g", Init::Const(norm))?,
            weight_v: vb.get_with_hints(
                (dim, per_group, kernel),
                "weight_v",
                Init::Randn { mean: 0.0, stdev: deviation },
            )?,
            bias: vb.get_with_hints(dim, "bias", Init::Const(0.0))?,
        })
    }

    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let norm = self.weight_v.sqr()?.sum_keepdim((0, 1))?.sqrt()?;
        let weight = self.weight_v.broadcast_mul(&(&self.weight_g / norm)?)?;
        let y = position_conv::position_conv(x, &weight, pass.precision())?;
        gelu::gelu(&y.broadcast_add(&self.bias)?)
    }
}

/// Attention and feed-forward block.
#[derive(Debug)]
struct Layer {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    self_attn_layer_norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    final_layer_norm: LayerNorm,
    heads: usize,
    dropout: f32,
    activation_dropout: f32,
}

impl Layer {
    fn new(config: &EncoderConfig, vb: &VarBuilder) -> Result<Self> {
        let dim = config.embed_dim;
        let attention = vb.pp("self_attn");
        Ok(Self {
            q_proj: Linear::new(dim, dim, &attention.pp("q_proj"))?,
            k_proj: Linear::new(dim, dim, &attention.pp("k_proj"))?,
            v_proj: Linear::new(dim, dim, &attention.pp("v_proj"))?,
            out_proj: Linear::new(dim, dim, &attention.pp("out_proj"))?,
            self_attn_layer_norm: LayerNorm::new(dim, &vb.pp("self_attn_layer_norm"))?,
            fc1: Linear::new(dim, config.ffn_dim, &vb.pp("fc1"))?,
            fc2: Linear::new(config.ffn_dim, dim, &vb.pp("fc2"))?,
            final_layer_norm: LayerNorm::new(dim, &vb.pp("final_layer_norm"))?,
            heads: config.heads,
            dropout: config.dropout,
            activation_dropout: config.activation_dropout,
        })
    }

    fn attend(&self, x: &Tensor, lengths: &[usize], pass: &Pass) -> Result<Tensor> {
        let (q, k, v) = (
            self.q_proj.forward(x, pass)?,
            self.k_proj.forward(x, pass)?,
            self.v_proj.forward(x, pass)?,
        );
        let attended = attention::attention(&q, &k, &v, self.heads, lengths, pass.precision())?;
        pass.dropout(&self.out_proj.forward(&attended, pass)?, self.dropout)
    }

    fn feed_forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let hidden = gelu::gelu(&self.fc1.forward(x, pass)?)?;
        let hidden = pass.dropout(&hidden, self.activation_dropout)?;
        pass.dropout(&self.fc2.forward(&hidden, pass)?, self.dropout)
    }

    fn forward(
        &self,
        x: &Tensor,
        lengths: &[usize],
        norm_first: bool,
        pass: &Pass,
    ) -> Result<Tensor> {
        if norm_first {
            let x = (x + self.attend(&self.self_attn_layer_norm.forward(x)?, lengths, pass)?)?;
            &x + self.feed_forward(&self.final_layer_norm.forward(&x)?, pass)?
        } else {
            let x = self.self_attn_layer_norm.forward(&(x + self.attend(x, lengths, pass)?)?)?;
            self.final_layer_norm.forward(&(&x + self.feed_forward(&x, pass)?)?)
        }
    }
}

/// One stage of the tree; the first one also learns positions.
#[derive(Debug)]
pub(super) struct Stage {
    pos_conv: Option<PositionConv>,
    layers: Vec<Layer>,
    layer_norm: LayerNorm,
    norm_first: bool,
    dropout: f32,
    layer_drop: f32,
}

impl Stage {
    pub(super) fn new(
        config: &EncoderConfig,
        layers: usize,
        positions: bool,
        vb: &VarBuilder,
    ) -> Result<Self> {
        let pos_conv =
            if positions { Some(PositionConv::new(config, &vb.pp("pos_conv.0"))?) } else { None };
        Ok(Self {
            pos_conv,
            layers: (0..layers)
                .map(|i| Layer::new(config, &vb.pp("layers").pp(i)))
                .collect::<Result<_>>()?,
            layer_norm: LayerNorm::new(config.embed_dim, &vb.pp("layer_norm"))?,
            norm_first: config.layer_norm_first,
            dropout: config.dropout,
            layer_drop: config.layer_drop,
        })
    }

    pub(super) fn forward(&self, input: &Sequence, pass: &Pass) -> Result<Sequence> {
        let mut x = input.zero_padding()?.hidden;
        if let Some(pos_conv) = &self.pos_conv {
            x = (&x + pos_conv.forward(&x, pass)?)?;
        }
        if !self.norm_first {
            x = self.layer_norm.forward(&x)?;
        }
        x = pass.dropout(&x, self.dropout)?;
        for layer in &self.layers {
            if !pass.chance(self.layer_drop) {
                x = layer.forward(&x, &input.lengths, self.norm_first, pass)?;
            }
        }
        if self.norm_first {
            x = self.layer_norm.forward(&x)?;
        }
        Ok(input.with_hidden(x))
    }
}
