//! Matrix products of strided f32 matrices: `c = a · b + bias`, or `c += a · b`.
//!
//! Both operands are packed into panels that fit the caches and multiplied by a
//! register-tiled micro-kernel (Goto and van de Geijn 2008). Because packing reads through
//! strides, transposes cost nothing and a convolution over time is a product whose
//! rows overlap ([`crate::conv`]).

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_tile;
#[cfg(target_arch = "x86_64")]
mod avx512bf16;
mod blocked;
mod int8;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

#[cfg(target_arch = "x86_64")]
pub(crate) use amx::request as has_amx;

#[cfg(target_arch = "x86_64")]
use crate::isa::has_fast_bf16_vectors;
use crate::isa::{Isa, isa};
use crate::storage::with_slice;
use crate::threads;
use crate::three_taps::ThreeTaps;
use blocked::{Panels, Right};
use candle_core::{Result, Tensor};
use int8::Int8Weights;
use std::sync::{Arc, OnceLock};

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
    /// The weights of affine maps rounded to 8-bit integers with one scale per output, each
    /// frame rounded with a scale of its own; sums exact. Convolutions and attention take bf16.
    Int8,
}

impl Precision {
    /// What products between values that are not weights of affine maps take.
    pub(crate) fn without_int8(self) -> Self {
        if self == Self::Int8 { Self::Bf16 } else { self }
    }
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

impl<'a> Output<'a> {
    /// The same for columns `start..start + cols`.
    fn cols(self, start: usize, cols: usize) -> Self {
        match self {
            Self::Bias(bias) => Self::Bias(&bias[start..start + cols]),
            other => other,
        }
    }
}

/// A right operand prepared once for many products: the weights of a model in use.
#[derive(Debug, Clone)]
pub struct Packed {
    panels: Prepared,
    precision: Precision,
}

#[derive(Debug, Clone)]
enum Prepared {
    Floats(Panels),
    Int8(Int8Weights),
}

impl Packed {
    /// Prepares `b` for products in `precision`.
    #[must_use]
    pub fn new(b: Matrix<'_>, precision: Precision) -> Self {
        let panels = match precision {
            Precision::Int8 => Prepared::Int8(Int8Weights::new(b)),
            // SAFETY: `kernel` chooses what the CPU has.
            _ => Prepared::Floats(unsafe { (kernel(precision).pack)(b) }),
        };
        Self { panels, precision }
    }

    /// Rows and columns of the operand.
    #[must_use]
    pub fn shape(&self) -> (usize, usize) {
        match &self.panels {
            Prepared::Floats(panels) => (panels.k, panels.n),
            Prepared::Int8(weights) => weights.shape(),
        }
    }
}

/// Product of `a` and a prepared operand into a new vector.
///
/// # Panics
/// If shapes disagree.
#[must_use]
pub fn matmul_packed(a: Matrix<'_>, b: &Packed, output: Output<'_>) -> Vec<f32> {
    let mut c = Vec::new();
    matmul_packed_into(a, b, output, &mut c);
    c
}

/// [`matmul_packed`] in place of what a vector held.
pub(crate) fn matmul_packed_into(a: Matrix<'_>, b: &Packed, output: Output<'_>, c: &mut Vec<f32>) {
    let (k, n) = b.shape();
    assert_eq!(a.cols, k, "inner dimensions differ");
    assert!(!matches!(output, Output::Accumulate), "there is nothing to add to");
    c.clear();
    c.reserve(a.rows * n);
    // SAFETY: the vector has room for every row, and each value is written.
    unsafe {
        let precision = b.precision;
        match &b.panels {
            Prepared::Floats(packed) => {
                let b = Right::Panels { packed, start: 0, cols: n };
                spread(a, b, c.as_mut_ptr(), n, output, kernel(precision).run);
            }
            Prepared::Int8(weights) => int8::product(a, weights, c.as_mut_ptr(), output),
        }
        c.set_len(a.rows * n);
    }
}

/// Product of `a` and an operand prepared for f32 or bf16 into rows `c_row_stride` apart.
///
/// # Panics
/// If shapes disagree, `c` is too short, or the operand was prepared for 8-bit integers.
pub(crate) fn matmul_packed_strided(
    a: Matrix<'_>,
    b: &Packed,
    c: &mut [f32],
    c_row_stride: usize,
    output: Output<'_>,
) {
    let Prepared::Floats(packed) = &b.panels else {
        panic!("8-bit operands have products of their own");
    };
    assert_eq!(a.cols, packed.k, "inner dimensions differ");
    if a.rows > 0 {
        assert!((a.rows - 1) * c_row_stride + packed.n <= c.len(), "output is too short");
    }
    let right = Right::Panels { packed, start: 0, cols: packed.n };
    // SAFETY: the slice holds every row.
    unsafe { spread(a, right, c.as_mut_ptr(), c_row_stride, output, kernel(b.precision).run) }
}

/// The prepared forms of a weight that does not change, made when first asked for.
#[derive(Debug, Default)]
pub struct PreparedWeight {
    forms: [OnceLock<Arc<Packed>>; 3],
    three_taps: OnceLock<Arc<ThreeTaps>>,
}

impl PreparedWeight {
    /// The form for `precision`, made by `pack` if need be; `None` for a weight that is being
    /// trained, whose values change.
    ///
    /// # Errors
    /// Those of `pack`.
    pub(crate) fn get(
        &self,
        weight: &Tensor,
        precision: Precision,
        pack: impl FnOnce(&[f32]) -> Packed,
    ) -> Result<Option<Arc<Packed>>> {
        if weight.track_op() {
            return Ok(None);
        }
        let form = &self.forms[precision as usize];
        if let Some(packed) = form.get() {
            return Ok(Some(Arc::clone(packed)));
        }
        let packed = Arc::new(with_slice(weight, pack)?);
        Ok(Some(Arc::clone(form.get_or_init(|| packed))))
    }

    /// The form for a convolution of three taps at stride two, made by `pack` if need be, of
    /// a weight that is not being trained.
    ///
    /// # Errors
    /// If the weight is not f32 on the CPU.
    pub(crate) fn three_taps(
        &self,
        weight: &Tensor,
        pack: impl FnOnce(&[f32]) -> ThreeTaps,
    ) -> Result<Arc<ThreeTaps>> {
        if let Some(taps) = self.three_taps.get() {
            return Ok(Arc::clone(taps));
        }
        let taps = Arc::new(with_slice(weight, pack)?);
        Ok(Arc::clone(self.three_taps.get_or_init(|| taps)))
    }
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
    if m > 0 && n > 0 {
        assert!((m - 1) * c_row_stride + n <= c.len(), "output is too short");
    }
    // SAFETY: the slice holds every row.
    unsafe { matmul_at(a, b, c.as_mut_ptr(), c_row_stride, output, precision) }
}

/// [`matmul`] into a new vector.
pub(crate) fn product(
    a: Matrix<'_>,
    b: Matrix<'_>,
    output: Output<'_>,
    precision: Precision,
) -> Vec<f32> {
    let mut c = Vec::new();
    product_into(a, b, output, precision, &mut c);
    c
}

/// [`matmul`] in place of what a vector held.
pub(crate) fn product_into(
    a: Matrix<'_>,
    b: Matrix<'_>,
    output: Output<'_>,
    precision: Precision,
    c: &mut Vec<f32>,
) {
    let (m, n) = (a.rows, b.cols);
    assert!(!matches!(output, Output::Accumulate), "there is nothing to add to");
    c.clear();
    c.reserve(m * n);
    // SAFETY: the vector has room for every row, and each value is written.
    unsafe {
        matmul_at(a, b, c.as_mut_ptr(), n, output, precision);
        c.set_len(m * n);
    }
}

/// [`matmul`] through a pointer.
///
/// # Safety
/// `c` must be valid for `m` rows of `n` values, `c_row_stride` apart; they need not be
/// initialised unless they are accumulated to.
///
/// # Panics
/// If shapes disagree.
pub(crate) unsafe fn matmul_at(
    a: Matrix<'_>,
    b: Matrix<'_>,
    c: *mut f32,
    c_row_stride: usize,
    output: Output<'_>,
    precision: Precision,
) {
    assert_eq!(a.cols, b.rows, "inner dimensions differ");
    if precision == Precision::Int8 && !matches!(output, Output::Accumulate) {
        let weights = Int8Weights::new(b);
        // SAFETY: passed on.
        unsafe { int8::product_at(a, &weights, (c, c_row_stride), output) };
        return;
    }
    // SAFETY: passed on.
    unsafe { spread(a, Right::View(b), c, c_row_stride, output, kernel(precision).run) }
}

/// Runs a product in pieces, one per thread.
///
/// # Safety
/// As [`blocked::run`].
unsafe fn spread(
    a: Matrix<'_>,
    b: Right<'_>,
    c: *mut f32,
    c_row_stride: usize,
    output: Output<'_>,
    run: Run,
) {
    let (m, n) = (a.rows, b.cols());
    if m == 0 || n == 0 {
        return;
    }
    assert!(c_row_stride >= n, "rows of the output overlap");
    if let Output::Bias(bias) = output {
        assert_eq!(bias.len(), n, "bias has another width");
    }
    let c = CPointer(c);
    let work = m * n * a.cols.max(1);
    // A piece should be worth some 100 microseconds, or the hand-over dominates.
    let pieces = threads::available().min(work.div_ceil(1 << 22));
    if pieces <= 1 {
        // SAFETY: passed on.
        unsafe { run(a, b, c.get(), c_row_stride, output) };
    } else if m >= n {
        let step = m.div_ceil(pieces).next_multiple_of(blocked::ROW_ALIGN);
        threads::for_each(m.div_ceil(step), |i| {
            let (start, rows) = (i * step, step.min(m - i * step));
            // SAFETY: pieces are disjoint rows of the output.
            unsafe {
                let c = c.get().add(start * c_row_stride);
                run(a.row_range(start, rows), b, c, c_row_stride, output);
            }
        });
    } else {
        let step = n.div_ceil(pieces).next_multiple_of(blocked::COL_ALIGN);
        threads::for_each(n.div_ceil(step), |i| {
            let (start, cols) = (i * step, step.min(n - i * step));
            // SAFETY: pieces are disjoint columns of the output.
            unsafe {
                let (c, b) = (c.get().add(start), b.col_range(start, cols));
                run(a, b, c, c_row_stride, output.cols(start, cols));
            }
        });
    }
}

/// An output that several threads write, each its own disjoint part.
#[derive(Clone, Copy)]
pub(crate) struct CPointer(pub(crate) *mut f32);
// SAFETY: whoever dereferences it promises that parts are disjoint.
unsafe impl Send for CPointer {}
// SAFETY: as above.
unsafe impl Sync for CPointer {}

impl CPointer {
    pub(crate) fn get(self) -> *mut f32 {
        self.0
    }
}

type Run = unsafe fn(Matrix<'_>, Right<'_>, *mut f32, usize, Output<'_>);

/// What a register tile makes of the loops around it.
#[derive(Clone, Copy)]
struct Kernel {
    run: Run,
    pack: unsafe fn(Matrix<'_>) -> Panels,
}

impl Kernel {
    const fn of<K: blocked::MicroKernel>() -> Self {
        Self { run: blocked::run::<K>, pack: blocked::pack_right::<K> }
    }
}

fn kernel(precision: Precision) -> Kernel {
    match (isa(), precision) {
        #[cfg(target_arch = "x86_64")]
        (Isa::Amx, Precision::Bf16) => Kernel::of::<amx::Kernel<amx::Hardware>>(),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512Bf16, Precision::Bf16) if has_fast_bf16_vectors() => {
            Kernel::of::<avx512bf16::Kernel>()
        }
        #[cfg(target_arch = "x86_64")]
        (Isa::Amx | Isa::Avx512Bf16 | Isa::Avx512, _) => Kernel::of::<avx512::Kernel>(),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2 | Isa::AvxVnni, _) => Kernel::of::<avx2::Kernel>(),
        #[cfg(target_arch = "aarch64")]
        (Isa::Neon | Isa::NeonDot, _) => Kernel::of::<neon::Kernel>(),
        _ => Kernel::of::<portable::Kernel>(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference;

    fn values(n: usize, seed: u64) -> Vec<f32> {
        reference::uniform(n, seed)
    }

    fn kernels() -> Vec<(&'static str, Kernel, f32)> {
        let mut all: Vec<(&'static str, Kernel, f32)> =
            vec![("portable", Kernel::of::<portable::Kernel>(), 1e-5)];
        #[cfg(target_arch = "x86_64")]
        {
            if isa() >= Isa::Avx2 {
                all.push(("avx2", Kernel::of::<avx2::Kernel>(), 1e-5));
            }
            if isa() >= Isa::Avx512 {
                all.push(("avx512", Kernel::of::<avx512::Kernel>(), 1e-5));
            }
            if isa() >= Isa::Avx512Bf16 {
                all.push(("avx512bf16", Kernel::of::<avx512bf16::Kernel>(), 8e-3));
            }
            let emulated = Kernel::of::<amx::Kernel<amx::emulation::Emulated>>();
            all.push(("amx, emulated", emulated, 8e-3));
            if isa() >= Isa::Amx {
                all.push(("amx", Kernel::of::<amx::Kernel<amx::Hardware>>(), 8e-3));
            }
        }
        #[cfg(target_arch = "aarch64")]
        all.push(("neon", Kernel::of::<neon::Kernel>(), 1e-5));
        all
    }

    #[test]
    fn every_kernel_agrees_with_the_reference_on_odd_shapes() {
        for (name, kernel, tolerance) in kernels() {
            for (m, k, n) in reference::cases(
                [
                    (1, 1, 1),
                    (1, 7, 33),
                    (13, 1, 31),
                    (17, 37, 35),
                    (12, 256, 32),
                    (25, 513, 65),
                    (130, 37, 3),
                    (97, 700, 45),
                ],
                4,
            ) {
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
                let b = Matrix::row_major(&b, k, n);
                let turned = Matrix::row_major(&b_columns, n, k).transposed();
                // SAFETY: only kernels that the CPU has are listed.
                let packed = unsafe { (kernel.pack)(b) };
                let packed = Right::Panels { packed: &packed, start: 0, cols: n };
                for b in [Right::View(b), Right::View(turned), packed] {
                    let mut got = vec![f32::NAN; m * n];
                    // SAFETY: `got` holds m rows of n values.
                    unsafe {
                        let a = Matrix::row_major(&a, m, k);
                        (kernel.run)(a, b, got.as_mut_ptr(), n, Output::Bias(&bias));
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
        let (m, k, n) = if cfg!(miri) { (31, 270, 17) } else { (211, 300, 190) };
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
