//! Transformer stages: the same class at every resolution.

use super::adaptation::{Bottleneck, LoraTarget, LowRank};
use super::adapter::{LanguageAdapter, adapt};
use super::after_block::AfterBlock;
use super::config::EncoderConfig;
use super::conv_stack::EPS;
use super::pass::Pass;
use super::sequence::Sequence;
use super::wavlm::{Gate, RelativeBias};
use asr_kernels::front_end::FrontEndNorm;
use asr_kernels::linear::{self, Activation};
use asr_kernels::recompute::recomputed;
use asr_kernels::{PreparedWeight, attention, gelu, norm, position_conv};
use candle_core::{Device, Result, Tensor};
use candle_nn::{Init, VarBuilder};
use std::sync::{Arc, OnceLock};

/// Affine map.
#[derive(Debug)]
pub(super) struct Linear {
    weight: Tensor,
    bias: Tensor,
    prepared: PreparedWeight,
    low_rank: Option<LowRank>,
}

impl Linear {
    /// Weights from N(0, 0.02), bias 0: how HuBERT starts its Transformer.
    pub(super) fn new(inputs: usize, outputs: usize, vb: &VarBuilder) -> Result<Self> {
        let weight =
            vb.get_with_hints((outputs, inputs), "weight", Init::Randn { mean: 0.0, stdev: 0.02 })?;
        let bias = vb.get_with_hints(outputs, "bias", Init::Const(0.0))?;
        Ok(Self { weight, bias, prepared: PreparedWeight::default(), low_rank: None })
    }

    /// Weights and bias uniform in ±1/sqrt(inputs): PyTorch's default.
    pub(super) fn uniform(inputs: usize, outputs: usize, vb: &VarBuilder) -> Result<Self> {
        let bound = (inputs as f64).sqrt().recip();
        let start = Init::Uniform { lo: -bound, up: bound };
        let weight = vb.get_with_hints((outputs, inputs), "weight", start)?;
        let bias = vb.get_with_hints(outputs, "bias", start)?;
        Ok(Self { weight, bias, prepared: PreparedWeight::default(), low_rank: None })
    }

    /// As [`Linear::uniform`], stored as a convolution of one tap.
    pub(super) fn pointwise(inputs: usize, outputs: usize, vb: &VarBuilder) -> Result<Self> {
        let bound = (inputs as f64).sqrt().recip();
        let start = Init::Uniform { lo: -bound, up: bound };
        let weight = vb.get_with_hints((outputs, inputs, 1), "weight", start)?.squeeze(2)?;
        let bias = vb.get_with_hints(outputs, "bias", start)?;
        Ok(Self { weight, bias, prepared: PreparedWeight::default(), low_rank: None })
    }

    /// Weights and bias 0: a module that changes nothing until it has learned.
    pub(super) fn zero(inputs: usize, outputs: usize, vb: &VarBuilder) -> Result<Self> {
        let weight = vb.get_with_hints((outputs, inputs), "weight", Init::Const(0.0))?;
        let bias = vb.get_with_hints(outputs, "bias", Init::Const(0.0))?;
        Ok(Self { weight, bias, prepared: PreparedWeight::default(), low_rank: None })
    }

    /// As [`Linear::new`], with the low-rank update of `target` where the encoder has one.
    fn adapted(
        config: &EncoderConfig,
        target: LoraTarget,
        (inputs, outputs): (usize, usize),
        vb: &VarBuilder,
    ) -> Result<Self> {
        let adaptation = config.variant.adaptation;
        let low_rank = LowRank::new(adaptation, target, (inputs, outputs), vb)?;
        Ok(Self { low_rank, ..Self::new(inputs, outputs, vb)? })
    }

    /// The map onto `n` of the outputs, from the `first` on.
    pub(super) fn rows(&self, first: usize, n: usize) -> Result<Self> {
        Ok(Self {
            weight: self.weight.narrow(0, first, n)?,
            bias: self.bias.narrow(0, first, n)?,
            prepared: PreparedWeight::default(),
            low_rank: None,
        })
    }

    pub(super) fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        self.activated(x, Activation::Identity, pass)
    }

    /// Where its weights lie.
    pub(super) fn device(&self) -> &Device {
        self.weight.device()
    }

    /// Followed by GELU.
    pub(super) fn forward_gelu(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        self.activated(x, Activation::Gelu, pass)
    }

    fn activated(&self, x: &Tensor, activation: Activation, pass: &Pass) -> Result<Tensor> {
        let (weight, bias, prepared) = (&self.weight, &self.bias, Some(&self.prepared));
        let map = |activation| {
            linear::activated_linear(x, weight, bias, prepared, activation, pass.precision())
        };
        let Some(low_rank) = &self.low_rank else { return map(activation) };
        let y = low_rank.add(&map(Activation::Identity)?, x, pass)?;
        match activation {
            Activation::Identity => Ok(y),
            Activation::Gelu => gelu::gelu(&y),
        }
    }
}

/// Layer norm over the last dimension.
#[derive(Debug)]
pub(super) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    pub(super) fn new(dim: usize, vb: &VarBuilder) -> Result<Self> {
        Self::with_eps(dim, None, vb)
    }

    /// With another epsilon than [`EPS`].
    pub(super) fn with_eps(dim: usize, eps: Option<f64>, vb: &VarBuilder) -> Result<Self> {
        Ok(Self {
            weight: vb.get_with_hints(dim, "weight", Init::Const(1.0))?,
            bias: vb.get_with_hints(dim, "bias", Init::Const(0.0))?,
            eps: eps.unwrap_or(EPS),
        })
    }

    pub(super) fn for_inference(&self) -> FrontEndNorm<'_> {
        FrontEndNorm::Layer(&self.weight, &self.bias, self.eps)
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        norm::layer_norm(x, &self.weight, &self.bias, self.eps)
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
    /// Their product, where they are not trained.
    weight: OnceLock<Tensor>,
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
            weight: OnceLock::new(),
        })
    }

    fn weight(&self) -> Result<Tensor> {
        if let Some(weight) = self.weight.get() {
            return Ok(weight.clone());
        }
        let norm = self.weight_v.sqr()?.sum_keepdim((0, 1))?.sqrt()?;
        let weight = self.weight_v.broadcast_mul(&(&self.weight_g / norm)?)?;
        if weight.track_op() {
            return Ok(weight);
        }
        Ok(self.weight.get_or_init(|| weight).clone())
    }

    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let weight = self.weight()?;
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
    gate: Option<Gate>,
    self_attn_layer_norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    final_layer_norm: LayerNorm,
    after_attention: Option<Bottleneck>,
    after_feed_forward: Option<Bottleneck>,
    heads: usize,
    dropout: f32,
    attention_dropout: f32,
    activation_dropout: f32,
}

/// What the layers of a stage share besides their frames.
struct Shared<'a> {
    pass: &'a Pass,
    lengths: &'a [usize],
    /// Position bias by offset, `(heads, 2 frames - 1)`, where the encoder has one.
    strip: Option<Tensor>,
    adapters: &'a [&'a LanguageAdapter],
}

impl Layer {
    fn new(config: &EncoderConfig, vb: &VarBuilder) -> Result<Self> {
        let dim = config.embed_dim;
        let eps = config.variant.layer_norm_eps;
        let attention = vb.pp("self_attn");
        let adaptation = config.variant.adaptation;
        let map = |target, widths, vb: &VarBuilder| Linear::adapted(config, target, widths, vb);
        Ok(Self {
            q_proj: map(LoraTarget::Q, (dim, dim), &attention.pp("q_proj"))?,
            k_proj: map(LoraTarget::K, (dim, dim), &attention.pp("k_proj"))?,
            v_proj: map(LoraTarget::V, (dim, dim), &attention.pp("v_proj"))?,
            out_proj: map(LoraTarget::O, (dim, dim), &attention.pp("out_proj"))?,
            gate: match config.variant.relative_positions {
                Some(_) => Some(Gate::new(dim, config.heads, &attention)?),
                None => None,
            },
            self_attn_layer_norm: LayerNorm::with_eps(dim, eps, &vb.pp("self_attn_layer_norm"))?,
            fc1: map(LoraTarget::Fc1, (dim, config.ffn_dim), &vb.pp("fc1"))?,
            fc2: map(LoraTarget::Fc2, (config.ffn_dim, dim), &vb.pp("fc2"))?,
            after_attention: Bottleneck::new(adaptation, dim, &vb.pp("adapter1"))?,
            after_feed_forward: Bottleneck::new(adaptation, dim, &vb.pp("adapter2"))?,
            final_layer_norm: LayerNorm::with_eps(dim, eps, &vb.pp("final_layer_norm"))?,
            heads: config.heads,
            dropout: config.dropout,
            attention_dropout: config.attention_dropout,
            activation_dropout: config.activation_dropout,
        })
    }

    fn attend(&self, x: &Tensor, shared: &Shared) -> Result<Tensor> {
        let pass = shared.pass;
        let (q, k, v) = (
            self.q_proj.forward(x, pass)?,
            self.k_proj.forward(x, pass)?,
            self.v_proj.forward(x, pass)?,
        );
        let how = pass.attend(self.heads, shared.lengths, self.attention_dropout)?;
        let attended = match (&self.gate, &shared.strip) {
            (Some(gate), Some(strip)) => {
                let gate = gate.forward(x, pass)?;
                attention::gated_attention((&q, &k, &v), (strip, &gate), &how)?
            }
            _ => attention::attention(&q, &k, &v, &how)?,
        };
        let y = pass.dropout(&self.out_proj.forward(&attended, pass)?, self.dropout)?;
        adapted(self.after_attention.as_ref(), y, pass)
    }

    fn feed_forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let hidden = self.fc1.forward_gelu(x, pass)?;
        let hidden = pass.dropout(&hidden, self.activation_dropout)?;
        let y = pass.dropout(&self.fc2.forward(&hidden, pass)?, self.dropout)?;
        adapted(self.after_feed_forward.as_ref(), y, pass)
    }

    fn forward(&self, x: &Tensor, norm_first: bool, shared: &Shared) -> Result<Tensor> {
        if norm_first {
            let x = (x + self.attend(&self.self_attn_layer_norm.forward(x)?, shared)?)?;
            &x + self.feed_forward(&self.final_layer_norm.forward(&x)?, shared.pass)?
        } else {
            let x = self.self_attn_layer_norm.forward(&(x + self.attend(x, shared)?)?)?;
            self.final_layer_norm.forward(&(&x + self.feed_forward(&x, shared.pass)?)?)
        }
    }
}

/// The output of a layer that is computed again for the backward pass.
fn recomputed_layer(
    layer: &Arc<Layer>,
    x: &Tensor,
    norm_first: bool,
    shared: &Shared,
) -> Result<Tensor> {
    let (layer, lengths) = (Arc::clone(layer), shared.lengths.to_vec());
    let (precision, padding) = (shared.pass.precision(), shared.pass.padding());
    let seed = shared.pass.seed_of_part();
    recomputed(x, move |x| {
        let pass = Pass::training(precision, seed).with_padding(padding);
        let shared = Shared { pass: &pass, lengths: &lengths, strip: None, adapters: &[] };
        layer.forward(x, norm_first, &shared)
    })
}

/// `y` after the adapter behind it, if there is one.
fn adapted(adapter: Option<&Bottleneck>, y: Tensor, pass: &Pass) -> Result<Tensor> {
    match adapter {
        Some(adapter) => adapter.forward(&y, pass),
        None => Ok(y),
    }
}

/// What a forward pass takes and gives besides the frames.
#[derive(Debug, Default)]
pub(super) struct Trace<'a> {
    /// The adapter of each clip; none for encoders without.
    pub(super) adapters: &'a [&'a LanguageAdapter],
    /// States of every stage that has run, if they are wanted.
    pub(super) stages: Option<Vec<StageStates>>,
    /// What happens after each block, if anything.
    pub(super) after: Option<&'a mut dyn AfterBlock>,
    /// Blocks that have run.
    pub(super) blocks: usize,
}

impl Trace<'_> {
    /// Takes the frames of the next block and returns those that go on.
    fn after_block(&mut self, x: Tensor, lengths: &[usize], pass: &Pass) -> Result<Tensor> {
        let block = self.blocks;
        self.blocks += 1;
        let Some(after) = &mut self.after else { return Ok(x) };
        let frames = Sequence { hidden: x, lengths: lengths.to_vec() };
        Ok(after.block(block, &frames, pass)?.unwrap_or(frames.hidden))
    }
}

/// Hidden frames inside one stage, as computed: padding is not cut.
#[derive(Debug, Clone)]
pub struct StageStates {
    /// Name of the stage in published checkpoints, such as `encoder` or `decoders.0`.
    pub stage: String,
    /// Input of the first layer, then the output of each: `(batch, frames, dim)`.
    pub layers: Vec<Tensor>,
    /// Output of the stage, after the final norm of encoders that normalise first.
    pub output: Sequence,
}

/// One stage of the tree; the first one also learns positions.
#[derive(Debug)]
pub(super) struct Stage {
    name: String,
    pos_conv: Option<PositionConv>,
    relative_bias: Option<RelativeBias>,
    layers: Vec<Arc<Layer>>,
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
        let relative_bias = match config.variant.relative_positions {
            Some(positions) => {
                let vb = vb.pp("layers.0.self_attn.relative_attention_bias");
                Some(RelativeBias::new(positions, config.heads, &vb)?)
            }
            None => None,
        };
        let eps = config.variant.layer_norm_eps;
        Ok(Self {
            name: vb.prefix(),
            pos_conv,
            relative_bias,
            layers: (0..layers)
                .map(|i| Layer::new(config, &vb.pp("layers").pp(i)).map(Arc::new))
                .collect::<Result<_>>()?,
            layer_norm: LayerNorm::with_eps(config.embed_dim, eps, &vb.pp("layer_norm"))?,
            norm_first: config.layer_norm_first,
            dropout: config.dropout,
            layer_drop: config.layer_drop,
        })
    }

    pub(super) fn forward(
        &self,
        input: &Sequence,
        pass: &Pass,
        trace: &mut Trace,
    ) -> Result<Sequence> {
        let mut x = input.zero_padding()?.hidden;
        if let Some(pos_conv) = &self.pos_conv {
            x = (&x + pos_conv.forward(&x, pass)?)?;
        }
        if !self.norm_first {
            x = self.layer_norm.forward(&x)?;
        }
        x = pass.dropout(&x, self.dropout)?;
        let strip = match &self.relative_bias {
            Some(bias) => Some(bias.strip(input.frames()?)?),
            None => None,
        };
        let shared = Shared { pass, lengths: &input.lengths, strip, adapters: trace.adapters };
        let mut states = trace.stages.is_some().then(|| vec![x.clone()]);
        for (i, layer) in self.layers.iter().enumerate() {
            if !pass.chance(self.layer_drop) {
                x = if pass.recomputes() && shared.strip.is_none() && shared.adapters.is_empty() {
                    recomputed_layer(layer, &x, self.norm_first, &shared)?
                } else {
                    layer.forward(&x, self.norm_first, &shared)?
                };
                x = adapt(shared.adapters, i, x, pass)?;
            }
            x = trace.after_block(x, &input.lengths, pass)?;
            if let Some(states) = &mut states {
                states.push(x.clone());
            }
        }
        if self.norm_first {
            x = self.layer_norm.forward(&x)?;
        }
        let output = input.with_hidden(x);
        if let (Some(stages), Some(layers)) = (&mut trace.stages, states) {
            stages.push(StageStates { stage: self.name.clone(), layers, output: output.clone() });
        }
        Ok(output)
    }
}
