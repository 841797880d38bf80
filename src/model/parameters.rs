//! Named parameters: read from a checkpoint or started from a seed.

use super::init::{self, Start};
use candle_core::{DType, Device, Result, Shape, Tensor, Var, bail};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// All parameters of a model by name, in one place for training and saving.
///
/// Cloning shares them.
#[derive(Debug, Clone, Default)]
pub struct Parameters {
    vars: Arc<Mutex<BTreeMap<String, Var>>>,
}

impl Parameters {
    /// Parameters with the given values, such as those of a checkpoint.
    ///
    /// # Errors
    /// If a tensor cannot be converted to f32.
    pub fn from_tensors(tensors: HashMap<String, Tensor>) -> Result<Self> {
        let vars = tensors
            .into_iter()
            .map(|(name, tensor)| Ok((name, Var::from_tensor(&tensor.to_dtype(DType::F32)?)?)))
            .collect::<Result<_>>()?;
        Ok(Self { vars: Arc::new(Mutex::new(vars)) })
    }

    /// Adds a parameter, or replaces the one of that name; `values` are not copied.
    ///
    /// # Errors
    /// If there are more or fewer values than `shape` has elements.
    pub fn insert(&self, name: &str, values: Vec<f32>, shape: &[usize]) -> Result<()> {
        let var = Var::from_vec(values, shape, &Device::Cpu)?;
        let mut vars = self.vars.lock().unwrap_or_else(PoisonError::into_inner);
        vars.insert(name.to_owned(), var);
        Ok(())
    }

    /// A builder that creates what a model asks for from `seed`, keeping what is there.
    #[must_use]
    pub fn seeded(&self, seed: u64) -> VarBuilder<'static> {
        self.builder(Some(seed))
    }

    /// A builder that hands out what is there, for inference: what is computed from it is not
    /// recorded for gradients, so that no intermediate result outlives its use. Asking for
    /// anything else is an error.
    #[must_use]
    pub fn existing(&self) -> VarBuilder<'static> {
        self.builder(None)
    }

    fn builder(&self, seed: Option<u64>) -> VarBuilder<'static> {
        let backend = Backend { parameters: self.clone(), seed };
        VarBuilder::from_backend(Box::new(backend), DType::F32, Device::Cpu)
    }

    /// Every parameter by name, in the order of names.
    #[must_use]
    pub fn all(&self) -> Vec<(String, Var)> {
        let vars = self.vars.lock().unwrap_or_else(PoisonError::into_inner);
        vars.iter().map(|(name, var)| (name.clone(), var.clone())).collect()
    }

    /// Number of values in all parameters.
    #[must_use]
    pub fn count(&self) -> usize {
        self.all().iter().map(|(_, var)| var.elem_count()).sum()
    }
}

struct Backend {
    parameters: Parameters,
    seed: Option<u64>,
}

impl Backend {
    fn handed_out(&self, var: &Var) -> Tensor {
        if self.seed.is_some() { var.as_tensor().clone() } else { var.as_detached_tensor() }
    }
}

impl SimpleBackend for Backend {
    fn get(&self, shape: Shape, name: &str, hint: Init, _: DType, _: &Device) -> Result<Tensor> {
        let mut vars = self.parameters.vars.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(var) = vars.get(name) {
            if var.shape() != &shape {
                bail!("parameter `{name}` has shape {:?}, expected {shape:?}", var.shape());
            }
            return Ok(self.handed_out(var));
        }
        let Some(seed) = self.seed else {
            bail!("parameter `{name}` is missing");
        };
        let start = match hint {
            Init::Const(value) => Start::Constant(value),
            Init::Randn { mean: 0.0, stdev } => Start::Normal { deviation: stdev },
            Init::Uniform { lo, up } => Start::Uniform { low: lo, high: up },
            other => bail!("parameter `{name}` cannot start from {other:?}"),
        };
        let values = init::values(start, name, seed, shape.elem_count());
        let var = Var::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu)?)?;
        let tensor = var.as_tensor().clone();
        vars.insert(name.to_owned(), var);
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        let vars = self.parameters.vars.lock().unwrap_or_else(PoisonError::into_inner);
        match vars.get(name) {
            Some(var) => Ok(self.handed_out(var)),
            None => bail!("parameter `{name}` is missing"),
        }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.parameters.vars.lock().unwrap_or_else(PoisonError::into_inner).contains_key(name)
    }
}
