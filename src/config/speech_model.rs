//! A released checkpoint, ready to run.

use super::import::{ImportError, LanguageUnit, LanguageUnits};
use super::model_input::ModelInput;
use super::waveform_config::WaveformConfig;
use crate::model::checkpoint::CheckpointFile;
use crate::model::{
    ClassifierHead, CtcHead, Encoded, Encoder, LanguageAdapter, LayerSum, Padding, Parameters,
    Pass, PretrainingHeads, Sequence,
};
use crate::text::CtcTokens;
use asr_kernels::Precision;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

/// How a waveform is prepared.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum WaveformNorm {
    /// As it is.
    None,
    /// To zero mean and unit variance over the clip.
    ZeroMeanUnitVariance {
        /// Added to the variance.
        epsilon: f64,
    },
}

impl WaveformNorm {
    pub(super) fn of(normalise: bool, epsilon: f64) -> Self {
        if normalise { Self::ZeroMeanUnitVariance { epsilon } } else { Self::None }
    }
}

/// What stands on the encoder.
#[derive(Debug)]
pub enum Head {
    /// Nothing.
    None,
    /// An output layer for CTC, and its tokens where the files tell them.
    Ctc {
        /// The layer.
        head: CtcHead,
        /// Its tokens.
        tokens: Option<CtcTokens>,
    },
    /// An output layer, adapters and tokens for each of many languages.
    Languages(Box<LanguageUnits>),
    /// A classifier of whole clips.
    Classifier {
        /// The layers.
        head: ClassifierHead,
        /// Names of the classes, in order.
        labels: Vec<String>,
        /// What its sum of layers adds up.
        sum: LayerSum,
    },
}

/// A released checkpoint or a pre-trained encoder of ours: encoder, what stands on it, and how
/// its input is prepared.
#[derive(Debug)]
pub struct SpeechModel {
    pub(super) config: WaveformConfig,
    /// What the encoder reads.
    pub(super) input: ModelInput,
    pub(super) file: CheckpointFile,
    /// Those of the encoder, its heads and its mask; what is built shares their numbers.
    pub(super) parameters: Parameters,
    pub(super) encoder: Encoder,
    pub(super) head: Head,
    pub(super) pretraining: Option<PretrainingHeads>,
    pub(super) mask_embedding: Option<Tensor>,
    pub(super) unused: Vec<String>,
}

/// What a model computes of a batch.
#[derive(Debug, Clone)]
pub struct Outputs {
    /// The encoder's outputs and, if they were asked for, its hidden states.
    pub encoded: Encoded,
    /// Of each clip: `(frames, vocab)` of a CTC model, `(classes,)` of a classifier, nothing
    /// of a bare encoder.
    pub logits: Option<Vec<Tensor>>,
}

/// What is wanted of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Arithmetic of matrix products.
    pub precision: Precision,
    /// Every hidden state, not the outputs alone.
    pub hidden_states: bool,
    /// Padding seen as the reference implementation sees it: clips then depend on their batch.
    pub parity: bool,
}

impl SpeechModel {
    /// What it is, in the form of our folders.
    #[must_use]
    pub fn config(&self) -> &WaveformConfig {
        &self.config
    }

    /// Its name, else that of the folder or file.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// The file of its weights, or of their index.
    #[must_use]
    pub fn weights(&self) -> &Path {
        Path::new(self.file.name())
    }

    /// The checkpoint that it was read from.
    #[must_use]
    pub fn checkpoint(&self) -> &CheckpointFile {
        &self.file
    }

    /// The parameters of the encoder and of all that stands on it but the adapters, under our
    /// names; the numbers are shared with the model.
    #[must_use]
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The encoder.
    #[must_use]
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// What stands on the encoder.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Heads of masked prediction, where the checkpoint has them.
    #[must_use]
    pub fn pretraining(&self) -> Option<&PretrainingHeads> {
        self.pretraining.as_ref()
    }

    /// What masked frames are replaced by in training, `(dim,)`, where the checkpoint has it.
    #[must_use]
    pub fn mask_embedding(&self) -> Option<&Tensor> {
        self.mask_embedding.as_ref()
    }

    /// What the encoder reads.
    #[must_use]
    pub fn input(&self) -> &ModelInput {
        &self.input
    }

    /// Number of values in the parameters in use, of models with adapters those of one language.
    #[must_use]
    pub fn n_parameters(&self) -> usize {
        let adapter = match &self.head {
            Head::Languages(units) => units.own().parameters.count(),
            _ => 0,
        };
        self.parameters.count() + adapter
    }

    /// Names of tensors in the file that no part of the model uses.
    #[must_use]
    pub fn unused(&self) -> &[String] {
        &self.unused
    }

    /// Clips as a batch: prepared, padded.
    fn batch(&self, clips: &[&[f32]], parity: bool) -> candle_core::Result<Sequence> {
        // transformers without an attention mask prepares what it has padded.
        if !(parity && self.config.reference_padding == Padding::Sound) {
            return self.input.batch(clips);
        }
        let steps = clips.iter().map(|clip| clip.len()).max().unwrap_or(0);
        let padded: Vec<Vec<f32>> = clips
            .iter()
            .map(|clip| {
                let mut clip = clip.to_vec();
                clip.resize(steps, 0.0);
                clip
            })
            .collect();
        let views: Vec<&[f32]> = padded.iter().map(Vec::as_slice).collect();
        self.input.batch(&views)
    }

    /// The units of the languages asked for; the model's own where none is.
    ///
    /// # Errors
    /// [`ImportError::Language`] if a language has none.
    fn units(&self, languages: &[Option<&str>]) -> Result<Vec<Arc<LanguageUnit>>, ImportError> {
        let Head::Languages(units) = &self.head else { return Ok(Vec::new()) };
        let unit = |language: &Option<&str>| match language {
            Some(language) => units.get(language),
            None => Ok(Arc::clone(units.own())),
        };
        languages.iter().map(unit).collect()
    }

    /// Runs the model on clips of 16 kHz samples, one language for each (which matters to
    /// models with adapters only; `None` is the model's own).
    ///
    /// Without `parity`, each result is what the clip alone would give. Clips shorter than a
    /// frame are taken as if silence followed them.
    ///
    /// # Errors
    /// [`ImportError`] if a language has no adapter or the model cannot be run.
    ///
    /// # Panics
    /// If there are not as many languages as clips.
    pub fn run(
        &self,
        clips: &[&[f32]],
        languages: &[Option<&str>],
        wanted: Wanted,
    ) -> Result<Outputs, ImportError> {
        assert_eq!(clips.len(), languages.len(), "one language for each clip");
        let units = self.units(languages)?;
        let adapters: Vec<&LanguageAdapter> = units.iter().map(|unit| &unit.adapter).collect();
        let padding = if wanted.parity { self.config.reference_padding } else { Padding::Unseen };
        let pass = Pass::inference(wanted.precision).with_padding(padding);
        self.compute(clips, &adapters, wanted, &pass).map_err(|source| ImportError::Model {
            name: self.name().to_owned(),
            source: Box::new(source),
        })
    }

    fn compute(
        &self,
        clips: &[&[f32]],
        adapters: &[&LanguageAdapter],
        wanted: Wanted,
        pass: &Pass,
    ) -> candle_core::Result<Outputs> {
        let input = self.batch(clips, wanted.parity)?;
        let sums = matches!(&self.head, Head::Classifier { head, .. } if head.sums_layers());
        let encoded = if wanted.hidden_states || sums {
            self.encoder.trace(&input, adapters, pass)?
        } else {
            self.encoder.outputs(&input, adapters, pass)?
        };
        let output = encoded.output();
        let logits = match &self.head {
            Head::None => None,
            Head::Ctc { head, .. } => {
                let logits = head.forward(output, pass)?;
                let clip = |(i, &n): (usize, &usize)| logits.values.get(i)?.narrow(0, 0, n);
                Some(logits.lengths.iter().enumerate().map(clip).collect::<Result<_, _>>()?)
            }
            Head::Languages(_) => {
                let clip = |(i, a): (usize, &&LanguageAdapter)| a.logits(output, i, pass);
                Some(adapters.iter().enumerate().map(clip).collect::<Result<_, _>>()?)
            }
            Head::Classifier { head, sum, .. } => {
                let logits = head.forward(output, &encoded.hidden_states(), *sum, pass)?;
                Some((0..clips.len()).map(|i| logits.get(i)).collect::<Result<_, _>>()?)
            }
        };
        Ok(Outputs { encoded, logits })
    }
}
