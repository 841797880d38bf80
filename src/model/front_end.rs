//! From input steps to the frames that the Transformer reads.

use super::config::EncoderConfig;
use super::conv_stack::ConvStack;
use super::pass::Pass;
use super::sequence::Sequence;
use super::transformer::{LayerNorm, Linear};
use candle_core::Result;
use candle_nn::VarBuilder;

/// Convolutions, norm and projection to the Transformer's width.
#[derive(Debug)]
pub(super) struct FrontEnd {
    feature_extractor: ConvStack,
    layer_norm: Option<LayerNorm>,
    /// Absent where the front end already has the Transformer's width, as published.
    post_extract_proj: Option<Linear>,
    dropout: f32,
}

impl FrontEnd {
    pub(super) fn new(config: &EncoderConfig, vb: &VarBuilder) -> Result<Self> {
        let dim = config.embed_dim;
        let front = config.conv_layers.last().map_or(dim, |layer| layer.dim);
        let eps = config.variant.layer_norm_eps;
        Ok(Self {
            feature_extractor: ConvStack::new(config, &vb.pp("feature_extractor"))?,
            layer_norm: if config.variant.raw_features {
                None
            } else {
                Some(LayerNorm::with_eps(front, eps, &vb.pp("layer_norm"))?)
            },
            post_extract_proj: if front == dim && !config.variant.always_project {
                None
            } else {
                Some(Linear::uniform(front, dim, &vb.pp("post_extract_proj"))?)
            },
            dropout: config.input_dropout,
        })
    }

    /// Output of the convolutions.
    pub(super) fn extract(&self, input: &Sequence, pass: &Pass) -> Result<Sequence> {
        self.feature_extractor.forward(input, pass)
    }

    /// The convolutions' output, normalised and projected.
    pub(super) fn project(&self, frames: &Sequence, pass: &Pass) -> Result<Sequence> {
        let mut hidden = frames.hidden.clone();
        if let Some(norm) = &self.layer_norm {
            hidden = norm.forward(&hidden)?;
        }
        if let Some(projection) = &self.post_extract_proj {
            hidden = projection.forward(&hidden, pass)?;
        }
        Ok(frames.with_hidden(pass.dropout(&hidden, self.dropout)?))
    }

    /// Frames of the Transformer's width.
    pub(super) fn forward(&self, input: &Sequence, pass: &Pass) -> Result<Sequence> {
        self.project(&self.extract(input, pass)?, pass)
    }
}
