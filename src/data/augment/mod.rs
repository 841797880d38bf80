//! What happens to a clip on its way into training, so that a model learns languages and
//! not voices, rooms or telephones.

mod edges;
mod room;

use super::{DataError, Random};
use crate::audio::{mu_law_round_trip, opus_round_trip, resample};
use crate::features::{Features, InputFeatures};
use edges::redraw_edges;
use room::Room;
use serde::{Deserialize, Serialize};

/// Perturbations of training clips; everything off by default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augmentation {
    /// Playing speeds drawn from, e.g. `[0.9, 1.0, 1.1]` (Ko et al. 2015); pitch moves along.
    pub speeds: Vec<f64>,
    /// Largest vocal tract length warp: factors are uniform in `1 ± warp` (Jaitly and Hinton 2013).
    pub warp: f64,
    /// Probability that less of the pauses before and after the voice is left, and that silence is
    /// put there: so a model does not mind how close to a voice a clip begins and ends.
    pub edges: f64,
    /// Longest such silence, seconds.
    pub edge_s: f64,
    /// Probability of added noise.
    pub noise: f64,
    /// Signal-to-noise ratio of that noise, dB, uniform between the two.
    pub noise_snr_db: [f64; 2],
    /// Probability of being said in a room.
    pub reverb: f64,
    /// Time in which the sound of that room falls by 60 dB, seconds, uniform between the two.
    pub reverb_rt60_s: [f64; 2],
    /// Probability of another clip in the background.
    pub mix: f64,
    /// How far the clip lies above that other one, dB, uniform between the two.
    pub mix_snr_db: [f64; 2],
    /// Probability of going through one of `codecs`.
    pub codec: f64,
    /// Codecs drawn from.
    pub codecs: Vec<Codec>,
    /// Probability of losing what lies above a cut-off between 3 and 5 kHz, as on a telephone.
    pub band_limit: f64,
    /// Masks over the features.
    pub spec_augment: SpecAugment,
}

/// What encodes a clip and decodes it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Codec {
    /// A telephone line: 8 kHz, eight bits of µ-law (G.711).
    MuLaw,
    /// Opus at 6 to 24 kb/s, as chats use it.
    Opus,
}

impl Codec {
    fn apply(self, waveform: &[f32], random: &mut Random) -> Result<Vec<f32>, DataError> {
        let heard = match self {
            Self::MuLaw => mu_law_round_trip(waveform),
            Self::Opus => opus_round_trip(waveform, random.between(6_000.0, 24_000.0) as u32),
        };
        heard.map_err(DataError::Codec)
    }
}

/// A disturbance of a whole corpus, to see what a model makes of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Disturbance {
    /// Noise this far below each clip, dB.
    Noise(f64),
    /// A codec.
    Codec(Codec),
    /// Rooms with this reverberation time, seconds.
    Room(f64),
}

impl Disturbance {
    /// The clip as it then sounds.
    ///
    /// # Errors
    /// If a codec fails.
    pub fn apply(self, waveform: &[f32], random: &mut Random) -> Result<Vec<f32>, DataError> {
        match self {
            Self::Noise(snr_db) => {
                let mut noisy = waveform.to_vec();
                add_noise(&mut noisy, snr_db, random);
                Ok(noisy)
            }
            Self::Codec(codec) => codec.apply(waveform, random),
            Self::Room(rt60_s) => Ok(Room::draw(rt60_s, random).apply(waveform)),
        }
    }
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
        check((0.0..=1.0).contains(&self.edges), "edges", "a probability")?;
        check((0.0..=10.0).contains(&self.edge_s), "edge_s", "between 0 and 10")?;
        check((0.0..=1.0).contains(&self.noise), "noise", "a probability")?;
        check((0.0..=1.0).contains(&self.band_limit), "band_limit", "a probability")?;
        check((0.0..=1.0).contains(&self.reverb), "reverb", "a probability")?;
        check((0.0..=1.0).contains(&self.mix), "mix", "a probability")?;
        check((0.0..=1.0).contains(&self.codec), "codec", "a probability")?;
        check(
            self.codec == 0.0 || !self.codecs.is_empty(),
            "codecs",
            "some of `mu_law` and `opus`, where `codec` is above 0",
        )?;
        for ([low, high], field) in
            [(self.noise_snr_db, "noise_snr_db"), (self.mix_snr_db, "mix_snr_db")]
        {
            check(
                low <= high && low >= -20.0 && high <= 100.0,
                field,
                "two rising values from -20 to 100",
            )?;
        }
        let [low, high] = self.reverb_rt60_s;
        check(
            self.reverb == 0.0 || (0.05..=high).contains(&low) && high <= 3.0,
            "reverb_rt60_s",
            "two rising values from 0.05 to 3",
        )
    }

    /// The first setting that is on, if any is.
    #[must_use]
    pub fn any(&self) -> Option<&'static str> {
        let of_waveforms = [
            (self.speeds.iter().any(|&speed| speed != 1.0), "speeds"),
            (self.edges > 0.0, "edges"),
            (self.noise > 0.0, "noise"),
            (self.reverb > 0.0, "reverb"),
            (self.mix > 0.0, "mix"),
            (self.codec > 0.0, "codec"),
        ];
        let on = of_waveforms.into_iter().find(|(on, _)| *on).map(|(_, setting)| setting);
        on.or_else(|| self.of_features())
    }

    /// The first setting that is on and changes features, not the waveform.
    #[must_use]
    pub fn of_features(&self) -> Option<&'static str> {
        let masks =
            self.spec_augment.frequency_masks > 0 || self.spec_augment.time_masks_per_s > 0.0;
        let settings = [
            (self.warp > 0.0, "warp"),
            (self.band_limit > 0.0, "band_limit"),
            (masks, "spec_augment"),
        ];
        settings.into_iter().find(|(on, _)| *on).map(|(_, setting)| setting)
    }

    /// What the model reads of a perturbed waveform.
    ///
    /// # Errors
    /// If the speed cannot be changed, a codec fails or the warp is out of range.
    pub(super) fn features(
        &self,
        mut waveform: Vec<f32>,
        other: impl FnOnce(&mut Random) -> Result<Vec<f32>, DataError>,
        input: &InputFeatures,
        random: &mut Random,
    ) -> Result<Features, DataError> {
        if !self.speeds.is_empty() {
            let speed = self.speeds[random.below(self.speeds.len())];
            if speed != 1.0 {
                let from_hz = (16_000.0 * speed).round() as u32;
                waveform = resample(&waveform, from_hz, 16_000).map_err(DataError::Speed)?;
            }
        }
        // What is off draws nothing: runs from before there was such a setting stay the same.
        if self.edges > 0.0 && random.chance(self.edges) {
            waveform = redraw_edges(&waveform, self.edge_s, random);
        }
        let mut drawn = |p: f64| p > 0.0 && random.chance(p);
        let (in_room, mixed, coded) = (drawn(self.reverb), drawn(self.mix), drawn(self.codec));
        if in_room {
            let [low, high] = self.reverb_rt60_s;
            waveform = Room::draw(random.between(low, high), random).apply(&waveform);
        }
        if mixed {
            let [low, high] = self.mix_snr_db;
            let snr_db = random.between(low, high);
            let start = random.unit();
            add_clip(&mut waveform, &other(random)?, start, snr_db);
        }
        if random.chance(self.noise) {
            let [low, high] = self.noise_snr_db;
            add_noise(&mut waveform, random.between(low, high), random);
        }
        if coded {
            let codec = self.codecs.get(random.below(self.codecs.len())).copied();
            if let Some(codec) = codec {
                waveform = codec.apply(&waveform, random)?;
            }
        }
        let warp = random.between(1.0 - self.warp, 1.0 + self.warp) as f32;
        Ok(if self.warp > 0.0 {
            input.compute_warped(&waveform, warp)?
        } else {
            input.compute(&waveform)
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

/// Adds `other`, from the share `start` of it on and again and again, at `snr_db` below the
/// clip's mean power.
fn add_clip(waveform: &mut [f32], other: &[f32], start: f64, snr_db: f64) {
    let mean =
        |x: &[f32]| x.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / x.len().max(1) as f64;
    let scale = (mean(waveform) / mean(other).max(1e-12) * 10.0_f64.powf(-snr_db / 10.0)).sqrt();
    let first = (start * other.len() as f64) as usize;
    for (sample, s) in waveform.iter_mut().zip(other.iter().cycle().skip(first)) {
        *sample += scale as f32 * s;
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
    fn a_clip_in_the_background_has_the_level_asked_for() {
        let tone = |step: f64, n: u32| -> Vec<f32> {
            (0..n).map(|i| (f64::from(i) * step).sin() as f32).collect()
        };
        let (clean, other) = (tone(0.05, 16_000), tone(0.3, 6_000));
        let mut mixed = clean.clone();
        add_clip(&mut mixed, &other, 0.5, 12.0);
        let power = |x: &[f32]| x.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>();
        let added: Vec<f32> = mixed.iter().zip(&clean).map(|(m, c)| m - c).collect();
        let found = 10.0 * (power(&clean) / power(&added)).log10();
        assert!((found - 12.0).abs() < 0.1, "{found} dB");
        // It begins in the middle of the other clip and comes round again.
        let ratio = added[1] / other[3_001];
        assert!((added[3_001] - ratio * other[1]).abs() < 1e-5);
        let mut alone = clean.clone();
        add_clip(&mut alone, &[], 0.5, 12.0);
        assert_eq!(alone, clean);
    }

    #[test]
    fn what_is_new_and_off_changes_nothing_and_what_is_on_is_seeded() -> Result<(), DataError> {
        let input =
            InputFeatures::new(&crate::features::EncoderInput::Waveform(Default::default()))?;
        let clip: Vec<f32> = (0..8_000).map(|i| (i as f32 * 0.03).sin()).collect();
        let heard = |augmentation: &Augmentation, seed| -> Result<Vec<f32>, DataError> {
            augmentation.validate()?;
            let mut random = Random::new(&[seed]);
            let other = |random: &mut Random| Ok(vec![random.unit() as f32; 99]);
            Ok(augmentation.features(clip.clone(), other, &input, &mut random)?.data)
        };
        let noise =
            Augmentation { noise: 1.0, noise_snr_db: [5.0, 10.0], ..Augmentation::default() };
        let mut by_hand = clip.clone();
        let mut random = Random::new(&[4]);
        assert!(random.chance(1.0));
        add_noise(&mut by_hand, random.between(5.0, 10.0), &mut random);
        assert_eq!(heard(&noise, 4)?, by_hand);
        let all = Augmentation {
            reverb: 0.7,
            reverb_rt60_s: [0.1, 0.5],
            mix: 0.7,
            mix_snr_db: [5.0, 20.0],
            codec: 0.7,
            codecs: vec![Codec::MuLaw, Codec::Opus],
            edges: 0.7,
            edge_s: 0.5,
            ..noise
        };
        assert_eq!(heard(&all, 5)?, heard(&all, 5)?);
        assert_ne!(heard(&all, 5)?, heard(&all, 6)?);
        let no_codec = Augmentation { codec: 0.5, ..Augmentation::default() };
        assert!(no_codec.validate().is_err());
        Ok(())
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
