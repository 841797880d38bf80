//! Convolutions over time and back, as products: as many taps at a time as a stride has frames.
//!
//! The frames `t stride + j .. t stride + j + taps` of all `t` are rows that do not overlap as long
//! as `taps <= stride`, which is what a library of matrix products takes. So a kernel of ten at
//! stride five is two products that add to one output, and nothing is unrolled in memory.

use super::pointwise::{fill, swap_last};
use super::product::{Product, Ready, Side, multiply};
use super::{Machine, Place};
use crate::conv::Map;
use candle_core::Result;
use std::ops::Range;

/// A [`Map`] over clips.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) map: Map,
    pub(crate) clips: usize,
    pub(crate) long_frames: usize,
    pub(crate) short_frames: usize,
}

impl Shape {
    fn long(&self) -> usize {
        self.long_frames * self.map.long_channels
    }

    fn short(&self) -> usize {
        self.short_frames * self.map.short_channels
    }

    /// Values of a row of the weights: all taps of one short channel.
    fn row(&self) -> usize {
        self.map.kernel * self.map.long_channels
    }

    /// The columns of a row of weights that each product takes.
    fn pieces(&self) -> impl Iterator<Item = Range<usize>> {
        let (channels, row) = (self.map.long_channels, self.row());
        let step = self.map.stride * channels;
        (0..row).step_by(step.max(1)).map(move |start| start..row.min(start + step))
    }

    /// Long frames as rows a stride apart, from value `start` on.
    fn windows<'a>(&self, long: Place<'a>, start: usize) -> Result<Side<'a>> {
        let stride = self.map.stride * self.map.long_channels;
        Ok(Side { place: long.from(start)?, stride, transposed: false, batch_stride: self.long() })
    }
}

/// Weights `(short, long, kernel)` as `(short, kernel, long)`.
fn packed<M: Machine>(machine: &M, weight: Place<'_>, map: Map) -> Result<M::Buffer> {
    let packed = machine.buffer(weight.len)?;
    let to = machine.place(&packed);
    swap_last(machine, weight, (map.long_channels, map.kernel), to, false)?;
    Ok(packed)
}

/// Short frames from long ones: a convolution, or the gradient of a transposed one.
pub(crate) fn gather<M: Machine>(
    machine: &M,
    long: Place<'_>,
    weight: Place<'_>,
    shape: Shape,
) -> Result<M::Buffer> {
    let weight = packed(machine, weight, shape.map)?;
    let weight = Ready::new(machine, machine.place(&weight), shape.map.precision)?;
    let long = Ready::new(machine, long, shape.map.precision)?;
    let short = machine.buffer(shape.clips * shape.short())?;
    for piece in shape.pieces() {
        let product = Product {
            a: shape.windows(long.place(machine), piece.start)?,
            b: Side::rows(weight.place(machine).from(piece.start)?, shape.row()).transposed(),
            c: machine.place(&short),
            c_stride: shape.map.short_channels,
            c_batch_stride: shape.short(),
            shape: [shape.short_frames, shape.map.short_channels, piece.len()],
            batch: shape.clips,
            accumulate: piece.start > 0,
        };
        multiply(machine, &product, shape.map.precision)?;
    }
    Ok(short)
}

/// Long frames from short ones: a transposed convolution, or the gradient of a convolution.
pub(crate) fn scatter<M: Machine>(
    machine: &M,
    short: Place<'_>,
    weight: Place<'_>,
    shape: Shape,
) -> Result<M::Buffer> {
    let weight = packed(machine, weight, shape.map)?;
    let weight = Ready::new(machine, machine.place(&weight), shape.map.precision)?;
    let short = Ready::new(machine, short, shape.map.precision)?;
    let long = machine.buffer(shape.clips * shape.long())?;
    let place = machine.place(&long);
    fill(machine, place, 0.0)?;
    for piece in shape.pieces() {
        let product = Product {
            a: Side::rows(short.place(machine), shape.map.short_channels).batched(shape.short()),
            b: Side::rows(weight.place(machine).from(piece.start)?, shape.row()),
            c: place.from(piece.start)?,
            c_stride: shape.map.stride * shape.map.long_channels,
            c_batch_stride: shape.long(),
            shape: [shape.short_frames, piece.len(), shape.map.short_channels],
            batch: shape.clips,
            accumulate: true,
        };
        multiply(machine, &product, shape.map.precision)?;
    }
    Ok(long)
}

/// The gradient of the weights, `(short, long, kernel)`.
pub(crate) fn weight_gradient<M: Machine>(
    machine: &M,
    short: Place<'_>,
    long: Place<'_>,
    shape: Shape,
) -> Result<M::Buffer> {
    let map = shape.map;
    let short = Ready::new(machine, short, map.precision)?;
    let long = Ready::new(machine, long, map.precision)?;
    let (short, long) = (short.place(machine), long.place(machine));
    let gradient = machine.buffer(map.short_channels * shape.row())?;
    let place = machine.place(&gradient);
    fill(machine, place, 0.0)?;
    for piece in shape.pieces() {
        for clip in 0..shape.clips {
            let product = Product {
                a: Side::rows(short.from(clip * shape.short())?, map.short_channels).transposed(),
                b: shape.windows(long.from(clip * shape.long())?, piece.start)?,
                c: place.from(piece.start)?,
                c_stride: shape.row(),
                c_batch_stride: 0,
                shape: [map.short_channels, piece.len(), shape.short_frames],
                batch: 1,
                accumulate: true,
            };
            multiply(machine, &product, map.precision)?;
        }
    }
    let turned = machine.buffer(map.short_channels * shape.row())?;
    swap_last(machine, place, (map.kernel, map.long_channels), machine.place(&turned), false)?;
    Ok(turned)
}
