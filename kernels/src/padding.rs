//! Zeroing what lies past the end of each clip of a batch.

#[cfg(feature = "cuda")]
use crate::device::{card::Card, pointwise};
use crate::storage::{slice, with_slice};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

/// Zeroes the frames from each clip's length on; differentiable.
///
/// # Shapes
/// `x`: `(batch, frames, dim)`; `lengths`: valid frames per clip; returns the shape of `x`.
///
/// # Errors
/// If the number of lengths differs from the batch or `x` is not f32 on the CPU.
pub fn zero_padding(x: &Tensor, lengths: &[usize]) -> Result<Tensor> {
    let (batch, frames, _) = x.dims3()?;
    if lengths.len() != batch {
        bail!("{} lengths for a batch of {batch}", lengths.len());
    }
    if lengths.iter().all(|&n| n >= frames) {
        return Ok(x.clone());
    }
    x.contiguous()?.apply_op1(ZeroPadding { lengths: lengths.to_vec() })
}

struct ZeroPadding {
    lengths: Vec<usize>,
}

impl ZeroPadding {
    fn apply(&self, values: &mut [f32], frames: usize, dim: usize) {
        for (clip, &length) in values.chunks_exact_mut((frames * dim).max(1)).zip(&self.lengths) {
            clip[length.min(frames) * dim..].fill(0.0);
        }
    }
}

impl CustomOp1 for ZeroPadding {
    fn name(&self) -> &'static str {
        "zero-padding"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, frames, dim) = layout.shape().dims3()?;
        let mut y = slice(storage, layout)?.to_vec();
        self.apply(&mut y, frames, dim);
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let (_, frames, dim) = layout.shape().dims3()?;
        let card = Card::of(x);
        let x = card.input(x, layout)?;
        let y = pointwise::zero_padding(&card, x, &self.lengths, (frames, dim))?;
        Ok((card.storage(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let (_, frames, dim) = x.dims3()?;
        #[cfg(feature = "cuda")]
        if let Some(card) = Card::holding(x) {
            let dy = dy.contiguous()?;
            let dy = card.read(&dy)?;
            let dx = pointwise::zero_padding(&card, dy, &self.lengths, (frames, dim))?;
            return Ok(Some(card.tensor(dx, x.shape())));
        }
        let mut dx = with_slice(dy, <[f32]>::to_vec)?;
        self.apply(&mut dx, frames, dim);
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Var};

    #[test]
    fn padding_is_zero_and_gets_no_gradient() -> Result<()> {
        let x = Var::from_tensor(&Tensor::ones((2, 3, 2), DType::F32, &Device::Cpu)?)?;
        let y = zero_padding(&x, &[3, 1])?;
        let want = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(y.flatten_all()?.to_vec1::<f32>()?, want);
        let grads = y.sum_all()?.backward()?;
        assert_eq!(grads.get(&x).expect("gradient").flatten_all()?.to_vec1::<f32>()?, want);
        Ok(())
    }
}
