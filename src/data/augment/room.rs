//! Reverberation of simulated rooms.
//!
//! The direct sound and the first reflection off each wall are those of a box-shaped room
//! (image sources, Allen and Berkley 1979); what follows is sparse noise whose energy falls by
//! 60 dB in the reverberation time (velvet noise, Järveläinen and Karjalainen 2007). Sparse
//! taps make the filter cheap without a transform.

use super::Random;

/// Metres per second.
const SOUND: f64 = 343.0;
const RATE_HZ: f64 = 16_000.0;
/// Taps of the tail per second; below 1500 they would be heard one by one.
const DENSITY: f64 = 2_000.0;

/// A room with a voice and a microphone in it, as a filter of a few taps.
#[derive(Debug, Clone)]
pub(super) struct Room {
    /// Samples after the direct sound, and what the sample is multiplied by.
    taps: Vec<(usize, f32)>,
}

impl Room {
    /// A room whose sound falls by 60 dB in `rt60_s`; size and places are drawn.
    pub(super) fn draw(rt60_s: f64, random: &mut Random) -> Self {
        let size = [random.between(3.0, 10.0), random.between(3.0, 8.0), random.between(2.4, 4.0)];
        let mut place = || size.map(|length| random.between(0.5, length - 0.5));
        let (voice, microphone) = (place(), place());
        let distance = |from: [f64; 3]| {
            let squares = from.iter().zip(microphone).map(|(a, b)| (a - b).powi(2));
            squares.sum::<f64>().sqrt().max(0.3)
        };
        let volume: f64 = size.iter().product();
        let surface = 2.0 * (size[0] * size[1] + size[1] * size[2] + size[0] * size[2]);
        // Sabine: the share of energy that walls swallow.
        let absorption = (0.161 * volume / (surface * rt60_s)).min(0.99);
        let reflection = (1.0 - absorption).sqrt();
        let direct = distance(voice);
        let mut taps = vec![(0, 1.0)];
        for axis in 0..3 {
            for wall in [0.0, size[axis]] {
                let mut image = voice;
                image[axis] = 2.0 * wall - voice[axis];
                let way = distance(image);
                let delay = ((way - direct) / SOUND * RATE_HZ).round().max(0.0) as usize;
                taps.push((delay, (reflection * direct / way) as f32));
            }
        }
        // At the critical distance direct and diffuse sound are equally strong.
        let critical = 0.057 * (volume / rt60_s).sqrt();
        let energy = (direct / critical).powi(2).min(10.0);
        let first = taps[1..].iter().map(|tap| tap.0).min().unwrap_or(1).max(1);
        let spacing = RATE_HZ / DENSITY;
        let amplitude = |delay: f64| 10_f64.powf(-3.0 * delay / (rt60_s * RATE_HZ));
        let mut tail: Vec<(usize, f64)> = Vec::new();
        let mut start = first as f64;
        while start < rt60_s * RATE_HZ {
            let delay = start + random.between(0.0, spacing);
            let sign = if random.chance(0.5) { 1.0 } else { -1.0 };
            tail.push((delay as usize, sign * amplitude(delay)));
            start += spacing;
        }
        let drawn: f64 = tail.iter().map(|tap| tap.1 * tap.1).sum();
        let scale = (energy / drawn.max(1e-12)).sqrt();
        taps.extend(tail.into_iter().map(|(delay, gain)| (delay, (scale * gain) as f32)));
        Self { taps }
    }

    /// The clip as it sounds in the room: as long, as loud, the direct sound where it was.
    pub(super) fn apply(&self, waveform: &[f32]) -> Vec<f32> {
        let n = waveform.len();
        let mut heard = vec![0.0; n];
        for &(delay, gain) in self.taps.iter().filter(|tap| tap.0 < n) {
            for (y, x) in heard[delay..].iter_mut().zip(waveform) {
                *y += gain * x;
            }
        }
        let power = |x: &[f32]| x.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>();
        let scale = (power(waveform) / power(&heard).max(1e-20)).sqrt() as f32;
        heard.iter_mut().for_each(|y| *y *= scale);
        heard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_impulse_dies_away_in_the_time_asked_for() {
        for (seed, rt60_s) in [(1, 0.2), (2, 0.4), (3, 0.8)] {
            let mut impulse = vec![0.0; 24_000];
            impulse[0] = 1.0;
            let response = Room::draw(rt60_s, &mut Random::new(&[seed])).apply(&impulse);
            assert!((response.iter().map(|s| s * s).sum::<f32>() - 1.0).abs() < 1e-3, "as loud");
            assert!(response[0] > 0.0, "the direct sound stays where it was");
            // Schroeder: energy still to come; from -25 to -5 dB of the tail, times three.
            let mut left: Vec<f64> = response.iter().map(|s| f64::from(*s).powi(2)).collect();
            for i in (0..left.len() - 1).rev() {
                left[i] += left[i + 1];
            }
            // Well behind the early reflections.
            let from = 800;
            let at = |db: f64| {
                let wanted = left[from] * 10_f64.powf(db / 10.0);
                left[from..].iter().position(|e| *e < wanted).expect("falls that far") as f64
            };
            let found = 3.0 * (at(-22.0) - at(-2.0)) / RATE_HZ;
            assert!((found - rt60_s).abs() < 0.2 * rt60_s, "{found} s for {rt60_s}");
        }
    }

    #[test]
    fn rooms_differ_by_seed_alone() {
        let draw = |seed| Room::draw(0.3, &mut Random::new(&[seed])).taps;
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert!(Room::draw(0.3, &mut Random::new(&[1])).apply(&[]).is_empty());
    }
}
