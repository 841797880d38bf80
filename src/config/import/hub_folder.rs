//! A Hugging Face folder: its configuration, its preprocessor, its tokenizer.

use super::adapters::read_tokens;
use super::build::Described;
use super::error::ImportError;
use super::hugging_face::{HubConfig, HubHead, Preprocessor, read_bytes, read_json};
use super::weights::Weights;
use crate::config::speech_model::WaveformNorm;
use crate::config::{HeadConfig, Spelling, WaveformConfig};
use crate::features::TRANSFORMERS_EPSILON;
use crate::model::{EncoderConfig, Padding};
use crate::text::CtcTokens;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// What stands in a folder beside the weights.
pub(super) struct HubFolder {
    folder: PathBuf,
    /// `config.json`, for errors.
    name: String,
    hub: HubConfig,
    encoder: EncoderConfig,
    preprocessor: Preprocessor,
}

/// Special tokens; either form of `tokenizer_config.json` and `special_tokens_map.json`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Tokenizer {
    pad_token: Option<Token>,
    word_delimiter_token: Option<Token>,
    target_lang: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Token {
    Text(String),
    Added { content: String },
}

impl Token {
    fn text(self) -> String {
        match self {
            Self::Text(text) | Self::Added { content: text } => text,
        }
    }
}

impl HubFolder {
    /// Reads everything but the weights and the vocabulary.
    pub(super) fn read(folder: &Path) -> Result<Self, ImportError> {
        let path = folder.join("config.json");
        let name = path.display().to_string();
        let hub: HubConfig =
            read_json(&path)?.ok_or_else(|| ImportError::NoConfig { path: folder.to_owned() })?;
        let encoder = hub.encoder(&name)?;
        let path = folder.join("preprocessor_config.json");
        let preprocessor: Preprocessor = read_json(&path)?.unwrap_or_default();
        if preprocessor.sampling_rate != 16_000 {
            return Err(ImportError::Setting {
                name: path.display().to_string(),
                field: "sampling_rate",
                problem: "must be 16000, no encoder of another rate is known",
            });
        }
        Ok(Self { folder: folder.to_owned(), name, hub, encoder, preprocessor })
    }

    /// Puts it together with the weights.
    pub(super) fn describe(self, weights: Weights) -> Result<Described, ImportError> {
        let head = match self.hub.head(|name| weights.shape(name).is_some()) {
            HubHead::None => HeadConfig::None,
            HubHead::Ctc => self.ctc()?,
            HubHead::Classifier => {
                let layers: usize = self.encoder.stage_layers.iter().sum();
                HeadConfig::Classifier {
                    labels: self.hub.labels(&self.name)?,
                    width: self.hub.classifier_proj_size,
                    states: self.hub.use_weighted_layer_sum.then_some(layers + 1),
                }
            }
        };
        let norm = WaveformNorm::of(self.preprocessor.do_normalize, TRANSFORMERS_EPSILON);
        let padding = if self.preprocessor.return_attention_mask {
            Padding::SeenByNorms
        } else {
            Padding::Sound
        };
        let config = WaveformConfig::new(self.encoder, norm, padding, head);
        Ok(Described { config, weights, folder: self.folder })
    }

    fn ctc(&self) -> Result<HeadConfig, ImportError> {
        let read = |name| read_json::<Tokenizer>(&self.folder.join(name));
        let tokenizer = read("tokenizer_config.json")?.unwrap_or_default();
        let special = read("special_tokens_map.json")?.unwrap_or_default();
        let or = |token: Option<Token>, other: Option<Token>, default: &str| {
            token.or(other).map_or_else(|| default.to_owned(), Token::text)
        };
        let spelling = Spelling {
            blank: or(tokenizer.pad_token, special.pad_token, "<pad>"),
            delimiter: or(tokenizer.word_delimiter_token, special.word_delimiter_token, "|"),
        };
        let path = self.folder.join("vocab.json");
        let Some(json) = read_bytes(&path)? else {
            return Ok(HeadConfig::Ctc { vocab_size: self.hub.vocab_size, spelling: None });
        };
        let languages = CtcTokens::languages(&json)
            .map_err(|source| ImportError::Vocabulary { path: path.clone(), source })?;
        let own = match (&tokenizer.target_lang, languages.first()) {
            (_, None) => None,
            (Some(own), Some(_)) if languages.contains(own) => Some(own.clone()),
            // transformers' own default, else the only one there may be.
            (_, Some(first)) => {
                Some(languages.iter().find(|l| *l == "eng").unwrap_or(first).clone())
            }
        };
        if self.encoder.variant.adapter_dim.is_some() {
            return Ok(HeadConfig::Languages {
                own: own.unwrap_or_else(|| "und".to_owned()),
                spelling,
            });
        }
        let vocab_size = read_tokens(&self.folder, own.as_deref(), &spelling)?.len();
        Ok(HeadConfig::Ctc { vocab_size, spelling: Some(spelling) })
    }
}
