//! Encoders and heads: tensors in, tensors out.
//!
//! The layer knows nothing of sample rates, text or training loops; only `checkpoint/`
//! touches files. Hidden tensors are `(batch, frames, dim)` with the valid frames of each
//! clip beside them ([`Sequence`]), and every forward pass is told by a [`Pass`] whether it
//! trains. Parameters carry the names of the published MR-HuBERT checkpoints.

mod adaptation;
mod adapter;
mod after_block;
mod batch_norm;
mod config;
mod conv_stack;
mod device;
mod downstream;
mod ecapa;
mod encoder;
mod front_end;
mod geo;
mod heads;
mod hubert;
mod init;
mod intermediate_ctc;
mod joint;
mod language_head;
mod location;
mod masked_encoder;
mod mr_hubert;
mod names;
mod parameters;
mod pass;
mod pooling;
mod prediction_heads;
mod recogniser;
mod requirements;
mod sampling;
mod sequence;
mod transformer;
mod wavlm;

pub mod checkpoint;

pub use adaptation::{Adaptation, LoraTarget, LoraTargets};
pub use adapter::LanguageAdapter;
pub use after_block::AfterBlock;
pub use batch_norm::BatchStatistics;
pub use config::{
    ConfigError, ConvLayer, ConvNorm, EncoderConfig, Family, RelativePositions, Sampling,
    UpsamplerOrder, Variant,
};
pub use device::{compute_on, device};
pub use downstream::{DownstreamConfig, HeadLayer, TransformerHeadConfig};
pub use ecapa::EcapaTdnn;
pub use encoder::{Encoded, Encoder, waveform_batch};
pub use geo::{Conditioning, GeoBranches, GeoConfig, GeoListener};
pub use heads::{ClassifierHead, CtcHead, LayerSum};
pub use intermediate_ctc::{IntermediateCtcConfig, Predicts, Projection, Tap};
pub use joint::JointConfig;
pub use language_head::{EcapaConfig, LanguageHead, LanguageHeadConfig, LanguageOutput};
pub use location::{GeoPoint, LOCATION_DIM, location_vector, mean_place, place_of};
pub use masked_encoder::{MaskedEncoder, MaskedEncoderConfig, MaskedOutput};
pub use mr_hubert::{MrHubert, Resolution};
pub use names::{Layout, Naming, Place};
pub use parameters::Parameters;
pub use pass::{Padding, Pass};
pub use pooling::{AttentivePooling, Projector};
pub use prediction_heads::{HeadNames, PredictionShape, PretrainingHeads};
pub use recogniser::{
    Logits, Recogniser, RecogniserConfig, RecogniserOutput, is_encoder_parameter,
};
pub use requirements::{Requirement, requirements};
pub use sequence::Sequence;
pub use transformer::StageStates;
