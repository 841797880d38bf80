//! Where a clip begins and ends.

use crate::data::Random;

/// Samples over which loudness is measured, at 16 kHz.
const FRAME: usize = 160;
/// Frames this far below the loudest one may be a pause, dB.
const PAUSE_DB: f64 = 40.0;
/// What stays of a pause before and after the voice, in samples: consonants begin softly.
const KEPT: usize = 1_600;
const RATE: f64 = 16_000.0;
/// Loudness of silence that is not digital, dB of full scale.
const SILENCE_DB: [f64; 2] = [-80.0, -50.0];

/// The clip with a random share of the pauses at its ends, and up to `longest_s` of silence put
/// before and after: half of the time digital silence, else white noise.
pub(super) fn redraw_edges(waveform: &[f32], longest_s: f64, random: &mut Random) -> Vec<f32> {
    let (first, last) = voice(waveform);
    let start = random.below(first.saturating_sub(KEPT) + 1);
    let end = (last + KEPT).min(waveform.len());
    let end = end + random.below(waveform.len() - end + 1);
    let mut clip = Vec::new();
    silence(&mut clip, longest_s, random);
    clip.extend_from_slice(&waveform[start..end]);
    silence(&mut clip, longest_s, random);
    clip
}

/// From where to where a clip is loud enough for a voice; all of it if it is equally loud.
fn voice(waveform: &[f32]) -> (usize, usize) {
    let energy: Vec<f64> = waveform
        .chunks(FRAME)
        .map(|frame| frame.iter().map(|s| f64::from(*s).powi(2)).sum())
        .collect();
    let limit = energy.iter().copied().fold(0.0, f64::max) * 10.0_f64.powf(-PAUSE_DB / 10.0);
    let loud = |e: &f64| *e > limit;
    match (energy.iter().position(loud), energy.iter().rposition(loud)) {
        (Some(first), Some(last)) => (first * FRAME, ((last + 1) * FRAME).min(waveform.len())),
        _ => (0, waveform.len()),
    }
}

fn silence(clip: &mut Vec<f32>, longest_s: f64, random: &mut Random) {
    let n = random.below((longest_s * RATE) as usize + 1);
    if random.chance(0.5) {
        clip.resize(clip.len() + n, 0.0);
    } else {
        let [low, high] = SILENCE_DB;
        // White noise between -a and a has the power a^2 / 3.
        let amplitude = (3.0 * 10.0_f64.powf(random.between(low, high) / 10.0)).sqrt();
        clip.extend((0..n).map(|_| (amplitude * (2.0 * random.unit() - 1.0)) as f32));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Half a second of voice between pauses of a second and of two.
    fn clip() -> Vec<f32> {
        let voice = (0..8_000).map(|i| (i as f32 * 0.05).sin());
        let pause = |n: usize| (0..n).map(|i| 1e-4 * (i as f32 * 0.7).sin());
        pause(16_000).chain(voice).chain(pause(32_000)).collect()
    }

    #[test]
    fn pauses_vary_and_the_voice_stays() {
        let clip = clip();
        assert_eq!(voice(&clip), (16_000, 24_000));
        let mut lengths = Vec::new();
        for seed in 0..50 {
            let heard = redraw_edges(&clip, 0.5, &mut Random::new(&[seed]));
            let first = heard.windows(8_000).position(|part| part == &clip[16_000..24_000]);
            let first = first.expect("the voice as it was");
            assert!((KEPT..=16_000 + 8_000).contains(&first), "{first}");
            let after = heard.len() - first - 8_000;
            assert!((KEPT..=32_000 + 8_000).contains(&after), "{after}");
            lengths.push(heard.len());
        }
        lengths.sort_unstable();
        assert!(lengths[45] > lengths[5] + 16_000, "{lengths:?}");
    }

    #[test]
    fn silence_and_nothing_are_no_trouble() {
        for n in [0, 1, 159, 5_000] {
            let heard = redraw_edges(&vec![0.0; n], 0.1, &mut Random::new(&[3]));
            assert!((n..=n + 3_200).contains(&heard.len()), "{n}: {}", heard.len());
        }
        let heard = redraw_edges(&[0.5; 4_000], 0.0, &mut Random::new(&[3]));
        assert_eq!(heard, [0.5; 4_000]);
    }
}
