//! `asr models quantize`.

use super::import::{name, provenance};
use crate::cli::Talk;
use crate::cli::failure::AnyError;
use crate::cli::locate::{Located, locate};
use crate::config::{AnyModel, LoadOptions, WriteOptions, embedded_model, load_model};
use crate::model::checkpoint::StoredAs;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

/// Write a model with its matrices in 8 bits
///
/// The folder is half the size of one in 16 bits and works everywhere a model does, with small
/// differences in its numbers. With `--precision int8` its integers are what is computed with;
/// any model may be run so, quantised when it is loaded.
///
/// Examples:
///   asr models quantize runs/mine/model -o mine-int8
///   asr models quantize checkpoint_best.pt -o mr-hubert-int8
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct QuantizeArgs {
    /// `default`, a folder, a checkpoint, or ORG/NAME on the Hugging Face Hub
    #[arg(value_name = "MODEL")]
    model: String,
    /// Folder to write
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// Leave the network alone: models of the Hub come from the cache
    #[arg(long)]
    offline: bool,
}

pub(super) fn run(args: &QuantizeArgs, talk: Talk) -> Result<ExitCode, AnyError> {
    let model = match locate(&args.model, args.offline, &[], talk)? {
        Located::Embedded => AnyModel::Folder(Box::new(embedded_model()?)),
        Located::Path(path) => load_model(&path, &LoadOptions::default())?,
    };
    match model {
        AnyModel::Folder(files) => files.write(&args.output, StoredAs::Int8)?,
        AnyModel::Speech(model) => model.write(
            &args.output,
            &WriteOptions {
                name: &name(&args.model, &model),
                stored_as: StoredAs::Int8,
                languages: &[],
                provenance: provenance(&model)?,
            },
        )?,
    }
    talk.progress(format_args!("written to `{}`", args.output.display()));
    Ok(ExitCode::SUCCESS)
}
