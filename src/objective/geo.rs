//! The loss of geolocation-aware language identification: class, place, place on the way.

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

/// How the parts are weighed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Blending {
    /// `(1 - w) class + w ((1 - v) final + v intermediate)`.
    Documented,
    /// As the released code runs, which blends the class loss twice:
    /// `(1 - w)² class + (w (1 - w) + w (1 - v)) final + w v intermediate`.
    Executed,
}

/// Weights of the parts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeoWeights {
    /// `w`, the share of the places, 0 to 1; 0.2 as published.
    pub share: f64,
    /// `v`, of that the share of the places predicted inside the encoder, 0 to 1; 0.4 as published.
    pub intermediate: f64,
    /// How they are combined.
    pub blending: Blending,
}

impl GeoWeights {
    /// Factors of the class loss, of the final place's loss and of the mean of the
    /// intermediate ones.
    ///
    /// ```
    /// use asr::objective::{Blending, GeoWeights};
    /// let weights = GeoWeights { share: 0.2, intermediate: 0.4, blending: Blending::Executed };
    /// let [class, last, inner] = weights.factors();
    /// assert!((class - 0.64).abs() < 1e-9 && (last - 0.28).abs() < 1e-9 && (inner - 0.08).abs() < 1e-9);
    /// ```
    #[must_use]
    pub fn factors(&self) -> [f64; 3] {
        let (w, v) = (self.share, self.intermediate);
        match self.blending {
            Blending::Documented => [1.0 - w, w * (1.0 - v), w * v],
            Blending::Executed => [(1.0 - w).powi(2), w * (1.0 - w) + w * (1.0 - v), w * v],
        }
    }

    /// The loss of each clip.
    ///
    /// # Shapes
    /// Each part is `(batch,)`; `last` and `intermediate` may be missing.
    ///
    /// # Errors
    /// If shapes disagree.
    pub fn blend(
        &self,
        class: &Tensor,
        last: Option<&Tensor>,
        intermediate: &[Tensor],
    ) -> Result<Tensor> {
        let [class_factor, last_factor, inner_factor] = self.factors();
        let mut sum = (class * class_factor)?;
        if let Some(last) = last {
            sum = (sum + (last * last_factor)?)?;
        }
        for inner in intermediate {
            sum = (sum + (inner * (inner_factor / intermediate.len() as f64))?)?;
        }
        Ok(sum)
    }
}

/// Mean squared difference of predicted and true places.
///
/// # Shapes
/// `predicted`, `wanted`: `(batch, dim)`; returns `(batch,)`.
///
/// # Errors
/// If shapes disagree.
pub fn location_loss(predicted: &Tensor, wanted: &Tensor) -> Result<Tensor> {
    (predicted - wanted)?.sqr()?.mean(1)
}
