//! Short-time spectra: the one place that uses the FFT library.

use std::sync::Arc;

use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};

/// A planned real FFT of one length, shared by any number of threads.
///
/// The transform is f64: its rounding would otherwise fill the bins between pure tones, and it costs little.
#[derive(Clone)]
pub(super) struct SpectrumPlan {
    transform: Arc<dyn RealToComplex<f64>>,
}

impl std::fmt::Debug for SpectrumPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpectrumPlan").field("n_fft", &self.transform.len()).finish()
    }
}

/// The working memory of one caller of a [`SpectrumPlan`]; nothing is allocated per frame.
pub(super) struct SpectrumScratch {
    input: Vec<f64>,
    spectrum: Vec<Complex<f64>>,
    work: Vec<Complex<f64>>,
    power: Vec<f32>,
}

impl SpectrumPlan {
    /// Plans transforms of `n_fft` samples, an even number.
    pub(super) fn new(n_fft: usize) -> Self {
        Self { transform: RealFftPlanner::<f64>::new().plan_fft_forward(n_fft) }
    }

    /// Memory for one caller.
    pub(super) fn scratch(&self) -> SpectrumScratch {
        SpectrumScratch {
            input: self.transform.make_input_vec(),
            spectrum: self.transform.make_output_vec(),
            work: self.transform.make_scratch_vec(),
            power: vec![0.0; self.transform.len() / 2],
        }
    }

    /// Squared magnitude of bins `0..n_fft / 2` of `frame` followed by zeros (the Nyquist bin is left out, as in
    /// Kaldi's filter banks). Samples of `frame` past `n_fft` are ignored.
    pub(super) fn power<'a>(
        &self,
        frame: &[f32],
        scratch: &'a mut SpectrumScratch,
    ) -> &'a mut [f32] {
        // The transform destroys its input, so the zeros are written each time.
        let kept = frame.len().min(scratch.input.len());
        for (x, &sample) in scratch.input.iter_mut().zip(frame) {
            *x = f64::from(sample);
        }
        scratch.input[kept..].fill(0.0);
        self.transform
            .process_with_scratch(&mut scratch.input, &mut scratch.spectrum, &mut scratch.work)
            .expect("buffers come from the same plan, so their lengths match");
        for (power, bin) in scratch.power.iter_mut().zip(&scratch.spectrum) {
            *power = bin.norm_sqr() as f32;
        }
        &mut scratch.power
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cosine_of_four_cycles_sits_in_bin_four() {
        let plan = SpectrumPlan::new(64);
        let mut scratch = plan.scratch();
        let frame: Vec<f32> = (0..64)
            .map(|n| (std::f64::consts::TAU * 4.0 * f64::from(n) / 64.0).cos() as f32)
            .collect();
        for round in 0..2 {
            let power = plan.power(&frame, &mut scratch);
            assert_eq!(power.len(), 32);
            for (bin, &p) in power.iter().enumerate() {
                let want = if bin == 4 { 1024.0 } else { 0.0 };
                assert!((p - want).abs() < 1e-3, "round {round} bin {bin}: {p}");
            }
        }
    }

    #[test]
    fn a_short_frame_is_followed_by_zeros() {
        let plan = SpectrumPlan::new(8);
        let mut scratch = plan.scratch();
        plan.power(&[9.0; 8], &mut scratch);
        assert_eq!(plan.power(&[2.0], &mut scratch), [4.0; 4]);
    }
}
