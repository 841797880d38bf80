//! Measuring: how well a model recognises, the benchmarks it is measured by, and the pages that show it.

mod calibration;
mod corpus;
pub mod ml_superb;
pub mod report;

pub use calibration::{Fitted, calibrate};
pub use corpus::{ClipScore, CorpusError, CorpusScores, Group, LanguageScore, evaluate};
