//! Masked prediction as the training loop sees it, and how well a model does on what was held
//! out.

use super::batch::UnitBatch;
use super::objective::{Head, ObjectiveConfig};
use crate::model::{MaskedEncoder, Pass, Sequence};
use crate::objective::{HeadLoss, PredictedFrames, Prediction, UnitLoss, predict_units};
use crate::train::{BatchLoss, Mean, Task, Told, TrainError};
use candle_core::{Device, Result, Tensor};
use serde_json::{Map, Value, json};

/// A model that learns to predict units.
#[derive(Debug)]
pub(super) struct MaskedPrediction<'a> {
    pub(super) model: &'a MaskedEncoder,
    pub(super) objective: &'a ObjectiveConfig,
    pub(super) heads: &'a [Head],
    /// Name of each head in the log, such as `40ms`.
    pub(super) names: &'a [String],
}

/// What a model says of a batch.
pub(super) struct Answer {
    /// What each head says of hidden frames.
    heads: Vec<Prediction>,
    /// Sum, to be differentiated.
    total: Tensor,
    frames: usize,
    penalty: Tensor,
}

impl MaskedPrediction<'_> {
    pub(super) fn answer(&self, batch: &UnitBatch, pass: &Pass) -> Result<Answer> {
        let (clips, steps, _) = batch.shape;
        let input = Sequence {
            hidden: Tensor::from_slice(&batch.input, batch.shape, &Device::Cpu)?,
            lengths: vec![steps; clips],
        };
        let encoder = self.model.encoder().config();
        let frames = batch.masks.first().map_or(0, Vec::len);
        let labels = |head: &Head| batch.units[head.set].first().map_or(0, Vec::len);
        // HuBERT cuts frames to what labels reach before it encodes them, MR-HuBERT after.
        let keep = encoder.rate_ratios.is_empty().then(|| {
            let reached = self.heads.iter().map(|head| head.alignment.frames(frames, labels(head)));
            reached.min().unwrap_or(frames).max(1)
        });
        let output = self.model.forward(&input, &batch.masks, keep, pass)?;
        let kept = keep.unwrap_or(frames);
        let trips: Vec<Vec<Vec<bool>>> =
            batch.masks.iter().map(|mask| encoder.masks(&mask[..kept])).collect();
        let special = self.objective.special_classes as u32;
        let mut heads = Vec::new();
        for (i, head) in self.heads.iter().enumerate() {
            let resolution = &output.resolutions[head.resolution];
            let masks: Vec<Vec<bool>> =
                trips.iter().map(|trip| trip[head.resolution].clone()).collect();
            let (hidden, seen) = PredictedFrames::choose(
                resolution.frames()?,
                &masks,
                &resolution.lengths,
                &batch.units[head.set],
                head.alignment,
            );
            let loss = |chosen: &PredictedFrames| -> Result<UnitLoss> {
                let Some(rows) = chosen.select(&resolution.hidden)? else {
                    return Ok(UnitLoss::default());
                };
                let classes: Vec<u32> = chosen.classes.iter().map(|unit| special + unit).collect();
                predict_units(&self.model.heads().logits(i, &rows, pass)?, &classes)
            };
            let unmasked = if self.objective.unmasked_weight > 0.0 {
                loss(&seen)?
            } else {
                UnitLoss::default()
            };
            heads.push(HeadLoss { masked: loss(&hidden)?, unmasked });
        }
        let (total, frames) = self.objective.weights().total(&heads, &output.penalty)?;
        let heads = heads.into_iter().map(|head| head.masked.prediction).collect();
        Ok(Answer { heads, total, frames, penalty: output.penalty.detach() })
    }
}

impl Task for MaskedPrediction<'_> {
    type Batch = UnitBatch;
    type Note = ();

    fn loss(
        &self,
        batch: &UnitBatch,
        pass: &Pass,
    ) -> std::result::Result<BatchLoss<()>, TrainError> {
        let Answer { heads, total, frames, penalty } = self.answer(batch, pass)?;
        let (sum, audio_s, names) = (total.detach(), batch.audio_s, self.names.to_vec());
        Ok(BatchLoss::new(total, frames, move || {
            let penalty = f64::from(penalty.to_scalar::<f32>()?);
            let mut means = vec![Mean { name: "penalty".to_owned(), sum: penalty, count: 1 }];
            for (head, name) in heads.iter().zip(names) {
                let (score, count) = (head.score()?, head.classes.len());
                let mean = |what: &str, sum| Mean { name: format!("{what}.{name}"), sum, count };
                means.push(mean("loss", score.nats));
                means.push(mean("accuracy", score.correct as f64));
            }
            let nats = f64::from(sum.to_scalar::<f32>()?);
            Ok(Told { nats, audio_s, counts: Vec::new(), means, note: () })
        }))
    }

    fn may_lack_gradient(&self, name: &str) -> bool {
        self.model.encoder().config().may_skip(name)
    }
}

/// Sums over what was held out.
#[derive(Debug, Default, Clone)]
struct HeadScore {
    nats: f64,
    correct: usize,
    count: usize,
    /// How often each class was predicted, and how often it was right.
    predicted: Vec<u64>,
    labels: Vec<u64>,
}

/// How well held-out units are predicted, head by head.
#[derive(Debug, Clone)]
pub struct PredictionScores {
    names: Vec<String>,
    heads: Vec<HeadScore>,
    loss: f64,
    frames: usize,
}

impl PredictionScores {
    pub(super) fn new(names: &[String]) -> Self {
        let heads = vec![HeadScore::default(); names.len()];
        Self { names: names.to_vec(), heads, loss: 0.0, frames: 0 }
    }

    pub(super) fn add(&mut self, answer: &Answer) -> Result<()> {
        self.loss += f64::from(answer.total.to_scalar::<f32>()?);
        self.frames += answer.frames;
        for (score, head) in self.heads.iter_mut().zip(&answer.heads) {
            let found = head.score()?;
            score.nats += found.nats;
            score.correct += found.correct;
            score.count += head.classes.len();
            count_into(&mut score.predicted, &found.predicted);
            count_into(&mut score.labels, &head.classes);
        }
        Ok(())
    }

    /// Loss per predicted frame, nats, all parts together.
    #[must_use]
    pub fn loss(&self) -> f64 {
        self.loss / self.frames.max(1) as f64
    }

    /// Of each head its name, its loss per hidden frame in nats and the share of hidden frames
    /// whose unit is found.
    pub fn heads(&self) -> impl Iterator<Item = (&str, f64, f64)> {
        self.names.iter().zip(&self.heads).map(|(name, head)| {
            let n = head.count.max(1) as f64;
            (name.as_str(), head.nats / n, head.correct as f64 / n)
        })
    }

    pub(super) fn to_json(&self) -> Value {
        let mut heads = Map::new();
        for ((name, loss, accuracy), head) in self.heads().zip(&self.heads) {
            let value = json!({
                "loss": loss,
                "accuracy": accuracy,
                "frames": head.count,
                "perplexity_predicted": perplexity(&head.predicted),
                "perplexity_labels": perplexity(&head.labels),
            });
            heads.insert(name.to_owned(), value);
        }
        json!({ "loss": self.loss(), "heads": heads })
    }
}

fn count_into(counts: &mut Vec<u64>, classes: &[u32]) {
    for &class in classes {
        let class = class as usize;
        if class >= counts.len() {
            counts.resize(class + 1, 0);
        }
        counts[class] += 1;
    }
}

/// Exponential of the entropy of a distribution: how many classes are in use, as it were.
fn perplexity(counts: &[u64]) -> f64 {
    let total: u64 = counts.iter().sum();
    let entropy: f64 = counts
        .iter()
        .filter(|count| **count > 0)
        .map(|&count| {
            let p = count as f64 / total as f64;
            -p * p.ln()
        })
        .sum();
    entropy.exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn perplexity_counts_classes_in_use() {
        assert!((perplexity(&[3, 3, 0, 3]) - 3.0).abs() < 1e-9);
        assert!((perplexity(&[9]) - 1.0).abs() < 1e-9);
        assert!((perplexity(&[]) - 1.0).abs() < 1e-9);
        let mut counts = Vec::new();
        count_into(&mut counts, &[2, 0, 2]);
        assert_eq!(counts, [1, 0, 2]);
    }
}
