//! Measuring: how well a model recognises, and how fast.

mod corpus;

pub use corpus::{CorpusScores, Group, LanguageScore, evaluate};
