//! A clustering: which unit a frame belongs to.

use super::PretrainError;
use super::graph::Graph;
use super::index_file::{self, IndexFile, LinearMap};
use super::labels::write_whole;
use crate::files;
use asr_kernels::Precision;
use asr_kernels::matmul::{Matrix, Output, Packed, matmul_packed};
use asr_kernels::nearest::Centroids;
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// Most units: labels are `u16`.
const MAX_UNITS: usize = 1 << 16;
/// Frames mapped at a time.
const PIECE: usize = 4096;
/// Frames that one thread walks the graph with at a time.
const STRIDE: usize = 256;

/// Frames to units: linear maps if there are any, then the nearest of the centroids, by
/// comparing all or by walking the stored graph.
///
/// Kept as a file of faiss. Reading and assigning need no faiss.
#[derive(Debug)]
pub struct Clustering {
    maps: Vec<PreparedMap>,
    centroids: Centroids,
    graph: Option<Graph>,
    stored: Stored,
}

#[derive(Debug)]
struct PreparedMap {
    /// `(d_in, d_out)`
    matrix: Packed,
    bias: Vec<f32>,
}

/// Where the whole file is.
#[derive(Debug)]
enum Stored {
    Bytes(Vec<u8>),
    File(PathBuf),
}

impl PreparedMap {
    fn new(map: &LinearMap) -> Self {
        let matrix = Matrix::row_major(&map.matrix, map.d_out, map.d_in).transposed();
        let bias = if map.bias.is_empty() { vec![0.0; map.d_out] } else { map.bias.clone() };
        Self { matrix: Packed::new(matrix, Precision::F32), bias }
    }

    fn apply(&self, frames: &[f32]) -> Vec<f32> {
        let (d_in, _) = self.matrix.shape();
        let frames = Matrix::row_major(frames, frames.len() / d_in, d_in);
        matmul_packed(frames, &self.matrix, Output::Bias(&self.bias))
    }
}

impl Clustering {
    /// Units that are the nearest of `centroids` `(units, dim)`, row-major.
    ///
    /// # Errors
    /// [`PretrainError`] if there is none, or more than labels can tell apart.
    ///
    /// # Panics
    /// If `dim` is 0 or does not divide the number of values.
    pub fn from_centroids(centroids: Vec<f32>, dim: usize) -> Result<Self, PretrainError> {
        let stored = Stored::Bytes(index_file::flat(&centroids, dim));
        let index = IndexFile { maps: Vec::new(), centroids, dim, graph: None };
        Self::new(index, stored)
    }

    /// The clustering of an index that faiss wrote.
    #[cfg(feature = "faiss")]
    pub(super) fn from_index(bytes: Vec<u8>, path: &Path) -> Result<Self, PretrainError> {
        let index = index_file::parse(bytes.as_slice(), bytes.len() as u64)
            .map_err(|source| PretrainError::Index { path: path.to_owned(), source })?;
        Self::new(index, Stored::Bytes(bytes))
    }

    /// Reads a clustering that [`save`](Self::save) wrote, or any index of faiss whose units
    /// are vectors compared by Euclidean distance, or the cells of an inverted file (flat or
    /// HNSW), behind linear maps (OPQ) or not: the published index of mHuBERT-147, for one.
    ///
    /// # Errors
    /// [`PretrainError`] if it cannot be read or is another kind of file.
    pub fn open(path: &Path) -> Result<Self, PretrainError> {
        Self::new(index_file::read(path)?, Stored::File(path.to_owned()))
    }

    fn new(index: IndexFile, stored: Stored) -> Result<Self, PretrainError> {
        let IndexFile { maps, centroids, dim, graph } = index;
        let found = centroids.len().checked_div(dim).unwrap_or(0);
        if !(1..=MAX_UNITS).contains(&found) {
            return Err(PretrainError::UnitCount { found, limit: MAX_UNITS });
        }
        let maps = maps.iter().map(PreparedMap::new).collect();
        Ok(Self { maps, centroids: Centroids::new(centroids, dim), graph, stored })
    }

    /// Writes the clustering as a file that faiss reads, whole or not at all.
    ///
    /// # Errors
    /// [`PretrainError`] if it cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), PretrainError> {
        match &self.stored {
            Stored::Bytes(bytes) => write_whole(path, bytes),
            Stored::File(file) => {
                let copy = || {
                    let mut from = std::fs::File::open(file)?;
                    std::io::copy(&mut from, &mut std::fs::File::create(files::partial(path))?)?;
                    files::put_in_place(path)
                };
                copy().map_err(|source| PretrainError::Write { path: path.to_owned(), source })
            }
        }
    }

    /// The same clustering comparing a frame with every centroid, where a stored graph may
    /// miss the nearest for a few frames in a hundred.
    #[must_use]
    pub fn without_graph(self) -> Self {
        Self { graph: None, ..self }
    }

    /// Whether a stored graph is walked.
    #[must_use]
    pub fn has_graph(&self) -> bool {
        self.graph.is_some()
    }

    /// Number of units.
    #[must_use]
    pub fn n_units(&self) -> usize {
        self.centroids.count()
    }

    /// Values per frame.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.maps.first().map_or(self.centroids.dim(), |map| map.matrix.shape().0)
    }

    /// The unit of each frame.
    ///
    /// # Shapes
    /// `frames`: `(frames, dim)`, row-major; returns `(frames,)`
    ///
    /// # Errors
    /// [`PretrainError`] if frames have another width or hold what is no number.
    pub fn assign(&self, frames: &[f32], dim: usize) -> Result<Vec<u16>, PretrainError> {
        let mut labels = Vec::new();
        self.pieces(frames, dim, |_, units| labels.extend(units.iter().map(|&unit| unit as u16)))?;
        Ok(labels)
    }

    /// [`assign`](Self::assign) and the sum of the squared distances of the frames to their
    /// centroids, measured after the linear maps.
    ///
    /// # Errors
    /// As [`assign`](Self::assign).
    pub fn assign_measured(
        &self,
        frames: &[f32],
        dim: usize,
    ) -> Result<(Vec<u16>, f64), PretrainError> {
        let (mut labels, mut sum) = (Vec::new(), 0.0);
        self.pieces(frames, dim, |mapped, units| {
            let distances = self.centroids.squared_distances(mapped, units);
            sum += distances.iter().map(|&distance| f64::from(distance)).sum::<f64>();
            labels.extend(units.iter().map(|&unit| unit as u16));
        })?;
        Ok((labels, sum))
    }

    /// Calls `each` with mapped frames and their units, some thousand at a time.
    fn pieces(
        &self,
        frames: &[f32],
        dim: usize,
        mut each: impl FnMut(&[f32], &[u32]),
    ) -> Result<(), PretrainError> {
        if dim != self.dim() || !frames.len().is_multiple_of(dim) {
            return Err(PretrainError::Width { found: dim, expected: self.dim() });
        }
        if !frames.iter().all(|value| value.is_finite()) {
            return Err(PretrainError::NotFinite);
        }
        for piece in frames.chunks(PIECE * dim) {
            let mut mapped = None;
            for map in &self.maps {
                mapped = Some(map.apply(mapped.as_deref().unwrap_or(piece)));
            }
            let mapped = mapped.as_deref().unwrap_or(piece);
            each(mapped, &self.search(mapped));
        }
        Ok(())
    }

    fn search(&self, frames: &[f32]) -> Vec<u32> {
        let Some(graph) = &self.graph else { return self.centroids.nearest(frames) };
        let dim = self.centroids.dim();
        let walks = frames.par_chunks(STRIDE * dim).map_init(
            || graph.walk(),
            |walk, frames| {
                let nearest = |frame| graph.nearest(frame, self.centroids.values(), walk) as u32;
                frames.chunks_exact(dim).map(nearest).collect::<Vec<u32>>()
            },
        );
        walks.flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saved_and_opened_it_is_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let (first, second) = (folder.path().join("a.faiss"), folder.path().join("b.faiss"));
        let clustering =
            Clustering::from_centroids(vec![0.0, 0.0, 1.0, 1.0, 5.0, 5.0], 2).expect("three");
        clustering.save(&first).expect("saved");
        let opened = Clustering::open(&first).expect("opened");
        opened.save(&second).expect("copied");
        let frames = [0.1, 0.2, 4.0, 4.0, 0.9, 0.9];
        for clustering in [clustering, opened, Clustering::open(&second).expect("opened")] {
            assert_eq!((clustering.n_units(), clustering.dim()), (3, 2));
            let (labels, sum) = clustering.assign_measured(&frames, 2).expect("finite");
            assert_eq!(labels, [0, 2, 1]);
            assert!((sum - (0.05 + 2.0 + 0.02)).abs() < 1e-6);
            assert_eq!(clustering.assign(&frames, 2).expect("finite"), labels);
        }
    }

    #[test]
    fn frames_that_do_not_fit_are_errors() {
        let clustering = Clustering::from_centroids(vec![0.0, 1.0], 1).expect("two");
        let error = clustering.assign(&[0.0; 4], 2).expect_err("another width");
        assert!(matches!(error, PretrainError::Width { found: 2, expected: 1 }));
        let error = clustering.assign(&[0.0, f32::NAN], 1).expect_err("no number");
        assert!(matches!(error, PretrainError::NotFinite));
        assert!(clustering.assign(&[], 1).expect("nothing").is_empty());
        let many = Clustering::from_centroids(vec![0.0; 70_000], 1).expect_err("too many");
        assert!(matches!(many, PretrainError::UnitCount { found: 70_000, .. }));
    }
}
