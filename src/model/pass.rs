//! What a forward pass needs to know besides its input.

use super::batch_norm::BatchStatistics;
use super::sequence::Sequence;
use asr_kernels::Precision;
use asr_kernels::attention::Attend;
use asr_kernels::dropout::{self, Dropout};
use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};

/// Whether a forward pass trains, with which arithmetic, and where its chance comes from.
#[derive(Debug)]
pub struct Pass {
    precision: Precision,
    /// State of the generator; `None` outside training.
    seed: Option<Cell<u64>>,
    padding: Padding,
    /// Whether what layers computed on the way is not kept for the backward pass.
    recomputes: bool,
    /// What batch norms found.
    statistics: RefCell<Vec<BatchStatistics>>,
}

/// What the padding of a batch does to the clips in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Padding {
    /// Nothing: a clip is the same alone and in any batch.
    #[default]
    Unseen,
    /// Norms over time and convolutions see it, attention does not: transformers with an
    /// attention mask, torchaudio.
    SeenByNorms,
    /// The same, and a frame is valid if any of its share of the padded samples is: fairseq
    /// and unilm divide the samples evenly among the frames.
    SharedOut,
    /// It counts as sound: transformers without an attention mask.
    Sound,
}

impl Pass {
    /// Inference: no dropout, norms that leave padding out.
    #[must_use]
    pub fn inference(precision: Precision) -> Self {
        Self {
            precision,
            seed: None,
            padding: Padding::Unseen,
            recomputes: false,
            statistics: RefCell::default(),
        }
    }

    /// Training: dropout and layer drop drawn from `seed`.
    #[must_use]
    pub fn training(precision: Precision, seed: u64) -> Self {
        Self { seed: Some(Cell::new(seed)), ..Self::inference(precision) }
    }

    /// Lets the backward pass compute Transformer layers again instead of keeping what they
    /// computed on the way: a fraction of the memory for a third more time. Layers with relative
    /// positions or adapters of languages are kept as ever.
    #[must_use]
    pub fn recomputing(self, recomputes: bool) -> Self {
        Self { recomputes, ..self }
    }

    /// Whether layers are computed again.
    pub(super) fn recomputes(&self) -> bool {
        self.recomputes && self.is_training()
    }

    /// The seed of a part that is computed more than once, to the same result.
    pub(super) fn seed_of_part(&self) -> u64 {
        self.seed.as_ref().map_or(0, draw)
    }

    /// Lets norms over time count padded frames, as the published models do.
    #[must_use]
    pub fn with_padded_norms(self) -> Self {
        self.with_padding(Padding::SeenByNorms)
    }

    /// Treats padding as a reference implementation does.
    #[must_use]
    pub fn with_padding(self, padding: Padding) -> Self {
        Self { padding, ..self }
    }

    /// What padding does.
    #[must_use]
    pub fn padding(&self) -> Padding {
        self.padding
    }

    /// Arithmetic of matrix products.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// `lengths` if norms over time leave padding out.
    pub(super) fn norm_lengths<'a>(&self, lengths: &'a [usize]) -> Option<&'a [usize]> {
        (self.padding == Padding::Unseen).then_some(lengths)
    }

    /// Zeroes padding before a module whose convolutions or norms would see it; with padded
    /// norms nothing is hidden from them.
    pub(super) fn isolate(&self, input: &Sequence) -> Result<Sequence> {
        match self.padding {
            Padding::Unseen => input.zero_padding(),
            _ => Ok(input.clone()),
        }
    }

    /// Valid frames of clips that have `valid` by the arithmetic of convolutions, `samples`
    /// long in a batch of `steps` samples and `frames` frames.
    pub(super) fn valid_frames(
        &self,
        valid: Vec<usize>,
        samples: &[usize],
        (steps, frames): (usize, usize),
    ) -> Vec<usize> {
        match self.padding {
            Padding::Unseen | Padding::SeenByNorms => valid,
            Padding::SharedOut => {
                let share = (steps / frames).max(1);
                samples.iter().map(|n| n.div_ceil(share).clamp(1, frames)).collect()
            }
            Padding::Sound => vec![frames; valid.len()],
        }
    }

    /// Whether it trains.
    pub(super) fn is_training(&self) -> bool {
        self.seed.is_some()
    }

    /// Keeps what a batch norm found.
    pub(super) fn record(&self, statistics: BatchStatistics) {
        self.statistics.borrow_mut().push(statistics);
    }

    /// Takes out what batch norms found, for [`Parameters::follow`](super::Parameters::follow).
    #[must_use]
    pub fn take_statistics(&self) -> Vec<BatchStatistics> {
        self.statistics.take()
    }

    /// A draw of `0..n` in training; `None` otherwise, and of nothing.
    pub(super) fn below(&self, n: usize) -> Option<usize> {
        let seed = self.seed.as_ref().filter(|_| n > 0)?;
        Some(((u128::from(draw(seed)) * n as u128) >> 64) as usize)
    }

    /// Dropout in training, `x` itself otherwise.
    pub(super) fn dropout(&self, x: &Tensor, rate: f32) -> Result<Tensor> {
        match &self.seed {
            Some(seed) if rate > 0.0 => dropout::dropout(x, rate, draw(seed)),
            _ => Ok(x.clone()),
        }
    }

    /// How attention is computed: in training, weights are dropped at this rate.
    pub(super) fn attend<'a>(
        &self,
        heads: usize,
        lengths: &'a [usize],
        rate: f32,
    ) -> Result<Attend<'a>> {
        let dropout = match &self.seed {
            Some(seed) if rate > 0.0 => Dropout::new(rate, draw(seed))?,
            _ => Dropout::NONE,
        };
        Ok(Attend { heads, lengths, precision: self.precision, dropout })
    }

    /// True with probability `rate` in training, never otherwise.
    pub(super) fn chance(&self, rate: f32) -> bool {
        match &self.seed {
            Some(seed) if rate > 0.0 => {
                let unit = (draw(seed) >> 11) as f64 / (1_u64 << 53) as f64;
                unit < f64::from(rate)
            }
            _ => false,
        }
    }
}

/// Next value of splitmix64.
fn draw(seed: &Cell<u64>) -> u64 {
    let state = seed.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
    seed.set(state);
    let mut z = state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
