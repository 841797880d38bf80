//! From logits to text and language.
//!
//! The layer knows nothing of training or files: samples in, [`Transcription`] out.

mod extract;
mod greedy;
mod language;
mod released;
mod segment;
mod transcriber;

pub use extract::{Extract, Extractor, Layers, Named};
pub use greedy::{Token, best_path};
pub use language::{LanguageScores, score_languages};
pub use released::{ReleasedTranscriber, Transcribe};
pub use segment::{Segment, Segmenter};
pub use transcriber::{DecodeError, ScoredLanguage, SegmentText, Transcriber, Transcription};
