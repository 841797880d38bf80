//! What a forward pass needs to know besides its input.

use super::sequence::Sequence;
use asr_kernels::{Precision, dropout};
use candle_core::{Result, Tensor};
use std::cell::Cell;

/// Whether a forward pass trains, with which arithmetic, and where its chance comes from.
#[derive(Debug)]
pub struct Pass {
    precision: Precision,
    /// State of the generator; `None` outside training.
    seed: Option<Cell<u64>>,
    masked_norms: bool,
}

impl Pass {
    /// Inference: no dropout, norms that leave padding out.
    #[must_use]
    pub fn inference(precision: Precision) -> Self {
        Self { precision, seed: None, masked_norms: true }
    }

    /// Training: dropout and layer drop drawn from `seed`.
    #[must_use]
    pub fn training(precision: Precision, seed: u64) -> Self {
        Self { precision, seed: Some(Cell::new(seed)), masked_norms: true }
    }

    /// Lets norms over time count padded frames, as the published models do.
    #[must_use]
    pub fn with_padded_norms(self) -> Self {
        Self { masked_norms: false, ..self }
    }

    /// Arithmetic of matrix products.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// `lengths` if norms over time leave padding out.
    pub(super) fn norm_lengths<'a>(&self, lengths: &'a [usize]) -> Option<&'a [usize]> {
        self.masked_norms.then_some(lengths)
    }

    /// Zeroes padding before a module whose convolutions or norms would see it; with padded
    /// norms nothing is hidden from them.
    pub(super) fn isolate(&self, input: &Sequence) -> Result<Sequence> {
        if self.masked_norms { input.zero_padding() } else { Ok(input.clone()) }
    }

    /// Dropout in training, `x` itself otherwise.
    pub(super) fn dropout(&self, x: &Tensor, rate: f32) -> Result<Tensor> {
        match &self.seed {
            Some(seed) if rate > 0.0 => dropout::dropout(x, rate, draw(seed)),
            _ => Ok(x.clone()),
        }
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
