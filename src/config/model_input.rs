//! What an encoder reads of a waveform.

use super::speech_model::WaveformNorm;
use crate::features::{
    Edges, EncoderInput, FAIRSEQ_EPSILON, FeatureError, FeatureNorm, LogMel, LogMelConfig,
    WaveformInput, normalise_utterance, zero_mean_unit_variance,
};
use crate::model::{EncoderConfig, Sequence};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

/// Samples per second of every model.
const SAMPLE_RATE_HZ: f64 = 16_000.0;

/// What an encoder reads, as recipes and folders say it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum InputConfig {
    /// Samples at 16 kHz.
    Waveform {
        /// Brought to zero mean and unit variance over the clip (fairseq `normalize`).
        normalise: bool,
    },
    /// Log-mel filter banks.
    LogMel {
        /// Their settings.
        features: LogMelConfig,
        /// Their normalisation over each clip.
        norm: FeatureNorm,
    },
}

/// What an encoder reads, ready to be computed.
#[derive(Debug)]
pub enum ModelInput {
    /// Samples at 16 kHz.
    Waveform(WaveformNorm),
    /// Log-mel filter banks.
    LogMel {
        /// Their computation.
        log_mel: Box<LogMel>,
        /// Their normalisation over each clip.
        norm: FeatureNorm,
    },
}

/// When frames happen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FrameTimes {
    /// Centre of the first frame, seconds.
    pub first_s: f64,
    /// From frame to frame, seconds.
    pub step_s: f64,
}

impl ModelInput {
    /// Prepares the computation.
    ///
    /// # Errors
    /// [`FeatureError`] for settings out of range.
    pub fn new(config: &InputConfig) -> Result<Self, FeatureError> {
        Ok(match config {
            InputConfig::Waveform { normalise } => {
                Self::Waveform(WaveformNorm::of(*normalise, FAIRSEQ_EPSILON))
            }
            InputConfig::LogMel { features, norm } => {
                Self::LogMel { log_mel: Box::new(LogMel::new(features.clone())?), norm: *norm }
            }
        })
    }

    /// The same for what a folder with a recogniser reads.
    ///
    /// # Errors
    /// [`FeatureError`] for settings out of range.
    pub fn of_folder(input: &EncoderInput) -> Result<Self, FeatureError> {
        Ok(match input {
            EncoderInput::Waveform(WaveformInput { normalise_epsilon }) => {
                Self::Waveform(match *normalise_epsilon {
                    None => WaveformNorm::None,
                    Some(epsilon) => WaveformNorm::ZeroMeanUnitVariance { epsilon },
                })
            }
            EncoderInput::LogMel(features, norm) => {
                Self::LogMel { log_mel: Box::new(LogMel::new(features.clone())?), norm: *norm }
            }
        })
    }

    /// The same as a folder with a recogniser says it.
    #[must_use]
    pub fn for_folder(&self) -> EncoderInput {
        match self {
            Self::Waveform(norm) => EncoderInput::Waveform(WaveformInput {
                normalise_epsilon: match *norm {
                    WaveformNorm::None => None,
                    WaveformNorm::ZeroMeanUnitVariance { epsilon } => Some(epsilon),
                },
            }),
            Self::LogMel { log_mel, norm } => EncoderInput::LogMel(log_mel.config().clone(), *norm),
        }
    }

    /// Values per step: 1 of a waveform, bins of a filter bank.
    #[must_use]
    pub fn channels(&self) -> usize {
        match self {
            Self::Waveform(_) => 1,
            Self::LogMel { log_mel, .. } => log_mel.config().n_bins(),
        }
    }

    /// Seconds from step to step.
    #[must_use]
    pub fn step_s(&self) -> f64 {
        match self {
            Self::Waveform(_) => 1.0 / SAMPLE_RATE_HZ,
            Self::LogMel { log_mel, .. } => log_mel.config().shift_ms / 1000.0,
        }
    }

    /// When the frames of the highest resolution of an encoder happen.
    #[must_use]
    pub fn frame_times(&self, encoder: &EncoderConfig) -> FrameTimes {
        let step_s = self.step_s();
        let first_step_s = match self {
            Self::Waveform(_) => step_s / 2.0,
            Self::LogMel { log_mel, .. } => match log_mel.config().edges {
                Edges::Centred => step_s / 2.0,
                Edges::Snip | Edges::AtLeastOne => log_mel.config().window_ms / 2000.0,
            },
        };
        let field = encoder.receptive_field() as f64;
        FrameTimes {
            first_s: first_step_s + step_s * (field - 1.0) / 2.0,
            step_s: step_s * encoder.input_stride() as f64,
        }
    }

    /// Steps of a clip of 16 kHz samples, `(steps, channels)` row-major; at least one.
    #[must_use]
    pub fn prepare(&self, mut waveform: Vec<f32>) -> Vec<f32> {
        match self {
            Self::Waveform(norm) => {
                if waveform.is_empty() {
                    waveform.push(0.0);
                }
                if let WaveformNorm::ZeroMeanUnitVariance { epsilon } = norm {
                    zero_mean_unit_variance(&mut waveform, *epsilon);
                }
                waveform
            }
            Self::LogMel { log_mel, norm } => {
                let mut features = log_mel.compute(&waveform);
                normalise_utterance(&mut features, *norm);
                if features.n_frames == 0 {
                    features.data = vec![0.0; features.n_bins.max(1)];
                }
                features.data
            }
        }
    }

    /// Clips of 16 kHz samples as a batch, zeros behind the shorter ones.
    ///
    /// # Errors
    /// If candle cannot make the tensor.
    pub fn batch(&self, clips: &[&[f32]]) -> candle_core::Result<Sequence> {
        let channels = self.channels();
        let prepared: Vec<Vec<f32>> =
            clips.iter().map(|clip| self.prepare(clip.to_vec())).collect();
        let lengths: Vec<usize> = prepared.iter().map(|clip| clip.len() / channels).collect();
        let steps = lengths.iter().copied().max().unwrap_or(0).max(1);
        let mut values = vec![0.0; clips.len() * steps * channels];
        for (row, clip) in values.chunks_exact_mut(steps * channels).zip(&prepared) {
            row[..clip.len()].copy_from_slice(clip);
        }
        let shape = (clips.len(), steps, channels);
        Ok(Sequence { hidden: Tensor::from_vec(values, shape, &Device::Cpu)?, lengths })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ConvLayer, ConvNorm, Sampling, Variant};

    #[test]
    fn frames_happen_at_the_middle_of_what_they_see() -> Result<(), FeatureError> {
        let encoder = |channels, layers: &[(usize, usize)]| EncoderConfig {
            input_channels: channels,
            conv_layers: layers
                .iter()
                .map(|&(kernel, stride)| ConvLayer { dim: 8, kernel, stride })
                .collect(),
            conv_norm: ConvNorm::EveryLayer,
            embed_dim: 8,
            ffn_dim: 8,
            heads: 1,
            stage_layers: vec![1],
            rate_ratios: vec![],
            sampling: Sampling::ConvAdapter { kernel: 1 },
            layer_norm_first: true,
            position_kernel: 2,
            position_groups: 1,
            dropout: 0.0,
            attention_dropout: 0.0,
            activation_dropout: 0.0,
            input_dropout: 0.0,
            layer_drop: 0.0,
            variant: Variant::default(),
        };
        // HuBERT: 400 samples, every 320.
        let published = [(10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2)];
        let waveform = ModelInput::new(&InputConfig::Waveform { normalise: false })?;
        let times = waveform.frame_times(&encoder(1, &published));
        assert!((times.first_s - 0.0125).abs() < 1e-9 && (times.step_s - 0.02).abs() < 1e-9);
        // 23 windows of 25 ms, every 40 ms: the middle one is the twelfth.
        let features = LogMelConfig::default();
        let log_mel = ModelInput::new(&InputConfig::LogMel { features, norm: FeatureNorm::Mean })?;
        let times = log_mel.frame_times(&encoder(80, &[(3, 2), (3, 2), (3, 1), (3, 1)]));
        assert!((times.first_s - 0.1225).abs() < 1e-9 && (times.step_s - 0.04).abs() < 1e-9);
        for input in [waveform, log_mel] {
            assert_eq!(input.prepare(Vec::new()).len(), input.channels());
            let batch = input.batch(&[&[0.1; 800], &[]]).expect("a batch");
            assert_eq!(batch.lengths[1], 1);
        }
        Ok(())
    }
}
