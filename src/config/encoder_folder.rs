//! A pre-trained encoder on disk: `config.json` and `model.safetensors`.

use super::model_folder::{MAX_CONFIG_BYTES, ModelFolderError};
use super::model_input::{InputConfig, ModelInput};
use super::speech_model::{Head, SpeechModel, WaveformNorm};
use super::waveform_config::{HeadConfig, Provenance, WaveformConfig};
use crate::features::FeatureError;
use crate::files::write_whole;
use crate::model::checkpoint::{self, StoredAs};
use crate::model::{
    ConfigError, Encoder, EncoderConfig, HeadNames, Padding, Parameters, PredictionShape,
    PretrainingHeads,
};
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::Path;

/// Version of the layout.
const SCHEMA: u32 = 1;
/// Most prediction heads that a folder may have.
const MAX_HEADS: usize = 256;
/// Most classes of a head.
const MAX_CLASSES: usize = 1 << 20;

/// `config.json` of a pre-trained encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderFolderConfig {
    /// Version of the layout.
    pub schema: u32,
    /// What the folder holds: `asr-encoder`.
    pub model_type: EncoderModelType,
    /// Name of the model.
    pub name: String,
    /// What the encoder reads.
    pub input: InputConfig,
    /// The encoder.
    pub encoder: EncoderConfig,
    /// Heads of masked prediction, highest resolution first.
    pub heads: Vec<PredictionShape>,
    /// How the heads' parameters are named.
    pub head_names: HeadNames,
}

/// Kind of folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EncoderModelType {
    /// An encoder without output layer.
    #[serde(rename = "asr-encoder")]
    AsrEncoder,
}

/// Everything in the folder of a pre-trained encoder.
#[derive(Debug, Clone)]
pub struct EncoderFiles {
    /// `config.json`
    pub config: EncoderFolderConfig,
    /// `model.safetensors`: encoder, `mask_emb` and heads.
    pub parameters: Parameters,
}

impl EncoderFolderConfig {
    /// A configuration in the current layout.
    #[must_use]
    pub fn new(
        name: &str,
        input: InputConfig,
        encoder: EncoderConfig,
        heads: Vec<PredictionShape>,
        head_names: HeadNames,
    ) -> Self {
        let (schema, model_type) = (SCHEMA, EncoderModelType::AsrEncoder);
        Self { schema, model_type, name: name.to_owned(), input, encoder, heads, head_names }
    }

    fn validate(&self, name: &str) -> Result<ModelInput, ModelFolderError> {
        let encoder = |source| ModelFolderError::Encoder { name: name.to_owned(), source };
        if self.schema != SCHEMA {
            return Err(ModelFolderError::Schema { name: name.to_owned(), found: self.schema });
        }
        self.encoder.validate().map_err(encoder)?;
        let input = ModelInput::new(&self.input).map_err(|source: FeatureError| {
            ModelFolderError::Features { name: name.to_owned(), source }
        })?;
        let problem = |field, problem| Err(encoder(ConfigError { field, problem }));
        if input.channels() != self.encoder.input_channels {
            return problem("input_channels", "must be what the input gives");
        }
        let sane = |shape: &PredictionShape| {
            (1..=MAX_CLASSES).contains(&shape.classes) && (1..=16_384).contains(&shape.width)
        };
        if self.heads.len() > MAX_HEADS || !self.heads.iter().all(sane) {
            return problem("heads", "must be few, of sane size");
        }
        Ok(input)
    }
}

impl EncoderFiles {
    /// Whether a folder holds a pre-trained encoder rather than another model.
    #[must_use]
    pub fn is_in(folder: &Path) -> bool {
        #[derive(Deserialize)]
        struct Kind {
            #[serde(rename = "model_type")]
            _model_type: EncoderModelType,
        }
        let mut json = Vec::new();
        std::fs::File::open(folder.join("config.json"))
            .and_then(|file| file.take(MAX_CONFIG_BYTES).read_to_end(&mut json))
            .is_ok_and(|_| serde_json::from_slice::<Kind>(&json).is_ok())
    }

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
        let name = path.display().to_string();
        let config: EncoderFolderConfig = serde_json::from_slice(&json)
            .map_err(|source| ModelFolderError::Json { name: name.clone(), source })?;
        config.validate(&name)?;
        let parameters = checkpoint::read(&folder.join("model.safetensors"))?;
        Ok(Self { config, parameters })
    }

    /// Writes a folder; `model.safetensors`, the largest, last.
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
        let all = self.parameters.all();
        let tensors = all.iter().map(|(name, var)| (name.as_str(), var.as_tensor()));
        let weights = checkpoint::to_bytes(tensors, stored_as)?;
        for (name, bytes) in [("config.json", &json), ("model.safetensors", &weights)] {
            let path = folder.join(name);
            write_whole(&path, bytes).map_err(io(&path))?;
        }
        Ok(())
    }

    /// The encoder alone, for a recogniser to start from: heads and mask are dropped.
    #[must_use]
    pub fn into_encoder(self) -> (EncoderFolderConfig, Parameters) {
        let of_pretraining = ["mask_emb", "final_proj", "label_embs_concat"];
        self.parameters.retain(|name| !of_pretraining.iter().any(|start| name.starts_with(start)));
        (self.config, self.parameters)
    }

    /// The model, ready to run.
    ///
    /// # Errors
    /// [`ModelFolderError`] if the parameters do not fit the configuration.
    pub fn speech_model(&self, folder: &Path) -> Result<SpeechModel, ModelFolderError> {
        let name = folder.join("config.json").display().to_string();
        let input = self.config.validate(&name)?;
        let vb = self.parameters.frozen();
        let config = &self.config;
        let build = |source| ModelFolderError::Parameters {
            name: folder.display().to_string(),
            source: Box::new(source),
        };
        let dim = config.encoder.embed_dim;
        let encoder = Encoder::new(&config.encoder, &vb).map_err(build)?;
        let heads = PretrainingHeads::new(dim, &config.heads, config.head_names, &vb);
        let pretraining = Some(heads.map_err(build)?).filter(|heads| !heads.is_empty());
        // Only the waveform's part of it means something to other encoders.
        let norm = match &input {
            ModelInput::Waveform(norm) => *norm,
            ModelInput::LogMel { .. } => WaveformNorm::None,
        };
        let described = WaveformConfig::new(
            config.encoder.clone(),
            norm,
            Padding::SeenByNorms,
            HeadConfig::None,
        );
        Ok(SpeechModel {
            config: WaveformConfig {
                name: config.name.clone(),
                // Ours, not to be imported.
                provenance: Some(Provenance::default()),
                ..described
            },
            input,
            file: checkpoint::open(&folder.join("model.safetensors"))?,
            parameters: self.parameters.clone(),
            encoder,
            head: Head::None,
            pretraining,
            mask_embedding: vb.get(dim, "mask_emb").ok(),
            unused: Vec::new(),
        })
    }
}
