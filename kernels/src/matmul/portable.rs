//! The tile in plain Rust, for CPUs without a path of their own.

use super::blocked::{MicroKernel, pack_f32, panel_buffers};

/// 4 x 16 tile.
pub(super) struct Kernel;

impl MicroKernel for Kernel {
    type Element = f32;
    const MR: usize = 4;
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

    unsafe fn multiply(elements: usize, a: *const f32, b: *const f32, tile: *mut f32) {
        let mut sums = [[0.0_f32; Self::NR]; Self::MR];
        for step in 0..elements {
            // SAFETY: panels hold `elements` steps by the caller's promise.
            let (a, b) = unsafe {
                (
                    &*a.add(step * Self::MR).cast::<[f32; Self::MR]>(),
                    &*b.add(step * Self::NR).cast::<[f32; Self::NR]>(),
                )
            };
            for (sums, &a) in sums.iter_mut().zip(a) {
                for (sum, &b) in sums.iter_mut().zip(b) {
                    *sum += a * b;
                }
            }
        }
        for (i, row) in sums.iter().enumerate() {
            // SAFETY: the tile holds MR rows of NR values.
            unsafe {
                std::ptr::copy_nonoverlapping(row.as_ptr(), tile.add(i * Self::NR), Self::NR);
            };
        }
    }

    panel_buffers!(f32);
}
