//! The operations of this crate as launches of the kernels in `kernels/cuda`.
//!
//! Each is written once, for any [`Machine`]: a CUDA card (feature `cuda`), or, in tests, the
//! same kernel sources compiled as C++ and run on the CPU (`emulator`). So sizes of grids, orders
//! of arguments, strides and the arithmetic of every kernel are tested where there is no card.
//!
//! Tensors are f32 in memory; products in bf16 round their operands on the way in and sum in
//! f32. Nothing here waits for the device.

pub(crate) mod attention;
#[cfg(feature = "cuda")]
pub(crate) mod card;
pub(crate) mod conv;
pub(crate) mod ctc;
#[cfg(test)]
pub(crate) mod emulator;
pub(crate) mod linear;
pub(crate) mod loss;
pub(crate) mod norm;
pub(crate) mod optimiser;
pub(crate) mod pointwise;
pub(crate) mod position_conv;
pub(crate) mod product;
#[cfg(test)]
mod tests;

use candle_core::{Result, bail};
use std::marker::PhantomData;

/// The sources of the kernels, joined in this order.
pub(crate) const SOURCES: [&str; 7] = [
    include_str!("../../cuda/common.cu"),
    include_str!("../../cuda/pointwise.cu"),
    include_str!("../../cuda/reduce.cu"),
    include_str!("../../cuda/norm.cu"),
    include_str!("../../cuda/attention.cu"),
    include_str!("../../cuda/ctc.cu"),
    include_str!("../../cuda/position_conv.cu"),
];

/// Threads of a block where nothing else is said.
pub(crate) const THREADS: usize = 256;
/// Most blocks of a pointwise kernel: enough to fill any card, and its loop does the rest.
const MAX_BLOCKS: usize = 4096;

/// Where kernels run.
pub(crate) trait Machine {
    /// Memory of the device, in values of four bytes.
    type Buffer;

    /// Room for `n` values, not initialised.
    fn buffer(&self, n: usize) -> Result<Self::Buffer>;

    /// A copy of `words`.
    fn words(&self, words: &[u32]) -> Result<Self::Buffer>;

    /// A copy of `values`.
    fn floats(&self, values: &[f32]) -> Result<Self::Buffer>;

    /// The values of a buffer.
    fn place<'a>(&self, buffer: &'a Self::Buffer) -> Place<'a>;

    /// Runs a kernel over `grid` blocks of `threads` threads. A grid with nothing in it does
    /// nothing.
    ///
    /// # Safety
    /// The arguments must be those that the kernel declares, and the places long enough for
    /// what it reads and writes with such a grid.
    unsafe fn launch(
        &self,
        kernel: &'static str,
        grid: [usize; 3],
        threads: usize,
        arguments: &[Argument<'_>],
    ) -> Result<()>;

    /// Matrix products with sums in f32.
    ///
    /// # Safety
    /// The places must hold what the shapes and strides say; those of both operands have values
    /// of the same size.
    unsafe fn multiply(&self, product: &product::Product<'_>) -> Result<()>;
}

/// Values in memory of a device, by their address.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) address: u64,
    /// In values.
    pub(crate) len: usize,
    /// Of a value: four, or two of a bf16.
    pub(crate) bytes: u64,
    pub(crate) life: PhantomData<&'a ()>,
}

impl Place<'_> {
    /// The values from `start` on.
    pub(crate) fn from(self, start: usize) -> Result<Self> {
        let Some(len) = self.len.checked_sub(start) else {
            bail!("value {start} of {} on the device", self.len);
        };
        Ok(Self { address: self.address + self.bytes * start as u64, len, ..self })
    }

    /// An error unless there are at least `n` values.
    pub(crate) fn holds(self, n: usize) -> Result<Self> {
        if self.len < n {
            bail!("{} values on the device where there should be {n}", self.len);
        }
        Ok(self)
    }
}

/// An argument of a kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Argument<'a> {
    Place(Place<'a>),
    /// No place.
    Null,
    U32(u32),
    U64(u64),
    F32(f32),
    F64(f64),
}

impl<'a> From<Place<'a>> for Argument<'a> {
    fn from(place: Place<'a>) -> Self {
        Self::Place(place)
    }
}

impl<'a> From<Option<Place<'a>>> for Argument<'a> {
    fn from(place: Option<Place<'a>>) -> Self {
        place.map_or(Self::Null, Self::Place)
    }
}

impl From<f32> for Argument<'_> {
    fn from(value: f32) -> Self {
        Self::F32(value)
    }
}

/// A count that a kernel takes in 32 bits.
pub(crate) fn count<'a>(n: usize) -> Result<Argument<'a>> {
    Ok(Argument::U32(narrow(n)?))
}

/// A count that a kernel takes in 64 bits.
pub(crate) fn long<'a>(n: usize) -> Argument<'a> {
    Argument::U64(n as u64)
}

pub(crate) fn narrow(n: usize) -> Result<u32> {
    match u32::try_from(n) {
        Ok(n) => Ok(n),
        Err(_) => bail!("{n} is more than kernels of a device count"),
    }
}

/// Lengths as kernels take them.
pub(crate) fn lengths<M: Machine>(machine: &M, lengths: &[usize]) -> Result<M::Buffer> {
    machine.words(&lengths.iter().map(|&n| narrow(n)).collect::<Result<Vec<u32>>>()?)
}

/// Blocks of a kernel that takes `n` values in turn.
pub(crate) fn blocks(n: usize) -> usize {
    n.div_ceil(THREADS).min(MAX_BLOCKS)
}

/// Rows that a block sums: few enough to fill a card, many enough to leave few sums.
const CHUNK: usize = 256;

/// Sums over the rows of `(rows, cols)`.
pub(crate) fn column_sums<M: Machine>(
    machine: &M,
    x: Place<'_>,
    rows: usize,
    cols: usize,
) -> Result<M::Buffer> {
    let sums = machine.buffer(rows.div_ceil(CHUNK).max(1) * cols)?;
    sum_chunks(machine, x.holds(rows * cols)?, (rows, cols), machine.place(&sums))?;
    if rows <= CHUNK {
        return Ok(sums);
    }
    column_sums(machine, machine.place(&sums), rows.div_ceil(CHUNK), cols)
}

fn sum_chunks<M: Machine>(
    machine: &M,
    x: Place<'_>,
    (rows, cols): (usize, usize),
    out: Place<'_>,
) -> Result<()> {
    let chunks = rows.div_ceil(CHUNK).max(1);
    let arguments = [x.into(), count(rows)?, count(cols)?, count(CHUNK)?, out.into()];
    // SAFETY: `column_sums` declares these; a chunk of rows by all columns is in both places.
    unsafe { machine.launch("column_sums", [cols.div_ceil(32), chunks, 1], THREADS, &arguments) }
}
