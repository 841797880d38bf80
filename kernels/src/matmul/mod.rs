//! Matrix products of strided f32 matrices: `c = a · b + bias`, or `c += a · b`.
//!
//! Both operands are packed into panels that fit the caches and multiplied by a
//! register-tiled micro-kernel (Goto and van de Geijn 2008). Because packing reads through
//! strides, transposes cost nothing and a convolution over time is a product whose
//! rows overlap ([`crate::conv`]).

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512bf16;
mod blocked;
mod portable;

use crate::isa::{Isa, isa};
use crate::threads;

/// Arithmetic of a product. Inputs, sums and outputs are f32 in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// Every product in f32.
    #[default]
    F32,
    /// Inputs rounded to bfloat16, products exact, sums in f32: about twice as fast where
    /// the CPU has the instruction, relative error near 2^-8 per term. CPUs without it
    /// compute in f32.
    Bf16,
}

/// A read-only matrix in a slice; element `(i, j)` is `data[i * row_stride + j * col_stride]`.
/// Rows may overlap.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A view with any strides.
    ///
    /// # Panics
    /// If the last element lies outside `data`.
    #[must_use]
    pub fn strided(
        data: &'a [f32],
        rows: usize,
        cols: usize,
        row_stride: usize,
        col_stride: usize,
    ) -> Self {
        if rows > 0 && cols > 0 {
            let last = (rows - 1) * row_stride + (cols - 1) * col_stride;
            assert!(last < data.len(), "matrix view exceeds its data");
        }
        Self { data, rows, cols, row_stride, col_stride }
    }

    /// A row-major matrix.
    #[must_use]
    pub fn row_major(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols, 1)
    }

    /// The transposed view.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    fn row_range(self, start: usize, rows: usize) -> Self {
        let data = if rows == 0 { self.data } else { &self.data[start * self.row_stride..] };
        Self { data, rows, ..self }
    }

    fn col_range(self, start: usize, cols: usize) -> Self {
        let data = if cols == 0 { self.data } else { &self.data[start * self.col_stride..] };
        Self { data, cols, ..self }
    }
}

/// What happens to the old contents of the output.
#[derive(Debug, Clone, Copy)]
pub enum Output<'a> {
    /// `c = a · b`
    Overwrite,
    /// `c = a · b + bias`, one value per column
    Bias(&'a [f32]),
    /// `c += a · b`
    Accumulate,
}

/// Product of `a` `(m, k)` and `b` `(k, n)` into `c` `(m, n)`, whose rows lie `c_row_stride` apart.
///
/// The result does not depend on the number of threads.
///
/// # Panics
/// If shapes disagree or `c` is too short.
pub fn matmul(
    a: Matrix<'_>,
    b: Matrix<'_>,
    c: &mut [f32],
    c_row_stride: usize,
    output: Output<'_>,
    precision: Precision,
) {
    let (m, n) = (a.rows, b.cols);
    assert_eq!(a.cols, b.rows, "inner dimensions differ");
    if m == 0 || n == 0 {
        return;
    }
    assert!(c_row_stride >= n, "rows of the output overlap");
    assert!((m - 1) * c_row_stride + n <= c.len(), "output is too short");
    if let Output::Bias(bias) = output {
        assert_eq!(bias.len(), n, "bias has another width");
    }
    let run = kernel(precision);
    let c = CPointer(c.as_mut_ptr());
    let work = m * n * a.cols.max(1);
    // A piece should be worth some 100 microseconds, or the hand-over dominates.
    let pieces = threads::available().min(work.div_ceil(1 << 22));
    if pieces <= 1 {
        // SAFETY: the whole output was checked above.
        unsafe { run(a, b, c.get(), c_row_stride, output) };
    } else if m >= n {
        let step = m.div_ceil(pieces).next_multiple_of(blocked::ROW_ALIGN);
        threads::for_each(m.div_ceil(step), |i| {
            let (start, rows) = (i * step, step.min(m - i * step));
            // SAFETY: pieces are disjoint rows of the output checked above.
            unsafe {
                let c = c.get().add(start * c_row_stride);
                run(a.row_range(start, rows), b, c, c_row_stride, output);
            }
        });
    } else {
        let step = n.div_ceil(pieces).next_multiple_of(blocked::COL_ALIGN);
        threads::for_each(n.div_ceil(step), |i| {
            let (start, cols) = (i * step, step.min(n - i * step));
            let output = match output {
                Output::Bias(bias) => Output::Bias(&bias[start..start + cols]),
                other => other,
            };
            // SAFETY: pieces are disjoint columns of the output checked above.
            unsafe {
                let c = c.get().add(start);
                run(a, b.col_range(start, cols), c, c_row_stride, output);
            }
        });
    }
}

#[derive(Clone, Copy)]
struct CPointer(*mut f32);
// SAFETY: each thread writes its own disjoint part, see `matmul`.
unsafe impl Send for CPointer {}
// SAFETY: as above.
unsafe impl Sync for CPointer {}

impl CPointer {
    fn get(self) -> *mut f32 {
        self.0
    }
}

type Run = unsafe fn(Matrix<'_>, Matrix<'_>, *mut f32, usize, Output<'_>);

#[cfg(target_arch = "x86_64")]
fn kernel(precision: Precision) -> Run {
    match (isa(), precision) {
        (Isa::Avx512Bf16, Precision::Bf16) => blocked::run::<avx512bf16::Kernel>,
        (Isa::Avx512Bf16 | Isa::Avx512, _) => blocked::run::<avx512::Kernel>,
        (Isa::Avx2, _) => blocked::run::<avx2::Kernel>,
        (Isa::Portable, _) => blocked::run::<portable::Kernel>,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn kernel(_precision: Precision) -> Run {
    debug_assert_eq!(isa(), Isa::Portable);
    blocked::run::<portable::Kernel>
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference;

    fn values(n: usize, seed: u64) -> Vec<f32> {
        reference::uniform(n, seed)
    }

    fn kernels() -> Vec<(&'static str, Run, f32)> {
        let mut all: Vec<(&'static str, Run, f32)> =
            vec![("portable", blocked::run::<portable::Kernel>, 1e-5)];
        #[cfg(target_arch = "x86_64")]
        {
            if isa() >= Isa::Avx2 {
                all.push(("avx2", blocked::run::<avx2::Kernel>, 1e-5));
            }
            if isa() >= Isa::Avx512 {
                all.push(("avx512", blocked::run::<avx512::Kernel>, 1e-5));
            }
            if isa() >= Isa::Avx512Bf16 {
                all.push(("avx512bf16", blocked::run::<avx512bf16::Kernel>, 8e-3));
            }
        }
        all
    }

    #[test]
    fn every_kernel_agrees_with_the_reference_on_odd_shapes() {
        for (name, run, tolerance) in kernels() {
            for (m, k, n) in [
                (1, 1, 1),
                (1, 7, 33),
                (13, 1, 31),
                (12, 256, 32),
                (25, 513, 65),
                (130, 37, 3),
                (97, 700, 45),
            ] {
                let a = values(m * k, 1);
                let b = values(k * n, 2);
                let bias = values(n, 3);
                let mut want = vec![0.0; m * n];
                for row in want.chunks_mut(n) {
                    row.copy_from_slice(&bias);
                }
                let product = reference::matmul(&a, &b, m, k, n);
                for (w, p) in want.iter_mut().zip(product) {
                    *w += p;
                }
                // The transposed storage of b must give the same product.
                let b_columns: Vec<f32> = (0..n * k).map(|i| b[(i % k) * n + i / k]).collect();
                for b in
                    [Matrix::row_major(&b, k, n), Matrix::row_major(&b_columns, n, k).transposed()]
                {
                    let mut got = vec![f32::NAN; m * n];
                    // SAFETY: `got` holds m rows of n values.
                    unsafe {
                        let a = Matrix::row_major(&a, m, k);
                        run(a, b, got.as_mut_ptr(), n, Output::Bias(&bias));
                    }
                    let scale = (k as f32).sqrt();
                    for (i, (g, w)) in got.iter().zip(&want).enumerate() {
                        assert!(
                            (g - w).abs() <= tolerance * scale,
                            "{name} ({m},{k},{n}) at {i}: {g} against {w}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn accumulate_adds_and_threads_do_not_change_the_result() {
        let (m, k, n) = (211, 300, 190);
        let (a, b) = (values(m * k, 4), values(k * n, 5));
        let (a, b) = (Matrix::row_major(&a, m, k), Matrix::row_major(&b, k, n));
        let mut parallel = vec![1.0; m * n];
        matmul(a, b, &mut parallel, n, Output::Accumulate, Precision::F32);
        let mut alone = vec![1.0; m * n];
        threads::serial(|| matmul(a, b, &mut alone, n, Output::Accumulate, Precision::F32));
        assert_eq!(parallel, alone);
        let mut overwritten = vec![f32::NAN; m * n];
        matmul(a, b, &mut overwritten, n, Output::Overwrite, Precision::F32);
        for (sum, product) in alone.iter().zip(&overwritten) {
            assert!((sum - product - 1.0).abs() < 1e-4);
        }
    }
}
