//! Additive angular margin softmax (Deng et al. 2019, ArcFace, equation 3).

use candle_core::{D, Result, Tensor};
use serde::{Deserialize, Serialize};

/// Margin and scale.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AngularMargin {
    /// Angle by which the true class must be nearer, radians; 0.5 as published.
    pub margin: f64,
    /// What cosines are multiplied by before the softmax; 30 as published.
    pub scale: f64,
}

impl AngularMargin {
    /// Cross-entropy of the scaled cosines, the true one moved away by the margin.
    ///
    /// Where the angle plus the margin would pass half a turn, the cosine is lowered by
    /// `1 - cos(margin)` instead, so that the loss stays monotone. The penalty on the nearest
    /// wrong classes that the reference describes never becomes active there, and is left out.
    ///
    /// # Shapes
    /// `cosines`: `(batch, classes)`; `labels`: the class of each clip; returns `(batch,)`, nats.
    ///
    /// # Errors
    /// If counts disagree or a label is no class.
    pub fn loss(&self, cosines: &Tensor, labels: &[u32]) -> Result<Tensor> {
        let (batch, classes) = cosines.dims2()?;
        if labels.len() != batch || labels.iter().any(|&l| l as usize >= classes) {
            candle_core::bail!("{} labels for {batch} clips and {classes} classes", labels.len());
        }
        let index = Tensor::new(labels, cosines.device())?.unsqueeze(1)?;
        let cosine = cosines.gather(&index, 1)?;
        let sine = cosine.sqr()?.affine(-1.0, 1.0)?.maximum(1e-9)?.sqrt()?;
        let moved = ((&cosine * self.margin.cos())? - (sine * self.margin.sin())?)?;
        let lowered = (&cosine - (1.0 - self.margin.cos()))?;
        let moved = cosine.gt(-self.margin.cos())?.where_cond(&moved, &lowered)?;
        let change = (moved - &cosine)?;
        let hot = one_hot(labels, classes, cosines)?;
        let logits = ((cosines + hot.broadcast_mul(&change)?)? * self.scale)?;
        let log_sum = logits.log_sum_exp(D::Minus1)?;
        log_sum - logits.gather(&index, 1)?.squeeze(1)?
    }
}

/// `(batch, classes)`, 1 at the label of each row.
fn one_hot(labels: &[u32], classes: usize, like: &Tensor) -> Result<Tensor> {
    let mut values = vec![0.0_f32; labels.len() * classes];
    for (row, &label) in values.chunks_exact_mut(classes).zip(labels) {
        row[label as usize] = 1.0;
    }
    Tensor::from_vec(values, (labels.len(), classes), like.device())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    /// The loss by its definition, in f64.
    fn plain(cosines: &[f64], label: usize, margin: f64, scale: f64) -> f64 {
        let mut logits: Vec<f64> = cosines.to_vec();
        let angle = cosines[label].acos();
        logits[label] = if angle + margin < std::f64::consts::PI {
            (angle + margin).cos()
        } else {
            cosines[label] - (1.0 - margin.cos())
        };
        let sum: f64 = logits.iter().map(|c| (scale * c).exp()).sum();
        sum.ln() - scale * logits[label]
    }

    #[test]
    fn loss_and_gradient_are_those_of_the_definition() -> Result<()> {
        let aam = AngularMargin { margin: 0.5, scale: 30.0 };
        let rows = [[0.3, -0.2, 0.9], [-0.95, 0.1, 0.2], [0.99, 0.98, -0.3]];
        let labels = [0_u32, 0, 1];
        let flat: Vec<f32> = rows.iter().flatten().map(|&c| c as f32).collect();
        let cosines = Var::from_tensor(&Tensor::from_vec(flat, (3, 3), &Device::Cpu)?)?;
        let losses = aam.loss(&cosines, &labels)?;
        let gradient = losses.sum_all()?.backward()?;
        let gradient = gradient.get(&cosines).expect("a gradient").to_vec2::<f32>()?;
        for (i, (row, &label)) in rows.iter().zip(&labels).enumerate() {
            let loss = |row: &[f64]| plain(row, label as usize, 0.5, 30.0);
            let got = f64::from(losses.to_vec1::<f32>()?[i]);
            assert!((got - loss(row)).abs() < 1e-4, "{i}: {got} against {}", loss(row));
            for j in 0..3 {
                let moved = |by: f64| {
                    let mut row = *row;
                    row[j] += by;
                    loss(&row)
                };
                let numeric = (moved(1e-6) - moved(-1e-6)) / 2e-6;
                let got = f64::from(gradient[i][j]);
                assert!(
                    (got - numeric).abs() < 1e-3 * (1.0 + numeric.abs()),
                    "{i} {j}: {got} {numeric}"
                );
            }
        }
        assert!(aam.loss(&cosines, &[0, 1]).is_err());
        assert!(aam.loss(&cosines, &[0, 1, 3]).is_err());
        Ok(())
    }
}
