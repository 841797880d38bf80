//! The learning rate over a run.

use serde::{Deserialize, Serialize};

/// Linear warm-up, a hold, then decay.
///
/// Without `hold_steps` it is fairseq's `polynomial_decay`; with them and exponential decay its
/// `tri_stage`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Highest learning rate.
    pub peak: f64,
    /// Learning rate that warm-up starts from, as a share of the peak.
    #[serde(default, skip_serializing_if = "is_default")]
    pub initial_share: f64,
    /// Steps until the peak.
    pub warmup_steps: u64,
    /// Steps at the peak after warm-up.
    #[serde(default, skip_serializing_if = "is_default")]
    pub hold_steps: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// Learning rate of the last step as a share of the peak.
    pub final_share: f64,
    /// How it falls from the peak to its last value.
    #[serde(default, skip_serializing_if = "is_default")]
    pub decay: Decay,
}

/// The way down from the peak.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum Decay {
    /// A power of the share of steps that are left; 1 is a straight line.
    Polynomial {
        /// The power, above 0.
        power: f64,
    },
    /// By the same factor each step; the last value must be above 0.
    Exponential,
}

impl Default for Decay {
    fn default() -> Self {
        Self::Polynomial { power: 1.0 }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Schedule {
    /// Learning rate of a step, counted from 1.
    #[must_use]
    pub fn at(&self, step: u64) -> f64 {
        if step <= self.warmup_steps {
            let done = step as f64 / self.warmup_steps as f64;
            return self.peak * (self.initial_share + (1.0 - self.initial_share) * done);
        }
        let top = self.warmup_steps.saturating_add(self.hold_steps);
        let falling = self.steps.saturating_sub(top).max(1) as f64;
        let done = (step.saturating_sub(top) as f64 / falling).min(1.0);
        self.peak
            * match self.decay {
                Decay::Polynomial { power } => {
                    self.final_share + (1.0 - self.final_share) * (1.0 - done).powf(power)
                }
                Decay::Exponential => self.final_share.powf(done),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINEAR: Schedule = Schedule {
        peak: 2.0,
        initial_share: 0.0,
        warmup_steps: 10,
        hold_steps: 0,
        steps: 110,
        final_share: 0.1,
        decay: Decay::Polynomial { power: 1.0 },
    };

    fn assert_rates(schedule: &Schedule, rates: &[(u64, f64)]) {
        for &(step, want) in rates {
            let found = schedule.at(step);
            assert!((found - want).abs() < 1e-12, "step {step}: {found}, not {want}");
        }
    }

    #[test]
    fn rises_to_the_peak_and_falls_to_its_share() {
        let rates = [(1, 0.2), (5, 1.0), (10, 2.0), (60, 1.1), (110, 0.2), (500, 0.2)];
        assert_rates(&LINEAR, &rates);
    }

    #[test]
    fn polynomials_of_higher_power_fall_faster() {
        let schedule = Schedule { decay: Decay::Polynomial { power: 2.0 }, ..LINEAR };
        assert_rates(&schedule, &[(10, 2.0), (60, 0.2 + 1.8 * 0.25), (110, 0.2)]);
    }

    /// fairseq's `tri_stage` with `init_lr_scale` 0.05 and `final_lr_scale` 0.01.
    #[test]
    fn three_stages_rise_hold_and_fall() {
        let schedule = Schedule {
            initial_share: 0.05,
            hold_steps: 40,
            final_share: 0.01,
            decay: Decay::Exponential,
            ..LINEAR
        };
        let rates =
            [(5, 1.05), (10, 2.0), (11, 2.0), (50, 2.0), (80, 0.2), (110, 0.02), (500, 0.02)];
        assert_rates(&schedule, &rates);
    }

    #[test]
    fn what_is_left_out_is_a_straight_line() {
        let short = "peak = 2.0\nwarmup_steps = 10\nsteps = 110\nfinal_share = 0.1\n";
        let schedule: Schedule = toml::from_str(short).expect("a schedule");
        assert_eq!(schedule, LINEAR);
        assert_eq!(toml::to_string(&schedule).expect("written"), short);
        let long = format!("{short}hold_steps = 3\ndecay = {{ kind = 'exponential' }}\n");
        let schedule: Schedule = toml::from_str(&long).expect("a schedule");
        assert_eq!((schedule.hold_steps, schedule.decay), (3, Decay::Exponential));
    }
}
