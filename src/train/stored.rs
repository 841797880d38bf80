//! Running a frozen encoder once over a corpus.

use super::TrainError;
use crate::data::{ClipInput, Corpus, StatesKey, StoredStates};
use crate::model::{Pass, Recogniser, Sequence};
use asr_kernels::{Precision, threads};
use candle_core::{Device, Tensor};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// The states of a corpus that are to be kept on disk.
#[derive(Debug)]
pub struct StatesPlan<'a> {
    model: &'a Recogniser,
    input: ClipInput<'a>,
    corpus: &'a Corpus,
    precision: Precision,
    width: usize,
    key: StatesKey,
    path: PathBuf,
}

impl<'a> StatesPlan<'a> {
    /// The states that `model` reads ([`Recogniser::states`]) of every clip of `corpus`, in a
    /// file in `folder` that is named after all that they depend on: `upstream`, which
    /// identifies the encoder's weights and input, the arithmetic and the clips' samples.
    ///
    /// # Errors
    /// [`TrainError::Data`] if a clip cannot be read any more.
    pub fn new(
        model: &'a Recogniser,
        input: ClipInput<'a>,
        corpus: &'a Corpus,
        (upstream, precision): (&str, Precision),
        folder: &Path,
    ) -> Result<Self, TrainError> {
        let width = model.states_width();
        let mut hasher = Sha256::new();
        hasher.update(format!("{upstream}\n{precision:?}\n{width}\n"));
        for clip in 0..corpus.clips().len() {
            let samples = corpus.samples(clip)?;
            hasher.update((samples.len() as u64).to_le_bytes());
            samples.iter().for_each(|sample| hasher.update(sample.to_le_bytes()));
        }
        let key: StatesKey = hasher.finalize().into();
        let name: String = key[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let path = folder.join(format!("{name}.states"));
        Ok(Self { model, input, corpus, precision, width, key, path })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that the file will have, to within a frame per clip.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let clips = self.corpus.clips().len();
        let steps = |clip| (self.corpus.duration_s(clip) * self.input.steps_per_s()) as usize;
        let config = self.model.encoder().config();
        let frames = (0..clips).map(|clip| config.frames(steps(clip)).max(1) as u64).sum();
        StoredStates::bytes(clips, frames, self.width)
    }

    /// Computes what is not there yet, on all cores; stopped at any moment, it goes on there.
    ///
    /// # Errors
    /// [`TrainError::Data`] if the file cannot be used or the encoder not be run.
    pub fn run(&self, progress: impl FnMut(usize)) -> Result<StoredStates, TrainError> {
        let clips = self.corpus.clips().len();
        let compute = |clip| threads::serial(|| self.states(clip));
        Ok(StoredStates::fill(&self.path, &self.key, (clips, self.width), compute, progress)?)
    }

    fn states(&self, clip: usize) -> Result<Vec<f32>, crate::data::ComputeError> {
        let features = self.input.plain(self.corpus, clip)?;
        let shape = (1, features.n_frames, features.n_bins);
        let input = Sequence {
            hidden: Tensor::from_vec(features.data, shape, &Device::Cpu)?,
            lengths: vec![features.n_frames.max(1)],
        };
        let states = self.model.states(&input, &Pass::inference(self.precision))?;
        let valid = states.hidden.get(0)?.narrow(0, 0, states.lengths[0])?;
        Ok(valid.flatten_all()?.to_vec1()?)
    }
}
