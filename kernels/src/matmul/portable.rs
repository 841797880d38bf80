//! The tile in plain Rust, for CPUs without a path of their own.

use super::Output;
use super::blocked::{MicroKernel, Place, pack_f32, panel_buffers};

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

    unsafe fn multiply(
        elements: usize,
        a: *const f32,
        b: *const f32,
        place: Place,
        output: Output<'_>,
    ) {
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
        // SAFETY: passed on.
        unsafe { place.store(&sums, output) };
    }

    panel_buffers!(f32);
}
