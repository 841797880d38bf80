//! Fitting a clustering with faiss; the one place that names it.

use super::clustering::Clustering;
use super::reservoir::Reservoir;
use super::{Frames, PretrainError};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Most bytes of frames kept to fit on.
const MAX_SAMPLE_BYTES: usize = 1 << 30;
/// Most units: labels are `u16`.
const MAX_UNITS: usize = 1 << 16;

/// How units are found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FitOptions {
    /// Number of units.
    pub n_units: usize,
    /// The algorithm.
    pub method: Method,
    /// Seed of the sample and of the first centroids. The index of mHuBERT seeds its own
    /// k-means (1234), so that only the sample depends on this one.
    pub seed: u64,
    /// Frames sampled per unit, at most 1 GiB of them. Of more than 256 the index of mHuBERT
    /// takes 256.
    pub frames_per_unit: usize,
}

impl FitOptions {
    /// Plain k-means as `asr cluster fit` does it by default: random first centroids, 20
    /// iterations, one run.
    #[must_use]
    pub fn new(n_units: usize) -> Self {
        let method = Method::KMeans { init: Init::Random, iterations: 20, runs: 1 };
        Self { n_units, method, seed: 0, frames_per_unit: 256 }
    }

    /// Checks every range.
    ///
    /// # Errors
    /// [`PretrainError`] for the first setting out of range.
    pub fn validate(&self) -> Result<(), PretrainError> {
        if !(1..=MAX_UNITS).contains(&self.n_units) {
            return Err(PretrainError::UnitCount { found: self.n_units, limit: MAX_UNITS });
        }
        let check = |ok: bool, field, expected| {
            if ok { Ok(()) } else { Err(PretrainError::Setting { field, expected }) }
        };
        check((1..=1 << 20).contains(&self.frames_per_unit), "frames_per_unit", "1 to 1048576")?;
        if let Method::KMeans { iterations, runs, .. } = self.method {
            check((1..=10_000).contains(&iterations), "iterations", "1 to 10000")?;
            check((1..=1000).contains(&runs), "runs", "1 to 1000")?;
        }
        Ok(())
    }
}

/// Algorithms that find units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Method {
    /// Lloyd's k-means; empty clusters take half of a large one.
    #[serde(rename = "k-means")]
    KMeans {
        /// First centroids.
        init: Init,
        /// Lloyd iterations of a run.
        iterations: u32,
        /// Runs of which the best is kept.
        runs: u32,
    },
    /// `OPQ16_64,IVFk_HNSW32,PQ16x4fsr`: k-means of frames turned to 64 dimensions, searched
    /// through a graph (mHuBERT-147, the released one).
    Mhubert,
    /// `OPQ32_64,IVFk_HNSW32,PQ32x8`: the other index in the code of mHuBERT-147.
    MhubertWeak,
}

/// First centroids of k-means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Init {
    /// Frames drawn at random.
    Random,
    /// Frames far from one another (k-means++).
    #[serde(rename = "k-means++")]
    PlusPlus,
}

/// How a fit went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FitReport {
    /// Frames of the stream.
    pub frames_seen: u64,
    /// Frames sampled and fitted on.
    pub frames_sampled: usize,
    /// Values per frame.
    pub dim: usize,
    /// Mean squared distance of the sampled frames to their centroids; of the mHuBERT index in
    /// its 64 dimensions.
    pub inertia: f64,
    /// Units without a sampled frame.
    pub empty: usize,
    /// Units with fewer than a tenth of an equal share of the sampled frames, but some.
    pub tiny: usize,
    /// Exponential of the entropy of the units over the sampled frames: how many are in use,
    /// in effect.
    pub perplexity: f64,
    /// Seconds spent fitting, without the frames.
    pub fit_s: f64,
}

impl FitReport {
    fn new(sample: &Reservoir, labels: &[u16], n_units: usize, inertia: f64, fit_s: f64) -> Self {
        let mut counts = vec![0_u64; n_units];
        for &label in labels {
            counts[usize::from(label)] += 1;
        }
        let total = labels.len().max(1) as f64;
        let share = total / n_units as f64;
        let entropy: f64 = counts
            .iter()
            .filter(|&&count| count > 0)
            .map(|&count| count as f64 / total)
            .map(|p| -p * p.ln())
            .sum();
        let is_tiny = |&&count: &&u64| count > 0 && (count as f64) < share / 10.0;
        Self {
            frames_seen: sample.seen,
            frames_sampled: sample.len(),
            dim: sample.dim,
            inertia: inertia / total,
            empty: counts.iter().filter(|&&count| count == 0).count(),
            tiny: counts.iter().filter(is_tiny).count(),
            perplexity: entropy.exp(),
            fit_s,
        }
    }
}

/// Finds units in a stream of frames.
///
/// Of any number of frames a seeded sample of `frames_per_unit` per unit is kept, at most
/// 1 GiB, so that memory does not grow with the amount of speech.
///
/// # Errors
/// [`PretrainError::WithoutFaiss`] in a build without it; otherwise if a setting is out of
/// range, frames cannot be had, or there are fewer of them than units.
pub fn fit(
    options: &FitOptions,
    frames: impl Iterator<Item = Result<Frames, PretrainError>>,
) -> Result<(Clustering, FitReport), PretrainError> {
    options.validate()?;
    if !cfg!(feature = "faiss") {
        return Err(PretrainError::WithoutFaiss);
    }
    let capacity = |dim: usize| {
        let wanted = options.n_units.saturating_mul(options.frames_per_unit);
        wanted.min(MAX_SAMPLE_BYTES / (4 * dim)).max(options.n_units)
    };
    let sample = Reservoir::gather(capacity, options.seed, frames)?;
    if sample.len() < options.n_units {
        let (found, needed) = (sample.len(), options.n_units);
        return Err(PretrainError::TooFewFrames { found, needed });
    }
    let start = Instant::now();
    let clustering = found(options, &sample)?;
    let fit_s = start.elapsed().as_secs_f64();
    let (labels, inertia) = clustering.assign_measured(&sample.values, sample.dim)?;
    let report = FitReport::new(&sample, &labels, options.n_units, inertia, fit_s);
    Ok((clustering, report))
}

#[cfg(not(feature = "faiss"))]
fn found(_options: &FitOptions, _sample: &Reservoir) -> Result<Clustering, PretrainError> {
    Err(PretrainError::WithoutFaiss)
}

#[cfg(feature = "faiss")]
fn found(options: &FitOptions, sample: &Reservoir) -> Result<Clustering, PretrainError> {
    let k = options.n_units;
    match options.method {
        Method::KMeans { init, iterations, runs } => {
            k_means(options, (init, iterations, runs), sample)
        }
        Method::Mhubert => index(&format!("OPQ16_64,IVF{k}_HNSW32,PQ16x4fsr"), sample),
        Method::MhubertWeak => index(&format!("OPQ32_64,IVF{k}_HNSW32,PQ32x8"), sample),
    }
}

#[cfg(feature = "faiss")]
fn failed(source: faiss::error::Error) -> PretrainError {
    PretrainError::Faiss { source: Box::new(source) }
}

#[cfg(feature = "faiss")]
fn k_means(
    options: &FitOptions,
    (init, iterations, runs): (Init, u32, u32),
    sample: &Reservoir,
) -> Result<Clustering, PretrainError> {
    use super::seeding::plus_plus;
    use crate::data::Random;
    use faiss::cluster::{Clustering as KMeans, ClusteringParameters};
    use faiss::index::flat::FlatIndex;

    let (dim, k) = (sample.dim, options.n_units);
    let (dim_32, k_32) = (dim as u32, k as u32);
    let mut best: Option<(f64, Clustering)> = None;
    for run in 0..runs {
        let mut parameters = ClusteringParameters::new();
        parameters.set_niter(iterations);
        parameters.set_nredo(1);
        parameters.set_seed((Random::new(&[options.seed, u64::from(run)]).next_u64() >> 33) as u32);
        parameters.set_min_points_per_centroid(1);
        // The sample has been taken already.
        parameters.set_max_points_per_centroid((sample.len() / k + 1) as u32);
        let mut k_means = KMeans::new_with_params(dim_32, k_32, &parameters).map_err(failed)?;
        let mut index = FlatIndex::new_l2(dim_32).map_err(failed)?;
        if init == Init::PlusPlus {
            let mut random = Random::new(&[options.seed, u64::from(run), 1]);
            let seeds = plus_plus(&sample.values, dim, k, &mut random);
            // As many frames as centroids become the centroids, from which training goes on.
            k_means.train(&seeds, &mut index).map_err(failed)?;
        }
        k_means.train(&sample.values, &mut index).map_err(failed)?;
        let centroids = k_means.centroids().map_err(failed)?.concat();
        let clustering = Clustering::from_centroids(centroids, dim)?;
        if runs == 1 {
            return Ok(clustering);
        }
        let (_, inertia) = clustering.assign_measured(&sample.values, dim)?;
        if best.as_ref().is_none_or(|(least, _)| inertia < *least) {
            best = Some((inertia, clustering));
        }
    }
    best.map(|(_, clustering)| clustering)
        .ok_or(PretrainError::Setting { field: "runs", expected: "1 to 1000" })
}

/// Trains the index that a factory string describes. No frame is added to it: the coarse
/// quantiser alone gives labels.
#[cfg(feature = "faiss")]
fn index(description: &str, sample: &Reservoir) -> Result<Clustering, PretrainError> {
    use faiss::{Index, MetricType, index_factory, write_index};
    use std::sync::atomic::{AtomicU64, Ordering};
    static NUMBER: AtomicU64 = AtomicU64::new(0);

    let mut index =
        index_factory(sample.dim as u32, description, MetricType::L2).map_err(failed)?;
    index.train(&sample.values).map_err(failed)?;
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("asr-{}-{number}.faiss", std::process::id());
    let path = std::env::temp_dir().join(name);
    let written = write_index(&index, path.to_string_lossy()).map_err(failed);
    let bytes = written.and_then(|()| {
        std::fs::read(&path).map_err(|source| PretrainError::Read { path: path.clone(), source })
    });
    // The file was a detour: faiss writes to files only.
    let _ = std::fs::remove_file(&path);
    Clustering::from_index(bytes?, &path)
}

#[cfg(all(test, feature = "faiss"))]
mod tests {
    use super::*;
    use crate::data::Random;

    /// Frames in `clusters` balls far apart, as a stream of clips.
    fn stream(
        clusters: usize,
        dim: usize,
        clips: usize,
    ) -> impl Iterator<Item = Result<Frames, PretrainError>> {
        let mut random = Random::new(&[7]);
        let centre: Vec<f32> =
            (0..clusters * dim).map(|_| random.between(-10.0, 10.0) as f32).collect();
        (0..clips).map(move |clip| {
            let mut data = Vec::with_capacity(100 * dim);
            for _ in 0..100 {
                let cluster = random.below(clusters);
                data.extend(
                    centre[cluster * dim..][..dim]
                        .iter()
                        .map(|value| value + random.between(-0.1, 0.1) as f32),
                );
            }
            Ok(Frames { clip, data, n_frames: 100, dim })
        })
    }

    #[test]
    fn clusters_that_are_there_are_found() {
        let init = Init::PlusPlus;
        let method = Method::KMeans { init, iterations: 5, runs: 2 };
        let options = FitOptions { method, ..FitOptions::new(20) };
        let (clustering, report) = fit(&options, stream(20, 8, 60)).expect("fitted");
        assert_eq!((clustering.n_units(), clustering.dim()), (20, 8));
        assert_eq!((report.frames_seen, report.frames_sampled, report.empty), (6000, 5120, 0));
        // A uniform ball of half width 0.1 in 8 dimensions: 8 x 0.01 / 3.
        assert!((report.inertia - 0.0267).abs() < 0.002, "{}", report.inertia);
        assert!((19.0..=20.0).contains(&report.perplexity));
        let (again, _) = fit(&options, stream(20, 8, 60)).expect("fitted");
        let frames: Vec<f32> = stream(20, 8, 2).flat_map(|f| f.expect("frames").data).collect();
        let labels = clustering.assign(&frames, 8).expect("assigned");
        assert_eq!(again.assign(&frames, 8).expect("assigned"), labels, "the same seed");
    }

    #[test]
    fn more_iterations_lower_the_inertia_of_random_beginnings() {
        let fitted = |iterations, runs| {
            let method = Method::KMeans { init: Init::Random, iterations, runs };
            let options = FitOptions { method, ..FitOptions::new(30) };
            fit(&options, stream(60, 4, 60)).expect("fitted").1.inertia
        };
        let (one, many, runs) = (fitted(1, 1), fitted(20, 1), fitted(20, 4));
        assert!(many < one && runs <= many, "{one} {many} {runs}");
    }

    #[test]
    fn the_index_of_mhubert_is_trained_saved_and_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("units.faiss");
        // 39 dimensions as MFCC have: fewer than the 64 of the index. As few frames as its
        // product quantiser takes, because fitting that is slow and gives no labels.
        let method = Method::Mhubert;
        let options = FitOptions { method, frames_per_unit: 40, ..FitOptions::new(16) };
        let (clustering, report) = fit(&options, stream(16, 39, 20)).expect("fitted");
        assert!(clustering.has_graph());
        assert_eq!((clustering.n_units(), clustering.dim()), (16, 39));
        assert!(report.perplexity > 8.0, "{}", report.perplexity);
        clustering.save(&path).expect("saved");
        let opened = Clustering::open(&path).expect("opened");
        let frames: Vec<f32> = stream(16, 39, 5).flat_map(|f| f.expect("frames").data).collect();
        let labels = clustering.assign(&frames, 39).expect("assigned");
        assert_eq!(opened.assign(&frames, 39).expect("assigned"), labels);
        // faiss itself, asked for the nearest cell, says the same.
        let theirs = faiss::read_index(path.to_string_lossy()).expect("faiss reads it");
        assert_eq!(faiss::Index::d(&theirs), 39);
        let exact = opened.without_graph().assign(&frames, 39).expect("assigned");
        let equal = labels.iter().zip(&exact).filter(|(a, b)| a == b).count();
        assert!(equal * 10 > labels.len() * 9, "{equal} of {} through the graph", labels.len());
    }

    #[test]
    fn fewer_frames_than_units_are_an_error() {
        let error = fit(&FitOptions::new(500), stream(4, 2, 3)).expect_err("300 frames");
        assert!(matches!(error, PretrainError::TooFewFrames { found: 300, needed: 500 }));
    }
}
