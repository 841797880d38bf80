//! Acoustic features of a waveform: framing, short-time spectra, log-mel filter banks, MFCC and normalisation.
//!
//! Conventions are Kaldi's, as `torchaudio.compliance.kaldi` computes them: frames of 25 ms every 10 ms,
//! per-frame DC removal and pre-emphasis, Povey window, FFT of the next power of two, triangular filters
//! equally spaced on the mel scale, natural logarithm. Samples are f32 in `[-1, 1]`; multiply by
//! [`LogMelConfig::sample_scale`] to imitate tools that feed 16-bit integers.
//!
//! The layer knows nothing of files, devices or models. The FFT library is used in `stft.rs` alone, the voice
//! detector in `voice.rs`.

mod frames;
mod input;
mod log_mel;
mod log_mel_config;
mod mel;
mod mfcc;
mod normalise;
#[cfg(test)]
mod reference;
mod stft;
mod voice;

pub use frames::{Edges, WindowShape};
pub use input::{EncoderInput, InputFeatures, WaveformInput};
pub use log_mel::LogMel;
pub use log_mel_config::{LogMelConfig, SpectrumKind};
pub use mel::{MAX_WARP, MIN_WARP};
pub use mfcc::{Mfcc, MfccConfig};
pub use normalise::{
    FAIRSEQ_EPSILON, FeatureNorm, TRANSFORMERS_EPSILON, normalise_utterance,
    zero_mean_unit_variance,
};
pub use voice::{VOICE_FRAME_SAMPLES, VoiceDetector, VoiceFrame, is_digital_silence};

/// Why features cannot be configured or computed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FeatureError {
    /// A setting lies outside what can be computed.
    #[error("feature setting `{field}` is {found}, expected {expected}")]
    Setting {
        /// Name of the field in the configuration.
        field: &'static str,
        /// The value found there.
        found: f64,
        /// What is accepted, in words.
        expected: &'static str,
    },
    /// A vocal tract warp factor outside [`MIN_WARP`]`..=`[`MAX_WARP`], or not a number.
    #[error("vocal tract warp factor is {found}, expected {MIN_WARP} to {MAX_WARP}")]
    Warp {
        /// The factor asked for.
        found: f32,
    },
}

/// A matrix of features, one row per frame.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Features {
    /// Values, row-major, shape `(frames, bins)`.
    pub data: Vec<f32>,
    /// Number of rows.
    pub n_frames: usize,
    /// Number of values per frame.
    pub n_bins: usize,
}

impl Features {
    /// The values of frame `index`, `n_bins` of them, or `None` past the end.
    pub fn frame(&self, index: usize) -> Option<&[f32]> {
        if index >= self.n_frames {
            return None;
        }
        self.data.get(index * self.n_bins..(index + 1) * self.n_bins)
    }
}
