//! Cutting a waveform into windowed frames.

use serde::{Deserialize, Serialize};

/// The taper applied to each frame before the Fourier transform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowShape {
    /// Kaldi's default: a Hann window to the power 0.85, which does not quite reach zero slope at the ends.
    #[default]
    Povey,
    /// Symmetric Hamming window, 0.54 - 0.46 cos.
    Hamming,
    /// Symmetric Hann window.
    Hann,
    /// No taper.
    Rectangular,
}

impl WindowShape {
    /// The `length` coefficients of the symmetric window.
    ///
    /// Rounded to f32 after each step like torch's window functions: the rounding decides what is found 120 dB
    /// below a pure tone, and parity with features computed there is worth more than the last bit.
    pub(super) fn coefficients(self, length: usize) -> Vec<f32> {
        let step = (std::f64::consts::TAU / (length.max(2) - 1) as f64) as f32;
        (0..length)
            .map(|n| {
                let cosine = f64::from(n as f32 * step).cos() as f32;
                match self {
                    // Kaldi feat/feature-window.cc, FeatureWindowFunction
                    Self::Povey => (-0.5 * cosine + 0.5).max(0.0).powf(0.85),
                    Self::Hamming => -0.46 * cosine + 0.54,
                    Self::Hann => -0.5 * cosine + 0.5,
                    Self::Rectangular => 1.0,
                }
            })
            .collect()
    }
}

/// What happens where a window does not fit the waveform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Edges {
    /// Kaldi's `snip_edges`: only windows that fit, so a waveform shorter than one window has no frame.
    Snip,
    /// As `Snip`, but a waveform shorter than one window (even an empty one) is followed by zeros and has one frame.
    #[default]
    AtLeastOne,
    /// Kaldi's `snip_edges = false`: one frame per frame shift, centred on it, the waveform mirrored at both ends.
    /// An empty waveform has no frame.
    Centred,
}

/// Frame geometry and the operations done on each frame, with every length in samples.
#[derive(Debug, Clone)]
pub(super) struct Framing {
    pub(super) window_samples: usize,
    pub(super) shift_samples: usize,
    pub(super) edges: Edges,
    pub(super) remove_dc: bool,
    pub(super) preemphasis: f32,
    pub(super) sample_scale: f32,
    pub(super) taper: Vec<f32>,
}

impl Framing {
    /// Number of frames of a waveform of `n_samples`.
    pub(super) fn n_frames(&self, n_samples: usize) -> usize {
        match self.edges {
            Edges::Centred => (n_samples + self.shift_samples / 2) / self.shift_samples,
            Edges::Snip if n_samples < self.window_samples => 0,
            Edges::Snip | Edges::AtLeastOne => {
                1 + n_samples.saturating_sub(self.window_samples) / self.shift_samples
            }
        }
    }

    /// Writes the processed frame `index` into `frame`, which has `window_samples` places.
    ///
    /// Returns the energy of the frame after DC removal, before pre-emphasis and window (Kaldi's raw energy).
    pub(super) fn extract(&self, waveform: &[f32], index: usize, frame: &mut [f32]) -> f32 {
        self.copy_samples(waveform, index, frame);
        if self.sample_scale != 1.0 {
            frame.iter_mut().for_each(|x| *x *= self.sample_scale);
        }
        if self.remove_dc {
            let mean = lane_sum(frame, |x| x) / frame.len() as f32;
            frame.iter_mut().for_each(|x| *x -= mean);
        }
        let energy = lane_sum(frame, |x| x * x);
        if self.preemphasis != 0.0 {
            // Backwards, so that each sample still sees its unmodified predecessor; the first uses itself.
            for n in (1..frame.len()).rev() {
                frame[n] -= self.preemphasis * frame[n - 1];
            }
            frame[0] -= self.preemphasis * frame[0];
        }
        for (x, w) in frame.iter_mut().zip(&self.taper) {
            *x *= w;
        }
        energy
    }

    fn copy_samples(&self, waveform: &[f32], index: usize, frame: &mut [f32]) {
        let start = match self.edges {
            Edges::Centred => {
                (index * self.shift_samples + self.shift_samples / 2) as i64
                    - (self.window_samples / 2) as i64
            }
            Edges::Snip | Edges::AtLeastOne => (index * self.shift_samples) as i64,
        };
        if let Ok(start) = usize::try_from(start)
            && let Some(inside) = waveform.get(start..start + frame.len())
        {
            frame.copy_from_slice(inside);
        } else if self.edges == Edges::Centred {
            for (n, x) in frame.iter_mut().enumerate() {
                *x = waveform[mirror(start + n as i64, waveform.len())];
            }
        } else {
            let tail = waveform.get(start as usize..).unwrap_or_default();
            let kept = tail.len().min(frame.len());
            frame[..kept].copy_from_slice(&tail[..kept]);
            frame[kept..].fill(0.0);
        }
    }
}

/// Reflects a sample position into `0..n_samples`, the end samples repeated, as often as it takes.
///
/// `n_samples` is at least 1: a centred frame exists only for a waveform with samples.
fn mirror(position: i64, n_samples: usize) -> usize {
    let n = n_samples as i64;
    let folded = position.rem_euclid(2 * n);
    (if folded < n { folded } else { 2 * n - 1 - folded }) as usize
}

/// Sum of `f(x)` over four blocks of eight lanes, then over the blocks, then over the lanes.
///
/// Vectorises, rounds less than one running sum, and is the order of torch's f32 sums (`SumKernel.cpp`, AVX2), which
/// decides the last bit of the mean and with it the bins far below a pure tone.
fn lane_sum(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    const LANES: usize = 8;
    const BLOCKS: usize = 4;
    let mut blocks = [[0.0f32; LANES]; BLOCKS];
    let add = |lanes: &mut [f32; LANES], values: &[f32]| {
        for (lane, &x) in lanes.iter_mut().zip(values) {
            *lane += f(x);
        }
    };
    let rounds = values.chunks_exact(LANES * BLOCKS);
    let tail = rounds.remainder().chunks_exact(LANES);
    for round in rounds {
        for (lanes, chunk) in blocks.iter_mut().zip(round.chunks_exact(LANES)) {
            add(lanes, chunk);
        }
    }
    let rest: f32 = tail.remainder().iter().map(|&x| f(x)).sum();
    tail.for_each(|chunk| add(&mut blocks[0], chunk));
    let [mut lanes, others @ ..] = blocks;
    for other in others {
        for (lane, x) in lanes.iter_mut().zip(other) {
            *lane += x;
        }
    }
    lanes.iter().fold(rest, |sum, lane| sum + lane)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing(edges: Edges) -> Framing {
        Framing {
            window_samples: 4,
            shift_samples: 2,
            edges,
            remove_dc: false,
            preemphasis: 0.0,
            sample_scale: 1.0,
            taper: vec![1.0; 4],
        }
    }

    #[test]
    fn frame_counts_by_hand() {
        struct Case(Edges, usize, usize);
        let cases = [
            Case(Edges::Snip, 0, 0),
            Case(Edges::Snip, 3, 0),
            Case(Edges::Snip, 4, 1),
            Case(Edges::Snip, 5, 1),
            Case(Edges::Snip, 6, 2),
            Case(Edges::AtLeastOne, 0, 1),
            Case(Edges::AtLeastOne, 3, 1),
            Case(Edges::AtLeastOne, 6, 2),
            Case(Edges::Centred, 0, 0),
            Case(Edges::Centred, 1, 1),
            Case(Edges::Centred, 4, 2),
            Case(Edges::Centred, 5, 3),
        ];
        for Case(edges, n_samples, want) in cases {
            assert_eq!(framing(edges).n_frames(n_samples), want, "{edges:?} of {n_samples}");
        }
    }

    #[test]
    fn frames_hold_the_right_samples() {
        let wave = [1.0, 2.0, 3.0, 4.0, 5.0];
        let take = |edges, wave: &[f32], index| {
            let mut frame = [9.0; 4];
            framing(edges).extract(wave, index, &mut frame);
            frame
        };
        assert_eq!(take(Edges::Snip, &wave, 0), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(take(Edges::AtLeastOne, &[1.0, 2.0], 0), [1.0, 2.0, 0.0, 0.0]);
        assert_eq!(take(Edges::AtLeastOne, &[], 0), [0.0; 4]);
        // centre of frame 0 is sample 1, so it starts at -1, which mirrors onto sample 0
        assert_eq!(take(Edges::Centred, &wave, 0), [1.0, 1.0, 2.0, 3.0]);
        assert_eq!(take(Edges::Centred, &wave, 2), [4.0, 5.0, 5.0, 4.0]);
        assert_eq!(take(Edges::Centred, &[7.0], 0), [7.0; 4]);
    }

    #[test]
    fn dc_preemphasis_and_energy_by_hand() {
        let mut settings = framing(Edges::Snip);
        settings.remove_dc = true;
        settings.preemphasis = 0.5;
        let mut frame = [0.0; 4];
        let energy = settings.extract(&[2.0, 4.0, 2.0, 4.0], 0, &mut frame);
        assert_eq!(energy, 4.0);
        assert_eq!(frame, [-0.5, 1.5, -1.5, 1.5]);
    }

    #[test]
    fn sums_of_every_length_are_complete() {
        for length in 0..200u16 {
            let values: Vec<f32> = (1..=length).map(f32::from).collect();
            let want = u32::from(length) * (u32::from(length) + 1) / 2;
            assert_eq!(lane_sum(&values, |x| x), want as f32);
        }
    }

    #[test]
    fn windows_are_symmetric_and_known_at_ends_and_middle() {
        for (shape, end, middle) in [
            (WindowShape::Povey, 0.0, 1.0),
            (WindowShape::Hamming, 0.08, 1.0),
            (WindowShape::Hann, 0.0, 1.0),
            (WindowShape::Rectangular, 1.0, 1.0),
        ] {
            let w = shape.coefficients(401);
            assert!((w[0] - end).abs() < 1e-6 && (w[200] - middle).abs() < 1e-6, "{shape:?}");
            assert!((0..401).all(|n| (w[n] - w[400 - n]).abs() < 1e-6), "{shape:?}");
        }
    }
}
