//! The affine map of the last dimension.

use super::product::{Product, Side, multiply};
use super::{Machine, Place, column_sums, pointwise};
use crate::linear::Activation;
use crate::matmul::Precision;
use candle_core::Result;

/// `(outputs, inputs)` of a weight.
type Widths = (usize, usize);

/// The map with what follows it; the second buffer is what went into the activation, where it
/// is wanted and there is one.
pub(crate) fn forward<M: Machine>(
    machine: &M,
    (x, weight, bias): (Place<'_>, Place<'_>, Place<'_>),
    (outputs, inputs): Widths,
    (activation, keep): (Activation, bool),
    precision: Precision,
) -> Result<(M::Buffer, Option<M::Buffer>)> {
    let rows = x.len.checked_div(inputs).unwrap_or(bias.len / outputs.max(1));
    let y = machine.buffer(rows * outputs)?;
    let place = machine.place(&y);
    let product = Product {
        a: Side::rows(x, inputs),
        b: Side::rows(weight, inputs).transposed(),
        c: place,
        c_stride: outputs,
        c_batch_stride: 0,
        shape: [rows, outputs, inputs],
        batch: 1,
        accumulate: false,
    };
    multiply(machine, &product, precision)?;
    match activation {
        Activation::Identity => {
            pointwise::add_bias(machine, place, bias)?;
            Ok((y, None))
        }
        Activation::Gelu if keep => {
            let after = machine.buffer(rows * outputs)?;
            pointwise::bias_gelu(machine, place, bias, machine.place(&after))?;
            Ok((after, Some(y)))
        }
        Activation::Gelu => {
            pointwise::bias_gelu(machine, place, bias, place)?;
            Ok((y, None))
        }
    }
}

/// Gradients of the input (where `wanted`), the weight and the bias. `before` is what
/// [`forward`] kept.
pub(crate) struct Gradients<B> {
    pub(crate) x: Option<B>,
    pub(crate) weight: Option<B>,
    pub(crate) bias: Option<B>,
}

pub(crate) fn backward<M: Machine>(
    machine: &M,
    (x, weight, before, dy): (Place<'_>, Place<'_>, Option<Place<'_>>, Place<'_>),
    (outputs, inputs): Widths,
    wanted: [bool; 3],
    precision: Precision,
) -> Result<Gradients<M::Buffer>> {
    let rows = dy.len / outputs.max(1);
    let inner = match before {
        Some(before) => Some(pointwise::gelu_gradient(machine, before, dy)?),
        None => None,
    };
    let dy = inner.as_ref().map_or(dy, |inner| machine.place(inner));
    let slopes = Side::rows(dy, outputs);
    let make = |a: Side<'_>, b: Side<'_>, shape: [usize; 3]| {
        let c = machine.buffer(shape[0] * shape[1])?;
        let product = Product {
            a,
            b,
            c: machine.place(&c),
            c_stride: shape[1],
            c_batch_stride: 0,
            shape,
            batch: 1,
            accumulate: false,
        };
        multiply(machine, &product, precision)?;
        Ok::<_, candle_core::Error>(c)
    };
    let [want_x, want_weight, want_bias] = wanted;
    let dx = if want_x {
        Some(make(slopes, Side::rows(weight, inputs), [rows, inputs, outputs])?)
    } else {
        None
    };
    let dw = if want_weight {
        Some(make(slopes.transposed(), Side::rows(x, inputs), [outputs, inputs, rows])?)
    } else {
        None
    };
    let db = if want_bias { Some(column_sums(machine, dy, rows, outputs)?) } else { None };
    Ok(Gradients { x: dx, weight: dw, bias: db })
}
