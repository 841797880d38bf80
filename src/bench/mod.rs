//! Measuring: how well a model recognises, and how fast.

mod calibration;
mod corpus;

pub use calibration::{Fitted, calibrate};
pub use corpus::{CorpusScores, Group, LanguageScore, evaluate};
