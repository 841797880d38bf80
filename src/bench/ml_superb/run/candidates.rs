//! The states of a model that did best on development, and their mean.

use super::RunError;
use crate::files;
use crate::model::Parameters;
use crate::model::checkpoint::{self, StoredAs};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const LIST: &str = "candidates.json";

/// The best states so far, on disk: a run that goes on finds them again.
#[derive(Debug)]
pub(super) struct Candidates {
    folder: PathBuf,
    keep: usize,
    /// Best first.
    list: Vec<Candidate>,
}

/// A state of the trained parameters.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Candidate {
    step: u64,
    loss: f64,
}

impl Candidates {
    /// Those in `folder`, of which `keep` are kept.
    pub(super) fn open(folder: &Path, keep: usize) -> Result<Self, RunError> {
        let path = folder.join(LIST);
        let list = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|source| RunError::Candidates { path: path.clone(), source })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(RunError::Read { path, source }),
        };
        Ok(Self { folder: folder.to_owned(), keep: keep.max(1), list })
    }

    fn path(&self, step: u64) -> PathBuf {
        self.folder.join(format!("candidate-{step}.safetensors"))
    }

    /// Keeps the parameters as they are after `step`, if they are among the best. Of equal losses
    /// the earlier step is the better.
    pub(super) fn offer(
        &mut self,
        (step, loss): (u64, f64),
        parameters: &Parameters,
    ) -> Result<(), RunError> {
        // A run that was killed after this step comes by again.
        self.list.retain(|candidate| candidate.step != step);
        let better = |c: &Candidate| c.loss.total_cmp(&loss).then(c.step.cmp(&step)).is_lt();
        let place = self.list.partition_point(better);
        if place >= self.keep {
            return Ok(());
        }
        let trained = parameters.trainable();
        let tensors = trained.iter().map(|(name, var)| (name.as_str(), var.as_tensor()));
        let path = self.path(step);
        let bytes = checkpoint::to_bytes(tensors, StoredAs::F32)
            .map_err(|source| RunError::Checkpoint { path: path.clone(), source })?;
        files::write_whole(&path, &bytes).map_err(|source| RunError::Write { path, source })?;
        self.list.insert(place, Candidate { step, loss });
        let dropped = self.list.split_off(self.keep.min(self.list.len()));
        let path = self.folder.join(LIST);
        let list = serde_json::to_vec(&self.list)
            .map_err(|source| RunError::Candidates { path: path.clone(), source })?;
        files::write_whole(&path, &list).map_err(|source| RunError::Write { path, source })?;
        for candidate in dropped {
            // What is not on the list is not read; that it lies there harms nobody.
            let _ = std::fs::remove_file(self.path(candidate.step));
        }
        Ok(())
    }

    /// Sets the trained parameters to the mean of those kept; their steps.
    pub(super) fn average(&self, parameters: &Parameters) -> Result<Vec<u64>, RunError> {
        let mut stored = Vec::new();
        for candidate in &self.list {
            let path = self.path(candidate.step);
            let read =
                checkpoint::read(&path).map_err(|source| RunError::Checkpoint { path, source })?;
            stored.push(read.all().into_iter().collect::<std::collections::HashMap<_, _>>());
        }
        let missing = || RunError::Incomplete { folder: self.folder.clone() };
        if stored.is_empty() {
            return Err(missing());
        }
        for (name, var) in parameters.trainable() {
            let mut sum = vec![0.0_f64; var.elem_count()];
            for state in &stored {
                let values = state.get(&name).ok_or_else(missing)?.flatten_all()?;
                let values = values.to_vec1::<f32>()?;
                if values.len() != sum.len() {
                    return Err(missing());
                }
                sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += f64::from(value));
            }
            let n = stored.len() as f64;
            let mean: Vec<f32> = sum.into_iter().map(|sum| (sum / n) as f32).collect();
            var.set(&Tensor::from_vec(mean, var.shape(), var.device())?)?;
        }
        Ok(self.list.iter().map(|candidate| candidate.step).collect())
    }

    /// Removes what was kept.
    pub(super) fn clear(self) {
        for candidate in &self.list {
            let _ = std::fs::remove_file(self.path(candidate.step));
        }
        let _ = std::fs::remove_file(self.folder.join(LIST));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn the_best_are_kept_found_again_and_averaged() {
        let folder = tempfile::tempdir().expect("a folder");
        let parameters = Parameters::default();
        let weight = parameters.seeded(1).get(2, "w").expect("made");
        assert_eq!(weight.dtype(), DType::F32);
        let set = |value: f32| {
            let (_, var) = parameters.trainable().pop().expect("a parameter");
            let tensor = Tensor::full(value, 2, &Device::Cpu).expect("made");
            var.set(&tensor).expect("set");
        };
        for (step, loss, value) in [(1, 3.0, 100.0), (2, 1.0, 1.0), (3, 2.0, 4.0), (4, 2.0, 50.0)] {
            // Opened each time, as a run that was killed does.
            let mut candidates = Candidates::open(folder.path(), 2).expect("opened");
            set(value);
            candidates.offer((step, loss), &parameters).expect("kept");
            candidates.offer((step, loss), &parameters).expect("kept once");
        }
        let candidates = Candidates::open(folder.path(), 2).expect("opened");
        assert_eq!(candidates.average(&parameters).expect("averaged"), [2, 3]);
        let (_, var) = parameters.trainable().pop().expect("a parameter");
        assert_eq!(var.to_vec1::<f32>().expect("values"), [2.5, 2.5]);
        assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 3);
        candidates.clear();
        assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 0);
    }
}
