//! Looking into an encoder between its blocks.

use super::pass::Pass;
use super::sequence::Sequence;
use candle_core::{Result, Tensor};

/// What happens after each Transformer block.
pub trait AfterBlock: std::fmt::Debug {
    /// Sees the frames that block `block` gives, `(batch, frames, dim)`; what it returns, of
    /// the same shape, goes on in their place.
    ///
    /// # Errors
    /// If the frames cannot be used.
    fn block(&mut self, block: usize, frames: &Sequence, pass: &Pass) -> Result<Option<Tensor>>;
}

/// One after the other; the second sees what the first made.
impl<A: AfterBlock, B: AfterBlock> AfterBlock for (A, B) {
    fn block(&mut self, block: usize, frames: &Sequence, pass: &Pass) -> Result<Option<Tensor>> {
        let Some(changed) = self.0.block(block, frames, pass)? else {
            return self.1.block(block, frames, pass);
        };
        let after = self.1.block(block, &frames.with_hidden(changed.clone()), pass)?;
        Ok(Some(after.unwrap_or(changed)))
    }
}

/// Perhaps.
impl<A: AfterBlock> AfterBlock for Option<A> {
    fn block(&mut self, block: usize, frames: &Sequence, pass: &Pass) -> Result<Option<Tensor>> {
        match self {
            Some(after) => after.block(block, frames, pass),
            None => Ok(None),
        }
    }
}
