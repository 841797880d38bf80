//! Parameters to safetensors.

use super::error::CheckpointError;
use candle_core::{DType, Tensor};
use safetensors::tensor::{Dtype, View};
use std::borrow::Cow;

/// How numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredAs {
    /// 32-bit floats: exact.
    F32,
    /// 16-bit floats: half the size, relative rounding 2^-11.
    F16,
}

/// Serialises tensors, keys in order, as one safetensors file.
///
/// # Errors
/// [`CheckpointError`] if a tensor cannot be read.
pub fn to_bytes<'a>(
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    stored_as: StoredAs,
) -> Result<Vec<u8>, CheckpointError> {
    let views = tensors
        .into_iter()
        .map(|(key, tensor)| Ok((key.to_owned(), Stored::new(tensor, stored_as)?)))
        .collect::<candle_core::Result<Vec<_>>>()
        .map_err(|source| CheckpointError::Tensor { name: "model".to_owned(), source })?;
    safetensors::serialize(views, None).map_err(|source| CheckpointError::Write { source })
}

/// A tensor of f32 on the CPU, converted when its turn comes.
struct Stored<'a> {
    tensor: &'a Tensor,
    stored_as: StoredAs,
}

impl<'a> Stored<'a> {
    fn new(tensor: &'a Tensor, stored_as: StoredAs) -> candle_core::Result<Self> {
        if tensor.dtype() != DType::F32 || !tensor.device().is_cpu() {
            candle_core::bail!("expected f32 on the CPU, found {:?}", tensor.dtype());
        }
        Ok(Self { tensor, stored_as })
    }
}

impl View for Stored<'_> {
    fn dtype(&self) -> Dtype {
        match self.stored_as {
            StoredAs::F32 => Dtype::F32,
            StoredAs::F16 => Dtype::F16,
        }
    }

    fn shape(&self) -> &[usize] {
        self.tensor.dims()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let values = self.tensor.flatten_all().and_then(|flat| flat.to_vec1::<f32>());
        let values = values.expect("a tensor of f32 on the CPU can be read");
        Cow::Owned(match self.stored_as {
            StoredAs::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            StoredAs::F16 => {
                values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect()
            }
        })
    }

    fn data_len(&self) -> usize {
        let size = match self.stored_as {
            StoredAs::F32 => 4,
            StoredAs::F16 => 2,
        };
        self.tensor.elem_count() * size
    }
}
