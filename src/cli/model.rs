//! The options that choose and run a model, the same on every command.

use super::Talk;
use super::device::DeviceArgs;
use super::failure::{AnyError, CliError};
use super::locate::{Located, locate};
use crate::config::{
    AnyModel, DEFAULT_MODEL, LoadOptions, embedded_model, embedded_weights, load_model,
};
use crate::decode::{Extractor, FrameModel, ReleasedTranscriber, Transcribe, Transcriber};
use crate::model::Parameters;
use asr_kernels::Precision;
use clap::{Args, ValueEnum};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
pub(super) struct ModelArgs {
    /// Model: `default` (inside the binary), a folder made by `asr finetune`, a Hugging Face
    /// folder, a checkpoint of fairseq, unilm, s3prl, ESPnet or torchaudio (`.pt`, `.pth`), or
    /// ORG/NAME on the Hugging Face Hub
    #[arg(short, long, value_name = "NAME|PATH|ORG/NAME", default_value = DEFAULT_MODEL)]
    model: String,
    /// Leave the network alone: models of the Hub come from the cache
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    device: DeviceArgs,
    /// Threads to compute with [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Arithmetic of matrix products; `bf16` and, with weights of 8 bits, `int8` are faster on
    /// CPUs that have it, `auto` is f32; on CUDA devices `int8` is `bf16`; `all`, each in turn,
    /// is for `asr bench speed`
    #[arg(long, value_enum, default_value_t = Arithmetic::Auto)]
    precision: Arithmetic,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Arithmetic {
    Auto,
    F32,
    Bf16,
    Int8,
    All,
}

/// A model ready to use, and what identifies it.
pub(super) struct LoadedModel {
    pub(super) transcriber: Box<dyn Transcribe>,
    pub(super) name: String,
    /// Arithmetic of matrix products, as `--precision` names it.
    pub(super) precision: &'static str,
    weights: Weights,
}

enum Weights {
    Embedded,
    File(PathBuf),
}

impl ModelArgs {
    /// Sets up threads and device and reads the model, with its path if it is not the one in the binary.
    fn any(
        &self,
        languages: &[String],
        talk: Talk,
    ) -> Result<(AnyModel, Option<PathBuf>), AnyError> {
        self.device.apply(talk)?;
        if let Some(threads) = self.threads {
            let threads = usize::from(threads);
            let built = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
            // A second model of the same command finds the threads there.
            if rayon::current_num_threads() != threads {
                built?;
            }
        }
        Ok(match locate(&self.model, self.offline, languages, talk)? {
            Located::Embedded => (AnyModel::Folder(Box::new(embedded_model()?)), None),
            Located::Path(path) => (load_model(&path, &LoadOptions::default())?, Some(path)),
        })
    }

    /// The arithmetic with its name, where one is asked for.
    fn precision(&self) -> Result<(&'static str, Precision), AnyError> {
        match self.precisions()[..] {
            [one] => Ok(one),
            _ => Err(CliError::SeveralPrecisions.into()),
        }
    }

    /// Every kind of arithmetic asked for, with its name.
    pub(super) fn precisions(&self) -> Vec<(&'static str, Precision)> {
        let all = [("f32", Precision::F32), ("bf16", Precision::Bf16), ("int8", Precision::Int8)];
        match self.precision {
            Arithmetic::Auto | Arithmetic::F32 => all[..1].to_vec(),
            Arithmetic::Bf16 => all[1..2].to_vec(),
            Arithmetic::Int8 => all[2..].to_vec(),
            Arithmetic::All => all.to_vec(),
        }
    }

    /// Sets up threads and reads the model for one kind of arithmetic, with its path if it is
    /// not the one in the binary.
    pub(super) fn read(
        &self,
        talk: Talk,
    ) -> Result<(AnyModel, Option<PathBuf>, Precision), AnyError> {
        let (_, arithmetic) = self.precision()?;
        let (model, path) = self.any(&[], talk)?;
        Ok((model, path, arithmetic))
    }

    /// The same options for another model.
    pub(super) fn of_model(&self, model: String) -> Self {
        Self { model, ..self.clone() }
    }

    /// The model as it was asked for.
    pub(super) fn name(&self) -> &str {
        &self.model
    }

    /// Sets up threads and loads the model for one kind of arithmetic, to be measured.
    pub(super) fn measured(&self, precision: Precision, talk: Talk) -> Result<Extractor, AnyError> {
        let (model, _) = self.any(&[], talk)?;
        Ok(Extractor::new(model, precision)?)
    }

    /// Sets up threads and loads the model to look inside it; tells of tensors it leaves unused.
    /// `languages` are those whose adapters will be wanted.
    pub(super) fn extractor(
        &self,
        languages: &[String],
        talk: Talk,
    ) -> Result<Extractor, AnyError> {
        let (_, arithmetic) = self.precision()?;
        let (model, _) = self.any(languages, talk)?;
        if let AnyModel::Speech(model) = &model {
            tell_unused(model.unused(), talk);
        }
        Ok(Extractor::new(model, arithmetic)?)
    }

    /// Sets up threads and loads the model; `languages` pick the adapters of a model that has
    /// one for each.
    pub(super) fn load(&self, languages: &[String], talk: Talk) -> Result<LoadedModel, AnyError> {
        let (precision, arithmetic) = self.precision()?;
        let (model, path) = self.any(languages, talk)?;
        match model {
            AnyModel::Folder(files) => {
                let weights = path.map_or(Weights::Embedded, |folder| {
                    Weights::File(folder.join("model.safetensors"))
                });
                let transcriber = Box::new(Transcriber::new(&files, arithmetic)?);
                Ok(LoadedModel { transcriber, name: files.config.name, precision, weights })
            }
            AnyModel::Speech(model) => {
                tell_unused(model.unused(), talk);
                let is_path = Path::new(&self.model).exists();
                let name = if is_path { model.name() } else { &self.model }.to_owned();
                let file = model.weights().to_owned();
                let asked: Vec<&str> = languages.iter().map(String::as_str).collect();
                let transcriber = ReleasedTranscriber::new(*model, &asked, arithmetic)?;
                if let (true, Some(own)) = (asked.is_empty(), transcriber.languages().next()) {
                    talk.warn(format_args!(
                        "the model has an adapter for each language and none was asked for: \
                         `{own}` is used (choose with `--language`)"
                    ));
                }
                let transcriber = Box::new(transcriber);
                Ok(LoadedModel { transcriber, name, precision, weights: Weights::File(file) })
            }
        }
    }
}

/// Tells of tensors that no part of the model uses.
fn tell_unused(unused: &[String], talk: Talk) {
    const SHOWN: usize = 5;
    if unused.is_empty() {
        return;
    }
    let more = match unused.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let names: Vec<String> =
        unused.iter().take(SHOWN).map(|name| format!("`{}`", name.escape_debug())).collect();
    talk.warn(format_args!("the model does not use {}{more}", names.join(", ")));
}

impl LoadedModel {
    /// The model frame by frame, for streams, words and their times.
    pub(super) fn frames(&self) -> Result<&dyn FrameModel, CliError> {
        self.transcriber.frames().ok_or_else(|| {
            let name = self.name.clone();
            if self.transcriber.writes_text() {
                CliError::OneLanguage { name }
            } else {
                CliError::NoText { name }
            }
        })
    }

    /// SHA-256 of the weights, in hexadecimal.
    pub(super) fn sha256(&self) -> Result<String, AnyError> {
        Ok(match &self.weights {
            Weights::Embedded => hexadecimal(&embedded_sha256()),
            Weights::File(path) => hexadecimal(&file_sha256(path)?),
        })
    }
}

/// SHA-256 of the weights of the model inside the binary.
pub(super) fn embedded_sha256() -> [u8; 32] {
    Sha256::digest(embedded_weights()).into()
}

/// SHA-256 of names and numbers of parameters, in hexadecimal.
pub(super) fn parameters_sha256(parameters: &Parameters) -> Result<String, AnyError> {
    let mut hasher = Sha256::new();
    for (name, var) in parameters.all() {
        hasher.update(name.as_bytes());
        let values = var.flatten_all()?.to_vec1::<f32>()?;
        values.iter().for_each(|value| hasher.update(value.to_le_bytes()));
    }
    Ok(hexadecimal(&hasher.finalize()))
}

/// SHA-256 of the weights of a model read by [`ModelArgs::read`], in hexadecimal.
pub(super) fn weights_sha256(model: &AnyModel, path: Option<&Path>) -> Result<String, CliError> {
    let digest = match (model, path) {
        (_, None) => embedded_sha256(),
        (AnyModel::Folder(_), Some(folder)) => file_sha256(&folder.join("model.safetensors"))?,
        (AnyModel::Speech(model), Some(_)) => file_sha256(model.weights())?,
    };
    Ok(hexadecimal(&digest))
}

/// SHA-256 of a file.
pub(super) fn file_sha256(path: &Path) -> Result<[u8; 32], CliError> {
    let read = |source| CliError::Read { path: path.to_owned(), source };
    let mut hasher = Sha256::new();
    std::io::copy(&mut std::fs::File::open(path).map_err(read)?, &mut hasher).map_err(read)?;
    Ok(hasher.finalize().into())
}

pub(super) fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
