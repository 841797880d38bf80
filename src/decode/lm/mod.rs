//! Language models and hotwords, and how they join the acoustic scores.

mod arpa;
mod fusion;
mod hotwords;
mod ngram;

pub use arpa::{ArpaError, MAX_ARPA_BYTES, MAX_ORDER};
pub use fusion::{Alphabet, Fusion, FusionState, LanguageModel, LmUnit, LmWeights};
pub use hotwords::{HotwordError, Hotwords, MAX_HOTWORDS};
pub use ngram::{LmState, NgramModel, WordId};
