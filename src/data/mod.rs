//! From manifests to batches: what is read, what is drawn, what is heard.
//!
//! The layer knows nothing of models. Whatever it draws is a function of a seed and a step,
//! so that a run can be repeated and resumed.

mod augment;
mod batch;
mod collect;
mod corpus;
mod manifest;
mod random;
mod sources;
mod states;
mod upsampling;

pub use augment::{Augmentation, Codec, Disturbance, SpecAugment};
pub use batch::{Batch, BatchConfig, BatchPlan, Batches, ClipInput, Labels};
pub use collect::{Collect, CollectReport, write_manifest};
pub use corpus::{AudioStore, Corpus, CorpusReport};
pub use manifest::{Clip, Condition, DevList, Transcript, read_manifest};
pub use random::Random;
pub use sources::{SourceClip, SourceDefaults, read_source};
pub use states::{ComputeError, StatesKey, StoredStates};
pub use upsampling::{LanguageShare, Share, Upsampling};

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
    /// A clip that cannot be read any more, or has another length than before.
    #[error("`{}` has changed since the run began", clip.display())]
    Changed {
        /// The clip.
        clip: PathBuf,
        /// Why, if it cannot be read.
        source: Option<AudioError>,
    },
    /// The file of decoded audio cannot be read or written.
    #[error("cannot use the decoded audio in `{}`", path.display())]
    AudioCache {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
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
    /// Hidden states on disk that cannot be read or written.
    #[error("cannot use the hidden states in `{}`", path.display())]
    States {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Hidden states of another encoder or other clips.
    #[error("`{}` holds hidden states of another encoder or other clips", path.display())]
    OtherStates {
        /// The file.
        path: PathBuf,
    },
    /// An encoder that cannot be run.
    #[error("cannot compute hidden states")]
    Compute(#[source] ComputeError),
    /// A codec that fails.
    #[error("cannot send a clip through a codec")]
    Codec(#[source] AudioError),
    /// A batch setting out of range.
    #[error("batch setting `{field}` must be {expected}")]
    Setting {
        /// Name of the setting.
        field: &'static str,
        /// What is accepted.
        expected: &'static str,
    },
    /// A list that cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A folder that cannot be listed.
    #[error("cannot list the audio files of `{}`", path.display())]
    List {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: AudioError,
    },
    /// A clip that cannot be read or written.
    #[error("cannot cut or join `{}`", path.display())]
    Clip {
        /// The file.
        path: PathBuf,
        /// Why.
        source: AudioError,
    },
    /// A source that leaves a language open.
    #[error("`{}` does not tell the language of `{clip}`", source_path.display())]
    NoLanguage {
        /// The source.
        source_path: PathBuf,
        /// The first clip without a language.
        clip: String,
    },
    /// A recording that two sources, or one of them twice, list.
    #[error("`{}` is listed twice", path.display())]
    ListedTwice {
        /// The recording.
        path: PathBuf,
    },
    /// Clips to be cut or joined, and no folder for them.
    #[error("there is no folder for clips that are parts of recordings or joined")]
    NoFolder,
    /// A path that no line of a table can hold.
    #[error("a table cannot hold the path `{}`", path.display())]
    PathName {
        /// The path.
        path: PathBuf,
    },
}
