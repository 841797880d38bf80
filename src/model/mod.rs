//! Encoders and heads: tensors in, tensors out.
//!
//! The layer knows nothing of sample rates, text or training loops; only `checkpoint/`
//! touches files. Hidden tensors are `(batch, frames, dim)` with the valid frames of each
//! clip beside them ([`Sequence`]), and every forward pass is told by a [`Pass`] whether it
//! trains. Parameters carry the names of the published MR-HuBERT checkpoints.

mod config;
mod conv_stack;
mod init;
mod mr_hubert;
mod parameters;
mod pass;
mod recogniser;
mod sampling;
mod sequence;
mod transformer;

pub mod checkpoint;

pub use config::{ConfigError, ConvLayer, ConvNorm, EncoderConfig, Sampling};
pub use mr_hubert::{MrHubert, Resolution};
pub use parameters::Parameters;
pub use pass::Pass;
pub use recogniser::{Logits, Recogniser, RecogniserConfig};
pub use sequence::Sequence;
