//! From manifests to batches: what is read, what is drawn, what is heard.
//!
//! The layer knows nothing of models. Whatever it draws is a function of a seed and a step,
//! so that a run can be repeated and resumed.

mod augment;
mod batch;
mod corpus;
mod manifest;
mod random;

pub use augment::{Augmentation, SpecAugment};
pub use batch::{Batch, BatchConfig, BatchPlan, Batches, Labels};
pub use corpus::{Corpus, CorpusReport};
pub use manifest::{Clip, Condition, DevList, Transcript, read_manifest};
pub use random::Random;

use crate::audio::AudioError;
use crate::features::FeatureError;
use crate::text::TextError;
use std::path::PathBuf;

/// Data that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A list that cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A list larger than any list should be.
    #[error("`{}` has more than {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound.
        limit: u64,
    },
    /// A list without a column that is needed.
    #[error("`{}` has no column `{column}` in its first line", path.display())]
    Column {
        /// The file.
        path: PathBuf,
        /// The missing column.
        column: &'static str,
    },
    /// A line with a value that makes no sense.
    #[error("`{}`, line {line}: {field} `{value}` is not {expected}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The column.
        field: &'static str,
        /// What was found, cut to 64 characters.
        value: String,
        /// What was expected.
        expected: &'static str,
    },
    /// A line with an unknown language.
    #[error("`{}`, line {line}", path.display())]
    Language {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// Why.
        source: TextError,
    },
    /// The same clip twice.
    #[error("`{}`, line {line}: `{clip}` is listed twice", path.display())]
    Duplicate {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The clip.
        clip: String,
    },
    /// More unreadable clips than may be skipped.
    #[error("{failed} of {total} clips cannot be read, the first: `{}`", first.display())]
    TooManyUnreadable {
        /// How many failed.
        failed: usize,
        /// Of how many.
        total: usize,
        /// The first of them.
        first: PathBuf,
        /// Why that one failed.
        source: AudioError,
    },
    /// Nothing to train on.
    #[error("no clip is left to train on")]
    Empty,
    /// A text that the vocabulary cannot spell.
    #[error("cannot encode the transcript of `{}`", clip.display())]
    Text {
        /// The clip.
        clip: PathBuf,
        /// Why.
        source: TextError,
    },
    /// Features that cannot be computed.
    #[error("cannot compute features")]
    Features(#[from] FeatureError),
    /// Audio that cannot be resampled.
    #[error("cannot change the speed of a clip")]
    Speed(#[source] AudioError),
    /// A batch setting out of range.
    #[error("batch setting `{field}` must be {expected}")]
    Setting {
        /// Name of the setting.
        field: &'static str,
        /// What is accepted.
        expected: &'static str,
    },
}
