//! Cross entropy, and the nearest of many centroids.

use super::product::{Product, Side, multiply};
use super::{Machine, Place, THREADS, count};
use crate::matmul::Precision;
use candle_core::Result;

/// Threads of a block whose row may be short.
const ROW: usize = 128;

/// The loss of each row.
pub(crate) fn cross_entropy<M: Machine>(
    machine: &M,
    logits: Place<'_>,
    targets: &[u32],
    classes: usize,
) -> Result<M::Buffer> {
    let losses = machine.buffer(targets.len())?;
    let on_device = machine.words(targets)?;
    let arguments = [
        logits.holds(targets.len() * classes)?.into(),
        machine.place(&on_device).into(),
        count(classes)?,
        machine.place(&losses).into(),
    ];
    let grid = [targets.len(), 1, 1];
    // SAFETY: the kernel declares these; a block per row.
    unsafe { machine.launch("cross_entropy_forward", grid, ROW, &arguments)? };
    Ok(losses)
}

/// Its gradient in the logits.
pub(crate) fn cross_entropy_gradient<M: Machine>(
    machine: &M,
    logits: Place<'_>,
    dy: Place<'_>,
    targets: &[u32],
    classes: usize,
) -> Result<M::Buffer> {
    let gradient = machine.buffer(targets.len() * classes)?;
    let on_device = machine.words(targets)?;
    let arguments = [
        logits.holds(targets.len() * classes)?.into(),
        machine.place(&on_device).into(),
        dy.holds(targets.len())?.into(),
        count(classes)?,
        machine.place(&gradient).into(),
    ];
    let grid = [targets.len(), 1, 1];
    // SAFETY: the kernel declares these; a block per row.
    unsafe { machine.launch("cross_entropy_backward", grid, ROW, &arguments)? };
    Ok(gradient)
}

/// Frames whose products with all centroids are held at once.
const FRAMES: usize = 4096;

/// Puts the number of the nearest centroid to each frame into `found`: `doubled` holds the
/// centroids times -2, `squares` their squared lengths.
pub(crate) fn nearest<M: Machine>(
    machine: &M,
    frames: Place<'_>,
    (doubled, squares): (Place<'_>, Place<'_>),
    dim: usize,
    found: Place<'_>,
) -> Result<()> {
    let centroids = squares.len;
    let n = frames.len / dim;
    let products = machine.buffer(n.min(FRAMES) * centroids)?;
    for start in (0..n).step_by(FRAMES) {
        let rows = FRAMES.min(n - start);
        let product = Product {
            a: Side::rows(frames.from(start * dim)?, dim),
            b: Side::rows(doubled, dim).transposed(),
            c: machine.place(&products),
            c_stride: centroids,
            c_batch_stride: 0,
            shape: [rows, centroids, dim],
            batch: 1,
            accumulate: false,
        };
        multiply(machine, &product, Precision::F32)?;
        let to = found.from(start)?.holds(rows)?;
        let arguments =
            [machine.place(&products).into(), squares.into(), count(centroids)?, to.into()];
        // SAFETY: the kernel declares these; a block per row of the products.
        unsafe { machine.launch("smallest_of_rows", [rows, 1, 1], THREADS, &arguments)? };
    }
    Ok(())
}
