//! Normalisations with gradients (candle's own fused layer norm silently has none).

mod group;
mod layer;

pub use group::group_norm;
pub use layer::layer_norm;
pub(crate) use layer::layer_norm_in_place;
