//! What both AVX-512 kernels share: storing a 12 x 32 tile and turning 16 x 16 values round.

use super::Output;
use super::blocked::Place;
use std::arch::x86_64::{
    __m512, __m512i, _mm512_add_ps, _mm512_loadu_ps, _mm512_mask_storeu_epi32,
    _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_setzero_ps, _mm512_setzero_si512,
    _mm512_shuffle_i32x4, _mm512_storeu_ps, _mm512_storeu_si512, _mm512_unpackhi_epi32,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

/// Rows of the tile.
pub(super) const ROWS: usize = 12;

/// The first `n` of sixteen lanes; all from 16 on, none of none.
#[inline(always)]
pub(super) fn first_lanes(n: usize) -> u16 {
    if n >= 16 { 0xffff } else { (1_u16 << n) - 1 }
}

/// Stores the part of a tile that exists.
///
/// # Safety
/// The CPU must have AVX-512 F; `place` must be valid, and the bias of `output` hold its columns.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn store(sums: &[[__m512; 2]; ROWS], place: Place, output: Output<'_>) {
    let masks = [first_lanes(place.cols), first_lanes(place.cols.saturating_sub(16))];
    let whole = place.cols >= 32;
    let mut bias = [_mm512_setzero_ps(); 2];
    if let Output::Bias(values) = output {
        for (half, bias) in bias.iter_mut().enumerate() {
            // SAFETY: masked-out values are not read.
            *bias = unsafe {
                _mm512_maskz_loadu_ps(masks[half], values.as_ptr().wrapping_add(16 * half))
            };
        }
    }
    let accumulate = matches!(output, Output::Accumulate);
    for (i, sum) in sums.iter().enumerate() {
        if i >= place.rows {
            break;
        }
        for half in 0..2 {
            let at = place.c.wrapping_add(i * place.row_stride + 16 * half);
            // SAFETY: row i exists, and masked-out values are neither read nor written.
            unsafe {
                if whole {
                    let old = if accumulate { _mm512_loadu_ps(at) } else { bias[half] };
                    _mm512_storeu_ps(at, _mm512_add_ps(sum[half], old));
                } else {
                    let old = if accumulate {
                        _mm512_maskz_loadu_ps(masks[half], at)
                    } else {
                        bias[half]
                    };
                    _mm512_mask_storeu_ps(at, masks[half], _mm512_add_ps(sum[half], old));
                }
            }
        }
    }
}

/// Packs lanes whose values of `k` lie side by side into a panel `[element][lane]`.
///
/// `load(lane, element)` gives the elements `element..element + 16` of a lane, zero past the
/// end; it is asked for the first `width` lanes only, the others become zero.
///
/// # Safety
/// The CPU must have AVX-512 F; `panel` must hold `WIDTH * elements` values.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn pack_lanes<const WIDTH: usize>(
    load: impl Fn(usize, usize) -> __m512i,
    width: usize,
    elements: usize,
    panel: *mut u32,
) {
    for lane0 in (0..WIDTH).step_by(16) {
        for element0 in (0..elements).step_by(16) {
            let mut rows = [_mm512_setzero_si512(); 16];
            for (i, row) in rows.iter_mut().enumerate() {
                if lane0 + i < width {
                    *row = load(lane0 + i, element0);
                }
            }
            let columns = transpose(rows);
            for (e, column) in columns.into_iter().enumerate().take(elements - element0) {
                // SAFETY: passed on.
                unsafe { store_lanes::<WIDTH>(column, (element0 + e, lane0), elements, panel) };
            }
        }
    }
}

/// Stores up to sixteen lanes of one element of a panel, from `lane0` on.
///
/// Where a panel has fewer, lanes past them may fall into later elements: elements must be
/// stored in order.
///
/// # Safety
/// As [`pack_lanes`].
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn store_lanes<const WIDTH: usize>(
    values: __m512i,
    (element, lane0): (usize, usize),
    elements: usize,
    panel: *mut u32,
) {
    let start = element * WIDTH + lane0;
    let at = panel.wrapping_add(start);
    let whole = lane0 + 16 <= WIDTH || lane0 == 0 && start + 16 <= WIDTH * elements;
    // SAFETY: inside the panel, whole or masked.
    unsafe {
        if whole {
            _mm512_storeu_si512(at.cast(), values);
        } else {
            _mm512_mask_storeu_epi32(at.cast(), first_lanes(WIDTH - lane0), values);
        }
    }
}

/// Column `i` of the result holds value `i` of every row.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(rows: [__m512i; 16]) -> [__m512i; 16] {
    let zero = _mm512_setzero_si512();
    // Four rows at a time: quads[4 j + c], lane l, holds column 4 l + c of rows 4 j to 4 j + 3.
    let mut quads = [zero; 16];
    for j in 0..4 {
        let row = |i: usize| rows[4 * j + i];
        let (low0, low1) =
            (_mm512_unpacklo_epi32(row(0), row(1)), _mm512_unpacklo_epi32(row(2), row(3)));
        let (high0, high1) =
            (_mm512_unpackhi_epi32(row(0), row(1)), _mm512_unpackhi_epi32(row(2), row(3)));
        quads[4 * j] = _mm512_unpacklo_epi64(low0, low1);
        quads[4 * j + 1] = _mm512_unpackhi_epi64(low0, low1);
        quads[4 * j + 2] = _mm512_unpacklo_epi64(high0, high1);
        quads[4 * j + 3] = _mm512_unpackhi_epi64(high0, high1);
    }
    let mut columns = [zero; 16];
    for c in 0..4 {
        let quad = |j: usize| quads[4 * j + c];
        let even = |a, b| _mm512_shuffle_i32x4::<0x88>(a, b);
        let odd = |a, b| _mm512_shuffle_i32x4::<0xdd>(a, b);
        let (even0, even1) = (even(quad(0), quad(1)), even(quad(2), quad(3)));
        let (odd0, odd1) = (odd(quad(0), quad(1)), odd(quad(2), quad(3)));
        columns[c] = even(even0, even1);
        columns[4 + c] = even(odd0, odd1);
        columns[8 + c] = odd(even0, even1);
        columns[12 + c] = odd(odd0, odd1);
    }
    columns
}
