//! From what the files of a checkpoint say to a model that is ready to run.

use super::adapters::{LanguageUnits, check_vocabulary, read_tokens, unit};
use super::error::ImportError;
use super::weights::Weights;
use crate::config::speech_model::{Head, SpeechModel};
use crate::config::{HeadConfig, ModelInput, WaveformConfig};
use crate::model::{
    ClassifierHead, CtcHead, Encoder, EncoderConfig, HeadNames, LayerSum, Parameters,
    PredictionShape, PretrainingHeads, requirements,
};
use crate::text::CtcTokens;
use candle_nn::VarBuilder;
use std::path::PathBuf;

/// What the files of a checkpoint say, whoever made them.
pub(super) struct Described {
    pub(super) config: WaveformConfig,
    pub(super) weights: Weights,
    /// Where its vocabulary and adapters are.
    pub(super) folder: PathBuf,
}

/// The parts of a model as they are built.
struct Parts {
    weights: Weights,
    parameters: Parameters,
}

impl Parts {
    fn error(&self, source: candle_core::Error) -> ImportError {
        ImportError::Model { name: self.weights.file().name().to_owned(), source: Box::new(source) }
    }

    /// Reads the parameters that `build` asks for and builds on them.
    fn build<T>(
        &mut self,
        build: impl Fn(&VarBuilder) -> candle_core::Result<T>,
    ) -> Result<T, ImportError> {
        let asked = requirements(&build).map_err(|e| self.error(e))?;
        self.weights.read(&asked, &self.parameters)?;
        build(&self.parameters.frozen()).map_err(|e| self.error(e))
    }
}

impl Described {
    /// Reads the weights and builds the model; everything that the files say of it is checked
    /// against them.
    pub(super) fn build(self, sum: LayerSum) -> Result<SpeechModel, ImportError> {
        let Self { config, weights, folder } = self;
        let encoder_config = &config.encoder;
        let prediction = prediction_shapes(encoder_config, &weights);
        let has_mask = weights.shape("mask_emb").as_deref() == Some(&[encoder_config.embed_dim]);
        let mut parts = Parts { weights, parameters: Parameters::default() };
        let encoder = parts.build(|vb| Encoder::new(encoder_config, vb))?;
        let dim = encoder_config.embed_dim;
        let head = match &config.head {
            HeadConfig::None => Head::None,
            HeadConfig::Ctc { vocab_size, spelling } => {
                let tokens = match spelling {
                    Some(spelling) => Some(read_tokens(&folder, None, spelling)?),
                    None => None,
                };
                let outputs = tokens.as_ref().map_or(*vocab_size, CtcTokens::len);
                check_vocabulary(&parts.weights, outputs)?;
                Head::Ctc { head: parts.build(|vb| CtcHead::new(dim, outputs, vb))?, tokens }
            }
            HeadConfig::Languages { own, spelling } => {
                let tokens = read_tokens(&folder, Some(own), spelling)?;
                let own = unit(own, encoder_config, tokens, &mut parts.weights)?;
                let units = LanguageUnits::new(&folder, encoder_config, spelling.clone(), own);
                Head::Languages(Box::new(units))
            }
            HeadConfig::Classifier { labels, width, states } => {
                let classes = labels.len();
                let head =
                    parts.build(|vb| ClassifierHead::new(dim, *width, classes, *states, vb))?;
                Head::Classifier { head, labels: labels.clone(), sum }
            }
        };
        let pretraining = if prediction.is_empty() {
            None
        } else {
            let names = if parts.weights.shape("final_projs.0.weight").is_none() {
                HeadNames::Together
            } else {
                HeadNames::Numbered
            };
            Some(parts.build(|vb| PretrainingHeads::new(dim, &prediction, names, vb))?)
        };
        let mask_embedding =
            if has_mask { Some(parts.build(|vb| vb.get(dim, "mask_emb"))?) } else { None };
        let unused = parts.weights.unused();
        Ok(SpeechModel {
            input: ModelInput::Waveform(config.waveform_norm),
            file: parts.weights.into_file(),
            parameters: parts.parameters,
            encoder,
            head,
            pretraining,
            mask_embedding,
            unused,
            config,
        })
    }
}

/// Shapes of the pre-training heads that are there, highest resolution first.
fn prediction_shapes(config: &EncoderConfig, weights: &Weights) -> Vec<PredictionShape> {
    let shape = |labels: &str, proj: &str| match (
        weights.shape(labels).as_deref(),
        weights.shape(proj).as_deref(),
    ) {
        (Some(&[classes, width]), Some(&[rows, dim]))
            if rows == width && dim == config.embed_dim =>
        {
            Some(PredictionShape { classes, width })
        }
        _ => None,
    };
    let several = (0..=config.rate_ratios.len())
        .map_while(|i| shape(&format!("label_embs_concat.{i}"), &format!("final_projs.{i}.weight")))
        .collect::<Vec<_>>();
    if several.is_empty() {
        shape("label_embs_concat", "final_proj.weight").into_iter().collect()
    } else {
        several
    }
}
