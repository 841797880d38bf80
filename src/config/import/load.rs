//! From a path to a model: which reader its files need.

use super::build::Described;
use super::error::ImportError;
use super::fairseq::Settings;
use super::hub_folder::HubFolder;
use super::hugging_face::read_json;
use super::weights::Weights;
use super::{espnet, inferred};
use crate::config::speech_model::{SpeechModel, WaveformNorm};
use crate::config::{EncoderFiles, HeadConfig, ModelFiles, ModelFolderError, WaveformConfig};
use crate::features::FAIRSEQ_EPSILON;
use crate::model::checkpoint::{CheckpointFile, NamedTensor, open};
use crate::model::{EncoderConfig, LayerSum, Layout, Padding, UpsamplerOrder};
use serde::Deserialize;
use std::path::Path;

/// Weights of a folder of ours.
pub(super) const OUR_WEIGHTS: &str = "model.safetensors";

/// How a model is read where its files leave a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadOptions {
    /// Order of the up-sampling modules of three or more resolutions.
    pub upsampler_order: UpsamplerOrder,
    /// What a weighted sum of layers adds up.
    pub layer_sum: LayerSum,
}

/// A model of any kind.
#[derive(Debug)]
pub enum AnyModel {
    /// A folder of ours with a recogniser that reads log-mel features.
    Folder(Box<ModelFiles>),
    /// An encoder of waveforms, a released checkpoint or a folder that one was imported to, or
    /// what `asr pretrain` made.
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
    match ours(path).map_err(Box::new)? {
        Some((folder, OurKind::Ctc)) => {
            return Ok(AnyModel::Folder(Box::new(ModelFiles::read(folder)?)));
        }
        Some((folder, OurKind::Encoder)) => {
            let model = EncoderFiles::read(folder)?.speech_model(folder)?;
            return Ok(AnyModel::Speech(Box::new(model)));
        }
        Some((_, OurKind::Waveform)) | None => {}
    }
    Ok(AnyModel::Speech(Box::new(load_speech_model(path, options).map_err(Box::new)?)))
}

/// Loads an encoder of waveforms: a folder that one was imported to, a Hugging Face folder, or a
/// `.pt` or `.pth` file.
///
/// # Errors
/// [`ImportError`] naming the file and what is wrong with it.
pub fn load_speech_model(path: &Path, options: &LoadOptions) -> Result<SpeechModel, ImportError> {
    let name = || path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let mut described = describe(path, options)?;
    if described.config.name.is_empty() {
        described.config.name = name();
    }
    described.build(options.layer_sum)
}

fn describe(path: &Path, options: &LoadOptions) -> Result<Described, ImportError> {
    if let Some((folder, OurKind::Waveform)) = ours(path)? {
        return our_folder(folder);
    }
    if path.is_dir() {
        return HubFolder::read(path)?.describe(Weights::new(open(path)?)?);
    }
    let weights = Weights::new(open(path)?)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    match weights.naming().layout {
        Layout::Fairseq => fairseq_file(folder, weights, options),
        Layout::Transformers => HubFolder::read(folder)?.describe(weights),
        Layout::Torchaudio => torchaudio_file(folder, weights),
    }
}

/// Kinds of folders of ours.
enum OurKind {
    Ctc,
    Encoder,
    Waveform,
}

/// The folder of ours at `path`, or that of the weights at `path`, if it is one.
fn ours(path: &Path) -> Result<Option<(&Path, OurKind)>, ImportError> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Kind {
        model_type: String,
    }
    let folder = match path.file_name() {
        _ if path.is_dir() => path,
        Some(name) if name == OUR_WEIGHTS => path.parent().unwrap_or(Path::new("")),
        _ => return Ok(None),
    };
    let kind = read_json::<Kind>(&folder.join("config.json"))?.map(|kind| kind.model_type);
    Ok(match kind.as_deref() {
        Some("asr-ctc") => Some((folder, OurKind::Ctc)),
        Some("asr-encoder") => Some((folder, OurKind::Encoder)),
        Some(WaveformConfig::MODEL_TYPE) => Some((folder, OurKind::Waveform)),
        _ => None,
    })
}

/// A folder that a checkpoint was imported to.
fn our_folder(folder: &Path) -> Result<Described, ImportError> {
    let path = folder.join("config.json");
    let name = || path.display().to_string();
    let config: WaveformConfig =
        read_json(&path)?.ok_or_else(|| ImportError::NoConfig { path: folder.to_owned() })?;
    config.validate().map_err(|(field, problem)| ImportError::Setting {
        name: name(),
        field,
        problem,
    })?;
    let sound = config.encoder.validate();
    sound.map_err(|source| ImportError::Encoder { name: name(), source })?;
    let weights = Weights::new(open(&folder.join(OUR_WEIGHTS))?)?;
    Ok(Described { config, weights, folder: folder.to_owned() })
}

fn fairseq_file(
    folder: &Path,
    weights: Weights,
    options: &LoadOptions,
) -> Result<Described, ImportError> {
    let name = weights.file().name().to_owned();
    let settings = Settings::find(weights.file().root(), &name).ok_or_else(|| {
        ImportError::NoSettings { name: name.clone(), missing: "`cfg`, `args` and `model_cfg`" }
    })?;
    let tree = weights.naming().prefix.clone() + "middle_encoder.";
    let has_tree = has_name(weights.file(), |name| name.starts_with(&tree));
    let encoder = settings.encoder(has_tree, options.upsampler_order)?;
    let norm = WaveformNorm::of(settings.normalise(), FAIRSEQ_EPSILON);
    let head = match weights.shape("proj.weight").as_deref() {
        // The tokens are in a dictionary file that the checkpoint only names.
        Some(&[vocab_size, dim]) if dim == encoder.embed_dim => {
            HeadConfig::Ctc { vocab_size, spelling: None }
        }
        _ => HeadConfig::None,
    };
    let config = WaveformConfig::new(encoder, norm, Padding::SharedOut, head);
    Ok(Described { config, weights, folder: folder.to_owned() })
}

fn has_name(file: &CheckpointFile, wanted: impl Fn(&str) -> bool) -> bool {
    file.tensors().iter().map(NamedTensor::name).any(wanted)
}

fn torchaudio_file(folder: &Path, weights: Weights) -> Result<Described, ImportError> {
    let settings = folder.join("config.yaml");
    let encoder: EncoderConfig =
        if settings.is_file() { espnet::read(&settings)? } else { inferred::encoder(&weights)? };
    let (norm, padding) = (WaveformNorm::None, Padding::SeenByNorms);
    let config = WaveformConfig::new(encoder, norm, padding, HeadConfig::None);
    Ok(Described { config, weights, folder: folder.to_owned() })
}
