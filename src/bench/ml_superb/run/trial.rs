//! One run: a head is trained on an encoder, its best states are averaged, and what it writes is
//! kept beside the references.

use super::candidates::Candidates;
use super::job::{Chosen, Job, Track};
use super::recordings::Recordings;
use super::rounds::{Rounds, by_length};
use super::{Event, RunError, Settings};
use crate::bench::ml_superb::Release;
use crate::config::{FineTuning, FineTuningPlan, Strategy, Upstream};
use crate::data::{Augmentation, Batches, ClipInput, Labels, StoredStates};
use crate::decode::lm::{Alphabet, Fusion};
use crate::decode::{BeamOptions, beam_search};
use crate::features::InputFeatures;
use crate::files;
use crate::model::{JointConfig, Parameters, Pass, Recogniser, Sequence};
use crate::text::Vocabulary;
use crate::train::{
    Finished, Observe, Recognition, StatesPlan, StepReport, Task, TrainConfig, Trainer,
};
use asr_kernels::{Precision, threads};
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Most parameters that may be trained, heads included.
pub const MAX_TRAINABLE: usize = 100_000_000;
/// Longest and shortest utterance that is learned from, seconds.
const TRAIN_S: std::ops::RangeInclusive<f64> = 0.1..=20.0;

/// An encoder under test.
#[derive(Debug)]
pub struct Candidate<'a> {
    /// Its weights and settings.
    pub upstream: &'a Upstream,
    /// SHA-256 of its weights.
    pub sha256: [u8; 32],
    /// Hidden states of every recording, where nothing of the encoder is trained.
    pub states: Option<&'a StoredStates>,
    /// What of the encoder is trained.
    pub strategy: &'a Strategy,
}

/// A run to be done.
#[derive(Debug)]
pub struct Trial<'a> {
    /// What is run.
    pub job: &'a Job,
    /// The encoder.
    pub candidate: Candidate<'a>,
    /// The corpus.
    pub release: &'a Release,
    /// Its recordings.
    pub recordings: &'a Recordings,
    /// How it is trained.
    pub settings: &'a Settings,
    /// Where everything of the run goes.
    pub folder: &'a Path,
}

/// What is known of a finished run besides its texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Trained parameters, the output layer included.
    pub trained_parameters: usize,
    /// Tokens of the output layer.
    pub tokens: usize,
    /// Weights of the hidden states, the input of the first layer first.
    pub layer_weights: Vec<f64>,
    /// Steps whose states were averaged, the best first.
    pub averaged_steps: Vec<u64>,
    /// Utterances learned from, looked at while training, and scored.
    pub utterances: [usize; 3],
    /// Minutes learned from.
    pub train_minutes: f64,
}

/// The files of a finished run.
#[derive(Debug, Clone)]
pub struct RunFiles {
    folder: PathBuf,
}

impl RunFiles {
    /// Of a run's folder.
    #[must_use]
    pub fn of(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Log of the training, an object per line.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.join("log.jsonl")
    }

    /// References and hypotheses of the test set, or of the varieties.
    #[must_use]
    pub fn texts(&self, dialects: bool) -> [PathBuf; 2] {
        let start = if dialects { "dialect-" } else { "" };
        ["references", "hypotheses"].map(|name| self.folder.join(format!("{start}{name}.txt")))
    }

    /// What is known of the run; written last, so where it is the run is finished.
    ///
    /// # Errors
    /// If the file is there and cannot be read.
    pub fn facts(&self) -> Result<Option<Facts>, RunError> {
        let path = self.folder.join("run.json");
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|source| RunError::Candidates { path, source }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(RunError::Read { path, source }),
        }
    }
}

/// Parameters of their own where they are trained: what one run learns another does not know. The
/// numbers of a frozen encoder are shared.
fn own(parameters: &Parameters, strategy: &Strategy) -> Result<Parameters, RunError> {
    if strategy.is_frozen() {
        return Ok(parameters.fork());
    }
    let copy = Parameters::default();
    for (name, var) in parameters.all() {
        copy.insert(&name, var.flatten_all()?.to_vec1()?, var.dims())?;
    }
    Ok(copy)
}

impl Settings {
    fn train(&self, job: &Job) -> TrainConfig {
        let steps = self.updates(job.track, job.budget);
        let every = (steps / self.validations.max(1)).max(1);
        TrainConfig {
            seed: self.seed,
            schedule: self.schedule(steps),
            optimiser: self.optimiser.clone(),
            micro_batches: self.accumulate,
            low_weight: 0.0,
            language_weight: 0.0,
            intermediate_weight: 0.0,
            language_loss: None,
            ctc_dro: None,
            encoder_rate: self.encoder_rate,
            unfreeze_after: 0,
            frozen: Vec::new(),
            max_trainable: Some(MAX_TRAINABLE),
            bf16: self.bf16,
            recompute: false,
            log_every: (steps / 50).max(1),
            validate_every: every,
            save_every: every.min(500),
        }
    }

    fn precision(&self) -> Precision {
        if self.bf16 { Precision::Bf16 } else { Precision::F32 }
    }
}

/// What [`Trial::run`] works on.
struct Bench<'a> {
    batches: Batches<'a>,
    model: &'a Recogniser,
    precision: Precision,
    per_batch: usize,
}

impl Trial<'_> {
    /// The hidden states that a frozen encoder gives of all recordings, in a file in `folder`; they
    /// serve every run on that encoder.
    ///
    /// # Errors
    /// If the encoder cannot be run or the file not be used.
    pub fn states_plan(
        upstream: &Upstream,
        identity: &str,
        recordings: &Recordings,
        settings: &Settings,
        (folder, size): (&Path, &mut dyn FnMut(u64)),
        progress: impl FnMut(usize),
    ) -> Result<StoredStates, RunError> {
        let input = InputFeatures::new(&upstream.input)?;
        // The states do not depend on what is written; any vocabulary will do.
        let vocabulary = Vocabulary::build([], [""], 1)?;
        let job = Job { track: Track::Asr, budget: super::Budget::Hour, monolingual: None };
        let train = settings.train(&job);
        let strategy = Strategy::Frozen { cache: Some(folder.to_owned()) };
        let joint = JointConfig::default();
        let plan = FineTuningPlan {
            name: "states",
            input: upstream.input.clone(),
            encoder: &upstream.encoder,
            strategy: Some(&strategy),
            joint: &joint,
            downstream: &settings.head.config(upstream, &input),
            train: &train,
        };
        let model = FineTuning::new(&plan, vocabulary, upstream.parameters.fork())?;
        let model = model.states_model()?;
        let clips = ClipInput::Computed(&input);
        let identity = (identity, settings.precision());
        let plan = StatesPlan::new(&model, clips, &recordings.corpus, identity, folder)?;
        size(plan.bytes());
        Ok(plan.run(progress)?)
    }

    /// Trains, chooses, decodes and writes; goes on where a run of before stopped. `None` where it
    /// was stopped again.
    ///
    /// # Errors
    /// Whatever goes wrong, see [`RunError`].
    pub fn run(
        &self,
        stop: &AtomicBool,
        tell: &mut (dyn FnMut(Event) + Send),
    ) -> Result<Option<Facts>, RunError> {
        let files = RunFiles::of(self.folder);
        if let Some(facts) = files.facts()? {
            return Ok(Some(facts));
        }
        let write = |path: &Path| {
            let path = path.to_owned();
            move |source| RunError::Write { path, source }
        };
        std::fs::create_dir_all(self.folder).map_err(write(self.folder))?;
        let chosen = self.job.choose(self.release);
        let vocabulary = self.job.vocabulary(self.release, &chosen.train)?;
        let train = self.settings.train(self.job);
        let upstream = self.candidate.upstream;
        let input = InputFeatures::new(&upstream.input)?;
        let plan = FineTuningPlan {
            name: &self.job.name(),
            input: upstream.input.clone(),
            encoder: &upstream.encoder,
            strategy: Some(self.candidate.strategy),
            joint: &JointConfig::default(),
            downstream: &self.settings.head.config(upstream, &input),
            train: &train,
        };
        let tuning = FineTuning::new(
            &plan,
            vocabulary,
            own(&upstream.parameters, self.candidate.strategy)?,
        )?;
        let parameters = &tuning.files.parameters;
        let run_config = train.run();
        run_config.check_trainable(tuning.trained())?;
        let (labels, spelt) = self.labels(&chosen, &tuning.files.vocabulary)?;
        let clips = |utterances: &[usize]| -> Vec<usize> {
            utterances.iter().filter_map(|&i| self.recordings.clip(i)).collect()
        };
        let corpus = &self.recordings.corpus;
        let learned: Vec<usize> = clips(&chosen.train)
            .into_iter()
            .filter(|&clip| TRAIN_S.contains(&corpus.duration_s(clip)))
            .collect();
        let dev: Vec<usize> = clips(&chosen.dev).into_iter().filter(|clip| spelt[*clip]).collect();
        if learned.is_empty() || dev.is_empty() {
            return Err(RunError::Nothing { job: self.job.name() });
        }
        let bench = Bench {
            batches: Batches {
                corpus,
                vocabulary: &tuning.files.vocabulary,
                labels: Some(&labels),
                input: self.candidate.states.map_or(ClipInput::Computed(&input), ClipInput::Stored),
                augmentation: &Augmentation::default(),
                seed: self.settings.seed,
            },
            model: &tuning.model,
            precision: self.settings.precision(),
            per_batch: self.settings.batch_utterances,
        };
        let places = vec![None; tuning.files.vocabulary.languages().len()];
        let mut watcher = Watcher {
            bench: &bench,
            dev: by_length(&bench.batches, dev.iter().copied(), bench.per_batch),
            task: Recognition::new(&tuning.model, &places, &train),
            parameters,
            candidates: Candidates::open(self.folder, self.settings.averaged(self.job.track))?,
            steps: train.schedule.steps,
            tell,
        };
        let trainer = Trainer {
            parameters,
            upstream: Some(self.candidate.sha256),
            source: &Rounds {
                batches: &bench.batches,
                clips: &learned,
                per_batch: bench.per_batch,
                per_step: self.settings.accumulate,
                seed: self.settings.seed,
            },
            config: &run_config,
            folder: self.folder,
            stop,
        };
        let mut task = Recognition::new(&tuning.model, &places, &train);
        if trainer.run(&mut task, &mut watcher)? != Finished::Done {
            return Ok(None);
        }
        let candidates = watcher.candidates;
        let averaged_steps = candidates.average(parameters)?;
        for (utterances, dialects) in [(&chosen.test, false), (&chosen.dialects, true)] {
            if !utterances.is_empty() {
                let texts = self.texts(&bench, utterances)?;
                for (path, text) in files.texts(dialects).iter().zip(texts) {
                    files::write_whole(path, text.as_bytes()).map_err(write(path))?;
                }
            }
        }
        let facts = Facts {
            trained_parameters: tuning.trained(),
            tokens: tuning.files.vocabulary.len(),
            layer_weights: layer_weights(parameters)?,
            averaged_steps,
            utterances: [learned.len(), dev.len(), clips(&chosen.test).len()],
            train_minutes: learned.iter().map(|&clip| corpus.duration_s(clip)).sum::<f64>() / 60.0,
        };
        let path = self.folder.join("run.json");
        let json = serde_json::to_vec_pretty(&facts)
            .map_err(|source| RunError::Candidates { path: path.clone(), source })?;
        files::write_whole(&path, &json).map_err(write(&path))?;
        candidates.clear();
        Ok(Some(facts))
    }

    /// What each clip is to spell, and whether it can be spelt: development may have languages that
    /// training has not.
    fn labels(
        &self,
        chosen: &Chosen,
        vocabulary: &Vocabulary,
    ) -> Result<(Vec<Labels>, Vec<bool>), RunError> {
        let n = self.recordings.corpus.clips().len();
        let nothing = Labels { tokens: Vec::new(), open_ended: false, words: 0 };
        let (mut labels, mut spelt) = (vec![nothing; n], vec![false; n]);
        for &i in chosen.train.iter().chain(&chosen.dev) {
            let utterance = &self.release.utterances[i];
            let known = vocabulary.id_of_language(utterance.language).is_some();
            if let (Some(clip), true) = (self.recordings.clip(i), known) {
                labels[clip] = self.job.labels(utterance, vocabulary)?;
                spelt[clip] = true;
            }
        }
        Ok((labels, spelt))
    }

    /// References and hypotheses of utterances, a line each, in their order. A recording that could
    /// not be read has an empty hypothesis.
    fn texts(&self, bench: &Bench, utterances: &[usize]) -> Result<[String; 2], RunError> {
        let clips = utterances.iter().filter_map(|&i| self.recordings.clip(i));
        let batches = by_length(&bench.batches, clips, bench.per_batch);
        let read: Vec<Vec<(usize, Vec<u32>)>> = batches
            .par_iter()
            .with_max_len(1)
            .map(|clips| threads::serial(|| bench.decode(clips)))
            .collect::<Result<_, _>>()?;
        let mut tokens = vec![Vec::new(); self.recordings.corpus.clips().len()];
        for (clip, found) in read.into_iter().flatten() {
            tokens[clip] = found;
        }
        let (mut references, mut hypotheses) = (String::new(), String::new());
        for &i in utterances {
            let utterance = &self.release.utterances[i];
            let found = self.recordings.clip(i).map_or(&[][..], |clip| &tokens[clip]);
            references.push_str(&self.job.reference(utterance));
            let vocabulary = bench.batches.vocabulary;
            hypotheses.push_str(&self.job.hypothesis(&utterance.id, found, vocabulary));
        }
        Ok([references, hypotheses])
    }
}

impl Bench<'_> {
    /// The tokens of each clip by a prefix search that keeps one prefix, as the recipe decodes.
    fn decode(&self, clips: &[usize]) -> Result<Vec<(usize, Vec<u32>)>, RunError> {
        let batch = self.batches.make(clips, 0)?;
        let shape = (clips.len(), batch.frames, batch.bins);
        let input = Sequence {
            hidden: Tensor::from_slice(&batch.features, shape, &Device::Cpu)?,
            lengths: batch.lengths,
        };
        let pass = Pass::inference(self.precision);
        let logits = self.model.forward(&input, &pass)?.high;
        let log_probs = candle_nn::ops::log_softmax(&logits.values, 2)?;
        let vocab = log_probs.dim(2)?;
        // Tags are text here: the recipe spells them like any other token.
        let tokens = (0..vocab).map(|token| (token > 0).then_some('a'));
        let fusion = Fusion::new(Arc::new(Alphabet::from_characters(tokens)));
        let mut found = Vec::with_capacity(clips.len());
        for (i, &clip) in clips.iter().enumerate() {
            let frames = log_probs.get(i)?.narrow(0, 0, logits.lengths[i])?;
            let frames = frames.flatten_all()?.to_vec1::<f32>()?;
            let best = beam_search(&frames, &fusion, &BeamOptions::new(1)).into_iter().next();
            found.push((clip, best.map(|best| best.tokens).unwrap_or_default()));
        }
        Ok(found)
    }
}

/// The weights of the hidden states: a softmax of what was learned.
fn layer_weights(parameters: &Parameters) -> Result<Vec<f64>, RunError> {
    let Some((_, weights)) =
        parameters.all().into_iter().find(|(name, _)| name.ends_with("featurizer.weights"))
    else {
        return Ok(Vec::new());
    };
    let weights = candle_nn::ops::softmax(weights.as_tensor(), 0)?.to_vec1::<f32>()?;
    Ok(weights.into_iter().map(f64::from).collect())
}

/// Looks at development while the head is trained, and keeps the best states.
struct Watcher<'a> {
    bench: &'a Bench<'a>,
    dev: Vec<Vec<usize>>,
    task: Recognition<'a>,
    parameters: &'a Parameters,
    candidates: Candidates,
    steps: u64,
    tell: &'a mut (dyn FnMut(Event) + Send),
}

impl Observe for Watcher<'_> {
    fn step(&mut self, report: &StepReport) {
        (self.tell)(Event::Step { step: report.step, steps: self.steps, loss: report.loss });
    }

    fn validate(
        &mut self,
        step: u64,
    ) -> Result<serde_json::Value, Box<dyn std::error::Error + Send + Sync>> {
        let (bench, task) = (self.bench, &self.task);
        let parts: Vec<(f64, usize)> = self
            .dev
            .par_iter()
            .with_max_len(1)
            .map(|clips| {
                threads::serial(|| {
                    let batch = bench.batches.make(clips, 0)?;
                    let loss = task.loss(&batch, &Pass::inference(bench.precision))?;
                    Ok::<_, RunError>((loss.telling.read()?.nats, loss.divisor))
                })
            })
            .collect::<Result<_, _>>()?;
        let (nats, tokens) =
            parts.iter().fold((0.0, 0), |(nats, n), part| (nats + part.0, n + part.1));
        let loss = nats / tokens.max(1) as f64;
        self.candidates.offer((step, loss), self.parameters)?;
        (self.tell)(Event::Validated { step, loss });
        Ok(serde_json::json!({ "loss": loss }))
    }
}
