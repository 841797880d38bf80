//! `asr models pull`.

use crate::cli::Talk;
use crate::cli::failure::{AnyError, CliError};
use crate::cli::locate::{hub, pull};
use crate::cli::output::write_stdout;
use crate::hub::Repository;
use clap::Args;
use std::process::ExitCode;

/// Download a model of the Hugging Face Hub and print where it is
///
/// Downloads go where Python's `huggingface_hub` looks for them (HF_HOME). HF_ENDPOINT names
/// another copy of the Hub, HF_TOKEN is shown for models that are not for everyone. What was
/// interrupted is continued.
///
/// Examples:
///   asr models pull facebook/mms-1b-all -l fra -l swh
///   asr models pull s3prl/mr_hubert/multi_base.pt
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct PullArgs {
    /// ORG/NAME, with /FILE where there are several models, with @REVISION if need be
    #[arg(value_name = "ORG/NAME")]
    model: String,
    /// Language whose adapter is wanted, in models that have one for each; may be repeated
    #[arg(short, long, value_name = "LANG")]
    language: Vec<String>,
    /// Leave the network alone: succeed only if the cache holds the model
    #[arg(long)]
    offline: bool,
}

pub(super) fn run(args: &PullArgs, talk: Talk) -> Result<ExitCode, AnyError> {
    let repository: Repository = args
        .model
        .parse()
        .map_err(|source| CliError::Repository { name: args.model.clone(), source })?;
    let hub = hub(args.offline)?;
    let fetched = match hub.cached(&repository, &args.language) {
        Some(fetched) if hub.is_offline() => fetched,
        _ => pull(&hub, &repository, &args.language, talk)?,
    };
    write_stdout(format!("{}\n", fetched.path.display()).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
