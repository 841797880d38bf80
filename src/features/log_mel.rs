//! Log-mel filter-bank features, Kaldi-compatible.

use std::sync::OnceLock;

use super::frames::Framing;
use super::log_mel_config::{LogMelConfig, SpectrumKind};
use super::mel::{MelBank, MelShape, N_WARPS, warp_at, warp_step};
use super::stft::SpectrumPlan;
use super::{FeatureError, Features};

/// Smallest filter output before the logarithm: f32 epsilon, as in Kaldi and torchaudio.
pub(super) const LOG_FLOOR: f32 = f32::EPSILON;

/// Computes log-mel features; plan once, then use from any number of threads.
#[derive(Debug)]
pub struct LogMel {
    config: LogMelConfig,
    framing: Framing,
    plan: SpectrumPlan,
    shape: MelShape,
    /// One filter bank per rounded warp factor, built when first used.
    banks: Box<[OnceLock<MelBank>]>,
}

impl LogMel {
    /// Plans the transform for `config`.
    ///
    /// # Errors
    /// As [`LogMelConfig::validate`].
    pub fn new(config: LogMelConfig) -> Result<Self, FeatureError> {
        config.validate()?;
        let window_samples = config.window_samples();
        let n_fft = window_samples.next_power_of_two();
        Ok(Self {
            framing: Framing {
                window_samples,
                shift_samples: config.shift_samples(),
                edges: config.edges,
                remove_dc: config.remove_dc,
                preemphasis: config.preemphasis,
                sample_scale: config.sample_scale,
                taper: config.window.coefficients(window_samples),
            },
            plan: SpectrumPlan::new(n_fft),
            shape: MelShape {
                n_mels: config.n_mels,
                n_fft,
                sample_rate_hz: f64::from(config.sample_rate_hz),
                low_hz: config.low_hz,
                high_hz: config.effective_high_hz(),
            },
            banks: (0..N_WARPS).map(|_| OnceLock::new()).collect(),
            config,
        })
    }

    /// The settings this was planned for.
    pub fn config(&self) -> &LogMelConfig {
        &self.config
    }

    /// Number of frames that a waveform of `n_samples` gives.
    pub fn n_frames(&self, n_samples: usize) -> usize {
        self.framing.n_frames(n_samples)
    }

    /// Log-mel features of one waveform.
    ///
    /// # Shapes
    /// - `waveform`: `(samples,)`, f32 at the configured rate
    /// - returns `(frames, bins)`: natural logarithm of each filter's output, not below that of f32 epsilon
    ///
    /// A waveform shorter than one window follows [`LogMelConfig::edges`]. A frame that holds samples that are
    /// not finite gives finite values without meaning. Agrees with `torchaudio.compliance.kaldi.fbank` to 2e-3
    /// (more only 90 dB and further below a pure tone, where the f32 transform there rounds).
    ///
    /// # Example
    /// ```
    /// use asr::features::{LogMel, LogMelConfig};
    ///
    /// let log_mel = LogMel::new(LogMelConfig::default())?;
    /// let silence = log_mel.compute(&[0.0; 16_000]);
    /// assert_eq!((silence.n_frames, silence.n_bins), (98, 80));
    /// assert!(silence.data.iter().all(|&x| x == f32::EPSILON.ln()));
    /// # Ok::<(), asr::features::FeatureError>(())
    /// ```
    pub fn compute(&self, waveform: &[f32]) -> Features {
        let step = warp_step(1.0).expect("1 lies inside the range of warps");
        self.compute_with(waveform, self.bank(step))
    }

    /// As [`compute`](Self::compute), with the frequency axis of the filters stretched by `warp`.
    ///
    /// Vocal tract length perturbation (Jaitly and Hinton 2013): filter edges below 60 % of the Nyquist frequency
    /// are multiplied by `warp` (usually 0.9 to 1.1), those above follow a straight line that keeps the Nyquist
    /// frequency in place. `warp` is rounded to hundredths; the filters of each are built once and kept.
    ///
    /// # Errors
    /// [`FeatureError::Warp`] unless `warp` is between [`MIN_WARP`](super::MIN_WARP) and [`MAX_WARP`](super::MAX_WARP).
    pub fn compute_warped(&self, waveform: &[f32], warp: f32) -> Result<Features, FeatureError> {
        Ok(self.compute_with(waveform, self.bank(warp_step(warp)?)))
    }

    fn bank(&self, step: usize) -> &MelBank {
        self.banks[step].get_or_init(|| MelBank::new(self.shape, warp_at(step)))
    }

    fn compute_with(&self, waveform: &[f32], bank: &MelBank) -> Features {
        let n_frames = self.n_frames(waveform.len());
        let n_bins = self.config.n_bins();
        let mut data = vec![0.0; n_frames * n_bins];
        let mut frame = vec![0.0; self.framing.window_samples];
        let mut scratch = self.plan.scratch();
        for (index, row) in data.chunks_exact_mut(n_bins).enumerate() {
            let energy = self.framing.extract(waveform, index, &mut frame);
            let spectrum = self.plan.power(&frame, &mut scratch);
            if self.config.spectrum == SpectrumKind::Magnitude {
                spectrum.iter_mut().for_each(|p| *p = p.sqrt());
            }
            let filters = if self.config.energy {
                row[0] = floored_ln(energy, self.config.energy_floor.max(LOG_FLOOR));
                &mut row[1..]
            } else {
                row
            };
            bank.apply(spectrum, filters);
            filters.iter_mut().for_each(|x| *x = floored_ln(*x, LOG_FLOOR));
        }
        Features { data, n_frames, n_bins }
    }
}

/// ln of `x` held between `floor` and the largest f32, so that it is finite for every `x`, NaN included.
fn floored_ln(x: f32, floor: f32) -> f32 {
    x.max(floor).min(f32::MAX).ln()
}

#[cfg(test)]
mod tests {
    use super::super::{Edges, WindowShape, reference};
    use super::*;
    use proptest::prelude::*;

    fn snip() -> LogMelConfig {
        LogMelConfig { edges: Edges::Snip, ..LogMelConfig::default() }
    }

    /// A fixed pseudo-random waveform with every frequency in it.
    fn noise(n_samples: usize) -> Vec<f32> {
        let mut state = 1u32;
        (0..n_samples)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 24) as f32 - 0.5
            })
            .collect()
    }

    #[test]
    fn agrees_with_the_plain_reference() {
        let wave = noise(2000);
        let configs = [
            snip(),
            LogMelConfig {
                n_mels: 23,
                sample_rate_hz: 8000,
                high_hz: 0.0,
                remove_dc: false,
                ..snip()
            },
            LogMelConfig {
                window: WindowShape::Hamming,
                spectrum: SpectrumKind::Magnitude,
                ..snip()
            },
            LogMelConfig {
                window: WindowShape::Hann,
                sample_scale: 32768.0,
                preemphasis: 0.0,
                ..snip()
            },
            LogMelConfig {
                window: WindowShape::Rectangular,
                window_ms: 32.0,
                shift_ms: 7.3,
                ..snip()
            },
        ];
        for config in configs {
            let log_mel = LogMel::new(config.clone()).expect("valid");
            for warp in [1.0f32, 0.85, 1.2] {
                let got = log_mel.compute_warped(&wave, warp).expect("in range");
                let want: Vec<f64> =
                    reference::log_mel(&config, &wave, (f64::from(warp) * 100.0).round() / 100.0)
                        .concat();
                assert_eq!(got.data.len(), want.len());
                for (index, (g, w)) in got.data.iter().zip(&want).enumerate() {
                    assert!(
                        (f64::from(*g) - w).abs() < 1e-4,
                        "{config:?} warp {warp} at {index}: {g} {w}"
                    );
                }
            }
            assert_eq!(
                log_mel.compute(&wave),
                log_mel.compute_warped(&wave, 1.0).expect("in range")
            );
        }
    }

    #[test]
    fn warping_up_moves_a_tone_to_lower_filters() {
        let log_mel = LogMel::new(LogMelConfig::default()).expect("valid");
        let tone: Vec<f32> = (0..4000).map(|n| (n as f32 * 0.7).sin()).collect();
        let peak = |warp| {
            let features = log_mel.compute_warped(&tone, warp).expect("in range");
            let row = features.frame(3).expect("long enough").to_vec();
            (0..80).max_by(|&a, &b| row[a].total_cmp(&row[b])).expect("80 bins")
        };
        assert!(peak(0.8) > peak(1.0) && peak(1.0) > peak(1.25));
        assert!(log_mel.compute_warped(&tone, f32::NAN).is_err());
    }

    #[test]
    fn short_waveforms_follow_the_edges() {
        let n_frames = |edges, n_samples| {
            let log_mel =
                LogMel::new(LogMelConfig { edges, ..LogMelConfig::default() }).expect("valid");
            let features = log_mel.compute(&noise(n_samples));
            assert_eq!(features.data.len(), features.n_frames * 80);
            assert_eq!(features.n_frames, log_mel.n_frames(n_samples));
            assert_eq!(features.frame(features.n_frames), None);
            features.n_frames
        };
        assert_eq!([0, 1, 399, 400, 560].map(|n| n_frames(Edges::AtLeastOne, n)), [1, 1, 1, 1, 2]);
        assert_eq!([0, 1, 399, 400, 560].map(|n| n_frames(Edges::Snip, n)), [0, 0, 0, 1, 2]);
        assert_eq!([0, 79, 80, 400].map(|n| n_frames(Edges::Centred, n)), [0, 0, 1, 3]);
    }

    proptest! {
        #[test]
        fn any_samples_give_finite_features(wave in prop::collection::vec(any::<f32>(), 0..1200)) {
            for edges in [Edges::Snip, Edges::AtLeastOne, Edges::Centred] {
                let config = LogMelConfig { edges, energy: true, ..LogMelConfig::default() };
                let features = LogMel::new(config).expect("valid").compute(&wave);
                prop_assert!(features.data.iter().all(|x| x.is_finite()));
            }
        }
    }
}
