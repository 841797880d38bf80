//! `asr models pull`.

use crate::cli::Talk;
use crate::cli::failure::{AnyError, CliError};
use crate::cli::locate::{adapter_names, hub, pull};
use crate::cli::output::write_stdout;
use crate::hub::Repository;
use clap::Args;
use std::process::ExitCode;

/// Download a model of the Hugging Face Hub and print the path of its folder or file
///
/// Not needed before use: `--model ORG/NAME` downloads what is missing. Here it is fetched ahead,
/// or brought up to date, and its licence is said.
///
/// Downloads go where Python's `huggingface_hub` looks for them: the folder in HF_HOME, else
/// ~/.cache/huggingface. HF_ENDPOINT names another copy of the Hub; HF_TOKEN is your token, for
/// models whose terms one has to accept. An interrupted download goes on where it stopped.
///
/// Examples:
///   asr models pull facebook/hubert-base-ls960
///   asr models pull facebook/mms-1b-all -l fr,swh          with the adapters of two languages
///   asr models pull s3prl/mr_hubert/multi_base.pt         one of several files
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct PullArgs {
    /// ORG/NAME, with /FILE where there are several models, with @REVISION if need be
    #[arg(value_name = "ORG/NAME")]
    model: String,
    /// Languages whose adapters are wanted, in models that have one for each
    #[arg(short, long, value_name = "LANG,...", value_delimiter = ',')]
    language: Vec<String>,
    /// Leave the network alone: say where the model is if it was downloaded before
    #[arg(long)]
    offline: bool,
}

pub(super) fn run(args: &PullArgs, talk: Talk) -> Result<ExitCode, AnyError> {
    let repository: Repository = args
        .model
        .parse()
        .map_err(|source| CliError::Repository { name: args.model.clone(), source })?;
    let hub = hub(args.offline)?;
    let fetched = match hub.cached(&repository, &adapter_names(&args.language)) {
        Some(fetched) if hub.is_offline() => fetched,
        _ => pull(&hub, &repository, &args.language, talk)?,
    };
    write_stdout(format!("{}\n", fetched.path.display()).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
