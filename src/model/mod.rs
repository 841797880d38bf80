//! Encoders and heads: tensors in, tensors out.
//!
//! The layer knows nothing of sample rates, text or training loops; only `checkpoint/`
//! touches files. Hidden tensors are `(batch, frames, dim)` with the valid frames of each
//! clip beside them ([`Sequence`]), and every forward pass is told by a [`Pass`] whether it
//! trains. Parameters carry the names of the published MR-HuBERT checkpoints.

mod adapter;
mod config;
mod conv_stack;
mod encoder;
mod front_end;
mod heads;
mod hubert;
mod init;
mod mr_hubert;
mod names;
mod parameters;
mod pass;
mod recogniser;
mod requirements;
mod sampling;
mod sequence;
mod transformer;
mod wavlm;

pub mod checkpoint;

pub use adapter::LanguageAdapter;
pub use config::{
    ConfigError, ConvLayer, ConvNorm, EncoderConfig, Family, RelativePositions, Sampling,
    UpsamplerOrder, Variant,
};
pub use encoder::{Encoded, Encoder, waveform_batch};
pub use heads::{ClassifierHead, CtcHead, LayerSum, PredictionShape, PretrainingHeads};
pub use mr_hubert::{MrHubert, Resolution};
pub use names::{Layout, Naming, Place};
pub use parameters::Parameters;
pub use pass::{Padding, Pass};
pub use recogniser::{Logits, Recogniser, RecogniserConfig};
pub use requirements::{Requirement, requirements};
pub use sequence::Sequence;
pub use transformer::StageStates;
