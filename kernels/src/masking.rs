//! What masked prediction does to frames: some are replaced by one learned vector, and what
//! goes back into the front end is damped.

#[cfg(feature = "cuda")]
use crate::device::{card::Card, pointwise};
use crate::storage::{slice, with_slice};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};

/// Replaces the frames where `masked` is true by `embedding`; differentiable in both.
///
/// # Shapes
/// `x`: `(batch, frames, dim)`; `embedding`: `(dim,)`; `masked`: `batch * frames` in their
/// order; returns the shape of `x`.
///
/// # Errors
/// If shapes disagree or a tensor is not f32 on the CPU.
pub fn replace_frames(x: &Tensor, embedding: &Tensor, masked: &[bool]) -> Result<Tensor> {
    let (batch, frames, dim) = x.dims3()?;
    if embedding.dims() != [dim] || masked.len() != batch * frames {
        bail!(
            "{} masks and a vector {:?} for frames {:?}",
            masked.len(),
            embedding.dims(),
            x.dims()
        );
    }
    let op = ReplaceFrames { masked: masked.to_vec(), dim };
    x.contiguous()?.apply_op2(&embedding.contiguous()?, op)
}

struct ReplaceFrames {
    masked: Vec<bool>,
    dim: usize,
}

impl CustomOp2 for ReplaceFrames {
    fn name(&self) -> &'static str {
        "replace-frames"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        embedding: &CpuStorage,
        embedding_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let mut y = slice(x, x_layout)?.to_vec();
        let embedding = slice(embedding, embedding_layout)?;
        for (frame, &masked) in y.chunks_exact_mut(self.dim.max(1)).zip(&self.masked) {
            if masked {
                frame.copy_from_slice(embedding);
            }
        }
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        embedding: &CudaStorage,
        embedding_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let card = Card::of(x);
        let (x, row) = (card.input(x, x_layout)?, card.input(embedding, embedding_layout)?);
        let y = pointwise::replace_rows(&card, x, row, &self.masked)?;
        Ok((card.storage(y), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        embedding: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        #[cfg(feature = "cuda")]
        if let Some(card) = Card::holding(x) {
            let dy = dy.contiguous()?;
            let dy = card.read(&dy)?;
            let (dx, row) = pointwise::replace_rows_gradient(&card, dy, self.dim, &self.masked)?;
            let row = card.tensor(row, embedding.shape());
            return Ok((Some(card.tensor(dx, x.shape())), Some(row)));
        }
        let mut dx = with_slice(dy, <[f32]>::to_vec)?;
        let mut sum = vec![0.0_f64; self.dim];
        for (frame, &masked) in dx.chunks_exact_mut(self.dim.max(1)).zip(&self.masked) {
            if masked {
                for (sum, dy) in sum.iter_mut().zip(frame) {
                    *sum += f64::from(*dy);
                    *dy = 0.0;
                }
            }
        }
        let sum: Vec<f32> = sum.into_iter().map(|s| s as f32).collect();
        Ok((
            Some(Tensor::from_vec(dx, x.shape(), x.device())?),
            Some(Tensor::from_vec(sum, embedding.shape(), x.device())?),
        ))
    }
}

/// `x` itself, whose gradient is multiplied by `scale` (fairseq `GradMultiply`).
///
/// # Errors
/// If `x` is not f32 on the CPU.
pub fn scale_gradient(x: &Tensor, scale: f32) -> Result<Tensor> {
    x.contiguous()?.apply_op1(ScaleGradient { scale })
}

struct ScaleGradient {
    scale: f32,
}

impl CustomOp1 for ScaleGradient {
    fn name(&self) -> &'static str {
        "scale-gradient"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(slice(storage, layout)?.to_vec()), layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let card = Card::of(x);
        let y = pointwise::scaled(&card, card.input(x, layout)?, 1.0)?;
        Ok((card.storage(y), layout.shape().clone()))
    }

    fn bwd(&self, _x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some((dy * f64::from(self.scale))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn masked_frames_are_the_vector_and_their_gradient_is_its() -> Result<()> {
        let x = Var::from_tensor(&Tensor::arange(0_f32, 8.0, &Device::Cpu)?.reshape((2, 2, 2))?)?;
        let embedding = Var::from_tensor(&Tensor::new(&[9_f32, 7.0], &Device::Cpu)?)?;
        let y = replace_frames(&x, &embedding, &[true, false, false, true])?;
        assert_eq!(y.flatten_all()?.to_vec1::<f32>()?, [9.0, 7.0, 2.0, 3.0, 4.0, 5.0, 9.0, 7.0]);
        let slopes = Tensor::arange(1_f32, 9.0, &Device::Cpu)?.reshape((2, 2, 2))?;
        let gradients = (y * slopes)?.sum_all()?.backward()?;
        let of = |var: &Var| {
            gradients.get(var).expect("gradient").flatten_all().and_then(|g| g.to_vec1::<f32>())
        };
        assert_eq!(of(&x)?, [0.0, 0.0, 3.0, 4.0, 5.0, 6.0, 0.0, 0.0]);
        assert_eq!(of(&embedding)?, [8.0, 10.0]);
        assert!(replace_frames(&x, &embedding, &[true]).is_err());
        Ok(())
    }

    #[test]
    fn a_gradient_is_scaled_and_the_value_is_not() -> Result<()> {
        let x = Var::from_tensor(&Tensor::new(&[3_f32, -1.0], &Device::Cpu)?)?;
        let y = scale_gradient(&x, 0.1)?;
        assert_eq!(y.to_vec1::<f32>()?, [3.0, -1.0]);
        let gradients = y.sqr()?.sum_all()?.backward()?;
        let got = gradients.get(&x).expect("gradient").to_vec1::<f32>()?;
        assert!((got[0] - 0.6).abs() < 1e-6 && (got[1] + 0.2).abs() < 1e-6);
        Ok(())
    }
}
