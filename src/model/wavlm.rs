//! Gated relative position bias: what WavLM (Chen et al. 2022, arXiv 2110.13900, section 3.2)
//! has beyond HuBERT.

use super::config::RelativePositions;
use super::pass::Pass;
use super::transformer::Linear;
use candle_core::{Result, Tensor};
use candle_nn::{Init, VarBuilder};

/// Values each head's gate is computed from: two groups of four, summed.
const GATE_WIDTH: usize = 8;

/// Bias by relative position, one value per bucket and head; shared by all layers.
#[derive(Debug)]
pub(super) struct RelativeBias {
    positions: RelativePositions,
    /// `(buckets, heads)`
    embedding: Tensor,
}

impl RelativeBias {
    pub(super) fn new(positions: RelativePositions, heads: usize, vb: &VarBuilder) -> Result<Self> {
        let start = Init::Randn { mean: 0.0, stdev: 0.02 };
        let embedding = vb.get_with_hints((positions.buckets, heads), "weight", start)?;
        Ok(Self { positions, embedding })
    }

    /// Bias of every offset between `frames` frames: `(heads, 2 frames - 1)`, entry
    /// `frames - 1 + key - query`.
    pub(super) fn strip(&self, frames: usize) -> Result<Tensor> {
        let last = frames as i64 - 1;
        let buckets: Vec<u32> = (-last..=last).map(|d| bucket(d, self.positions)).collect();
        let buckets = Tensor::new(buckets.as_slice(), self.embedding.device())?;
        self.embedding.index_select(&buckets, 0)?.t()?.contiguous()
    }
}

/// Bucket of the offset `key - query`: exact up to a quarter of the buckets, logarithmic up to
/// `max_distance`; the second half is for keys that come later. The logarithm is f32, as in
/// the released code.
fn bucket(offset: i64, positions: RelativePositions) -> u32 {
    let per_direction = positions.buckets / 2;
    let exact = per_direction / 2;
    let later = if offset > 0 { per_direction } else { 0 };
    let distance = offset.unsigned_abs() as usize;
    let within = if distance < exact {
        distance
    } else {
        let log = (distance as f32 / exact as f32).ln();
        let range = (positions.max_distance as f64 / exact as f64).ln() as f32;
        let steps = exact as f32 + log / range * (per_direction - exact) as f32;
        (steps as usize).min(per_direction - 1)
    };
    (later + within) as u32
}

/// Scales the bias by what the query's frame holds.
#[derive(Debug)]
pub(super) struct Gate {
    linear: Linear,
    /// `(1, heads, 1, 1)`
    constant: Tensor,
    heads: usize,
}

impl Gate {
    pub(super) fn new(dim: usize, heads: usize, vb: &VarBuilder) -> Result<Self> {
        Ok(Self {
            linear: Linear::new(dim / heads, GATE_WIDTH, &vb.pp("grep_linear"))?,
            constant: vb.get_with_hints((1, heads, 1, 1), "grep_a", Init::Const(1.0))?,
            heads,
        })
    }

    /// Gate of each query, `(batch, heads, frames)`, from the attention's input
    /// `(batch, frames, dim)`: `r (u c - 1) + 2`, `r` and `u` sigmoids of sums of four.
    pub(super) fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let (batch, frames, dim) = x.dims3()?;
        let by_head = x.reshape((batch, frames, self.heads, dim / self.heads))?;
        let sums = self
            .linear
            .forward(&by_head, pass)?
            .reshape((batch, frames, self.heads, 2, GATE_WIDTH / 2))?
            .sum(4)?;
        let sigmoid = |x: Tensor| (x.neg()?.exp()? + 1.0)?.recip();
        let r = sigmoid(sums.narrow(3, 0, 1)?.squeeze(3)?)?;
        let u = sigmoid(sums.narrow(3, 1, 1)?.squeeze(3)?)?;
        let constant = self.constant.reshape((1, 1, self.heads))?;
        let gate = ((r * (u.broadcast_mul(&constant)? - 1.0)?)? + 2.0)?;
        gate.transpose(1, 2)?.contiguous()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of the released code, computed with 320 buckets and a maximum of 800.
    #[test]
    fn buckets_are_those_of_the_released_code() {
        let positions = RelativePositions { buckets: 320, max_distance: 800 };
        for (offsets, want) in [
            (&[-900, -800, -799][..], 159),
            (&[-400], 135),
            (&[-160], 104),
            (&[-100], 87),
            (&[-82, -81, -80], 80),
            (&[-79], 79),
            (&[-1], 1),
            (&[0], 0),
            (&[1], 161),
            (&[79], 239),
            (&[80, 81, 82], 240),
            (&[83, 84], 241),
            (&[100], 247),
            (&[160], 264),
            (&[400], 295),
            (&[700], 315),
            (&[778, 5000], 319),
        ] {
            for &offset in offsets {
                assert_eq!(bucket(offset, positions), want, "offset {offset}");
            }
        }
    }
}
