//! Clips as a batch of what an encoder reads.

use crate::features::{Features, InputFeatures};
use crate::model::Sequence;
use candle_core::{Device, Tensor};

/// Clips of samples at 16 kHz as a batch padded with zeros.
///
/// # Errors
/// If the tensor cannot be made.
pub fn input_batch(input: &InputFeatures, clips: &[&[f32]]) -> candle_core::Result<Sequence> {
    let features: Vec<Features> = clips.iter().map(|clip| input.compute(clip)).collect();
    let frames = features.iter().map(|f| f.n_frames).max().unwrap_or(0);
    let bins = features.first().map_or(0, |f| f.n_bins);
    let mut values = vec![0.0; features.len() * frames * bins];
    for (row, clip) in values.chunks_exact_mut((frames * bins).max(1)).zip(&features) {
        row[..clip.data.len()].copy_from_slice(&clip.data);
    }
    Ok(Sequence {
        hidden: Tensor::from_vec(values, (features.len(), frames, bins), &Device::Cpu)?,
        lengths: features.iter().map(|f| f.n_frames).collect(),
    })
}
