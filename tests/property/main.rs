//! Laws that hold for any input.

mod batching;
mod corpus;
mod encoders;
mod families;
mod gradients;
mod model_folder;
mod no_speech;
mod resampling;
mod streaming;
