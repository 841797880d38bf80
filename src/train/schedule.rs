//! The learning rate over a run.

use serde::{Deserialize, Serialize};

/// Linear warm-up, then linear decay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Highest learning rate.
    pub peak: f64,
    /// Steps until the peak.
    pub warmup_steps: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// Learning rate of the last step as a share of the peak.
    pub final_share: f64,
}

impl Schedule {
    /// Learning rate of a step, counted from 1.
    #[must_use]
    pub fn at(&self, step: u64) -> f64 {
        let (step, warmup, steps) = (step as f64, self.warmup_steps as f64, self.steps as f64);
        if step <= warmup {
            return self.peak * step / warmup;
        }
        let done = ((step - warmup) / (steps - warmup).max(1.0)).min(1.0);
        self.peak * (1.0 - (1.0 - self.final_share) * done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_to_the_peak_and_falls_to_its_share() {
        let schedule = Schedule { peak: 2.0, warmup_steps: 10, steps: 110, final_share: 0.1 };
        for (step, want) in [(1, 0.2), (5, 1.0), (10, 2.0), (60, 1.1), (110, 0.2), (500, 0.2)] {
            assert!((schedule.at(step) - want).abs() < 1e-12, "step {step}");
        }
    }
}
