//! Batch norm with the statistics of its checkpoint.

use super::conv_stack::EPS;
use candle_core::{Result, Tensor};
use candle_nn::{Init, VarBuilder};

/// `(x - mean) / sqrt(variance + eps) * weight + bias` over the last dimension.
///
/// Mean and variance are the running ones of the checkpoint, in training too: what a clip
/// gives then depends on no other clip of its batch, and nothing differs between training
/// and use. A norm that starts from nothing has mean 0 and variance 1 and learns its scale
/// and shift alone.
#[derive(Debug)]
pub(super) struct BatchNorm {
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

impl BatchNorm {
    pub(super) fn new(dim: usize, vb: &VarBuilder) -> Result<Self> {
        Ok(Self {
            weight: vb.get_with_hints(dim, "weight", Init::Const(1.0))?,
            bias: vb.get_with_hints(dim, "bias", Init::Const(0.0))?,
            running_mean: vb.get_with_hints(dim, "running_mean", Init::Const(0.0))?.detach(),
            running_var: vb.get_with_hints(dim, "running_var", Init::Const(1.0))?.detach(),
        })
    }

    /// `x`: `(..., dim)`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let scale = (&self.weight / (&self.running_var + EPS)?.sqrt()?)?;
        let shift = (&self.bias - (&self.running_mean * &scale)?)?;
        x.broadcast_mul(&scale)?.broadcast_add(&shift)
    }
}
