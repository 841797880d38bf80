//! Multi-resolution HuBERT (Shi et al. 2024, arXiv 2310.02720): a tree of Transformer stages
//! that goes down in frame rate and up again.

use super::config::EncoderConfig;
use super::conv_stack::ConvStack;
use super::pass::Pass;
use super::sampling::Resample;
use super::sequence::Sequence;
use super::transformer::{LayerNorm, Linear, Stage};
use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

/// The encoder.
#[derive(Debug)]
pub struct MrHubert {
    config: EncoderConfig,
    feature_extractor: ConvStack,
    layer_norm: LayerNorm,
    /// Absent where the front end already has the Transformer's width, as published.
    post_extract_proj: Option<Linear>,
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
        let front = config.conv_layers.last().map_or(dim, |layer| layer.dim);
        let ratios = &config.rate_ratios;
        let stages = &config.stage_layers;
        let levels = ratios.len();
        let post_extract_proj = if front == dim {
            None
        } else {
            Some(Linear::uniform(front, dim, &vb.pp("post_extract_proj"))?)
        };
        Ok(Self {
            feature_extractor: ConvStack::new(config, &vb.pp("feature_extractor"))?,
            layer_norm: LayerNorm::new(front, &vb.pp("layer_norm"))?,
            post_extract_proj,
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
        let frames = self.feature_extractor.forward(input, pass)?;
        let mut hidden = self.layer_norm.forward(&frames.hidden)?;
        if let Some(projection) = &self.post_extract_proj {
            hidden = projection.forward(&hidden, pass)?;
        }
        hidden = pass.dropout(&hidden, self.config.input_dropout)?;
        let mut x = frames.with_hidden(hidden);
        let mut stride = (self.config.input_stride(), 1);
        let mut skips: Vec<Resolution> = Vec::new();
        for ((encoder, module), [up, down]) in
            self.encoders.iter().zip(&self.downsample_modules).zip(&self.config.rate_ratios)
        {
            let output = encoder.forward(&x, pass)?;
            x = module.forward(&output, pass)?;
            skips.push(Resolution { stride, output });
            stride = (stride.0 * down, stride.1 * up);
        }
        // The residual goes around the whole middle stage.
        let middle = self.middle_encoder.forward(&x, pass)?;
        x = x.with_hidden((&x.hidden + &middle.hidden)?);
        let mut outputs = vec![Resolution { stride, output: x.clone() }];
        for (decoder, module) in self.decoders.iter().zip(self.upsample_modules.iter().rev()) {
            let Some(skip) = skips.pop() else { break };
            x = decoder.forward(&module.forward(&x, pass)?, pass)?;
            x = add(&x, &skip.output)?;
            outputs.push(Resolution { stride: skip.stride, output: x.clone() });
        }
        Ok(outputs)
    }
}

/// Sum over the frames both have; the lengths are those of `skip`.
fn add(x: &Sequence, skip: &Sequence) -> Result<Sequence> {
    let frames = x.frames()?.min(skip.frames()?);
    let (x, skip) = (x.cut(frames)?, skip.cut(frames)?);
    let hidden: Tensor = (&x.hidden + &skip.hidden)?;
    Ok(skip.with_hidden(hidden))
}

#[cfg(test)]
mod tests;
