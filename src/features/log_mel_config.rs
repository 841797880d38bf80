//! Settings of the log-mel front end.

use serde::{Deserialize, Serialize};

use super::FeatureError;
use super::frames::{Edges, WindowShape};

/// Which spectrum the filters sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpectrumKind {
    /// Squared magnitude.
    #[default]
    Power,
    /// Magnitude.
    Magnitude,
}

/// Settings of [`LogMel`](super::LogMel); the defaults are those of our model front end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogMelConfig {
    /// Sample rate of the waveforms, 1000 to 192000 Hz.
    pub sample_rate_hz: u32,
    /// Number of mel filters, 1 to 512.
    pub n_mels: usize,
    /// Window length, 1 to 1000 ms; the FFT is the next power of two of its samples.
    pub window_ms: f64,
    /// Distance between frames, 1 to 1000 ms.
    pub shift_ms: f64,
    /// Lower edge of the first filter, Hz, at least 0.
    pub low_hz: f64,
    /// Upper edge of the last filter, Hz; zero or negative counts down from the Nyquist frequency.
    pub high_hz: f64,
    /// Pre-emphasis coefficient within the frame, 0 to 1; 0 switches it off.
    pub preemphasis: f32,
    /// Subtract the mean of each frame.
    pub remove_dc: bool,
    /// Taper of the frame.
    pub window: WindowShape,
    /// Treatment of the ends of the waveform.
    pub edges: Edges,
    /// Which spectrum the filters sum.
    pub spectrum: SpectrumKind,
    /// Put the frame's log energy (before pre-emphasis and window) before the filters, as one more bin.
    pub energy: bool,
    /// Lowest frame energy before its logarithm, at least 0 (torchaudio's default is 1); with 0, f32 epsilon.
    pub energy_floor: f32,
    /// Factor on every sample, above 0: 1 for samples in `[-1, 1]`, 32768 to imitate 16-bit integers.
    pub sample_scale: f32,
}

impl Default for LogMelConfig {
    fn default() -> Self {
        Self {
            sample_rate_hz: 16_000,
            n_mels: 80,
            window_ms: 25.0,
            shift_ms: 10.0,
            low_hz: 20.0,
            high_hz: 8000.0,
            preemphasis: 0.97,
            remove_dc: true,
            window: WindowShape::Povey,
            edges: Edges::AtLeastOne,
            spectrum: SpectrumKind::Power,
            energy: false,
            energy_floor: 1.0,
            sample_scale: 1.0,
        }
    }
}

impl LogMelConfig {
    /// Checks every setting.
    ///
    /// # Errors
    /// [`FeatureError::Setting`] for the first one out of range.
    pub fn validate(&self) -> Result<(), FeatureError> {
        let nyquist = f64::from(self.sample_rate_hz) / 2.0;
        let high = self.effective_high_hz();
        let check = |ok: bool, field, found, expected| {
            if ok { Ok(()) } else { Err(FeatureError::Setting { field, found, expected }) }
        };
        check(
            (1000..=192_000).contains(&self.sample_rate_hz),
            "sample_rate_hz",
            f64::from(self.sample_rate_hz),
            "1000 to 192000",
        )?;
        check((1..=512).contains(&self.n_mels), "n_mels", self.n_mels as f64, "1 to 512")?;
        check((1.0..=1000.0).contains(&self.window_ms), "window_ms", self.window_ms, "1 to 1000")?;
        check(self.window_samples() >= 2, "window_ms", self.window_ms, "at least 2 samples")?;
        check((1.0..=1000.0).contains(&self.shift_ms), "shift_ms", self.shift_ms, "1 to 1000")?;
        check(
            (0.0..nyquist).contains(&self.low_hz),
            "low_hz",
            self.low_hz,
            "0 to below the Nyquist frequency",
        )?;
        check(
            high > self.low_hz && high <= nyquist,
            "high_hz",
            self.high_hz,
            "above low_hz, up to the Nyquist frequency (or zero or less, counted down from it)",
        )?;
        check(
            (0.0..=1.0).contains(&self.preemphasis),
            "preemphasis",
            f64::from(self.preemphasis),
            "0 to 1",
        )?;
        check(
            self.energy_floor >= 0.0 && self.energy_floor.is_finite(),
            "energy_floor",
            f64::from(self.energy_floor),
            "at least 0",
        )?;
        check(
            self.sample_scale > 0.0 && self.sample_scale.is_finite(),
            "sample_scale",
            f64::from(self.sample_scale),
            "above 0",
        )
    }

    /// Samples in one window.
    pub fn window_samples(&self) -> usize {
        samples_of_ms(self.sample_rate_hz, self.window_ms)
    }

    /// Samples from one frame to the next.
    pub fn shift_samples(&self) -> usize {
        samples_of_ms(self.sample_rate_hz, self.shift_ms)
    }

    /// Values per frame: the filters, and the energy where asked for.
    pub fn n_bins(&self) -> usize {
        self.n_mels + usize::from(self.energy)
    }

    pub(super) fn effective_high_hz(&self) -> f64 {
        if self.high_hz > 0.0 {
            self.high_hz
        } else {
            f64::from(self.sample_rate_hz) / 2.0 + self.high_hz
        }
    }
}

/// Whole samples in `ms`, rounded down; the small addition keeps exact products such as 16 kHz x 10 ms exact.
fn samples_of_ms(sample_rate_hz: u32, ms: f64) -> usize {
    (f64::from(sample_rate_hz) * ms / 1000.0 + 1e-6) as usize
}

#[cfg(test)]
mod tests {
    use super::super::LogMel;
    use super::*;

    #[test]
    fn settings_are_checked() {
        let reject = |change: fn(&mut LogMelConfig)| {
            let mut config = LogMelConfig::default();
            change(&mut config);
            LogMel::new(config).is_err()
        };
        assert!(reject(|c| c.sample_rate_hz = 0));
        assert!(reject(|c| c.sample_rate_hz = u32::MAX));
        assert!(reject(|c| c.n_mels = 513));
        assert!(reject(|c| c.window_ms = f64::NAN));
        assert!(reject(|c| (c.sample_rate_hz, c.window_ms) = (1000, 1.5)));
        assert!(reject(|c| c.shift_ms = 0.5));
        assert!(reject(|c| c.low_hz = -1.0));
        assert!(reject(|c| c.low_hz = 8000.0));
        assert!(reject(|c| c.high_hz = 10.0));
        assert!(reject(|c| c.high_hz = 8000.1));
        assert!(reject(|c| c.high_hz = -7990.0));
        assert!(reject(|c| c.preemphasis = 1.5));
        assert!(reject(|c| c.energy_floor = -1.0));
        assert!(reject(|c| c.sample_scale = f32::INFINITY));
        let error = LogMelConfig { n_mels: 0, ..LogMelConfig::default() }
            .validate()
            .expect_err("no filters");
        assert_eq!(error.to_string(), "feature setting `n_mels` is 0, expected 1 to 512");
    }

    #[test]
    fn settings_read_from_toml_with_defaults_and_without_strangers() {
        let config: LogMelConfig =
            toml::from_str("n_mels = 40\nedges = \"centred\"\nhigh_hz = -400").expect("valid");
        assert_eq!(
            config,
            LogMelConfig {
                n_mels: 40,
                edges: Edges::Centred,
                high_hz: -400.0,
                ..Default::default()
            }
        );
        assert!(toml::from_str::<LogMelConfig>("n_mel = 40").is_err());
    }
}
