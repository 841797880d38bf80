//! Words with times, and the files that hold them.

mod annotations;
mod subtitles;

pub use annotations::{TextGridTier, ctm, text_grid, tsv};
pub use subtitles::{Cue, CueOptions, cues, srt, vtt};

/// A word and when it is said, in seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct TimedWord {
    /// The word.
    pub word: String,
    /// Where it begins.
    pub start_s: f64,
    /// Where it ends.
    pub end_s: f64,
    /// How sure the model is, 0 to 1.
    pub score: f64,
}

/// A time in whole milliseconds; what is no time is 0.
fn milliseconds(time_s: f64) -> u64 {
    (time_s.max(0.0) * 1000.0).round() as u64
}
