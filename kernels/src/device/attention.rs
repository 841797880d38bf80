//! Softmax attention in tiles, forwards and backwards.

use super::pointwise::{launch_over, mask};
use super::{Argument, Machine, Place, column_sums, count, lengths as words};
use crate::dropout::Dropout;
use candle_core::{Result, bail};

/// Queries or keys of a tile, and threads of a block: as in `cuda/attention.cu`.
const TILE: usize = 32;
const BLOCK: usize = 128;
/// Widest head the kernels hold in shared memory.
pub(crate) const MAX_WIDTH: usize = 96;

/// What is attended to.
#[derive(Clone, Copy)]
pub(crate) struct Shape<'a> {
    pub(crate) frames: usize,
    pub(crate) dim: usize,
    pub(crate) heads: usize,
    /// Valid keys of each clip.
    pub(crate) lengths: &'a [usize],
    /// Of the weights.
    pub(crate) dropout: Dropout,
}

impl Shape<'_> {
    fn clips(&self) -> usize {
        self.lengths.len()
    }

    fn values(&self) -> usize {
        self.clips() * self.frames * self.dim
    }

    /// Queries of all heads.
    fn scalars(&self) -> usize {
        self.clips() * self.heads * self.frames
    }

    fn offsets(&self) -> usize {
        2 * self.frames - 1
    }

    fn grid(&self, rows: usize) -> [usize; 3] {
        [rows.div_ceil(TILE), self.heads, self.clips()]
    }

    fn check(&self, inputs: &Inputs<'_>) -> Result<()> {
        if self.dim / self.heads > MAX_WIDTH {
            bail!("heads of {} values; a device takes up to {MAX_WIDTH}", self.dim / self.heads);
        }
        for place in [inputs.q, inputs.k, inputs.v] {
            place.holds(self.values())?;
        }
        if let Some((strip, gate)) = inputs.bias {
            strip.holds(self.heads * self.offsets())?;
            gate.holds(self.scalars())?;
        }
        Ok(())
    }
}

/// Queries, keys, values, and the strip and gates of a bias.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a> {
    pub(crate) q: Place<'a>,
    pub(crate) k: Place<'a>,
    pub(crate) v: Place<'a>,
    pub(crate) bias: Option<(Place<'a>, Place<'a>)>,
}

impl<'a> Inputs<'a> {
    fn strip(&self) -> Option<Place<'a>> {
        self.bias.map(|(strip, _)| strip)
    }

    fn gate(&self) -> Option<Place<'a>> {
        self.bias.map(|(_, gate)| gate)
    }
}

/// The output, and per query the logarithm of its normaliser for [`backward`].
pub(crate) fn forward<M: Machine>(
    machine: &M,
    inputs: Inputs<'_>,
    shape: Shape<'_>,
) -> Result<(M::Buffer, M::Buffer)> {
    shape.check(&inputs)?;
    let lengths = words(machine, shape.lengths)?;
    let (out, log_sums) = (machine.buffer(shape.values())?, machine.buffer(shape.scalars())?);
    let [threshold, scale, low, high] = mask(shape.dropout);
    let arguments = [
        inputs.q.into(),
        inputs.k.into(),
        inputs.v.into(),
        inputs.strip().into(),
        inputs.gate().into(),
        machine.place(&lengths).into(),
        count(shape.frames)?,
        count(shape.dim)?,
        threshold,
        scale,
        low,
        high,
        machine.place(&out).into(),
        machine.place(&log_sums).into(),
    ];
    // SAFETY: the kernel declares these; places were checked, outputs made for it.
    unsafe { machine.launch("attention_forward", shape.grid(shape.frames), BLOCK, &arguments)? };
    Ok((out, log_sums))
}

/// Gradients of everything that goes into [`forward`].
pub(crate) struct Gradients<B> {
    /// Of `q`, `k` and `v`, one after the other.
    pub(crate) qkv: B,
    /// Of the strip and of the gates.
    pub(crate) bias: Option<(B, B)>,
}

/// `out` and `log_sums` are those of [`forward`].
pub(crate) fn backward<M: Machine>(
    machine: &M,
    inputs: Inputs<'_>,
    (out, log_sums, dout): (Place<'_>, Place<'_>, Place<'_>),
    shape: Shape<'_>,
) -> Result<Gradients<M::Buffer>> {
    shape.check(&inputs)?;
    let (values, scalars) = (shape.values(), shape.scalars());
    let (out, dout, log_sums) = (out.holds(values)?, dout.holds(values)?, log_sums.holds(scalars)?);
    let lengths = words(machine, shape.lengths)?;
    let delta = machine.buffer(scalars)?;
    let (frames, dim) = (count(shape.frames)?, count(shape.dim)?);
    let to = machine.place(&delta);
    let arguments = [out.into(), dout.into(), frames, dim, count(shape.heads)?, to.into()];
    launch_over(machine, "attention_delta", scalars, &arguments)?;
    let [threshold, scale, low, high] = mask(shape.dropout);
    let common = [
        inputs.q.into(),
        inputs.k.into(),
        inputs.v.into(),
        inputs.strip().into(),
        inputs.gate().into(),
        machine.place(&lengths).into(),
        dout.into(),
        log_sums.into(),
        to.into(),
        frames,
        dim,
        threshold,
        scale,
        low,
        high,
    ];
    let qkv = machine.buffer(3 * values)?;
    let dq = machine.place(&qkv);
    let dgate = inputs.bias.map(|_| machine.buffer(scalars)).transpose()?;
    let opened = dgate.as_ref().map(|dgate| machine.place(dgate));
    let grid = shape.grid(shape.frames);
    // SAFETY: the kernel declares these; places were checked, outputs made for it.
    unsafe {
        machine.launch(
            "attention_queries",
            grid,
            BLOCK,
            &with(&common, &[dq.into(), opened.into()]),
        )?;
    }
    let (dk, dv) = (dq.from(values)?, dq.from(2 * values)?);
    // SAFETY: as above.
    unsafe {
        machine.launch("attention_keys", grid, BLOCK, &with(&common, &[dk.into(), dv.into()]))?;
    };
    let Some(dgate) = dgate else { return Ok(Gradients { qkv, bias: None }) };
    let offsets = shape.offsets();
    let strips = machine.buffer(shape.clips() * shape.heads * offsets)?;
    let strips_place = machine.place(&strips);
    let grid = shape.grid(offsets);
    // SAFETY: as above.
    unsafe {
        machine.launch("attention_strip", grid, BLOCK, &with(&common, &[strips_place.into()]))?;
    };
    let dstrip = column_sums(machine, strips_place, shape.clips(), shape.heads * offsets)?;
    Ok(Gradients { qkv, bias: Some((dstrip, dgate)) })
}

/// The arguments of a kernel: its inputs, then its outputs.
fn with<'a>(inputs: &[Argument<'a>], outputs: &[Argument<'a>]) -> Vec<Argument<'a>> {
    [inputs, outputs].concat()
}
