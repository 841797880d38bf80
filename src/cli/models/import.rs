//! `asr models import`.

use crate::cli::Talk;
use crate::cli::failure::{AnyError, CliError};
use crate::cli::locate::{Located, card_licence, locate, tell_licence};
use crate::cli::model::{file_sha256, hexadecimal};
use crate::cli::output::write_stdout;
use crate::config::{
    AnyModel, LoadOptions, Provenance, SourceFile, SpeechModel, WriteOptions, load_model,
};
use crate::hub::Licence;
use crate::model::checkpoint::StoredAs;
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Write a checkpoint of others as a folder of ours, with every number as it was
///
/// SOURCE is anything `--model` takes: a Hugging Face folder, a `.pt` or `.pth` file of fairseq,
/// s3prl, unilm, ESPnet or torchaudio, or ORG/NAME on the Hub. OUT becomes a folder that gives
/// the same numbers, bit for bit, and needs nothing of the source: config.json (encoder, head,
/// how the waveform is prepared, names and SHA-256 of the source's files, its licence if stated),
/// model.safetensors, and where there are any vocab.json and an adapter for each language.
/// 16-bit numbers stay 16 bits; what only training used is left out, but for the heads and the
/// mask that pre-training goes on with. Its path is printed.
///
/// Examples:
///   asr models import checkpoint_best.pt mr-hubert/
///   asr models import facebook/mms-1b-all mms/ -l fra,swh     only these adapters
///   asr features clip.wav -m mr-hubert/ -o clip.safetensors
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ImportArgs {
    /// A checkpoint, a folder, or ORG/NAME on the Hugging Face Hub
    #[arg(value_name = "SOURCE")]
    source: String,
    /// Folder to write
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// Languages whose adapters go along, in models that have one for each [default: all there]
    #[arg(short, long, value_name = "LANG,...", value_delimiter = ',')]
    language: Vec<String>,
    /// Leave the network alone: models of the Hub come from the cache
    #[arg(long)]
    offline: bool,
}

pub(super) fn run(args: &ImportArgs, talk: Talk) -> Result<ExitCode, AnyError> {
    let is_ours = || CliError::AlreadyOurs { name: args.source.clone() };
    let Located::Path(path) = locate(&args.source, args.offline, &args.language, talk)? else {
        return Err(is_ours().into());
    };
    let AnyModel::Speech(model) = load_model(&path, &LoadOptions::default())? else {
        return Err(is_ours().into());
    };
    if model.config().provenance.is_some() {
        return Err(is_ours().into());
    }
    if args.output.join("config.json").exists() {
        return Err(CliError::ModelExists { folder: args.output.clone() }.into());
    }
    let provenance = provenance(&model)?;
    tell_licence(&args.source, provenance.licence.as_deref().map(Licence::new).as_ref(), talk);
    let options = WriteOptions {
        name: &name(&args.source, &model),
        stored_as: StoredAs::Exact,
        languages: &args.language,
        provenance,
    };
    model.write(&args.output, &options)?;
    write_stdout(format!("{}\n", args.output.display()).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// What the user knows the model as: ORG/NAME, or the file or folder.
pub(super) fn name(source: &str, model: &SpeechModel) -> String {
    if Path::new(source).exists() { model.name().to_owned() } else { source.to_owned() }
}

/// Where a model comes from: what its own configuration says, else its files.
pub(super) fn provenance(model: &SpeechModel) -> Result<Provenance, AnyError> {
    if let Some(provenance) = &model.config().provenance {
        return Ok(provenance.clone());
    }
    let files = model.checkpoint().files().iter().map(|path| {
        let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Ok(SourceFile { file, sha256: hexadecimal(&file_sha256(path)?) })
    });
    let folder = model.weights().parent().unwrap_or(Path::new(""));
    let licence = card_licence(folder).map(|licence| licence.name().to_owned());
    Ok(Provenance { files: files.collect::<Result<_, CliError>>()?, licence })
}
