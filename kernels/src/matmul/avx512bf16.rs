//! The tile for AVX-512 with bf16 dot products: two values of `k` per step.

use super::Output;
use super::avx512_tile::{self, first_lanes, pack_lanes, store_lanes};
use super::blocked::{MicroKernel, Place, panel_buffers};
use std::arch::x86_64::{
    __m512bh, __m512i, _mm512_castsi512_ps, _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps,
    _mm512_loadu_si512, _mm512_maskz_loadu_ps, _mm512_permutexvar_epi16, _mm512_set1_epi32,
    _mm512_setzero_ps,
};
use std::mem::transmute;

/// 12 x 32 tile of sums over pairs.
pub(super) struct Kernel;

impl MicroKernel for Kernel {
    /// The even value of `k` in the low half, the odd one in the high half.
    type Element = u32;
    const MR: usize = avx512_tile::ROWS;
    const NR: usize = 32;
    const K_PER_ELEMENT: usize = 2;
    const BLOCK_ELEMENTS: usize = 256;

    unsafe fn pack<const WIDTH: usize>(
        source: *const f32,
        strides: (usize, usize),
        shape: (usize, usize),
        target: *mut u32,
    ) {
        // SAFETY: passed on; the caller promises the instructions.
        unsafe { pack::<WIDTH>(source, strides, shape, target) }
    }

    #[inline]
    unsafe fn multiply(
        elements: usize,
        a: *const u32,
        b: *const u32,
        place: Place,
        output: Output<'_>,
    ) {
        // SAFETY: passed on; the caller promises the instructions.
        unsafe { multiply(elements, a, b, place, output) }
    }

    panel_buffers!(u32);
}

/// # Safety
/// As [`MicroKernel::pack`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn pack<const WIDTH: usize>(
    source: *const f32,
    (lane_stride, k_stride): (usize, usize),
    (lanes, k): (usize, usize),
    target: *mut u32,
) {
    let elements = k.div_ceil(2);
    for (panel, lane0) in (0..lanes).step_by(WIDTH).enumerate() {
        let width = WIDTH.min(lanes - lane0);
        let source = source.wrapping_add(lane0 * lane_stride);
        // SAFETY: a panel holds WIDTH * elements.
        let panel = unsafe { target.add(panel * WIDTH * elements) };
        if lane_stride == 1 {
            for i in (0..WIDTH).step_by(16) {
                // Lanes that do not exist are not read.
                let read = first_lanes(width.saturating_sub(i));
                for e in 0..elements {
                    let even = source.wrapping_add(2 * e * k_stride + i);
                    let odd = even.wrapping_add(k_stride);
                    let odd_lanes = if 2 * e + 1 < k { read } else { 0 };
                    // SAFETY: values of the view alone are read, those of the panel written.
                    unsafe {
                        let pairs = interleave((even, read), (odd, odd_lanes));
                        store_lanes::<WIDTH>(pairs, (e, i), elements, panel);
                    }
                }
            }
        } else if k_stride == 1 {
            let load = |lane: usize, element: usize| {
                let left = k - 2 * element;
                let at = source.wrapping_add(lane * lane_stride + 2 * element);
                // SAFETY: the lane has k values, those past them are not read; bf16 and
                // integer vectors have one layout.
                unsafe {
                    let low = _mm512_maskz_loadu_ps(first_lanes(left), at);
                    let mask = first_lanes(left.saturating_sub(16));
                    let high = _mm512_maskz_loadu_ps(mask, at.wrapping_add(16));
                    transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low))
                }
            };
            // SAFETY: a panel holds WIDTH * elements.
            unsafe { pack_lanes::<WIDTH>(load, width, elements, panel) };
        } else {
            for e in 0..elements {
                for i in 0..WIDTH {
                    let value = |j: usize| {
                        let at = source.wrapping_add(i * lane_stride + j * k_stride);
                        // SAFETY: lane and j are inside the checked view.
                        if i < width && j < k { unsafe { bf16(*at) } } else { 0 }
                    };
                    // SAFETY: inside the panel.
                    unsafe { *panel.add(e * WIDTH + i) = value(2 * e) | (value(2 * e + 1) << 16) };
                }
            }
        }
    }
}

/// Rounds to nearest even, as the vector instruction does; NaN stays NaN.
#[inline(always)]
fn bf16(value: f32) -> u32 {
    let bits = value.to_bits();
    if value.is_nan() {
        return (bits >> 16) | 0x40;
    }
    (bits + 0x7fff + ((bits >> 16) & 1)) >> 16
}

/// Up to sixteen pairs from two rows of values, zero where a mask has no bit.
///
/// # Safety
/// The CPU must have the instructions, and the pointers be valid for the values of their masks.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn interleave(even: (*const f32, u16), odd: (*const f32, u16)) -> __m512i {
    /// Words of the rounded rows, even row first, in the order of pairs.
    const ORDER: [u16; 32] = {
        let mut order = [0; 32];
        let mut i = 0;
        while i < 32 {
            order[i] = (i / 2 + 16 * (i % 2)) as u16;
            i += 1;
        }
        order
    };
    // SAFETY: valid by the caller's promise; bf16 and integer vectors have one layout.
    unsafe {
        let even = _mm512_maskz_loadu_ps(even.1, even.0);
        let odd = _mm512_maskz_loadu_ps(odd.1, odd.0);
        let rounded = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(odd, even));
        _mm512_permutexvar_epi16(_mm512_loadu_si512(ORDER.as_ptr().cast()), rounded)
    }
}

/// # Safety
/// As [`MicroKernel::multiply`].
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn multiply(
    elements: usize,
    a: *const u32,
    b: *const u32,
    place: Place,
    output: Output<'_>,
) {
    let mut sums = [[_mm512_setzero_ps(); 2]; avx512_tile::ROWS];
    for step in 0..elements {
        // SAFETY: panels hold `elements` steps; bf16 and integer vectors have one layout.
        unsafe {
            let b0: __m512bh = transmute(_mm512_loadu_si512(b.add(step * 32).cast()));
            let b1: __m512bh = transmute(_mm512_loadu_si512(b.add(step * 32 + 16).cast()));
            for (i, sum) in sums.iter_mut().enumerate() {
                let pair = _mm512_set1_epi32((*a.add(step * 12 + i)).cast_signed());
                let a: __m512bh = transmute(_mm512_castsi512_ps(pair));
                sum[0] = _mm512_dpbf16_ps(sum[0], a, b0);
                sum[1] = _mm512_dpbf16_ps(sum[1], a, b1);
            }
        }
    }
    // SAFETY: passed on.
    unsafe { avx512_tile::store(&sums, place, output) };
}
