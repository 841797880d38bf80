//! Triangular filter banks on the mel scale, optionally with a warped frequency axis.

use super::FeatureError;

/// Smallest vocal tract warp factor.
pub const MIN_WARP: f32 = 0.5;
/// Largest vocal tract warp factor.
pub const MAX_WARP: f32 = 2.0;
/// Warp factors are rounded to this many steps per unit, so that their filter banks can be kept.
const WARP_STEPS_PER_UNIT: f32 = 100.0;
/// Number of distinct rounded warp factors.
pub(super) const N_WARPS: usize = ((MAX_WARP - MIN_WARP) * WARP_STEPS_PER_UNIT) as usize + 1;
/// Where the warp stops being proportional, as a fraction of the Nyquist frequency:
/// 4800 Hz at 16 kHz (Jaitly and Hinton 2013, section 3).
const WARP_BREAK: f64 = 0.6;

/// Position of `warp` among the rounded factors.
///
/// # Errors
/// [`FeatureError::Warp`] outside [`MIN_WARP`]`..=`[`MAX_WARP`].
pub(super) fn warp_step(warp: f32) -> Result<usize, FeatureError> {
    if !(MIN_WARP..=MAX_WARP).contains(&warp) {
        return Err(FeatureError::Warp { found: warp });
    }
    Ok(((warp - MIN_WARP) * WARP_STEPS_PER_UNIT).round() as usize)
}

/// The factor that stands at `step`; exactly 1 for an unwarped axis.
pub(super) fn warp_at(step: usize) -> f64 {
    f64::from(MIN_WARP) + step as f64 / f64::from(WARP_STEPS_PER_UNIT)
}

/// mel(f) = 1127 ln(1 + f / 700).
pub(super) fn mel_of_hz(hz: f64) -> f64 {
    1127.0 * (1.0 + hz / 700.0).ln()
}

fn hz_of_mel(mel: f64) -> f64 {
    700.0 * ((mel / 1127.0).exp() - 1.0)
}

/// Piecewise-linear warp of a frequency (Jaitly and Hinton 2013, equation 1): proportional up to the break,
/// then a straight line that reaches the Nyquist frequency unchanged.
pub(super) fn warp_hz(hz: f64, warp: f64, nyquist_hz: f64) -> f64 {
    let top = WARP_BREAK * nyquist_hz * warp.min(1.0);
    if hz <= top / warp {
        return hz * warp;
    }
    nyquist_hz - (nyquist_hz - top) / (nyquist_hz - top / warp) * (nyquist_hz - hz)
}

/// The shape of a filter bank.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct MelShape {
    pub(super) n_mels: usize,
    pub(super) n_fft: usize,
    pub(super) sample_rate_hz: f64,
    pub(super) low_hz: f64,
    pub(super) high_hz: f64,
}

/// Triangular filters, each stored as its run of nonzero weights.
#[derive(Debug, Clone)]
pub(super) struct MelBank {
    weights: Vec<f32>,
    /// First spectrum bin of each filter and the end of its weights in `weights`.
    filters: Vec<(usize, usize)>,
}

impl MelBank {
    /// Builds the bank; triangles are linear in mel (Kaldi feat/mel-computations.cc).
    pub(super) fn new(shape: MelShape, warp: f64) -> Self {
        let nyquist_hz = shape.sample_rate_hz / 2.0;
        let low = mel_of_hz(shape.low_hz);
        let step = (mel_of_hz(shape.high_hz) - low) / (shape.n_mels + 1) as f64;
        let edge = |index: usize| {
            let mel = low + step * index as f64;
            if warp == 1.0 { mel } else { mel_of_hz(warp_hz(hz_of_mel(mel), warp, nyquist_hz)) }
        };
        let bins: Vec<f64> = (0..shape.n_fft / 2)
            .map(|k| mel_of_hz(shape.sample_rate_hz * k as f64 / shape.n_fft as f64))
            .collect();
        let mut bank = Self { weights: Vec::new(), filters: Vec::with_capacity(shape.n_mels) };
        for m in 0..shape.n_mels {
            let (left, centre, right) = (edge(m), edge(m + 1), edge(m + 2));
            let first = bins.partition_point(|&mel| mel <= left);
            let last = bins.partition_point(|&mel| mel < right).max(first);
            bank.weights.extend(bins[first..last].iter().map(|&mel| {
                let rising = (mel - left) / (centre - left);
                let falling = (right - mel) / (right - centre);
                rising.min(falling) as f32
            }));
            bank.filters.push((first, bank.weights.len()));
        }
        bank
    }

    /// Writes the weighted sum of `spectrum` under each filter to `energies`.
    pub(super) fn apply(&self, spectrum: &[f32], energies: &mut [f32]) {
        let mut begin = 0;
        for (energy, &(first, end)) in energies.iter_mut().zip(&self.filters) {
            let weights = &self.weights[begin..end];
            let bins = &spectrum[first..first + weights.len()];
            *energy = weights.iter().zip(bins).map(|(w, p)| w * p).sum();
            begin = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: MelShape =
        MelShape { n_mels: 23, n_fft: 512, sample_rate_hz: 16000.0, low_hz: 20.0, high_hz: 8000.0 };

    #[test]
    fn mel_scale_by_hand() {
        assert_eq!(mel_of_hz(0.0), 0.0);
        assert!((mel_of_hz(700.0) - 1127.0 * std::f64::consts::LN_2).abs() < 1e-9);
        assert!((hz_of_mel(mel_of_hz(4321.0)) - 4321.0).abs() < 1e-9);
    }

    #[test]
    fn warp_by_hand() {
        // warp 0.9 at 16 kHz: the break is at 4800 Hz, which goes to 4320 Hz; 8000 Hz stays
        assert!((warp_hz(1000.0, 0.9, 8000.0) - 900.0).abs() < 1e-9);
        assert!((warp_hz(4800.0, 0.9, 8000.0) - 4320.0).abs() < 1e-9);
        assert!((warp_hz(6400.0, 0.9, 8000.0) - 6160.0).abs() < 1e-9);
        assert!((warp_hz(8000.0, 0.9, 8000.0) - 8000.0).abs() < 1e-9);
        // warp 1.2: the break is at 4000 Hz, which goes to 4800 Hz
        assert!((warp_hz(4000.0, 1.2, 8000.0) - 4800.0).abs() < 1e-9);
        assert!((warp_hz(6000.0, 1.2, 8000.0) - 6400.0).abs() < 1e-9);
    }

    #[test]
    fn warp_is_increasing_and_ends_at_nyquist() {
        for step in 0..N_WARPS {
            let warp = warp_at(step);
            let values: Vec<f64> =
                (0..=80).map(|i| warp_hz(f64::from(i) * 100.0, warp, 8000.0)).collect();
            assert!(values.windows(2).all(|w| w[0] < w[1]), "warp {warp}");
            assert!(values[0] == 0.0 && (values[80] - 8000.0).abs() < 1e-9);
        }
    }

    #[test]
    fn warp_steps_round_trip() {
        for step in 0..N_WARPS {
            assert_eq!(warp_step(warp_at(step) as f32), Ok(step));
        }
        assert_eq!(warp_at(warp_step(1.0).expect("in range")), 1.0);
        for bad in [0.49, 2.01, f32::NAN, f32::INFINITY, -1.0] {
            assert!(warp_step(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn neighbouring_filters_sum_to_one_between_the_outer_centres() {
        let bank = MelBank::new(SHAPE, 1.0);
        for bin in 8..200 {
            let mut impulse = vec![0.0; 256];
            impulse[bin] = 1.0;
            let mut energies = vec![0.0; 23];
            bank.apply(&impulse, &mut energies);
            assert!((energies.iter().sum::<f32>() - 1.0).abs() < 1e-5, "bin {bin}");
            assert!(energies.iter().filter(|&&e| e > 0.0).count() <= 2);
        }
    }

    #[test]
    fn narrow_filters_without_a_bin_are_zero_not_a_panic() {
        let bank = MelBank::new(MelShape { n_mels: 200, n_fft: 64, ..SHAPE }, 0.5);
        let mut energies = vec![1.0; 200];
        bank.apply(&[1.0; 32], &mut energies);
        assert!(energies.iter().all(|e| e.is_finite()));
        assert!(energies.contains(&0.0));
    }
}
