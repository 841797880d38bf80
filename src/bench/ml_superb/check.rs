//! A release against what was published about it.

use super::few_shot::{few_shot_ids, is_trained_on};
use super::lengths::seconds;
use super::problems::{Problem, ProblemKind};
use super::published::LabelSet;
use super::{Release, Split, Utterance};
use crate::text::RESERVED_LANGUAGES;
use rayon::prelude::*;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// Counts of a part of the corpus; recordings without samples do not count.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SplitCounts {
    /// Which part.
    pub name: String,
    /// Lines with a recording.
    pub utterances: usize,
    /// Hours of them.
    pub hours: f64,
    /// Languages among them.
    pub languages: usize,
    /// Pairs of dataset and language among them.
    pub pairs: usize,
}

/// One published count beside ours.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The publication.
    pub published_in: &'static str,
    /// What is counted.
    pub what: &'static str,
    /// As published.
    pub published: f64,
    /// As found.
    pub found: f64,
    /// Whether both are the same at the published precision.
    pub same: bool,
}

/// What is in a release, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// The folder that holds the datasets.
    pub root: PathBuf,
    /// Labels applied.
    pub labels: LabelSet,
    /// Folders of datasets.
    pub datasets: Vec<String>,
    /// Languages in any split.
    pub languages: usize,
    /// Few-shot languages among them.
    pub few_shot_languages: usize,
    /// Pairs of dataset and language, few-shot languages aside.
    pub pairs: usize,
    /// Pairs of dataset and few-shot language.
    pub few_shot_pairs: usize,
    /// Every split, and training as the recipe cuts it: five utterances of each few-shot language.
    pub splits: Vec<SplitCounts>,
    /// Beside what was published.
    pub published: Vec<Comparison>,
    /// Faults first.
    pub problems: Vec<Problem>,
}

impl Check {
    /// Whether something is broken, rather than worth knowing.
    #[must_use]
    pub fn has_faults(&self) -> bool {
        self.problems.iter().any(|problem| problem.kind.is_fault())
    }
}

/// Counts a release, opening every recording for its length.
///
/// `progress` is told how many recordings have been opened, of how many.
#[must_use]
pub fn check(release: &Release, progress: impl Fn(usize, usize) + Sync) -> Check {
    let mut problems = release.problems.clone();
    let unmeasured = release.utterances.iter().filter(|u| u.seconds.is_none());
    let files: BTreeSet<&Path> = unmeasured.map(|u| u.audio.as_path()).collect();
    let files: Vec<&Path> = files.into_iter().collect();
    let done = std::sync::atomic::AtomicUsize::new(0);
    let lengths: HashMap<&Path, Result<f64, String>> = files
        .par_iter()
        .map(|path| {
            let length = seconds(path).map_err(|error| error.to_string());
            let n = done.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
            if n.is_multiple_of(5_000) {
                progress(n, files.len());
            }
            (*path, length)
        })
        .collect();
    for path in &files {
        match &lengths[path] {
            Ok(0.0) => problems.add(ProblemKind::EmptyAudio, || short(release, path)),
            Ok(_) => {}
            Err(error) => problems.add(ProblemKind::UnreadableAudio, || error.clone()),
        }
    }
    let sound: Vec<(&Utterance, f64)> = release
        .utterances
        .iter()
        .filter_map(|utterance| {
            let length = match utterance.seconds {
                Some(seconds) => seconds,
                None => *lengths[utterance.audio.as_path()].as_ref().ok()?,
            };
            (length > 0.0).then_some((utterance, length))
        })
        .collect();
    let languages: BTreeSet<&str> = sound.iter().map(|(u, _)| u.language.code()).collect();
    let training: BTreeSet<&str> = release
        .utterances
        .iter()
        .filter(|u| u.split.is_training())
        .map(|u| u.id.as_str())
        .collect();
    for language in RESERVED_LANGUAGES.iter().filter(|l| languages.contains(**l)) {
        for id in few_shot_ids(language).iter().filter(|id| !training.contains(id.as_str())) {
            problems.add(ProblemKind::FewShotMissing, || id.clone());
        }
    }
    let is_kept = |u: &Utterance| is_trained_on(u.language.code(), &u.id);
    let of = |split: Split| sound.iter().filter(move |(u, _)| u.split == split);
    let mut splits = Vec::new();
    for split in Split::ALL {
        splits.push(counts(split.name().to_owned(), of(split).copied()));
        if split.is_training() {
            let name = format!("{}, as trained on", split.name());
            splits.push(counts(name, of(split).copied().filter(|(u, _)| is_kept(u))));
        }
    }
    let pairs: BTreeSet<(&str, &str)> =
        sound.iter().map(|(u, _)| (u.dataset.as_str(), u.language.code())).collect();
    let few_shot = |language: &&str| RESERVED_LANGUAGES.contains(language);
    let few_shot_pairs = pairs.iter().filter(|(_, language)| few_shot(language)).count();
    let mut check = Check {
        root: release.root.clone(),
        labels: release.labels,
        datasets: release.datasets.clone(),
        languages: languages.len(),
        few_shot_languages: languages.iter().filter(|language| few_shot(language)).count(),
        pairs: pairs.len() - few_shot_pairs,
        few_shot_pairs,
        splits,
        published: Vec::new(),
        problems: problems.into_list(),
    };
    check.published = compared(&check);
    check
}

/// A path below the release.
fn short(release: &Release, path: &Path) -> String {
    path.strip_prefix(&release.root).unwrap_or(path).display().to_string()
}

fn counts<'a>(name: String, utterances: impl Iterator<Item = (&'a Utterance, f64)>) -> SplitCounts {
    let mut counts = SplitCounts { name, ..SplitCounts::default() };
    let mut pairs: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (utterance, seconds) in utterances {
        counts.utterances += 1;
        counts.hours += seconds / 3_600.0;
        pairs.entry(utterance.language.code()).or_default().insert(&utterance.dataset);
    }
    counts.languages = pairs.len();
    counts.pairs = pairs.values().map(BTreeSet::len).sum();
    counts
}

/// A published count: publication, what, value, its decimals, and where we have ours.
type Published = (&'static str, &'static str, f64, i32, fn(&Check) -> Option<f64>);

/// Position of a split in [`Check::splits`].
const TRAIN_10MIN: usize = 0;
const TRAIN_1H: usize = 2;
const TRAIN_1H_CUT: usize = 3;
const DEV: usize = 4;
const TEST: usize = 5;
const DEV_DIALECT: usize = 6;

const PAPER: &str = "ML-SUPERB 1.0 (2023)";
const SECOND: &str = "ML-SUPERB 2.0 (2024)";
const CHALLENGE: &str = "challenge (2025)";
const HUGGING_FACE: &str = "espnet/ml_superb_hf";

const PUBLISHED: [Published; 21] = [
    (PAPER, "datasets", 14.0, 0, |c| Some(c.datasets.len() as f64)),
    (PAPER, "languages", 143.0, 0, |c| Some(c.languages as f64)),
    (PAPER, "few-shot languages", 20.0, 0, |c| Some(c.few_shot_languages as f64)),
    (PAPER, "pairs of dataset and language", 240.0, 0, |c| Some(c.pairs as f64)),
    (PAPER, "pairs with a few-shot language", 31.0, 0, |c| Some(c.few_shot_pairs as f64)),
    (PAPER, "hours, train 10 min", 37.43, 2, |c| hours(c, TRAIN_10MIN)),
    (PAPER, "hours, train 1 h", 222.46, 2, |c| hours(c, TRAIN_1H)),
    (PAPER, "hours, dev", 41.82, 2, |c| hours(c, DEV)),
    (PAPER, "hours, test", 44.97, 2, |c| hours(c, TEST)),
    (SECOND, "datasets", 15.0, 0, |c| Some(c.datasets.len() as f64)),
    (SECOND, "languages", 142.0, 0, |c| Some(c.languages as f64)),
    (CHALLENGE, "languages, train 1 h", 141.0, 0, |c| languages(c, TRAIN_1H)),
    (CHALLENGE, "languages, dev", 141.0, 0, |c| languages(c, DEV)),
    (CHALLENGE, "utterances, train 1 h", 142_876.0, 0, |c| utterances(c, TRAIN_1H)),
    (CHALLENGE, "hours, train 1 h", 266.70, 2, |c| hours(c, TRAIN_1H)),
    (CHALLENGE, "utterances, dev", 24_019.0, 0, |c| utterances(c, DEV)),
    (CHALLENGE, "hours, dev", 44.26, 2, |c| hours(c, DEV)),
    (CHALLENGE, "utterances, dev, varieties", 7_095.0, 0, |c| utterances(c, DEV_DIALECT)),
    (CHALLENGE, "hours, dev, varieties", 9.34, 2, |c| hours(c, DEV_DIALECT)),
    (HUGGING_FACE, "utterances, train 1 h as trained on", 122_890.0, 0, |c| {
        utterances(c, TRAIN_1H_CUT)
    }),
    (HUGGING_FACE, "utterances, dev", 23_892.0, 0, |c| utterances(c, DEV)),
];

/// A split with anything in it; a form of the corpus that lacks a split says nothing about its size.
fn filled(check: &Check, split: usize) -> Option<&SplitCounts> {
    check.splits.get(split).filter(|split| split.utterances > 0)
}

fn hours(check: &Check, split: usize) -> Option<f64> {
    filled(check, split).map(|split| split.hours)
}

fn utterances(check: &Check, split: usize) -> Option<f64> {
    filled(check, split).map(|split| split.utterances as f64)
}

fn languages(check: &Check, split: usize) -> Option<f64> {
    filled(check, split).map(|split| split.languages as f64)
}

fn compared(check: &Check) -> Vec<Comparison> {
    PUBLISHED
        .iter()
        .filter_map(|&(published_in, what, published, decimals, find)| {
            let found = find(check)?;
            let scale = 10_f64.powi(decimals);
            let same = (found * scale).round() == (published * scale).round();
            Some(Comparison { published_in, what, published, found, same })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_counts_are_compared_at_their_precision() {
        let split = |hours| SplitCounts { hours, utterances: 1, ..SplitCounts::default() };
        let check = Check {
            root: PathBuf::new(),
            labels: LabelSet::Original,
            datasets: vec!["x".to_owned(); 14],
            languages: 143,
            few_shot_languages: 20,
            pairs: 240,
            few_shot_pairs: 31,
            splits: [37.434, 1.0, 222.456, 200.0, 41.82, 44.96].map(split).to_vec(),
            published: Vec::new(),
            problems: Vec::new(),
        };
        let same: Vec<bool> = compared(&check).iter().map(|comparison| comparison.same).collect();
        assert_eq!(same[..9], [true, true, true, true, true, true, true, true, false]);
        assert!(!same[9..].contains(&true));
        // Nothing is said of a split that is not there.
        assert_eq!(same.len(), PUBLISHED.len() - 2);
    }
}
