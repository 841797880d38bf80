//! HuBERT (Hsu et al. 2021, arXiv 2106.07447): one Transformer at one frame rate.
//!
//! wav2vec 2.0 and WavLM are the same encoder with other weights, adapters or positions.

use super::config::EncoderConfig;
use super::front_end::FrontEnd;
use super::mr_hubert::Resolution;
use super::pass::Pass;
use super::sequence::Sequence;
use super::transformer::{Stage, Trace};
use candle_core::Result;
use candle_nn::VarBuilder;

/// The encoder.
#[derive(Debug)]
pub(super) struct Hubert {
    pub(super) front_end: FrontEnd,
    encoder: Stage,
    stride: usize,
}

impl Hubert {
    pub(super) fn new(config: &EncoderConfig, vb: &VarBuilder) -> Result<Self> {
        Ok(Self {
            front_end: FrontEnd::new(config, vb)?,
            encoder: Stage::new(config, config.stage_layers[0], true, &vb.pp("encoder"))?,
            stride: config.input_stride(),
        })
    }

    /// Encodes frames of the front end.
    pub(super) fn encode(
        &self,
        frames: &Sequence,
        pass: &Pass,
        trace: &mut Trace,
    ) -> Result<Resolution> {
        let output = self.encoder.forward(frames, pass, trace)?;
        Ok(Resolution { stride: (self.stride, 1), output })
    }
}
