//! Reading candle CPU tensors as slices, and making the vectors behind new ones.

use candle_core::{CpuStorage, Layout, Result, Storage, Tensor, bail};
use std::mem::MaybeUninit;

/// The contiguous f32 values behind a CPU storage.
pub(crate) fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let CpuStorage::F32(values) = storage else {
        bail!("kernels take f32 tensors");
    };
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&values[start..end]),
        None => bail!("kernels take contiguous tensors"),
    }
}

/// Runs `read` on the values of a CPU tensor, made contiguous first if need be.
pub(crate) fn with_slice<R>(tensor: &Tensor, read: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(cpu) => Ok(read(slice(cpu, layout)?)),
        _ => bail!("this kernel runs on the CPU"),
    }
}

/// A vector of `n` values that `write` fills, without zeroing it first.
///
/// # Safety
/// `write` must initialise every value.
pub(crate) unsafe fn written(n: usize, write: impl FnOnce(&mut [MaybeUninit<f32>])) -> Vec<f32> {
    let mut values = Vec::with_capacity(n);
    write(&mut values.spare_capacity_mut()[..n]);
    // SAFETY: initialised by the caller's promise.
    unsafe { values.set_len(n) };
    values
}
