//! Parameters to safetensors.

use super::error::CheckpointError;
use crate::files;
use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, View};
use std::borrow::Cow;
use std::path::Path;

/// What follows the name of a matrix of integers in that of its scales.
pub(super) const SCALE: &str = ".scale";

/// Name of the scales of a matrix of integers.
pub(super) fn scale_name(name: &str) -> String {
    format!("{name}{SCALE}")
}

/// How numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredAs {
    /// 32-bit floats: exact.
    F32,
    /// Exact, in the fewest bits: 16-bit floats where those hold every value of a tensor (as of
    /// checkpoints in half precision), 32-bit ones elsewhere.
    Exact,
    /// 16-bit floats: half the size, relative rounding 2^-11.
    F16,
    /// Matrices as 8-bit integers, with a 32-bit scale for each of their rows as
    /// `NAME.scale`; everything else as 16-bit floats. What products in 8 bits compute with
    /// is then kept exactly.
    Int8,
}

/// Serialises tensors, keys in order, as one safetensors file.
///
/// # Errors
/// [`CheckpointError`] if a tensor cannot be read.
pub fn to_bytes<'a>(
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    stored_as: StoredAs,
) -> Result<Vec<u8>, CheckpointError> {
    let views = views(tensors, stored_as)
        .map_err(|source| CheckpointError::Tensor { name: "model".to_owned(), source })?;
    safetensors::serialize(views, None)
        .map_err(|source| CheckpointError::Write { name: "model".to_owned(), source })
}

/// As [`to_bytes`], into a file: to a temporary name, synced, renamed. Tensors are converted one
/// after the other, so that no second copy of the model is in memory.
///
/// # Errors
/// [`CheckpointError`] naming the file.
pub fn write<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    stored_as: StoredAs,
) -> Result<(), CheckpointError> {
    let name = || path.display().to_string();
    let views = views(tensors, stored_as)
        .map_err(|source| CheckpointError::Tensor { name: name(), source })?;
    safetensors::serialize_to_file(views, None, &files::partial(path))
        .map_err(|source| CheckpointError::Write { name: name(), source })?;
    files::put_in_place(path)
        .map_err(|source| CheckpointError::Io { path: path.to_owned(), source })
}

/// What is written of tensors.
fn views<'a>(
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    stored_as: StoredAs,
) -> candle_core::Result<Vec<(String, Stored)>> {
    let mut views = Vec::new();
    for (key, tensor) in tensors {
        let mut add = |key: String, form| -> candle_core::Result<()> {
            views.push((key, Stored::new(tensor, form)?));
            Ok(())
        };
        match stored_as {
            StoredAs::F32 => add(key.to_owned(), Form::F32)?,
            StoredAs::Exact => add(key.to_owned(), exact(tensor)?)?,
            StoredAs::Int8 if tensor.rank() == 2 => {
                add(key.to_owned(), Form::Int8)?;
                add(scale_name(key), Form::Scales)?;
            }
            StoredAs::F16 | StoredAs::Int8 => add(key.to_owned(), Form::F16)?,
        }
    }
    Ok(views)
}

/// The shortest form that keeps every bit of a tensor.
fn exact(tensor: &Tensor) -> candle_core::Result<Form> {
    let values = tensor.flatten_all()?.to_vec1::<f32>()?;
    let is_half = |v: &f32| half::f16::from_f32(*v).to_f32().to_bits() == v.to_bits();
    let is_brain = |v: &f32| v.to_bits().trailing_zeros() >= 16;
    Ok(if values.iter().all(is_half) {
        Form::F16
    } else if values.iter().all(is_brain) {
        Form::Bf16
    } else {
        Form::F32
    })
}

/// What is written of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    F32,
    F16,
    Bf16,
    /// The rows of a matrix over their scales, rounded.
    Int8,
    /// The scales: what makes the largest value of a row 127.
    Scales,
}

/// A tensor of f32, copied to the CPU if it lies elsewhere, converted when its turn comes.
struct Stored {
    tensor: Tensor,
    form: Form,
    shape: Vec<usize>,
}

impl Stored {
    fn new(tensor: &Tensor, form: Form) -> candle_core::Result<Self> {
        if tensor.dtype() != DType::F32 {
            candle_core::bail!("expected f32, found {:?}", tensor.dtype());
        }
        let tensor = tensor.to_device(&Device::Cpu)?;
        let mut shape = tensor.dims().to_vec();
        if form == Form::Scales {
            shape.truncate(1);
        }
        Ok(Self { tensor, form, shape })
    }
}

fn scale_of(row: &[f32]) -> f32 {
    row.iter().fold(0.0_f32, |max, v| max.max(v.abs())) / 127.0
}

impl View for Stored {
    fn dtype(&self) -> Dtype {
        match self.form {
            Form::F32 | Form::Scales => Dtype::F32,
            Form::F16 => Dtype::F16,
            Form::Bf16 => Dtype::BF16,
            Form::Int8 => Dtype::I8,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let values = self.tensor.flatten_all().and_then(|flat| flat.to_vec1::<f32>());
        let values = values.expect("a tensor of f32 on the CPU can be read");
        let columns = self.tensor.dims().last().copied().unwrap_or(1).max(1);
        Cow::Owned(match self.form {
            Form::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Form::F16 => {
                values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect()
            }
            Form::Bf16 => {
                values.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect()
            }
            Form::Scales => {
                values.chunks(columns).flat_map(|row| scale_of(row).to_le_bytes()).collect()
            }
            Form::Int8 => values
                .chunks(columns)
                .flat_map(|row| {
                    let scale = scale_of(row);
                    let inverse = if scale > 0.0 { scale.recip() } else { 0.0 };
                    row.iter().map(move |v| {
                        let q = (v * inverse).round_ties_even().clamp(-127.0, 127.0) as i8;
                        q.cast_unsigned()
                    })
                })
                .collect(),
        })
    }

    fn data_len(&self) -> usize {
        let size = match self.form {
            Form::F32 | Form::Scales => 4,
            Form::F16 | Form::Bf16 => 2,
            Form::Int8 => 1,
        };
        self.shape.iter().product::<usize>() * size
    }
}

#[cfg(test)]
mod tests {
    use super::super::CheckpointFile;
    use super::*;

    #[test]
    fn integers_come_back_within_half_a_step_and_stay_as_they_are() {
        let values = [0.5_f32, -2.54, 0.013, 0.0, 0.0, 0.0, 1e-3, 5e-4, -1e-3];
        let matrix = Tensor::from_slice(&values, (3, 3), &Device::Cpu).expect("nine values");
        let vector = Tensor::from_slice(&[0.25_f32, 3.0], 2, &Device::Cpu).expect("two values");
        let write = |matrix: &Tensor| {
            let bytes = to_bytes([("b", &vector), ("w", matrix)], StoredAs::Int8).expect("written");
            let file = CheckpointFile::from_bytes(bytes, "test").expect("sound");
            let parameters = file.parameters().expect("floats and scaled integers");
            let names: Vec<String> = parameters.all().into_iter().map(|(name, _)| name).collect();
            assert_eq!(names, ["b", "w"]);
            assert_eq!(file.values("b").expect("floats"), [0.25, 3.0]);
            file.tensor("w").expect("scaled integers")
        };
        let once = write(&matrix);
        let read: Vec<f32> = once.flatten_all().and_then(|t| t.to_vec1()).expect("f32");
        for (row, (read, values)) in read.chunks(3).zip(values.chunks(3)).enumerate() {
            let half_step = scale_of(values) / 2.0;
            for (r, v) in read.iter().zip(values) {
                assert!((r - v).abs() <= half_step * 1.0001, "row {row}: {r} for {v}");
            }
        }
        let twice: Vec<f32> = write(&once).flatten_all().and_then(|t| t.to_vec1()).expect("f32");
        for (a, b) in read.iter().zip(&twice) {
            assert!((a - b).abs() <= a.abs() * 1e-6, "{b} after {a}");
        }
    }

    #[test]
    fn nothing_is_lost_and_no_bit_wasted() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model.safetensors");
        let tensor = |values: &[f32]| Tensor::from_slice(values, 3, &Device::Cpu).expect("three");
        let half = tensor(&[-0.0, 65504.0, 5.960_464_5e-8]);
        let brain =
            tensor(&[1e30_f32, -3.0, 0.5].map(|v| f32::from_bits(v.to_bits() & 0xffff_0000)));
        let full = tensor(&[0.1, 1e-40, 3.0]);
        write(&path, [("h", &half), ("b", &brain), ("f", &full)], StoredAs::Exact)
            .expect("written");
        let file = super::super::open(&path).expect("sound");
        for (name, tensor, form) in [("h", half, "f16"), ("b", brain, "bf16"), ("f", full, "f32")] {
            let found = file.find(name).expect("it was written");
            assert_eq!(found.element_type().to_string(), form, "{name}");
            let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
            let want = bits(tensor.to_vec1().expect("f32"));
            assert_eq!(bits(file.values(name).expect("floats")), want, "{name}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn integers_without_scales_are_no_parameters() {
        let bytes = safetensors::serialize(
            [(
                "w",
                safetensors::tensor::TensorView::new(Dtype::I8, vec![1, 2], &[1, 2])
                    .expect("two bytes"),
            )],
            None,
        )
        .expect("written");
        let file = CheckpointFile::from_bytes(bytes, "test").expect("sound");
        assert!(matches!(file.parameters(), Err(CheckpointError::Type { .. })));
    }
}
