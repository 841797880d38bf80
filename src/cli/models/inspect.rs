//! `asr models inspect`.

use super::facts::ModelFacts;
use crate::cli::Talk;
use crate::cli::failure::AnyError;
use crate::cli::locate::{Located, card_licence, locate};
use crate::cli::output::write_stdout;
use crate::config::{
    AnyModel, DEFAULT_MODEL, ImportError, LoadError, LoadOptions, Provenance, embedded_model,
    embedded_weights, load_model,
};
use crate::hub::Licence;
use crate::model::checkpoint::{CheckpointFile, NamedTensor, open};
use clap::Args;
use serde::Serialize;
use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

/// Say what a model or checkpoint holds, and whether it can be used
///
/// Family, size, layers, frame rates, labels, licence, and every tensor with its type and shape.
/// The model is loaded as for use, so what this accepts, `--model` does. Damaged or hostile files
/// are errors that name the file and the reason; nothing in a file is ever run, so any download
/// can be looked at. Tensors that no part of the model uses are named in a warning. A checkpoint
/// without a speech encoder is shown tensor by tensor.
///
/// Examples:
///   asr models inspect default
///   asr models inspect facebook/mms-lid-126 --json
///   asr models inspect checkpoint_best.pt
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct InspectArgs {
    /// `default`, a checkpoint, a folder, or ORG/NAME on the Hugging Face Hub
    #[arg(value_name = "FILE|DIR|NAME")]
    model: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Leave the network alone: models of the Hub come from the cache
    #[arg(long)]
    offline: bool,
}

/// What is said of a model; the layout of schema 1.
#[derive(Serialize)]
struct Report {
    schema: u32,
    path: String,
    container: String,
    /// Elements of all tensors in the file, whether the model uses them or not.
    elements: usize,
    /// Absent for a checkpoint without a speech encoder that could be built.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<ModelFacts>,
    licence: Option<String>,
    /// What an imported model was made from.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<Provenance>,
    /// Tensors that no part of the model uses.
    unused: Vec<String>,
    tensors: Vec<TensorEntry>,
}

#[derive(Serialize)]
struct TensorEntry {
    name: String,
    dtype: String,
    shape: Vec<usize>,
}

impl From<&NamedTensor> for TensorEntry {
    fn from(tensor: &NamedTensor) -> Self {
        Self {
            name: tensor.name().to_owned(),
            dtype: tensor.element_type().to_string(),
            shape: tensor.shape().to_vec(),
        }
    }
}

pub(super) fn run(args: &InspectArgs, talk: Talk) -> Result<ExitCode, AnyError> {
    let report = match locate(&args.model, args.offline, &[], talk)? {
        Located::Embedded => {
            let file = CheckpointFile::from_static(embedded_weights(), DEFAULT_MODEL)?;
            let model = AnyModel::Folder(Box::new(embedded_model()?));
            Report::new(&file, Some(&model), None)
        }
        Located::Path(path) => inspect(&path, talk)?,
    };
    if let Some(unused) = named(&report.unused) {
        talk.warn(format_args!("`{}` holds tensors that nothing uses: {unused}", report.path));
    }
    let text =
        if args.json { serde_json::to_string_pretty(&report)? + "\n" } else { report.text()? };
    write_stdout(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn inspect(path: &Path, talk: Talk) -> Result<Report, AnyError> {
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
    let licence = card_licence(folder);
    match load_model(path, &LoadOptions::default()) {
        Ok(model) => match &model {
            AnyModel::Speech(speech) => Ok(Report::new(speech.checkpoint(), Some(&model), licence)),
            AnyModel::Folder(_) => Ok(Report::new(&open(path)?, Some(&model), licence)),
        },
        // A file may hold something else than a speech encoder; a folder is a model or an error.
        Err(LoadError::Import(error))
            if !path.is_dir()
                && matches!(
                    *error,
                    ImportError::NoEncoder { .. }
                        | ImportError::NoSettings { .. }
                        | ImportError::NoConfig { .. }
                ) =>
        {
            let file = open(path)?;
            talk.warn(error);
            Ok(Report::new(&file, None, licence))
        }
        Err(error) => Err(error.into()),
    }
}

/// Some names in backticks, all of them if they are few.
fn named(names: &[String]) -> Option<String> {
    const SHOWN: usize = 20;
    let shown: Vec<String> =
        names.iter().take(SHOWN).map(|name| format!("`{}`", name.escape_debug())).collect();
    match names.len() {
        0 => None,
        n if n > SHOWN => Some(format!("{} and {} more", shown.join(", "), n - SHOWN)),
        _ => Some(shown.join(", ")),
    }
}

impl Report {
    fn new(file: &CheckpointFile, model: Option<&AnyModel>, licence: Option<Licence>) -> Self {
        let (unused, source) = match model {
            Some(AnyModel::Speech(model)) => {
                (model.unused().to_vec(), model.config().provenance.clone())
            }
            _ => (Vec::new(), None),
        };
        let stated = source.as_ref().and_then(|source| source.licence.clone());
        Self {
            schema: 1,
            path: file.name().to_owned(),
            container: file.container().to_string(),
            elements: file.tensors().iter().map(|tensor| tensor.stored().elements()).sum(),
            model: model.map(ModelFacts::new),
            licence: licence.map(|licence| licence.name().to_owned()).or(stated),
            source,
            unused,
            tensors: file.tensors().iter().map(Into::into).collect(),
        }
    }

    /// Facts, an empty line, and the tensors as a table.
    fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        let mut fact =
            |name: &str, value: &dyn std::fmt::Display| writeln!(text, "{name:<14}{value}");
        fact("file", &self.path)?;
        fact("container", &self.container)?;
        if let Some(model) = &self.model {
            for (name, value) in model.lines() {
                fact(name, &value)?;
            }
        }
        let licence = self.licence.as_deref().map(|name| name.escape_debug().to_string());
        fact("licence", &licence.as_deref().unwrap_or("not stated"))?;
        for file in self.source.iter().flat_map(|source| &source.files) {
            let (name, sha256) = (file.file.escape_debug(), file.sha256.escape_debug());
            fact("made from", &format_args!("{name}, SHA-256 {sha256}"))?;
        }
        fact("tensors", &format_args!("{}, {} elements", self.tensors.len(), self.elements))?;
        let names: Vec<String> =
            self.tensors.iter().map(|tensor| tensor.name.escape_debug().to_string()).collect();
        let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        text.push('\n');
        for (name, tensor) in names.iter().zip(&self.tensors) {
            let sizes: Vec<String> = tensor.shape.iter().map(ToString::to_string).collect();
            writeln!(text, "{name:width$}  {:<4}  ({})", tensor.dtype, sizes.join(", "))?;
        }
        Ok(text)
    }
}
