//! The tile for NEON: with the dot products of Armv8.2, or with widening products.
//!
//! Both take signed bytes: rows are shifted from unsigned ones by turning over their highest bit,
//! which takes 128 from each, so that there are no offsets to take off in the end.

use super::{GROUP, PANEL, Part};
use std::arch::aarch64::{
    int8x16_t, int32x4_t, vaddq_s32, vdupq_n_s8, vdupq_n_s32, veorq_s8, vget_high_s8, vget_low_s8,
    vld1q_s8, vmull_s8, vpaddlq_s16, vpaddq_s32, vreinterpretq_s8_s32, vst1q_s32,
};
use std::arch::asm;

/// Rows of the tile: with eight vectors a row, 24 of the 32 registers hold sums.
pub(super) const ROWS: usize = 3;
/// Vectors of four columns in a panel.
const VECTORS: usize = PANEL / 4;

/// `sums + a · b` over groups of four signed bytes, none of them -128.
trait Dot {
    /// # Safety
    /// The CPU must have the instructions.
    unsafe fn dot(sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t;
}

struct DotProducts;

impl Dot for DotProducts {
    #[inline(always)]
    unsafe fn dot(mut sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
        // SAFETY: the CPU has it by the caller's promise; registers alone are touched.
        unsafe {
            asm!(
                "sdot {sums:v}.4s, {a:v}.16b, {b:v}.16b",
                sums = inout(vreg) sums,
                a = in(vreg) a,
                b = in(vreg) b,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sums
    }
}

struct Widening;

impl Dot for Widening {
    #[inline(always)]
    unsafe fn dot(sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
        // SAFETY: every CPU of this architecture has NEON.
        unsafe {
            let low = vmull_s8(vget_low_s8(a), vget_low_s8(b));
            let high = vmull_s8(vget_high_s8(a), vget_high_s8(b));
            vaddq_s32(sums, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)))
        }
    }
}

/// Exact sums of up to three rows with the columns of a panel, of bytes less 128.
///
/// # Safety
/// The CPU must have the dot products of Armv8.2.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn sums_of_dot_products(part: &Part<'_>) -> [[i32; PANEL]; ROWS] {
    // SAFETY: passed on.
    unsafe { tile::<DotProducts>(part) }
}

/// As [`sums_of_dot_products`], on any CPU of this architecture.
pub(super) fn sums(part: &Part<'_>) -> [[i32; PANEL]; ROWS] {
    // SAFETY: NEON is there.
    unsafe { tile::<Widening>(part) }
}

#[inline(always)]
unsafe fn tile<D: Dot>(part: &Part<'_>) -> [[i32; PANEL]; ROWS] {
    part.check(ROWS);
    let starts: [*const u8; ROWS] = std::array::from_fn(|i| part.row(i));
    let mut totals = [[0_i32; PANEL]; ROWS];
    // SAFETY: a row holds `depth` bytes, the panel 32 times as many; the CPU has the
    // instructions by the caller's promise.
    unsafe {
        let mut sums = [[vdupq_n_s32(0); VECTORS]; ROWS];
        let highest = vdupq_n_s8(i8::MIN);
        for k in (0..part.depth).step_by(GROUP) {
            let a = starts.map(|row| {
                let group = vdupq_n_s32(row.add(k).cast::<i32>().read_unaligned());
                veorq_s8(vreinterpretq_s8_s32(group), highest)
            });
            for vector in 0..VECTORS {
                let b = vld1q_s8(part.panel.as_ptr().add(k * PANEL + vector * 4 * GROUP));
                for (sums, &a) in sums.iter_mut().zip(&a) {
                    sums[vector] = D::dot(sums[vector], a, b);
                }
            }
        }
        for (totals, sums) in totals.iter_mut().zip(&sums) {
            for (vector, &sum) in sums.iter().enumerate() {
                vst1q_s32(totals.as_mut_ptr().add(4 * vector), sum);
            }
        }
    }
    totals
}
