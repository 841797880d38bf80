//! Multi-resolution HuBERT (Shi et al. 2024, arXiv 2310.02720): a tree of Transformer stages
//! that goes down in frame rate and up again.

use super::config::{EncoderConfig, UpsamplerOrder};
use super::front_end::FrontEnd;
use super::pass::{Padding, Pass};
use super::sampling::Resample;
use super::sequence::Sequence;
use super::transformer::{Stage, Trace};
use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

/// The encoder.
#[derive(Debug)]
pub struct MrHubert {
    config: EncoderConfig,
    pub(super) front_end: FrontEnd,
    encoders: Vec<Stage>,
    downsample_modules: Vec<Resample>,
    middle_encoder: Stage,
    upsample_modules: Vec<Resample>,
    decoders: Vec<Stage>,
}

/// Output of the encoder at one frame rate.
#[derive(Debug, Clone)]
pub struct Resolution {
    /// Input steps per frame, as a fraction `(steps, frames)`.
    pub stride: (usize, usize),
    /// The frames.
    pub output: Sequence,
}

impl MrHubert {
    /// Builds the encoder on the parameters of `vb`.
    ///
    /// # Errors
    /// If a parameter is missing or has another shape.
    pub fn new(config: &EncoderConfig, vb: &VarBuilder) -> Result<Self> {
        let dim = config.embed_dim;
        let ratios = &config.rate_ratios;
        let stages = &config.stage_layers;
        let levels = ratios.len();
        Ok(Self {
            front_end: FrontEnd::new(config, vb)?,
            encoders: (0..levels)
                .map(|i| Stage::new(config, stages[i], i == 0, &vb.pp("encoders").pp(i)))
                .collect::<Result<_>>()?,
            downsample_modules: (0..levels)
                .map(|i| {
                    Resample::down(
                        config.sampling,
                        ratios[i],
                        dim,
                        &vb.pp("downsample_modules").pp(i),
                    )
                })
                .collect::<Result<_>>()?,
            middle_encoder: Stage::new(
                config,
                stages[levels],
                levels == 0,
                &vb.pp("middle_encoder"),
            )?,
            upsample_modules: (0..levels)
                .map(|i| {
                    Resample::up(config.sampling, ratios[i], dim, &vb.pp("upsample_modules").pp(i))
                })
                .collect::<Result<_>>()?,
            decoders: (0..levels)
                .map(|j| {
                    Stage::new(config, stages[levels + 1 + j], false, &vb.pp("decoders").pp(j))
                })
                .collect::<Result<_>>()?,
            config: config.clone(),
        })
    }

    /// The configuration it was built from.
    #[must_use]
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// Encodes a batch.
    ///
    /// # Shapes
    /// `input.hidden`: `(batch, steps, input_channels)`, steps past a clip's length zero.
    /// Returns one output per resolution, lowest frame rate first; each clip has at least
    /// one frame.
    ///
    /// # Errors
    /// If shapes disagree.
    pub fn forward(&self, input: &Sequence, pass: &Pass) -> Result<Vec<Resolution>> {
        let frames = self.front_end.forward(input, pass)?;
        self.encode(&frames, pass, &mut Trace::default())
    }

    /// Encodes frames of the front end.
    pub(super) fn encode(
        &self,
        frames: &Sequence,
        pass: &Pass,
        trace: &mut Trace,
    ) -> Result<Vec<Resolution>> {
        let mut x = frames.clone();
        let mut stride = (self.config.input_stride(), 1);
        let mut skips: Vec<Resolution> = Vec::new();
        for ((encoder, module), [up, down]) in
            self.encoders.iter().zip(&self.downsample_modules).zip(&self.config.rate_ratios)
        {
            let output = encoder.forward(&x, pass, trace)?;
            x = module.forward(&output, pass)?;
            skips.push(Resolution { stride, output });
            stride = (stride.0 * down, stride.1 * up);
        }
        // The residual goes around the whole middle stage.
        let middle = self.middle_encoder.forward(&x, pass, trace)?;
        x = x.with_hidden((&x.hidden + &middle.hidden)?);
        let mut outputs = vec![Resolution { stride, output: x.clone() }];
        for (j, decoder) in self.decoders.iter().enumerate() {
            let Some(skip) = skips.pop() else { break };
            let module = match self.config.variant.upsampler_order {
                UpsamplerOrder::LastFirst => self.decoders.len() - 1 - j,
                UpsamplerOrder::FirstFirst => j,
            };
            x = self.upsample_modules[module].forward(&x, pass)?;
            x = decoder.forward(&x, pass, trace)?;
            x = add(&x, &skip.output, pass)?;
            outputs.push(Resolution { stride: skip.stride, output: x.clone() });
        }
        Ok(outputs)
    }
}

/// Sum over the frames both have. The lengths are the shorter ones, so that a clip does not
/// depend on its batch; the published model goes on with those of `x`, which may count a frame
/// of padding more.
fn add(x: &Sequence, skip: &Sequence, pass: &Pass) -> Result<Sequence> {
    let frames = x.frames()?.min(skip.frames()?);
    let (x, skip) = (x.cut(frames)?, skip.cut(frames)?);
    let hidden: Tensor = (&x.hidden + &skip.hidden)?;
    let mut sum = x.with_hidden(hidden);
    if pass.padding() == Padding::Unseen {
        for (n, skipped) in sum.lengths.iter_mut().zip(skip.lengths) {
            *n = skipped.min(*n);
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests;
