//! What the models of our folders are fed.

use crate::features::{FeatureNorm, LogMel, normalise_utterance};
use crate::model::Sequence;
use candle_core::{Device, Tensor};

/// Log-mel features of clips of 16 kHz samples as one batch, padded with zeros.
///
/// # Errors
/// If the tensor cannot be made.
pub fn log_mel_batch(
    log_mel: &LogMel,
    norm: FeatureNorm,
    clips: &[&[f32]],
) -> candle_core::Result<Sequence> {
    let features: Vec<_> = clips
        .iter()
        .map(|clip| {
            let mut features = log_mel.compute(clip);
            normalise_utterance(&mut features, norm);
            features
        })
        .collect();
    let frames = features.iter().map(|f| f.n_frames).max().unwrap_or(0);
    let bins = log_mel.config().n_bins();
    let mut values = vec![0.0; features.len() * frames * bins];
    for (row, clip) in values.chunks_exact_mut((frames * bins).max(1)).zip(&features) {
        row[..clip.data.len()].copy_from_slice(&clip.data);
    }
    Ok(Sequence {
        hidden: Tensor::from_vec(values, (features.len(), frames, bins), &Device::Cpu)?,
        lengths: features.iter().map(|f| f.n_frames).collect(),
    })
}
