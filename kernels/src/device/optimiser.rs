//! The norm of all gradients and the steps of AdamW.

use super::pointwise::launch_over;
use super::{Argument, Machine, Place, THREADS, blocks, count, long};
use crate::adamw::Step;
use candle_core::Result;

/// Most blocks of a sum of squares: one block adds up what they find.
const MAX_PARTS: usize = 1024;

/// The sum of the squares of `gradient` into the one value of `out`.
pub(crate) fn sum_of_squares<M: Machine>(
    machine: &M,
    gradient: Place<'_>,
    out: Place<'_>,
) -> Result<()> {
    let parts = blocks(gradient.len).clamp(1, MAX_PARTS);
    let sums = machine.buffer(parts)?;
    let place = machine.place(&sums);
    let arguments = [gradient.into(), place.into(), long(gradient.len)];
    // SAFETY: the kernel declares these; a value of `sums` per block.
    unsafe { machine.launch("squares", [parts, 1, 1], THREADS, &arguments)? };
    let arguments = [place.into(), out.holds(1)?.into(), count(parts)?];
    // SAFETY: the kernel declares these; one block.
    unsafe { machine.launch("total", [1, 1, 1], THREADS, &arguments) }
}

/// From the sum of squares of every gradient: the norm of the gradient times `scale`, and the
/// factor that also keeps this norm below `clip`; no number if the norm is none.
pub(crate) fn norm_and_factor<M: Machine>(
    machine: &M,
    squares: Place<'_>,
    scale: f64,
    clip: f64,
) -> Result<M::Buffer> {
    let out = machine.buffer(2)?;
    let arguments = [
        squares.into(),
        count(squares.len)?,
        Argument::F64(scale),
        Argument::F64(clip),
        machine.place(&out).into(),
    ];
    // SAFETY: the kernel declares these; the first thread of one block works.
    unsafe { machine.launch("clip_scale", [1, 1, 1], 32, &arguments)? };
    Ok(out)
}

/// One step of a parameter and its moments; `factor` is that of the gradient, in place of
/// `step.scale`. Nothing changes if it is no number.
pub(crate) fn adamw<M: Machine>(
    machine: &M,
    (values, mean, square): (Place<'_>, Place<'_>, Place<'_>),
    gradient: Place<'_>,
    factor: Place<'_>,
    step: Step,
) -> Result<()> {
    let n = values.len;
    let arguments = [
        values.into(),
        mean.holds(n)?.into(),
        square.holds(n)?.into(),
        gradient.holds(n)?.into(),
        factor.holds(1)?.into(),
        step.betas[0].into(),
        step.betas[1].into(),
        step.shrink.into(),
        step.rate.into(),
        step.root.into(),
        step.eps.into(),
    ];
    launch_over(machine, "adamw", n, &arguments)
}
