//! Masked unit prediction: HuBERT (Hsu et al. 2021, arXiv 2106.07447, equation 1) and its
//! sum over resolutions in MR-HuBERT (Shi et al. 2024, arXiv 2310.02720, equation 4).

use asr_kernels::cross_entropy::cross_entropy;
use candle_core::{Result, Tensor};

/// Which label belongs to which frame: frame `t` has label `floor(t * labels_per_frame)`, so
/// that a lower frame rate keeps every second label, say (fairseq `forward_targets`).
///
/// That supposes that the first frame and the first label see the same moment, as those of
/// HuBERT and its MFCC do; where they do not, [`LabelAlignment::later`] says by how much.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LabelAlignment {
    labels_per_frame: f64,
    /// The label of frame 0, not yet rounded.
    first: f64,
}

/// `x`, or the whole number that it is but for rounding: rates such as 1000 / 40 Hz come with
/// that of their division.
fn exact(x: f64) -> f64 {
    let near = x.round();
    if (x - near).abs() < 1e-6 { near } else { x }
}

impl LabelAlignment {
    /// For labels at `label_rate_hz` and frames every `frame_s` seconds.
    #[must_use]
    pub fn new(label_rate_hz: f64, frame_s: f64) -> Self {
        Self { labels_per_frame: exact(label_rate_hz * frame_s), first: 0.0 }
    }

    /// The same where the middle of the first frame comes `labels` labels after that of the
    /// first label; the nearest label counts. A frame that begins before the labels has none.
    #[must_use]
    pub fn later(self, labels: f64) -> Self {
        let labels = exact(labels);
        // Half a label is rounded up; whole shifts leave the floor as it is.
        let rounded = if labels.fract() == 0.0 { labels } else { labels + 0.5 };
        Self { first: rounded, ..self }
    }

    /// Of `frames` frames those that `labels` labels reach: all, or as many whole frames as
    /// there are labels for.
    #[must_use]
    pub fn frames(&self, frames: usize, labels: usize) -> usize {
        let labels = labels as f64 - self.first;
        if self.labels_per_frame * frames as f64 > labels {
            (labels / self.labels_per_frame).max(0.0) as usize
        } else {
            frames
        }
    }

    /// The label of a frame, if it comes before none.
    #[must_use]
    pub fn label(&self, frame: usize) -> Option<usize> {
        let label = (frame as f64 * self.labels_per_frame + self.first).floor();
        (label >= 0.0).then_some(label as usize)
    }
}

/// The frames of a batch that a head is asked for, and what it is to answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PredictedFrames {
    /// Positions in the batch, `clip * frames + frame`.
    pub rows: Vec<u32>,
    /// The class of each.
    pub classes: Vec<u32>,
}

impl PredictedFrames {
    /// The hidden frames of a batch of `frames` frames per clip, and those that are not.
    ///
    /// `masks`, `lengths` (valid frames) and `labels` (classes) have one entry per clip;
    /// frames of padding or past the labels are in neither.
    #[must_use]
    pub fn choose(
        frames: usize,
        masks: &[Vec<bool>],
        lengths: &[usize],
        labels: &[Vec<u32>],
        alignment: LabelAlignment,
    ) -> (Self, Self) {
        let (mut hidden, mut seen) = (Self::default(), Self::default());
        let clips = masks.iter().zip(lengths).zip(labels).enumerate();
        for (clip, ((mask, &length), labels)) in clips {
            let reached = alignment.frames(frames, labels.len()).min(length).min(mask.len());
            for (frame, &masked) in mask.iter().enumerate().take(reached) {
                let label = alignment.label(frame).and_then(|label| labels.get(label));
                let Some(&class) = label else { continue };
                let to = if masked { &mut hidden } else { &mut seen };
                to.rows.push((clip * frames + frame) as u32);
                to.classes.push(class);
            }
        }
        (hidden, seen)
    }

    /// The rows of these frames: `(n, dim)` of `(batch, frames, dim)`; `None` if there is none.
    ///
    /// # Errors
    /// If `hidden` has fewer frames.
    pub fn select(&self, hidden: &Tensor) -> Result<Option<Tensor>> {
        if self.rows.is_empty() {
            return Ok(None);
        }
        let (batch, frames, dim) = hidden.dims3()?;
        let rows = Tensor::new(self.rows.as_slice(), hidden.device())?;
        hidden.reshape((batch * frames, dim))?.index_select(&rows, 0).map(Some)
    }
}

/// The cross entropy of some frames.
#[derive(Debug, Clone, Default)]
pub struct UnitLoss {
    /// Sum over frames, nats, to be differentiated; `None` of no frame.
    pub sum: Option<Tensor>,
    /// What was to be predicted.
    pub prediction: Prediction,
}

/// What was predicted of some frames, where it was computed.
#[derive(Debug, Clone, Default)]
pub struct Prediction {
    /// The class of each frame.
    pub classes: Vec<u32>,
    /// Sum of the cross entropy and the likeliest class of each frame; `None` of no frame.
    found: Option<(Tensor, Tensor)>,
}

/// [`Prediction`] in numbers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PredictionScore {
    /// Sum of the cross entropy over frames, nats.
    pub nats: f64,
    /// The likeliest class of each frame.
    pub predicted: Vec<u32>,
    /// Frames whose likeliest class is theirs.
    pub correct: usize,
}

impl Prediction {
    /// Reads the numbers; on a device, that waits for all that was asked of it.
    ///
    /// # Errors
    /// If the device fails.
    pub fn score(&self) -> Result<PredictionScore> {
        let Some((sum, likeliest)) = &self.found else { return Ok(PredictionScore::default()) };
        let predicted = likeliest.to_vec1::<u32>()?;
        let correct = predicted.iter().zip(&self.classes).filter(|(p, c)| p == c).count();
        Ok(PredictionScore { nats: f64::from(sum.to_scalar::<f32>()?), predicted, correct })
    }
}

/// The cross entropy of `classes`, one per row of `logits` `(n, classes)`.
///
/// # Errors
/// If a class has no logit or their number differs from the rows.
pub fn predict_units(logits: &Tensor, classes: &[u32]) -> Result<UnitLoss> {
    let sum = cross_entropy(logits, classes)?.sum_all()?;
    // Detached, so that it may outlive the gradient.
    let found = Some((sum.detach(), logits.detach().argmax(1)?));
    Ok(UnitLoss { sum: Some(sum), prediction: Prediction { classes: classes.to_vec(), found } })
}

/// What a head says of hidden frames and of those it could see.
#[derive(Debug, Clone, Default)]
pub struct HeadLoss {
    /// Hidden frames.
    pub masked: UnitLoss,
    /// The others; empty if they count nothing.
    pub unmasked: UnitLoss,
}

/// Weights of the parts of the loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PredictionWeights {
    /// Of hidden frames (`pred_masked_weight`).
    pub masked: f64,
    /// Of the others (`pred_nomask_weight`).
    pub unmasked: f64,
    /// Of the mean square of the convolutions' output, per predicted frame (`loss_weights`).
    pub penalty: f64,
}

impl PredictionWeights {
    /// The loss of a batch as a sum in nats, and the number of frames that it is divided by:
    /// those of the first head, the one of the highest resolution, that have a weight. Lower
    /// resolutions have fewer frames, so that their sums weigh less.
    ///
    /// # Errors
    /// If there is no head with a frame.
    pub fn total(&self, heads: &[HeadLoss], penalty: &Tensor) -> Result<(Tensor, usize)> {
        let mut sum: Option<Tensor> = None;
        for head in heads {
            for (part, weight) in [(&head.masked, self.masked), (&head.unmasked, self.unmasked)] {
                if let (Some(part), true) = (&part.sum, weight > 0.0) {
                    let part = (part * weight)?;
                    sum = Some(match sum {
                        Some(sum) => (sum + part)?,
                        None => part,
                    });
                }
            }
        }
        let counted = |part: &UnitLoss, weight: f64| {
            if weight > 0.0 { part.prediction.classes.len() } else { 0 }
        };
        let frames = heads.first().map_or(0, |head| {
            counted(&head.masked, self.masked) + counted(&head.unmasked, self.unmasked)
        });
        let Some(sum) = sum else {
            candle_core::bail!("no frame of the batch is to be predicted");
        };
        Ok(((sum + (penalty * (self.penalty * frames as f64))?)?, frames))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn labels_belong_to_frames_by_their_rates() {
        // Label rate, frame, frames, labels, frames reached, label of the last of them.
        for (rate, frame_s, frames, labels, reached, last) in [
            (50.0, 0.02, 51, 51, 51, 50),
            (50.0, 0.02, 51, 49, 49, 48),
            (100.0, 0.02, 51, 102, 51, 100),
            (100.0, 0.02, 51, 97, 48, 94),
            (50.0, 0.04, 26, 51, 25, 48),
            (50.0, 0.1, 11, 51, 10, 45),
            (25.0, 0.04, 26, 26, 26, 25),
            (1000.0 / 40.0, 0.04, 7, 7, 7, 6),
            (100.0 / 3.0, 0.03, 9, 9, 9, 8),
            (25.0, 0.02, 9, 5, 9, 4),
        ] {
            let alignment = LabelAlignment::new(rate, frame_s);
            assert_eq!(alignment.frames(frames, labels), reached, "{rate} Hz, {frame_s} s");
            assert_eq!(alignment.label(reached - 1), Some(last), "{rate} Hz, {frame_s} s");
        }
    }

    #[test]
    fn frames_take_the_label_of_their_middle() {
        // Frames of 40 ms whose middle comes 110 ms after that of the labels of 10 ms.
        let alignment = LabelAlignment::new(100.0, 0.04).later(11.0);
        assert_eq!((alignment.label(0), alignment.label(3)), (Some(11), Some(23)));
        assert_eq!((alignment.frames(10, 47), alignment.frames(10, 60)), (9, 10));
        assert_eq!(alignment.frames(10, 5), 0);
        // Labels of 20 ms, a middle between two.
        let alignment = LabelAlignment::new(50.0, 0.04).later(5.6);
        assert_eq!((alignment.label(0), alignment.label(1)), (Some(6), Some(8)));
        // Labels that begin after the first frame.
        let alignment = LabelAlignment::new(25.0, 0.04).later(-2.0);
        assert_eq!((alignment.label(1), alignment.label(2)), (None, Some(0)));
        let labels = [vec![3, 4]];
        let (hidden, _) = PredictedFrames::choose(4, &[vec![true; 4]], &[4], &labels, alignment);
        assert_eq!((hidden.rows, hidden.classes), (vec![2, 3], vec![3, 4]));
    }

    #[test]
    fn frames_of_padding_and_past_the_labels_are_left_out() {
        let masks = [vec![true, false, true, true], vec![true, true, false, false]];
        let labels = [vec![5, 6, 7], vec![8, 9, 8, 9]];
        let alignment = LabelAlignment::new(50.0, 0.02);
        let (hidden, seen) = PredictedFrames::choose(4, &masks, &[4, 3], &labels, alignment);
        assert_eq!((hidden.rows, hidden.classes), (vec![0, 2, 4, 5], vec![5, 7, 8, 9]));
        assert_eq!((seen.rows, seen.classes), (vec![1, 6], vec![6, 8]));
    }

    #[test]
    fn the_loss_is_the_weighted_sum() -> Result<()> {
        let part = |nats: f32, count| -> Result<UnitLoss> {
            let sum = Some(Tensor::new(nats, &Device::Cpu)?);
            let prediction = Prediction { classes: vec![0; count], found: None };
            Ok(UnitLoss { sum, prediction })
        };
        let heads = [
            HeadLoss { masked: part(3.0, 4)?, unmasked: part(5.0, 6)? },
            HeadLoss { masked: part(1.0, 2)?, unmasked: UnitLoss::default() },
        ];
        let penalty = Tensor::new(0.25_f32, &Device::Cpu)?;
        for (unmasked, want, frames) in [(0.0, 3.0 + 1.0 + 10.0, 4), (2.0, 14.0 + 25.0, 10)] {
            let weights = PredictionWeights { masked: 1.0, unmasked, penalty: 10.0 };
            let (sum, n) = weights.total(&heads, &penalty)?;
            assert_eq!((sum.to_scalar::<f32>()?, n), (want, frames));
        }
        let weights = PredictionWeights { masked: 1.0, unmasked: 0.0, penalty: 10.0 };
        assert!(weights.total(&[], &penalty).is_err());
        Ok(())
    }
}
