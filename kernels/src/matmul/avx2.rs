//! The tile for AVX2 with FMA.

use super::Output;
use super::blocked::{MicroKernel, Place, pack_f32, panel_buffers};
use std::arch::x86_64::{
    _mm256_broadcast_ss, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_setzero_ps, _mm256_storeu_ps,
};

/// 6 x 16 tile: twelve of the sixteen registers hold sums.
pub(super) struct Kernel;

impl MicroKernel for Kernel {
    type Element = f32;
    const MR: usize = 6;
    const NR: usize = 16;
    const K_PER_ELEMENT: usize = 1;
    const BLOCK_ELEMENTS: usize = 256;

    unsafe fn pack<const WIDTH: usize>(
        source: *const f32,
        strides: (usize, usize),
        shape: (usize, usize),
        target: *mut f32,
    ) {
        #[target_feature(enable = "avx2")]
        unsafe fn pack<const WIDTH: usize>(
            source: *const f32,
            strides: (usize, usize),
            shape: (usize, usize),
            target: *mut f32,
        ) {
            // SAFETY: passed on.
            unsafe { pack_f32::<WIDTH>(source, strides, shape, target) }
        }
        // SAFETY: passed on; the caller promises AVX2.
        unsafe { pack::<WIDTH>(source, strides, shape, target) }
    }

    #[inline]
    unsafe fn multiply(
        elements: usize,
        a: *const f32,
        b: *const f32,
        place: Place,
        output: Output<'_>,
    ) {
        // SAFETY: passed on; the caller promises AVX2 and FMA.
        unsafe { multiply(elements, a, b, place, output) }
    }

    panel_buffers!(f32);
}

/// # Safety
/// As [`MicroKernel::multiply`].
#[target_feature(enable = "avx2,fma")]
unsafe fn multiply(
    elements: usize,
    a: *const f32,
    b: *const f32,
    place: Place,
    output: Output<'_>,
) {
    let mut sums = [[_mm256_setzero_ps(); 2]; 6];
    for step in 0..elements {
        // SAFETY: panels hold `elements` steps.
        unsafe {
            let b0 = _mm256_loadu_ps(b.add(step * 16));
            let b1 = _mm256_loadu_ps(b.add(step * 16 + 8));
            for (i, sum) in sums.iter_mut().enumerate() {
                let a = _mm256_broadcast_ss(&*a.add(step * 6 + i));
                sum[0] = _mm256_fmadd_ps(a, b0, sum[0]);
                sum[1] = _mm256_fmadd_ps(a, b1, sum[1]);
            }
        }
    }
    let mut tile = [[0.0; 16]; 6];
    for (row, sum) in tile.iter_mut().zip(&sums) {
        // SAFETY: a row holds 16 values.
        unsafe {
            _mm256_storeu_ps(row.as_mut_ptr(), sum[0]);
            _mm256_storeu_ps(row.as_mut_ptr().add(8), sum[1]);
        }
    }
    // SAFETY: passed on.
    unsafe { place.store(&tile, output) };
}
