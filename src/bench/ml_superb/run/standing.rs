//! From finished runs to the columns of the leaderboards.

use super::job::{Budget, Job, Track};
use super::trial::{Facts, RunFiles};
use super::{RunError, monolingual_configs};
use crate::bench::ml_superb::Release;
use crate::bench::report::{Results, Standing, Standing2};
use crate::text::{
    MONOLINGUAL, MlSuperb2Report, MlSuperbReport, Scheme, ScoreReport, UtteranceScore, Variant,
    mean_of_languages, score_utterances,
};
use std::path::{Path, PathBuf};

/// A finished run with its scores.
#[derive(Debug)]
pub struct Scored {
    /// What was run.
    pub job: Job,
    /// What of the encoder was trained, such as `frozen`.
    pub strategy: String,
    /// Its folder.
    pub folder: PathBuf,
    /// What is known of it.
    pub facts: Facts,
    /// Scores of the test set.
    pub report: ScoreReport,
    /// The same by utterance.
    pub utterances: Vec<UtteranceScore>,
    /// Scores of the varieties.
    pub dialects: Option<ScoreReport>,
}

/// An encoder with its runs.
#[derive(Debug)]
pub struct System {
    /// Its name.
    pub name: String,
    /// In the order they were run.
    pub runs: Vec<Scored>,
}

impl Scored {
    /// Scores the texts in a run's folder by the rules of its track; `variant` is the scorer of 2.0.
    ///
    /// # Errors
    /// If a file cannot be read, or texts not be scored.
    pub fn read(
        job: Job,
        strategy: String,
        (folder, facts): (&Path, Facts),
        variant: Variant,
    ) -> Result<Self, RunError> {
        let files = RunFiles::of(folder);
        let scheme = if job.track == Track::Second { Scheme::MlSuperb2 } else { Scheme::MlSuperb };
        let score = |dialects: bool| {
            let [reference, hypothesis] = files.texts(dialects).map(|path| {
                std::fs::read_to_string(&path).map_err(|source| RunError::Read { path, source })
            });
            Ok::<_, RunError>(score_utterances(&reference?, &hypothesis?, scheme, variant)?)
        };
        let (report, utterances) = score(false)?;
        let dialects = if files.texts(true)[0].is_file() { Some(score(true)?.0) } else { None };
        let folder = folder.to_owned();
        Ok(Self { job, strategy, folder, facts, report, utterances, dialects })
    }

    /// Name among the runs of its system: track, budget and, where the encoder learns, how.
    #[must_use]
    pub fn name(&self) -> String {
        let track = match (self.job.track, &self.job.monolingual) {
            (Track::Monolingual, Some(config)) => format!("monolingual {}", config.name),
            (Track::Monolingual, None) => "monolingual".to_owned(),
            (Track::Asr, _) => "recognition".to_owned(),
            (Track::Lid, _) => "identification".to_owned(),
            (Track::AsrLid, _) => "both".to_owned(),
            (Track::Second, _) => return format!("2.0, {}", self.strategy),
        };
        format!("{track}, {}", self.job.budget.name())
    }

    fn first(&self) -> Option<&MlSuperbReport> {
        match &self.report {
            ScoreReport::MlSuperb(report) => Some(report),
            _ => None,
        }
    }
}

fn second(report: &ScoreReport) -> Option<&MlSuperb2Report> {
    match report {
        ScoreReport::MlSuperb2(report) => Some(report),
        _ => None,
    }
}

/// Errors over characters of all languages.
fn pooled(report: &MlSuperbReport) -> Option<f64> {
    let groups = [&report.trained, &report.reserved];
    let sum = |pick: fn(&crate::text::MlSuperbGroup) -> usize| -> usize {
        groups.iter().filter_map(|group| group.as_ref()).map(pick).sum()
    };
    let characters = sum(|group| group.reference_tokens);
    (characters > 0).then(|| sum(|group| group.errors) as f64 / characters as f64)
}

fn results(runs: &[Scored], budget: Budget) -> Results {
    let of = |track: Track| {
        runs.iter().filter(move |run| run.job.track == track && run.job.budget == budget)
    };
    let mut results = Results::default();
    let monolingual: Vec<(&str, f64)> = of(Track::Monolingual)
        .filter_map(|run| {
            let language = &run.job.monolingual.as_ref()?.language;
            Some((language.as_str(), pooled(run.first()?)?))
        })
        .collect();
    results.monolingual = mean_of_languages(&monolingual);
    let groups = |track: Track| {
        let report = of(track).find_map(Scored::first);
        let trained = report.and_then(|report| report.trained.as_ref());
        let few_shot = report.and_then(|report| report.reserved.as_ref());
        (
            trained.and_then(|group| group.lid_accuracy),
            trained.and_then(|group| group.cer),
            few_shot.and_then(|group| group.cer),
        )
    };
    (_, results.multilingual, results.multilingual_few_shot) = groups(Track::Asr);
    (results.lid, ..) = groups(Track::Lid);
    (results.joint_lid, results.joint, results.joint_few_shot) = groups(Track::AsrLid);
    results
}

/// Rows of both leaderboards.
#[must_use]
pub fn standings(systems: &[System], release: &Release) -> (Vec<Standing>, Vec<Standing2>) {
    let (configs, are_published) = monolingual_configs(release);
    let is_published_corpus = are_published && configs.len() == MONOLINGUAL.len();
    let (mut first, mut both) = (Vec::new(), Vec::new());
    for system in systems {
        let budgets: Vec<Results> =
            [Budget::TenMinutes, Budget::Hour].map(|budget| results(&system.runs, budget)).into();
        if budgets.iter().any(|results| results.columns().iter().any(Option::is_some)) {
            first.push(Standing {
                system: Some(system.name.clone()),
                budgets,
                is_published_corpus,
            });
        }
        for run in &system.runs {
            let Some(report) = second(&run.report) else { continue };
            let dialects = run.dialects.as_ref().and_then(second);
            both.push(Standing2 {
                system: Some(format!("{}, {}", system.name, run.strategy)),
                data: "this corpus".to_owned(),
                labels: Some(release.labels),
                scorer: report.variant,
                cer: report.cer,
                lid_accuracy: report.lid_accuracy,
                worst15_cer: report.worst15_cer,
                std_cer: report.std_cer,
                dialects: dialects.map(|report| [report.cer, report.lid_accuracy]),
            });
        }
    }
    (first, both)
}
