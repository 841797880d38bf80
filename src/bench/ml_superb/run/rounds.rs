//! Batches as the recipes draw them: a number of utterances of like length.

use crate::data::{Batch, BatchPlan, Batches, Random};
use crate::train::{Source, TrainError};

/// Utterances to learn from, in batches of so many.
#[derive(Debug)]
pub(super) struct Rounds<'a> {
    pub(super) batches: &'a Batches<'a>,
    /// Clips of the corpus.
    pub(super) clips: &'a [usize],
    /// Clips of a batch.
    pub(super) per_batch: usize,
    /// Batches that a step needs.
    pub(super) per_step: usize,
    pub(super) seed: u64,
}

/// Clips in batches of `per_batch`, by length, shortest first; clips of one length in the order
/// given.
pub(super) fn by_length(
    batches: &Batches,
    clips: impl Iterator<Item = usize>,
    per_batch: usize,
) -> Vec<Vec<usize>> {
    let mut clips: Vec<usize> = clips.collect();
    let seconds = |clip: &usize| batches.corpus.duration_s(*clip);
    clips.sort_by(|a, b| seconds(a).total_cmp(&seconds(b)));
    clips.chunks(per_batch.max(1)).map(<[usize]>::to_vec).collect()
}

impl Source for Rounds<'_> {
    type Batch = Batch;

    fn plan(&self, epoch: u64) -> BatchPlan {
        let mut random = Random::new(&[self.seed, epoch]);
        let mut clips = self.clips.to_vec();
        random.shuffle(&mut clips);
        let mut batches = by_length(self.batches, clips.into_iter(), self.per_batch);
        random.shuffle(&mut batches);
        // A small set comes round again within a step.
        if !batches.is_empty() {
            let once = batches.len();
            while batches.len() < self.per_step {
                batches.push(batches[batches.len() % once].clone());
            }
        }
        BatchPlan { batches }
    }

    fn make(&self, clips: &[usize], key: u64) -> Result<Batch, TrainError> {
        Ok(self.batches.make(clips, key)?)
    }
}
