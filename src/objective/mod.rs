//! Losses: from logits and labels to one number to minimise.
//!
//! The layer knows nothing of text, files or optimisers.

mod aam;
mod ctc;
mod geo;
mod masked_prediction;

pub use aam::AngularMargin;
pub use ctc::{ClipLosses, MultiResolutionCtc, MultiResolutionLoss, intermediate_ctc};
pub use geo::{Blending, GeoWeights, location_loss};
pub use masked_prediction::{
    HeadLoss, LabelAlignment, PredictedFrames, Prediction, PredictionScore, PredictionWeights,
    UnitLoss, predict_units,
};
