//! The Transformer of the head (ESPnet `TransformerEncoder`): norms first, ReLU.

use super::TransformerHeadConfig;
use super::subsampling::positions;
use crate::model::pass::Pass;
use crate::model::sequence::Sequence;
use crate::model::transformer::{LayerNorm, Linear};
use asr_kernels::attention::attention;
use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

/// Epsilon of ESPnet's layer norms.
const NORM_EPS: f64 = 1e-12;

#[derive(Debug)]
struct Layer {
    norm1: LayerNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    norm2: LayerNorm,
    w_1: Linear,
    w_2: Linear,
}

impl Layer {
    fn new(config: &TransformerHeadConfig, vb: &VarBuilder) -> Result<Self> {
        let (dim, inner) = (config.dim, config.ffn_dim);
        let (attention, feed_forward) = (vb.pp("self_attn"), vb.pp("feed_forward"));
        let map = |name| Linear::uniform(dim, dim, &attention.pp(name));
        Ok(Self {
            norm1: LayerNorm::with_eps(dim, Some(NORM_EPS), &vb.pp("norm1"))?,
            q: map("linear_q")?,
            k: map("linear_k")?,
            v: map("linear_v")?,
            out: map("linear_out")?,
            norm2: LayerNorm::with_eps(dim, Some(NORM_EPS), &vb.pp("norm2"))?,
            w_1: Linear::uniform(dim, inner, &feed_forward.pp("w_1"))?,
            w_2: Linear::uniform(inner, dim, &feed_forward.pp("w_2"))?,
        })
    }
}

/// Positions and layers.
#[derive(Debug)]
pub(super) struct Layers {
    layers: Vec<Layer>,
    after_norm: LayerNorm,
    heads: usize,
    dropout: f32,
}

impl Layers {
    pub(super) fn new(config: &TransformerHeadConfig, vb: &VarBuilder) -> Result<Self> {
        let layer = |i| Layer::new(config, &vb.pp("encoders").pp(i));
        Ok(Self {
            layers: (0..config.layers).map(layer).collect::<Result<_>>()?,
            after_norm: LayerNorm::with_eps(config.dim, Some(NORM_EPS), &vb.pp("after_norm"))?,
            heads: config.heads,
            dropout: config.dropout,
        })
    }

    pub(super) fn forward(&self, input: &Sequence, pass: &Pass) -> Result<Sequence> {
        let (_, frames, dim) = input.hidden.dims3()?;
        let scaled = (&input.hidden * (dim as f64).sqrt())?;
        let x = scaled.broadcast_add(&positions(frames, dim, scaled.device())?)?;
        let mut x = pass.dropout(&x, self.dropout)?;
        for layer in &self.layers {
            x = (&x + self.attend(layer, &x, &input.lengths, pass)?)?;
            let hidden = layer.w_1.forward(&layer.norm2.forward(&x)?, pass)?.relu()?;
            let hidden = layer.w_2.forward(&pass.dropout(&hidden, self.dropout)?, pass)?;
            x = (&x + pass.dropout(&hidden, self.dropout)?)?;
        }
        Ok(input.with_hidden(self.after_norm.forward(&x)?))
    }

    fn attend(&self, layer: &Layer, x: &Tensor, lengths: &[usize], pass: &Pass) -> Result<Tensor> {
        let x = layer.norm1.forward(x)?;
        let [q, k, v] = [&layer.q, &layer.k, &layer.v].map(|map| map.forward(&x, pass));
        let how = pass.attend(self.heads, lengths, self.dropout)?;
        let attended = attention(&q?, &k?, &v?, &how)?;
        pass.dropout(&layer.out.forward(&attended, pass)?, self.dropout)
    }
}
