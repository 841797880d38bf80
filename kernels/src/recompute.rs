//! Parts of a computation whose intermediate results are computed again for the backward pass
//! instead of being kept (Chen et al. 2016, arXiv 1604.06174).

#[cfg(feature = "cuda")]
use crate::device::{card::Card, pointwise};
use crate::gradients;
use crate::storage::slice;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, Var, bail};

/// `part(x)`, of which nothing but `x` and the result is kept.
///
/// The gradient with respect to `x`, and those of parameters that `part` reads, are found by
/// computing it a second time; it must give the same both times, so whatever it leaves to chance
/// is fixed beforehand. Parameters get their gradients from
/// [`Gradients::backward`](crate::gradients::Gradients::backward) alone.
///
/// # Errors
/// If `part` fails, or its result is not f32 or lies elsewhere than `x`.
pub fn recomputed(
    x: &Tensor,
    part: impl Fn(&Tensor) -> Result<Tensor> + Send + Sync + 'static,
) -> Result<Tensor> {
    let x = x.contiguous()?;
    let y = part(&x.detach())?.detach().contiguous()?;
    x.apply_op1(Recompute { y, part })
}

struct Recompute<F> {
    y: Tensor,
    part: F,
}

impl<F: Fn(&Tensor) -> Result<Tensor> + Send + Sync> CustomOp1 for Recompute<F> {
    fn name(&self) -> &'static str {
        "recompute"
    }

    fn cpu_fwd(&self, _storage: &CpuStorage, _layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (storage, layout) = self.y.storage_and_layout();
        let candle_core::Storage::Cpu(storage) = &*storage else {
            bail!("recompute: the result is not on the CPU");
        };
        Ok((CpuStorage::F32(slice(storage, layout)?.to_vec()), self.y.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        let Some(card) = Card::holding(&self.y) else {
            bail!("recompute: the result is not on the device");
        };
        let y = pointwise::scaled(&card, card.read(&self.y)?, 1.0)?;
        Ok((card.storage(y), self.y.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let x = Var::from_tensor(&x.detach())?;
        let y = (self.part)(x.as_tensor())?;
        let store = (y * dy.detach())?.sum_all()?.backward()?;
        gradients::deliver_store(&store)?;
        Ok(store.get(x.as_tensor()).cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Precision;
    use crate::gelu::gelu;
    use crate::gradients::Gradients;
    use crate::linear::linear;
    use candle_core::Device;

    #[test]
    fn gradients_are_those_of_the_part_itself() -> Result<()> {
        let values = |n: usize, k: f32| (0..n).map(|i| (i as f32 * k).sin()).collect::<Vec<_>>();
        let x = Var::from_vec(values(2 * 5 * 6, 0.7), (2, 5, 6), &Device::Cpu)?;
        let weight = Var::from_vec(values(36, 1.3), (6, 6), &Device::Cpu)?;
        let bias = Var::from_vec(values(6, 0.9), 6, &Device::Cpu)?;
        // Found by candle's store, not by an operation of ours.
        let scale = Var::from_vec(values(6, 2.1), 6, &Device::Cpu)?;
        let (w, b, s) =
            (weight.as_tensor().clone(), bias.as_tensor().clone(), scale.as_tensor().clone());
        let part = move |x: &Tensor| {
            let y = gelu(&linear(x, &w, &b, Precision::F32)?)?;
            x + y.broadcast_mul(&s)?
        };
        let vars = [&x, &weight, &bias, &scale];
        let mut found = Vec::new();
        for again in [false, true] {
            let mut gradients = Gradients::of(vars);
            let mut h = x.as_tensor().clone();
            // Twice over the same parameters, so that gradients add up.
            for _ in 0..2 {
                h = if again { recomputed(&h, part.clone())? } else { part(&h)? };
            }
            gradients.backward(&h.sqr()?.sum_all()?)?;
            let all: Vec<Vec<f32>> =
                vars.iter().map(|var| gradients.get(var).expect("a gradient").to_vec()).collect();
            found.push((h.flatten_all()?.to_vec1::<f32>()?, all));
        }
        assert_eq!(found[0].0, found[1].0);
        for (direct, again) in found[0].1.iter().flatten().zip(found[1].1.iter().flatten()) {
            assert!((direct - again).abs() <= 1e-5 * direct.abs().max(1.0), "{direct} {again}");
        }
        Ok(())
    }

    #[test]
    fn outside_of_a_collected_backward_pass_it_refuses() -> Result<()> {
        let x = Var::from_vec(vec![1.0_f32, 2.0], 2, &Device::Cpu)?;
        let y = recomputed(x.as_tensor(), Tensor::sqr)?;
        assert_eq!(y.to_vec1::<f32>()?, [1.0, 4.0]);
        assert!(y.sum_all()?.backward().is_err());
        Ok(())
    }
}
