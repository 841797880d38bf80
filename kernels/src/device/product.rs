//! Matrix products on a device.

use super::{Machine, Place, pointwise};
use crate::matmul::Precision;
use candle_core::Result;

/// A row-major operand, or one read by columns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Side<'a> {
    pub(crate) place: Place<'a>,
    /// Values from one stored row to the next; at least a row's.
    pub(crate) stride: usize,
    /// Whether stored rows are the operand's columns.
    pub(crate) transposed: bool,
    /// Values from one product of a batch to the next.
    pub(crate) batch_stride: usize,
}

impl<'a> Side<'a> {
    /// Rows of `cols` values side by side, the same for all of a batch.
    pub(crate) fn rows(place: Place<'a>, cols: usize) -> Self {
        Self { place, stride: cols, transposed: false, batch_stride: 0 }
    }

    pub(crate) fn transposed(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    pub(crate) fn batched(self, batch_stride: usize) -> Self {
        Self { batch_stride, ..self }
    }
}

/// `c (m, n) = a (m, k) b (k, n)`, or added to what is there, `batch` times.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Product<'a> {
    pub(crate) a: Side<'a>,
    pub(crate) b: Side<'a>,
    pub(crate) c: Place<'a>,
    pub(crate) c_stride: usize,
    pub(crate) c_batch_stride: usize,
    /// `m`, `n` and `k`.
    pub(crate) shape: [usize; 3],
    pub(crate) batch: usize,
    pub(crate) accumulate: bool,
}

impl Product<'_> {
    /// An error unless every place holds what is read and written of it.
    fn check(&self) -> Result<()> {
        let [m, n, k] = self.shape;
        let needed = |rows: usize, cols: usize, stride: usize, batch_stride: usize| {
            if rows == 0 || cols == 0 || self.batch == 0 {
                return 0;
            }
            (self.batch - 1) * batch_stride + (rows - 1) * stride + cols
        };
        for (side, rows, cols) in [(&self.a, m, k), (&self.b, k, n)] {
            let (rows, cols) = if side.transposed { (cols, rows) } else { (rows, cols) };
            side.place.holds(needed(rows, cols, side.stride, side.batch_stride))?;
            if side.stride < cols {
                candle_core::bail!("rows of an operand on the device overlap");
            }
        }
        self.c.holds(needed(m, n, self.c_stride, self.c_batch_stride))?;
        Ok(())
    }
}

/// Values as a product in `precision` takes them: rounded to bf16 unless it is f32. There are no
/// products of 8-bit integers on a device: bf16 takes their place.
pub(crate) struct Ready<'a, B> {
    place: Place<'a>,
    rounded: Option<B>,
}

impl<'a, B> Ready<'a, B> {
    pub(crate) fn new<M: Machine<Buffer = B>>(
        machine: &M,
        place: Place<'a>,
        precision: Precision,
    ) -> Result<Self> {
        let rounded = if precision == Precision::F32 || place.bytes == 2 {
            None
        } else {
            Some(pointwise::to_bf16(machine, place)?)
        };
        Ok(Self { place, rounded })
    }

    pub(crate) fn place<'b, M: Machine<Buffer = B>>(&'b self, machine: &M) -> Place<'b> {
        match &self.rounded {
            Some(rounded) => Place { len: self.place.len, bytes: 2, ..machine.place(rounded) },
            None => self.place,
        }
    }
}

/// Computes a product: in f32, or with operands rounded to bf16 and sums in f32.
pub(crate) fn multiply<M: Machine>(
    machine: &M,
    product: &Product<'_>,
    precision: Precision,
) -> Result<()> {
    product.check()?;
    let [m, n, k] = product.shape;
    if m == 0 || n == 0 || product.batch == 0 {
        return Ok(());
    }
    if k == 0 {
        if !product.accumulate {
            pointwise::fill(machine, product.c, 0.0)?;
        }
        return Ok(());
    }
    let a = Ready::new(machine, product.a.place, precision)?;
    let b = Ready::new(machine, product.b.place, precision)?;
    let product = Product {
        a: Side { place: a.place(machine), ..product.a },
        b: Side { place: b.place(machine), ..product.b },
        ..*product
    };
    if product.a.place.bytes != product.b.place.bytes {
        candle_core::bail!("one operand is rounded and the other is not");
    }
    // SAFETY: checked above; rounded operands hold as many values.
    unsafe { machine.multiply(&product) }
}
