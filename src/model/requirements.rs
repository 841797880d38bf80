//! The parameters that a model needs, known before any of them is read.

use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use std::sync::{Arc, Mutex, PoisonError};

/// A parameter that a model is built on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// Its name, in our terms.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
}

/// Lists the parameters that `build` asks for, without memory for any of them.
///
/// # Errors
/// If `build` fails.
pub fn requirements<T>(build: impl FnOnce(&VarBuilder) -> Result<T>) -> Result<Vec<Requirement>> {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let recorder = Recorder { asked: Arc::clone(&asked) };
    build(&VarBuilder::from_backend(Box::new(recorder), DType::F32, Device::Cpu))?;
    let asked = asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(asked)
}

struct Recorder {
    asked: Arc<Mutex<Vec<Requirement>>>,
}

impl SimpleBackend for Recorder {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, dev: &Device) -> Result<Tensor> {
        let requirement = Requirement { name: name.to_owned(), shape: shape.dims().to_vec() };
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(requirement);
        // One number seen as many: no memory but its own.
        Tensor::zeros((), dtype, dev)?.broadcast_as(shape)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        candle_core::bail!("parameter `{name}` is asked for without a shape")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_listed_whatever_its_size() -> Result<()> {
        let asked = requirements(|vb| vb.pp("a").get((1 << 20, 1 << 20), "b"))?;
        assert_eq!(asked, [Requirement { name: "a.b".into(), shape: vec![1 << 20, 1 << 20] }]);
        Ok(())
    }
}
