//! `asr bench ml-superb`: what needs no training.

use super::Talk;
use super::failure::AnyError;
use super::ml_superb_run::{self, FirstArgs};
use super::output::write_stdout;
use super::report::Labels;
use crate::bench::ml_superb::{Check, Mini, Release, TRANSCRIPTS, check, make_mini};
use crate::data::{DevList, read_manifest};
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Run ML-SUPERB 1.0, look at a copy of it, or make a small corpus like it
#[derive(Debug, Args)]
pub(super) struct MlSuperbArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(FirstArgs),
    Check(CheckArgs),
    MakeMini(MiniArgs),
}

/// Count a release and name what is wrong with it
///
/// The folder holds DATASET/LANGUAGE/wav/ID.wav and four transcripts per language, as the 7th and 8th versions unpack,
/// or the Parquet files of the Hugging Face form.
/// Hours, utterances and languages stand beside the published counts; faults are counted and named. Exits with 1 if
/// something is broken, such as a missing transcript or an id listed twice.
///
/// Example:
///   asr bench ml-superb check eighth_version --labels refined
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
struct CheckArgs {
    /// The unpacked release
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Repairs of the language labels
    #[arg(long, value_enum, default_value = "original")]
    labels: Labels,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Make a small corpus in the layout of the releases, from any manifest
///
/// Clips on a list are development and test by turns, the others training; without a list one in ten goes to each.
/// An hour of training, and ten minutes of development and of test, are kept per dataset and language.
///
/// Example:
///   asr bench ml-superb make-mini mini --manifest speech/manifest.tsv --list models/default/dev.tsv
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
struct MiniArgs {
    /// Folder to make
    #[arg(value_name = "OUT")]
    folder: PathBuf,
    /// The clips
    #[arg(long, value_name = "TSV")]
    manifest: PathBuf,
    /// Clips held out, with the columns path and condition; may be repeated
    #[arg(long, value_name = "TSV")]
    list: Vec<PathBuf>,
}

pub(super) fn run(args: &MlSuperbArgs, talk: Talk) -> Result<ExitCode, AnyError> {
    match &args.command {
        Command::Run(args) => ml_superb_run::run_first(args, talk),
        Command::Check(args) => run_check(args, talk),
        Command::MakeMini(args) => run_mini(args, talk),
    }
}

fn run_check(args: &CheckArgs, talk: Talk) -> Result<ExitCode, AnyError> {
    let release = Release::read(&args.folder, args.labels.into())?;
    let found = check(&release, |done, of| talk.note(format_args!("{done} of {of} recordings")));
    let text = if args.json { serde_json::to_string_pretty(&found)? } else { table(&found) };
    write_stdout(format!("{}\n", text.trim_end()).as_bytes())?;
    Ok(if found.has_faults() { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn table(check: &Check) -> String {
    let mut text = format!(
        "{}: {} datasets, {} languages ({} few-shot), {} pairs of dataset and language ({} few-shot), {} labels\n\n",
        check.root.display(),
        check.datasets.len(),
        check.languages,
        check.few_shot_languages,
        check.pairs + check.few_shot_pairs,
        check.few_shot_pairs,
        check.labels.name(),
    );
    text.push_str(&format!(
        "{:<32}{:>12}{:>10}{:>11}{:>7}\n",
        "split", "utterances", "hours", "languages", "pairs"
    ));
    for split in &check.splits {
        text.push_str(&format!(
            "{:<32}{:>12}{:>10.2}{:>11}{:>7}\n",
            split.name, split.utterances, split.hours, split.languages, split.pairs
        ));
    }
    text.push_str(&format!(
        "\n{:<22}{:<36}{:>11}{:>11}\n",
        "published in", "what", "published", "found"
    ));
    for row in &check.published {
        let decimals = if row.what.starts_with("hours") { 2 } else { 0 };
        text.push_str(&format!(
            "{:<22}{:<36}{:>11.decimals$}{:>11.decimals$}{}\n",
            row.published_in,
            row.what,
            row.published,
            row.found,
            if row.same { "  same" } else { "" }
        ));
    }
    if check.problems.is_empty() {
        text.push_str("\nno problems\n");
    }
    for problem in &check.problems {
        let level = if problem.kind.is_fault() { "fault" } else { "note" };
        text.push_str(&format!("\n{level}: {}, {}\n", problem.kind.description(), problem.count));
        for example in &problem.examples {
            text.push_str(&format!("  {example}\n"));
        }
        if problem.count > problem.examples.len() {
            text.push_str(&format!("  and {} more\n", problem.count - problem.examples.len()));
        }
    }
    text
}

fn run_mini(args: &MiniArgs, talk: Talk) -> Result<ExitCode, AnyError> {
    let clips = read_manifest(&args.manifest)?;
    let lists: Vec<DevList> =
        args.list.iter().map(|path| DevList::read(path)).collect::<Result<_, _>>()?;
    let held_out = |name: &str| lists.iter().any(|list| list.condition(name).is_some());
    let Mini { pairs, utterances, without_text, beyond_budget, unreadable } =
        make_mini(&clips, held_out, &args.folder)?;
    for clip in &unreadable {
        talk.warn(format_args!("left out {clip}"));
    }
    if without_text > 0 {
        talk.warn(format_args!("left out {without_text} clips without a language or a text"));
    }
    if beyond_budget > 0 {
        talk.warn(format_args!("left out {beyond_budget} clips beyond the hour or ten minutes"));
    }
    let mut text = format!("{}: {pairs} pairs of dataset and language\n", args.folder.display());
    for (split, _) in TRANSCRIPTS {
        let n = utterances.get(&split).copied().unwrap_or(0);
        text.push_str(&format!("{:<16}{n:>8} utterances\n", split.name()));
    }
    write_stdout(text.as_bytes())?;
    Ok(if unreadable.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
