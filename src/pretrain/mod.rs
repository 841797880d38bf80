//! Self-supervised pre-training: frames to units, units to targets of masked prediction.
//!
//! Units are the names of the clusters that frames fall into: MFCC in the first iteration, a
//! layer of the last iteration's model in the next (Hsu et al. 2021). The layer knows nothing
//! of decoding and nothing of terminals.
//!
//! [`FrameMaker`] makes frames of a manifest's clips, [`fit`] finds units in them (with faiss),
//! [`Clustering`] assigns units to frames (without), [`LabelWriter`] keeps them for
//! [`UnitLabels`] to read, [`Contingency`] tells what they are worth. [`pretrain`] runs the
//! stages of a [`PretrainRecipe`]: labels, then a model that predicts them where it cannot see.

mod batch;
mod card;
mod cluster;
mod clustering;
mod error;
mod frames;
mod graph;
mod index_file;
mod iterate;
mod label_making;
mod labels;
mod mixing;
mod objective;
mod quality;
mod recipe;
mod reservoir;
#[cfg(feature = "faiss")]
mod seeding;
mod span_mask;
mod speech;
mod task;

pub use batch::UnitBatchConfig;
pub use card::{ClusteringCard, FrameCard};
pub use cluster::{FitOptions, FitReport, Init, Method, fit};
pub use clustering::Clustering;
pub use error::PretrainError;
pub use frames::{ClipFrames, FrameMaker, Frames};
pub use index_file::IndexFault;
pub use iterate::{Progress, Watch, describe, pretrain, progress};
pub use labels::{LabelWriter, UnitLabels};
pub use mixing::{Mixing, Overlay, mix, non_silent};
pub use objective::{ObjectiveConfig, Predict, Targets};
pub use quality::{Contingency, Quality};
pub use recipe::{
    ClusteringConfig, LabelSource, ModelReference, PretrainData, PretrainRecipe, Stage,
};
pub use span_mask::SpanMask;
pub use task::PredictionScores;
