//! From logits to text and language.
//!
//! The layer knows nothing of training or files: samples in, [`Transcription`] out. Audio of
//! any length goes through a [`Stream`], live speech through [`Live`]; texts are found by the best
//! path or by [`beam_search`] with the models of [`lm`]; [`Aligner`] finds when a known text is
//! said.

mod align;
mod beam;
mod changes;
mod characters;
mod decoding;
mod extract;
mod greedy;
mod language;
mod live;
pub mod lm;
mod reader;
mod released;
mod script;
mod stream;
mod times;
mod tokens;
mod transcriber;
mod utterances;
mod windows;

pub use align::{AlignError, Aligner, Alignment, Span, Target, Unit, align};
pub use beam::{BeamOptions, Hypothesis, beam_search, sequence_log_prob};
pub use decoding::Decoding;
pub use extract::{Extract, Extractor, Layers, Named};
pub use greedy::{Token, best_path};
pub use language::{LanguageScores, LanguageSource, score_languages};
pub use live::{Live, LiveSegment};
pub use reader::{FrameModel, Reader};
pub use released::{ReleasedTranscriber, Transcribe};
pub use script::{AlignedCharacter, AlignedWord, Script};
pub use stream::{Piece, Stream, StreamOptions};
pub use times::FrameTimes;
pub use tokens::Tokens;
pub use transcriber::{
    DecodeError, Heard, ScoredLanguage, SegmentText, Transcriber, Transcription,
};
pub use windows::{Window, Windows};
