//! The tile for AVX-512 in f32.

use super::Output;
use super::avx512_tile::{self, first_lanes, pack_lanes};
use super::blocked::{MicroKernel, Place, pack_f32, panel_buffers};
use std::arch::x86_64::{
    _mm512_castps_si512, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_maskz_loadu_ps, _mm512_set1_ps,
    _mm512_setzero_ps,
};

/// 12 x 32 tile: 24 of the 32 registers hold sums.
pub(super) struct Kernel;

impl MicroKernel for Kernel {
    type Element = f32;
    const MR: usize = avx512_tile::ROWS;
    const NR: usize = 32;
    const K_PER_ELEMENT: usize = 1;
    const BLOCK_ELEMENTS: usize = 256;

    unsafe fn pack<const WIDTH: usize>(
        source: *const f32,
        strides: (usize, usize),
        shape: (usize, usize),
        target: *mut f32,
    ) {
        // SAFETY: passed on; the caller promises AVX-512.
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
        // SAFETY: passed on; the caller promises AVX-512.
        unsafe { multiply(elements, a, b, place, output) }
    }

    panel_buffers!(f32);
}

/// # Safety
/// As [`MicroKernel::pack`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn pack<const WIDTH: usize>(
    source: *const f32,
    (lane_stride, k_stride): (usize, usize),
    (lanes, k): (usize, usize),
    target: *mut f32,
) {
    if lane_stride == 1 || k_stride != 1 {
        // SAFETY: passed on.
        unsafe { pack_f32::<WIDTH>(source, (lane_stride, k_stride), (lanes, k), target) };
        return;
    }
    for (panel, lane0) in (0..lanes).step_by(WIDTH).enumerate() {
        let load = |lane: usize, from: usize| {
            let at = source.wrapping_add((lane0 + lane) * lane_stride + from);
            // SAFETY: the lane has k values; those past them are not read.
            unsafe { _mm512_castps_si512(_mm512_maskz_loadu_ps(first_lanes(k - from), at)) }
        };
        // SAFETY: a panel holds WIDTH * k values.
        unsafe {
            let panel = target.add(panel * WIDTH * k).cast();
            pack_lanes::<WIDTH>(load, lanes - lane0, k, panel);
        }
    }
}

/// # Safety
/// As [`MicroKernel::multiply`].
#[target_feature(enable = "avx512f")]
unsafe fn multiply(
    elements: usize,
    a: *const f32,
    b: *const f32,
    place: Place,
    output: Output<'_>,
) {
    let mut sums = [[_mm512_setzero_ps(); 2]; avx512_tile::ROWS];
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
    // SAFETY: passed on.
    unsafe { avx512_tile::store(&sums, place, output) };
}
