//! The tile for AMX: sixteen rows and a panel at a time, 64 bytes of `k` a step.
//!
//! Rows and panels lie in memory as the tiles take them, so that nothing is packed again.

use super::{GROUP, PANEL, Part};
use crate::matmul::amx::{Config, Tiles};

/// Rows of the tile.
pub(super) const ROWS: usize = 16;
/// Bytes of a row of a tile.
const STEP: usize = 64;

/// Exact sums of up to sixteen rows with the columns of a panel.
///
/// # Safety
/// As [`Tiles`] asks.
pub(super) unsafe fn sums<T: Tiles>(part: &Part<'_>) -> [[i32; PANEL]; ROWS] {
    part.check(ROWS);
    let mut totals = [[0_i32; PANEL]; ROWS];
    let (steps, rest) = (part.depth / STEP, part.depth % STEP);
    let mut tiles = T::default();
    let (a, b) = (part.rows.as_ptr(), part.panel.as_ptr().cast::<u8>());
    // A row of the panel, four values of k for each column, is two rows of tiles.
    let stride = PANEL * GROUP;
    // SAFETY: the part was checked: tiles lie inside its rows and its panel, sums inside
    // `totals`; the CPU has the instructions by the caller's promise.
    unsafe {
        tiles.configure(&Config::new(part.scales.len(), rest, rest / GROUP));
        tiles.zero::<0>();
        tiles.zero::<1>();
        for step in 0..steps {
            let b = b.add(step * STEP * PANEL);
            tiles.load::<2>(a.add(step * STEP), part.depth);
            tiles.load::<3>(b, stride);
            tiles.load::<4>(b.add(STEP), stride);
            tiles.dot_bytes::<0, 2, 3>();
            tiles.dot_bytes::<1, 2, 4>();
        }
        if rest > 0 {
            let b = b.add(steps * STEP * PANEL);
            tiles.load::<5>(a.add(steps * STEP), part.depth);
            tiles.load::<6>(b, stride);
            tiles.load::<7>(b.add(STEP), stride);
            tiles.dot_bytes::<0, 5, 6>();
            tiles.dot_bytes::<1, 5, 7>();
        }
        let to = totals.as_mut_ptr().cast::<u8>();
        tiles.store::<0>(to, size_of::<[i32; PANEL]>());
        tiles.store::<1>(to.add(STEP), size_of::<[i32; PANEL]>());
        tiles.release();
    }
    totals
}
