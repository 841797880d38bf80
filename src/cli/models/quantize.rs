//! `asr models quantize`.

use crate::cli::Talk;
use crate::cli::failure::{AnyError, CliError};
use crate::cli::locate::{Located, locate};
use crate::config::{AnyModel, LoadOptions, embedded_model, load_model};
use crate::model::checkpoint::StoredAs;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

/// Write a model with its matrices in 8 bits
///
/// The folder is half the size of one in 16 bits and works everywhere a model does. With
/// `--precision int8` its integers are what is computed with; any model may be run so,
/// quantised when it is loaded.
///
/// Example:
///   asr models quantize runs/mine/model -o mine-int8
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct QuantizeArgs {
    /// `default` or a folder made by `asr finetune`
    #[arg(value_name = "MODEL")]
    model: String,
    /// Folder to write
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
}

pub(super) fn run(args: &QuantizeArgs, talk: Talk) -> Result<ExitCode, AnyError> {
    let model = match locate(&args.model, true, &[], talk)? {
        Located::Embedded => AnyModel::Folder(Box::new(embedded_model()?)),
        Located::Path(path) => load_model(&path, &LoadOptions::default())?,
    };
    let AnyModel::Folder(files) = model else {
        return Err(CliError::NotAFolder { name: args.model.clone() }.into());
    };
    files.write(&args.output, StoredAs::Int8)?;
    talk.progress(format_args!("written to `{}`", args.output.display()));
    Ok(ExitCode::SUCCESS)
}
