//! Products with weights in 8-bit integers: one scale per column of weights, one per row of
//! what they multiply, sums exact in 32 bits.
//!
//! With `a ≈ s_i (u - 128)` and `b ≈ t_j q`, `u` unsigned and `q` signed bytes, the product is
//! `s_i t_j (sum u q - 128 sum q)`: the form of the dot-product instructions.

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
        #[cfg(target_arch = "x86_64")]
        if isa() == Isa::Avx512Bf16 {
            for m0 in (0..rows).step_by(vnni::ROWS) {
                let height = vnni::ROWS.min(rows - m0);
                let part = vnni::Part {
                    rows: &bytes[m0 * depth..],
                    depth,
                    panel,
                    scales: &scales[m0..m0 + height],
                    column_scales: &b.scales[n0..n0 + PANEL],
                    offsets: &b.offsets[n0..n0 + PANEL],
                };
                // SAFETY: the CPU has the instructions, the place is inside the output.
                unsafe {
                    part.multiply(
                        (c.add(m0 * row_stride + n0), row_stride),
                        cols,
                        output.cols(n0, cols),
                    );
                };
            }
            continue;
        }
        sums.resize(PANEL, 0);
        for (i, scale) in scales.iter().enumerate() {
            dot(&bytes[i * depth..(i + 1) * depth], panel, sums);
            for j in 0..cols {
                let exact = (sums[j] - b.offsets[n0 + j]) as f32;
                let value = exact * (scale * b.scales[n0 + j]);
                let value =
                    if let Output::Bias(bias) = output { value + bias[n0 + j] } else { value };
                // SAFETY: row i and column n0 + j are inside the output.
                unsafe { *c.add(i * row_stride + n0 + j) = value };
            }
        }
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

#[cfg(target_arch = "x86_64")]
mod vnni {
    //! The tile for AVX-512 VNNI, which every CPU with bf16 dot products has.

    use super::{GROUP, Output, PANEL};
    use crate::matmul::avx512_tile;
    use crate::matmul::blocked::Place;
    use std::arch::x86_64::{
        _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_loadu_ps, _mm512_loadu_si512,
        _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512,
        _mm512_sub_epi32,
    };

    pub(super) const ROWS: usize = avx512_tile::ROWS;

    /// Up to twelve rows and one panel.
    pub(super) struct Part<'a> {
        /// `depth` bytes a row.
        pub(super) rows: &'a [u8],
        pub(super) depth: usize,
        pub(super) panel: &'a [i8],
        /// One per row.
        pub(super) scales: &'a [f32],
        /// One per column of the panel.
        pub(super) column_scales: &'a [f32],
        pub(super) offsets: &'a [i32],
    }

    impl Part<'_> {
        /// # Safety
        /// The CPU must have AVX-512 with VNNI, the place be valid for the rows there are and
        /// `cols` columns.
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
        pub(super) unsafe fn multiply(
            &self,
            (c, row_stride): (*mut f32, usize),
            cols: usize,
            output: Output<'_>,
        ) {
            let height = self.scales.len();
            assert!((1..=ROWS).contains(&height) && self.rows.len() >= height * self.depth);
            assert!(self.panel.len() == self.depth * PANEL, "panel of another depth");
            assert!(self.column_scales.len() == PANEL && self.offsets.len() == PANEL);
            // Rows that do not exist repeat the last one and are not stored.
            let starts: [*const u8; ROWS] =
                std::array::from_fn(|i| self.rows[i.min(height - 1) * self.depth..].as_ptr());
            let mut sums = [[_mm512_setzero_si512(); 2]; ROWS];
            for k in (0..self.depth).step_by(GROUP) {
                // SAFETY: a row holds `depth` bytes, the panel 32 times as many.
                unsafe {
                    let b = self.panel.as_ptr().add(k * PANEL);
                    let b0 = _mm512_loadu_si512(b.cast());
                    let b1 = _mm512_loadu_si512(b.add(16 * GROUP).cast());
                    for (sum, start) in sums.iter_mut().zip(&starts) {
                        let group = start.add(k).cast::<i32>().read_unaligned();
                        let a = _mm512_set1_epi32(group);
                        sum[0] = _mm512_dpbusd_epi32(sum[0], a, b0);
                        sum[1] = _mm512_dpbusd_epi32(sum[1], a, b1);
                    }
                }
            }
            let mut tile = [[_mm512_setzero_ps(); 2]; ROWS];
            for half in 0..2 {
                // SAFETY: 32 columns have scales and offsets.
                let (column_scales, offsets) = unsafe {
                    (
                        _mm512_loadu_ps(self.column_scales.as_ptr().add(16 * half)),
                        _mm512_loadu_si512(self.offsets.as_ptr().add(16 * half).cast()),
                    )
                };
                for ((tile, sum), &scale) in tile.iter_mut().zip(&sums).zip(self.scales) {
                    let exact = _mm512_cvtepi32_ps(_mm512_sub_epi32(sum[half], offsets));
                    let scale = _mm512_mul_ps(_mm512_set1_ps(scale), column_scales);
                    tile[half] = _mm512_mul_ps(exact, scale);
                }
            }
            // SAFETY: passed on.
            unsafe {
                let place = Place { c, row_stride, rows: height, cols };
                avx512_tile::store(&tile, place, output);
            }
        }
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
        for (m, k, n) in [(1, 1, 1), (1, 7, 33), (13, 64, 31), (25, 130, 65), (110, 37, 3)] {
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
