//! CTC at the highest and the lowest resolution of an encoder, with the language as a task
//! of its own.

use asr_kernels::ctc::{Target, Term, ctc_loss, ctc_losses, minimum_frames};
use candle_core::{Result, Tensor};

/// Weights of the CTC losses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MultiResolutionCtc {
    /// Share of the loss taken by the lowest resolution, 0 to 1: an intermediate loss
    /// (Lee and Watanabe 2021) that shortens the way of the gradient into the early stages.
    pub low_weight: f64,
    /// Weight of the first token by itself: the negative log-probability that the output
    /// begins with it, whatever follows. One tag among a clip's many characters has little
    /// say in their common loss; this gives the language its own.
    pub first_token_weight: f64,
    /// Id of the blank.
    pub blank: u32,
}

/// The loss of a batch, not yet averaged.
#[derive(Debug)]
pub struct MultiResolutionLoss {
    /// Sum over clips, nats; to be differentiated.
    pub sum: Tensor,
    /// The high-resolution loss of each clip.
    pub clips: ClipLosses,
    /// Tokens that were to be spelt, counting one per clip for its end.
    pub n_tokens: usize,
    /// Clips too short to spell their target; they take no part.
    pub n_infeasible: usize,
}

/// The loss of each clip by itself, unweighted, where it was computed.
#[derive(Debug)]
pub struct ClipLosses {
    /// `(batch,)`, nats.
    losses: Tensor,
    /// 1 for clips that take part, else 0.
    feasible: Vec<f32>,
}

impl ClipLosses {
    /// Reads the losses, nats, `None` for clips that take no part; on a device, that waits for all
    /// that was asked of it.
    ///
    /// # Errors
    /// If the device fails.
    pub fn nats(&self) -> Result<Vec<Option<f64>>> {
        let losses = self.losses.to_vec1::<f32>()?;
        let each = losses.iter().zip(&self.feasible);
        Ok(each.map(|(loss, part)| (*part > 0.0).then(|| f64::from(*loss))).collect())
    }
}

impl MultiResolutionCtc {
    /// Loss of `targets` under `high` and, if given, `low` logits, each with its lengths;
    /// `clip_weights`, one per clip, say how much each counts (1 where there are none).
    ///
    /// At the low resolution a target that no longer fits its frames is replaced by its open-ended first token.
    ///
    /// # Errors
    /// If shapes disagree.
    pub fn loss(
        &self,
        high: (&Tensor, &[usize]),
        low: Option<(&Tensor, &[usize])>,
        targets: &[Target],
        clip_weights: Option<&[f32]>,
    ) -> Result<MultiResolutionLoss> {
        let (logits, lengths) = high;
        let feasible: Vec<f32> = targets
            .iter()
            .zip(lengths)
            .map(|(target, &frames)| f32::from(u8::from(fits(target, frames))))
            .collect();
        let targets: Vec<Target> = targets
            .iter()
            .zip(lengths)
            .map(|(target, &frames)| shortened(target, frames))
            .collect();
        let n_tokens = targets
            .iter()
            .zip(&feasible)
            .filter(|(_, f)| **f > 0.0)
            .map(|(t, _)| t.tokens.len() + 1)
            .sum();
        let n_infeasible = feasible.iter().filter(|f| **f == 0.0).count();
        let weigh = |factor: f64| -> Vec<f32> {
            let clip = |i: usize| clip_weights.map_or(1.0, |w| w.get(i).copied().unwrap_or(0.0));
            feasible.iter().enumerate().map(|(i, f)| f * clip(i) * factor as f32).collect()
        };
        let low = low.filter(|_| self.low_weight > 0.0);
        let share = if low.is_some() { 1.0 - self.low_weight } else { 1.0 };
        let mut terms = vec![Term { targets: targets.clone(), weights: weigh(share) }];
        if self.first_token_weight > 0.0 {
            let targets = targets.iter().map(beginning).collect();
            terms.push(Term { targets, weights: weigh(self.first_token_weight) });
        }
        let (losses, each) = ctc_losses(logits, &terms, lengths, self.blank)?;
        let mut sum = losses.sum_all()?;
        if let Some((logits, lengths)) = low {
            let targets = targets
                .iter()
                .zip(lengths)
                .map(|(target, &frames)| shortened(target, frames))
                .collect();
            let term = Term { targets, weights: weigh(self.low_weight) };
            sum = (sum + ctc_losses(logits, &[term], lengths, self.blank)?.0.sum_all()?)?;
        }
        let clips = ClipLosses { losses: each[0].clone(), feasible };
        Ok(MultiResolutionLoss { sum, clips, n_tokens, n_infeasible })
    }
}

/// Sum over clips of the loss of `targets` at a tap inside the encoder, nats; a target that does
/// not fit its frames is replaced by its open-ended first token.
///
/// # Shapes
/// `logits`: `(batch, frames, vocab)` with the valid frames of each clip.
///
/// # Errors
/// If shapes disagree.
pub fn intermediate_ctc(
    (logits, lengths): (&Tensor, &[usize]),
    targets: &[Target],
    blank: u32,
) -> Result<Tensor> {
    let targets: Vec<Target> =
        targets.iter().zip(lengths).map(|(target, &frames)| shortened(target, frames)).collect();
    ctc_loss(logits, &targets, lengths, blank)?.sum_all()
}

fn fits(target: &Target, frames: usize) -> bool {
    minimum_frames(&target.tokens) <= frames
}

fn shortened(target: &Target, frames: usize) -> Target {
    if fits(target, frames) { target.clone() } else { beginning(target) }
}

/// The first token, open-ended; of an empty target the target itself.
fn beginning(target: &Target) -> Target {
    if target.tokens.is_empty() {
        return target.clone();
    }
    Target { tokens: target.tokens.iter().take(1).copied().collect(), open_ended: true }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Var};

    #[test]
    fn clips_that_cannot_be_spelt_take_no_part() -> Result<()> {
        let logits = Var::zeros((2, 2, 3), DType::F32, &Device::Cpu)?;
        let targets = [vec![1], vec![1, 2, 1]].map(|tokens| Target { tokens, open_ended: false });
        let ctc = MultiResolutionCtc { low_weight: 0.0, first_token_weight: 0.0, blank: 0 };
        let loss = ctc.loss((&logits, &[2, 2]), None, &targets, Some(&[0.5, 1.0]))?;
        assert_eq!((loss.n_tokens, loss.n_infeasible), (2, 1));
        // Uniform over three tokens: three of nine paths spell the first target.
        let clips = loss.clips.nats()?;
        assert!((clips[0].expect("a loss") - 3.0_f64.ln()).abs() < 1e-6);
        assert_eq!(clips[1], None);
        assert!((f64::from(loss.sum.to_scalar::<f32>()?) - 0.5 * 3.0_f64.ln()).abs() < 1e-6);
        let gradient = loss.sum.backward()?.get(&logits).expect("gradient").get(1)?;
        assert_eq!(gradient.abs()?.sum_all()?.to_scalar::<f32>()?, 0.0);
        Ok(())
    }

    #[test]
    fn the_first_token_counts_as_often_as_asked() -> Result<()> {
        let logits = Tensor::zeros((1, 2, 3), DType::F32, &Device::Cpu)?;
        let targets = [Target { tokens: vec![1, 2], open_ended: false }];
        let ctc = MultiResolutionCtc { low_weight: 0.0, first_token_weight: 2.0, blank: 0 };
        let loss = ctc.loss((&logits, &[2]), None, &targets, None)?;
        // One of nine paths spells both tokens; first comes 1 with 1/3 + 1/3 * 1/3.
        let want = 9.0_f64.ln() - 2.0 * (4.0_f64 / 9.0).ln();
        assert!((f64::from(loss.sum.to_scalar::<f32>()?) - want).abs() < 1e-5);
        assert!((loss.clips.nats()?[0].expect("a loss") - 9.0_f64.ln()).abs() < 1e-5);
        Ok(())
    }
}
