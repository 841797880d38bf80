//! The tile for NEON in f32.

use super::Output;
use super::blocked::{MicroKernel, Place, pack_f32, panel_buffers};
use std::arch::aarch64::{vdupq_n_f32, vfmaq_f32, vld1q_f32, vst1q_f32};

/// 6 x 16 tile: 24 of the 32 registers hold sums.
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
        // SAFETY: passed on.
        unsafe { pack_f32::<WIDTH>(source, strides, shape, target) }
    }

    unsafe fn multiply(
        elements: usize,
        a: *const f32,
        b: *const f32,
        place: Place,
        output: Output<'_>,
    ) {
        let mut tile = [[0.0_f32; 16]; 6];
        // SAFETY: panels hold `elements` steps; every CPU of this architecture has NEON; a row
        // of the tile holds sixteen values.
        unsafe {
            let mut sums = [[vdupq_n_f32(0.0); 4]; 6];
            for step in 0..elements {
                let b: [_; 4] = std::array::from_fn(|j| vld1q_f32(b.add(step * 16 + 4 * j)));
                for (i, sums) in sums.iter_mut().enumerate() {
                    let a = vdupq_n_f32(*a.add(step * 6 + i));
                    for (sum, &b) in sums.iter_mut().zip(&b) {
                        *sum = vfmaq_f32(*sum, a, b);
                    }
                }
            }
            for (row, sums) in tile.iter_mut().zip(&sums) {
                for (j, &sum) in sums.iter().enumerate() {
                    vst1q_f32(row.as_mut_ptr().add(4 * j), sum);
                }
            }
            place.store(&tile, output);
        }
    }

    panel_buffers!(f32);
}
