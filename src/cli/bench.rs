//! `asr bench`.

use super::Talk;
use super::ablation::{self, AblationArgs};
use super::bench_speed::{self, SpeedArgs};
use super::decoding::DecodingArgs;
use super::failure::AnyError;
use super::language::LanguageArgs;
use super::ml_superb::{self, MlSuperbArgs};
use super::ml_superb_run::{self, SecondArgs};
use super::model::{LoadedModel, ModelArgs};
use super::output::write_stdout;
use super::report::{place, provenance, read_layer_weights};
use crate::bench::report::{ModelIdentity, Report, read_curves};
use crate::bench::{CorpusScores, Group, evaluate};
use crate::data::{Codec, Condition, Corpus, DevList, Disturbance, read_manifest};
use crate::text::Language;
use clap::{Args, Subcommand, ValueEnum};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Measure a model
#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    Ablation(AblationArgs),
    Corpus(CorpusArgs),
    MlSuperb(MlSuperbArgs),
    #[command(name = "ml-superb2")]
    MlSuperb2(SecondArgs),
    Speed(SpeedArgs),
}

/// Score a model on clips with known language and text
///
/// The manifest is a tab-separated table with the columns path, language, duration_s and
/// text (`-` where unknown). With `--list`, only the clips on that list are scored; the
/// others are taken to be the training data, which decides the languages of the summary.
///
/// With `--report`, a folder gets the scores as a web page, Markdown, JSON and CSV as well.
///
/// Examples:
///   asr bench corpus --manifest speech/manifest.tsv --list models/default/dev.tsv
///   asr bench corpus --manifest speech/manifest.tsv --report report
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
struct CorpusArgs {
    /// The clips
    #[arg(long, value_name = "TSV")]
    manifest: PathBuf,
    /// Clips held out, with the columns path and condition (`seen` or `unseen` speaker)
    #[arg(long, value_name = "TSV")]
    list: Option<PathBuf>,
    /// Languages with at least this much training audio enter the summary
    #[arg(long, value_name = "MINUTES", default_value_t = 5.0)]
    min_minutes: f64,
    /// Disturb the clips first: `noise=DB` below them, `mu_law` or `opus` (there and back), or
    /// `reverb=SECONDS` (time in which a room's sound falls by 60 dB)
    #[arg(long, value_name = "KIND", value_parser = disturbance)]
    disturb: Option<Disturbance>,
    /// Form of the scores
    #[arg(short = 'f', long = "format", visible_alias = "output-format", alias = "output_format", value_enum, default_value_t = Form::Markdown)]
    format: Form,
    /// Folder for report.html, report.md, report.json and report.csv
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Log of the training run, for the report's curves
    #[arg(long, value_name = "JSONL", requires = "report")]
    training_log: Option<PathBuf>,
    /// Layer weights for the report: a JSON object of name to list of weights
    #[arg(long, value_name = "JSON", requires = "report")]
    layer_weights: Option<PathBuf>,
    #[command(flatten)]
    decoding: DecodingArgs,
    #[command(flatten)]
    language: LanguageArgs,
    #[command(flatten)]
    model: ModelArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    Markdown,
    Json,
}

/// Seed of disturbances, so that every model hears the same.
const DISTURBANCE_SEED: u64 = 1;

/// A disturbance as it is typed.
pub(super) fn disturbance(given: &str) -> Result<Disturbance, &'static str> {
    let (kind, value) = given.split_once('=').unwrap_or((given, ""));
    let number = |low: f64, high: f64| {
        value.parse::<f64>().ok().filter(|value| (low..=high).contains(value))
    };
    match (kind, value) {
        ("mu_law", "") => Ok(Disturbance::Codec(Codec::MuLaw)),
        ("opus", "") => Ok(Disturbance::Codec(Codec::Opus)),
        ("noise", _) => number(-20.0, 100.0)
            .map(Disturbance::Noise)
            .ok_or("noise needs decibels from -20 to 100, such as noise=10"),
        ("reverb", _) => number(0.05, 3.0)
            .map(Disturbance::Room)
            .ok_or("reverb needs seconds from 0.05 to 3, such as reverb=0.5"),
        _ => Err("must be noise=DB, mu_law, opus or reverb=SECONDS"),
    }
}

pub(super) fn run(args: &BenchArgs, talk: Talk) -> Result<ExitCode, AnyError> {
    match &args.kind {
        Kind::Ablation(args) => ablation::run(args, talk),
        Kind::Corpus(args) => run_corpus(args, talk),
        Kind::MlSuperb(args) => ml_superb::run(args, talk),
        Kind::MlSuperb2(args) => ml_superb_run::run_second(args, talk),
        Kind::Speed(args) => bench_speed::run(args, talk),
    }
}

fn run_corpus(args: &CorpusArgs, talk: Talk) -> Result<ExitCode, AnyError> {
    let clips = read_manifest(&args.manifest)?;
    let list = args.list.as_deref().map(DevList::read).transpose()?;
    let mut minutes: BTreeMap<Language, f64> = BTreeMap::new();
    let mut scored = Vec::new();
    for clip in clips {
        match (&list, clip.language) {
            (Some(list), Some(language)) if list.condition(&clip.name).is_none() => {
                *minutes.entry(language).or_default() += clip.duration_s / 60.0;
            }
            _ => scored.push(clip),
        }
    }
    let (corpus, report) = Corpus::load(scored)?;
    for (path, error) in &report.unreadable {
        talk.warn(format_args!("left out `{}`: {error}", path.display()));
    }
    let unreadable: Vec<String> =
        report.unreadable.iter().map(|(path, _)| path.display().to_string()).collect();
    let corpus = match args.disturb {
        Some(disturbance) => corpus.disturbed(disturbance, DISTURBANCE_SEED)?,
        None => corpus,
    };
    let mut model = args.model.load(&[], talk)?;
    args.decoding.apply(&mut model, None, talk)?;
    args.language.apply(&mut model)?;
    let condition = |name: &str| list.as_ref().and_then(|list| list.condition(name));
    let counted =
        |language: Language| minutes.get(&language).is_some_and(|m| *m >= args.min_minutes);
    let scores = evaluate(model.transcriber.as_ref(), &corpus, condition, counted, |done| {
        talk.note(format_args!("{done} of {} clips", corpus.clips().len()));
    })?;
    if let Some(folder) = &args.report {
        let mut report = corpus_report(args, &model, &scores, &minutes)?;
        if !unreadable.is_empty() {
            report.notes.push(format!("Left out, not readable: {}.", unreadable.join(", ")));
        }
        report.write(folder)?;
        talk.progress(format_args!("report in `{}`", folder.display()));
    }
    let text = match args.format {
        Form::Markdown => markdown(&scores, &minutes),
        Form::Json => serde_json::to_string_pretty(&scores)?,
    };
    write_stdout(format!("{}\n", text.trim_end()).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn corpus_report(
    args: &CorpusArgs,
    model: &LoadedModel,
    scores: &CorpusScores,
    minutes: &BTreeMap<Language, f64>,
) -> Result<Report, AnyError> {
    let mut inputs: Vec<(&str, &Path)> = vec![("manifest", &args.manifest)];
    inputs.extend(args.list.as_deref().map(|list| ("held-out list", list)));
    inputs.extend(args.training_log.as_deref().map(|log| ("training log", log)));
    inputs.extend(args.layer_weights.as_deref().map(|weights| ("layer weights", weights)));
    let scorer = "corpus: texts normalised as in training, errors pooled over clips";
    let mut provenance = provenance("those of the manifest", scorer, &inputs)?;
    provenance.model = Some(ModelIdentity { name: model.name.clone(), sha256: model.sha256()? });
    provenance.precision = Some(model.precision.to_owned());
    let mut report = Report::of_corpus(scores, minutes, place, provenance);
    if let Some(disturbance) = args.disturb {
        report.notes.push(format!("Every clip was disturbed first: {disturbance:?}."));
    }
    if let Some(log) = &args.training_log {
        report.curves = read_curves(log)?;
    }
    if let Some(weights) = &args.layer_weights {
        report.layer_weights = read_layer_weights(weights)?;
    }
    Ok(report)
}

fn percent(rate: Option<f64>) -> String {
    rate.map_or_else(|| "-".to_owned(), |rate| format!("{:.1}", 100.0 * rate))
}

fn markdown(scores: &CorpusScores, minutes: &BTreeMap<Language, f64>) -> String {
    let mut text = String::from(
        "| speakers | languages | clips | CER % | CER %, mean of languages | WER % | LID % | LID %, mean of languages |\n|---|---|---|---|---|---|---|---|\n",
    );
    for (name, group) in [("seen", &scores.seen), ("unseen", &scores.unseen), ("all", &scores.all)]
    {
        let Group { languages, clips, cer, macro_cer, wer, lid_accuracy, macro_lid_accuracy } =
            group;
        text.push_str(&format!(
            "| {name} | {languages} | {clips} | {} | {} | {} | {} | {} |\n",
            percent(*cer),
            percent(*macro_cer),
            percent(*wer),
            percent(*lid_accuracy),
            percent(*macro_lid_accuracy)
        ));
    }
    text.push_str("\n| language | minutes trained on | speakers | clips | seconds | CER % | WER % | LID % |\n|---|---|---|---|---|---|---|---|\n");
    for row in &scores.languages {
        let speakers = match row.condition {
            Some(Condition::Seen) => "seen",
            Some(Condition::Unseen) => "unseen",
            None => "-",
        };
        text.push_str(&format!(
            "| {} {} | {} | {speakers} | {} | {:.0} | {} | {} | {} |\n",
            row.language,
            row.language.name().unwrap_or(""),
            minutes.get(&row.language).map_or_else(|| "-".to_owned(), |m| format!("{m:.1}")),
            row.clips,
            row.seconds,
            percent(row.cer),
            percent(row.wer),
            percent(Some(row.lid_accuracy))
        ));
    }
    let confused: Vec<String> = scores
        .confusions
        .iter()
        .take(12)
        .map(|(spoken, named, clips)| {
            format!(
                "{spoken} as {} ({clips})",
                named.map_or_else(|| "no speech".to_owned(), |l| l.to_string())
            )
        })
        .collect();
    text.push_str(&format!("\nMost frequent confusions: {}\n", confused.join(", ")));
    text
}
