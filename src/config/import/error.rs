//! Why a checkpoint made elsewhere cannot be used.

use crate::model::ConfigError;
use crate::model::checkpoint::CheckpointError;
use crate::text::TextError;
use std::fmt;
use std::path::PathBuf;

/// A checkpoint that cannot be used; `name` is the file or folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A file that cannot be read.
    #[error("cannot read `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A folder without a configuration.
    #[error("`{}` holds no config.json", path.display())]
    NoConfig {
        /// The folder.
        path: PathBuf,
    },
    /// A file that is not the expected JSON.
    #[error("`{}` is not as it should be", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A model of another kind.
    #[error(
        "`{name}` has model_type `{model_type}`; hubert, wav2vec2, wavlm, asr-ctc and asr-waveform are known"
    )]
    ModelType {
        /// The file.
        name: String,
        /// What it says.
        model_type: String,
    },
    /// A setting that is missing, out of range or not supported.
    #[error("`{name}`: setting `{field}` {problem}")]
    Setting {
        /// The file.
        name: String,
        /// The setting.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Settings that make no encoder.
    #[error("`{name}` describes no encoder that can be built")]
    Encoder {
        /// The file.
        name: String,
        /// Why.
        source: ConfigError,
    },
    /// A file without the weights of a speech encoder.
    #[error(
        "`{name}` holds no speech encoder: no tensor is called `feature_extractor.conv_layers.0…`"
    )]
    NoEncoder {
        /// The file.
        name: String,
    },
    /// A checkpoint that says nothing of what it is.
    #[error("`{name}` does not say what encoder it holds: it lacks {missing}")]
    NoSettings {
        /// The file.
        name: String,
        /// What is missing.
        missing: &'static str,
    },
    /// Tensors that the configuration asks for and that are not there.
    #[error("`{name}` lacks {}", Names(missing))]
    Missing {
        /// The file.
        name: String,
        /// Their names.
        missing: Vec<String>,
    },
    /// A tensor of another shape.
    #[error(
        "tensor `{tensor}` of `{name}` has shape {found:?}, the configuration asks for {expected:?}"
    )]
    Shape {
        /// The file.
        name: String,
        /// The tensor.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape wanted.
        expected: Vec<usize>,
    },
    /// A vocabulary that cannot be used.
    #[error("cannot use `{}`", path.display())]
    Vocabulary {
        /// The file.
        path: PathBuf,
        /// Why.
        source: TextError,
    },
    /// A vocabulary of another size than the output layer.
    #[error("`{name}` has {tokens} tokens, the output layer {outputs}")]
    VocabularySize {
        /// The vocabulary.
        name: String,
        /// Its tokens.
        tokens: usize,
        /// Outputs of the layer.
        outputs: usize,
    },
    /// A language without an adapter.
    #[error("`{name}` has no adapter for language `{language}`{}", Near(near))]
    Language {
        /// The folder.
        name: String,
        /// The language.
        language: String,
        /// Languages with a similar name that have one.
        near: Vec<String>,
    },
    /// Tensors that cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A model that cannot be built or run.
    #[error("cannot build the model of `{name}`")]
    Model {
        /// The file.
        name: String,
        /// Why.
        source: Box<candle_core::Error>,
    },
}

/// The first of many names.
struct Names<'a>(&'a [String]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        const SHOWN: usize = 5;
        for (i, name) in self.0.iter().take(SHOWN).enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}`{}`", name.escape_debug())?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more tensors"),
        }
    }
}

struct Near<'a>(&'a [String]);

impl fmt::Display for Near<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "; near it are {}", Names(self.0)) }
    }
}
