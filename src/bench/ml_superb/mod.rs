//! ML-SUPERB: the corpus as its releases lie on disk, and its published results.

mod check;
mod few_shot;
mod hugging_face;
mod labels;
mod lengths;
mod mini;

mod problems;
pub mod published;
pub mod run;
mod tree;

pub use check::{Check, Comparison, SplitCounts, check};
pub use few_shot::{few_shot_ids, is_trained_on};
pub use labels::{Label, label, language_of_id};
pub use mini::{Mini, make_mini};
pub use problems::{Problem, ProblemKind};
pub use tree::{Release, Utterance};

use crate::audio::AudioError;
use serde::Serialize;
use std::path::PathBuf;

/// A part of the corpus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Training, ten minutes per language and dataset.
    #[serde(rename = "train_10min")]
    Train10Min,
    /// Training, one hour per language and dataset.
    #[serde(rename = "train_1h")]
    Train1H,
    /// Development, the same for both budgets.
    Dev,
    /// Test, the same for both budgets.
    Test,
    /// Development, language varieties; on Hugging Face only.
    DevDialect,
}

/// The transcripts of each language, with their splits.
pub const TRANSCRIPTS: [(Split, &str); 4] = [
    (Split::Train10Min, "transcript_10min_train.txt"),
    (Split::Train1H, "transcript_1h_train.txt"),
    (Split::Dev, "transcript_10min_dev.txt"),
    (Split::Test, "transcript_10min_test.txt"),
];

impl Split {
    /// In the order of the corpus.
    pub const ALL: [Self; 5] =
        [Self::Train10Min, Self::Train1H, Self::Dev, Self::Test, Self::DevDialect];

    /// Name for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Train10Min => "train, 10 min",
            Self::Train1H => "train, 1 h",
            Self::Dev => "dev",
            Self::Test => "test",
            Self::DevDialect => "dev, varieties",
        }
    }

    pub(crate) fn is_training(self) -> bool {
        matches!(self, Self::Train10Min | Self::Train1H)
    }
}

/// A corpus that cannot be read or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MlSuperbError {
    /// A folder or file.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A folder in which nothing is as in the corpus.
    #[error(
        "`{}` does not have the layout of ML-SUPERB: no DATASET/LANGUAGE/transcript_10min_dev.txt in it or one folder below, and no Parquet files",
        root.display()
    )]
    Layout {
        /// The folder.
        root: PathBuf,
    },
    /// A Parquet file that is damaged, or compressed in a way we do not read.
    #[error("cannot read `{}` as Parquet", path.display())]
    Parquet {
        /// Which.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A folder or file of a new corpus.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Audio of a new corpus.
    #[error("cannot write a clip")]
    Clip(#[from] AudioError),
    /// A new corpus where there is something already.
    #[error("`{}` is there already, and not empty", folder.display())]
    Exists {
        /// The folder.
        folder: PathBuf,
    },
    /// A new corpus without a clip.
    #[error("no clip of the manifest has a language and a text")]
    Nothing,
}
