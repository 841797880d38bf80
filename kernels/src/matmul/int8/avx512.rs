//! The tile for AVX-512 VNNI, which every CPU with bf16 dot products has.

use super::{GROUP, Output, PANEL, Part};
use crate::matmul::avx512_tile;
use crate::matmul::blocked::Place;
use std::arch::x86_64::{
    _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mul_ps,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_sub_epi32,
};

pub(super) const ROWS: usize = avx512_tile::ROWS;

impl Part<'_> {
    /// # Safety
    /// The CPU must have AVX-512 with VNNI, the place be valid for the rows there are and
    /// `cols` columns.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    pub(super) unsafe fn multiply(
        &self,
        (c, row_stride): (*mut f32, usize),
        cols: usize,
        output: Output<'_>,
    ) {
        let height = self.scales.len();
        self.check(ROWS);
        // Rows that do not exist repeat the last one and are not stored.
        let starts: [*const u8; ROWS] = std::array::from_fn(|i| self.row(i));
        let mut sums = [[_mm512_setzero_si512(); 2]; ROWS];
        for k in (0..self.depth).step_by(GROUP) {
            // SAFETY: a row holds `depth` bytes, the panel 32 times as many.
            unsafe {
                let b = self.panel.as_ptr().add(k * PANEL);
                let b0 = _mm512_loadu_si512(b.cast());
                let b1 = _mm512_loadu_si512(b.add(16 * GROUP).cast());
                for (sum, start) in sums.iter_mut().zip(&starts) {
                    let group = start.add(k).cast::<i32>().read_unaligned();
                    let a = _mm512_set1_epi32(group);
                    sum[0] = _mm512_dpbusd_epi32(sum[0], a, b0);
                    sum[1] = _mm512_dpbusd_epi32(sum[1], a, b1);
                }
            }
        }
        let mut tile = [[_mm512_setzero_ps(); 2]; ROWS];
        for half in 0..2 {
            // SAFETY: 32 columns have scales and offsets.
            let (column_scales, offsets) = unsafe {
                (
                    _mm512_loadu_ps(self.column_scales.as_ptr().add(16 * half)),
                    _mm512_loadu_si512(self.offsets.as_ptr().add(16 * half).cast()),
                )
            };
            for ((tile, sum), &scale) in tile.iter_mut().zip(&sums).zip(self.scales) {
                let exact = _mm512_cvtepi32_ps(_mm512_sub_epi32(sum[half], offsets));
                let scale = _mm512_mul_ps(_mm512_set1_ps(scale), column_scales);
                tile[half] = _mm512_mul_ps(exact, scale);
            }
        }
        // SAFETY: passed on.
        unsafe {
            let place = Place { c, row_stride, rows: height, cols };
            avx512_tile::store(&tile, place, output);
        }
    }
}
