//! Laws that hold for any input.

mod batching;
mod encoders;
mod families;
mod gradients;
mod model_folder;
mod resampling;
mod streaming;
