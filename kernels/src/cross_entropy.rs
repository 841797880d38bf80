//! Cross entropy of classes straight from logits: `loss = ln Σ exp(z) - z_target`, with
//! gradient `softmax(z) - onehot(target)`.

#[cfg(feature = "cuda")]
use crate::device::{card::Card, loss};
use crate::storage::{slice, with_slice};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

/// Negative log-probability of each row's target, in nats; differentiable.
///
/// # Shapes
/// `logits`: `(rows, classes)`; `targets`: one class per row; returns `(rows,)`.
///
/// # Errors
/// If a target is no class, their number differs from the rows, or `logits` is not f32 on the
/// CPU.
pub fn cross_entropy(logits: &Tensor, targets: &[u32]) -> Result<Tensor> {
    let (rows, classes) = logits.dims2()?;
    if targets.len() != rows {
        bail!("{} targets for {rows} rows", targets.len());
    }
    if let Some(target) = targets.iter().find(|&&t| t as usize >= classes) {
        bail!("target {target} of {classes} classes");
    }
    logits.contiguous()?.apply_op1(CrossEntropy { targets: targets.to_vec() })
}

struct CrossEntropy {
    targets: Vec<u32>,
}

/// Logarithm of the sum of exponentials.
fn log_sum_exp(logits: &[f32]) -> f32 {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if !highest.is_finite() {
        return highest;
    }
    let sum: f64 = logits.iter().map(|z| f64::from((z - highest).exp())).sum();
    highest + sum.ln() as f32
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, classes) = layout.shape().dims2()?;
        let logits = slice(storage, layout)?;
        let row = |(logits, &target): (&[f32], &u32)| log_sum_exp(logits) - logits[target as usize];
        let losses = logits.chunks_exact(classes.max(1)).zip(&self.targets).map(row).collect();
        Ok((CpuStorage::F32(losses), rows.into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, logits: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let (rows, classes) = layout.shape().dims2()?;
        let card = Card::of(logits);
        let logits = card.input(logits, layout)?;
        let losses = loss::cross_entropy(&card, logits, &self.targets, classes)?;
        Ok((card.storage(losses), rows.into()))
    }

    fn bwd(&self, logits: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let (_, classes) = logits.dims2()?;
        #[cfg(feature = "cuda")]
        if let Some(card) = Card::holding(logits) {
            let dy = dy.contiguous()?;
            let (x, dy) = (card.read(logits)?, card.read(&dy)?);
            let slopes = loss::cross_entropy_gradient(&card, x, dy, &self.targets, classes)?;
            return Ok(Some(card.tensor(slopes, logits.shape())));
        }
        let mut slopes = with_slice(logits, <[f32]>::to_vec)?;
        let upstream = with_slice(dy, <[f32]>::to_vec)?;
        let rows = slopes.chunks_exact_mut(classes.max(1)).zip(&self.targets).zip(&upstream);
        for ((row, &target), dy) in rows {
            let total = log_sum_exp(row);
            for z in row.iter_mut() {
                *z = dy * (*z - total).exp();
            }
            row[target as usize] -= dy;
        }
        Ok(Some(Tensor::from_vec(slopes, logits.shape(), logits.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::uniform;
    use candle_core::{D, Device, Var};

    #[test]
    fn values_and_gradients_are_those_of_candle() -> Result<()> {
        for (rows, classes) in [(1, 1), (1, 2), (3, 17), (70, 9)] {
            let logits: Vec<f32> = uniform(rows * classes, 3).iter().map(|u| 40.0 * u).collect();
            let logits =
                Var::from_tensor(&Tensor::from_vec(logits, (rows, classes), &Device::Cpu)?)?;
            let upstream = Tensor::from_vec(uniform(rows, 4), rows, &Device::Cpu)?;
            let targets: Vec<u32> = (0..rows as u32).map(|i| (i * 7) % classes as u32).collect();
            let ours = cross_entropy(&logits, &targets)?;
            let at = Tensor::new(targets.as_slice(), &Device::Cpu)?.unsqueeze(1)?;
            let highest = logits.max_keepdim(D::Minus1)?.detach();
            let shifted = logits.broadcast_sub(&highest)?;
            let log_sum = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
            let theirs = shifted.broadcast_sub(&log_sum)?.gather(&at, 1)?.squeeze(1)?.neg()?;
            let grads = |y: &Tensor| -> Result<Vec<f32>> {
                let grads = (y * &upstream)?.sum_all()?.backward()?;
                grads.get(&logits).expect("gradient").flatten_all()?.to_vec1::<f32>()
            };
            for (got, want) in [
                (ours.to_vec1::<f32>()?, theirs.to_vec1::<f32>()?),
                (grads(&ours)?, grads(&theirs)?),
            ] {
                assert_eq!(got.len(), want.len());
                for (g, w) in got.iter().zip(&want) {
                    assert!((g - w).abs() < 2e-5, "{g} against {w}");
                }
            }
            assert!(cross_entropy(&logits, &targets[1..]).is_err());
            assert!(cross_entropy(&logits, &vec![classes as u32; rows]).is_err());
        }
        Ok(())
    }
}
