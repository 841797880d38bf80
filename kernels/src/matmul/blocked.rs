//! The loops around a micro-kernel: packing and cache blocking.

use super::{Matrix, Output};
use std::cell::RefCell;

/// Work is cut between threads at multiples of these, so that tiles stay whole.
pub(super) const ROW_ALIGN: usize = 24;
/// See [`ROW_ALIGN`].
pub(super) const COL_ALIGN: usize = 64;

/// Rows of `a` packed at a time: a multiple of every kernel's `MR` that fits the second-level cache.
const BLOCK_ROWS: usize = 120;
/// Columns of `b` packed at a time.
const BLOCK_COLS: usize = 1024;

/// A register tile: how panels are laid out and how two are multiplied.
pub(super) trait MicroKernel {
    /// One packed step of `k`: a single value, or a pair.
    type Element: Copy + Default + 'static;
    /// Rows of the tile.
    const MR: usize;
    /// Columns of the tile.
    const NR: usize;
    /// Values of `k` in one element.
    const K_PER_ELEMENT: usize;
    /// Elements of `k` per packed block.
    const BLOCK_ELEMENTS: usize;

    /// Packs a block into panels of `WIDTH` lanes, `[element][lane]`, missing lanes zero.
    /// Lanes are rows of `a` or columns of `b`; `strides` and `shape` are (lane, k).
    ///
    /// # Safety
    /// The CPU must have the kernel's instructions; `target` must hold
    /// `lanes.next_multiple_of(WIDTH) * k.div_ceil(K_PER_ELEMENT)` elements.
    unsafe fn pack<const WIDTH: usize>(
        source: *const f32,
        strides: (usize, usize),
        shape: (usize, usize),
        target: *mut Self::Element,
    );

    /// `tile[MR][NR] = sum over elements of a[element][row] * b[element][col]`.
    ///
    /// # Safety
    /// The CPU must have the kernel's instructions; panels must hold `elements` steps and
    /// `tile` `MR * NR` values.
    unsafe fn multiply(
        elements: usize,
        a: *const Self::Element,
        b: *const Self::Element,
        tile: *mut f32,
    );

    /// The thread's buffers for packed panels.
    fn with_buffers<R>(
        work: impl FnOnce(&mut Vec<Self::Element>, &mut Vec<Self::Element>) -> R,
    ) -> R;
}

/// Declares the per-thread panel buffers of a kernel; generics cannot hold a `thread_local`.
macro_rules! panel_buffers {
    ($element:ty) => {
        fn with_buffers<R>(work: impl FnOnce(&mut Vec<$element>, &mut Vec<$element>) -> R) -> R {
            thread_local! {
                static BUFFERS: $crate::matmul::blocked::Buffers<$element> =
                    const { $crate::matmul::blocked::Buffers::new() };
            }
            BUFFERS.with(|buffers| buffers.borrow_mut_with(work))
        }
    };
}
pub(super) use panel_buffers;

/// Two growing buffers, kept between calls.
pub(super) struct Buffers<E>(RefCell<(Vec<E>, Vec<E>)>);

impl<E> Buffers<E> {
    pub(super) const fn new() -> Self {
        Self(RefCell::new((Vec::new(), Vec::new())))
    }

    pub(super) fn borrow_mut_with<R>(&self, work: impl FnOnce(&mut Vec<E>, &mut Vec<E>) -> R) -> R {
        let (a, b) = &mut *self.0.borrow_mut();
        work(a, b)
    }
}

/// `c = a · b` as [`super::matmul`] defines it, on this thread.
///
/// # Safety
/// The CPU must have the instructions of `K`, and `c` must be valid for `a.rows` rows of
/// `b.cols` values, `c_row_stride` apart.
pub(super) unsafe fn run<K: MicroKernel>(
    a: Matrix<'_>,
    b: Matrix<'_>,
    c: *mut f32,
    c_row_stride: usize,
    output: Output<'_>,
) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    if k == 0 {
        for i in 0..m {
            for j in 0..n {
                let value = match output {
                    Output::Overwrite => 0.0,
                    Output::Bias(bias) => bias[j],
                    Output::Accumulate => continue,
                };
                // SAFETY: (i, j) is inside the output by the caller's promise.
                unsafe { *c.add(i * c_row_stride + j) = value };
            }
        }
        return;
    }
    let block_k = K::BLOCK_ELEMENTS * K::K_PER_ELEMENT;
    K::with_buffers(|a_panels, b_panels| {
        for n0 in (0..n).step_by(BLOCK_COLS) {
            let cols = BLOCK_COLS.min(n - n0);
            for k0 in (0..k).step_by(block_k) {
                let depth = block_k.min(k - k0);
                let elements = depth.div_ceil(K::K_PER_ELEMENT);
                b_panels.resize(cols.next_multiple_of(K::NR) * elements, K::Element::default());
                // SAFETY: the view was checked when it was made; the buffer was just sized.
                unsafe {
                    let source = b.data.as_ptr().add(k0 * b.row_stride + n0 * b.col_stride);
                    let strides = (b.col_stride, b.row_stride);
                    pack_b::<K>(source, strides, (cols, depth), b_panels.as_mut_ptr());
                }
                let first = k0 == 0;
                for m0 in (0..m).step_by(BLOCK_ROWS) {
                    let rows = BLOCK_ROWS.min(m - m0);
                    a_panels.resize(rows.next_multiple_of(K::MR) * elements, K::Element::default());
                    // SAFETY: as for b.
                    unsafe {
                        let source = a.data.as_ptr().add(m0 * a.row_stride + k0 * a.col_stride);
                        let strides = (a.row_stride, a.col_stride);
                        pack_a::<K>(source, strides, (rows, depth), a_panels.as_mut_ptr());
                        multiply_block::<K>(
                            (a_panels, b_panels),
                            (rows, cols, elements),
                            c.add(m0 * c_row_stride + n0),
                            c_row_stride,
                            match output {
                                Output::Accumulate => Output::Accumulate,
                                _ if !first => Output::Accumulate,
                                Output::Bias(bias) => Output::Bias(&bias[n0..n0 + cols]),
                                Output::Overwrite => Output::Overwrite,
                            },
                        );
                    }
                }
            }
        }
    });
}

/// # Safety
/// As [`MicroKernel::pack`].
unsafe fn pack_a<K: MicroKernel>(
    source: *const f32,
    strides: (usize, usize),
    shape: (usize, usize),
    target: *mut K::Element,
) {
    // SAFETY: passed on. The tile heights in use are spelled out, as const arguments must be.
    unsafe {
        match K::MR {
            12 => K::pack::<12>(source, strides, shape, target),
            6 => K::pack::<6>(source, strides, shape, target),
            4 => K::pack::<4>(source, strides, shape, target),
            other => unreachable!("no packing for tiles of {other} rows"),
        }
    }
}

/// # Safety
/// As [`MicroKernel::pack`].
unsafe fn pack_b<K: MicroKernel>(
    source: *const f32,
    strides: (usize, usize),
    shape: (usize, usize),
    target: *mut K::Element,
) {
    // SAFETY: passed on.
    unsafe {
        match K::NR {
            32 => K::pack::<32>(source, strides, shape, target),
            16 => K::pack::<16>(source, strides, shape, target),
            other => unreachable!("no packing for tiles of {other} columns"),
        }
    }
}

/// Multiplies packed panels into `c`.
///
/// # Safety
/// Panels hold `rows`, `cols` and `elements` as packed above; `c` is valid for the block.
unsafe fn multiply_block<K: MicroKernel>(
    (a_panels, b_panels): (&[K::Element], &[K::Element]),
    (rows, cols, elements): (usize, usize, usize),
    c: *mut f32,
    c_row_stride: usize,
    output: Output<'_>,
) {
    let mut tile = [0.0_f32; 12 * 32];
    assert!(K::MR * K::NR <= tile.len(), "tile buffer is too small");
    for n0 in (0..cols).step_by(K::NR) {
        let width = K::NR.min(cols - n0);
        let b = &b_panels[n0 * elements..];
        for m0 in (0..rows).step_by(K::MR) {
            let height = K::MR.min(rows - m0);
            let a = &a_panels[m0 * elements..];
            // SAFETY: panels are zero-filled to whole tiles.
            unsafe { K::multiply(elements, a.as_ptr(), b.as_ptr(), tile.as_mut_ptr()) };
            for i in 0..height {
                let values = &tile[i * K::NR..i * K::NR + width];
                // SAFETY: row m0 + i, columns n0.. of the block are the caller's.
                let row = unsafe {
                    std::slice::from_raw_parts_mut(c.add((m0 + i) * c_row_stride + n0), width)
                };
                match output {
                    Output::Overwrite => row.copy_from_slice(values),
                    Output::Bias(bias) => {
                        for ((r, v), b) in row.iter_mut().zip(values).zip(&bias[n0..]) {
                            *r = v + b;
                        }
                    }
                    Output::Accumulate => {
                        for (r, v) in row.iter_mut().zip(values) {
                            *r += v;
                        }
                    }
                }
            }
        }
    }
}

/// Packs single f32 values: the `pack` of every f32 kernel.
///
/// # Safety
/// As [`MicroKernel::pack`].
#[inline(always)]
pub(super) unsafe fn pack_f32<const WIDTH: usize>(
    source: *const f32,
    (lane_stride, k_stride): (usize, usize),
    (lanes, k): (usize, usize),
    target: *mut f32,
) {
    for (panel, lane0) in (0..lanes).step_by(WIDTH).enumerate() {
        let width = WIDTH.min(lanes - lane0);
        // SAFETY: lanes and k stay inside the checked view; a panel holds WIDTH * k values.
        unsafe {
            let source = source.add(lane0 * lane_stride);
            let panel = target.add(panel * WIDTH * k);
            if width < WIDTH {
                std::ptr::write_bytes(panel, 0, WIDTH * k);
            }
            if lane_stride == 1 {
                for j in 0..k {
                    let from = source.add(j * k_stride);
                    std::ptr::copy_nonoverlapping(from, panel.add(j * WIDTH), width);
                }
            } else {
                // Read along k, which is contiguous in a row-major operand; eight rows of
                // the panel at a time keep its lines in the first-level cache.
                for j0 in (0..k).step_by(16) {
                    let depth = 16.min(k - j0);
                    for i in 0..width {
                        for j in j0..j0 + depth {
                            *panel.add(j * WIDTH + i) = *source.add(i * lane_stride + j * k_stride);
                        }
                    }
                }
            }
        }
    }
}
