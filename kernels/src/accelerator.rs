//! Finding the device to compute on.

use candle_core::Device;

/// Why there is no CUDA device.
#[derive(Debug)]
#[non_exhaustive]
pub enum Unavailable {
    /// This build has no code for such devices.
    NotBuilt,
    /// The driver finds no such device, or there is no driver.
    NotFound {
        /// The number asked for.
        ordinal: usize,
        /// What CUDA says.
        source: candle_core::Error,
    },
}

impl std::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotBuilt => f.write_str("built without `cuda`; rebuild with `--features cuda`"),
            Self::NotFound { ordinal, .. } => write!(f, "there is no CUDA device {ordinal}"),
        }
    }
}

impl std::error::Error for Unavailable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotBuilt => None,
            Self::NotFound { source, .. } => Some(source),
        }
    }
}

/// The CUDA device of a number, from 0, with one stream that does all its work: the same one
/// whenever it is asked for.
///
/// # Errors
/// [`Unavailable`]
#[cfg(feature = "cuda")]
pub fn cuda(ordinal: usize) -> Result<Device, Unavailable> {
    use std::collections::HashMap;
    use std::sync::{Mutex, PoisonError};

    static OPEN: Mutex<Option<HashMap<usize, Device>>> = Mutex::new(None);
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let open = open.get_or_insert_default();
    if let Some(device) = open.get(&ordinal) {
        return Ok(device.clone());
    }
    let missing = |source| Unavailable::NotFound { ordinal, source };
    // Not the stream of the calling thread, which candle takes otherwise: tensors go from thread
    // to thread here, and what one thread asks for must wait for what another did.
    let device = Device::new_cuda_with_stream(ordinal).map_err(missing)?;
    if let Device::Cuda(cuda) = &device {
        // SAFETY: every tensor of this device is made, used and freed on its one stream.
        unsafe { cuda.disable_event_tracking() };
    }
    open.insert(ordinal, device.clone());
    Ok(device)
}

/// The CUDA device of a number, from 0.
///
/// # Errors
/// [`Unavailable::NotBuilt`]
#[cfg(not(feature = "cuda"))]
pub fn cuda(_ordinal: usize) -> Result<Device, Unavailable> {
    Err(Unavailable::NotBuilt)
}
