//! The tile for AVX-VNNI, 256-bit vectors: CPUs that have dot products but no AVX-512.
//!
//! The tile is generic over the instruction, which AVX-512 has in another encoding: so it is
//! tested on CPUs with either.

use super::{GROUP, PANEL, Part};
use std::arch::x86_64::{
    __m256i, _mm256_dpbusd_avx_epi32, _mm256_loadu_si256, _mm256_set1_epi32, _mm256_setzero_si256,
    _mm256_storeu_si256,
};

/// Rows of the tile: with four vectors a row, twelve of the sixteen registers hold sums.
pub(super) const ROWS: usize = 3;

/// `sums + a · b` over groups of four bytes, unsigned by signed.
trait Dot {
    /// # Safety
    /// The CPU must have the instruction.
    unsafe fn dot(sums: __m256i, a: __m256i, b: __m256i) -> __m256i;
}

struct AvxVnni;

impl Dot for AvxVnni {
    #[inline(always)]
    unsafe fn dot(sums: __m256i, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the CPU has it by the caller's promise.
        unsafe { _mm256_dpbusd_avx_epi32(sums, a, b) }
    }
}

/// Exact sums of up to three rows with the columns of a panel.
///
/// # Safety
/// The CPU must have AVX2 and AVX-VNNI.
#[target_feature(enable = "avx2,avxvnni")]
pub(super) unsafe fn sums(part: &Part<'_>) -> [[i32; PANEL]; ROWS] {
    // SAFETY: passed on.
    unsafe { tile::<AvxVnni>(part) }
}

#[inline(always)]
unsafe fn tile<D: Dot>(part: &Part<'_>) -> [[i32; PANEL]; ROWS] {
    part.check(ROWS);
    let starts: [*const u8; ROWS] = std::array::from_fn(|i| part.row(i));
    let mut totals = [[[0_i32; 8]; 4]; ROWS];
    // SAFETY: a row holds `depth` bytes, the panel 32 times as many; the CPU has the
    // instructions by the caller's promise.
    unsafe {
        let mut sums = [[_mm256_setzero_si256(); 4]; ROWS];
        for k in (0..part.depth).step_by(GROUP) {
            let a = starts.map(|row| _mm256_set1_epi32(row.add(k).cast::<i32>().read_unaligned()));
            for quarter in 0..4 {
                let b = part.panel.as_ptr().add(k * PANEL + quarter * 8 * GROUP);
                let b = _mm256_loadu_si256(b.cast());
                for (sums, &a) in sums.iter_mut().zip(&a) {
                    sums[quarter] = D::dot(sums[quarter], a, b);
                }
            }
        }
        for (totals, sums) in totals.iter_mut().zip(&sums) {
            for (total, &sum) in totals.iter_mut().zip(sums) {
                _mm256_storeu_si256(total.as_mut_ptr().cast(), sum);
            }
        }
    }
    totals.map(|row| std::array::from_fn(|j| row[j / 8][j % 8]))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::arch::x86_64::_mm256_dpbusd_epi32;

    /// The same instruction in the encoding of AVX-512.
    struct Avx512Vnni;

    impl Dot for Avx512Vnni {
        #[inline(always)]
        unsafe fn dot(sums: __m256i, a: __m256i, b: __m256i) -> __m256i {
            // SAFETY: the CPU has it by the caller's promise.
            unsafe { _mm256_dpbusd_epi32(sums, a, b) }
        }
    }

    /// # Safety
    /// The CPU must have AVX-512 with VNNI.
    #[target_feature(enable = "avx2,avx512f,avx512vl,avx512vnni")]
    pub(in crate::matmul::int8) unsafe fn sums_of_avx512(part: &Part<'_>) -> [[i32; PANEL]; ROWS] {
        // SAFETY: passed on.
        unsafe { tile::<Avx512Vnni>(part) }
    }
}
