//! Normalisation of waveforms and of features, one utterance at a time.

use serde::{Deserialize, Serialize};

use super::Features;

/// Variance offset of the Hugging Face feature extractors.
pub const TRANSFORMERS_EPSILON: f64 = 1e-7;
/// Variance offset of fairseq's `layer_norm` over the utterance.
pub const FAIRSEQ_EPSILON: f64 = 1e-5;
/// Variance offset of [`normalise_utterance`]: a bin that never changes becomes 0, not a division by 0.
const FEATURE_EPSILON: f64 = 1e-5;

/// Scales a waveform to zero mean and unit (biased) variance: `(x - mean) / sqrt(variance + epsilon)`.
///
/// # Shapes
/// - `waveform`: `(samples,)`, changed in place; an empty one stays empty
///
/// `epsilon` is [`TRANSFORMERS_EPSILON`] or [`FAIRSEQ_EPSILON`]; they part on quiet audio. Sums are f64.
///
/// # Example
/// ```
/// let mut waveform = [1.0, 3.0];
/// asr::features::zero_mean_unit_variance(&mut waveform, 0.0);
/// assert_eq!(waveform, [-1.0, 1.0]);
/// ```
pub fn zero_mean_unit_variance(waveform: &mut [f32], epsilon: f64) {
    let n = waveform.len() as f64;
    let mean = waveform.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let variance = waveform.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
    let scale = inverse_deviation(variance, epsilon);
    for x in waveform {
        *x = ((f64::from(*x) - mean) * scale) as f32;
    }
}

/// How [`normalise_utterance`] treats each bin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureNorm {
    /// Leave the features as they are.
    None,
    /// Subtract the mean of each bin over the utterance.
    Mean,
    /// Subtract the mean of each bin and divide by its deviation over the utterance.
    #[default]
    MeanAndVariance,
}

/// Normalises each bin over the frames of one utterance (cepstral mean and variance normalisation).
///
/// With variance, `(x - mean) / sqrt(variance + 1e-5)`, biased variance, f64 sums; so one frame alone becomes zeros.
/// Done before padding, the result does not depend on the batch.
pub fn normalise_utterance(features: &mut Features, norm: FeatureNorm) {
    if norm == FeatureNorm::None || features.n_bins == 0 || features.n_frames == 0 {
        return;
    }
    let n_bins = features.n_bins;
    let n = features.n_frames as f64;
    let mut mean = vec![0.0f64; n_bins];
    for row in features.data.chunks_exact(n_bins) {
        for (m, &x) in mean.iter_mut().zip(row) {
            *m += f64::from(x);
        }
    }
    mean.iter_mut().for_each(|m| *m /= n);
    let mut scale = vec![1.0f64; n_bins];
    if norm == FeatureNorm::MeanAndVariance {
        scale.fill(0.0);
        for row in features.data.chunks_exact(n_bins) {
            for ((s, m), &x) in scale.iter_mut().zip(&mean).zip(row) {
                *s += (f64::from(x) - m).powi(2);
            }
        }
        scale.iter_mut().for_each(|s| *s = inverse_deviation(*s / n, FEATURE_EPSILON));
    }
    for row in features.data.chunks_exact_mut(n_bins) {
        for ((x, m), s) in row.iter_mut().zip(&mean).zip(&scale) {
            *x = ((f64::from(*x) - m) * s) as f32;
        }
    }
}

/// `1 / sqrt(variance + epsilon)`, and 0 where that has no finite value (no variance and no offset).
fn inverse_deviation(variance: f64, epsilon: f64) -> f64 {
    let deviation = (variance + epsilon).sqrt();
    if deviation > 0.0 { 1.0 / deviation } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waveform_by_hand() {
        let mut wave = [0.0, 0.0, 3.0, 3.0];
        zero_mean_unit_variance(&mut wave, 0.0);
        assert_eq!(wave, [-1.0, -1.0, 1.0, 1.0]);
        let mut silence = [0.0; 5];
        zero_mean_unit_variance(&mut silence, 0.0);
        assert_eq!(silence, [0.0; 5]);
        zero_mean_unit_variance(&mut [], FAIRSEQ_EPSILON);
    }

    #[test]
    fn features_by_hand() {
        let start = Features { data: vec![1.0, 5.0, 3.0, 5.0], n_frames: 2, n_bins: 2 };
        let run = |norm| {
            let mut features = start.clone();
            normalise_utterance(&mut features, norm);
            features.data
        };
        assert_eq!(run(FeatureNorm::None), start.data);
        assert_eq!(run(FeatureNorm::Mean), [-1.0, 0.0, 1.0, 0.0]);
        let want = 1.0 / (1.0f64 + 1e-5).sqrt() as f32;
        assert_eq!(run(FeatureNorm::MeanAndVariance), [-want, 0.0, want, 0.0]);
    }

    #[test]
    fn one_frame_and_no_frame() {
        let mut one = Features { data: vec![4.0, -2.0], n_frames: 1, n_bins: 2 };
        normalise_utterance(&mut one, FeatureNorm::MeanAndVariance);
        assert_eq!(one.data, [0.0, 0.0]);
        let mut none = Features::default();
        normalise_utterance(&mut none, FeatureNorm::MeanAndVariance);
        assert_eq!(none, Features::default());
    }
}
