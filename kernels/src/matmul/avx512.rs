//! The tile for AVX-512 in f32.

use super::blocked::{MicroKernel, pack_f32, panel_buffers};
use std::arch::x86_64::{
    _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
};

/// 12 x 32 tile: 24 of the 32 registers hold sums.
pub(super) struct Kernel;

impl MicroKernel for Kernel {
    type Element = f32;
    const MR: usize = 12;
    const NR: usize = 32;
    const K_PER_ELEMENT: usize = 1;
    const BLOCK_ELEMENTS: usize = 256;

    unsafe fn pack<const WIDTH: usize>(
        source: *const f32,
        strides: (usize, usize),
        shape: (usize, usize),
        target: *mut f32,
    ) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
        unsafe fn pack<const WIDTH: usize>(
            source: *const f32,
            strides: (usize, usize),
            shape: (usize, usize),
            target: *mut f32,
        ) {
            // SAFETY: passed on.
            unsafe { pack_f32::<WIDTH>(source, strides, shape, target) }
        }
        // SAFETY: passed on; the caller promises AVX-512.
        unsafe { pack::<WIDTH>(source, strides, shape, target) }
    }

    #[inline]
    unsafe fn multiply(elements: usize, a: *const f32, b: *const f32, tile: *mut f32) {
        // SAFETY: passed on; the caller promises AVX-512.
        unsafe { multiply(elements, a, b, tile) }
    }

    panel_buffers!(f32);
}

/// # Safety
/// As [`MicroKernel::multiply`].
#[target_feature(enable = "avx512f")]
unsafe fn multiply(elements: usize, a: *const f32, b: *const f32, tile: *mut f32) {
    let mut sums = [[_mm512_setzero_ps(); 2]; 12];
    for step in 0..elements {
        // SAFETY: panels hold `elements` steps.
        unsafe {
            let b0 = _mm512_loadu_ps(b.add(step * 32));
            let b1 = _mm512_loadu_ps(b.add(step * 32 + 16));
            for (i, sum) in sums.iter_mut().enumerate() {
                let a = _mm512_set1_ps(*a.add(step * 12 + i));
                sum[0] = _mm512_fmadd_ps(a, b0, sum[0]);
                sum[1] = _mm512_fmadd_ps(a, b1, sum[1]);
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
