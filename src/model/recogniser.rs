//! An encoder with CTC heads.

use super::config::EncoderConfig;
use super::mr_hubert::MrHubert;
use super::parameters::Parameters;
use super::pass::Pass;
use super::sequence::Sequence;
use super::transformer::Linear;
use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};

/// Size of a [`Recogniser`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecogniserConfig {
    /// The encoder.
    pub encoder: EncoderConfig,
    /// Tokens of the vocabulary, the blank among them.
    pub vocab_size: usize,
}

/// CTC logits of a batch.
#[derive(Debug, Clone)]
pub struct Logits {
    /// `(batch, frames, vocab)`
    pub values: Tensor,
    /// Valid frames of each clip.
    pub lengths: Vec<usize>,
}

/// A multi-resolution encoder with a CTC head on its highest resolution (`proj`) and, for
/// training, one on its lowest (`low_proj`).
#[derive(Debug)]
pub struct Recogniser {
    encoder: MrHubert,
    proj: Linear,
    low_proj: Option<Linear>,
    dropout: f32,
}

impl Recogniser {
    /// A recogniser for inference on existing parameters.
    ///
    /// # Errors
    /// If a parameter is missing or has another shape.
    pub fn new(config: &RecogniserConfig, parameters: &Parameters) -> Result<Self> {
        Self::build(config, &parameters.frozen(), false)
    }

    /// A recogniser for training: parameters that are not there yet start from `seed`.
    ///
    /// # Errors
    /// If a parameter that is there has another shape.
    pub fn for_training(
        config: &RecogniserConfig,
        parameters: &Parameters,
        seed: u64,
    ) -> Result<Self> {
        let low_resolution = !config.encoder.rate_ratios.is_empty();
        Self::build(config, &parameters.seeded(seed), low_resolution)
    }

    fn build(config: &RecogniserConfig, vb: &VarBuilder, low_resolution: bool) -> Result<Self> {
        let (dim, vocab) = (config.encoder.embed_dim, config.vocab_size);
        Ok(Self {
            encoder: MrHubert::new(&config.encoder, vb)?,
            proj: Linear::uniform(dim, vocab, &vb.pp("proj"))?,
            low_proj: if low_resolution {
                Some(Linear::uniform(dim, vocab, &vb.pp("low_proj"))?)
            } else {
                None
            },
            dropout: config.encoder.dropout,
        })
    }

    /// The encoder.
    #[must_use]
    pub fn encoder(&self) -> &MrHubert {
        &self.encoder
    }

    /// Logits at the highest resolution.
    ///
    /// # Errors
    /// If shapes disagree.
    pub fn logits(&self, input: &Sequence, pass: &Pass) -> Result<Logits> {
        let outputs = self.encoder.forward(input, pass)?;
        let highest = outputs.last().expect("an encoder has at least one resolution");
        self.head(&self.proj, &highest.output, pass)
    }

    /// Logits at the highest and, where there is a head for it, the lowest resolution.
    ///
    /// # Errors
    /// If shapes disagree.
    pub fn training_logits(
        &self,
        input: &Sequence,
        pass: &Pass,
    ) -> Result<(Logits, Option<Logits>)> {
        let outputs = self.encoder.forward(input, pass)?;
        let highest = outputs.last().expect("an encoder has at least one resolution");
        let high = self.head(&self.proj, &highest.output, pass)?;
        let low = match &self.low_proj {
            Some(proj) => Some(self.head(proj, &outputs[0].output, pass)?),
            None => None,
        };
        Ok((high, low))
    }

    fn head(&self, proj: &Linear, output: &Sequence, pass: &Pass) -> Result<Logits> {
        let hidden = pass.dropout(&output.hidden, self.dropout)?;
        Ok(Logits { values: proj.forward(&hidden, pass)?, lengths: output.lengths.clone() })
    }
}
