//! Products with weights in 8-bit integers: one scale per column of weights, one per row of
//! what they multiply, sums exact in 32 bits.
//!
//! With `a ≈ s_i (u - 128)` and `b ≈ t_j q`, `u` unsigned and `q` signed bytes, the product is
//! `s_i t_j (sum u q - 128 sum q)`: the form of the dot-product instructions.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx_vnni;
#[cfg(target_arch = "aarch64")]
mod neon;

use super::{CPointer, Matrix, Output};
use crate::isa::{Isa, isa};
use crate::threads;
use crate::vector::vectorised;
use std::cell::RefCell;

/// Columns of a panel.
const PANEL: usize = 32;
/// Values of `k` side by side in a panel.
const GROUP: usize = 4;
/// Rows quantised and multiplied at a time.
const BLOCK_ROWS: usize = 96;

/// Weights in 8 bits.
#[derive(Debug, Clone)]
pub(super) struct Int8Weights {
    k: usize,
    n: usize,
    /// `[panel][k / 4][column of the panel][4]`, zero past the end.
    panels: Vec<i8>,
    /// Scale of each column.
    scales: Vec<f32>,
    /// Sum of each column's integers, times 128.
    offsets: Vec<i32>,
}

impl Int8Weights {
    /// Rounds the columns of `b`, each with the scale that makes its largest value 127.
    pub(super) fn new(b: Matrix<'_>) -> Self {
        let (k, n) = (b.rows, b.cols);
        let at = |i: usize, j: usize| b.data[i * b.row_stride + j * b.col_stride];
        let groups = k.div_ceil(GROUP);
        let width = n.next_multiple_of(PANEL);
        let mut panels = vec![0_i8; width * groups * GROUP];
        let (mut scales, mut offsets) = (vec![0.0; width], vec![0; width]);
        for j in 0..n {
            let largest = (0..k).fold(0.0_f32, |max, i| max.max(at(i, j).abs()));
            let scale = largest / 127.0;
            let inverse = if scale > 0.0 { scale.recip() } else { 0.0 };
            let panel = j / PANEL * PANEL * groups * GROUP + j % PANEL * GROUP;
            let mut sum = 0;
            for i in 0..k {
                let q = (at(i, j) * inverse).round_ties_even().clamp(-127.0, 127.0) as i8;
                panels[panel + i / GROUP * PANEL * GROUP + i % GROUP] = q;
                sum += i32::from(q);
            }
            scales[j] = scale;
            offsets[j] = 128 * sum;
        }
        Self { k, n, panels, scales, offsets }
    }

    pub(super) fn shape(&self) -> (usize, usize) {
        (self.k, self.n)
    }

    fn panel(&self, index: usize) -> &[i8] {
        let len = self.k.div_ceil(GROUP) * GROUP * PANEL;
        &self.panels[index * len..(index + 1) * len]
    }
}

vectorised! {
    /// Rounds a row to unsigned bytes around 128, and returns its scale; zeros past the end.
    fn quantise(row: &[f32], out: &mut [u8]) -> f32 {
        let largest = crate::vector::largest_magnitude(row);
        let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        for (q, &x) in out.iter_mut().zip(row) {
            // Adding 1.5 * 2^23 rounds to an integer, found in the low bits.
            const ROUND: f32 = 12_582_912.0;
            *q = (((x * inverse + ROUND).to_bits() as i32).wrapping_add(128)) as u8;
        }
        for q in &mut out[row.len()..] {
            *q = 128;
        }
        largest / 127.0
    }
}

/// A block of quantised rows, `[row][k]`, padded to whole groups.
#[derive(Default)]
struct Rows {
    bytes: Vec<u8>,
    scales: Vec<f32>,
    sums: Vec<i32>,
    copied: Vec<f32>,
}

thread_local! {
    static ROWS: RefCell<Rows> = RefCell::default();
}

/// Product into rows `n` apart: [`product_at`].
///
/// # Safety
/// `c` must be valid for the product, row after row.
pub(super) unsafe fn product(a: Matrix<'_>, b: &Int8Weights, c: *mut f32, output: Output<'_>) {
    // SAFETY: passed on.
    unsafe { product_at(a, b, (c, b.n), output) }
}

/// `c = a · b` or with a bias.
///
/// # Safety
/// `c` must be valid for `a.rows` rows of `b.n` values, the given stride apart.
pub(super) unsafe fn product_at(
    a: Matrix<'_>,
    b: &Int8Weights,
    (c, row_stride): (*mut f32, usize),
    output: Output<'_>,
) {
    assert_eq!(a.cols, b.k, "inner dimensions differ");
    if let Output::Bias(bias) = output {
        assert_eq!(bias.len(), b.n, "bias has another width");
    }
    let c = CPointer(c);
    // Enough blocks for every thread, of whole tiles.
    let share = a.rows.div_ceil(threads::available()).next_multiple_of(12);
    let block = BLOCK_ROWS.min(share).max(1);
    threads::for_each(a.rows.div_ceil(block), |i| {
        let (start, rows) = (i * block, block.min(a.rows - i * block));
        ROWS.with_borrow_mut(|buffers| {
            fill(a.row_range(start, rows), buffers);
            // SAFETY: blocks are disjoint rows of the output.
            unsafe {
                let c = c.get().add(start * row_stride);
                multiply(buffers, rows, b, (c, row_stride), output);
            }
        });
    });
}

fn fill(a: Matrix<'_>, buffers: &mut Rows) {
    let depth = a.cols.next_multiple_of(GROUP);
    buffers.bytes.resize(a.rows * depth, 0);
    buffers.scales.clear();
    for (i, bytes) in buffers.bytes.chunks_exact_mut(depth.max(1)).enumerate().take(a.rows) {
        let scale = if a.col_stride == 1 {
            let start = i * a.row_stride;
            quantise(&a.data[start..start + a.cols], bytes)
        } else {
            buffers.copied.clear();
            let values = (0..a.cols).map(|j| a.data[i * a.row_stride + j * a.col_stride]);
            buffers.copied.extend(values);
            quantise(&buffers.copied, bytes)
        };
        buffers.scales.push(scale);
    }
}

/// # Safety
/// As [`product_at`], for `rows` rows.
unsafe fn multiply(
    buffers: &mut Rows,
    rows: usize,
    b: &Int8Weights,
    (c, row_stride): (*mut f32, usize),
    output: Output<'_>,
) {
    let depth = b.k.next_multiple_of(GROUP);
    let Rows { bytes, scales, sums, .. } = buffers;
    for n0 in (0..b.n).step_by(PANEL) {
        let panel = b.panel(n0 / PANEL);
        let cols = PANEL.min(b.n - n0);
        let block = Block {
            bytes,
            scales,
            depth,
            panel,
            column_scales: &b.scales[n0..n0 + PANEL],
            offsets: &b.offsets[n0..n0 + PANEL],
            rows,
        };
        // SAFETY: columns from n0 on of every row are inside the output.
        let place = (unsafe { c.add(n0) }, row_stride, cols);
        let output = output.cols(n0, cols);
        // SAFETY: the CPU has the instructions that its level names, places are inside.
        unsafe {
            match isa() {
                #[cfg(target_arch = "x86_64")]
                Isa::Amx => {
                    block.by_tiles(place, output, true, |part| {
                        amx::sums::<crate::matmul::amx::Hardware>(part)
                    });
                }
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512Bf16 => block.with_avx512(place, output),
                #[cfg(target_arch = "x86_64")]
                Isa::AvxVnni => {
                    block.by_tiles(place, output, true, |part| avx_vnni::sums(part));
                }
                #[cfg(target_arch = "aarch64")]
                Isa::NeonDot => {
                    block.by_tiles(place, output, false, |part| neon::sums_of_dot_products(part));
                }
                #[cfg(target_arch = "aarch64")]
                Isa::Neon => block.by_tiles(place, output, false, neon::sums),
                _ => block.by_rows(place, output, sums),
            }
        }
    }
}

/// Quantised rows and the panel they are multiplied with.
struct Block<'a> {
    /// `depth` bytes a row.
    bytes: &'a [u8],
    /// One per row.
    scales: &'a [f32],
    depth: usize,
    panel: &'a [i8],
    /// One per column of the panel.
    column_scales: &'a [f32],
    offsets: &'a [i32],
    rows: usize,
}

/// Where columns go: the first of the first row, from row to row, and their number.
type Columns = (*mut f32, usize, usize);

impl<'a> Block<'a> {
    /// Up to `most` rows from `first` on.
    fn part(&self, first: usize, most: usize) -> Part<'a> {
        let height = most.min(self.rows - first);
        Part {
            rows: &self.bytes[first * self.depth..(first + height) * self.depth],
            depth: self.depth,
            panel: self.panel,
            scales: &self.scales[first..first + height],
            column_scales: self.column_scales,
            offsets: self.offsets,
        }
    }

    /// Rows a tile at a time; `unsigned` sums have yet to lose their offsets.
    ///
    /// # Safety
    /// The CPU must have the instructions of `sums`, the columns be valid for every row.
    unsafe fn by_tiles<const ROWS: usize>(
        &self,
        (c, row_stride, cols): Columns,
        output: Output<'_>,
        unsigned: bool,
        sums: impl Fn(&Part<'_>) -> [[i32; PANEL]; ROWS],
    ) {
        for first in (0..self.rows).step_by(ROWS) {
            let part = self.part(first, ROWS);
            let sums = sums(&part);
            for (i, (sums, scale)) in sums.iter().zip(part.scales).enumerate() {
                // SAFETY: the row exists.
                unsafe {
                    let place = (c.add((first + i) * row_stride), cols);
                    self.store(sums, *scale, unsigned, place, output);
                }
            }
        }
    }

    /// Rows one by one, in plain loops.
    ///
    /// # Safety
    /// The columns must be valid for every row.
    unsafe fn by_rows(
        &self,
        (c, row_stride, cols): Columns,
        output: Output<'_>,
        sums: &mut Vec<i32>,
    ) {
        sums.resize(PANEL, 0);
        let rows = self.bytes.chunks_exact(self.depth.max(1)).zip(self.scales).take(self.rows);
        for (i, (row, scale)) in rows.enumerate() {
            dot(row, self.panel, sums);
            // SAFETY: the row exists.
            unsafe { self.store(sums, *scale, true, (c.add(i * row_stride), cols), output) };
        }
    }

    /// # Safety
    /// As [`Block::by_tiles`], for AVX-512 with VNNI.
    #[cfg(target_arch = "x86_64")]
    unsafe fn with_avx512(&self, (c, row_stride, cols): Columns, output: Output<'_>) {
        for first in (0..self.rows).step_by(avx512::ROWS) {
            let part = self.part(first, avx512::ROWS);
            // SAFETY: passed on.
            unsafe { part.multiply((c.add(first * row_stride), row_stride), cols, output) };
        }
    }

    /// Scales exact sums of a row and puts them in their place.
    ///
    /// # Safety
    /// The columns must be valid.
    #[inline]
    unsafe fn store(
        &self,
        sums: &[i32],
        scale: f32,
        unsigned: bool,
        (c, cols): (*mut f32, usize),
        output: Output<'_>,
    ) {
        for j in 0..cols {
            let exact = if unsigned { sums[j] - self.offsets[j] } else { sums[j] } as f32;
            let value = exact * (scale * self.column_scales[j]);
            let value = if let Output::Bias(bias) = output { value + bias[j] } else { value };
            // SAFETY: by the caller's promise.
            unsafe { *c.add(j) = value };
        }
    }
}

/// A few rows and one panel.
struct Part<'a> {
    /// `depth` bytes a row.
    rows: &'a [u8],
    depth: usize,
    panel: &'a [i8],
    /// One per row.
    scales: &'a [f32],
    /// One per column of the panel.
    column_scales: &'a [f32],
    offsets: &'a [i32],
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
impl Part<'_> {
    /// That there are one to `most` rows, and of everything as much as there should be.
    fn check(&self, most: usize) {
        let height = self.scales.len();
        assert!((1..=most).contains(&height) && self.rows.len() >= height * self.depth);
        assert!(self.depth.is_multiple_of(GROUP), "whole groups");
        assert!(self.panel.len() == self.depth * PANEL, "panel of another depth");
        assert!(self.column_scales.len() == PANEL && self.offsets.len() == PANEL);
    }

    /// Row `i`, or the last one if there are fewer.
    fn row(&self, i: usize) -> *const u8 {
        self.rows[i.min(self.scales.len() - 1) * self.depth..].as_ptr()
    }
}

vectorised! {
    /// Sums of one row with the 32 columns of a panel.
    fn dot(row: &[u8], panel: &[i8], sums: &mut [i32]) {
        let mut totals = [0_i32; PANEL];
        for (group, columns) in row.chunks_exact(GROUP).zip(panel.chunks_exact(GROUP * PANEL)) {
            let a: [i16; GROUP] = std::array::from_fn(|i| i16::from(group[i]));
            for (total, b) in totals.iter_mut().zip(columns.chunks_exact(GROUP)) {
                let products: [i32; GROUP] =
                    std::array::from_fn(|i| i32::from(a[i]) * i32::from(i16::from(b[i])));
                *total += products[0] + products[1] + products[2] + products[3];
            }
        }
        sums.copy_from_slice(&totals);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matmul::{Packed, Precision, matmul_packed};
    use crate::reference;

    /// What the integers should give: rounding as above, sums in f64.
    fn plain(a: &[f32], b: &[f32], (m, k, n): (usize, usize, usize)) -> Vec<f32> {
        let round = |values: Vec<f32>| -> Vec<f32> {
            let largest = values.iter().fold(0.0_f32, |max, v| max.max(v.abs()));
            let scale = largest / 127.0;
            let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
            values.iter().map(|v| (v * inverse).round_ties_even() * scale).collect()
        };
        let a: Vec<f32> = a.chunks(k).flat_map(|row| round(row.to_vec())).collect();
        let mut rounded = vec![0.0; k * n];
        for j in 0..n {
            for (i, v) in round((0..k).map(|i| b[i * n + j]).collect()).into_iter().enumerate() {
                rounded[i * n + j] = v;
            }
        }
        reference::matmul(&a, &rounded, m, k, n)
    }

    #[test]
    fn products_are_those_of_the_rounded_operands() {
        for (m, k, n) in
            reference::cases([(1, 1, 1), (1, 7, 33), (13, 64, 31), (25, 130, 65), (110, 37, 3)], 3)
        {
            let mut a = reference::uniform(m * k, 1);
            a[..k].fill(0.0);
            let (b, bias) = (reference::uniform(k * n, 2), reference::uniform(n, 3));
            let want = plain(&a, &b, (m, k, n));
            let packed = Packed::new(Matrix::row_major(&b, k, n), Precision::Int8);
            let a = Matrix::row_major(&a, m, k);
            let got = matmul_packed(a, &packed, Output::Bias(&bias));
            for (i, (g, w)) in got.iter().zip(&want).enumerate() {
                let w = w + bias[i % n];
                // A value halfway between two integers may go to either.
                let tolerance = 0.011 * (k as f32).sqrt();
                assert!((g - w).abs() <= tolerance, "({m},{k},{n}) at {i}: {g} against {w}");
            }
            let plain: Vec<f32> = matmul_packed(a, &packed, Output::Overwrite);
            for (i, (p, g)) in plain.iter().zip(&got).enumerate() {
                assert!((p + bias[i % n] - g).abs() < 1e-5);
            }
        }
    }

    /// The tiles of other CPUs, on what this one has: their loops and layouts are what is tested.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn tiles_of_other_cpus_agree_exactly_with_plain_loops() {
        use crate::matmul::amx::emulation::Emulated;
        for (rows, k, n) in
            reference::cases([(1, 1, 1), (3, 4, 32), (7, 64, 33), (18, 131, 40), (33, 200, 64)], 3)
        {
            let b = Int8Weights::new(Matrix::row_major(&reference::uniform(k * n, 4), k, n));
            let a = reference::uniform(rows * k, 5);
            let mut buffers = Rows::default();
            fill(Matrix::row_major(&a, rows, k), &mut buffers);
            let bias = reference::uniform(n.next_multiple_of(PANEL), 6);
            for panel in 0..n.div_ceil(PANEL) {
                let columns = panel * PANEL..(panel + 1) * PANEL;
                let block = Block {
                    bytes: &buffers.bytes,
                    scales: &buffers.scales,
                    depth: k.next_multiple_of(GROUP),
                    panel: b.panel(panel),
                    column_scales: &b.scales[columns.clone()],
                    offsets: &b.offsets[columns.clone()],
                    rows,
                };
                let output = Output::Bias(&bias[columns]);
                let run = |work: &dyn Fn(Columns)| {
                    let mut out = vec![f32::NAN; rows * PANEL];
                    work((out.as_mut_ptr(), PANEL, PANEL));
                    out
                };
                // SAFETY: `out` holds the rows; the emulation needs nothing of the CPU.
                let want = run(&|place| unsafe { block.by_rows(place, output, &mut Vec::new()) });
                assert!(want.iter().all(|v| v.is_finite()));
                let got = run(&|place| {
                    // SAFETY: as above.
                    unsafe {
                        block.by_tiles(place, output, true, |part| amx::sums::<Emulated>(part));
                    }
                });
                assert!(got == want, "AMX, {rows} rows of {k}");
                if is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512vl") {
                    let got = run(&|place| {
                        // SAFETY: the CPU has what the tile asks for.
                        unsafe {
                            block.by_tiles(place, output, true, |part| {
                                avx_vnni::tests::sums_of_avx512(part)
                            });
                        }
                    });
                    assert!(got == want, "AVX-VNNI, {rows} rows of {k}");
                }
            }
        }
    }

    /// Both ways of NEON, whichever is in use.
    #[cfg(target_arch = "aarch64")]
    #[test]
    fn both_ways_of_neon_agree() {
        for (rows, k) in [(1, 1), (3, 4), (2, 131)] {
            let b = Int8Weights::new(Matrix::row_major(&reference::uniform(k * 32, 4), k, 32));
            let a = reference::uniform(rows * k, 5);
            let mut buffers = Rows::default();
            fill(Matrix::row_major(&a, rows, k), &mut buffers);
            let depth = k.next_multiple_of(GROUP);
            let part = Part {
                rows: &buffers.bytes[..rows * depth],
                depth,
                panel: b.panel(0),
                scales: &buffers.scales,
                column_scales: &b.scales,
                offsets: &b.offsets,
            };
            let plain = neon::sums(&part);
            let mut want = vec![0; PANEL];
            for (row, sums) in part.rows.chunks_exact(depth).zip(&plain) {
                dot(row, part.panel, &mut want);
                for ((got, want), offset) in sums.iter().zip(&want).zip(&b.offsets) {
                    assert_eq!(*got, want - offset);
                }
            }
            if std::arch::is_aarch64_feature_detected!("dotprod") {
                // SAFETY: the CPU has them.
                assert_eq!(unsafe { neon::sums_of_dot_products(&part) }, plain);
            }
        }
    }

    #[test]
    fn instructions_and_plain_loops_agree_exactly() {
        let (k, n) = (75, 40);
        let b = Int8Weights::new(Matrix::row_major(&reference::uniform(k * n, 4), k, n));
        let row = reference::uniform(k, 5);
        let mut bytes = vec![0; k.next_multiple_of(GROUP)];
        let scale = quantise(&row, &mut bytes);
        let mut got = vec![0.0; n];
        // SAFETY: the vector holds the one row.
        unsafe { product(Matrix::row_major(&row, 1, k), &b, got.as_mut_ptr(), Output::Overwrite) };
        for (j, got) in got.iter().enumerate() {
            let (panel, column) = (b.panel(j / PANEL), j % PANEL);
            let sum: i32 = (0..k)
                .map(|i| {
                    let q = panel[i / GROUP * PANEL * GROUP + column * GROUP + i % GROUP];
                    (i32::from(bytes[i]) - 128) * i32::from(q)
                })
                .sum();
            assert_eq!(*got, sum as f32 * (scale * b.scales[j]));
        }
    }
}
