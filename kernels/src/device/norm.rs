//! Layer norm and masked group norm.

use super::pointwise::launch_over;
use super::{CHUNK, Machine, Place, THREADS, column_sums, count, lengths as words};
use candle_core::Result;

/// Rows of `weight.len` values, each normalised.
pub(crate) fn layer_norm<M: Machine>(
    machine: &M,
    (x, weight, bias): (Place<'_>, Place<'_>, Place<'_>),
    eps: f32,
) -> Result<M::Buffer> {
    let dim = weight.len;
    let y = machine.buffer(x.len)?;
    let to = machine.place(&y);
    let arguments =
        [x.into(), weight.into(), bias.holds(dim)?.into(), eps.into(), count(dim)?, to.into()];
    // SAFETY: the kernel declares these; a block per row of `dim` values.
    unsafe { machine.launch("layer_norm_forward", [x.len / dim, 1, 1], THREADS, &arguments)? };
    Ok(y)
}

/// The gradients of [`layer_norm`]: of `x`, and of weight and bias one after the other.
pub(crate) fn layer_norm_gradient<M: Machine>(
    machine: &M,
    (x, weight, dy): (Place<'_>, Place<'_>, Place<'_>),
    eps: f32,
) -> Result<(M::Buffer, M::Buffer)> {
    let dim = weight.len;
    let rows = x.len / dim;
    let (dx, statistics) = (machine.buffer(x.len)?, machine.buffer(2 * rows)?);
    let (to, found) = (machine.place(&dx), machine.place(&statistics));
    let dy = dy.holds(x.len)?;
    let arguments =
        [x.into(), dy.into(), weight.into(), eps.into(), count(dim)?, to.into(), found.into()];
    // SAFETY: the kernel declares these; a block per row of `dim` values.
    unsafe { machine.launch("layer_norm_backward", [rows, 1, 1], THREADS, &arguments)? };
    let chunks = rows.div_ceil(CHUNK).max(1);
    let sums = machine.buffer(chunks * 2 * dim)?;
    let arguments = [
        x.into(),
        dy.into(),
        found.into(),
        count(rows)?,
        count(dim)?,
        count(CHUNK)?,
        machine.place(&sums).into(),
    ];
    let grid = [dim.div_ceil(32), chunks, 1];
    // SAFETY: the kernel declares these; `sums` has two rows for each chunk.
    unsafe { machine.launch("layer_norm_parameters", grid, THREADS, &arguments)? };
    Ok((dx, column_sums(machine, machine.place(&sums), chunks, 2 * dim)?))
}

/// What a group norm normalises.
#[derive(Clone, Copy)]
pub(crate) struct Groups<'a> {
    pub(crate) frames: usize,
    pub(crate) channels: usize,
    pub(crate) groups: usize,
    pub(crate) eps: f32,
    /// Valid frames of each clip.
    pub(crate) lengths: &'a [usize],
}

impl Groups<'_> {
    fn clips(&self) -> usize {
        self.lengths.len()
    }

    fn chunks(&self) -> usize {
        self.frames.div_ceil(CHUNK).max(1)
    }

    fn grid(&self) -> [usize; 3] {
        [self.channels.div_ceil(32), self.chunks(), self.clips()]
    }

    /// Averages of `plane` of `(clips, chunks, planes, channels)`, one per clip and channel.
    fn averages<M: Machine>(
        &self,
        machine: &M,
        (sums, planes, plane): (Place<'_>, usize, usize),
        weight: Option<Place<'_>>,
        lengths: Place<'_>,
        eps: f32,
    ) -> Result<M::Buffer> {
        let out = machine.buffer(self.clips() * self.channels)?;
        let arguments = [
            sums.holds(self.clips() * self.chunks() * planes * self.channels)?.into(),
            weight.into(),
            lengths.into(),
            count(self.chunks())?,
            count(planes)?,
            count(plane)?,
            count(self.channels)?,
            eps.into(),
            machine.place(&out).into(),
        ];
        let grid = [self.groups, self.clips(), 1];
        // SAFETY: the kernel declares these; a block per group and clip.
        unsafe { machine.launch("group_averages", grid, THREADS, &arguments)? };
        Ok(out)
    }

    /// Mean and reciprocal deviation of every clip's channels, those of their groups.
    fn statistics<M: Machine>(
        &self,
        machine: &M,
        x: Place<'_>,
        lengths: Place<'_>,
    ) -> Result<(M::Buffer, M::Buffer)> {
        let sums = machine.buffer(self.clips() * self.chunks() * self.channels)?;
        let sum = |mean: Option<Place<'_>>| {
            let arguments = [
                x.into(),
                mean.into(),
                lengths.into(),
                count(self.frames)?,
                count(self.channels)?,
                count(CHUNK)?,
                machine.place(&sums).into(),
            ];
            // SAFETY: the kernel declares these; `sums` has a row for each chunk of each clip.
            unsafe { machine.launch("channel_sums", self.grid(), THREADS, &arguments) }
        };
        let place = machine.place(&sums);
        sum(None)?;
        let mean = self.averages(machine, (place, 1, 0), None, lengths, -1.0)?;
        sum(Some(machine.place(&mean)))?;
        let scale = self.averages(machine, (place, 1, 0), None, lengths, self.eps)?;
        Ok((mean, scale))
    }
}

/// `x` `(clips, frames, channels)` with each group of channels normalised over valid frames.
pub(crate) fn group_norm<M: Machine>(
    machine: &M,
    (x, weight, bias): (Place<'_>, Place<'_>, Place<'_>),
    groups: Groups<'_>,
) -> Result<M::Buffer> {
    let lengths = words(machine, groups.lengths)?;
    let lengths = machine.place(&lengths);
    let (mean, scale) = groups.statistics(machine, x, lengths)?;
    let y = machine.buffer(x.len)?;
    let arguments = [
        x.holds(groups.clips() * groups.frames * groups.channels)?.into(),
        machine.place(&mean).into(),
        machine.place(&scale).into(),
        weight.holds(groups.channels)?.into(),
        bias.holds(groups.channels)?.into(),
        lengths.into(),
        count(groups.frames)?,
        count(groups.channels)?,
        machine.place(&y).into(),
    ];
    launch_over(machine, "group_norm_forward", x.len, &arguments)?;
    Ok(y)
}

/// The gradients of [`group_norm`]: of `x`, and of weight and bias one after the other.
pub(crate) fn group_norm_gradient<M: Machine>(
    machine: &M,
    (x, weight, dy): (Place<'_>, Place<'_>, Place<'_>),
    groups: Groups<'_>,
) -> Result<(M::Buffer, M::Buffer)> {
    let Groups { frames, channels, .. } = groups;
    let lengths = words(machine, groups.lengths)?;
    let lengths = machine.place(&lengths);
    let (mean, scale) = groups.statistics(machine, x, lengths)?;
    let (mean, scale) = (machine.place(&mean), machine.place(&scale));
    let dy = dy.holds(x.len)?;
    let rows = groups.clips() * groups.chunks();
    let sums = machine.buffer(rows * 2 * channels)?;
    let arguments = [
        x.into(),
        dy.into(),
        mean.into(),
        scale.into(),
        lengths.into(),
        count(frames)?,
        count(channels)?,
        count(CHUNK)?,
        machine.place(&sums).into(),
    ];
    // SAFETY: the kernel declares these; `sums` has two rows for each chunk of each clip.
    unsafe { machine.launch("group_norm_sums", groups.grid(), THREADS, &arguments)? };
    let sums = machine.place(&sums);
    let weight = weight.holds(channels)?;
    let along = groups.averages(machine, (sums, 2, 0), Some(weight), lengths, -1.0)?;
    let sum = groups.averages(machine, (sums, 2, 1), Some(weight), lengths, -1.0)?;
    let dx = machine.buffer(x.len)?;
    let arguments = [
        x.into(),
        dy.into(),
        mean.into(),
        scale.into(),
        weight.into(),
        machine.place(&along).into(),
        machine.place(&sum).into(),
        lengths.into(),
        count(frames)?,
        count(channels)?,
        machine.place(&dx).into(),
    ];
    launch_over(machine, "group_norm_backward", x.len, &arguments)?;
    Ok((dx, column_sums(machine, sums, rows, 2 * channels)?))
}
