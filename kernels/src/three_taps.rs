//! Convolution of three taps at stride two in five products for two output frames, where the
//! sum over taps takes six.
//!
//! Two outputs next to each other share their middle input frame: of inputs `a b m c d` and
//! taps `f g h`, `y0 = a f + b g + m h` and `y1 = m f + c g + d h`. With `s = m (f + h)`,
//!
//! ```text
//! y0 = s + (a - m) f + b g
//! y1 = s + c g + (d - m) h
//! ```
//!
//! which is minimal filtering F(2, 2) (Winograd 1980) of the even frames `a m d` by `f h`.

use crate::matmul::{Matrix, Output, Packed, Precision, matmul_packed_strided};
use crate::vector::vectorised;

/// The taps, prepared for f32 products.
#[derive(Debug)]
pub(crate) struct ThreeTaps {
    channels: usize,
    /// `f + h`
    shared: Packed,
    /// `f` over `g`
    first: Packed,
    /// `g` over `h`
    second: Packed,
}

vectorised! {
    /// Fills rows of four frames: `a - m`, `b`, `c`, `d - m`; the last row may lack `c` and `d`.
    fn differences(source: &[f32], channels: usize, rows: &mut [f32]) {
        for (pair, row) in rows.chunks_exact_mut(4 * channels).enumerate() {
            let frames = &source[4 * pair * channels..];
            let (early, late) = row.split_at_mut(2 * channels);
            let m = &frames[2 * channels..3 * channels];
            for ((out, a), m) in early.iter_mut().zip(&frames[..channels]).zip(m) {
                *out = a - m;
            }
            early[channels..].copy_from_slice(&frames[channels..2 * channels]);
            if frames.len() >= 5 * channels {
                late[..channels].copy_from_slice(&frames[3 * channels..4 * channels]);
                let d = &frames[4 * channels..5 * channels];
                for ((out, d), m) in late[channels..].iter_mut().zip(d).zip(m) {
                    *out = d - m;
                }
            }
        }
    }
}

impl ThreeTaps {
    /// `weight`: `(outputs, 3, channels)`.
    pub(crate) fn new(weight: &[f32], outputs: usize) -> Self {
        let channels = weight.len() / (3 * outputs);
        let row = 3 * channels;
        let sum: Vec<f32> = weight
            .chunks_exact(row)
            .flat_map(|taps| taps[..channels].iter().zip(&taps[2 * channels..]).map(|(f, h)| f + h))
            .collect();
        let pack = |view: Matrix<'_>| Packed::new(view.transposed(), Precision::F32);
        Self {
            channels,
            shared: pack(Matrix::row_major(&sum, outputs, channels)),
            first: pack(Matrix::strided(weight, outputs, 2 * channels, row, 1)),
            second: pack(Matrix::strided(&weight[channels..], outputs, 2 * channels, row, 1)),
        }
    }

    /// Output frames `(frames, outputs)` of the input frames at the start of `source`,
    /// `2 frames + 1` of them; `output` overwrites or adds a bias. `rows` is a buffer.
    pub(crate) fn run(
        &self,
        source: &[f32],
        frames: usize,
        output: Output<'_>,
        (out, rows): (&mut Vec<f32>, &mut Vec<f32>),
    ) {
        let (channels, (_, outputs)) = (self.channels, self.shared.shape());
        let source = &source[..(2 * frames + 1) * channels];
        let firsts = frames.div_ceil(2);
        out.resize(frames * outputs, 0.0);
        let middle = Matrix::strided(&source[2 * channels..], firsts, channels, 4 * channels, 1);
        matmul_packed_strided(middle, &self.shared, out, 2 * outputs, output);
        for pair in out.chunks_exact_mut(2 * outputs) {
            let (first, second) = pair.split_at_mut(outputs);
            second.copy_from_slice(first);
        }
        rows.resize(4 * firsts * channels, 0.0);
        differences(source, channels, rows);
        let add = |out: &mut [f32], from: &[f32], count: usize, taps: &Packed| {
            let view = Matrix::strided(from, count, 2 * channels, 4 * channels, 1);
            matmul_packed_strided(view, taps, out, 2 * outputs, Output::Accumulate);
        };
        add(out, rows, firsts, &self.first);
        if frames > 1 {
            add(&mut out[outputs..], &rows[2 * channels..], frames / 2, &self.second);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{self, uniform};

    #[test]
    fn five_products_make_what_six_make() {
        for (channels, outputs) in reference::cases([(1, 1), (7, 5), (64, 33)], 2) {
            let weight = uniform(outputs * 3 * channels, 1);
            let bias = uniform(outputs, 2);
            let taps = ThreeTaps::new(&weight, outputs);
            // Buffers are used again, longer and shorter.
            let (mut out, mut rows) = (Vec::new(), Vec::new());
            for frames in [1, 2, 9, 3, 40, 1] {
                let source = uniform((2 * frames + 1) * channels, frames as u64);
                taps.run(&source, frames, Output::Bias(&bias), (&mut out, &mut rows));
                assert_eq!(out.len(), frames * outputs);
                for (t, row) in out.chunks_exact(outputs).enumerate() {
                    let window = &source[2 * t * channels..][..3 * channels];
                    for ((got, taps), bias) in
                        row.iter().zip(weight.chunks(3 * channels)).zip(&bias)
                    {
                        let products =
                            window.iter().zip(taps).map(|(&x, &w)| f64::from(x) * f64::from(w));
                        let want = f64::from(*bias) + products.sum::<f64>();
                        assert!(
                            (f64::from(*got) - want).abs() < 1e-5,
                            "frame {t}: {got} and {want}"
                        );
                    }
                }
            }
        }
    }
}
