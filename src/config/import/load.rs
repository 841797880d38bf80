//! From a path to a model that is ready to run.

use super::adapters::{
    LanguageUnit, LanguageUnits, Spelling, adapter, check_vocabulary, read_tokens,
};
use super::error::ImportError;
use super::fairseq::Settings;
use super::hugging_face::{HubConfig, HubHead, Preprocessor, read_bytes, read_json};
use super::weights::Weights;
use super::{espnet, inferred};
use crate::config::speech_model::{Head, SpeechModel, WaveformNorm};
use crate::config::{ModelFiles, ModelFolderError};
use crate::features::{FAIRSEQ_EPSILON, TRANSFORMERS_EPSILON};
use crate::model::checkpoint::{CheckpointFile, NamedTensor, open};
use crate::model::{
    ClassifierHead, CtcHead, Encoder, EncoderConfig, LayerSum, Layout, Padding, Parameters,
    PredictionShape, PretrainingHeads, Requirement, UpsamplerOrder, requirements,
};
use crate::text::CtcTokens;
use candle_nn::VarBuilder;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// How a model is read where its files leave a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadOptions {
    /// Order of the up-sampling modules of three or more resolutions.
    pub upsampler_order: UpsamplerOrder,
    /// What a weighted sum of layers adds up.
    pub layer_sum: LayerSum,
}

/// A model of ours or of others.
#[derive(Debug)]
pub enum AnyModel {
    /// A folder of ours.
    Folder(Box<ModelFiles>),
    /// A released checkpoint.
    Speech(Box<SpeechModel>),
}

/// A model that cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A folder of ours.
    #[error(transparent)]
    Folder(#[from] ModelFolderError),
    /// A checkpoint of others.
    #[error(transparent)]
    Import(#[from] Box<ImportError>),
}

/// Loads a model folder of ours, a Hugging Face folder, or a `.pt` or `.pth` file.
///
/// # Errors
/// [`LoadError`] naming the file and what is wrong with it.
pub fn load_model(path: &Path, options: &LoadOptions) -> Result<AnyModel, LoadError> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Kind {
        model_type: String,
    }
    let config = path.join("config.json");
    if path.is_dir()
        && read_json::<Kind>(&config).map_err(Box::new)?.is_some_and(|k| k.model_type == "asr-ctc")
    {
        return Ok(AnyModel::Folder(Box::new(ModelFiles::read(path)?)));
    }
    Ok(AnyModel::Speech(Box::new(load_speech_model(path, options).map_err(Box::new)?)))
}

/// Loads a released checkpoint: a Hugging Face folder, or a `.pt` or `.pth` file.
///
/// # Errors
/// [`ImportError`] naming the file and what is wrong with it.
pub fn load_speech_model(path: &Path, options: &LoadOptions) -> Result<SpeechModel, ImportError> {
    if path.is_dir() {
        return hub_folder(path, path, options);
    }
    let weights = Weights::new(open(path)?)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    match weights.naming().layout {
        Layout::Fairseq => fairseq_file(path, weights, options),
        Layout::Transformers => {
            drop(weights);
            hub_folder(folder, path, options)
        }
        Layout::Torchaudio => torchaudio_file(path, folder, weights),
    }
}

/// What the parts of a model are put together from.
struct Parts {
    config: EncoderConfig,
    weights: Weights,
    prediction: Vec<PredictionShape>,
    has_mask: bool,
    n_parameters: usize,
}

impl Parts {
    fn new(config: EncoderConfig, weights: Weights) -> Self {
        let prediction = prediction_shapes(&config, &weights);
        let has_mask = weights.shape("mask_emb").as_deref() == Some(&[config.embed_dim]);
        Self { config, weights, prediction, has_mask, n_parameters: 0 }
    }

    fn error(&self, source: candle_core::Error) -> ImportError {
        ImportError::Model { name: self.weights.file().name().to_owned(), source: Box::new(source) }
    }

    /// Reads the parameters that `build` asks for and builds on them.
    fn build<T>(
        &mut self,
        build: impl Fn(&VarBuilder) -> candle_core::Result<T>,
    ) -> Result<T, ImportError> {
        let asked = requirements(&build).map_err(|e| self.error(e))?;
        let parameters = self.read(&asked)?;
        build(&parameters.frozen()).map_err(|e| self.error(e))
    }

    fn read(&mut self, asked: &[Requirement]) -> Result<Parameters, ImportError> {
        let parameters = self.weights.read(asked)?;
        self.n_parameters += parameters.count();
        Ok(parameters)
    }

    fn finish(
        mut self,
        path: &Path,
        head: impl FnOnce(&mut Self) -> Result<Head, ImportError>,
        norm: WaveformNorm,
        reference: Padding,
    ) -> Result<SpeechModel, ImportError> {
        let config = self.config.clone();
        let encoder = self.build(|vb| Encoder::new(&config, vb))?;
        let head = head(&mut self)?;
        let shapes = std::mem::take(&mut self.prediction);
        let pretraining = if shapes.is_empty() {
            None
        } else {
            let single = self.weights.shape("final_projs.0.weight").is_none();
            let dim = config.embed_dim;
            Some(self.build(|vb| PretrainingHeads::new(dim, &shapes, single, vb))?)
        };
        let mask_embedding = if self.has_mask {
            Some(self.build(|vb| vb.get(config.embed_dim, "mask_emb"))?)
        } else {
            None
        };
        let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Ok(SpeechModel {
            name,
            weights: PathBuf::from(self.weights.file().name()),
            encoder,
            head,
            pretraining,
            mask_embedding,
            norm,
            reference,
            n_parameters: self.n_parameters,
            unused: self.weights.unused(),
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

fn fairseq_file(
    path: &Path,
    weights: Weights,
    options: &LoadOptions,
) -> Result<SpeechModel, ImportError> {
    let name = weights.file().name().to_owned();
    let settings = Settings::find(weights.file().root(), &name).ok_or_else(|| {
        ImportError::NoSettings { name: name.clone(), missing: "`cfg`, `args` and `model_cfg`" }
    })?;
    let tree = weights.naming().prefix.clone() + "middle_encoder.";
    let has_tree = has_name(weights.file(), |name| name.starts_with(&tree));
    let config = settings.encoder(has_tree, options.upsampler_order)?;
    let norm = WaveformNorm::of(settings.normalise(), FAIRSEQ_EPSILON);
    let parts = Parts::new(config, weights);
    let head = |parts: &mut Parts| match parts.weights.shape("proj.weight").as_deref() {
        Some(&[outputs, dim]) if dim == parts.config.embed_dim => {
            // The tokens are in a dictionary file that the checkpoint only names.
            let head = parts.build(|vb| CtcHead::new(dim, outputs, vb))?;
            Ok(Head::Ctc { head, tokens: None })
        }
        _ => Ok(Head::None),
    };
    parts.finish(path, head, norm, Padding::SharedOut)
}

fn has_name(file: &CheckpointFile, wanted: impl Fn(&str) -> bool) -> bool {
    file.tensors().iter().map(NamedTensor::name).any(wanted)
}

fn torchaudio_file(
    path: &Path,
    folder: &Path,
    weights: Weights,
) -> Result<SpeechModel, ImportError> {
    let settings = folder.join("config.yaml");
    let config =
        if settings.is_file() { espnet::read(&settings)? } else { inferred::encoder(&weights)? };
    let parts = Parts::new(config, weights);
    parts.finish(path, |_| Ok(Head::None), WaveformNorm::None, Padding::SeenByNorms)
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

fn hub_folder(
    folder: &Path,
    weights_path: &Path,
    options: &LoadOptions,
) -> Result<SpeechModel, ImportError> {
    let config_path = folder.join("config.json");
    let config_name = config_path.display().to_string();
    let hub: HubConfig = read_json(&config_path)?
        .ok_or_else(|| ImportError::NoConfig { path: folder.to_owned() })?;
    let config = hub.encoder(&config_name)?;
    let preprocessor: Preprocessor =
        read_json(&folder.join("preprocessor_config.json"))?.unwrap_or_default();
    if preprocessor.sampling_rate != 16_000 {
        return Err(ImportError::Setting {
            name: folder.join("preprocessor_config.json").display().to_string(),
            field: "sampling_rate",
            problem: "must be 16000, no encoder of another rate is known",
        });
    }
    let norm = WaveformNorm::of(preprocessor.do_normalize, TRANSFORMERS_EPSILON);
    let reference =
        if preprocessor.return_attention_mask { Padding::SeenByNorms } else { Padding::Sound };
    let parts = Parts::new(config, Weights::new(open(weights_path)?)?);
    let head = |parts: &mut Parts| {
        let dim = parts.config.embed_dim;
        match hub.head(|name| parts.weights.shape(name).is_some()) {
            HubHead::None => Ok(Head::None),
            HubHead::Ctc => ctc_head(folder, &hub, parts),
            HubHead::Classifier => {
                let labels = hub.labels(&config_name)?;
                let layers: usize = parts.config.stage_layers.iter().sum();
                let states = hub.use_weighted_layer_sum.then_some(layers + 1);
                let (width, classes) = (hub.classifier_proj_size, labels.len());
                let head =
                    parts.build(|vb| ClassifierHead::new(dim, width, classes, states, vb))?;
                Ok(Head::Classifier { head, labels, sum: options.layer_sum })
            }
        }
    };
    parts.finish(weights_path, head, norm, reference)
}

fn ctc_head(folder: &Path, hub: &HubConfig, parts: &mut Parts) -> Result<Head, ImportError> {
    let dim = parts.config.embed_dim;
    let tokenizer: Tokenizer =
        read_json(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
    let special: Tokenizer =
        read_json(&folder.join("special_tokens_map.json"))?.unwrap_or_default();
    let or = |token: Option<Token>, other: Option<Token>, default: &str| {
        token.or(other).map_or_else(|| default.to_owned(), Token::text)
    };
    let spelling = Spelling {
        blank: or(tokenizer.pad_token, special.pad_token, "<pad>"),
        delimiter: or(tokenizer.word_delimiter_token, special.word_delimiter_token, "|"),
    };
    let path = folder.join("vocab.json");
    let vocabulary = |source| ImportError::Vocabulary { path: path.clone(), source };
    let Some(json) = read_bytes(&path)? else {
        let head = parts.build(|vb| CtcHead::new(dim, hub.vocab_size, vb))?;
        return Ok(Head::Ctc { head, tokens: None });
    };
    let languages = CtcTokens::languages(&json).map_err(vocabulary)?;
    drop(json);
    let own = match (&tokenizer.target_lang, languages.first()) {
        (_, None) => None,
        (Some(own), Some(_)) if languages.contains(own) => Some(own.clone()),
        // transformers' own default, else the only one there may be.
        (_, Some(first)) => Some(languages.iter().find(|l| *l == "eng").unwrap_or(first).clone()),
    };
    let tokens = read_tokens(folder, own.as_deref(), &spelling)?;
    if parts.config.variant.adapter_dim.is_some() {
        let adapter = adapter(&parts.config, &tokens, &mut parts.weights)?;
        let language = own.unwrap_or_else(|| "und".to_owned());
        let unit = LanguageUnit { language, adapter, tokens };
        let units = LanguageUnits::new(folder, &parts.config, spelling, unit);
        return Ok(Head::Languages(Box::new(units)));
    }
    check_vocabulary(&parts.weights, tokens.len())?;
    let head = parts.build(|vb| CtcHead::new(dim, tokens.len(), vb))?;
    Ok(Head::Ctc { head, tokens: Some(tokens) })
}
