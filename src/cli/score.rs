//! `asr score`.

use super::Talk;
use super::failure::{AnyError, CliError};
use super::output::write_stdout;
use super::report::{Labels, place, provenance};
use crate::bench::ml_superb::published::LabelSet;
use crate::bench::report::Report;
use crate::text::{Scheme, Variant, score_utterances};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Score recognised text against references
///
/// Both files hold one utterance per line, `utt_id [lang] text`, or are tab-separated tables
/// with a header. Utterances are matched by id. Rates in JSON are fractions, not percent.
///
/// With `--report`, a folder gets the scores as a web page, Markdown, JSON and CSV as well.
///
/// Examples:
///   asr score ref.txt hyp.txt --scheme ml-superb2 -f json
///   asr score ref.txt hyp.txt --scheme ml-superb2 --labels refined --report report
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
    /// Folder for report.html, report.md, report.json and report.csv
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Labels of the references, to be stamped in the report
    #[arg(long, value_enum, requires = "report")]
    labels: Option<Labels>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    Text,
    Json,
}

pub(super) fn run(args: &ScoreArgs, talk: Talk) -> Result<ExitCode, AnyError> {
    let read = |path: &Path| {
        std::fs::read_to_string(path)
            .map_err(|source| CliError::Read { path: path.to_owned(), source })
    };
    let (reference, hypothesis) = (read(&args.reference)?, read(&args.hypothesis)?);
    let (report, utterances) =
        score_utterances(&reference, &hypothesis, args.scheme, args.variant)?;
    if let Some(folder) = &args.report {
        let labels = args.labels.map(LabelSet::from);
        let scorer = match (args.scheme, args.variant) {
            (Scheme::Plain, _) => "plain",
            (Scheme::MlSuperb, _) => "ml-superb",
            (Scheme::MlSuperb2, Variant::Recipe) => "ml-superb2, recipe",
            (Scheme::MlSuperb2, Variant::Server) => "ml-superb2, server",
        };
        let inputs: [(&str, &Path); 2] =
            [("reference", &args.reference), ("hypothesis", &args.hypothesis)];
        let provenance = provenance(labels.map_or("not stated", LabelSet::name), scorer, &inputs)?;
        Report::of_transcripts(&report, &utterances, labels, place, provenance).write(folder)?;
        talk.progress(format_args!("report in `{}`", folder.display()));
    }
    let text = match args.format {
        Form::Text => report.to_table(),
        Form::Json => serde_json::to_string_pretty(&report)?,
    };
    write_stdout(format!("{}\n", text.trim_end()).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
