//! `asr finetune`.

use super::Talk;
use super::device::DeviceArgs;
use super::failure::{AnyError, CliError};
use super::finetune_data::{
    build_vocabulary, identity, initial_model, places, read_clips, upstream,
};
use super::model::parameters_sha256;
use crate::bench::{CorpusScores, calibrate, evaluate};
use crate::config::{
    FineTuning, FineTuningPlan, ModelFiles, Recipe, RecipeError, Strategy, Upstream, write_low_rank,
};
use crate::data::{Batches, ClipInput, Condition, Corpus, DevList, StoredStates};
use crate::decode::Transcriber;
use crate::features::InputFeatures;
use crate::model::Parameters;
use crate::model::checkpoint::StoredAs;
use crate::text::Language;
use crate::train::{Finished, Observe, Recognition, StatesPlan, StepReport, Trainer, Transcribed};
use asr_kernels::Precision;
use clap::Args;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Languages with at least this much training audio enter the summary scores, seconds.
const COUNTED_S: f64 = 300.0;

/// Train a recogniser from a recipe
///
/// Checkpoint, log (log.jsonl) and the finished model (model/) go into the recipe's output
/// folder. Ctrl-C saves and stops; `--resume` goes on to the same result.
///
/// Example:
///   asr finetune models/default.toml --set data.root=speech --set train.schedule.steps=2000
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct FinetuneArgs {
    /// Recipe: model, data and training in one TOML file, e.g. `models/default.toml`
    recipe: PathBuf,
    /// Replace a setting of the recipe, e.g. `--set train.schedule.steps=100`; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Go on from the checkpoint in the output folder
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

pub(super) fn run(args: &FinetuneArgs, talk: Talk) -> Result<ExitCode, AnyError> {
    let recipe = Recipe::read(&args.recipe, &args.set)?;
    let output = &recipe.output;
    if !args.resume && output.join("log.jsonl").exists() {
        return Err(CliError::RunExists { folder: output.clone() }.into());
    }
    let write = |path: PathBuf| move |source| CliError::Write { path, source };
    std::fs::create_dir_all(output).map_err(write(output.clone()))?;
    // What exactly was run, overrides included, stays beside the result.
    let resolved = output.join("recipe.toml");
    std::fs::write(&resolved, toml::to_string_pretty(&recipe)?).map_err(write(resolved.clone()))?;
    let folder = args.recipe.parent().unwrap_or(Path::new("."));
    let (train, dev, dev_list) = read_clips(&recipe, folder)?;
    args.device.apply(talk)?;
    let upstream = upstream(&recipe, talk)?;
    let (vocabulary, parameters) = match &recipe.initial_model {
        Some(folder) => initial_model(folder, &recipe)?,
        None => (None, Parameters::default()),
    };
    let vocabulary = match vocabulary {
        Some(vocabulary) => vocabulary,
        None => build_vocabulary(&train, recipe.data.min_character_count)?,
    };
    let (encoder, input, parameters) = match (&upstream, &recipe.encoder, recipe.input()) {
        (Some((upstream, _)), ..) => {
            (&upstream.encoder, upstream.input.clone(), upstream.parameters.clone())
        }
        (None, Some(encoder), Some(input)) => (encoder, input, parameters),
        (None, ..) => return Err(RecipeError::Source.into()),
    };
    let start = Instant::now();
    let (train, report) = Corpus::load(train)?;
    let (dev, dev_report) = Corpus::load(dev)?;
    for (path, error) in report.unreadable.iter().chain(&dev_report.unreadable) {
        talk.warn(format_args!("left out `{}`: {error}", path.display()));
    }
    talk.progress(format_args!(
        "{} clips to train on, {} held out, read in {:.0?}",
        train.clips().len(),
        dev.clips().len(),
        start.elapsed()
    ));
    let plan = FineTuningPlan {
        name: &recipe.name,
        input: input.clone(),
        encoder,
        strategy: recipe.strategy.as_ref(),
        joint: &recipe.joint,
        downstream: &recipe.downstream,
        train: &recipe.train,
    };
    let tuning = FineTuning::new(&plan, vocabulary, parameters)?;
    let (files, parameters) = (&tuning.files, &tuning.files.parameters);
    talk.progress(format_args!(
        "{} parameters, {} of them trained, {} tokens",
        parameters.count(),
        tuning.trained(),
        files.vocabulary.len()
    ));
    // Before anything is computed that would be in vain.
    let run_config = recipe.train.run();
    run_config.check_trainable(tuning.trained())?;
    let features = InputFeatures::new(&input)?;
    let clips = ClipInput::Computed(&features);
    let states = match recipe.strategy.as_ref().and_then(Strategy::cache) {
        Some(folder) => Some(states(&tuning, (folder, clips), &train, &recipe, &upstream, talk)?),
        None => None,
    };
    let batches = Batches {
        corpus: &train,
        vocabulary: &files.vocabulary,
        labels: None,
        input: states.as_ref().map_or(clips, ClipInput::Stored),
        augmentation: &recipe.data.augmentation,
        seed: recipe.train.seed,
    };
    let mut seconds: BTreeMap<Language, f64> = BTreeMap::new();
    for (i, clip) in train.clips().iter().enumerate() {
        if let Some(language) = clip.language {
            *seconds.entry(language).or_default() += train.duration_s(i);
        }
    }
    let stop = Arc::new(AtomicBool::new(false));
    let signal = Arc::clone(&stop);
    ctrlc::set_handler(move || signal.store(true, Ordering::Relaxed))?;
    let trainer = Trainer {
        parameters,
        upstream: upstream.as_ref().map(|(_, sha256)| *sha256),
        source: &Transcribed { batches: &batches, config: &recipe.data.batch },
        config: &run_config,
        folder: &recipe.output,
        stop: &stop,
    };
    let places = places(&files.vocabulary);
    let mut task =
        Recognition::new(&tuning.model, &places, &recipe.train).with_early(tuning.early.as_ref());
    let mut console = Console { files, dev: &dev, dev_list: &dev_list, seconds: &seconds, talk };
    let finished = trainer.run(&mut task, &mut console)?;
    let mut model = tuning.finished()?;
    if finished == Finished::Done {
        let fitted = calibrate(&Transcriber::new(&model, Precision::F32)?, &dev)?;
        if let Some(fitted) = &fitted {
            talk.progress(format_args!(
                "scores calibrated on {} clips: temperature {:.3}, unknown below {:.3}, expected calibration error {:.3}, before {:.3}",
                fitted.clips, fitted.calibration.temperature, fitted.calibration.unknown_threshold, fitted.error, fitted.error_before
            ));
        }
        model.config.calibration = fitted.map(|fitted| fitted.calibration);
    }
    if let Some(adaptation) = files.config.encoder.variant.adaptation {
        let base = recipe.upstream.as_deref().unwrap_or(&recipe.name);
        write_low_rank(&recipe.output.join("lora"), parameters, adaptation, base)?;
    }
    model.write(&recipe.output.join("model"), StoredAs::F16)?;
    Ok(match finished {
        Finished::Done => ExitCode::SUCCESS,
        Finished::Interrupted { .. } => ExitCode::from(130),
    })
}

/// The encoder's hidden states of the training clips, computed where they are not there yet.
fn states(
    tuning: &FineTuning,
    (folder, input): (&Path, ClipInput),
    train: &Corpus,
    recipe: &Recipe,
    upstream: &Option<(Upstream, [u8; 32])>,
    talk: Talk,
) -> Result<StoredStates, AnyError> {
    let write = |source| CliError::Write { path: folder.to_owned(), source };
    std::fs::create_dir_all(folder).map_err(write)?;
    let precision = if recipe.train.bf16 { Precision::Bf16 } else { Precision::F32 };
    let identity = match upstream {
        Some((upstream, sha256)) => identity(upstream, sha256),
        // Random or of an initial model: the numbers themselves.
        None => parameters_sha256(&tuning.files.parameters)?,
    };
    let model = tuning.states_model()?;
    let plan = StatesPlan::new(&model, input, train, (&identity, precision), folder)?;
    talk.progress(format_args!(
        "hidden states of {} clips: {:.2} GB in `{}`",
        train.clips().len(),
        plan.bytes() as f64 / 1e9,
        plan.path().display()
    ));
    let start = Instant::now();
    let total = train.clips().len();
    let states = plan.run(|done| talk.note(format_args!("{done} of {total} clips")))?;
    talk.progress(format_args!("hidden states ready in {:.0?}", start.elapsed()));
    Ok(states)
}

struct Console<'a> {
    files: &'a ModelFiles,
    dev: &'a Corpus,
    dev_list: &'a DevList,
    seconds: &'a BTreeMap<Language, f64>,
    talk: Talk,
}

impl Observe for Console<'_> {
    fn step(&mut self, report: &StepReport) {
        self.talk.progress(format_args!(
            "step {:6}  loss {:.4}  norm {:.3}  lr {:.2e}  {:.0} s audio/s  waiting {:.0} %  too short {}  not finite {}",
            report.step,
            report.loss,
            report.gradient_norm,
            report.lr,
            report.audio_per_s,
            100.0 * report.waiting,
            report.counts.get("infeasible").unwrap_or(&0),
            report.not_finite
        ));
    }

    fn validate(&mut self, step: u64) -> Result<serde_json::Value, AnyError> {
        let transcriber = Transcriber::new(self.files, Precision::F32)?;
        let scores = self.score(&transcriber)?;
        for (name, group) in [("seen", &scores.seen), ("unseen", &scores.unseen)] {
            let percent =
                |rate: Option<f64>| rate.map_or("-".to_owned(), |r| format!("{:.1} %", 100.0 * r));
            self.talk.progress(format_args!(
                "step {step:6}  {name:6} speakers: CER {} (mean over languages {})  LID {} ({})",
                percent(group.cer),
                percent(group.macro_cer),
                percent(group.lid_accuracy),
                percent(group.macro_lid_accuracy)
            ));
        }
        Ok(serde_json::json!({ "seen": scores.seen, "unseen": scores.unseen }))
    }
}

impl Console<'_> {
    fn score(&self, transcriber: &Transcriber) -> Result<CorpusScores, AnyError> {
        let condition = |name: &str| -> Option<Condition> { self.dev_list.condition(name) };
        let counted =
            |language: Language| self.seconds.get(&language).is_some_and(|s| *s >= COUNTED_S);
        Ok(evaluate(transcriber, self.dev, condition, counted, |_| {})?)
    }
}
