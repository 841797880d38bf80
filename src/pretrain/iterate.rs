//! All stages of a run, one after the other: labels, then a model that predicts them.

use super::PretrainError;
use super::batch::{LabelSet, Share, UnitBatch, UnitBatchConfig, UnitBatches};
use super::label_making::{self, LabelNotes};
use super::labels::{UnitLabels, write_whole};
use super::objective::{Head, LabelTimes, frame_steps_s};
use super::recipe::{LabelSource, ModelReference, PretrainRecipe, Stage};
use super::speech::{Listed, Speech};
use super::task::{MaskedPrediction, PredictionScores};
use crate::config::{EncoderFiles, EncoderFolderConfig, ModelInput};
use crate::data::Upsampling;
use crate::model::checkpoint::StoredAs;
use crate::model::{MaskedEncoder, MaskedEncoderConfig, Parameters, Pass};
use crate::train::{Finished, Observe, Source, StepReport, Trainer};
use asr_kernels::Precision;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// What a run tells while it goes.
pub trait Watch {
    /// Something was done, or is about to be.
    fn note(&mut self, text: &str);

    /// Something that the user should know of.
    fn warn(&mut self, text: &str);

    /// A stage begins to train, from the step after `done`.
    fn begin(&mut self, stage: &Stage);

    /// A line of the log.
    fn step(&mut self, stage: &Stage, report: &StepReport);

    /// A validation.
    fn scores(&mut self, stage: &Stage, step: u64, scores: &PredictionScores);
}

/// How far a stage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Its model is written.
    Done,
    /// It has labels or a checkpoint.
    Begun,
    /// Nothing of it is there.
    New,
}

/// The folder of a run's stage.
#[derive(Debug, Clone)]
struct StageFolder(PathBuf);

impl StageFolder {
    fn of(recipe: &PretrainRecipe, stage: &str) -> Self {
        Self(recipe.stage_folder(stage))
    }

    fn model(&self) -> PathBuf {
        self.0.join("model")
    }

    fn labels(&self, set: usize) -> PathBuf {
        self.0.join(format!("labels-{set}.units"))
    }

    fn progress(&self) -> Progress {
        if self.model().join("model.safetensors").is_file() {
            Progress::Done
        } else if self.0.exists() {
            Progress::Begun
        } else {
            Progress::New
        }
    }
}

/// How far each stage of a run is, in their order.
#[must_use]
pub fn progress(recipe: &PretrainRecipe) -> Vec<Progress> {
    recipe.stages.iter().map(|stage| StageFolder::of(recipe, &stage.name).progress()).collect()
}

/// Runs every stage that is not done; `folder` is the recipe's, and `stop`, set from outside,
/// ends the run after the current step with its checkpoint written. What a run has written is
/// gone on with.
///
/// # Errors
/// [`PretrainError`]; whatever is finished stays valid.
pub fn pretrain(
    recipe: &PretrainRecipe,
    folder: &Path,
    stop: &AtomicBool,
    watch: &mut dyn Watch,
) -> Result<Finished, PretrainError> {
    check_same_run(recipe)?;
    let listed = Listed::read(&recipe.data, folder)?;
    let mut speech = None;
    for stage in &recipe.stages {
        let at = StageFolder::of(recipe, &stage.name);
        if at.progress() == Progress::Done {
            continue;
        }
        let speech = match &speech {
            Some(speech) => speech,
            None => speech.insert(load(&listed, recipe, watch)?),
        };
        let in_stage =
            |source| PretrainError::Stage { name: stage.name.clone(), source: Box::new(source) };
        let run = StageRun { recipe, stage, at: &at, listed: &listed, speech };
        match run.run(stop, watch).map_err(in_stage)? {
            Finished::Done => {}
            interrupted @ Finished::Interrupted { .. } => return Ok(interrupted),
        }
    }
    Ok(Finished::Done)
}

fn load(
    listed: &Listed,
    recipe: &PretrainRecipe,
    watch: &mut dyn Watch,
) -> Result<Speech, PretrainError> {
    let speech = listed.load(&recipe.data, &recipe.output)?;
    for (path, error) in &speech.unreadable {
        watch.warn(&format!("left out `{}`: {error}", path.display()));
    }
    for language in &speech.empty {
        watch.warn(&format!("no clip of language {language} is left to train on"));
    }
    let seconds: f64 = speech.train.iter().map(|&i| speech.corpus.duration_s(i)).sum();
    watch.note(&format!(
        "{} clips, {:.1} h, to learn from; {} to validate on",
        speech.train.len(),
        seconds / 3600.0,
        speech.validation.len()
    ));
    Ok(speech)
}

/// Writes the resolved recipe into the run's folder; one that is there must say the same of
/// the data and of every stage that has begun.
fn check_same_run(recipe: &PretrainRecipe) -> Result<(), PretrainError> {
    let path = recipe.output.join("recipe.toml");
    if path.is_file() {
        let before = PretrainRecipe::read(&path, &[])?;
        let data = &before.data;
        let same_data =
            (&data.manifests, &data.dev, data.held_out, data.min_clip_s, data.max_clip_s) == {
                let data = &recipe.data;
                (&data.manifests, &data.dev, data.held_out, data.min_clip_s, data.max_clip_s)
            };
        let changed = recipe.stages.iter().find(|stage| {
            let begun = StageFolder::of(recipe, &stage.name).progress() != Progress::New;
            begun && before.stages.iter().all(|other| other != *stage)
        });
        if let Some(stage) = changed {
            let name = stage.name.clone();
            return Err(PretrainError::OtherRecipe { folder: recipe.output.clone(), name });
        }
        if !same_data {
            let name = "data".to_owned();
            return Err(PretrainError::OtherRecipe { folder: recipe.output.clone(), name });
        }
    }
    let text = toml::to_string_pretty(recipe)
        .map_err(|source| PretrainError::Unwritable { source: Box::new(source) })?;
    std::fs::create_dir_all(&recipe.output)
        .map_err(|source| PretrainError::Write { path: recipe.output.clone(), source })?;
    write_whole(&path, text.as_bytes())
}

/// A stage at work.
#[derive(Clone, Copy)]
struct StageRun<'a> {
    recipe: &'a PretrainRecipe,
    stage: &'a Stage,
    at: &'a StageFolder,
    listed: &'a Listed,
    speech: &'a Speech,
}

impl StageRun<'_> {
    fn run(&self, stop: &AtomicBool, watch: &mut dyn Watch) -> Result<Finished, PretrainError> {
        let stage = self.stage;
        std::fs::create_dir_all(&self.at.0)
            .map_err(|source| PretrainError::Write { path: self.at.0.clone(), source })?;
        let mut sets = Vec::with_capacity(stage.labels.len());
        for i in 0..stage.labels.len() {
            match self.label_set(i, stop, watch)? {
                Some(set) => sets.push(set),
                None => return Ok(Finished::Interrupted { step: 0 }),
            }
        }
        self.check_labels(&sets)?;
        let input = ModelInput::new(&stage.input)?;
        let times = input.frame_times(&stage.encoder);
        let label_times: Vec<LabelTimes> = sets.iter().map(LabelSet::times).collect();
        let heads = stage.objective.heads(&stage.encoder, times, &label_times);
        let (shapes, head_names) = stage.objective.shapes(&stage.encoder, &heads, &label_times);
        let names = head_log_names(&heads, &frame_steps_s(&stage.encoder, times));
        let config = MaskedEncoderConfig {
            encoder: stage.encoder.clone(),
            heads: shapes.clone(),
            head_names,
            front_end_gradient: stage.objective.front_end_gradient,
        };
        let parameters = self.initial_parameters(&shapes)?;
        let frozen = stage.train.frozen.clone();
        parameters.freeze(move |name| frozen.iter().any(|start| name.starts_with(start.as_str())));
        let model = MaskedEncoder::for_training(&config, &parameters, stage.train.seed)?;
        watch.note(&format!("{}: {} parameters", stage.name, parameters.count()));
        let train = self.share(&self.speech.train, &sets);
        let held_out = self.share(&self.speech.validation, &sets);
        let natural = UnitBatchConfig {
            upsampling: Upsampling { language: 1.0, dataset: 1.0 },
            ..stage.batch.clone()
        };
        let batches = UnitBatches {
            share: &train,
            input: &input,
            encoder: &stage.encoder,
            config: &stage.batch,
            mask: &stage.objective.mask,
            mixing: stage.mixing.as_ref(),
            noise: &self.speech.noise,
            seed: stage.train.seed,
        };
        let validation =
            UnitBatches { share: &held_out, config: &natural, mixing: None, seed: 0, ..batches };
        let held_out = held_out_batches(&validation)?;
        let mut task = MaskedPrediction {
            model: &model,
            objective: &stage.objective,
            heads: &heads,
            names: &names,
        };
        let mut observer =
            StageObserver { stage, task: MaskedPrediction { ..task }, held_out: &held_out, watch };
        observer.watch.begin(stage);
        let trainer = Trainer {
            parameters: &parameters,
            upstream: None,
            source: &batches,
            config: &stage.train,
            folder: &self.at.0,
            stop,
        };
        let finished = trainer.run(&mut task, &mut observer)?;
        if finished == Finished::Done {
            let config = EncoderFolderConfig::new(
                &format!("{}-{}", self.recipe.name, stage.name),
                stage.input.clone(),
                stage.encoder.clone(),
                shapes,
                head_names,
            );
            EncoderFiles { config, parameters }.write(&self.at.model(), StoredAs::F32)?;
        }
        Ok(finished)
    }

    fn share<'b>(&'b self, clips: &'b [usize], sets: &'b [LabelSet]) -> Share<'b> {
        let corpus = &self.speech.corpus;
        let listed = clips.iter().map(|&i| corpus.clips()[i].clone()).collect();
        Share { corpus, clips, listed, places: &self.speech.places, sets }
    }

    /// Label set `i` of the stage, made first if it is not there; `None` if that was stopped.
    fn label_set(
        &self,
        i: usize,
        stop: &AtomicBool,
        watch: &mut dyn Watch,
    ) -> Result<Option<LabelSet>, PretrainError> {
        let source = &self.stage.labels[i];
        if let LabelSource::File { path, first_s } = source {
            return Ok(Some(LabelSet { labels: UnitLabels::open(path)?, first_s: *first_s }));
        }
        if let LabelSource::Stage { stage: name, set } = source {
            let stage = self.recipe.stages.iter().find(|stage| stage.name == *name);
            let stage = stage.ok_or_else(|| PretrainError::NoSuchStage { name: name.clone() })?;
            let at = StageFolder::of(self.recipe, name);
            let other = StageRun { stage, at: &at, ..*self };
            return other.label_set(*set, stop, watch);
        }
        let path = self.at.labels(i);
        let beside = path.with_extension("json");
        if !(path.is_file() && beside.is_file()) {
            watch.note(&format!("{}: making labels, {}", self.stage.name, describe(source)));
            let wanted = label_making::Wanted {
                source,
                model: self.model_of(source),
                clustering: &self.stage.clustering,
                speech: self.speech,
                n_listed: self.listed.clips.len(),
            };
            let Some(notes) = label_making::make(&wanted, &path, stop, watch)? else {
                return Ok(None);
            };
            let json = serde_json::to_vec_pretty(&notes)
                .map_err(|source| PretrainError::Unwritable { source: Box::new(source) })?;
            write_whole(&beside, &json)?;
        }
        let json = std::fs::read(&beside)
            .map_err(|source| PretrainError::Read { path: beside.clone(), source })?;
        let notes: LabelNotes = serde_json::from_slice(&json).map_err(|_| {
            let problem = "what stands beside it is not the JSON that was written";
            PretrainError::LabelFile { path: beside.clone(), problem }
        })?;
        Ok(Some(LabelSet { labels: UnitLabels::open(&path)?, first_s: notes.first_s }))
    }

    /// Path of the model that labels come from.
    fn model_of(&self, source: &LabelSource) -> Option<PathBuf> {
        match source {
            LabelSource::Layer { of, .. } => Some(self.path_of(of)),
            LabelSource::Mfcc { .. } | LabelSource::File { .. } | LabelSource::Stage { .. } => None,
        }
    }

    fn path_of(&self, reference: &ModelReference) -> PathBuf {
        match reference {
            ModelReference::Stage(name) => StageFolder::of(self.recipe, name).model(),
            ModelReference::Model(path) => path.clone(),
        }
    }

    /// Every clip has as many labels as it has room for.
    fn check_labels(&self, sets: &[LabelSet]) -> Result<(), PretrainError> {
        let speech = self.speech;
        for set in sets {
            let (found, expected) = (set.labels.n_clips(), self.listed.clips.len());
            if found != expected {
                let path = set.labels.path().to_owned();
                return Err(PretrainError::ClipCount { path, found, expected });
            }
            for &clip in speech.train.iter().chain(&speech.validation) {
                let found = set.labels.clip(speech.places[clip])?.len();
                let duration_s = speech.corpus.duration_s(clip);
                if !set.fits(found, duration_s) {
                    return Err(PretrainError::LabelMismatch {
                        clip: speech.corpus.clips()[clip].path.clone(),
                        labels: set.labels.path().to_owned(),
                        found,
                        expected: (duration_s * set.labels.rate_hz()).round() as usize,
                    });
                }
            }
        }
        Ok(())
    }

    /// Nothing, or the weights of the model that the stage goes on from; its heads, too, if
    /// they predict as many units.
    fn initial_parameters(
        &self,
        shapes: &[crate::model::PredictionShape],
    ) -> Result<Parameters, PretrainError> {
        let Some(reference) = &self.stage.initial else { return Ok(Parameters::default()) };
        let path = self.path_of(reference);
        let files = EncoderFiles::read(&path)?;
        if !files.config.encoder.same_shape(&self.stage.encoder)
            || files.config.input != self.stage.input
        {
            return Err(PretrainError::OtherEncoder { path });
        }
        if files.config.heads == shapes {
            return Ok(files.parameters);
        }
        Ok(files.into_encoder().1)
    }
}

/// What labels are made of, in words.
#[must_use]
pub fn describe(source: &LabelSource) -> String {
    match source {
        LabelSource::Mfcc { units } => format!("{units} clusters of MFCC"),
        LabelSource::Layer { of, layer, units } => {
            let model = match of {
                ModelReference::Stage(name) => format!("stage {name}"),
                ModelReference::Model(path) => format!("`{}`", path.display()),
            };
            format!("{units} clusters of layer {layer} of {model}")
        }
        LabelSource::Stage { stage, .. } => format!("labels of stage {stage}"),
        LabelSource::File { path, .. } => format!("labels of `{}`", path.display()),
    }
}

/// `40ms`, with the number of the label set where there are several.
fn head_log_names(heads: &[Head], steps_s: &[f64]) -> Vec<String> {
    let several = heads.iter().any(|head| head.set > 0);
    let name = |head: &Head| {
        let ms = (steps_s[head.resolution] * 1e6).round() / 1000.0;
        if several { format!("{ms}ms.{}", head.set) } else { format!("{ms}ms") }
    };
    let plain: Vec<String> = heads.iter().map(name).collect();
    // The control model has several resolutions of one rate.
    plain
        .iter()
        .enumerate()
        .map(|(i, name)| match plain[..i].iter().filter(|other| *other == name).count() {
            0 => name.clone(),
            n => format!("{name}-{}", n + 1),
        })
        .collect()
}

fn held_out_batches(source: &UnitBatches<'_>) -> Result<Vec<UnitBatch>, PretrainError> {
    let plan = source.plan(0);
    plan.batches.iter().zip(0..).map(|(clips, key)| source.batch(clips, key)).collect()
}

struct StageObserver<'a> {
    stage: &'a Stage,
    task: MaskedPrediction<'a>,
    held_out: &'a [UnitBatch],
    watch: &'a mut dyn Watch,
}

impl Observe for StageObserver<'_> {
    fn step(&mut self, report: &StepReport) {
        self.watch.step(self.stage, report);
    }

    fn validate(
        &mut self,
        step: u64,
    ) -> Result<serde_json::Value, Box<dyn std::error::Error + Send + Sync>> {
        let bf16 = self.stage.train.bf16;
        let pass = Pass::inference(if bf16 { Precision::Bf16 } else { Precision::F32 });
        let mut scores = PredictionScores::new(self.task.names);
        for batch in self.held_out {
            scores.add(&self.task.answer(batch, &pass)?)?;
        }
        self.watch.scores(self.stage, step, &scores);
        Ok(scores.to_json())
    }
}

/// Whether the run was asked to stop.
pub(super) fn stopped(stop: &AtomicBool) -> bool {
    stop.load(Ordering::Relaxed)
}
