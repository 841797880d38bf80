//! Normalisations with gradients (candle's own fused layer norm silently has none).

mod group;
mod layer;

pub use group::group_norm;
pub use layer::layer_norm;
pub(crate) use layer::layer_norm_in_place;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{cases, normalise, uniform};
    use candle_core::{Device, Result, Tensor, Var};

    const EPS: f64 = 1e-5;

    fn var(shape: &[usize], seed: u64) -> Result<Var> {
        Var::from_vec(uniform(shape.iter().product(), seed), shape, &Device::Cpu)
    }

    fn assert_close(what: &str, got: &Tensor, want: &Tensor) -> Result<()> {
        let (got, want) =
            (got.flatten_all()?.to_vec1::<f32>()?, want.flatten_all()?.to_vec1::<f32>()?);
        assert_eq!(got.len(), want.len());
        for (i, (g, w)) in got.iter().zip(&want).enumerate() {
            assert!((g - w).abs() <= 1e-4 * (1.0 + w.abs()), "{what} at {i}: {g} against {w}");
        }
        Ok(())
    }

    /// `x` normalised over its dimensions `over`, of operations that have gradients.
    fn composed(x: &Tensor, over: &[usize]) -> Result<Tensor> {
        let centred = x.broadcast_sub(&x.mean_keepdim(over)?)?;
        let variance = centred.sqr()?.mean_keepdim(over)?;
        centred.broadcast_div(&(variance + EPS)?.sqrt()?)
    }

    fn assert_gradients(ours: &Tensor, theirs: &Tensor, vars: [&Var; 3]) -> Result<()> {
        let upstream = var(ours.dims(), 9)?;
        let gradients = |y: &Tensor| (y * upstream.as_tensor())?.sum_all()?.backward();
        let (got, want) = (gradients(ours)?, gradients(theirs)?);
        for (var, name) in vars.into_iter().zip(["x", "weight", "bias"]) {
            let (got, want) =
                (got.get(var).expect("a gradient"), want.get(var).expect("a gradient"));
            assert_close(name, got, want)?;
        }
        Ok(())
    }

    #[test]
    fn layer_norm_is_that_of_the_reference_and_so_are_its_gradients() -> Result<()> {
        for (frames, dim) in cases([(1, 1), (1, 7), (5, 33), (41, 256)], 3) {
            let (x, w, b) = (var(&[2, frames, dim], 1)?, var(&[dim], 2)?, var(&[dim], 3)?);
            let y = layer_norm(&x, &w, &b, EPS)?;
            let flat = |t: &Tensor| t.flatten_all()?.to_vec1::<f32>();
            let (values, weight, bias) = (flat(&x)?, flat(&w)?, flat(&b)?);
            let mut want = vec![0.0; values.len()];
            for row in 0..2 * frames {
                let group: Vec<usize> = (row * dim..(row + 1) * dim).collect();
                let affine = |i: usize| (weight[i % dim], bias[i % dim]);
                normalise(&values, EPS, &group, affine, &mut want);
            }
            assert_close("y", &y, &Tensor::from_vec(want, y.shape(), &Device::Cpu)?)?;
            let theirs = composed(&x, &[2])?.broadcast_mul(&w)?.broadcast_add(&b)?;
            assert_gradients(&y, &theirs, [&x, &w, &b])?;
        }
        Ok(())
    }

    #[test]
    fn group_norm_is_that_of_the_reference_and_so_are_its_gradients() -> Result<()> {
        for (frames, channels, groups, lengths) in cases(
            [
                (1, 1, 1, [1, 1]),
                (1, 6, 2, [1, 1]),
                (9, 7, 7, [9, 2]),
                (13, 12, 1, [5, 13]),
                (50, 24, 4, [33, 50]),
            ],
            4,
        ) {
            let (x, w, b) =
                (var(&[2, frames, channels], 1)?, var(&[channels], 2)?, var(&[channels], 3)?);
            let y = group_norm(&x, &w, &b, groups, EPS, Some(&lengths))?;
            let flat = |t: &Tensor| t.flatten_all()?.to_vec1::<f32>();
            let (values, weight, bias) = (flat(&x)?, flat(&w)?, flat(&b)?);
            let width = channels / groups;
            let mut want = vec![0.0; values.len()];
            let mut clips = Vec::new();
            for (clip, &valid) in lengths.iter().enumerate() {
                for first in (0..channels).step_by(width) {
                    let frame = |t: usize| (clip * frames + t) * channels + first;
                    let group: Vec<usize> =
                        (0..valid).flat_map(|t| frame(t)..frame(t) + width).collect();
                    let affine = |i: usize| (weight[i % channels], bias[i % channels]);
                    normalise(&values, EPS, &group, affine, &mut want);
                }
                let inside = x.get(clip)?.narrow(0, 0, valid)?;
                let unit = composed(&inside.reshape((valid, groups, width))?, &[0, 2])?;
                let y = unit.reshape((valid, channels))?.broadcast_mul(&w)?.broadcast_add(&b)?;
                clips.push(y.pad_with_zeros(0, 0, frames - valid)?);
            }
            assert_close("y", &y, &Tensor::from_vec(want, y.shape(), &Device::Cpu)?)?;
            assert_gradients(&y, &Tensor::stack(&clips, 0)?, [&x, &w, &b])?;
        }
        Ok(())
    }
}
