//! The loops around a micro-kernel: packing and cache blocking.

use super::{Matrix, Output};
use std::cell::RefCell;

/// Work is cut between threads at multiples of these, so that tiles stay whole.
pub(super) const ROW_ALIGN: usize = 24;
/// See [`ROW_ALIGN`].
pub(super) const COL_ALIGN: usize = 64;

/// Most rows of `a` packed at a time, which fit the second-level cache; whole tiles of them.
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

    /// Puts the tile `sum over elements of a[element][row] * b[element][col]` in its place.
    ///
    /// # Safety
    /// The CPU must have the kernel's instructions; panels must hold `elements` steps, and
    /// `place` be valid for its rows and columns, which fit the tile.
    unsafe fn multiply(
        elements: usize,
        a: *const Self::Element,
        b: *const Self::Element,
        place: Place,
        output: Output<'_>,
    );

    /// The thread's buffers for packed panels.
    fn with_buffers<R>(
        work: impl FnOnce(&mut Vec<Self::Element>, &mut Vec<Self::Element>) -> R,
    ) -> R;
}

/// The part of the output that a tile covers.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) c: *mut f32,
    pub(super) row_stride: usize,
    pub(super) rows: usize,
    pub(super) cols: usize,
}

impl Place {
    /// Stores the part of `tile` that exists.
    ///
    /// # Safety
    /// The place must be valid, and the bias of `output` hold its columns.
    #[inline(always)]
    pub(super) unsafe fn store<const NR: usize>(self, tile: &[[f32; NR]], output: Output<'_>) {
        for (i, values) in tile.iter().enumerate().take(self.rows) {
            for (j, value) in values.iter().enumerate().take(self.cols) {
                // SAFETY: row i and column j exist by the caller's promise.
                unsafe {
                    let at = self.c.add(i * self.row_stride + j);
                    *at = match output {
                        Output::Overwrite => *value,
                        Output::Bias(bias) => value + bias.get_unchecked(j),
                        Output::Accumulate => *at + value,
                    };
                }
            }
        }
    }
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

/// The right operand of a product.
#[derive(Clone, Copy)]
pub(super) enum Right<'a> {
    View(Matrix<'a>),
    /// Columns `start..start + cols` of panels made by [`pack_right`].
    Panels {
        packed: &'a Panels,
        start: usize,
        cols: usize,
    },
}

impl<'a> Right<'a> {
    pub(super) fn cols(self) -> usize {
        match self {
            Self::View(view) => view.cols,
            Self::Panels { cols, .. } => cols,
        }
    }

    /// Columns from `start` on, a multiple of [`COL_ALIGN`].
    pub(super) fn col_range(self, start: usize, cols: usize) -> Self {
        match self {
            Self::View(view) => Self::View(view.col_range(start, cols)),
            Self::Panels { packed, start: before, .. } => {
                Self::Panels { packed, start: before + start, cols }
            }
        }
    }
}

/// A right operand packed once for many products.
///
/// Block of `k` by block, the panels of all columns.
#[derive(Debug, Clone)]
pub(super) struct Panels {
    /// The elements of the kernel, 32 bits each.
    words: Vec<u32>,
    pub(super) k: usize,
    pub(super) n: usize,
}

/// Packs the whole of `b`.
///
/// # Safety
/// The CPU must have the instructions of `K`.
pub(super) unsafe fn pack_right<K: MicroKernel>(b: Matrix<'_>) -> Panels {
    const { assert!(size_of::<K::Element>() == size_of::<u32>(), "elements are 32 bits") };
    let (k, n) = (b.rows, b.cols);
    let width = n.next_multiple_of(K::NR);
    let mut words = vec![0_u32; width * k.div_ceil(K::K_PER_ELEMENT)];
    let block_k = K::BLOCK_ELEMENTS * K::K_PER_ELEMENT;
    for k0 in (0..k).step_by(block_k) {
        let depth = block_k.min(k - k0);
        // SAFETY: the view was checked when it was made; the words from the block on hold its
        // panels, and f32 and u32 have one size and alignment.
        unsafe {
            let source = b.data.as_ptr().add(k0 * b.row_stride);
            let target = words.as_mut_ptr().add(width * (k0 / K::K_PER_ELEMENT));
            let strides = (b.col_stride, b.row_stride);
            pack_b::<K>(source, strides, (n, depth), target.cast());
        }
    }
    Panels { words, k, n }
}

/// `c = a · b` as [`super::matmul`] defines it, on this thread.
///
/// # Safety
/// The CPU must have the instructions of `K`, panels must have been packed for it, and `c`
/// must be valid for `a.rows` rows of as many values as `b` has columns, `c_row_stride` apart.
pub(super) unsafe fn run<K: MicroKernel>(
    a: Matrix<'_>,
    b: Right<'_>,
    c: *mut f32,
    c_row_stride: usize,
    output: Output<'_>,
) {
    let (m, n, k) = (a.rows, b.cols(), a.cols);
    if k == 0 {
        let tile = vec![[0.0_f32]; 1];
        for i in 0..m {
            for j in 0..n {
                let output = output.cols(j, 1);
                // SAFETY: (i, j) is inside the output by the caller's promise.
                unsafe {
                    let place =
                        Place { c: c.add(i * c_row_stride + j), row_stride: 1, rows: 1, cols: 1 };
                    place.store(&tile, output);
                }
            }
        }
    }
    let block_k = K::BLOCK_ELEMENTS * K::K_PER_ELEMENT;
    K::with_buffers(|a_panels, b_panels| {
        for n0 in (0..n).step_by(BLOCK_COLS) {
            let cols = BLOCK_COLS.min(n - n0);
            for k0 in (0..k).step_by(block_k) {
                let depth = block_k.min(k - k0);
                let elements = depth.div_ceil(K::K_PER_ELEMENT);
                let b_block = match b {
                    Right::View(b) => {
                        let len = cols.next_multiple_of(K::NR) * elements;
                        b_panels.resize(len, K::Element::default());
                        // SAFETY: the view was checked when it was made; the buffer was just sized.
                        unsafe {
                            let source = b.data.as_ptr().add(k0 * b.row_stride + n0 * b.col_stride);
                            let strides = (b.col_stride, b.row_stride);
                            pack_b::<K>(source, strides, (cols, depth), b_panels.as_mut_ptr());
                        }
                        b_panels.as_ptr()
                    }
                    Right::Panels { packed, start, .. } => {
                        let before = packed.n.next_multiple_of(K::NR) * (k0 / K::K_PER_ELEMENT);
                        packed.words[before + (start + n0) * elements..].as_ptr().cast()
                    }
                };
                let output = output.cols(n0, cols);
                let output = if k0 == 0 { output } else { Output::Accumulate };
                let block_rows = BLOCK_ROWS / K::MR * K::MR;
                for m0 in (0..m).step_by(block_rows) {
                    let rows = block_rows.min(m - m0);
                    a_panels.resize(rows.next_multiple_of(K::MR) * elements, K::Element::default());
                    // SAFETY: as for b.
                    unsafe {
                        let source = a.data.as_ptr().add(m0 * a.row_stride + k0 * a.col_stride);
                        let strides = (a.row_stride, a.col_stride);
                        pack_a::<K>(source, strides, (rows, depth), a_panels.as_mut_ptr());
                        let c = c.add(m0 * c_row_stride + n0);
                        let panels = (a_panels.as_ptr(), b_block);
                        multiply_block::<K>(
                            panels,
                            (rows, cols, elements),
                            c,
                            c_row_stride,
                            output,
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
            16 => K::pack::<16>(source, strides, shape, target),
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
    (a_panels, b_panels): (*const K::Element, *const K::Element),
    (rows, cols, elements): (usize, usize, usize),
    c: *mut f32,
    row_stride: usize,
    output: Output<'_>,
) {
    for n0 in (0..cols).step_by(K::NR) {
        let width = K::NR.min(cols - n0);
        let output = output.cols(n0, width);
        for m0 in (0..rows).step_by(K::MR) {
            // SAFETY: panels are zero-filled to whole tiles; the place lies in the caller's block.
            unsafe {
                let c = c.add(m0 * row_stride + n0);
                let place = Place { c, row_stride, rows: K::MR.min(rows - m0), cols: width };
                let (a, b) = (a_panels.add(m0 * elements), b_panels.add(n0 * elements));
                K::multiply(elements, a, b, place, output);
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
