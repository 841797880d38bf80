//! The tile for AVX-512 with bf16 dot products: two values of `k` per step.

use super::blocked::{MicroKernel, panel_buffers};
use std::arch::x86_64::{
    __m256bh, __m256i, __m512bh, __m512i, _mm512_castsi512_ps, _mm512_cvtepu16_epi32,
    _mm512_cvtneps_pbh, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_mask_storeu_epi32, _mm512_maskz_loadu_ps, _mm512_or_si512, _mm512_set1_epi32,
    _mm512_setzero_ps, _mm512_slli_epi32, _mm512_storeu_ps,
};
use std::mem::transmute;

/// 12 x 32 tile of sums over pairs.
pub(super) struct Kernel;

impl MicroKernel for Kernel {
    /// The even value of `k` in the low half, the odd one in the high half.
    type Element = u32;
    const MR: usize = 12;
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
    unsafe fn multiply(elements: usize, a: *const u32, b: *const u32, tile: *mut f32) {
        // SAFETY: passed on; the caller promises the instructions.
        unsafe { multiply(elements, a, b, tile) }
    }

    panel_buffers!(u32);
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

/// # Safety
/// As [`MicroKernel::pack`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn pack<const WIDTH: usize>(
    source: *const f32,
    (lane_stride, k_stride): (usize, usize),
    (lanes, k): (usize, usize),
    target: *mut u32,
) {
    let pairs = k / 2;
    let elements = k.div_ceil(2);
    for (panel, lane0) in (0..lanes).step_by(WIDTH).enumerate() {
        let width = WIDTH.min(lanes - lane0);
        // SAFETY: lanes and k stay inside the checked view; a panel holds WIDTH * elements.
        unsafe {
            let source = source.add(lane0 * lane_stride);
            let panel = target.add(panel * WIDTH * elements);
            if width < WIDTH {
                std::ptr::write_bytes(panel, 0, WIDTH * elements);
            }
            let value = |i: usize, j: usize| bf16(*source.add(i * lane_stride + j * k_stride));
            let mut done = 0;
            if lane_stride == 1 {
                for i in (0..width).step_by(16) {
                    // Lanes that do not exist are neither read nor written.
                    let mask = 0xffff_u16 >> (16 - 16.min(width - i));
                    for e in 0..pairs {
                        let even = source.add(2 * e * k_stride + i);
                        let odd = source.add((2 * e + 1) * k_stride + i);
                        let joined = interleave(even, odd, mask);
                        _mm512_mask_storeu_epi32(panel.add(e * WIDTH + i).cast(), mask, joined);
                    }
                }
                done = pairs;
            } else if k_stride == 1 {
                // Sixteen pairs of one lane at a time, spread over their panel rows.
                let whole = pairs / 16 * 16;
                let mut row = [0_u32; 16];
                for e0 in (0..whole).step_by(16) {
                    for i in 0..width {
                        let from = source.add(i * lane_stride + 2 * e0);
                        let low = _mm512_cvtneps_pbh(_mm512_loadu_ps(from));
                        let high = _mm512_cvtneps_pbh(_mm512_loadu_ps(from.add(16)));
                        let out = row.as_mut_ptr();
                        std::ptr::write_unaligned(out.cast(), low);
                        std::ptr::write_unaligned(out.add(8).cast(), high);
                        for (e, &pair) in row.iter().enumerate() {
                            *panel.add((e0 + e) * WIDTH + i) = pair;
                        }
                    }
                }
                done = whole;
            }
            for e in done..elements {
                for i in 0..width {
                    let odd = if 2 * e + 1 < k { value(i, 2 * e + 1) } else { 0 };
                    *panel.add(e * WIDTH + i) = value(i, 2 * e) | (odd << 16);
                }
            }
        }
    }
}

/// Up to sixteen pairs from two rows of values, those of `mask`.
///
/// # Safety
/// Both pointers must be valid for the values of `mask`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn interleave(even: *const f32, odd: *const f32, mask: u16) -> __m512i {
    // SAFETY: valid by the caller's promise; bf16 and integer vectors of one size have one layout.
    unsafe {
        let even = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, even));
        let odd = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, odd));
        let even = _mm512_cvtepu16_epi32(transmute::<__m256bh, __m256i>(even));
        let odd = _mm512_cvtepu16_epi32(transmute::<__m256bh, __m256i>(odd));
        _mm512_or_si512(even, _mm512_slli_epi32::<16>(odd))
    }
}

/// # Safety
/// As [`MicroKernel::multiply`].
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn multiply(elements: usize, a: *const u32, b: *const u32, tile: *mut f32) {
    let mut sums = [[_mm512_setzero_ps(); 2]; 12];
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
    for (i, sum) in sums.iter().enumerate() {
        // SAFETY: the tile holds 12 rows of 32 values.
        unsafe {
            _mm512_storeu_ps(tile.add(i * 32), sum[0]);
            _mm512_storeu_ps(tile.add(i * 32 + 16), sum[1]);
        }
    }
}
