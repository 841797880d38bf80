//! Dropout whose mask is a function of a seed, so that a run repeats exactly and the
//! backward pass draws the same mask again instead of keeping it.

#[cfg(feature = "cuda")]
use crate::device::{card::Card, pointwise};
use crate::storage::{slice, with_slice, written};
use crate::threads;
use crate::vector::vectorised;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use std::mem::MaybeUninit;

/// Zeroes each value with probability `rate` and scales the others by `1 / (1 - rate)`.
///
/// # Errors
/// If `rate` is outside `0..1` or `x` is not f32 on the CPU.
pub fn dropout(x: &Tensor, rate: f32, seed: u64) -> Result<Tensor> {
    let dropout = Dropout::new(rate, seed)?;
    if dropout == Dropout::NONE { Ok(x.clone()) } else { x.contiguous()?.apply_op1(dropout) }
}

/// Which values are zeroed: those whose index and seed have a hash below the rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    rate: f32,
    seed: u64,
}

impl Dropout {
    /// Leaves all as it is.
    pub const NONE: Self = Self { rate: 0.0, seed: 0 };

    /// Zeroes each value with probability `rate`.
    ///
    /// # Errors
    /// If `rate` is outside `0..1`.
    pub fn new(rate: f32, seed: u64) -> Result<Self> {
        if !(0.0..1.0).contains(&rate) {
            bail!("dropout rate {rate} is outside 0..1");
        }
        Ok(if rate == 0.0 { Self::NONE } else { Self { rate, seed } })
    }

    /// Hashes below this are zeroed.
    pub(crate) fn threshold(self) -> u32 {
        (f64::from(self.rate) * 4_294_967_296.0) as u32
    }

    /// What the other values are multiplied by.
    pub(crate) fn scale(self) -> f32 {
        (1.0 - self.rate).recip()
    }

    /// The seed's halves, the lower one first.
    pub(crate) fn seed(self) -> [u32; 2] {
        [self.seed as u32, (self.seed >> 32) as u32]
    }

    /// Drops among `values`, of which the first has this index, counted modulo 2^32.
    pub(crate) fn apply_to(self, first: u32, values: &mut [f32]) {
        if self != Self::NONE {
            apply_to(self, first, values);
        }
    }
}

/// Integer hash by Wellons (lowbias32), over the index and both halves of the seed.
#[inline(always)]
fn hash(index: u32, [low, high]: [u32; 2]) -> u32 {
    let mut h = index ^ low;
    h = (h ^ (h >> 16)).wrapping_mul(0x7feb_352d);
    h = ((h ^ (h >> 15)) ^ high).wrapping_mul(0x846c_a68b);
    h ^ (h >> 16)
}

vectorised! {
    fn apply_to(dropout: Dropout, first: u32, values: &mut [f32]) {
        let (scale, threshold, seed) = (dropout.scale(), dropout.threshold(), dropout.seed());
        for (i, value) in values.iter_mut().enumerate() {
            let dropped = hash(first.wrapping_add(i as u32), seed) < threshold;
            *value = if dropped { 0.0 } else { *value * scale };
        }
    }
}

vectorised! {
    /// `first` is the index of the first value.
    fn apply(dropout: Dropout, first: usize, x: &[f32], y: &mut [MaybeUninit<f32>]) {
        let (scale, threshold, seed) = (dropout.scale(), dropout.threshold(), dropout.seed());
        for (i, (y, &x)) in y.iter_mut().zip(x).enumerate() {
            let dropped = hash((first + i) as u32, seed) < threshold;
            y.write(if dropped { 0.0 } else { x * scale });
        }
    }
}

impl Dropout {
    fn of(&self, x: &[f32]) -> Vec<f32> {
        let block = |start: usize, y: &mut [MaybeUninit<f32>]| {
            apply(*self, start, &x[start..start + y.len()], y);
        };
        // SAFETY: the blocks cover the output, and each value is written.
        unsafe { written(x.len(), |y| threads::for_row_blocks(y, 1, block)) }
    }
}

impl CustomOp1 for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = self.of(slice(storage, layout)?);
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let card = Card::of(x);
        let y = pointwise::dropout(&card, card.input(x, layout)?, *self)?;
        Ok((card.storage(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        #[cfg(feature = "cuda")]
        if let Some(card) = Card::holding(x) {
            let dy = dy.contiguous()?;
            let dx = pointwise::dropout(&card, card.read(&dy)?, *self)?;
            return Ok(Some(card.tensor(dx, x.shape())));
        }
        let dx = with_slice(dy, |dy| self.of(dy))?;
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn drops_its_share_keeps_the_mean_and_repeats() -> Result<()> {
        let ones =
            Var::from_tensor(&Tensor::ones(100_000, candle_core::DType::F32, &Device::Cpu)?)?;
        let y = dropout(&ones, 0.1, 42)?;
        let values = y.to_vec1::<f32>()?;
        let dropped = values.iter().filter(|&&v| v == 0.0).count();
        assert!((9_500..10_500).contains(&dropped), "{dropped} of 100000 dropped");
        let mean = values.iter().sum::<f32>() / 100_000.0;
        assert!((mean - 1.0).abs() < 0.01);
        assert_eq!(values, dropout(&ones, 0.1, 42)?.to_vec1::<f32>()?);
        assert_ne!(values, dropout(&ones, 0.1, 43)?.to_vec1::<f32>()?);
        let slopes = y.sum_all()?.backward()?.get(&ones).expect("gradient").to_vec1::<f32>()?;
        assert_eq!(slopes, values);
        Ok(())
    }
}
