//! SpecAugment (Park et al. 2019) on hidden frames, as ESPnet does it: each clip by itself.

use crate::model::pass::Pass;
use crate::model::sequence::Sequence;
use candle_core::{Result, Tensor};

/// Masks and warp; the default is that of the ML-SUPERB recipes.
#[derive(Debug, Clone, Copy)]
pub(super) struct SpecAugment {
    /// Frames that a point of time moves at most (`time_warp_window`).
    warp: usize,
    /// Masks over channels, and the width below which each lies.
    channel_masks: (usize, usize),
    /// Masks over time, and the share of the clip below which the length of each lies.
    time_masks: (usize, f64),
}

impl Default for SpecAugment {
    fn default() -> Self {
        Self { warp: 5, channel_masks: (2, 27), time_masks: (10, 0.05) }
    }
}

/// Frames that make one warped frame, and their weights.
type Taps = [(u32, f32); 4];

/// Coefficient of cubic interpolation in PyTorch.
const A: f64 = -0.75;

impl SpecAugment {
    /// The masked frames in training, the frames themselves otherwise.
    pub(super) fn apply(&self, input: &Sequence, pass: &Pass) -> Result<Sequence> {
        if !pass.is_training() {
            return Ok(input.clone());
        }
        let (batch, frames, dim) = input.hidden.dims3()?;
        let mut taps: Vec<Taps> = Vec::with_capacity(batch * frames);
        let mut times = vec![1.0_f32; batch * frames];
        let mut channels = vec![1.0_f32; batch * dim];
        for (clip, &n) in input.lengths.iter().enumerate() {
            let start = (clip * frames) as u32;
            let warped = self.warped(n, pass);
            taps.extend((0..frames).map(|t| match warped.get(t) {
                Some(taps) => taps.map(|(frame, weight)| (start + frame, weight)),
                None => [(start + t as u32, 1.0), (start, 0.0), (start, 0.0), (start, 0.0)],
            }));
            let (masks, width) = self.channel_masks;
            mask(&mut channels[clip * dim..(clip + 1) * dim], masks, width, pass);
            let (masks, share) = self.time_masks;
            let longest = (share * n as f64) as usize;
            mask(&mut times[clip * frames..][..n], masks, longest, pass);
        }
        let rows = input.hidden.contiguous()?.reshape((batch * frames, dim))?;
        let is_warped = taps.iter().any(|taps| taps[1..].iter().any(|tap| tap.1 != 0.0));
        let rows = if is_warped { combine(&rows, &taps)? } else { rows };
        let device = input.hidden.device();
        let times = Tensor::from_vec(times, (batch, frames, 1), device)?;
        let channels = Tensor::from_vec(channels, (batch, 1, dim), device)?;
        let hidden = rows.reshape((batch, frames, dim))?;
        Ok(input.with_hidden(hidden.broadcast_mul(&times)?.broadcast_mul(&channels)?))
    }

    /// The frames of a clip of `n` with a point of time drawn and moved; empty if it stays.
    fn warped(&self, n: usize, pass: &Pass) -> Vec<Taps> {
        if n <= 2 * self.warp {
            return Vec::new();
        }
        let draw = |n: usize| pass.below(n).unwrap_or(0);
        let from = self.warp + draw(n - 2 * self.warp);
        let to = from - self.warp + draw(2 * self.warp) + 1;
        if from == to {
            return Vec::new();
        }
        let mut taps = resized(0, from, to);
        taps.extend(resized(from, n - from, n - to));
        taps
    }
}

/// Sets stretches of `values` to zero, each shorter than `longest`.
fn mask(values: &mut [f32], masks: usize, longest: usize, pass: &Pass) {
    for _ in 0..masks {
        let length = pass.below(longest).unwrap_or(0).min(values.len());
        let start = pass.below((values.len() - length).max(1)).unwrap_or(0);
        values[start..start + length].fill(0.0);
    }
}

/// `n` frames from `first` on, cubically interpolated to `to` frames; corners are not aligned
/// and edges repeat (PyTorch's `bicubic`).
fn resized(first: usize, n: usize, to: usize) -> Vec<Taps> {
    (0..to)
        .map(|t| {
            let at = (t as f64 + 0.5) * n as f64 / to as f64 - 0.5;
            let floor = at.floor();
            let x = at - floor;
            let near = |x: f64| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
            let far = |x: f64| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
            let weights = [far(x + 1.0), near(x), near(1.0 - x), far(2.0 - x)];
            std::array::from_fn(|k| {
                let frame = (floor as i64 + k as i64 - 1).clamp(0, n as i64 - 1) as usize;
                ((first + frame) as u32, weights[k] as f32)
            })
        })
        .collect()
}

/// Weighted sums of rows.
fn combine(rows: &Tensor, taps: &[Taps]) -> Result<Tensor> {
    let mut total: Option<Tensor> = None;
    for k in 0..4 {
        let frames: Vec<u32> = taps.iter().map(|taps| taps[k].0).collect();
        let weights: Vec<f32> = taps.iter().map(|taps| taps[k].1).collect();
        let frames = Tensor::from_vec(frames, taps.len(), rows.device())?;
        let weights = Tensor::from_vec(weights, (taps.len(), 1), rows.device())?;
        let term = rows.index_select(&frames, 0)?.broadcast_mul(&weights)?;
        total = Some(match total {
            Some(total) => (total + term)?,
            None => term,
        });
    }
    Ok(total.expect("there are four taps"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use asr_kernels::Precision;
    use candle_core::Device;

    #[test]
    fn resizing_is_cubic_and_keeps_its_length() {
        for (t, taps) in resized(3, 7, 7).iter().enumerate() {
            assert_eq!(taps[1], ((3 + t) as u32, 1.0));
        }
        let values = [1.0_f32, 2.0, 4.0];
        let found: Vec<f32> = resized(0, 3, 5)
            .iter()
            .map(|taps| taps.iter().map(|(i, w)| values[*i as usize] * w).sum())
            .collect();
        // The middle of five is the middle of three; the first lies at -0.2, where edges repeat.
        assert!((found[2] - 2.0).abs() < 1e-6);
        let near = |x: f32| ((1.25 * x) - 2.25) * x * x + 1.0;
        let far = |x: f32| ((-0.75 * x + 3.75) * x - 6.0) * x + 3.0;
        let first = far(1.8) + near(0.8) + near(0.2) + 2.0 * far(1.2);
        assert!((found[0] - first).abs() < 1e-5);
    }

    #[test]
    fn every_clip_is_masked_for_itself_and_in_training_only() -> Result<()> {
        let (frames, dim) = (60, 64);
        let ones = Tensor::ones((2, frames, dim), candle_core::DType::F32, &Device::Cpu)?;
        let input = Sequence { hidden: ones, lengths: vec![frames, 45] };
        let masks = SpecAugment::default();
        let still = masks.apply(&input, &Pass::inference(Precision::F32))?;
        assert_eq!(still.hidden.sum_all()?.to_scalar::<f32>()?, (2 * frames * dim) as f32);
        let mut differ = 0;
        for seed in 0..20 {
            let masked = masks.apply(&input, &Pass::training(Precision::F32, seed))?;
            let values = masked.hidden.to_vec3::<f32>()?;
            for clip in &values {
                // A constant stays one through the warp, so what is not 1 is masked.
                assert!(clip.iter().flatten().all(|v| v.abs() < 1e-5 || (v - 1.0).abs() < 1e-5));
                let masked_channels = (0..dim).filter(|&c| clip.iter().all(|f| f[c] == 0.0));
                assert!(masked_channels.count() <= 2 * 26);
                let masked_frames = clip.iter().filter(|f| f.iter().all(|&v| v == 0.0));
                assert!(masked_frames.count() <= 10 * 2);
            }
            differ += usize::from(values[0] != values[1]);
        }
        assert!(differ > 15, "clips share their masks");
        Ok(())
    }
}
