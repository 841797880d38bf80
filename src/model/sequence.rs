//! A batch of hidden frames with the length of each clip.

use asr_kernels::padding;
use candle_core::{Result, Tensor};

/// Hidden frames of a batch.
#[derive(Debug, Clone)]
pub struct Sequence {
    /// `(batch, frames, dim)`; frames past a clip's length mean nothing.
    pub hidden: Tensor,
    /// Valid frames of each clip, `(batch,)`.
    pub lengths: Vec<usize>,
}

impl Sequence {
    pub(super) fn with_hidden(&self, hidden: Tensor) -> Self {
        Self { hidden, lengths: self.lengths.clone() }
    }

    /// Frames of the longest clip.
    ///
    /// # Errors
    /// If `hidden` does not have three dimensions.
    pub fn frames(&self) -> Result<usize> {
        self.hidden.dim(1)
    }

    /// The same with padding set to zero.
    pub(super) fn zero_padding(&self) -> Result<Self> {
        Ok(self.with_hidden(padding::zero_padding(&self.hidden, &self.lengths)?))
    }

    /// `frames` frames, of which frame `t` is frame `at(t)` here, or the last valid one of its clip.
    pub(super) fn repeated(&self, frames: usize, at: impl Fn(usize) -> usize) -> Result<Self> {
        let (batch, own, dim) = self.hidden.dims3()?;
        let rows: Vec<u32> = self
            .lengths
            .iter()
            .enumerate()
            .flat_map(|(clip, &n)| {
                let at = &at;
                (0..frames).map(move |t| (clip * own + at(t).min(n.max(1) - 1)) as u32)
            })
            .collect();
        let rows = Tensor::from_vec(rows, batch * frames, self.hidden.device())?;
        let hidden = self.hidden.contiguous()?.reshape((batch * own, dim))?;
        let hidden = hidden.index_select(&rows, 0)?.reshape((batch, frames, dim))?;
        Ok(Self { hidden, lengths: vec![frames; batch] })
    }

    /// Each frame `times` in a row.
    pub(super) fn each_repeated(&self, times: usize) -> Result<Self> {
        if times == 1 {
            return Ok(self.clone());
        }
        let (batch, frames, dim) = self.hidden.dims3()?;
        let hidden = self.hidden.unsqueeze(2)?.broadcast_as((batch, frames, times, dim))?;
        let hidden = hidden.reshape((batch, frames * times, dim))?;
        let lengths = self.lengths.iter().map(|n| n * times).collect();
        Ok(Self { hidden, lengths })
    }

    /// The first `frames` frames.
    pub(super) fn cut(&self, frames: usize) -> Result<Self> {
        if self.frames()? <= frames {
            return Ok(self.clone());
        }
        Ok(Self {
            hidden: self.hidden.narrow(1, 0, frames)?.contiguous()?,
            lengths: self.lengths.iter().map(|&n| n.min(frames)).collect(),
        })
    }
}
