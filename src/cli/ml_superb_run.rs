//! `asr bench ml-superb run` and `asr bench ml-superb2`.

use super::Talk;
use super::failure::{AnyError, CliError};
use super::finetune_data::{identity, load_upstream};
use super::model::hexadecimal;
use super::output::write_stdout;
use super::report::{Labels, place, provenance};
use crate::bench::ml_superb::Release;
use crate::bench::ml_superb::run::{
    Budget, Candidate, Event, Head, Job, Recordings, RunFiles, Scored, Settings, System, Track,
    Trial, monolingual_configs,
};
use crate::bench::report::Report;
use crate::config::{Strategy, Upstream};
use crate::files;
use crate::text::{Language, Variant};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Train the heads of ML-SUPERB 1.0 on encoders, and score them
///
/// DIR is a release as it unpacks or as Hugging Face has it, or a small one of `make-mini`.
/// Encoders are folders or checkpoints, ours or released ones, and stay frozen: their hidden
/// states are computed once and kept in the output folder. What is finished is not done again,
/// so that an interrupted benchmark goes on when repeated, to the same numbers.
///
/// The report has a row for each encoder beside the published ones. Without options training
/// is as long as published: weeks on a CPU.
///
/// Example:
///   asr bench ml-superb run eighth_version -m hubert=facebook/hubert-base-ls960 -m mine/model \
///     -o runs/superb --updates 2000 --learning-rate 1e-3
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct FirstArgs {
    /// Tracks to run
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [FirstTrack::Mono, FirstTrack::Asr, FirstTrack::Lid, FirstTrack::AsrLid])]
    track: Vec<FirstTrack>,
    /// Budgets of training per language and dataset
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [BudgetArg::TenMinutes, BudgetArg::Hour])]
    budget: Vec<BudgetArg>,
    #[command(flatten)]
    run: RunArgs,
}

/// Train the head of ML-SUPERB 2.0 on encoders in several ways, and score it
///
/// The language tag, then the text as it is published, after an hour of training per language
/// and dataset; mean over languages, worst fifteen, standard deviation and varieties. At most
/// 100 million parameters are trained. As `asr bench ml-superb run` otherwise; in the same
/// output folder both share recordings and hidden states, and the report has both.
///
/// Example:
///   asr bench ml-superb2 eighth_version -m facebook/hubert-base-ls960 -o runs/superb \
///     --strategy frozen --strategy lora=8 --strategy partial=4-7 --updates 2000
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct SecondArgs {
    /// What of the encoder is trained: `frozen`, `partial=FIRST-LAST` (blocks from 0), `lora=RANK`,
    /// `adapter=WIDTH` or `full`; may be repeated
    #[arg(long, value_name = "KIND", default_value = "frozen", value_parser = strategy)]
    strategy: Vec<NamedStrategy>,
    /// What is trained above the encoder
    #[arg(long, value_enum, default_value = "baseline")]
    head: HeadArg,
    /// Which scorer: `recipe` or `server`
    #[arg(long, default_value = "recipe")]
    scorer: Variant,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The corpus
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// An encoder: a folder, a checkpoint or a model of the Hub, `NAME=` before it to call it
    /// something; may be repeated
    #[arg(short, long, value_name = "MODEL", required = true)]
    model: Vec<String>,
    /// Folder for runs, hidden states and report
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// Folder for report.html, report.md, report.json and report.csv [default: OUT/report]
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Repairs of the language labels
    #[arg(long, value_enum, default_value = "original")]
    labels: Labels,
    /// Updates of each run instead of the published number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    updates: Option<u64>,
    /// Updates of each monolingual run instead
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    mono_updates: Option<u64>,
    /// Learning rate, constant
    #[arg(long, value_name = "X", default_value_t = 1e-4)]
    learning_rate: f64,
    /// Utterances of a batch
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch_utterances: u16,
    /// Batches of an update
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    accumulate: u16,
    /// Looks at the development set in each run
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    validations: u64,
    /// Seed of weights, batches and masks
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Matrix products in bf16, f32 sums, where the CPU has them
    #[arg(long)]
    bf16: bool,
    /// Do not download: use the cache only
    #[arg(long)]
    offline: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum HeadArg {
    /// Two Transformer layers of 256 numbers
    Baseline,
    /// 24 Transformer layers of 512
    Transformer,
    /// 12 Conformer layers of 512
    Conformer,
    /// 12 E-Branchformer layers of 512
    EBranchformer,
}

impl From<HeadArg> for Head {
    fn from(head: HeadArg) -> Self {
        match head {
            HeadArg::Baseline => Self::Baseline,
            HeadArg::Transformer => Self::Transformer,
            HeadArg::Conformer => Self::Conformer,
            HeadArg::EBranchformer => Self::EBranchformer,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FirstTrack {
    Mono,
    Asr,
    Lid,
    AsrLid,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum BudgetArg {
    #[value(name = "10min")]
    TenMinutes,
    #[value(name = "1h")]
    Hour,
}

impl From<BudgetArg> for Budget {
    fn from(budget: BudgetArg) -> Self {
        match budget {
            BudgetArg::TenMinutes => Self::TenMinutes,
            BudgetArg::Hour => Self::Hour,
        }
    }
}

/// A strategy with what it is called.
#[derive(Debug, Clone)]
struct NamedStrategy {
    name: String,
    strategy: Strategy,
}

fn frozen() -> NamedStrategy {
    NamedStrategy { name: "frozen".to_owned(), strategy: Strategy::Frozen { cache: None } }
}

/// A strategy as it is typed.
fn strategy(given: &str) -> Result<NamedStrategy, String> {
    let (kind, value) = given.split_once('=').unwrap_or((given, ""));
    let number = || value.parse::<usize>().ok().filter(|n| (1..=4096).contains(n));
    let wrong = |expected: &str| format!("`{kind}` needs {expected}");
    let strategy = match kind {
        "frozen" if value.is_empty() => return Ok(frozen()),
        "full" if value.is_empty() => Strategy::Full { front_end: false },
        "partial" => {
            let ends = value.split_once('-').and_then(|(first, last)| {
                Some([first.parse::<usize>().ok()?, last.parse::<usize>().ok()?])
            });
            Strategy::Partial { layers: ends.ok_or_else(|| wrong("blocks, such as partial=4-7"))? }
        }
        "lora" => {
            let rank = number().ok_or_else(|| wrong("a rank, such as lora=8"))?;
            let toml = format!("kind = 'lora'\nrank = {rank}\nalpha = {rank}.0\ndropout = 0.1\n");
            toml::from_str(&toml).map_err(|error| error.to_string())?
        }
        "adapter" => Strategy::Adapter {
            width: number().ok_or_else(|| wrong("a width, such as adapter=32"))?,
        },
        _ => {
            return Err(
                "must be frozen, partial=FIRST-LAST, lora=RANK, adapter=WIDTH or full".into()
            );
        }
    };
    Ok(NamedStrategy { name: given.to_owned(), strategy })
}

pub(super) fn run_first(args: &FirstArgs, talk: Talk) -> Result<ExitCode, AnyError> {
    let release = Release::read(&args.run.folder, args.run.labels.into())?;
    let (configs, are_published) = monolingual_configs(&release);
    let mut notes = Vec::new();
    if args.track.contains(&FirstTrack::Mono) {
        if !are_published {
            notes.push("None of the thirteen published monolingual configurations is in this corpus; its languages with the most utterances stand in for them.".to_owned());
        }
        if configs.iter().any(|c| c.language == "cmn" || c.language == "jpn") {
            notes.push(
                "Mandarin and Japanese are scored by characters, published rows by phones."
                    .to_owned(),
            );
        }
    }
    let mut jobs = Vec::new();
    for budget in args.budget.iter().copied().map(Budget::from) {
        for track in &args.track {
            let track = match track {
                FirstTrack::Mono => {
                    jobs.extend(configs.iter().map(|config| {
                        let monolingual = Some(config.clone());
                        (Job { track: Track::Monolingual, budget, monolingual }, frozen())
                    }));
                    continue;
                }
                FirstTrack::Asr => Track::Asr,
                FirstTrack::Lid => Track::Lid,
                FirstTrack::AsrLid => Track::AsrLid,
            };
            jobs.push((Job { track, budget, monolingual: None }, frozen()));
        }
    }
    run(&args.run, &release, (&jobs, Head::Baseline, Variant::Recipe, notes), talk)
}

pub(super) fn run_second(args: &SecondArgs, talk: Talk) -> Result<ExitCode, AnyError> {
    let release = Release::read(&args.run.folder, args.run.labels.into())?;
    let job = Job { track: Track::Second, budget: Budget::Hour, monolingual: None };
    let head = Head::from(args.head);
    let named = |strategy: &NamedStrategy| match head {
        Head::Baseline => strategy.clone(),
        _ => NamedStrategy {
            name: format!("{}, {}", strategy.name, head.name()),
            strategy: strategy.strategy.clone(),
        },
    };
    let jobs: Vec<(Job, NamedStrategy)> =
        args.strategy.iter().map(|strategy| (job.clone(), named(strategy))).collect();
    run(&args.run, &release, (&jobs, head, args.scorer, Vec::new()), talk)
}

/// What a run's folder is of; another of the same name is refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct RunCard {
    system: String,
    job: Job,
    strategy: String,
    settings: Settings,
    encoder_sha256: String,
    corpus: PathBuf,
    labels: String,
}

impl RunArgs {
    fn settings(&self) -> Result<Settings, CliError> {
        if !(self.learning_rate > 0.0 && self.learning_rate < 1.0) {
            return Err(CliError::LearningRate);
        }
        Ok(Settings {
            seed: self.seed,
            updates: self.updates,
            monolingual_updates: self.mono_updates,
            learning_rate: self.learning_rate,
            batch_utterances: self.batch_utterances.into(),
            accumulate: self.accumulate.into(),
            validations: self.validations,
            bf16: self.bf16,
            ..Settings::default()
        })
    }
}

/// An encoder as it is asked for.
struct Asked {
    name: String,
    upstream: Upstream,
    sha256: [u8; 32],
}

fn load(given: &str, offline: bool, talk: Talk) -> Result<Asked, AnyError> {
    let (name, model) = match given.split_once('=') {
        Some((name, model)) if !name.contains(['/', '\\']) => (Some(name), model),
        _ => (None, given),
    };
    let (upstream, sha256) = load_upstream(model, offline, talk)?;
    let plain = |c: char| if c.is_alphanumeric() || "-_.+".contains(c) { c } else { '-' };
    let name: String = name.unwrap_or(&upstream.name).chars().map(plain).collect();
    let name = name.trim_start_matches('.').to_owned();
    if name.is_empty() {
        return Err(CliError::SystemName { given: given.to_owned() }.into());
    }
    Ok(Asked { name, upstream, sha256 })
}

/// Says how far the runs are, and how long they still take.
struct Pace {
    /// Updates of all runs that are still to be done when a run begins.
    left: u64,
    began: Option<(Instant, u64)>,
    done_in_run: u64,
    /// Seconds and updates so far.
    spent: (f64, u64),
}

impl Pace {
    fn step(&mut self, name: &str, event: Event, talk: Talk) {
        let Event::Step { step, steps, loss } = event else {
            if let Event::Validated { step, loss } = event {
                talk.note(format_args!("{name}: update {step}, held out: loss {loss:.4}"));
            }
            return;
        };
        let (since, from) = *self.began.get_or_insert((Instant::now(), step));
        self.done_in_run = step;
        let (mut seconds, mut updates) = self.spent;
        seconds += since.elapsed().as_secs_f64();
        updates += step - from;
        let each = if updates > 0 { seconds / updates as f64 } else { 0.0 };
        let left = |updates: u64| {
            let seconds = Duration::from_secs_f64((each * updates as f64).min(1e9));
            match seconds.as_secs() {
                s if s >= 3600 => format!("{:.1} h", s as f64 / 3600.0),
                s if s >= 60 => format!("{} min", s / 60),
                s => format!("{s} s"),
            }
        };
        talk.progress(format_args!(
            "{name}: update {step} of {steps}  loss {loss:.4}  {} left, {} for all runs",
            left(steps - step),
            left(self.left.saturating_sub(step))
        ));
    }

    fn end(&mut self, updates: u64) {
        if let Some((since, from)) = self.began.take() {
            self.spent.0 += since.elapsed().as_secs_f64();
            self.spent.1 += self.done_in_run.saturating_sub(from);
        }
        self.left = self.left.saturating_sub(updates);
    }
}

fn run(
    args: &RunArgs,
    release: &Release,
    (jobs, head, variant, mut notes): (&[(Job, NamedStrategy)], Head, Variant, Vec<String>),
    talk: Talk,
) -> Result<ExitCode, AnyError> {
    let settings = Settings { head, ..args.settings()? };
    for problem in release.problems() {
        let (kind, count) = (problem.kind.description(), problem.count);
        let first = problem.examples.first().map_or("", String::as_str);
        talk.warn(format_args!("{kind}: {count}, the first: {first}"));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let signal = Arc::clone(&stop);
    ctrlc::set_handler(move || signal.store(true, Ordering::Relaxed))?;
    let chosen: Vec<_> = jobs.iter().map(|(job, _)| job.choose(release)).collect();
    let used = chosen.iter().flat_map(|c| [&c.train, &c.dev, &c.test, &c.dialects]).flatten();
    let start = Instant::now();
    let recordings = Recordings::read(release, used.copied(), &args.output)?;
    for clip in &recordings.unreadable {
        talk.warn(format_args!("left out {clip}"));
    }
    let n_clips = recordings.corpus.clips().len();
    talk.progress(format_args!("{n_clips} recordings, read in {:.0?}", start.elapsed()));
    let updates = |job: &Job| settings.updates(job.track, job.budget);
    let all: u64 = jobs.iter().map(|(job, _)| updates(job)).sum();
    let mut pace =
        Pace { left: all * args.model.len() as u64, began: None, done_in_run: 0, spent: (0.0, 0) };
    let mut names: Vec<String> = Vec::new();
    for given in &args.model {
        let Asked { name, upstream, sha256 } = load(given, args.offline, talk)?;
        if names.contains(&name) {
            return Err(CliError::SystemName { given: given.clone() }.into());
        }
        names.push(name.clone());
        let mut states = None;
        for (job, strategy) in jobs {
            let run_name = match job.track {
                Track::Second => {
                    let strategy = strategy.name.replace('=', "-").replace(", ", "-");
                    format!("{}-{strategy}", job.name())
                }
                _ => job.name(),
            };
            let folder = args.output.join("runs").join(&name).join(&run_name);
            let card = RunCard {
                system: name.clone(),
                job: job.clone(),
                strategy: strategy.name.clone(),
                settings: settings.clone(),
                encoder_sha256: hexadecimal(&sha256),
                corpus: release.root.clone(),
                labels: release.labels.name().to_owned(),
            };
            let is_finished =
                keep_card(&folder, &card)? && RunFiles::of(&folder).facts()?.is_some();
            if !is_finished {
                if strategy.strategy.is_frozen() && states.is_none() {
                    let identity = identity(&upstream, &sha256);
                    let mut size = |bytes: u64| {
                        talk.progress(format_args!(
                            "{name}: hidden states of {n_clips} recordings, {:.2} GB in `{}`",
                            bytes as f64 / 1e9,
                            args.output.display()
                        ));
                    };
                    let progress =
                        |done| talk.note(format_args!("{name}: {done} of {n_clips} recordings"));
                    states = Some(Trial::states_plan(
                        &upstream,
                        &identity,
                        &recordings,
                        &settings,
                        (&args.output, &mut size),
                        progress,
                    )?);
                }
                let frozen_with_states = Strategy::Frozen { cache: Some(args.output.clone()) };
                let is_frozen = strategy.strategy.is_frozen();
                let trial = Trial {
                    job,
                    candidate: Candidate {
                        upstream: &upstream,
                        sha256,
                        states: states.as_ref().filter(|_| is_frozen),
                        strategy: if is_frozen { &frozen_with_states } else { &strategy.strategy },
                    },
                    release,
                    recordings: &recordings,
                    settings: &settings,
                    folder: &folder,
                };
                let label = format!("{name}, {run_name}");
                let mut tell = |event| pace.step(&label, event, talk);
                if trial.run(&stop, &mut tell)?.is_none() {
                    talk.progress(format_args!("stopped; the same command goes on"));
                    return Ok(ExitCode::from(130));
                }
            }
            pace.end(updates(job));
        }
    }
    let systems = finished(&args.output, &names, variant)?;
    let train = chosen.iter().flat_map(|chosen| &chosen.train);
    let report = report(release, &systems, (train, &recordings), variant)?;
    if let Some(mut report) = report {
        report.notes.append(&mut notes);
        let folder = args.report.clone().unwrap_or_else(|| args.output.join("report"));
        report.write(&folder)?;
        talk.progress(format_args!("report in `{}`", folder.display()));
        write_stdout(report.to_markdown().as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes what a run is into its folder; one that is there must say the same. Whether it was there.
fn keep_card(folder: &Path, card: &RunCard) -> Result<bool, AnyError> {
    let path = folder.join("card.json");
    if let Ok(found) = std::fs::read(&path) {
        if serde_json::from_slice::<RunCard>(&found).ok().as_ref() != Some(card) {
            return Err(CliError::OtherRun { folder: folder.to_owned() }.into());
        }
        return Ok(true);
    }
    let write = |source| CliError::Write { path: path.clone(), source };
    std::fs::create_dir_all(folder).map_err(write)?;
    files::write_whole(&path, &serde_json::to_vec_pretty(card)?).map_err(write)?;
    Ok(false)
}

/// Every finished run in the output folder, of both versions: the systems of this command first.
fn finished(output: &Path, names: &[String], variant: Variant) -> Result<Vec<System>, AnyError> {
    let listed = |folder: &Path| -> Result<Vec<PathBuf>, CliError> {
        let read = |source| CliError::Read { path: folder.to_owned(), source };
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(read)? {
            found.push(entry.map_err(read)?.path());
        }
        found.sort();
        Ok(found.into_iter().filter(|path| path.is_dir()).collect())
    };
    let mut systems: Vec<System> =
        names.iter().map(|name| System { name: name.clone(), runs: Vec::new() }).collect();
    for folder in listed(&output.join("runs"))? {
        for run in listed(&folder)? {
            let Some(facts) = RunFiles::of(&run).facts()? else { continue };
            let path = run.join("card.json");
            let read = |source| CliError::Read { path: path.clone(), source };
            let card: RunCard = serde_json::from_slice(&std::fs::read(&path).map_err(read)?)?;
            let scored = Scored::read(card.job, card.strategy, (&run, facts), variant)?;
            match systems.iter_mut().find(|system| system.name == card.system) {
                Some(system) => system.runs.push(scored),
                None => systems.push(System { name: card.system, runs: vec![scored] }),
            }
        }
    }
    for system in &mut systems {
        system.runs.sort_by(|a, b| (&a.job, &a.strategy).cmp(&(&b.job, &b.strategy)));
    }
    Ok(systems)
}

fn report<'a>(
    release: &Release,
    systems: &[System],
    (train, recordings): (impl Iterator<Item = &'a usize>, &Recordings),
    variant: Variant,
) -> Result<Option<Report>, AnyError> {
    let mut minutes: BTreeMap<Language, f64> = BTreeMap::new();
    let mut counted = std::collections::BTreeSet::new();
    for &utterance in train {
        if let Some(clip) = recordings.clip(utterance).filter(|clip| counted.insert(*clip)) {
            *minutes.entry(release.utterances[utterance].language).or_default() +=
                recordings.corpus.duration_s(clip) / 60.0;
        }
    }
    let scorer = match variant {
        Variant::Recipe => "1.0 as the recipe scores; 2.0: recipe",
        Variant::Server => "1.0 as the recipe scores; 2.0: server",
    };
    let provenance = provenance(release.labels.name(), scorer, &[])?;
    Ok(Report::of_benchmark(systems, release, &minutes, place, provenance)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strategies_as_they_are_typed() {
        let of = |given: &str| strategy(given).map(|named| named.strategy);
        assert_eq!(of("frozen"), Ok(Strategy::Frozen { cache: None }));
        assert_eq!(of("partial=4-7"), Ok(Strategy::Partial { layers: [4, 7] }));
        assert_eq!(of("adapter=32"), Ok(Strategy::Adapter { width: 32 }));
        assert!(matches!(of("lora=8"), Ok(Strategy::Lora { rank: 8, alpha: 8.0, .. })));
        for wrong in ["", "partial=4", "lora", "lora=0", "adapter=x", "frozen=1", "half"] {
            assert!(strategy(wrong).is_err(), "{wrong}");
        }
    }
}
