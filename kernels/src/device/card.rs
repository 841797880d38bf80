//! A CUDA card: candle's memory, stream and cuBLAS, with kernels compiled by NVRTC at first use.

use super::{Argument, Machine, Place, SOURCES, product::Product};
use candle_core::backend::BackendStorage;
use candle_core::cuda::cudarc::cublas::{result::gemm_strided_batched_ex, sys as blas};
use candle_core::cuda::cudarc::driver::{CudaSlice, DevicePtr, LaunchConfig, PushKernelArg};
use candle_core::cuda::cudarc::nvrtc::{CompileOptions, compile_ptx_with_opts};
use candle_core::cuda::{CudaDType, WrapErr};
use candle_core::op::BackpropOp;
use candle_core::{
    CudaDevice, CudaStorage, Device, Layout, Result, Shape, Storage, Tensor, WithDType, bail,
};
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// The name candle keeps our kernels by.
const MODULE: &str = "asr-kernels";

/// A card in use.
#[derive(Debug)]
pub(crate) struct Card {
    device: CudaDevice,
}

impl Card {
    pub(crate) fn of(storage: &CudaStorage) -> Self {
        Self { device: storage.device().clone() }
    }

    /// The card a tensor lies on, if it does.
    pub(crate) fn holding(tensor: &Tensor) -> Option<Self> {
        match tensor.device() {
            Device::Cuda(device) => Some(Self { device: device.clone() }),
            _ => None,
        }
    }

    fn address<T>(&self, slice: &CudaSlice<T>) -> u64 {
        // One stream does all work on a card (`accelerator::cuda`), in the order it is given, so
        // there is nothing to record and nothing to wait for.
        slice.device_ptr(&self.device.cuda_stream()).0
    }

    /// The values of a contiguous tensor.
    pub(crate) fn input<'a>(&self, storage: &'a CudaStorage, layout: &Layout) -> Result<Place<'a>> {
        self.input_of::<f32>(storage, layout)
    }

    fn input_of<'a, T: CudaDType + WithDType>(
        &self,
        storage: &'a CudaStorage,
        layout: &Layout,
    ) -> Result<Place<'a>> {
        let slice = storage.as_cuda_slice::<T>()?;
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("kernels take contiguous tensors");
        };
        let address = self.address(slice);
        Place { address, len: slice.len(), bytes: 4, life: PhantomData }
            .from(start)?
            .holds(end - start)
            .map(|place| Place { len: end - start, ..place })
    }

    /// The values of a contiguous f32 tensor on this card.
    pub(crate) fn read<'a>(&self, tensor: &'a Tensor) -> Result<Place<'a>> {
        self.read_of::<f32>(tensor)
    }

    /// As [`Card::read`], of four-byte values of any type.
    pub(crate) fn read_of<'a, T: CudaDType + WithDType>(
        &self,
        tensor: &'a Tensor,
    ) -> Result<Place<'a>> {
        let (storage, layout) = tensor.storage_and_layout();
        let Storage::Cuda(storage) = &*storage else {
            bail!("one tensor lies on a CUDA device, another does not");
        };
        // The tensor keeps its memory as long as it lives, and it outlives the place.
        let place = self.input_of::<T>(storage, layout)?;
        Ok(Place { life: PhantomData, ..place })
    }

    pub(crate) fn storage(&self, buffer: CudaSlice<f32>) -> CudaStorage {
        CudaStorage::wrap_cuda_slice(buffer, self.device.clone())
    }

    /// A tensor without history.
    pub(crate) fn tensor(&self, buffer: CudaSlice<f32>, shape: impl Into<Shape>) -> Tensor {
        let storage = Storage::Cuda(self.storage(buffer));
        Tensor::from_storage(storage, shape, BackpropOp::none(), false)
    }

    /// A tensor of 32-bit numbers that nothing has written yet, for kernels to fill.
    pub(crate) fn numbers(&self, n: usize) -> Result<Tensor> {
        let slice = self.device.alloc_zeros::<u32>(n.max(1))?;
        let storage = Storage::Cuda(CudaStorage::wrap_cuda_slice(slice, self.device.clone()));
        Ok(Tensor::from_storage(storage, n, BackpropOp::none(), false))
    }
}

impl Machine for Card {
    type Buffer = CudaSlice<f32>;

    fn buffer(&self, n: usize) -> Result<CudaSlice<f32>> {
        // SAFETY: what is not written is never read: the same calls are tested on memory that
        // starts as NaN.
        unsafe { self.device.alloc::<f32>(n.max(1)) }
    }

    fn words(&self, words: &[u32]) -> Result<CudaSlice<f32>> {
        self.floats(&words.iter().map(|&word| f32::from_bits(word)).collect::<Vec<f32>>())
    }

    fn floats(&self, values: &[f32]) -> Result<CudaSlice<f32>> {
        if values.is_empty() {
            return self.buffer(0);
        }
        self.device.clone_htod(values)
    }

    fn place<'a>(&self, buffer: &'a CudaSlice<f32>) -> Place<'a> {
        let address = self.address(buffer);
        Place { address, len: buffer.len(), bytes: 4, life: PhantomData }
    }

    unsafe fn launch(
        &self,
        kernel: &'static str,
        grid: [usize; 3],
        threads: usize,
        arguments: &[Argument<'_>],
    ) -> Result<()> {
        if grid.contains(&0) {
            return Ok(());
        }
        let [x, y, z] = grid.map(super::narrow);
        let config = LaunchConfig {
            grid_dim: (x?, y?, z?),
            block_dim: (super::narrow(threads)?, 1, 1),
            shared_mem_bytes: 0,
        };
        let source = compiled(&self.device)?;
        let function = self.device.get_or_load_custom_func(kernel, MODULE, &source)?;
        let mut builder = function.builder();
        let null = 0_u64;
        for argument in arguments {
            match argument {
                Argument::Place(place) => builder.arg(&place.address),
                Argument::Null => builder.arg(&null),
                Argument::U32(value) => builder.arg(value),
                Argument::U64(value) => builder.arg(value),
                Argument::F32(value) => builder.arg(value),
                Argument::F64(value) => builder.arg(value),
            };
        }
        // SAFETY: passed on.
        unsafe { builder.launch(config) }.w()?;
        Ok(())
    }

    unsafe fn multiply(&self, product: &Product<'_>) -> Result<()> {
        // cuBLAS knows column-major matrices only: a row-major one is its own transpose there,
        // so cᵀ = bᵀ aᵀ is asked for.
        let [m, n, k] = product.shape;
        let size = |n: usize| match c_int::try_from(n) {
            Ok(n) => Ok(n),
            Err(_) => bail!("{n} is more than cuBLAS counts"),
        };
        let operation = |transposed: bool| match transposed {
            true => blas::cublasOperation_t::CUBLAS_OP_T,
            false => blas::cublasOperation_t::CUBLAS_OP_N,
        };
        let kind = match product.a.place.bytes {
            2 => blas::cudaDataType::CUDA_R_16BF,
            _ => blas::cudaDataType::CUDA_R_32F,
        };
        let (one, beta) = (1.0_f32, if product.accumulate { 1.0_f32 } else { 0.0 });
        let handle = self.device.cublas_handle();
        // SAFETY: passed on; the factors are f32 on the host, as the compute type says.
        unsafe {
            gemm_strided_batched_ex(
                *handle.handle(),
                operation(product.b.transposed),
                operation(product.a.transposed),
                size(n)?,
                size(m)?,
                size(k)?,
                (&raw const one).cast::<c_void>(),
                product.b.place.address as *const c_void,
                kind,
                size(product.b.stride)?,
                product.b.batch_stride as i64,
                product.a.place.address as *const c_void,
                kind,
                size(product.a.stride)?,
                product.a.batch_stride as i64,
                (&raw const beta).cast::<c_void>(),
                product.c.address as *mut c_void,
                blas::cudaDataType::CUDA_R_32F,
                size(product.c_stride)?,
                product.c_batch_stride as i64,
                size(product.batch)?,
                blas::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                blas::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        }
        .w()
    }
}

/// The kernels as PTX for the card's architecture: compiled once per process, and kept in the
/// user's cache by architecture and by a hash of the sources.
fn compiled(device: &CudaDevice) -> Result<Arc<str>> {
    static COMPILED: Mutex<Option<HashMap<(i32, i32), Arc<str>>>> = Mutex::new(None);
    let capability = device.cuda_stream().context().compute_capability().w()?;
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    let compiled = compiled.get_or_insert_default();
    if let Some(ptx) = compiled.get(&capability) {
        return Ok(Arc::clone(ptx));
    }
    let source = SOURCES.concat();
    let architecture = format!("compute_{}{}", capability.0, capability.1);
    let hash = fnv1a(source.as_bytes());
    let end = format!("\n// {hash:016x} {architecture}\n");
    let file = cache_folder().map(|folder| folder.join(format!("{hash:016x}-{architecture}.ptx")));
    let kept = file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
    // A file that was cut short lacks its end.
    let ptx = match kept.filter(|ptx| ptx.ends_with(&end)) {
        Some(ptx) => ptx,
        None => {
            let options = CompileOptions {
                options: vec![format!("--gpu-architecture={architecture}")],
                ..CompileOptions::default()
            };
            let ptx = compile_ptx_with_opts(&source, options).map_err(candle_core::Error::wrap)?;
            let ptx = ptx.to_src() + &end;
            if let Some(file) = file {
                keep(&file, &ptx);
            }
            ptx
        }
    };
    let ptx: Arc<str> = ptx.into();
    compiled.insert(capability, Arc::clone(&ptx));
    Ok(ptx)
}

fn cache_folder() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
    Some(folder.join("asr").join("kernels"))
}

/// Writes a file whole under another name first. Without a cache, kernels are compiled by every
/// process: that costs seconds and is no error.
fn keep(file: &std::path::Path, text: &str) {
    let Some(folder) = file.parent() else { return };
    let part = file.with_extension(format!("{}.part", std::process::id()));
    let written = std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&part, text))
        .and_then(|()| std::fs::rename(&part, file));
    if written.is_err() {
        std::fs::remove_file(&part).ok();
    }
}

/// The hash of Fowler, Noll and Vo in 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
