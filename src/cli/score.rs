//! `asr score`.

use super::failure::{AnyError, CliError};
use super::output::write_stdout;
use crate::text::{Scheme, Variant, score};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Score recognised text against references
///
/// Both files hold one utterance per line, `utt_id [lang] text`, or are tab-separated tables
/// with a header. Utterances are matched by id. Rates in JSON are fractions, not percent.
///
/// Example:
///   asr score ref.txt hyp.txt --scheme ml-superb2 -f json
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ScoreArgs {
    /// What was said
    #[arg(value_name = "REF")]
    reference: PathBuf,
    /// What was recognised
    #[arg(value_name = "HYP")]
    hypothesis: PathBuf,
    /// Rules of comparing and averaging: `plain`, `ml-superb` or `ml-superb2`
    #[arg(long, default_value = "plain")]
    scheme: Scheme,
    /// Which scorer of ML-SUPERB 2.0: `recipe` or `server`
    #[arg(long, default_value = "recipe")]
    variant: Variant,
    /// Form of the scores
    #[arg(short = 'f', long = "format", visible_alias = "output-format", alias = "output_format", value_enum, default_value_t = Form::Text)]
    format: Form,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    Text,
    Json,
}

pub(super) fn run(args: &ScoreArgs) -> Result<ExitCode, AnyError> {
    let read = |path: &Path| {
        std::fs::read_to_string(path)
            .map_err(|source| CliError::Read { path: path.to_owned(), source })
    };
    let report =
        score(&read(&args.reference)?, &read(&args.hypothesis)?, args.scheme, args.variant)?;
    let text = match args.format {
        Form::Text => report.to_table(),
        Form::Json => serde_json::to_string_pretty(&report)?,
    };
    write_stdout(format!("{}\n", text.trim_end()).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
