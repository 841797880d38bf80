//! The state of a run in one file, replaced as a whole.

use super::TrainError;
use super::adamw::{AdamW, Moments};
use super::task::Task;
use crate::files;
use crate::model::Parameters;
use crate::model::checkpoint::{self, CheckpointError, StoredAs};
use candle_core::{Device, Tensor};
use std::path::{Path, PathBuf};

const FILE: &str = "checkpoint.safetensors";

/// Name under which a step count is stored: as a tensor of two halves, exact in f32.
const STEP: &str = "step";

/// Name of the SHA-256 of the upstream, a number per byte, in runs that have one.
const UPSTREAM: &str = "upstream_sha256";

/// Beginning of the names of statistics of batch norms.
const STATISTIC: &str = "statistic.";

/// What a checkpoint is of, besides what is trained.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beside<'a> {
    /// Their statistics are part of the state.
    pub(super) parameters: &'a Parameters,
    /// Identifies the weights that are not in the checkpoint.
    pub(super) upstream: Option<&'a [u8; 32]>,
}

pub(super) fn path(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

/// Writes `bytes` to `path` through a temporary file, synced and renamed.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    files::write_whole(path, bytes)
        .map_err(|source| TrainError::Write { path: path.to_owned(), source })
}

fn unusable(folder: &Path, source: CheckpointError) -> TrainError {
    TrainError::Checkpoint { folder: folder.to_owned(), source: Box::new(source) }
}

/// Saves parameters, moments, the state of the task and the step.
pub(super) fn save(
    folder: &Path,
    optimiser: &AdamW,
    task: &impl Task,
    beside: Beside,
    step: u64,
) -> Result<(), TrainError> {
    let mut tensors: Vec<(String, Tensor)> = Vec::new();
    let halves = [(step >> 16) as f32, (step & 0xffff) as f32];
    tensors.push((STEP.to_owned(), Tensor::new(&halves, &Device::Cpu)?));
    for (name, values) in task.state() {
        tensors.push((name.to_owned(), Tensor::new(values, &Device::Cpu)?));
    }
    if let Some(upstream) = beside.upstream {
        tensors.push((UPSTREAM.to_owned(), Tensor::new(&upstream.map(f32::from), &Device::Cpu)?));
    }
    for (name, var) in beside.parameters.statistics() {
        tensors.push((format!("{STATISTIC}{name}"), var.as_tensor().clone()));
    }
    for slot in optimiser.slots() {
        let shape = slot.var.shape();
        tensors.push((format!("parameter.{}", slot.name), slot.var.as_tensor().clone()));
        tensors.push((format!("mean.{}", slot.name), slot.moments.mean(shape)?));
        tensors.push((format!("square.{}", slot.name), slot.moments.square(shape)?));
    }
    let views = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    let bytes =
        checkpoint::to_bytes(views, StoredAs::F32).map_err(|source| unusable(folder, source))?;
    write_whole(&path(folder), &bytes)
}

/// Restores what [`save`] wrote and returns the step; `None` if there is no checkpoint.
pub(super) fn restore(
    folder: &Path,
    optimiser: &mut AdamW,
    task: &mut impl Task,
    beside: Beside,
) -> Result<Option<u64>, TrainError> {
    let stored = match checkpoint::read(&path(folder)) {
        Ok(stored) => stored,
        Err(CheckpointError::Io { source, .. })
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            return Ok(None);
        }
        Err(source) => return Err(unusable(folder, source)),
    };
    let stored: std::collections::HashMap<_, _> = stored.all().into_iter().collect();
    let other = |problem| TrainError::OtherRun { folder: folder.to_owned(), problem };
    let state = task.state();
    let statistics = beside.parameters.statistics();
    // Runs from before statistics were followed have none, and start from those of the model.
    let has_statistics = stored.keys().any(|name| name.starts_with(STATISTIC));
    let n_statistics = if has_statistics { statistics.len() } else { 0 };
    let others = state.len() + usize::from(beside.upstream.is_some()) + n_statistics;
    if stored.len() != 3 * optimiser.slots().len() + 1 + others {
        return Err(other("it has another number of parameters"));
    }
    let values = |name: &str, shape: &candle_core::Shape| {
        let tensor = stored.get(name).ok_or_else(|| other("a parameter is missing"))?;
        if tensor.shape() != shape {
            return Err(other("a parameter has another shape"));
        }
        Ok(tensor.flatten_all()?.to_vec1::<f32>()?)
    };
    let halves = values(STEP, &2.into())?;
    let state: Vec<Vec<f32>> = state
        .iter()
        .map(|(name, before)| values(name, &before.len().into()))
        .collect::<Result<_, _>>()?;
    if let Some(upstream) = beside.upstream
        && values(UPSTREAM, &32.into())? != upstream.map(f32::from)
    {
        return Err(other("it goes with another upstream"));
    }
    task.restore(state);
    for (name, var) in statistics.iter().take(n_statistics) {
        let shape = var.shape().clone();
        let running = values(&format!("{STATISTIC}{name}"), &shape)?;
        var.set(&Tensor::from_vec(running, shape, var.device())?)?;
    }
    for slot in optimiser.slots_mut() {
        let shape = slot.var.shape().clone();
        let parameter = values(&format!("parameter.{}", slot.name), &shape)?;
        let mean = values(&format!("mean.{}", slot.name), &shape)?;
        let square = values(&format!("square.{}", slot.name), &shape)?;
        slot.moments = Moments::new(&slot.var, mean, square)?;
        slot.var.set(&Tensor::from_vec(parameter, shape, slot.var.device())?)?;
    }
    Ok(Some(((halves[0] as u64) << 16) | halves[1] as u64))
}
