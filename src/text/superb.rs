//! SUPERB_s: one number for a model from its ML-SUPERB 1.0 results, relative to a pool of models.

/// Results of one model in one training budget, in percent as published.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SuperbResults {
    /// Monolingual recognition: error rate.
    pub monolingual: f64,
    /// Multilingual recognition, trained languages: error rate.
    pub multilingual: f64,
    /// Multilingual recognition, few-shot languages: error rate.
    pub multilingual_few_shot: f64,
    /// Language identification: accuracy.
    pub lid: f64,
    /// Joint task: identification accuracy.
    pub joint_lid: f64,
    /// Joint task, trained languages: error rate.
    pub joint: f64,
    /// Joint task, few-shot languages: error rate.
    pub joint_few_shot: f64,
}

impl SuperbResults {
    /// From the seven published columns, in the order of the fields.
    pub const fn from_columns(columns: [f64; 7]) -> Self {
        let [
            monolingual,
            multilingual,
            multilingual_few_shot,
            lid,
            joint_lid,
            joint,
            joint_few_shot,
        ] = columns;
        Self {
            monolingual,
            multilingual,
            multilingual_few_shot,
            lid,
            joint_lid,
            joint,
            joint_few_shot,
        }
    }

    /// The metrics grouped by task; each task weighs the same, and each metric within it.
    fn tasks(&self) -> [Vec<Metric>; 4] {
        use Metric::{Accuracy, ErrorRate};
        [
            vec![ErrorRate(self.monolingual)],
            vec![ErrorRate(self.multilingual), ErrorRate(self.multilingual_few_shot)],
            vec![Accuracy(self.lid)],
            vec![Accuracy(self.joint_lid), ErrorRate(self.joint), ErrorRate(self.joint_few_shot)],
        ]
    }
}

#[derive(Clone, Copy)]
enum Metric {
    ErrorRate(f64),
    Accuracy(f64),
}

impl Metric {
    fn value(self) -> f64 {
        match self {
            Self::ErrorRate(value) | Self::Accuracy(value) => value,
        }
    }

    /// The better of two values of the same metric.
    fn better(self, other: Self) -> Self {
        match self {
            Self::ErrorRate(value) => Self::ErrorRate(value.min(other.value())),
            Self::Accuracy(value) => Self::Accuracy(value.max(other.value())),
        }
    }
}

/// SUPERB_s of `model`: 0 for `baseline` (log-mel filter banks), 1000 for the best of `pool` in every metric.
///
/// `(1000 / 4)` times the sum over the four tasks of the mean over their metrics of
/// `(s - s_baseline) / (s_best - s_baseline)`, where best is per metric over `pool` (`compute_superb_score.py` of
/// mHuBERT-147). Scores compare only within one pool: name it beside the number. Unrounded; published to 0.1.
///
/// `None` where no model of the pool differs from the baseline in some metric.
///
/// # Example
/// ```
/// use asr::text::{SuperbResults, superb_score};
///
/// let fbank = SuperbResults::from_columns([72.1, 62.4, 58.3, 11.1, 35.9, 62.0, 58.9]);
/// let best = SuperbResults::from_columns([33.3, 21.3, 30.2, 85.3, 81.4, 26.0, 25.4]);
/// let mms_1b = SuperbResults::from_columns([33.3, 21.3, 30.2, 84.8, 73.3, 26.0, 25.4]);
/// let score = superb_score(&mms_1b, &fbank, &[fbank, best]).expect("best differs from baseline");
/// assert!((score - 983.5).abs() < 0.05);
/// ```
pub fn superb_score(
    model: &SuperbResults,
    baseline: &SuperbResults,
    pool: &[SuperbResults],
) -> Option<f64> {
    let mut best = baseline.tasks();
    for (index, other) in pool.iter().enumerate() {
        for (best_task, task) in best.iter_mut().zip(other.tasks()) {
            for (best_metric, metric) in best_task.iter_mut().zip(task) {
                *best_metric = if index == 0 { metric } else { best_metric.better(metric) };
            }
        }
    }
    let (tasks, floors) = (model.tasks(), baseline.tasks());
    let mut sum = 0.0;
    for ((task, floor), best) in tasks.iter().zip(&floors).zip(&best) {
        let mut mean = 0.0;
        for ((s, floor), best) in task.iter().zip(floor).zip(best) {
            let range = best.value() - floor.value();
            if range == 0.0 || !range.is_finite() {
                return None;
            }
            mean += (s.value() - floor.value()) / range / task.len() as f64;
        }
        sum += mean;
    }
    Some(1000.0 / tasks.len() as f64 * sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn baseline_best_and_half_way() {
        let baseline = SuperbResults::from_columns([80.0, 60.0, 60.0, 10.0, 20.0, 60.0, 60.0]);
        let best = SuperbResults::from_columns([40.0, 20.0, 40.0, 90.0, 80.0, 20.0, 20.0]);
        let pool = [baseline, best];
        assert_eq!(superb_score(&baseline, &baseline, &pool), Some(0.0));
        assert!((superb_score(&best, &baseline, &pool).expect("range") - 1000.0).abs() < 1e-9);
        // monolingual half way (0.5 of one task), joint few-shot half way (0.5 of a third of one task)
        let half = SuperbResults { monolingual: 60.0, joint_few_shot: 40.0, ..baseline };
        let want = 250.0 * (0.5 + 0.5 / 3.0);
        assert!((superb_score(&half, &baseline, &pool).expect("range") - want).abs() < 1e-9);
        assert_eq!(superb_score(&best, &baseline, &[]), None);
    }
}
