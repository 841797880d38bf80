//! Where models live.

use candle_core::Device;
use std::sync::{PoisonError, RwLock};

static DEVICE: RwLock<Option<Device>> = RwLock::new(None);

/// Puts the parameters of models that are made or read from now on onto a device, in the whole
/// process, as a pool of threads serves the whole process. It is the CPU until something else is
/// said.
///
/// A model takes its input from wherever it lies, and its output lies on the model's device.
pub fn compute_on(device: Device) {
    *DEVICE.write().unwrap_or_else(PoisonError::into_inner) = Some(device);
}

/// Where parameters are put now.
#[must_use]
pub fn device() -> Device {
    DEVICE.read().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or(Device::Cpu)
}
