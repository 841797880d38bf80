//! An encoder with CTC heads and, beside them, heads for language and place.

use super::adaptation::is_adaptation;
use super::after_block::AfterBlock;
use super::config::EncoderConfig;
use super::downstream::{DownstreamConfig, LayerWeights, TransformerHead};
use super::encoder::{Encoded, Encoder};
use super::geo::{CONDITIONING_MAPS, GeoBranches, GeoListener};
use super::intermediate_ctc::{CtcListener, IntermediateCtc, Predicts, Projection};
use super::joint::JointConfig;
use super::language_head::{LanguageHead, LanguageOutput};
use super::mr_hubert::Resolution;
use super::parameters::Parameters;
use super::pass::Pass;
use super::sequence::Sequence;
use super::transformer::Linear;
use candle_core::{Result, Tensor, bail};
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
    /// Modules between the encoder and the output layer.
    #[serde(default)]
    pub downstream: DownstreamConfig,
}

impl RecogniserConfig {
    /// Hidden states that a sum of layers adds up.
    fn states(&self) -> usize {
        self.encoder.stage_layers.iter().sum::<usize>() + 1
    }
}

/// Whether a parameter of a recogniser belongs to the encoder as it was before fine-tuning: to
/// no head and no [`Adaptation`](super::Adaptation).
#[must_use]
pub fn is_encoder_parameter(name: &str) -> bool {
    const HEADS: [&str; 6] =
        ["proj.", "low_proj.", "intermediate_ctc.", "geo.", "language.", "downstream."];
    !is_adaptation(name) && !HEADS.iter().any(|head| name.starts_with(head))
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
/// lowest (`low_proj`), the modules of a [`JointConfig`] (`intermediate_ctc`, `geo`, `language`)
/// and of a [`DownstreamConfig`] (`downstream`).
#[derive(Debug)]
pub struct Recogniser {
    encoder: Encoder,
    layer_weights: Option<LayerWeights>,
    transformer: Option<TransformerHead>,
    proj: Linear,
    low_proj: Option<Linear>,
    intermediate_ctc: Option<IntermediateCtc>,
    geo: Option<GeoBranches>,
    language: Option<LanguageHead>,
    language_block: Option<usize>,
    dropout: f32,
    input: Input,
}

/// What a recogniser is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    /// What the encoder reads.
    Steps,
    /// The same, of an encoder that does not learn: without dropout.
    StepsOfFrozen,
    /// The encoder's hidden states.
    States,
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
        let low_resolution = !config.encoder.rate_ratios.is_empty() && config.downstream.is_plain();
        Self::build(config, &parameters.seeded(seed), low_resolution)
    }

    fn build(config: &RecogniserConfig, vb: &VarBuilder, low_resolution: bool) -> Result<Self> {
        let (dim, vocab) = (config.encoder.embed_dim, config.vocab_size);
        let (joint, downstream) = (&config.joint, &config.downstream);
        let shared =
            joint.intermediate_ctc.as_ref().is_some_and(|ctc| ctc.projection == Projection::Shared);
        let read = downstream.output_dim(dim);
        if shared && read != dim {
            bail!("taps of {dim} numbers cannot share an output layer of {read}");
        }
        let below = vb.pp("downstream");
        Ok(Self {
            encoder: Encoder::new(&config.encoder, vb)?,
            layer_weights: if downstream.layer_sum {
                Some(LayerWeights::new(config.states(), &below)?)
            } else {
                None
            },
            transformer: match &downstream.transformer {
                Some(head) => Some(TransformerHead::new(head, dim, &below)?),
                None => None,
            },
            input: Input::Steps,
            proj: Linear::uniform(read, vocab, &vb.pp("proj"))?,
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

    /// The same, reading hidden states of the encoder instead of its input: the states that a
    /// sum of layers adds up side by side in each frame, `(batch, frames, states * dim)`
    /// ([`Recogniser::states`]); without a sum the encoder's output.
    ///
    /// # Errors
    /// If a module looks into the encoder, which then does not run.
    pub fn reading_states(self) -> Result<Self> {
        let inside = self.intermediate_ctc.is_some() || self.geo.is_some();
        if inside || self.language_block.is_some() || self.low_proj.is_some() {
            bail!("modules inside the encoder need the encoder to run");
        }
        Ok(Self { input: Input::States, ..self })
    }

    /// The same with an encoder that is never in training: without dropout and layer drop, as
    /// long as no module looks into it.
    #[must_use]
    pub fn with_still_encoder(self) -> Self {
        Self { input: Input::StepsOfFrozen, ..self }
    }

    /// Numbers per frame of [`Recogniser::states`].
    #[must_use]
    pub fn states_width(&self) -> usize {
        let config = self.encoder.config();
        let states = config.stage_layers.iter().sum::<usize>() + 1;
        config.embed_dim * if self.layer_weights.is_some() { states } else { 1 }
    }

    /// What [`Recogniser::reading_states`] reads, for a batch of the encoder's input.
    ///
    /// # Errors
    /// If shapes disagree.
    pub fn states(&self, input: &Sequence, pass: &Pass) -> Result<Sequence> {
        if self.layer_weights.is_none() {
            return Ok(self.encoder.outputs(input, &[], pass)?.output().clone());
        }
        let encoded = self.encoder.trace(input, &[], pass)?;
        let states = encoded.aligned_states()?;
        let hidden: Vec<&Tensor> = states.iter().map(|state| &state.hidden).collect();
        Ok(encoded.output().with_hidden(Tensor::cat(&hidden, 2)?))
    }

    /// Everything the recogniser says of a batch.
    ///
    /// # Errors
    /// If shapes disagree.
    pub fn forward(&self, input: &Sequence, pass: &Pass) -> Result<RecogniserOutput> {
        let mut listener = self.listen();
        let listens = self.intermediate_ctc.is_some() || self.geo.is_some();
        let still = Pass::inference(pass.precision());
        let inner = match self.input {
            Input::States => {
                let input = input.with_hidden(input.hidden.to_device(self.proj.device())?);
                let read = match &self.layer_weights {
                    Some(weights) => weights.of_stored(&input)?,
                    None => input,
                };
                return self.speak(&read, None, listener, pass);
            }
            Input::StepsOfFrozen if !listens => &still,
            Input::Steps | Input::StepsOfFrozen => pass,
        };
        if let Some(weights) = &self.layer_weights {
            let encoded = self.encoder.trace_with(input, &[], inner, &mut listener)?;
            return self.speak(&weights.of(&encoded)?, None, listener, pass);
        }
        let resolutions = self.encoder.forward_with(input, inner, &mut listener)?;
        self.speak(highest(&resolutions), Some(&resolutions[0].output), listener, pass)
    }

    /// The same with every hidden state of the encoder.
    ///
    /// # Errors
    /// If shapes disagree.
    pub fn trace(&self, input: &Sequence, pass: &Pass) -> Result<(Encoded, RecogniserOutput)> {
        let mut listener = self.listen();
        let encoded = self.encoder.trace_with(input, &[], pass, &mut listener)?;
        let read = match &self.layer_weights {
            Some(weights) => &weights.of(&encoded)?,
            None => encoded.output(),
        };
        let output = self.speak(read, Some(&encoded.resolutions[0].output), listener, pass)?;
        Ok((encoded, output))
    }

    fn listen(&self) -> Listener<'_> {
        let ctc = self.intermediate_ctc.as_ref().map(|ctc| ctc.listen(&self.proj));
        let geo = self.geo.as_ref().map(GeoBranches::listen);
        (ctc, (geo, Keep { wanted: self.language_block, frames: None }))
    }

    /// The heads, on what they read of the encoder: frames of the highest resolution and, where
    /// there is a head for them, of the lowest.
    fn speak(
        &self,
        read: &Sequence,
        lowest: Option<&Sequence>,
        (ctc, (geo, kept)): Listener,
        pass: &Pass,
    ) -> Result<RecogniserOutput> {
        Ok(RecogniserOutput {
            high: match &self.transformer {
                Some(head) => {
                    let output = head.forward(read, pass)?;
                    let values = self.proj.forward(&output.hidden, pass)?;
                    Logits { values, lengths: output.lengths }
                }
                None => self.head(&self.proj, read, pass)?,
            },
            low: match (&self.low_proj, lowest) {
                (Some(proj), Some(lowest)) => Some(self.head(proj, lowest, pass)?),
                _ => None,
            },
            intermediate: ctc.map(|ctc| ctc.logits).unwrap_or_default(),
            places: geo.map(|geo| geo.predictions).unwrap_or_default(),
            language: match &self.language {
                Some(head) => Some(head.forward(kept.frames.as_ref().unwrap_or(read), pass)?),
                None => None,
            },
        })
    }

    fn head(&self, proj: &Linear, output: &Sequence, pass: &Pass) -> Result<Logits> {
        let hidden = pass.dropout(&output.hidden, self.dropout)?;
        Ok(Logits { values: proj.forward(&hidden, pass)?, lengths: output.lengths.clone() })
    }
}

/// The output at the highest rate.
fn highest(resolutions: &[Resolution]) -> &Sequence {
    &resolutions.last().expect("an encoder has at least one resolution").output
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
