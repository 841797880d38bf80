//! Batch norm (Ioffe and Szegedy 2015) over valid frames.

use super::conv_stack::EPS;
use super::pass::Pass;
use asr_kernels::padding;
use candle_core::{Result, Tensor};
use candle_nn::{Init, VarBuilder};

/// How far running statistics move towards those of a batch (PyTorch's default `momentum`).
const MOMENTUM: f64 = 0.1;

/// `(x - mean) / sqrt(variance + eps) * weight + bias` over the last dimension.
///
/// In training mean and (biased) variance are those of the batch, over valid frames alone, and
/// are recorded in the pass so that the running ones can follow; in use they are the running
/// ones. Of a single value there is no variance: the running statistics stand in for it.
#[derive(Debug)]
pub(super) struct BatchNorm {
    name: String,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
}

/// Whether a tensor of this name is a statistic, which is kept but not trained.
pub(super) fn is_statistic(name: &str) -> bool {
    [".running_mean", ".running_var", ".num_batches_tracked"]
        .iter()
        .any(|ending| name.ends_with(ending))
}

/// What a norm found in a batch.
#[derive(Debug, Clone)]
pub struct BatchStatistics {
    /// Name of the norm, to which `.running_mean` and `.running_var` are added.
    pub(super) name: String,
    pub(super) mean: Tensor,
    /// Unbiased, `n / (n - 1)` times that of the batch, as PyTorch keeps it.
    pub(super) variance: Tensor,
}

impl BatchStatistics {
    /// The running values after this batch: `running + momentum (batch - running)`.
    pub(super) fn moved(running: &Tensor, batch: &Tensor) -> Result<Tensor> {
        running + ((batch - running)? * MOMENTUM)?
    }
}

impl BatchNorm {
    pub(super) fn new(dim: usize, vb: &VarBuilder) -> Result<Self> {
        Ok(Self {
            name: vb.prefix(),
            weight: vb.get_with_hints(dim, "weight", Init::Const(1.0))?,
            bias: vb.get_with_hints(dim, "bias", Init::Const(0.0))?,
            running_mean: vb.get_with_hints(dim, "running_mean", Init::Const(0.0))?.detach(),
            running_var: vb.get_with_hints(dim, "running_var", Init::Const(1.0))?.detach(),
        })
    }

    /// `x`: `(batch, frames, dim)`, of which each clip's first `lengths` frames are valid.
    pub(super) fn forward(&self, x: &Tensor, lengths: &[usize], pass: &Pass) -> Result<Tensor> {
        let n: usize = lengths.iter().sum();
        if !pass.is_training() || n < 2 {
            let scale = (&self.weight / (&self.running_var + EPS)?.sqrt()?)?;
            let shift = (&self.bias - (&self.running_mean * &scale)?)?;
            return x.broadcast_mul(&scale)?.broadcast_add(&shift);
        }
        let share = 1.0 / n as f64;
        let mean = (padding::zero_padding(x, lengths)?.sum((0, 1))? * share)?;
        let centred = padding::zero_padding(&x.broadcast_sub(&mean)?, lengths)?;
        let variance = (centred.sqr()?.sum((0, 1))? * share)?;
        pass.record(BatchStatistics {
            name: self.name.clone(),
            mean: mean.detach(),
            variance: (variance.detach() * (n as f64 / (n - 1) as f64))?,
        });
        let scale = (&self.weight / (variance + EPS)?.sqrt()?)?;
        centred.broadcast_mul(&scale)?.broadcast_add(&self.bias)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Parameters;
    use asr_kernels::Precision;
    use candle_core::Device;

    #[test]
    fn a_batch_is_normalised_by_itself_and_remembered() -> Result<()> {
        let parameters = Parameters::default();
        let norm = BatchNorm::new(2, &parameters.seeded(1).pp("bn"))?;
        // Valid: 1, 3 and 5 in the first channel, 2, 2 and 8 in the second; 100 is padding.
        let x = [[[1.0_f32, 2.0], [3.0, 2.0]], [[5.0, 8.0], [100.0, 100.0]]];
        let x = Tensor::new(&x, &Device::Cpu)?;
        let pass = Pass::training(Precision::F32, 1);
        let y = norm.forward(&x, &[2, 1], &pass)?.to_vec3::<f32>()?;
        // Means 3 and 4, biased variances 8/3 and 8, unbiased 4 and 12.
        for (found, want) in [(y[0][0][0], -2.0 / (8.0_f32 / 3.0 + 1e-5).sqrt()), (y[0][1][0], 0.0)]
        {
            assert!((found - want).abs() < 1e-6);
        }
        assert!((y[1][0][1] - 4.0 / (8.0_f32 + 1e-5).sqrt()).abs() < 1e-6);
        parameters.follow(&pass.take_statistics())?;
        let running = |name: &str| -> Result<Vec<f32>> {
            let all = parameters.all();
            all.iter().find(|(n, _)| n == name).expect("there").1.to_vec1::<f32>()
        };
        assert_eq!(running("bn.running_mean")?, [0.3, 0.4]);
        for (found, want) in running("bn.running_var")?.iter().zip([1.3, 2.1]) {
            assert!((found - want).abs() < 1e-6);
        }
        // In use the norm sees what it has followed: the numbers are shared.
        let y = norm.forward(&x, &[2, 1], &Pass::inference(Precision::F32))?.to_vec3::<f32>()?;
        assert!((y[0][0][0] - 0.7 / (1.3_f32 + 1e-5).sqrt()).abs() < 1e-6);
        Ok(())
    }

    #[test]
    fn one_value_has_no_variance() -> Result<()> {
        let norm = BatchNorm::new(1, &Parameters::default().seeded(1).pp("bn"))?;
        let pass = Pass::training(Precision::F32, 1);
        let y = norm.forward(&Tensor::new(&[[[2.0_f32]]], &Device::Cpu)?, &[1], &pass)?;
        assert!((y.to_vec3::<f32>()?[0][0][0] - 2.0).abs() < 1e-4);
        assert!(pass.take_statistics().is_empty());
        Ok(())
    }
}
