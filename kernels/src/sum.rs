//! The sum of two branches, scaled.

#[cfg(feature = "cuda")]
use crate::device::{card::Card, pointwise};
use crate::storage::{slice, with_slice, written};
use crate::threads;
use crate::vector::vectorised;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use std::mem::MaybeUninit;

/// `scale (a + b)` in one pass; differentiable in both.
///
/// # Errors
/// If shapes differ or a tensor is not f32 on the CPU.
pub fn scaled_sum(a: &Tensor, b: &Tensor, scale: f32) -> Result<Tensor> {
    if a.shape() != b.shape() {
        bail!("scaled sum of {:?} and {:?}", a.dims(), b.dims());
    }
    a.contiguous()?.apply_op2(&b.contiguous()?, ScaledSum { scale })
}

struct ScaledSum {
    scale: f32,
}

vectorised! {
    fn forward(a: &[f32], b: &[f32], scale: f32, y: &mut [MaybeUninit<f32>]) {
        for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
            y.write(scale * (a + b));
        }
    }
}

vectorised! {
    fn scaled(dy: &[f32], scale: f32, dx: &mut [MaybeUninit<f32>]) {
        for (dx, &dy) in dx.iter_mut().zip(dy) {
            dx.write(scale * dy);
        }
    }
}

impl CustomOp2 for ScaledSum {
    fn name(&self) -> &'static str {
        "scaled-sum"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (a, b) = (slice(a, a_layout)?, slice(b, b_layout)?);
        let block = |start: usize, y: &mut [MaybeUninit<f32>]| {
            let range = start..start + y.len();
            forward(&a[range.clone()], &b[range], self.scale, y);
        };
        // SAFETY: the blocks cover the output, and each value is written.
        let y = unsafe { written(a.len(), |y| threads::for_row_blocks(y, 1, block)) };
        Ok((CpuStorage::F32(y), a_layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        a: &CudaStorage,
        a_layout: &Layout,
        b: &CudaStorage,
        b_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let card = Card::of(a);
        let (a, b) = (card.input(a, a_layout)?, card.input(b, b_layout)?);
        let y = pointwise::scaled_sum(&card, a, b, self.scale)?;
        Ok((card.storage(y), a_layout.shape().clone()))
    }

    fn bwd(
        &self,
        a: &Tensor,
        _b: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        #[cfg(feature = "cuda")]
        if let Some(card) = Card::holding(dy) {
            let dy = dy.contiguous()?;
            let dx = pointwise::scaled(&card, card.read(&dy)?, self.scale)?;
            let dx = card.tensor(dx, dy.shape());
            return Ok((Some(dx.clone()), Some(dx)));
        }
        let dx = with_slice(dy, |dy| {
            // SAFETY: each value is written.
            unsafe { written(dy.len(), |dx| scaled(dy, self.scale, dx)) }
        })?;
        let dx = Tensor::from_vec(dx, a.shape(), a.device())?;
        Ok((Some(dx.clone()), Some(dx)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference;
    use candle_core::{Device, Var};

    #[test]
    fn values_and_gradients_are_those_of_candle() -> Result<()> {
        let var = |seed| -> Result<Var> {
            let values = reference::uniform(3 * 7, seed);
            Var::from_tensor(&Tensor::from_vec(values, (1, 3, 7), &Device::Cpu)?)
        };
        let (a, b, upstream) = (var(1)?, var(2)?, var(3)?);
        let ours = scaled_sum(&a, &b, 0.25)?;
        let theirs = (a.add(&b)? * 0.25)?;
        let flat = |t: &Tensor| t.flatten_all()?.to_vec1::<f32>();
        assert_eq!(flat(&ours)?, flat(&theirs)?);
        let grads = |y: &Tensor| (y * upstream.as_tensor())?.sum_all()?.backward();
        let (got, want) = (grads(&ours)?, grads(&theirs)?);
        for var in [&a, &b] {
            let (got, want) = (got.get(var).expect("gradient"), want.get(var).expect("gradient"));
            assert_eq!(flat(got)?, flat(want)?);
        }
        assert!(scaled_sum(&a, &b.narrow(1, 0, 2)?, 1.0).is_err());
        Ok(())
    }
}
