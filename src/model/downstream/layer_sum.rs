//! A learned weighted sum of an encoder's layers (SUPERB, Yang et al. 2021, section 3).

use crate::model::encoder::Encoded;
use crate::model::sequence::Sequence;
use candle_core::{Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};

/// One weight per hidden state before their softmax.
#[derive(Debug)]
pub(crate) struct LayerWeights {
    /// `(states,)`
    weights: Tensor,
    states: usize,
}

impl LayerWeights {
    /// Equal weights of `states` hidden states, as `featurizer.weights` (s3prl's name).
    pub(crate) fn new(states: usize, vb: &VarBuilder) -> Result<Self> {
        let weights = vb.pp("featurizer").get_with_hints(states, "weights", Init::Const(0.0))?;
        Ok(Self { weights, states })
    }

    /// The sum over states of an encoder, at its highest frame rate.
    pub(crate) fn of(&self, encoded: &Encoded) -> Result<Sequence> {
        let states = encoded.aligned_states()?;
        let hidden: Vec<Tensor> = states.iter().map(|state| state.hidden.clone()).collect();
        Ok(encoded.output().with_hidden(self.sum(&hidden)?))
    }

    /// The sum over states side by side in each frame, `(batch, frames, states * dim)`.
    pub(crate) fn of_stored(&self, stored: &Sequence) -> Result<Sequence> {
        let width = stored.hidden.dim(2)?;
        if !width.is_multiple_of(self.states) {
            bail!("frames of {width} numbers do not hold {} states", self.states);
        }
        let dim = width / self.states;
        let state = |i| stored.hidden.narrow(2, i * dim, dim);
        let states: Vec<Tensor> = (0..self.states).map(state).collect::<Result<_>>()?;
        Ok(stored.with_hidden(self.sum(&states)?))
    }

    fn sum(&self, states: &[Tensor]) -> Result<Tensor> {
        if states.len() != self.states {
            bail!("{} hidden states for {} weights", states.len(), self.states);
        }
        let weights = candle_nn::ops::softmax(&self.weights, 0)?;
        let mut total: Option<Tensor> = None;
        for (i, state) in states.iter().enumerate() {
            let term = state.broadcast_mul(&weights.narrow(0, i, 1)?)?;
            total = Some(match total {
                Some(total) => (total + term)?,
                None => term,
            });
        }
        total.map_or_else(|| bail!("no hidden states to add up"), Ok)
    }
}
