//! The convolutional front end: input steps in, frames out.

use super::config::{ConvNorm, EncoderConfig};
use super::pass::Pass;
use super::sequence::Sequence;
use super::transformer::LayerNorm;
use asr_kernels::front_end::{self, FrontEndLayer, FrontEndNorm};
use asr_kernels::{PreparedWeight, conv, gelu, norm};
use candle_core::{Result, Tensor};
use candle_nn::{Init, VarBuilder};

/// Epsilon of every norm in HuBERT.
pub(super) const EPS: f64 = 1e-5;

/// Stack of unpadded convolutions, each followed by its norm and GELU.
#[derive(Debug)]
pub(super) struct ConvStack {
    layers: Vec<Layer>,
    receptive_field: usize,
    config: EncoderConfig,
}

#[derive(Debug)]
struct Layer {
    weight: Tensor,
    bias: Option<Tensor>,
    stride: usize,
    norm: Norm,
    prepared: PreparedWeight,
}

#[derive(Debug)]
enum Norm {
    None,
    /// One group per channel, statistics over time.
    Group {
        weight: Tensor,
        bias: Tensor,
    },
    Layer(LayerNorm),
}

impl Layer {
    fn for_inference(&self) -> FrontEndLayer<'_> {
        FrontEndLayer {
            weight: &self.weight,
            bias: self.bias.as_ref(),
            stride: self.stride,
            norm: match &self.norm {
                Norm::None => FrontEndNorm::None,
                Norm::Group { weight, bias } => FrontEndNorm::Group(weight, bias),
                Norm::Layer(norm) => norm.for_inference(),
            },
            prepared: &self.prepared,
        }
    }
}

impl ConvStack {
    pub(super) fn new(config: &EncoderConfig, vb: &VarBuilder) -> Result<Self> {
        let mut layers = Vec::with_capacity(config.conv_layers.len());
        let mut inputs = config.input_channels;
        for (i, layer) in config.conv_layers.iter().enumerate() {
            let vb = vb.pp("conv_layers").pp(i);
            // Kaiming normal, as fairseq starts its convolutions.
            let deviation = (2.0 / (inputs * layer.kernel) as f64).sqrt();
            let weight = vb.get_with_hints(
                (layer.dim, inputs, layer.kernel),
                "0.weight",
                Init::Randn { mean: 0.0, stdev: deviation },
            )?;
            let bias = if config.variant.conv_bias {
                Some(vb.get_with_hints(layer.dim, "0.bias", Init::Const(0.0))?)
            } else {
                None
            };
            let norm = match config.conv_norm {
                ConvNorm::EveryLayer => Norm::Layer(LayerNorm::new(layer.dim, &vb.pp("2.1"))?),
                ConvNorm::FirstGroup if i == 0 => Norm::Group {
                    weight: vb.get_with_hints(layer.dim, "2.weight", Init::Const(1.0))?,
                    bias: vb.get_with_hints(layer.dim, "2.bias", Init::Const(0.0))?,
                },
                ConvNorm::FirstGroup => Norm::None,
            };
            let (stride, prepared) = (layer.stride, PreparedWeight::default());
            layers.push(Layer { weight, bias, stride, norm, prepared });
            inputs = layer.dim;
        }
        Ok(Self { layers, receptive_field: config.receptive_field(), config: config.clone() })
    }

    /// `input.hidden` is `(batch, steps, input_channels)`. A clip shorter than the receptive
    /// field is taken as if zeros followed it, so that every clip has at least one frame.
    pub(super) fn forward(&self, input: &Sequence, pass: &Pass) -> Result<Sequence> {
        let steps = input.frames()?;
        let missing = self.receptive_field.saturating_sub(steps);
        let x = match self.layers.first() {
            Some(layer) => input.hidden.to_device(layer.weight.device())?,
            None => input.hidden.clone(),
        };
        let mut x = x.pad_with_zeros(1, 0, missing)?;
        let mut lengths: Vec<usize> =
            input.lengths.iter().map(|&n| n.max(self.receptive_field)).collect();
        let layers: Vec<FrontEndLayer<'_>> = self.layers.iter().map(Layer::for_inference).collect();
        if front_end::applies(&x, &layers) {
            let valid = pass.norm_lengths(&lengths);
            let hidden = front_end::front_end(&x, valid, &layers, EPS, pass.precision())?;
            let lengths = lengths.iter().map(|&n| self.config.frames(n)).collect();
            let shape = (steps + missing, hidden.dim(1)?);
            let lengths = pass.valid_frames(lengths, &input.lengths, shape);
            return Ok(Sequence { hidden, lengths });
        }
        for (layer, shape) in self.layers.iter().zip(&self.config.conv_layers) {
            for n in &mut lengths {
                *n = (*n - shape.kernel) / shape.stride + 1;
            }
            x = conv::conv1d(&x, &layer.weight, layer.stride, 0, pass.precision())?;
            if let Some(bias) = &layer.bias {
                x = x.broadcast_add(bias)?;
            }
            x = match &layer.norm {
                Norm::None => x,
                Norm::Layer(norm) => norm.forward(&x)?,
                Norm::Group { weight, bias } => {
                    let groups = shape.dim;
                    norm::group_norm(&x, weight, bias, groups, EPS, pass.norm_lengths(&lengths))?
                }
            };
            x = gelu::gelu(&x)?;
        }
        let shape = (steps + missing, x.dim(1)?);
        let lengths = pass.valid_frames(lengths, &input.lengths, shape);
        Ok(Sequence { hidden: x, lengths })
    }
}
