//! `asr finetune`.

use super::Talk;
use super::failure::{AnyError, CliError};
use crate::bench::{CorpusScores, calibrate, evaluate};
use crate::config::{EncoderFiles, InputConfig, ModelConfig, ModelFiles, Recipe};
use crate::data::{Batches, Clip, Condition, Corpus, DevList, Transcript, read_manifest};
use crate::decode::Transcriber;
use crate::features::LogMel;
use crate::model::checkpoint::StoredAs;
use crate::model::{GeoPoint, Parameters, Recogniser, RecogniserConfig, location_vector};
use crate::text::{Language, Vocabulary, normalise, place_of_language};
use crate::train::{Finished, Observe, Recognition, StepReport, Trainer, Transcribed};
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
    let mut model_config = ModelConfig::new(
        &recipe.name,
        recipe.features.clone(),
        recipe.feature_norm,
        recipe.encoder.clone(),
    );
    model_config.joint = recipe.joint.for_inference();
    let (vocabulary, parameters) = match &recipe.initial_model {
        Some(folder) => initial_model(folder, &recipe)?,
        None => (None, Parameters::default()),
    };
    let vocabulary = match vocabulary {
        Some(vocabulary) => vocabulary,
        None => build_vocabulary(&train, recipe.data.min_character_count)?,
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
    let config = RecogniserConfig {
        encoder: recipe.encoder.clone(),
        vocab_size: vocabulary.len(),
        n_languages: vocabulary.language_ids().len(),
        joint: recipe.joint.clone(),
    };
    let frozen = recipe.train.frozen.clone();
    parameters.freeze(move |name| frozen.iter().any(|start| name.starts_with(start.as_str())));
    let model = Recogniser::for_training(&config, &parameters, recipe.train.seed)?;
    let trained: usize = parameters.trainable().iter().map(|(_, var)| var.elem_count()).sum();
    talk.progress(format_args!(
        "{} parameters, {trained} of them trained, {} tokens",
        parameters.count(),
        vocabulary.len()
    ));
    let places = places(&vocabulary);
    let mut files = ModelFiles {
        config: model_config,
        vocabulary: vocabulary.clone(),
        parameters: parameters.clone(),
    };
    let log_mel = LogMel::new(recipe.features.clone())?;
    let batches = Batches {
        corpus: &train,
        vocabulary: &vocabulary,
        log_mel: &log_mel,
        norm: recipe.feature_norm,
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
    let run_config = recipe.train.run();
    let trainer = Trainer {
        parameters: &parameters,
        source: &Transcribed { batches: &batches, config: &recipe.data.batch },
        config: &run_config,
        folder: &recipe.output,
        stop: &stop,
    };
    let mut console =
        Console { files: &files, dev: &dev, dev_list: &dev_list, seconds: &seconds, talk };
    let mut task = Recognition::new(&model, &places, &recipe.train);
    let finished = trainer.run(&mut task, &mut console)?;
    if finished == Finished::Done {
        let fitted = calibrate(&Transcriber::new(&files, Precision::F32)?, &dev)?;
        if let Some(fitted) = &fitted {
            talk.progress(format_args!(
                "scores calibrated on {} clips: temperature {:.3}, unknown below {:.3}, expected calibration error {:.3}, before {:.3}",
                fitted.clips, fitted.calibration.temperature, fitted.calibration.unknown_threshold, fitted.error, fitted.error_before
            ));
        }
        files.config.calibration = fitted.map(|fitted| fitted.calibration);
    }
    files.write(&recipe.output.join("model"), StoredAs::F16)?;
    Ok(match finished {
        Finished::Done => ExitCode::SUCCESS,
        Finished::Interrupted { .. } => ExitCode::from(130),
    })
}

fn read_clips(recipe: &Recipe, folder: &Path) -> Result<(Vec<Clip>, Vec<Clip>, DevList), AnyError> {
    let dev_list = DevList::read(&folder.join(&recipe.data.dev))?;
    let (mut train, mut dev) = (Vec::new(), Vec::new());
    for (i, manifest) in recipe.data.manifests.iter().enumerate() {
        for mut clip in read_manifest(&recipe.data.root.join(manifest))? {
            clip.weight = recipe.data.weights.get(i).copied().unwrap_or(1.0);
            if i == 0 && dev_list.condition(&clip.name).is_some() {
                dev.push(clip);
            } else {
                train.push(clip);
            }
        }
    }
    Ok((train, dev, dev_list))
}

/// Parameters of a model that the recipe goes on from, and its vocabulary; a pre-trained encoder
/// has none.
fn initial_model(
    folder: &Path,
    recipe: &Recipe,
) -> Result<(Option<Vocabulary>, Parameters), AnyError> {
    let other = || CliError::OtherModel { folder: folder.to_owned() };
    if EncoderFiles::is_in(folder) {
        let (found, parameters) = EncoderFiles::read(folder)?.into_encoder();
        let input =
            InputConfig::LogMel { features: recipe.features.clone(), norm: recipe.feature_norm };
        if found.input != input || !found.encoder.same_shape(&recipe.encoder) {
            return Err(other().into());
        }
        return Ok((None, parameters));
    }
    let files = ModelFiles::read(folder)?;
    let found = &files.config;
    if found.features != recipe.features
        || found.feature_norm != recipe.feature_norm
        || !found.encoder.same_shape(&recipe.encoder)
    {
        return Err(other().into());
    }
    files.parameters.retain(|name| recipe.joint.keeps(name));
    Ok((Some(files.vocabulary), files.parameters))
}

/// The geolocation vector of each language, where it has a place.
fn places(vocabulary: &Vocabulary) -> Vec<Option<Vec<f32>>> {
    vocabulary
        .language_ids()
        .map(|id| {
            let (latitude, longitude) = place_of_language(vocabulary.language_of(id)?)?;
            Some(location_vector(GeoPoint { latitude, longitude }))
        })
        .collect()
}

fn build_vocabulary(clips: &[Clip], min_count: u64) -> Result<Vocabulary, AnyError> {
    let languages: Vec<Language> = clips.iter().filter_map(|clip| clip.language).collect();
    let texts = clips.iter().filter_map(|clip| match (&clip.transcript, clip.language) {
        (Transcript::Text(text), Some(language)) => Some(normalise(text, language)),
        _ => None,
    });
    Ok(Vocabulary::build(languages, texts, min_count)?)
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
