//! The grouped convolution of positions.
//!
//! Forwards and for the gradient of its input it is a kernel of its own, in f32; the gradient of
//! the weights is a matrix product per tap and group.

use super::pointwise::{pad_frames, swap_last, turn_weights};
use super::product::{Product, Ready, Side, multiply};
use super::{Machine, Place, THREADS, count};
use crate::matmul::Precision;
use candle_core::Result;

/// `x` is `(clips, frames, dim)`, the weight `(dim, width, kernel)`.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) clips: usize,
    pub(crate) frames: usize,
    pub(crate) dim: usize,
    pub(crate) width: usize,
    pub(crate) kernel: usize,
}

impl Shape {
    /// Runs the kernel with weights `(dim, kernel, width)`.
    fn run<M: Machine>(
        self,
        machine: &M,
        x: Place<'_>,
        weight: Place<'_>,
        before: usize,
    ) -> Result<M::Buffer> {
        let n = self.clips * self.frames * self.dim;
        let y = machine.buffer(n)?;
        let arguments = [
            x.holds(n)?.into(),
            weight.holds(self.dim * self.kernel * self.width)?.into(),
            count(self.frames)?,
            count(self.dim)?,
            count(self.width)?,
            count(self.kernel)?,
            count(before)?,
            machine.place(&y).into(),
        ];
        let pieces = self.dim / self.width * self.width.div_ceil(16);
        let grid = [self.frames.div_ceil(64), pieces, self.clips];
        // SAFETY: the kernel declares these; the places were checked.
        unsafe { machine.launch("position_conv", grid, THREADS, &arguments)? };
        Ok(y)
    }
}

pub(crate) fn forward<M: Machine>(
    machine: &M,
    x: Place<'_>,
    weight: Place<'_>,
    shape: Shape,
) -> Result<M::Buffer> {
    let packed = machine.buffer(weight.len)?;
    let to = machine.place(&packed);
    swap_last(machine, weight, (shape.width, shape.kernel), to, false)?;
    shape.run(machine, x, to, shape.kernel / 2)
}

/// The gradient of `x`.
pub(crate) fn input_gradient<M: Machine>(
    machine: &M,
    dy: Place<'_>,
    weight: Place<'_>,
    shape: Shape,
) -> Result<M::Buffer> {
    let turned = turn_weights(machine, weight, (shape.width, shape.kernel))?;
    shape.run(machine, dy, machine.place(&turned), shape.kernel - 1 - shape.kernel / 2)
}

/// The gradient of the weight.
pub(crate) fn weight_gradient<M: Machine>(
    machine: &M,
    x: Place<'_>,
    dy: Place<'_>,
    shape: Shape,
    precision: Precision,
) -> Result<M::Buffer> {
    let Shape { clips, frames, dim, width, kernel } = shape;
    let (before, clip) = (kernel / 2, frames * dim);
    let padded = (frames + kernel - 1) * dim;
    let ends = (before * dim, (kernel - 1 - before) * dim);
    let long = pad_frames(machine, x.holds(clips * clip)?, clip, ends)?;
    let long = Ready::new(machine, machine.place(&long), precision)?;
    let short = Ready::new(machine, dy.holds(clips * clip)?, precision)?;
    let packed = machine.buffer(dim * width * kernel)?;
    let to = machine.place(&packed);
    for i in 0..clips {
        for channel in (0..dim).step_by(width) {
            // A product for each tap: outputs by channels.
            let product = Product {
                a: Side::rows(short.place(machine).from(i * clip + channel)?, dim).transposed(),
                b: Side::rows(long.place(machine).from(i * padded + channel)?, dim).batched(dim),
                c: to.from(channel * kernel * width)?,
                c_stride: kernel * width,
                c_batch_stride: width,
                shape: [width, width, frames],
                batch: kernel,
                accumulate: i > 0,
            };
            multiply(machine, &product, precision)?;
        }
    }
    let gradient = machine.buffer(dim * width * kernel)?;
    swap_last(machine, to, (kernel, width), machine.place(&gradient), false)?;
    Ok(gradient)
}
