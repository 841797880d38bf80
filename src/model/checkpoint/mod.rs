//! Parameters on disk: safetensors, torch files of both layouts, and folders of them.
//!
//! [`open`] tells the container by its content, reads what describes the tensors and leaves
//! the numbers in the file until [`CheckpointFile::values`] asks for them. Every offset, size
//! and depth is checked before anything is allocated, and nothing in a file is ever run. This
//! folder is the only place of the layer that touches files.

mod error;
mod file;
mod pickle;
mod safetensors_file;
mod shards;
mod source;
mod stored;
mod torch_legacy;
mod torch_zip;
mod value;
mod write;
mod zip;

pub use error::{CheckpointError, Impostor};
pub use file::{CheckpointFile, Container, NamedTensor, open};
pub use pickle::PickleError;
pub use safetensors_file::SafetensorsError;
pub use shards::ShardError;
pub use stored::{ElementType, StoredTensor, ViewError};
pub use torch_legacy::LegacyError;
pub use value::Value;
pub use write::{StoredAs, to_bytes, write};
pub use zip::ZipError;

use super::parameters::Parameters;
use std::path::Path;

/// Reads all parameters of a checkpoint.
///
/// # Errors
/// [`CheckpointError`] if it cannot be read, is not sound or holds anything but finite floats.
pub fn read(path: &Path) -> Result<Parameters, CheckpointError> {
    open(path)?.parameters()
}

/// Reads all parameters from the bytes of a checkpoint; `name` stands for them in errors.
///
/// # Errors
/// As [`read`].
pub fn read_bytes(bytes: &'static [u8], name: &str) -> Result<Parameters, CheckpointError> {
    CheckpointFile::from_static(bytes, name)?.parameters()
}
