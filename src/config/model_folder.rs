//! A model on disk: `config.json`, `model.safetensors`, `vocab.json`.

use crate::features::{EncoderInput, FeatureError, FeatureNorm, LogMelConfig, WaveformInput};
use crate::files::write_whole;
use crate::model::checkpoint::{self, CheckpointError, StoredAs};
use crate::model::{
    ConfigError, DownstreamConfig, EncoderConfig, JointConfig, Parameters, RecogniserConfig,
};
use crate::text::{TextError, Vocabulary};
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Version of the layout.
const SCHEMA: u32 = 1;
/// Largest `config.json` that is read.
pub(super) const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// A model folder that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelFolderError {
    /// A file that cannot be read or written.
    #[error("cannot access `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A configuration that is not the expected JSON.
    #[error("`{name}` is not a model configuration")]
    Json {
        /// The file or what stands for it.
        name: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A layout of another version.
    #[error("`{name}` has schema {found}, this version reads {SCHEMA}")]
    Schema {
        /// The file or what stands for it.
        name: String,
        /// The version found.
        found: u32,
    },
    /// Settings that make no encoder.
    #[error("`{name}` describes no encoder")]
    Encoder {
        /// The file or what stands for it.
        name: String,
        /// Why.
        source: ConfigError,
    },
    /// A model that reads nothing, or both.
    #[error("`{name}` needs either `features` with `feature_norm`, or `waveform`")]
    Input {
        /// The file or what stands for it.
        name: String,
    },
    /// A calibration out of range.
    #[error("`{name}` has a calibration out of range")]
    Calibration {
        /// The file or what stands for it.
        name: String,
    },
    /// A vocabulary that cannot be used.
    #[error("cannot use the vocabulary of `{name}`")]
    Vocabulary {
        /// The folder or what stands for it.
        name: String,
        /// Why.
        source: TextError,
    },
    /// Settings of the features.
    #[error("`{name}` describes no features")]
    Features {
        /// The file or what stands for it.
        name: String,
        /// Why.
        source: FeatureError,
    },
    /// Parameters that do not fit the configuration.
    #[error("the weights in `{name}` are not those of its configuration")]
    Parameters {
        /// The folder.
        name: String,
        /// Why.
        source: Box<candle_core::Error>,
    },
    /// Weights that cannot be used.
    #[error(transparent)]
    Weights(#[from] CheckpointError),
}

/// `config.json` of a model folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Version of the layout.
    pub schema: u32,
    /// What the folder holds: `asr-ctc`.
    pub model_type: ModelType,
    /// Name of the model.
    pub name: String,
    /// Features that the encoder reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    features: Option<LogMelConfig>,
    /// Their normalisation over each clip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    feature_norm: Option<FeatureNorm>,
    /// The waveform, where the encoder reads that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    waveform: Option<WaveformInput>,
    /// The encoder.
    pub encoder: EncoderConfig,
    /// Modules beside the CTC output.
    #[serde(default, skip_serializing_if = "JointConfig::is_empty")]
    pub joint: JointConfig,
    /// Modules between the encoder and the output layer.
    #[serde(default, skip_serializing_if = "DownstreamConfig::is_plain")]
    pub downstream: DownstreamConfig,
    /// What makes language scores honest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
}

/// What was fitted on held-out clips, so that a language score of 0.8 is right in eight cases
/// of ten.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Scores are raised to the power `1 / temperature` and renormalised (Guo et al. 2017).
    pub temperature: f64,
    /// Below this score of the first language nobody knows what is spoken.
    pub unknown_threshold: f64,
}

impl Calibration {
    /// Whether both numbers are in range.
    fn is_sound(&self) -> bool {
        (1e-3..=1e3).contains(&self.temperature) && (0.0..=1.0).contains(&self.unknown_threshold)
    }
}

/// Kinds of model folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ModelType {
    /// An encoder with a CTC head over language tags and characters.
    #[serde(rename = "asr-ctc")]
    AsrCtc,
}

impl ModelConfig {
    /// A configuration in the current layout.
    #[must_use]
    pub fn new(name: &str, input: EncoderInput, encoder: EncoderConfig) -> Self {
        let (features, feature_norm, waveform) = match input {
            EncoderInput::LogMel(features, norm) => (Some(features), Some(norm), None),
            EncoderInput::Waveform(waveform) => (None, None, Some(waveform)),
        };
        Self {
            schema: SCHEMA,
            model_type: ModelType::AsrCtc,
            name: name.to_owned(),
            features,
            feature_norm,
            waveform,
            encoder,
            joint: JointConfig::default(),
            downstream: DownstreamConfig::default(),
            calibration: None,
        }
    }

    /// What the encoder reads.
    #[must_use]
    pub fn input(&self) -> EncoderInput {
        match (&self.features, self.feature_norm) {
            (Some(features), Some(norm)) => EncoderInput::LogMel(features.clone(), norm),
            _ => EncoderInput::Waveform(self.waveform.unwrap_or_default()),
        }
    }

    fn parse(json: &[u8], name: &str) -> Result<Self, ModelFolderError> {
        let config: Self = serde_json::from_slice(json)
            .map_err(|source| ModelFolderError::Json { name: name.to_owned(), source })?;
        if config.schema != SCHEMA {
            return Err(ModelFolderError::Schema { name: name.to_owned(), found: config.schema });
        }
        config
            .encoder
            .validate()
            .and_then(|()| config.joint.validate(&config.encoder))
            .and_then(|()| config.downstream.validate())
            .map_err(|source| ModelFolderError::Encoder { name: name.to_owned(), source })?;
        let reads = [config.features.is_some(), config.feature_norm.is_some()];
        if reads != [config.waveform.is_none(); 2] {
            return Err(ModelFolderError::Input { name: name.to_owned() });
        }
        if config.calibration.is_some_and(|calibration| !calibration.is_sound()) {
            return Err(ModelFolderError::Calibration { name: name.to_owned() });
        }
        Ok(config)
    }
}

/// Everything in a model folder.
#[derive(Debug, Clone)]
pub struct ModelFiles {
    /// `config.json`
    pub config: ModelConfig,
    /// `vocab.json`
    pub vocabulary: Vocabulary,
    /// `model.safetensors`
    pub parameters: Parameters,
}

impl ModelFiles {
    /// Reads a folder.
    ///
    /// # Errors
    /// [`ModelFolderError`] naming the file.
    pub fn read(folder: &Path) -> Result<Self, ModelFolderError> {
        let path = folder.join("config.json");
        let io = |source| ModelFolderError::Io { path: path.clone(), source };
        let mut json = Vec::new();
        let file = std::fs::File::open(&path).map_err(io)?;
        file.take(MAX_CONFIG_BYTES).read_to_end(&mut json).map_err(io)?;
        let config = ModelConfig::parse(&json, &path.display().to_string())?;
        let vocabulary = Vocabulary::load(&folder.join("vocab.json")).map_err(|source| {
            ModelFolderError::Vocabulary { name: folder.display().to_string(), source }
        })?;
        let parameters = checkpoint::read(&folder.join("model.safetensors"))?;
        Ok(Self { config, vocabulary, parameters })
    }

    /// The recogniser that the files hold.
    #[must_use]
    pub fn recogniser_config(&self) -> RecogniserConfig {
        RecogniserConfig {
            encoder: self.config.encoder.clone(),
            vocab_size: self.vocabulary.len(),
            n_languages: self.vocabulary.language_ids().len(),
            joint: self.config.joint.clone(),
            downstream: self.config.downstream.clone(),
        }
    }

    /// Reads the bytes of a folder's files; `name` stands for them in errors.
    ///
    /// # Errors
    /// As [`ModelFiles::read`].
    pub fn from_bytes(
        config: &[u8],
        vocabulary: &[u8],
        weights: &'static [u8],
        name: &str,
    ) -> Result<Self, ModelFolderError> {
        Ok(Self {
            config: ModelConfig::parse(config, name)?,
            vocabulary: Vocabulary::from_json(vocabulary)
                .map_err(|source| ModelFolderError::Vocabulary { name: name.to_owned(), source })?,
            parameters: checkpoint::read_bytes(weights, name)?,
        })
    }

    /// Writes a folder; `model.safetensors`, the largest, last. Parameters that only
    /// training uses are left out.
    ///
    /// # Errors
    /// [`ModelFolderError`] naming the file.
    pub fn write(&self, folder: &Path, stored_as: StoredAs) -> Result<(), ModelFolderError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| ModelFolderError::Io { path, source }
        };
        std::fs::create_dir_all(folder).map_err(io(folder))?;
        let mut json = serde_json::to_vec_pretty(&self.config)
            .map_err(|source| ModelFolderError::Json { name: self.config.name.clone(), source })?;
        json.push(b'\n');
        for (name, bytes) in
            [("config.json", &json[..]), ("vocab.json", self.vocabulary.to_json().as_bytes())]
        {
            let path = folder.join(name);
            write_whole(&path, bytes).map_err(io(&path))?;
        }
        let all = self.parameters.all();
        let kept = all
            .iter()
            .filter(|(name, _)| self.config.joint.keeps(name))
            .map(|(name, var)| (name.as_str(), var.as_tensor()));
        Ok(checkpoint::write(&folder.join("model.safetensors"), kept, stored_as)?)
    }
}
