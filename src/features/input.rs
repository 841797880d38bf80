//! What an encoder reads of a clip: log-mel features or the waveform itself.

use super::{
    FeatureError, FeatureNorm, Features, LogMel, LogMelConfig, normalise_utterance,
    zero_mean_unit_variance,
};
use serde::{Deserialize, Serialize};

/// Samples of a waveform per second.
const SAMPLE_RATE_HZ: f64 = 16_000.0;

/// How a waveform is prepared for an encoder that reads samples.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WaveformInput {
    /// What is added to the variance of a clip that is scaled to zero mean and unit variance;
    /// without it clips stay as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub normalise_epsilon: Option<f64>,
}

/// What an encoder reads.
#[derive(Debug, Clone, PartialEq)]
pub enum EncoderInput {
    /// Log-mel features, normalised over the clip.
    LogMel(LogMelConfig, FeatureNorm),
    /// Samples at 16 kHz.
    Waveform(WaveformInput),
}

/// Turns clips into what an encoder reads; plan once, then use from any number of threads.
#[derive(Debug)]
pub struct InputFeatures {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    LogMel(Box<LogMel>, FeatureNorm),
    Waveform(WaveformInput),
}

impl EncoderInput {
    /// Values per step: bins, or 1 of a waveform.
    #[must_use]
    pub fn n_bins(&self) -> usize {
        match self {
            Self::LogMel(features, _) => features.n_bins(),
            Self::Waveform(_) => 1,
        }
    }

    /// Milliseconds from step to step, and those that one step sees.
    #[must_use]
    pub fn step_ms(&self) -> (f64, f64) {
        match self {
            Self::LogMel(features, _) => (features.shift_ms, features.window_ms),
            Self::Waveform(_) => (1000.0 / SAMPLE_RATE_HZ, 1000.0 / SAMPLE_RATE_HZ),
        }
    }
}

impl InputFeatures {
    /// Plans the features of `config`.
    ///
    /// # Errors
    /// As [`LogMelConfig::validate`].
    pub fn new(config: &EncoderInput) -> Result<Self, FeatureError> {
        let kind = match config {
            EncoderInput::LogMel(features, norm) => {
                Kind::LogMel(Box::new(LogMel::new(features.clone())?), *norm)
            }
            EncoderInput::Waveform(waveform) => Kind::Waveform(*waveform),
        };
        Ok(Self { kind })
    }

    /// Whether it is the waveform itself.
    #[must_use]
    pub fn is_waveform(&self) -> bool {
        matches!(self.kind, Kind::Waveform(_))
    }

    /// Steps per second.
    #[must_use]
    pub fn steps_per_s(&self) -> f64 {
        match &self.kind {
            Kind::LogMel(log_mel, _) => 1000.0 / log_mel.config().shift_ms,
            Kind::Waveform(_) => SAMPLE_RATE_HZ,
        }
    }

    /// What the encoder reads of samples at 16 kHz, `(steps, bins)`.
    #[must_use]
    pub fn compute(&self, waveform: &[f32]) -> Features {
        match &self.kind {
            Kind::LogMel(log_mel, norm) => normalised(log_mel.compute(waveform), *norm),
            Kind::Waveform(config) => prepared(waveform, *config),
        }
    }

    /// The same with a vocal tract warped by `factor`, of features that know one.
    ///
    /// # Errors
    /// [`FeatureError::Warp`] if the factor is out of range.
    pub fn compute_warped(&self, waveform: &[f32], factor: f32) -> Result<Features, FeatureError> {
        match &self.kind {
            Kind::LogMel(log_mel, norm) => {
                Ok(normalised(log_mel.compute_warped(waveform, factor)?, *norm))
            }
            Kind::Waveform(config) => Ok(prepared(waveform, *config)),
        }
    }
}

fn normalised(mut features: Features, norm: FeatureNorm) -> Features {
    normalise_utterance(&mut features, norm);
    features
}

fn prepared(waveform: &[f32], config: WaveformInput) -> Features {
    let mut data = waveform.to_vec();
    if let Some(epsilon) = config.normalise_epsilon {
        zero_mean_unit_variance(&mut data, epsilon);
    }
    Features { n_frames: data.len(), n_bins: 1, data }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waveform_is_one_bin_per_sample() -> Result<(), FeatureError> {
        let config = EncoderInput::Waveform(WaveformInput { normalise_epsilon: Some(0.0) });
        let features = InputFeatures::new(&config)?.compute(&[1.0, 3.0]);
        assert_eq!((features.n_frames, features.n_bins), (2, 1));
        assert_eq!(features.data, [-1.0, 1.0]);
        let plain = InputFeatures::new(&EncoderInput::Waveform(WaveformInput::default()))?;
        assert_eq!(plain.compute(&[1.0, 3.0]).data, [1.0, 3.0]);
        assert_eq!(config.step_ms(), (0.0625, 0.0625));
        Ok(())
    }
}
