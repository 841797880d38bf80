//! `asr bench ablation`: one recipe, many variants and seeds, one table.

use super::Talk;
use super::bench::disturbance;
use super::failure::{AnyError, CliError};
use super::output::write_stdout;
use crate::config::Recipe;
use clap::Args;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// Train variants of a recipe with several seeds and compare them
///
/// Each variant is trained and scored as `asr finetune` and `asr bench corpus` would; what is
/// already there is not done again, so that an interrupted comparison goes on when repeated.
/// Rates are the mean over seeds and their standard deviation. Few-shot languages are those
/// with less training audio than `--min-minutes` in the first manifest.
///
/// Example:
///   asr bench ablation models/default.toml -o runs/ablation --seeds 1,2,3 \
///     --variant 'full:' --variant 'lora: strategy.kind=lora; strategy.rank=8; strategy.alpha=16' \
///     --disturb noise=10 --disturb mu_law --set train.schedule.steps=2000
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct AblationArgs {
    /// The recipe that all variants share
    recipe: PathBuf,
    /// A variant: its name, a colon, and settings separated by semicolons; may be repeated
    #[arg(long, value_name = "NAME: KEY=VALUE; ...", required = true, value_parser = variant)]
    variant: Vec<Variant>,
    /// Seeds that every variant is trained with
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1")]
    seeds: Vec<u64>,
    /// A setting of all variants; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Score on disturbed clips as well, each kind for itself; as in `asr bench corpus`
    #[arg(long, value_name = "KIND", value_parser = checked_disturbance)]
    disturb: Vec<String>,
    /// Languages with at least this much training audio are none of the few-shot ones
    #[arg(long, value_name = "MINUTES", default_value_t = 5.0)]
    min_minutes: f64,
    /// Folder for the runs
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
}

#[derive(Debug, Clone)]
struct Variant {
    name: String,
    sets: Vec<String>,
}

/// A variant as it is typed.
fn variant(given: &str) -> Result<Variant, &'static str> {
    let (name, sets) = given.split_once(':').unwrap_or((given, ""));
    let name = name.trim();
    let is_plain = |c: char| c.is_alphanumeric() || "-_+.".contains(c);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(is_plain) {
        return Err("needs a name of letters, digits, `-`, `_`, `+` and `.`");
    }
    let sets: Vec<String> =
        sets.split(';').map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned).collect();
    if !sets.iter().all(|set| set.contains('=')) {
        return Err("settings are of the form KEY=VALUE");
    }
    Ok(Variant { name: name.to_owned(), sets })
}

fn checked_disturbance(given: &str) -> Result<String, &'static str> {
    disturbance(given).map(|_| given.to_owned())
}

pub(super) fn run(args: &AblationArgs, talk: Talk) -> Result<ExitCode, AnyError> {
    let mut rows: Vec<(String, Vec<Vec<Value>>)> = Vec::new();
    let conditions: Vec<Option<&str>> =
        std::iter::once(None).chain(args.disturb.iter().map(|d| Some(d.as_str()))).collect();
    for variant in &args.variant {
        // A setting that is wrong is found before anything is trained.
        Recipe::read(&args.recipe, &settings(args, variant, 1, &args.output))?;
    }
    for variant in &args.variant {
        let mut scores = vec![Vec::new(); conditions.len()];
        for &seed in &args.seeds {
            let folder = args.output.join(&variant.name).join(format!("seed{seed}"));
            let sets = settings(args, variant, seed, &folder);
            train(args, &folder, &sets, talk)?;
            let recipe = Recipe::read(&args.recipe, &sets)?;
            for (condition, scores) in conditions.iter().zip(&mut scores) {
                scores.push(score(args, &recipe, &folder, *condition, talk)?);
            }
        }
        rows.push((variant.name.clone(), scores));
    }
    write_stdout(table(&rows, &conditions).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn settings(args: &AblationArgs, variant: &Variant, seed: u64, folder: &Path) -> Vec<String> {
    let mut sets = args.set.clone();
    sets.extend(variant.sets.iter().cloned());
    sets.push(format!("train.seed={seed}"));
    sets.push(format!("output={}", toml::Value::from(folder.display().to_string())));
    sets
}

/// Runs this program with `arguments`, its messages shown.
fn this_program(arguments: &[&std::ffi::OsStr]) -> Result<Command, AnyError> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments).stdin(Stdio::null());
    Ok(command)
}

fn train(args: &AblationArgs, folder: &Path, sets: &[String], talk: Talk) -> Result<(), AnyError> {
    if folder.join("finished").exists() {
        return Ok(());
    }
    talk.progress(format_args!("training `{}`", folder.display()));
    let mut command = this_program(&["finetune".as_ref(), args.recipe.as_os_str()])?;
    for set in sets {
        command.arg("--set").arg(set);
    }
    if folder.join("log.jsonl").exists() {
        command.arg("--resume");
    }
    if !command.status()?.success() {
        return Err(CliError::Variant { folder: folder.to_owned() }.into());
    }
    let mark = folder.join("finished");
    std::fs::write(&mark, "").map_err(|source| CliError::Write { path: mark, source })?;
    Ok(())
}

fn score(
    args: &AblationArgs,
    recipe: &Recipe,
    folder: &Path,
    condition: Option<&str>,
    talk: Talk,
) -> Result<Value, AnyError> {
    let path = folder.join(format!("scores-{}.json", condition.unwrap_or("clean")));
    if let Ok(found) = std::fs::read(&path)
        && let Ok(scores) = serde_json::from_slice(&found)
    {
        return Ok(scores);
    }
    talk.progress(format_args!("scoring `{}`", path.display()));
    let first = recipe.data.manifests.first().map_or(Path::new(""), PathBuf::as_path);
    let beside = args.recipe.parent().unwrap_or(Path::new("."));
    let mut command = this_program(&["bench".as_ref(), "corpus".as_ref()])?;
    command.args(["-f", "json", "--manifest"]).arg(recipe.data.root.join(first));
    command.arg("--list").arg(beside.join(&recipe.data.dev));
    command.arg("--min-minutes").arg(args.min_minutes.to_string());
    command.arg("-m").arg(folder.join("model")).stderr(Stdio::inherit());
    if let Some(condition) = condition {
        command.arg("--disturb").arg(condition);
    }
    let output = command.output()?;
    if !output.status.success() {
        return Err(CliError::Variant { folder: folder.to_owned() }.into());
    }
    let scores = serde_json::from_slice(&output.stdout)?;
    std::fs::write(&path, &output.stdout).map_err(|source| CliError::Write { path, source })?;
    Ok(scores)
}

/// Rates of the table: name, group and field of the scores.
const RATES: [(&str, &str, &str); 6] = [
    ("CER seen", "seen", "macro_cer"),
    ("CER unseen", "unseen", "macro_cer"),
    ("CER few-shot", "few_shot", "macro_cer"),
    ("LID seen", "seen", "macro_lid_accuracy"),
    ("LID unseen", "unseen", "macro_lid_accuracy"),
    ("LID few-shot", "few_shot", "macro_lid_accuracy"),
];

fn table(rows: &[(String, Vec<Vec<Value>>)], conditions: &[Option<&str>]) -> String {
    let mut text = String::from("| variant | audio |");
    for (name, ..) in RATES {
        text.push_str(&format!(" {name} % |"));
    }
    text.push_str(&format!("\n|{}\n", "---|".repeat(RATES.len() + 2)));
    for (name, scores) in rows {
        for (condition, scores) in conditions.iter().zip(scores) {
            text.push_str(&format!("| {name} | {} |", condition.unwrap_or("clean")));
            for (_, group, field) in RATES {
                let rates: Vec<f64> =
                    scores.iter().filter_map(|s| s[group][field].as_f64()).collect();
                text.push_str(&format!(" {} |", mean_and_deviation(&rates)));
            }
            text.push('\n');
        }
    }
    text
}

/// Per cent: the mean and, of several, the deviation with `n - 1`.
fn mean_and_deviation(rates: &[f64]) -> String {
    if rates.is_empty() {
        return "-".to_owned();
    }
    let n = rates.len() as f64;
    let mean = rates.iter().sum::<f64>() / n;
    if rates.len() == 1 {
        return format!("{:.1}", 100.0 * mean);
    }
    let squares: f64 = rates.iter().map(|rate| (rate - mean).powi(2)).sum();
    format!("{:.1} ± {:.1}", 100.0 * mean, 100.0 * (squares / (n - 1.0)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn variants_are_a_name_and_settings() {
        let lora = variant("lora: strategy.kind=lora; strategy.rank=8").expect("a variant");
        assert_eq!(lora.name, "lora");
        assert_eq!(lora.sets, ["strategy.kind=lora", "strategy.rank=8"]);
        assert!(variant("plain").expect("a variant").sets.is_empty());
        for wrong in ["", ": a=b", "../up: a=b", "a: b"] {
            assert!(variant(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_table_has_means_and_deviations() {
        let scores = |cer: f64| json!({ "seen": { "macro_cer": cer }, "unseen": {} });
        let rows = [("a".to_owned(), vec![vec![scores(0.1), scores(0.3)], vec![scores(0.5)]])];
        let text = table(&rows, &[None, Some("mu_law")]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[2], "| a | clean | 20.0 ± 14.1 | - | - | - | - | - |");
        assert_eq!(lines[3], "| a | mu_law | 50.0 | - | - | - | - | - |");
    }
}
