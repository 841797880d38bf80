//! The nearest of many centroids to each frame.
//!
//! `argmin_j |x - c_j|²  =  argmin_j (|c_j|² - 2 x · c_j)`: a matrix product whose bias is the
//! squared length of each centroid, a block of frames at a time so that the product stays in
//! the cache until its minima are found.

#[cfg(feature = "cuda")]
use crate::device::{card::Card, loss};
use crate::matmul::{Matrix, Output, Packed, Precision, matmul_packed_into};
use crate::threads;
use crate::vector::vectorised;
#[cfg(feature = "cuda")]
use candle_core::{Device, Result, Tensor, bail};

/// Frames whose products are kept at once: with a thousand centroids, half a megabyte.
const BLOCK: usize = 120;
/// Most frames that one thread takes at a time.
const PIECE: usize = 8 * BLOCK;
/// Values compared side by side.
const LANES: usize = 16;

/// Centroids, prepared for many searches.
#[derive(Debug, Clone)]
pub struct Centroids {
    values: Vec<f32>,
    dim: usize,
    /// `-2 c`, transposed.
    packed: Packed,
    /// `|c|²`
    squares: Vec<f32>,
}

impl Centroids {
    /// Prepares centroids `(centroids, dim)`, row-major.
    ///
    /// # Panics
    /// If there is none, `dim` is 0 or does not divide the number of values, or there are
    /// more than 2^32 centroids.
    #[must_use]
    pub fn new(values: Vec<f32>, dim: usize) -> Self {
        assert!(dim > 0 && !values.is_empty(), "there is at least one centroid of one value");
        assert!(values.len().is_multiple_of(dim), "every centroid has `dim` values");
        let n = values.len() / dim;
        assert!(u32::try_from(n - 1).is_ok(), "centroids are counted in 32 bits");
        let doubled: Vec<f32> = values.iter().map(|v| -2.0 * v).collect();
        let packed = Packed::new(Matrix::row_major(&doubled, n, dim).transposed(), Precision::F32);
        let square = |c: &[f32]| c.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>();
        let squares = values.chunks_exact(dim).map(|c| square(c) as f32).collect();
        Self { values, dim, packed, squares }
    }

    /// Number of centroids.
    #[must_use]
    pub fn count(&self) -> usize {
        self.squares.len()
    }

    /// Values per centroid.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The centroids, `(centroids, dim)`, row-major.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The number of the nearest centroid to each frame; the first of several as near.
    ///
    /// Distances are compared after a product in f32: of two centroids whose squared distances
    /// differ by less than some 1e-6 of the squared lengths, either may be taken.
    ///
    /// # Shapes
    /// - `frames`: `(frames, dim)`, row-major
    /// - returns `(frames,)`
    ///
    /// # Panics
    /// If `dim` does not divide the number of values.
    ///
    /// # Example
    /// ```
    /// use asr_kernels::nearest::Centroids;
    ///
    /// let centroids = Centroids::new(vec![0.0, 0.0, 3.0, 4.0], 2);
    /// assert_eq!(centroids.nearest(&[1.0, 1.0, 2.0, 3.0, 9.0, 9.0]), [0, 1, 1]);
    /// ```
    #[must_use]
    pub fn nearest(&self, frames: &[f32]) -> Vec<u32> {
        assert!(frames.len().is_multiple_of(self.dim), "every frame has `dim` values");
        let mut found = vec![0_u32; frames.len() / self.dim];
        let share = found.len().div_ceil(threads::available()).next_multiple_of(BLOCK);
        let piece = share.clamp(BLOCK, PIECE);
        let pieces = frames.chunks(piece * self.dim).zip(found.chunks_mut(piece));
        let search = |(frames, found): (&[f32], &mut [u32])| {
            let mut products = Vec::new();
            let blocks = frames.chunks(BLOCK * self.dim).zip(found.chunks_mut(BLOCK));
            for (block, found) in blocks {
                let block = Matrix::row_major(block, found.len(), self.dim);
                let bias = Output::Bias(&self.squares);
                matmul_packed_into(block, &self.packed, bias, &mut products);
                smallest(&products, self.count(), found);
            }
        };
        if threads::available() == 1 {
            pieces.for_each(search);
        } else {
            use rayon::prelude::*;
            let pieces: Vec<_> = pieces.collect();
            pieces.into_par_iter().for_each(|piece| threads::serial(|| search(piece)));
        }
        found
    }

    /// The squared distance of each frame to the centroid `found` for it, exact to f32.
    ///
    /// # Panics
    /// If there are not as many frames as numbers, or a number is no centroid's.
    #[must_use]
    pub fn squared_distances(&self, frames: &[f32], found: &[u32]) -> Vec<f32> {
        assert_eq!(frames.len(), found.len() * self.dim, "a number for each frame");
        let distance = |(frame, &number): (&[f32], &u32)| {
            let start = number as usize * self.dim;
            squared_distance(frame, &self.values[start..start + self.dim])
        };
        frames.chunks_exact(self.dim).zip(found).map(distance).collect()
    }
}

/// Centroids on a CUDA device.
#[cfg(feature = "cuda")]
#[derive(Debug)]
pub struct DeviceCentroids {
    /// `-2 c`, `(centroids, dim)`
    doubled: Tensor,
    /// `|c|²`
    squares: Tensor,
}

#[cfg(feature = "cuda")]
impl DeviceCentroids {
    /// Copies centroids to a device.
    ///
    /// # Errors
    /// If there is no room on the device.
    pub fn new(centroids: &Centroids, device: &Device) -> Result<Self> {
        let doubled: Vec<f32> = centroids.values.iter().map(|v| -2.0 * v).collect();
        Ok(Self {
            doubled: Tensor::from_vec(doubled, (centroids.count(), centroids.dim), device)?,
            squares: Tensor::new(centroids.squares.as_slice(), device)?,
        })
    }

    /// As [`Centroids::nearest`], of frames `(frames, dim)` on the device; returns `(frames,)`,
    /// u32.
    ///
    /// # Errors
    /// If the frames are as wide as no centroid or lie elsewhere.
    pub fn nearest(&self, frames: &Tensor) -> Result<Tensor> {
        let (n, dim) = frames.dims2()?;
        let (Some(card), true) = (Card::holding(frames), dim == self.doubled.dim(1)?) else {
            bail!("frames {:?} for centroids {:?}", frames.dims(), self.doubled.dims());
        };
        let frames = frames.contiguous()?;
        let found = card.numbers(n)?;
        let prepared = (card.read(&self.doubled)?, card.read(&self.squares)?);
        let to = card.read_of::<u32>(&found)?;
        loss::nearest(&card, card.read(&frames)?, prepared, dim, to)?;
        Ok(found)
    }
}

vectorised! {
    /// The column of the smallest value of each row of `products`, the first if there are several.
    fn smallest(products: &[f32], columns: usize, found: &mut [u32]) {
        for (row, found) in products.chunks_exact(columns).zip(found) {
            let mut best = [f32::INFINITY; LANES];
            let mut at = [0_u32; LANES];
            let (chunks, rest) = row.as_chunks::<LANES>();
            for (i, chunk) in chunks.iter().enumerate() {
                for lane in 0..LANES {
                    let is_better = chunk[lane] < best[lane];
                    best[lane] = if is_better { chunk[lane] } else { best[lane] };
                    at[lane] = if is_better { i as u32 } else { at[lane] };
                }
            }
            let mut smallest = f32::INFINITY;
            let mut column = 0;
            for lane in 0..LANES {
                let here = at[lane] * LANES as u32 + lane as u32;
                if best[lane] < smallest || (best[lane] == smallest && here < column) {
                    smallest = best[lane];
                    column = here;
                }
            }
            for (i, &value) in rest.iter().enumerate() {
                if value < smallest {
                    smallest = value;
                    column = (chunks.len() * LANES + i) as u32;
                }
            }
            *found = column;
        }
    }
}

vectorised! {
    /// Sum of the squared differences of two vectors.
    pub fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
        let mut sums = [0.0_f32; LANES];
        let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
        for (a, b) in a.iter().zip(b) {
            for lane in 0..LANES {
                let difference = a[lane] - b[lane];
                sums[lane] += difference * difference;
            }
        }
        let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| (a - b) * (a - b)).sum();
        sums.iter().sum::<f32>() + rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{self, uniform};

    #[test]
    fn the_nearest_is_that_of_the_reference() {
        for (frames, centroids, dim) in reference::cases(
            [(1, 1, 1), (5, 3, 7), (121, 16, 39), (300, 33, 64), (2000, 100, 24)],
            3,
        ) {
            let (x, c) = (uniform(frames * dim, 1), uniform(centroids * dim, 2));
            let prepared = Centroids::new(c.clone(), dim);
            assert_eq!((prepared.count(), prepared.dim()), (centroids, dim));
            let found = prepared.nearest(&x);
            let want = reference::nearest(&x, &c, dim);
            let distances = prepared.squared_distances(&x, &found);
            for (i, (found, (want, nearest, margin))) in found.iter().zip(&want).enumerate() {
                assert!(found == want || *margin < 1e-4, "frame {i}: {found} for {want}");
                assert!((f64::from(distances[i]) - nearest).abs() < 1e-3);
            }
            assert!(threads::serial(|| prepared.nearest(&x)) == found, "one thread or several");
        }
    }

    #[test]
    fn the_first_of_equals_is_taken_wherever_they_lie() {
        for n in reference::cases([2, 15, 16, 17, 31, 32, 33, 1000], 7) {
            for first in [0, 1, n / 2, n - 1] {
                let mut values = vec![9.0; n];
                values[first..].fill(1.0);
                let centroids = Centroids::new(values, 1);
                assert_eq!(centroids.nearest(&[0.0, 1.0]), [first as u32; 2], "{n} {first}");
            }
        }
    }

    #[test]
    fn frames_that_are_no_numbers_do_no_harm() {
        let centroids = Centroids::new(uniform(40, 3), 2);
        let found = centroids.nearest(&[f32::NAN, 0.0, f32::INFINITY, 0.0]);
        assert!(found.iter().all(|&found| found < 20));
        assert!(centroids.nearest(&[]).is_empty());
    }
}
