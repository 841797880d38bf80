//! What is done to each value alone, and to whole frames.

use super::{Argument, Machine, Place, THREADS, blocks, count, long};
use crate::dropout::Dropout;
use candle_core::Result;

/// Launches a kernel whose last argument is the number of values.
pub(super) fn launch_over<M: Machine>(
    machine: &M,
    kernel: &'static str,
    n: usize,
    arguments: &[Argument<'_>],
) -> Result<()> {
    let arguments: Vec<Argument<'_>> = arguments.iter().copied().chain([long(n)]).collect();
    // SAFETY: the callers below give what the kernels declare, in places of `n` values.
    unsafe { machine.launch(kernel, [blocks(n), 1, 1], THREADS, &arguments) }
}

/// GELU of every value.
pub(crate) fn gelu<M: Machine>(machine: &M, x: Place<'_>) -> Result<M::Buffer> {
    let y = machine.buffer(x.len)?;
    launch_over(machine, "gelu_forward", x.len, &[x.into(), machine.place(&y).into()])?;
    Ok(y)
}

/// The gradient of [`gelu`] at `x`, times `dy`.
pub(crate) fn gelu_gradient<M: Machine>(
    machine: &M,
    x: Place<'_>,
    dy: Place<'_>,
) -> Result<M::Buffer> {
    let dx = machine.buffer(x.len)?;
    let arguments = [x.into(), dy.holds(x.len)?.into(), machine.place(&dx).into()];
    launch_over(machine, "gelu_backward", x.len, &arguments)?;
    Ok(dx)
}

/// Adds `bias` to the rows of `y`, in place.
pub(crate) fn add_bias<M: Machine>(machine: &M, y: Place<'_>, bias: Place<'_>) -> Result<()> {
    launch_over(machine, "add_bias", y.len, &[y.into(), bias.into(), count(bias.len)?])
}

/// Adds `bias` to the rows of `before`, in place, and puts its GELU into `y`, which may be `before`.
pub(crate) fn bias_gelu<M: Machine>(
    machine: &M,
    before: Place<'_>,
    bias: Place<'_>,
    y: Place<'_>,
) -> Result<()> {
    let y = y.holds(before.len)?;
    let arguments = [before.into(), bias.into(), y.into(), count(bias.len)?];
    launch_over(machine, "bias_gelu", before.len, &arguments)
}

/// A mask of [`mod@crate::dropout`] as kernels take it.
pub(crate) fn mask(dropout: Dropout) -> [Argument<'static>; 4] {
    let [low, high] = dropout.seed().map(Argument::U32);
    [Argument::U32(dropout.threshold()), dropout.scale().into(), low, high]
}

/// `x` with the mask of [`mod@crate::dropout`].
pub(crate) fn dropout<M: Machine>(
    machine: &M,
    x: Place<'_>,
    dropout: Dropout,
) -> Result<M::Buffer> {
    let y = machine.buffer(x.len)?;
    let [threshold, scale, low, high] = mask(dropout);
    let arguments = [x.into(), machine.place(&y).into(), threshold, scale, low, high];
    launch_over(machine, "dropout", x.len, &arguments)?;
    Ok(y)
}

/// `(clips, frames, dim)` with the frames from each clip's length on zeroed.
pub(crate) fn zero_padding<M: Machine>(
    machine: &M,
    x: Place<'_>,
    lengths: &[usize],
    (frames, dim): (usize, usize),
) -> Result<M::Buffer> {
    let y = machine.buffer(x.len)?;
    let lengths = super::lengths(machine, lengths)?;
    let (to, lengths) = (machine.place(&y), machine.place(&lengths));
    let arguments = [x.into(), to.into(), lengths.into(), count(dim)?, long(frames * dim)];
    launch_over(machine, "zero_padding", x.len, &arguments)?;
    Ok(y)
}

fn words_of(masked: &[bool]) -> Vec<u32> {
    masked.iter().map(|&masked| u32::from(masked)).collect()
}

/// Rows of `x` as wide as `row`, which replaces those that are masked.
pub(crate) fn replace_rows<M: Machine>(
    machine: &M,
    x: Place<'_>,
    row: Place<'_>,
    masked: &[bool],
) -> Result<M::Buffer> {
    let y = machine.buffer(x.len)?;
    let masked = machine.words(&words_of(masked))?;
    let (to, masked) = (machine.place(&y), machine.place(&masked));
    let arguments = [x.into(), row.into(), masked.into(), to.into(), count(row.len)?];
    launch_over(machine, "replace_rows", x.len, &arguments)?;
    Ok(y)
}

/// The gradients of [`replace_rows`]: in `x` and in `row`.
pub(crate) fn replace_rows_gradient<M: Machine>(
    machine: &M,
    dy: Place<'_>,
    dim: usize,
    masked: &[bool],
) -> Result<(M::Buffer, M::Buffer)> {
    let flags = machine.words(&words_of(masked))?;
    let kept = |kept: bool| {
        let y = machine.buffer(dy.len)?;
        let (to, flags) = (machine.place(&y), machine.place(&flags));
        let kept = Argument::U32(u32::from(kept));
        launch_over(
            machine,
            "keep_rows",
            dy.len,
            &[dy.into(), flags.into(), kept, to.into(), count(dim)?],
        )?;
        Ok::<_, candle_core::Error>(y)
    };
    let (dx, replaced) = (kept(false)?, kept(true)?);
    let drow = super::column_sums(machine, machine.place(&replaced), masked.len(), dim)?;
    Ok((dx, drow))
}

/// `scale (a + b)`.
pub(crate) fn scaled_sum<M: Machine>(
    machine: &M,
    a: Place<'_>,
    b: Place<'_>,
    scale: f32,
) -> Result<M::Buffer> {
    let y = machine.buffer(a.len)?;
    let b = b.holds(a.len)?;
    launch_over(
        machine,
        "scaled_sum",
        a.len,
        &[a.into(), b.into(), scale.into(), machine.place(&y).into()],
    )?;
    Ok(y)
}

/// `scale x`.
pub(crate) fn scaled<M: Machine>(machine: &M, x: Place<'_>, scale: f32) -> Result<M::Buffer> {
    let y = machine.buffer(x.len)?;
    launch_over(
        machine,
        "scaled_copy",
        x.len,
        &[x.into(), scale.into(), machine.place(&y).into()],
    )?;
    Ok(y)
}

/// Sets every value.
pub(crate) fn fill<M: Machine>(machine: &M, y: Place<'_>, value: f32) -> Result<()> {
    launch_over(machine, "fill", y.len, &[y.into(), value.into()])
}

/// Rounds to bf16, two values in four bytes.
pub(crate) fn to_bf16<M: Machine>(machine: &M, x: Place<'_>) -> Result<M::Buffer> {
    let y = machine.buffer(x.len.div_ceil(2))?;
    launch_over(machine, "to_bf16", x.len, &[x.into(), machine.place(&y).into()])?;
    Ok(y)
}

/// `(planes, b, c)` as `(planes, c, b)`, in place of what `y` held or added to it.
pub(crate) fn swap_last<M: Machine>(
    machine: &M,
    x: Place<'_>,
    (b, c): (usize, usize),
    y: Place<'_>,
    accumulate: bool,
) -> Result<()> {
    let accumulate = Argument::U32(u32::from(accumulate));
    let y = y.holds(x.len)?;
    launch_over(
        machine,
        "swap_last",
        x.len,
        &[x.into(), y.into(), count(b)?, count(c)?, accumulate],
    )
}

/// `(clips, frames, dim)` with zero frames before and behind.
pub(crate) fn pad_frames<M: Machine>(
    machine: &M,
    x: Place<'_>,
    clip: usize,
    (before, after): (usize, usize),
) -> Result<M::Buffer> {
    let padded = before + clip + after;
    let y = machine.buffer(x.len / clip.max(1) * padded)?;
    let to = machine.place(&y);
    let arguments = [x.into(), to.into(), long(clip), long(before), long(padded)];
    launch_over(machine, "pad_frames", to.len, &arguments)?;
    Ok(y)
}

/// Weights `(dim, width, kernel)` of a grouped convolution as those of its gradient.
pub(crate) fn turn_weights<M: Machine>(
    machine: &M,
    weight: Place<'_>,
    (width, kernel): (usize, usize),
) -> Result<M::Buffer> {
    let y = machine.buffer(weight.len)?;
    let arguments = [weight.into(), count(width)?, count(kernel)?, machine.place(&y).into()];
    launch_over(machine, "turn_weights", weight.len, &arguments)?;
    Ok(y)
}
