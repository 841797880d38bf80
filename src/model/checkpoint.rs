//! Parameters on disk, as safetensors with the published names.

use super::parameters::Parameters;
use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, SafeTensors, View};
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// A checkpoint that cannot be read or written.
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
    /// Not a safetensors file, or a damaged one.
    #[error("`{name}` is not a sound safetensors file")]
    Format {
        /// The file or what stands for it.
        name: String,
        /// Why.
        source: safetensors::SafeTensorError,
    },
    /// A tensor of a type that models do not have.
    #[error("tensor `{tensor}` of `{name}` has type {found:?}, expected f32, f16 or bf16")]
    Type {
        /// The file or what stands for it.
        name: String,
        /// The tensor.
        tensor: String,
        /// Its type.
        found: Dtype,
    },
    /// candle refused a tensor.
    #[error("cannot use the tensors of `{name}`")]
    Tensor {
        /// The file or what stands for it.
        name: String,
        /// Why.
        source: candle_core::Error,
    },
}

/// How numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredAs {
    /// 32-bit floats: exact.
    F32,
    /// 16-bit floats: half the size, relative rounding 2^-11.
    F16,
}

/// Reads parameters from the bytes of a safetensors file; `name` stands for them in errors.
///
/// # Errors
/// [`CheckpointError`] if the bytes are not sound or hold anything but floats.
pub fn read_bytes(bytes: &[u8], name: &str) -> Result<Parameters, CheckpointError> {
    let format = |source| CheckpointError::Format { name: name.to_owned(), source };
    let tensor_error = |source| CheckpointError::Tensor { name: name.to_owned(), source };
    let file = SafeTensors::deserialize(bytes).map_err(format)?;
    let mut tensors = HashMap::new();
    for (key, view) in file.tensors() {
        let dtype = match view.dtype() {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            found => {
                return Err(CheckpointError::Type { name: name.to_owned(), tensor: key, found });
            }
        };
        let tensor = Tensor::from_raw_buffer(view.data(), dtype, view.shape(), &Device::Cpu)
            .map_err(tensor_error)?;
        tensors.insert(key, tensor);
    }
    Parameters::from_tensors(tensors).map_err(tensor_error)
}

/// Reads parameters from a safetensors file.
///
/// # Errors
/// [`CheckpointError`] if the file cannot be read, is not sound or holds anything but floats.
pub fn read(path: &Path) -> Result<Parameters, CheckpointError> {
    let bytes = std::fs::read(path)
        .map_err(|source| CheckpointError::Io { path: path.to_owned(), source })?;
    read_bytes(&bytes, &path.display().to_string())
}

/// Serialises tensors, keys in order, as one safetensors file.
///
/// # Errors
/// [`CheckpointError`] if a tensor cannot be read.
pub fn to_bytes<'a>(
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    stored_as: StoredAs,
) -> Result<Vec<u8>, CheckpointError> {
    let name = "checkpoint";
    let views = tensors
        .into_iter()
        .map(|(key, tensor)| Ok((key.to_owned(), Stored::new(tensor, stored_as)?)))
        .collect::<candle_core::Result<Vec<_>>>()
        .map_err(|source| CheckpointError::Tensor { name: name.to_owned(), source })?;
    safetensors::serialize(views, None)
        .map_err(|source| CheckpointError::Format { name: name.to_owned(), source })
}

struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Stored {
    fn new(tensor: &Tensor, stored_as: StoredAs) -> candle_core::Result<Self> {
        let values = tensor.flatten_all()?.to_vec1::<f32>()?;
        let (dtype, bytes) = match stored_as {
            StoredAs::F32 => (Dtype::F32, values.iter().flat_map(|v| v.to_le_bytes()).collect()),
            StoredAs::F16 => (
                Dtype::F16,
                values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect(),
            ),
        };
        Ok(Self { dtype, shape: tensor.dims().to_vec(), bytes })
    }
}

impl View for Stored {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}
