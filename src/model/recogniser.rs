//! An encoder with CTC heads and, beside them, heads for language and place.

use super::after_block::AfterBlock;
use super::config::EncoderConfig;
use super::encoder::{Encoded, Encoder};
use super::geo::{CONDITIONING_MAPS, GeoBranches, GeoListener};
use super::intermediate_ctc::{CtcListener, IntermediateCtc, Predicts};
use super::joint::JointConfig;
use super::language_head::{LanguageHead, LanguageOutput};
use super::mr_hubert::Resolution;
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
    /// Languages of the vocabulary: the tokens from 1 on.
    pub n_languages: usize,
    /// Modules beside the CTC output.
    pub joint: JointConfig,
}

/// CTC logits of a batch.
#[derive(Debug, Clone)]
pub struct Logits {
    /// `(batch, frames, vocab)`
    pub values: Tensor,
    /// Valid frames of each clip.
    pub lengths: Vec<usize>,
}

/// Everything a recogniser says of a batch.
#[derive(Debug, Clone)]
pub struct RecogniserOutput {
    /// Logits at the highest resolution.
    pub high: Logits,
    /// Logits at the lowest resolution, where there is a head for it.
    pub low: Option<Logits>,
    /// Logits inside the encoder and what they are to spell, in the order of the blocks.
    pub intermediate: Vec<(Predicts, Logits)>,
    /// Geolocation vectors predicted inside the encoder, `(batch, 299)` per block.
    pub places: Vec<Tensor>,
    /// What the language head says; class `k` is the language of token `k + 1`.
    pub language: Option<LanguageOutput>,
}

/// An encoder with a CTC head on its highest resolution (`proj`), for training one on its
/// lowest (`low_proj`), and the modules of a [`JointConfig`] (`intermediate_ctc`, `geo`, `language`).
#[derive(Debug)]
pub struct Recogniser {
    encoder: Encoder,
    proj: Linear,
    low_proj: Option<Linear>,
    intermediate_ctc: Option<IntermediateCtc>,
    geo: Option<GeoBranches>,
    language: Option<LanguageHead>,
    language_block: Option<usize>,
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
        if config.joint.geo.as_ref().is_some_and(|geo| !geo.conditioning.is_trainable()) {
            parameters.freeze(|name| {
                name.strip_prefix("geo.").is_some_and(|name| name.starts_with(CONDITIONING_MAPS))
            });
        }
        let low_resolution = !config.encoder.rate_ratios.is_empty();
        Self::build(config, &parameters.seeded(seed), low_resolution)
    }

    fn build(config: &RecogniserConfig, vb: &VarBuilder, low_resolution: bool) -> Result<Self> {
        let (dim, vocab) = (config.encoder.embed_dim, config.vocab_size);
        let joint = &config.joint;
        Ok(Self {
            encoder: Encoder::new(&config.encoder, vb)?,
            proj: Linear::uniform(dim, vocab, &vb.pp("proj"))?,
            low_proj: if low_resolution {
                Some(Linear::uniform(dim, vocab, &vb.pp("low_proj"))?)
            } else {
                None
            },
            intermediate_ctc: match &joint.intermediate_ctc {
                Some(ctc) => {
                    let vb = vb.pp("intermediate_ctc");
                    Some(IntermediateCtc::new(ctc, dim, vocab, config.n_languages, &vb)?)
                }
                None => None,
            },
            geo: match &joint.geo {
                Some(geo) => Some(GeoBranches::new(geo, dim, &vb.pp("geo"))?),
                None => None,
            },
            language: match &joint.language {
                Some(head) => {
                    Some(LanguageHead::new(head, dim, config.n_languages, &vb.pp("language"))?)
                }
                None => None,
            },
            language_block: joint.language.as_ref().and_then(|head| head.block),
            dropout: config.encoder.dropout,
        })
    }

    /// The encoder.
    #[must_use]
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// Everything the recogniser says of a batch.
    ///
    /// # Errors
    /// If shapes disagree.
    pub fn forward(&self, input: &Sequence, pass: &Pass) -> Result<RecogniserOutput> {
        let mut listener = self.listen();
        let resolutions = self.encoder.forward_with(input, pass, &mut listener)?;
        self.speak(&resolutions, listener, pass)
    }

    /// The same with every hidden state of the encoder.
    ///
    /// # Errors
    /// If shapes disagree.
    pub fn trace(&self, input: &Sequence, pass: &Pass) -> Result<(Encoded, RecogniserOutput)> {
        let mut listener = self.listen();
        let encoded = self.encoder.trace_with(input, &[], pass, &mut listener)?;
        let output = self.speak(&encoded.resolutions, listener, pass)?;
        Ok((encoded, output))
    }

    fn listen(&self) -> Listener<'_> {
        let ctc = self.intermediate_ctc.as_ref().map(|ctc| ctc.listen(&self.proj));
        let geo = self.geo.as_ref().map(GeoBranches::listen);
        (ctc, (geo, Keep { wanted: self.language_block, frames: None }))
    }

    /// The heads, on what the encoder gave.
    fn speak(
        &self,
        outputs: &[Resolution],
        (ctc, (geo, kept)): Listener,
        pass: &Pass,
    ) -> Result<RecogniserOutput> {
        let highest = &outputs.last().expect("an encoder has at least one resolution").output;
        Ok(RecogniserOutput {
            high: self.head(&self.proj, highest, pass)?,
            low: match &self.low_proj {
                Some(proj) => Some(self.head(proj, &outputs[0].output, pass)?),
                None => None,
            },
            intermediate: ctc.map(|ctc| ctc.logits).unwrap_or_default(),
            places: geo.map(|geo| geo.predictions).unwrap_or_default(),
            language: match &self.language {
                Some(head) => Some(head.forward(kept.frames.as_ref().unwrap_or(highest), pass)?),
                None => None,
            },
        })
    }

    fn head(&self, proj: &Linear, output: &Sequence, pass: &Pass) -> Result<Logits> {
        let hidden = pass.dropout(&output.hidden, self.dropout)?;
        Ok(Logits { values: proj.forward(&hidden, pass)?, lengths: output.lengths.clone() })
    }
}

/// What looks into the encoder, in the order it looks.
type Listener<'a> = (Option<CtcListener<'a>>, (Option<GeoListener<'a>>, Keep));

/// Keeps the frames of one block.
#[derive(Debug)]
struct Keep {
    wanted: Option<usize>,
    frames: Option<Sequence>,
}

impl AfterBlock for Keep {
    fn block(&mut self, block: usize, frames: &Sequence, _: &Pass) -> Result<Option<Tensor>> {
        if self.wanted == Some(block) {
            self.frames = Some(frames.clone());
        }
        Ok(None)
    }
}
