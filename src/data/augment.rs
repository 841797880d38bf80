//! What happens to a clip on its way into training, so that a model learns languages and
//! not voices, rooms or telephones.

use super::{DataError, Random};
use crate::audio::resample;
use crate::features::{Features, LogMel};
use serde::{Deserialize, Serialize};

/// Perturbations of training clips; everything off by default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augmentation {
    /// Playing speeds drawn from, e.g. `[0.9, 1.0, 1.1]` (Ko et al. 2015); pitch moves along.
    pub speeds: Vec<f64>,
    /// Largest vocal tract length warp: factors are uniform in `1 ± warp` (Jaitly and Hinton 2013).
    pub warp: f64,
    /// Probability of added noise.
    pub noise: f64,
    /// Signal-to-noise ratio of that noise, dB, uniform between the two.
    pub noise_snr_db: [f64; 2],
    /// Probability of losing what lies above a cut-off between 3 and 5 kHz, as on a telephone.
    pub band_limit: f64,
    /// Masks over the features.
    pub spec_augment: SpecAugment,
}

/// Masks over time and frequency (Park et al. 2019); masked values become 0, the mean.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpecAugment {
    /// Number of frequency masks.
    pub frequency_masks: usize,
    /// Widest frequency mask, bins.
    pub frequency_width: usize,
    /// Time masks per second of speech.
    pub time_masks_per_s: f64,
    /// Longest time mask, frames.
    pub time_width: usize,
}

impl Augmentation {
    /// Checks every range.
    ///
    /// # Errors
    /// [`DataError::Setting`] for the first setting out of range.
    pub fn validate(&self) -> Result<(), DataError> {
        let check = |ok: bool, field, expected| {
            if ok { Ok(()) } else { Err(DataError::Setting { field, expected }) }
        };
        check(self.speeds.iter().all(|s| (0.5..=2.0).contains(s)), "speeds", "between 0.5 and 2")?;
        check((0.0..=0.2).contains(&self.warp), "warp", "between 0 and 0.2")?;
        check((0.0..=1.0).contains(&self.noise), "noise", "a probability")?;
        check((0.0..=1.0).contains(&self.band_limit), "band_limit", "a probability")?;
        let [low, high] = self.noise_snr_db;
        check(
            low <= high && low >= -20.0 && high <= 100.0,
            "noise_snr_db",
            "two rising values from -20 to 100",
        )
    }

    /// Features of a perturbed waveform, not yet normalised.
    ///
    /// # Errors
    /// If the speed cannot be changed or the warp is out of range.
    pub(super) fn features(
        &self,
        mut waveform: Vec<f32>,
        log_mel: &LogMel,
        random: &mut Random,
    ) -> Result<Features, DataError> {
        if !self.speeds.is_empty() {
            let speed = self.speeds[random.below(self.speeds.len())];
            if speed != 1.0 {
                let from_hz = (16_000.0 * speed).round() as u32;
                waveform = resample(&waveform, from_hz, 16_000).map_err(DataError::Speed)?;
            }
        }
        if random.chance(self.noise) {
            let [low, high] = self.noise_snr_db;
            add_noise(&mut waveform, random.between(low, high), random);
        }
        let warp = random.between(1.0 - self.warp, 1.0 + self.warp) as f32;
        Ok(if self.warp > 0.0 {
            log_mel.compute_warped(&waveform, warp)?
        } else {
            log_mel.compute(&waveform)
        })
    }

    /// Masks normalised features in place.
    pub(super) fn mask(&self, features: &mut Features, frames_per_s: f64, random: &mut Random) {
        let (frames, bins) = (features.n_frames, features.n_bins);
        if random.chance(self.band_limit) {
            // Mel bins above 3 to 5 kHz: roughly the top third to sixth.
            let first = (random.between(0.66, 0.84) * bins as f64) as usize;
            zero(features, 0..frames, first..bins);
        }
        let masks = &self.spec_augment;
        for _ in 0..masks.frequency_masks {
            let width = random.below(masks.frequency_width.min(bins) + 1);
            let start = random.below(bins - width + 1);
            zero(features, 0..frames, start..start + width);
        }
        let count =
            (masks.time_masks_per_s * frames as f64 / frames_per_s + random.unit()) as usize;
        for _ in 0..count {
            // Never more than a fifth of a short clip.
            let width = random.below(masks.time_width.min(frames / 5) + 1);
            let start = random.below(frames - width + 1);
            zero(features, start..start + width, 0..bins);
        }
    }
}

fn zero(features: &mut Features, frames: std::ops::Range<usize>, bins: std::ops::Range<usize>) {
    let width = features.n_bins;
    for row in features.data.chunks_exact_mut(width.max(1)).take(frames.end).skip(frames.start) {
        row[bins.clone()].fill(0.0);
    }
}

/// Adds noise between white and brown at `snr_db` below the clip's mean power.
fn add_noise(waveform: &mut [f32], snr_db: f64, random: &mut Random) {
    let power =
        waveform.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / waveform.len().max(1) as f64;
    let leak = random.between(0.0, 0.98) as f32;
    let mut state = 0.0_f32;
    let noise: Vec<f32> = (0..waveform.len())
        .map(|_| {
            let bits = random.next_u64();
            // Sum of four uniform 16-bit values: near enough to a normal one.
            let sum: u32 = (0..4).map(|i| (bits >> (16 * i)) as u32 & 0xffff).sum();
            state = leak * state + (sum as f32 / 65_535.0 - 2.0);
            state
        })
        .collect();
    let noise_power =
        noise.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / noise.len().max(1) as f64;
    let scale = (power / noise_power.max(1e-12) * 10.0_f64.powf(-snr_db / 10.0)).sqrt() as f32;
    for (sample, noise) in waveform.iter_mut().zip(noise) {
        *sample += scale * noise;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_the_power_asked_for() {
        let clean: Vec<f32> = (0..16_000).map(|i| (f64::from(i) * 0.05).sin() as f32).collect();
        for snr_db in [0.0, 20.0] {
            let mut noisy = clean.clone();
            add_noise(&mut noisy, snr_db, &mut Random::new(&[3]));
            let power = |x: &[f32]| x.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>();
            let noise: Vec<f32> = noisy.iter().zip(&clean).map(|(n, c)| n - c).collect();
            let found = 10.0 * (power(&clean) / power(&noise)).log10();
            assert!((found - snr_db).abs() < 0.1, "{found} dB");
        }
    }

    #[test]
    fn masks_stay_inside_and_do_something() {
        let augmentation = Augmentation {
            band_limit: 1.0,
            spec_augment: SpecAugment {
                frequency_masks: 2,
                frequency_width: 20,
                time_masks_per_s: 3.0,
                time_width: 40,
            },
            ..Augmentation::default()
        };
        for frames in [1, 7, 300] {
            let mut features =
                Features { data: vec![1.0; frames * 80], n_frames: frames, n_bins: 80 };
            augmentation.mask(&mut features, 100.0, &mut Random::new(&[frames as u64]));
            let zeros = features.data.iter().filter(|&&v| v == 0.0).count();
            assert!(zeros > 0 && features.data.len() == frames * 80);
        }
    }
}
