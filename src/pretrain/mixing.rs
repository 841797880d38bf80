//! Another voice or noise over part of a clip whose targets stay those of the clip alone:
//! WavLM (Chen et al. 2022, section 3.3) and WavLabLM, by the rules of ESPnet's collation.

use super::PretrainError;
use crate::data::Random;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// How often and how loudly something is mixed in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mixing {
    /// Share of clips that something is mixed into.
    pub probability: f64,
    /// Share of those that get noise; the others, another clip of the batch.
    pub noise_share: f64,
    /// How far the noise lies below the clip, dB, uniform between the two.
    pub noise_snr_db: [f64; 2],
    /// The same of another voice.
    pub voice_snr_db: [f64; 2],
}

impl Mixing {
    pub(super) fn validate(&self) -> Result<(), PretrainError> {
        let check = |ok: bool, field, expected| {
            if ok { Ok(()) } else { Err(PretrainError::Setting { field, expected }) }
        };
        check((0.0..=1.0).contains(&self.probability), "mixing.probability", "between 0 and 1")?;
        check((0.0..=1.0).contains(&self.noise_share), "mixing.noise_share", "between 0 and 1")?;
        let range = |[low, high]: [f64; 2]| low <= high && low >= -100.0 && high <= 100.0;
        check(range(self.noise_snr_db), "mixing.noise_snr_db", "two rising values, -100 to 100")?;
        check(range(self.voice_snr_db), "mixing.voice_snr_db", "two rising values, -100 to 100")
    }

    /// What is mixed into clip `position` of a batch, if anything: `others` are the positions
    /// it may take a voice from.
    pub(super) fn draw(&self, others: usize, has_noise: bool, random: &mut Random) -> Option<Kind> {
        if !random.chance(self.probability) {
            return None;
        }
        let noise = random.chance(self.noise_share) || others == 0;
        let ([low, high], kind) = if noise && has_noise {
            (self.noise_snr_db, Second::Noise)
        } else if others > 0 {
            (self.voice_snr_db, Second::Voice(random.below(others)))
        } else {
            return None;
        };
        Some(Kind { second: kind, snr_db: random.between(low, high) })
    }
}

/// What is mixed in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Kind {
    pub(super) second: Second,
    pub(super) snr_db: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Second {
    Noise,
    /// Another clip of the batch, by its number among the others.
    Voice(usize),
}

/// Where the second signal is laid over the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// Samples of the first that it covers.
    pub start: usize,
    /// Samples of the second that are heard.
    pub second: Range<usize>,
}

impl Overlay {
    /// At most half of a clip of `primary` samples, anywhere; `None` if there is no room.
    #[must_use]
    pub fn draw(primary: usize, second: usize, random: &mut Random) -> Option<Self> {
        if primary < 2 || second == 0 {
            return None;
        }
        let length = (1 + random.below(primary / 2)).min(second);
        let start = random.below(primary - length + 1);
        let from = random.below(second - length + 1);
        Some(Self { start, second: from..from + length })
    }
}

/// Adds the overlaid part of `second`, its level such that the whole of `second` lies `snr_db`
/// below the voiced part of `primary`. Both are `(samples,)`; what does not fit is left out.
pub fn mix(primary: &mut [f32], second: &[f32], overlay: &Overlay, snr_db: f64) {
    let power = voiced_power(primary);
    let scale = 10.0_f64.powf(-snr_db / 20.0) * (power / mean_square(second).max(1e-10)).sqrt();
    let heard = second.get(overlay.second.clone()).unwrap_or_default();
    for (sample, other) in primary.iter_mut().skip(overlay.start).zip(heard) {
        *sample += (scale * f64::from(*other)) as f32;
    }
}

fn mean_square(samples: &[f32]) -> f64 {
    let sum: f64 = samples.iter().map(|s| f64::from(*s).powi(2)).sum();
    sum / samples.len().max(1) as f64
}

/// Samples of a block whose power decides whether it is silent.
const BLOCK: usize = 1024;
/// Samples from block to block.
const SHIFT: usize = 512;
/// Share of the mean power of the blocks up to which a block is silent.
const SILENT: f64 = 0.01;

/// Mean power where the signal is not silent (ESPnet `detect_non_silence`).
fn voiced_power(samples: &[f32]) -> f64 {
    let voiced = non_silent(samples);
    let kept = samples.iter().zip(&voiced).filter(|(_, voiced)| **voiced);
    let (sum, n) =
        kept.fold((0.0, 0_usize), |(sum, n), (s, _)| (sum + f64::from(*s).powi(2), n + 1));
    sum / n.max(1) as f64
}

/// Whether each sample belongs to a block that is not silent.
#[must_use]
pub fn non_silent(samples: &[f32]) -> Vec<bool> {
    let n = samples.len();
    if n < BLOCK {
        return vec![true; n];
    }
    let blocks = 1 + (n - BLOCK).div_ceil(SHIFT);
    let powers: Vec<f64> = (0..blocks)
        .map(|i| {
            // Zeros follow the last block, which counts as whole.
            let block = &samples[i * SHIFT..(i * SHIFT + BLOCK).min(n)];
            mean_square(block) * block.len() as f64 / BLOCK as f64
        })
        .collect();
    let mean = powers.iter().sum::<f64>() / blocks as f64;
    if mean == 0.0 {
        return vec![true; n];
    }
    // Each block decides on its first half, the last one also on what follows.
    (0..n).map(|i| powers[(i / SHIFT).min(blocks - 1)] / mean > SILENT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_signal_has_the_level_asked_for() {
        let tone = |n: usize, pitch: f32| -> Vec<f32> {
            (0..n).map(|i| (i as f32 * pitch).sin()).collect()
        };
        let (clean, second) = (tone(8000, 0.1), tone(5000, 0.37));
        for snr_db in [-5.0, 0.0, 12.0] {
            let mut mixed = clean.clone();
            let overlay = Overlay { start: 3000, second: 500..3500 };
            mix(&mut mixed, &second, &overlay, snr_db);
            let added: Vec<f32> = mixed.iter().zip(&clean).map(|(m, c)| m - c).collect();
            assert!(added[..3000].iter().chain(&added[6000..]).all(|a| *a == 0.0));
            let found = 10.0 * (mean_square(&clean) / mean_square(&added[3000..6000])).log10();
            assert!((found - snr_db).abs() < 0.1, "{found} dB");
        }
    }

    #[test]
    fn at_most_half_of_a_clip_is_covered() {
        let mut random = Random::new(&[5]);
        for (primary, second) in [(2, 1), (3, 100), (1000, 10), (1001, 5000)] {
            for _ in 0..100 {
                let overlay = Overlay::draw(primary, second, &mut random).expect("room");
                let length = overlay.second.len();
                assert!(length >= 1 && length <= primary / 2 && overlay.second.end <= second);
                assert!(overlay.start + length <= primary);
            }
        }
        assert_eq!(Overlay::draw(1, 5, &mut random), None);
        assert_eq!(Overlay::draw(5, 0, &mut random), None);
    }

    #[test]
    fn silence_does_not_count() {
        let mut samples = vec![0.0_f32; 4096];
        samples[..2048].fill(0.5);
        let voiced = non_silent(&samples);
        assert!(voiced[..2048].iter().all(|v| *v) && !voiced[2048..].iter().any(|v| *v));
        assert!(non_silent(&vec![0.0; 4096]).iter().all(|v| *v));
        assert!((voiced_power(&samples) - 0.25).abs() < 1e-9);
        mix(&mut samples, &[], &Overlay { start: 0, second: 0..5 }, 0.0);
    }
}
