//! `asr pretrain`.

use super::Talk;
use super::device::DeviceArgs;
use super::failure::{AnyError, CliError};
use crate::pretrain::{
    PredictionScores, PretrainRecipe, Progress, Stage, Watch, describe, pretrain, progress,
};
use crate::train::{Finished, StepReport};
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Train an encoder on speech without transcripts, stage by stage
///
/// Each stage clusters frames (MFCC first, then a layer of the stage before) and trains a model
/// that predicts the clusters of frames it cannot see: HuBERT, mHuBERT-147, MR-HuBERT, WavLabLM.
/// Labels, checkpoint, log (log.jsonl) and finished model (model/) of a stage go into a folder
/// of its name in the recipe's output folder. Ctrl-C saves and stops; `--resume` goes on to the
/// same result and skips stages that are finished. Labels are made with faiss: a build with
/// `--features faiss`, or labels from files.
///
/// Example:
///   asr pretrain models/mr-hubert-tiny.toml --set data.root=speech
///   asr finetune models/default.toml --set initial_model=runs/mr-hubert-tiny/mr-hubert/model
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct PretrainArgs {
    /// Recipe: stages, models, data and training in one TOML file, e.g. `models/hubert-tiny.toml`
    recipe: PathBuf,
    /// Replace a setting of the recipe, e.g. `--set train.schedule.steps=100` for all stages that
    /// have none of their own, `--set stage.it1.train.schedule.steps=100` for one; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Go on with the run in the output folder
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    device: DeviceArgs,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(args: &PretrainArgs, talk: Talk) -> Result<ExitCode, AnyError> {
    let recipe = PretrainRecipe::read(&args.recipe, &args.set)?;
    if !args.resume && !args.dry_run && recipe.output.join("recipe.toml").exists() {
        return Err(CliError::RunExists { folder: recipe.output.clone() }.into());
    }
    tell_plan(&recipe, talk);
    if args.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let signal = Arc::clone(&stop);
    ctrlc::set_handler(move || signal.store(true, Ordering::Relaxed))?;
    args.device.apply(talk)?;
    let folder = args.recipe.parent().unwrap_or(Path::new("."));
    let mut console = Console { talk, first: None };
    Ok(match pretrain(&recipe, folder, &stop, &mut console)? {
        Finished::Done => {
            if let Some(last) = recipe.stages.last() {
                let model = recipe.stage_folder(&last.name).join("model");
                talk.progress(format_args!("the model is in `{}`", model.display()));
            }
            ExitCode::SUCCESS
        }
        Finished::Interrupted { .. } => ExitCode::from(130),
    })
}

fn tell_plan(recipe: &PretrainRecipe, talk: Talk) {
    let output = recipe.output.display();
    talk.progress(format_args!("{}, {} stages, in `{output}`:", recipe.name, recipe.stages.len()));
    for (stage, progress) in recipe.stages.iter().zip(progress(recipe)) {
        let labels: Vec<String> = stage.labels.iter().map(describe).collect();
        let state = match progress {
            Progress::Done => "done, skipped",
            Progress::Begun => "begun, goes on",
            Progress::New => "to do",
        };
        talk.progress(format_args!(
            "  {:12} {} from {}, {} layers of {} at {} frame rate(s), {} steps: {state}",
            stage.name,
            stage.encoder.variant.family.name(),
            labels.join(" and "),
            stage.encoder.stage_layers.iter().sum::<usize>(),
            stage.encoder.embed_dim,
            stage.encoder.rate_ratios.len() + 1,
            stage.train.schedule.steps,
        ));
    }
}

struct Console {
    talk: Talk,
    /// First step of the stage that was seen, and when.
    first: Option<(u64, Instant)>,
}

/// `1 h 5 min`, `3 min`, `40 s`.
fn spoken(duration: Duration) -> String {
    match duration.as_secs() {
        s if s < 100 => format!("{s} s"),
        s if s < 5400 => format!("{} min", (s + 30) / 60),
        s => format!("{} h {} min", s / 3600, s % 3600 / 60),
    }
}

impl Watch for Console {
    fn note(&mut self, text: &str) {
        self.talk.progress(text);
    }

    fn warn(&mut self, text: &str) {
        self.talk.warn(text);
    }

    fn begin(&mut self, _stage: &Stage) {
        self.first = None;
    }

    fn step(&mut self, stage: &Stage, report: &StepReport) {
        let left = match self.first {
            None => {
                self.first = Some((report.step, Instant::now()));
                String::new()
            }
            Some((step, since)) => {
                let per_step = since.elapsed().as_secs_f64() / (report.step - step).max(1) as f64;
                let steps = stage.train.schedule.steps.saturating_sub(report.step);
                format!("  {} left", spoken(Duration::from_secs_f64(per_step * steps as f64)))
            }
        };
        let accuracies: Vec<String> = report
            .means
            .iter()
            .filter_map(|(name, mean)| {
                let head = name.strip_prefix("accuracy.")?;
                Some(format!("{head} {:.1} %", 100.0 * mean))
            })
            .collect();
        self.talk.progress(format_args!(
            "{} step {:6}  loss {:.4}  right at {}  norm {:.3}  lr {:.2e}  {:.0} s audio/s  waiting {:.0} %  not finite {}{left}",
            stage.name,
            report.step,
            report.loss,
            accuracies.join(", "),
            report.gradient_norm,
            report.lr,
            report.audio_per_s,
            100.0 * report.waiting,
            report.not_finite,
        ));
    }

    fn scores(&mut self, stage: &Stage, step: u64, scores: &PredictionScores) {
        let heads: Vec<String> = scores
            .heads()
            .map(|(name, loss, accuracy)| {
                format!("{name} {:.1} % right, {loss:.4} nats", 100.0 * accuracy)
            })
            .collect();
        self.talk.progress(format_args!(
            "{} step {step:6}  held out: loss {:.4}, {}",
            stage.name,
            scores.loss(),
            heads.join(", ")
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_said_as_people_do() {
        for (seconds, want) in [(5, "5 s"), (100, "2 min"), (5370, "90 min"), (5460, "1 h 31 min")]
        {
            assert_eq!(spoken(Duration::from_secs(seconds)), want);
        }
    }
}
