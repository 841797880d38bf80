//! An encoder to be fine-tuned: ours or a released one, without its heads.

use super::import::{AnyModel, LoadError, LoadOptions, load_model};
use super::{ModelFiles, SpeechModel};
use crate::features::EncoderInput;
use crate::model::{Encoder, EncoderConfig, Parameters, is_encoder_parameter, requirements};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Dropout of an upstream in training, instead of its own.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EncoderRates {
    /// Dropout of residual branches and of each stage's input.
    pub dropout: f32,
    /// Dropout of attention weights.
    pub attention_dropout: f32,
    /// Dropout after the activation of feed-forward layers.
    pub activation_dropout: f32,
    /// Dropout of the projected front-end output.
    pub input_dropout: f32,
    /// Probability of skipping a Transformer layer.
    pub layer_drop: f32,
}

impl EncoderRates {
    /// `encoder` with these rates.
    #[must_use]
    pub fn of(&self, encoder: &EncoderConfig) -> EncoderConfig {
        let Self { dropout, attention_dropout, activation_dropout, input_dropout, layer_drop } =
            *self;
        EncoderConfig {
            dropout,
            attention_dropout,
            activation_dropout,
            input_dropout,
            layer_drop,
            ..encoder.clone()
        }
    }
}

/// An encoder to build on.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Name of the folder or file.
    pub name: String,
    /// Its configuration.
    pub encoder: EncoderConfig,
    /// What it reads.
    pub input: EncoderInput,
    /// Its parameters, under our names.
    pub parameters: Parameters,
    /// The file of its weights, or of their index; none of the model inside the binary.
    pub weights: Option<PathBuf>,
}

impl Upstream {
    /// Loads a model folder of ours, a Hugging Face folder, or a `.pt` or `.pth` file, and
    /// leaves its heads away. Of a model with an adapter per language the base is used.
    ///
    /// # Errors
    /// [`LoadError`] naming the file and what is wrong with it.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        Ok(match load_model(path, &LoadOptions::default())? {
            AnyModel::Folder(files) => {
                let weights = Some(path.join("model.safetensors"));
                Self { weights, ..Self::of_folder(&files) }
            }
            AnyModel::Speech(model) => Self::of_released(&model),
        })
    }

    /// The encoder of a model of ours.
    #[must_use]
    pub fn of_folder(files: &ModelFiles) -> Self {
        let parameters = files.parameters.fork();
        parameters.retain(|name| is_encoder_parameter(name) || name.contains(".houlsby_adapter."));
        Self {
            name: files.config.name.clone(),
            encoder: files.config.encoder.clone(),
            input: files.config.input(),
            parameters,
            weights: None,
        }
    }

    fn of_released(model: &SpeechModel) -> Self {
        let mut encoder = model.encoder().config().clone();
        encoder.variant.adapter_dim = None;
        let parameters = model.parameters().fork();
        if let Ok(asked) = requirements(|vb| Encoder::new(&encoder, vb)) {
            parameters.retain(|name| asked.iter().any(|requirement| requirement.name == name));
        }
        Self {
            name: model.name().to_owned(),
            encoder,
            input: model.input().for_folder(),
            parameters,
            weights: Some(model.weights().to_owned()),
        }
    }
}
