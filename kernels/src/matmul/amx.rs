//! Tiles of Intel AMX, and the product of bf16 with them.
//!
//! The loops are generic over [`Tiles`]: the instructions, or (in tests) an emulation that does
//! what the manual says they do (Intel Architecture Instruction Set Extensions Programming
//! Reference, chapter 3). No CPU with AMX has run them so far.

use super::Output;
use super::blocked::{MicroKernel, Place, panel_buffers};
use std::arch::asm;
use std::marker::PhantomData;

/// What the eight tiles are: as `ldtilecfg` reads it.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy)]
pub(super) struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    /// Bytes of a row of each tile.
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Config {
    /// Sums in tiles 0 and 1, of `height` rows; operands in tiles 2 (left), 3 and 4 (right),
    /// 64 bytes a row; the rest of `k` in tiles 5 (left, `rest` bytes a row), 6 and 7 (right,
    /// `rest_rows` rows). Without a rest, the last three are as small as tiles get.
    pub(super) fn new(height: usize, rest: usize, rest_rows: usize) -> Self {
        let mut config =
            Self { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        let (height, rest, rest_rows) = (height.min(16), rest.min(64), rest_rows.min(16));
        for (tile, (rows, bytes)) in [
            (height, 64),
            (height, 64),
            (height, 64),
            (16, 64),
            (16, 64),
            (height, rest.max(4)),
            (rest_rows.max(1), 64),
            (rest_rows.max(1), 64),
        ]
        .into_iter()
        .enumerate()
        {
            config.rows[tile] = rows as u8;
            config.row_bytes[tile] = bytes as u16;
        }
        config
    }
}

/// The tile registers of a thread.
///
/// # Safety
/// Whoever calls must know that the CPU has the instructions and the process may use them
/// ([`request`]), and that what is loaded and stored lies in memory it may read and write.
pub(super) trait Tiles: Default {
    unsafe fn configure(&mut self, config: &Config);
    unsafe fn zero<const TILE: usize>(&mut self);
    /// `stride`: bytes from row to row.
    unsafe fn load<const TILE: usize>(&mut self, from: *const u8, stride: usize);
    unsafe fn store<const TILE: usize>(&mut self, to: *mut u8, stride: usize);
    /// Adds products of pairs of bf16 to sums in f32.
    unsafe fn dot_pairs<const SUMS: usize, const A: usize, const B: usize>(&mut self);
    /// Adds products of groups of four bytes, unsigned by signed, to sums in 32 bits.
    unsafe fn dot_bytes<const SUMS: usize, const A: usize, const B: usize>(&mut self);
    unsafe fn release(&mut self);
}

/// The instructions.
#[derive(Debug, Default)]
pub(super) struct Hardware;

/// One instruction on a tile whose number is a constant: numbers are part of the mnemonic.
macro_rules! on_tile {
    ($tile:expr, $before:literal, $after:literal $(, $($operand:tt)*)?) => {
        match $tile {
            0 => asm!(concat!($before, "tmm0", $after) $(, $($operand)*)?),
            1 => asm!(concat!($before, "tmm1", $after) $(, $($operand)*)?),
            2 => asm!(concat!($before, "tmm2", $after) $(, $($operand)*)?),
            3 => asm!(concat!($before, "tmm3", $after) $(, $($operand)*)?),
            4 => asm!(concat!($before, "tmm4", $after) $(, $($operand)*)?),
            5 => asm!(concat!($before, "tmm5", $after) $(, $($operand)*)?),
            6 => asm!(concat!($before, "tmm6", $after) $(, $($operand)*)?),
            _ => asm!(concat!($before, "tmm7", $after) $(, $($operand)*)?),
        }
    };
}

/// The four products that the loops make.
macro_rules! on_operands {
    ($name:literal, $sums:expr, $a:expr, $b:expr) => {
        match ($sums, $a, $b) {
            (0, 2, 3) => asm!(concat!($name, " tmm0, tmm2, tmm3"), options(nomem, nostack)),
            (1, 2, 4) => asm!(concat!($name, " tmm1, tmm2, tmm4"), options(nomem, nostack)),
            (0, 5, 6) => asm!(concat!($name, " tmm0, tmm5, tmm6"), options(nomem, nostack)),
            (1, 5, 7) => asm!(concat!($name, " tmm1, tmm5, tmm7"), options(nomem, nostack)),
            _ => unreachable!("the loops multiply no other tiles"),
        }
    };
}

impl Tiles for Hardware {
    #[inline(always)]
    unsafe fn configure(&mut self, config: &Config) {
        // SAFETY: the CPU has it by the caller's promise; the 64 bytes are read.
        unsafe { asm!("ldtilecfg [{}]", in(reg) config, options(readonly, nostack)) };
    }

    #[inline(always)]
    unsafe fn zero<const TILE: usize>(&mut self) {
        // SAFETY: by the caller's promise.
        unsafe { on_tile!(TILE, "tilezero ", "", options(nomem, nostack)) };
    }

    #[inline(always)]
    unsafe fn load<const TILE: usize>(&mut self, from: *const u8, stride: usize) {
        // SAFETY: by the caller's promise.
        unsafe {
            on_tile!(
                TILE, "tileloadd ", ", [{from} + {stride}]",
                from = in(reg) from, stride = in(reg) stride, options(readonly, nostack)
            );
        }
    }

    #[inline(always)]
    unsafe fn store<const TILE: usize>(&mut self, to: *mut u8, stride: usize) {
        // SAFETY: by the caller's promise.
        unsafe {
            on_tile!(
                TILE, "tilestored [{to} + {stride}], ", "",
                to = in(reg) to, stride = in(reg) stride, options(nostack)
            );
        }
    }

    #[inline(always)]
    unsafe fn dot_pairs<const SUMS: usize, const A: usize, const B: usize>(&mut self) {
        // SAFETY: by the caller's promise.
        unsafe { on_operands!("tdpbf16ps", SUMS, A, B) };
    }

    #[inline(always)]
    unsafe fn dot_bytes<const SUMS: usize, const A: usize, const B: usize>(&mut self) {
        // SAFETY: by the caller's promise.
        unsafe { on_operands!("tdpbusd", SUMS, A, B) };
    }

    #[inline(always)]
    unsafe fn release(&mut self) {
        // SAFETY: by the caller's promise.
        unsafe { asm!("tilerelease", options(nomem, nostack)) };
    }
}

/// Whether CPU and system have AMX with bf16 and 8-bit integers, and the system lets this
/// process use it: Linux is asked for that, once for the whole process.
pub(crate) fn request() -> bool {
    use crate::isa::cpuid;
    const BF16: u32 = 1 << 22;
    const TILE: u32 = 1 << 24;
    const INT8: u32 = 1 << 25;
    const OSXSAVE: u32 = 1 << 27;
    if cpuid(0, 0).eax < 7 || cpuid(1, 0).ecx & OSXSAVE == 0 {
        return false;
    }
    let wanted = BF16 | TILE | INT8;
    cpuid(7, 0).edx & wanted == wanted && system_keeps_tiles() && permitted()
}

/// Whether the system saves configuration and data of tiles (bits 17 and 18 of XCR0).
fn system_keeps_tiles() -> bool {
    let (low, _high): (u32, u32);
    // SAFETY: the instruction is there where OSXSAVE is set.
    unsafe {
        asm!(
            "xgetbv",
            in("ecx") 0,
            out("eax") low,
            out("edx") _high,
            options(nomem, nostack, preserves_flags),
        );
    }
    low & (0b11 << 17) == 0b11 << 17
}

#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const XFEATURE_XTILEDATA: u64 = 18;
    let result: i64;
    // SAFETY: the call takes two numbers and touches no memory of the process.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// 16 x 32 tile of sums over pairs of bf16.
pub(super) struct Kernel<T>(PhantomData<T>);

/// Pairs in a row of a tile.
const STEP: usize = 16;

impl<T: Tiles> MicroKernel for Kernel<T> {
    /// The even value of `k` in the low half, the odd one in the high half.
    type Element = u32;
    const MR: usize = 16;
    const NR: usize = 32;
    const K_PER_ELEMENT: usize = 2;
    const BLOCK_ELEMENTS: usize = 256;

    /// Panels of the right operand are `[element][lane]`. Those of the left one are as tiles take
    /// them: sixteen elements at a time `[lane][element]`, then what is left in the same way.
    unsafe fn pack<const WIDTH: usize>(
        source: *const f32,
        (lane_stride, k_stride): (usize, usize),
        (lanes, k): (usize, usize),
        target: *mut u32,
    ) {
        let elements = k.div_ceil(2);
        for lane in 0..lanes.next_multiple_of(WIDTH) {
            let (panel, row) = (lane / WIDTH * WIDTH * elements, lane % WIDTH);
            for element in 0..elements {
                let value = |k_at: usize| {
                    if lane >= lanes || k_at >= k {
                        return 0;
                    }
                    // SAFETY: inside the view, which was checked when it was made.
                    bf16(unsafe { *source.add(lane * lane_stride + k_at * k_stride) })
                };
                let pair = value(2 * element) | value(2 * element + 1) << 16;
                let at = if WIDTH == Self::MR {
                    let first = element / STEP * STEP;
                    let width = STEP.min(elements - first);
                    first * WIDTH + row * width + element - first
                } else {
                    element * WIDTH + row
                };
                // SAFETY: a panel holds WIDTH * elements.
                unsafe { *target.add(panel + at) = pair };
            }
        }
    }

    unsafe fn multiply(
        elements: usize,
        a: *const u32,
        b: *const u32,
        place: Place,
        output: Output<'_>,
    ) {
        let (steps, rest) = (elements / STEP, elements % STEP);
        let mut tile = [[0.0_f32; 32]; 16];
        let mut tiles = T::default();
        let stride = 32 * size_of::<u32>();
        let (row, half) = (STEP * size_of::<u32>(), STEP * size_of::<u32>());
        // SAFETY: panels hold `elements` steps, packed as above, and the sums fit the tile; the
        // CPU has the instructions by the caller's promise.
        unsafe {
            tiles.configure(&Config::new(16, rest * size_of::<u32>(), rest));
            tiles.zero::<0>();
            tiles.zero::<1>();
            for step in 0..steps {
                let b = b.add(step * STEP * 32).cast::<u8>();
                tiles.load::<2>(a.add(step * STEP * 16).cast(), row);
                tiles.load::<3>(b, stride);
                tiles.load::<4>(b.add(half), stride);
                tiles.dot_pairs::<0, 2, 3>();
                tiles.dot_pairs::<1, 2, 4>();
            }
            if rest > 0 {
                let b = b.add(steps * STEP * 32).cast::<u8>();
                tiles.load::<5>(a.add(steps * STEP * 16).cast(), rest * size_of::<u32>());
                tiles.load::<6>(b, stride);
                tiles.load::<7>(b.add(half), stride);
                tiles.dot_pairs::<0, 5, 6>();
                tiles.dot_pairs::<1, 5, 7>();
            }
            let to = tile.as_mut_ptr().cast::<u8>();
            tiles.store::<0>(to, stride);
            tiles.store::<1>(to.add(half), stride);
            tiles.release();
            place.store(&tile, output);
        }
    }

    panel_buffers!(u32);
}

/// The nearest bf16, ties to even; what is no number stays none.
#[inline(always)]
fn bf16(value: f32) -> u32 {
    let bits = value.to_bits();
    if value.is_nan() {
        return bits >> 16 | 0x40;
    }
    bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16
}

#[cfg(test)]
pub(super) mod emulation {
    //! What the instructions do, by the manual.

    use super::{Config, Tiles};

    /// Eight tiles of sixteen rows of 64 bytes.
    pub(in crate::matmul) struct Emulated {
        config: Option<Config>,
        tiles: [[[u8; 64]; 16]; 8],
    }

    impl Default for Emulated {
        fn default() -> Self {
            // What was there before is no zeros.
            Self { config: None, tiles: [[[0xa5; 64]; 16]; 8] }
        }
    }

    impl Emulated {
        /// Rows of a tile and bytes of each.
        fn shape(&self, tile: usize) -> (usize, usize) {
            let config = self.config.expect("tiles are configured before they are used");
            let (rows, bytes) = (config.rows[tile], config.row_bytes[tile]);
            assert!((1..=16).contains(&rows) && (1..=64).contains(&bytes) && bytes % 4 == 0);
            (usize::from(rows), usize::from(bytes))
        }

        fn word(&self, tile: usize, row: usize, col: usize) -> [u8; 4] {
            self.tiles[tile][row][4 * col..4 * col + 4].try_into().expect("four bytes")
        }

        /// Sizes of a product, or an exception as the CPU raises it.
        fn sizes(&self, sums: usize, a: usize, b: usize) -> (usize, usize, usize) {
            assert!(sums != a && sums != b && a != b, "three tiles");
            let ((m, n), (a_rows, k), (b_rows, b_bytes)) =
                (self.shape(sums), self.shape(a), self.shape(b));
            assert!(m == a_rows && n == b_bytes && k / 4 == b_rows, "tiles that fit");
            (m, n / 4, k / 4)
        }
    }

    impl Tiles for Emulated {
        unsafe fn configure(&mut self, config: &Config) {
            assert!(config.palette == 1 && config.start_row == 0 && config.reserved == [0; 14]);
            assert!(config.rows[8..] == [0; 8] && config.row_bytes[8..] == [0; 8]);
            self.config = Some(*config);
            self.tiles = [[[0; 64]; 16]; 8];
        }

        unsafe fn zero<const TILE: usize>(&mut self) {
            self.shape(TILE);
            self.tiles[TILE] = [[0; 64]; 16];
        }

        unsafe fn load<const TILE: usize>(&mut self, from: *const u8, stride: usize) {
            let (rows, bytes) = self.shape(TILE);
            self.tiles[TILE] = [[0; 64]; 16];
            for (i, row) in self.tiles[TILE].iter_mut().enumerate().take(rows) {
                // SAFETY: by the caller's promise.
                unsafe { from.add(i * stride).copy_to_nonoverlapping(row.as_mut_ptr(), bytes) };
            }
        }

        unsafe fn store<const TILE: usize>(&mut self, to: *mut u8, stride: usize) {
            let (rows, bytes) = self.shape(TILE);
            for (i, row) in self.tiles[TILE].iter().enumerate().take(rows) {
                // SAFETY: by the caller's promise.
                unsafe { to.add(i * stride).copy_from_nonoverlapping(row.as_ptr(), bytes) };
            }
        }

        unsafe fn dot_pairs<const SUMS: usize, const A: usize, const B: usize>(&mut self) {
            let half = |word: [u8; 4], odd: usize| {
                f32::from_bits(u32::from_le_bytes([0, 0, word[2 * odd], word[2 * odd + 1]]))
            };
            // Numbers too small for the exponent are zero, going in and coming out.
            let flush =
                |value: f32| if value.is_subnormal() { 0.0_f32.copysign(value) } else { value };
            let (m, n, k) = self.sizes(SUMS, A, B);
            for i in 0..m {
                for j in 0..n {
                    let mut sums = [0.0_f32; 2];
                    for l in 0..k {
                        let (a, b) = (self.word(A, i, l), self.word(B, l, j));
                        for (odd, sum) in sums.iter_mut().enumerate() {
                            let product = [half(a, odd), half(b, odd)].map(flush);
                            *sum = flush(product[0].mul_add(product[1], *sum));
                        }
                    }
                    let before = flush(f32::from_le_bytes(self.word(SUMS, i, j)));
                    let sum = flush(before + flush(sums[0] + sums[1]));
                    self.tiles[SUMS][i][4 * j..4 * j + 4].copy_from_slice(&sum.to_le_bytes());
                }
            }
        }

        unsafe fn dot_bytes<const SUMS: usize, const A: usize, const B: usize>(&mut self) {
            let (m, n, k) = self.sizes(SUMS, A, B);
            for i in 0..m {
                for j in 0..n {
                    let mut sum = i32::from_le_bytes(self.word(SUMS, i, j));
                    for l in 0..k {
                        let (a, b) = (self.word(A, i, l), self.word(B, l, j));
                        for (a, b) in a.into_iter().zip(b) {
                            sum = sum.wrapping_add(i32::from(a) * i32::from(b.cast_signed()));
                        }
                    }
                    self.tiles[SUMS][i][4 * j..4 * j + 4].copy_from_slice(&sum.to_le_bytes());
                }
            }
        }

        unsafe fn release(&mut self) {
            self.config = None;
        }
    }
}
