//! What can be wrong with a checkpoint.

use super::pickle::PickleError;
use super::safetensors_file::SafetensorsError;
use super::shards::ShardError;
use super::stored::ElementType;
use super::torch_legacy::LegacyError;
use super::zip::ZipError;
use std::fmt;
use std::path::PathBuf;

/// A checkpoint that cannot be read or written. `name` is the file or what stands for it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file system refused.
    #[error("cannot access checkpoint `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Bytes that cannot be read although they should be there.
    #[error("cannot read `{name}`")]
    Read {
        /// The file.
        name: String,
        /// Why.
        source: std::io::Error,
    },
    /// Something else under the name of a checkpoint.
    #[error("`{name}` is {found}, not a checkpoint")]
    NotACheckpoint {
        /// The file.
        name: String,
        /// What it is.
        found: Impostor,
    },
    /// A folder without weights.
    #[error(
        "`{name}` holds no model.safetensors, model.safetensors.index.json or pytorch_model.bin"
    )]
    NoWeights {
        /// The folder.
        name: String,
    },
    /// A damaged safetensors file.
    #[error("`{name}` is not a sound safetensors file")]
    Safetensors {
        /// The file.
        name: String,
        /// Why.
        source: SafetensorsError,
    },
    /// Shards that make no whole.
    #[error("the shards of `{name}` do not fit together")]
    Shards {
        /// The index file.
        name: String,
        /// Why.
        source: ShardError,
    },
    /// A damaged zip archive, or one that torch did not write.
    #[error("`{name}` is not a sound torch archive")]
    Zip {
        /// The file.
        name: String,
        /// Why.
        source: ZipError,
    },
    /// A damaged file of torch before 1.6.
    #[error("`{name}` is not a sound torch file")]
    Legacy {
        /// The file.
        name: String,
        /// Why.
        source: LegacyError,
    },
    /// A pickle that is damaged or hostile.
    #[error("cannot read the pickle in `{name}`")]
    Pickle {
        /// The file.
        name: String,
        /// Why.
        source: PickleError,
    },
    /// A checkpoint in which no state dict is found.
    #[error(
        "`{name}` holds no tensors: neither at its root nor under `model`, `model_weight` or `state_dict`"
    )]
    NoTensors {
        /// The file.
        name: String,
    },
    /// A name that appears twice.
    #[error("`{name}` holds tensor `{tensor}` twice")]
    Duplicate {
        /// The file.
        name: String,
        /// The tensor.
        tensor: String,
    },
    /// A tensor that is asked for and not there.
    #[error("`{name}` holds no tensor `{tensor}`")]
    MissingTensor {
        /// The file.
        name: String,
        /// The tensor.
        tensor: String,
    },
    /// A tensor of a type that weights do not have.
    #[error("tensor `{tensor}` of `{name}` has type {found}, weights are f64, f32, f16 or bf16")]
    Type {
        /// The file.
        name: String,
        /// The tensor.
        tensor: String,
        /// Its type.
        found: ElementType,
    },
    /// A weight that is no number.
    #[error("tensor `{tensor}` of `{name}` holds NaN or infinity")]
    NotFinite {
        /// The file.
        name: String,
        /// The tensor.
        tensor: String,
    },
    /// candle refused a tensor.
    #[error("cannot use the tensors of `{name}`")]
    Tensor {
        /// The file.
        name: String,
        /// Why.
        source: candle_core::Error,
    },
    /// Tensors that cannot be put into one file.
    #[error("cannot store the tensors of `{name}`")]
    Write {
        /// The file or what stands for it.
        name: String,
        /// Why.
        source: safetensors::SafeTensorError,
    },
}

/// What is found under the names of checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Impostor {
    /// No bytes.
    Empty,
    /// A web page, such as an error message of a download.
    WebPage,
    /// What Git keeps in place of a large file.
    LfsPointer,
    /// Data pickled without torch.
    BarePickle,
    /// None of the known layouts.
    Unknown,
}

impl fmt::Display for Impostor {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "empty",
            Self::WebPage => "a web page saved under this name (a failed download?)",
            Self::LfsPointer => "a Git LFS pointer (fetch the file itself with `git lfs pull`)",
            Self::BarePickle => "a bare pickle",
            Self::Unknown => "of no known layout (torch zip, torch before 1.6, safetensors)",
        })
    }
}
