//! Named parameters: read from a checkpoint or started from a seed.

use super::adaptation::Adaptation;
use super::batch_norm::{BatchStatistics, is_statistic};
use super::device::device;
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
    frozen: Frozen,
}

/// Tells of names whether training leaves the parameter alone.
type Predicate = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// What training leaves alone.
#[derive(Clone, Default)]
struct Frozen(Arc<Mutex<Vec<Predicate>>>);

impl std::fmt::Debug for Frozen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Frozen").finish_non_exhaustive()
    }
}

impl Frozen {
    fn contains(&self, name: &str) -> bool {
        let predicates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        is_statistic(name) || predicates.iter().any(|frozen| frozen(name))
    }
}

impl Parameters {
    /// Parameters with the given values, such as those of a checkpoint.
    ///
    /// # Errors
    /// If a tensor cannot be converted to f32.
    pub fn from_tensors(tensors: HashMap<String, Tensor>) -> Result<Self> {
        let vars = tensors
            .into_iter()
            .map(|(name, tensor)| {
                let tensor = tensor.to_dtype(DType::F32)?.to_device(&device())?;
                Ok((name, Var::from_tensor(&tensor)?))
            })
            .collect::<Result<_>>()?;
        Ok(Self { vars: Arc::new(Mutex::new(vars)), frozen: Frozen::default() })
    }

    /// Adds a parameter, or replaces the one of that name; on the CPU `values` are not copied.
    ///
    /// # Errors
    /// If there are more or fewer values than `shape` has elements.
    pub fn insert(&self, name: &str, values: Vec<f32>, shape: &[usize]) -> Result<()> {
        let var = Var::from_vec(values, shape, &device())?;
        let mut vars = self.vars.lock().unwrap_or_else(PoisonError::into_inner);
        vars.insert(name.to_owned(), var);
        Ok(())
    }

    /// A builder that creates what a model asks for from `seed`, keeping what is there.
    #[must_use]
    pub fn seeded(&self, seed: u64) -> VarBuilder<'static> {
        self.builder(Some(seed), false)
    }

    /// A builder that hands out what is there, with gradients; asking for anything else is an
    /// error.
    #[must_use]
    pub fn existing(&self) -> VarBuilder<'static> {
        self.builder(None, false)
    }

    /// A builder that hands out what is there without gradients, so that a model built on it keeps
    /// no intermediate results; asking for anything else is an error. The numbers are shared, not
    /// copied.
    #[must_use]
    pub fn frozen(&self) -> VarBuilder<'static> {
        self.builder(None, true)
    }

    fn builder(&self, seed: Option<u64>, frozen: bool) -> VarBuilder<'static> {
        let backend = Backend { parameters: self.clone(), seed, frozen };
        VarBuilder::from_backend(Box::new(backend), DType::F32, device())
    }

    /// Every parameter by name, in the order of names.
    #[must_use]
    pub fn all(&self) -> Vec<(String, Var)> {
        let vars = self.vars.lock().unwrap_or_else(PoisonError::into_inner);
        vars.iter().map(|(name, var)| (name.clone(), var.clone())).collect()
    }

    /// Freezes the parameters of whose name `frozen` is true: models built from now on have them
    /// as constants, without gradient. Statistics of batch norms are always frozen.
    pub fn freeze(&self, frozen: impl Fn(&str) -> bool + Send + Sync + 'static) {
        let mut predicates = self.frozen.0.lock().unwrap_or_else(PoisonError::into_inner);
        predicates.push(Arc::new(frozen));
    }

    /// The same parameters of which those are frozen too of whose name `frozen` is true.
    #[must_use]
    pub fn freezing(&self, frozen: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        let mut predicates = self.frozen.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        predicates.push(Arc::new(frozen));
        let frozen = Frozen(Arc::new(Mutex::new(predicates)));
        Self { vars: Arc::clone(&self.vars), frozen }
    }

    /// Drops the parameters of whose name `wanted` is false.
    pub fn retain(&self, wanted: impl Fn(&str) -> bool) {
        let mut vars = self.vars.lock().unwrap_or_else(PoisonError::into_inner);
        vars.retain(|name, _| wanted(name));
    }

    /// Statistics of batch norms, in the order of names: not trained, but part of a run.
    #[must_use]
    pub fn statistics(&self) -> Vec<(String, Var)> {
        self.all().into_iter().filter(|(name, _)| is_statistic(name)).collect()
    }

    /// Moves running statistics of batch norms towards those of batches, one after the other.
    ///
    /// # Errors
    /// If there is no such norm, or it has another width.
    pub fn follow(&self, batches: &[BatchStatistics]) -> Result<()> {
        let vars = self.vars.lock().unwrap_or_else(PoisonError::into_inner);
        for batch in batches {
            for (ending, values) in
                [("running_mean", &batch.mean), ("running_var", &batch.variance)]
            {
                let name = format!("{}.{ending}", batch.name);
                let Some(var) = vars.get(&name) else { bail!("parameter `{name}` is missing") };
                var.set(&BatchStatistics::moved(&var.as_tensor().detach(), values)?)?;
            }
        }
        Ok(())
    }

    /// Adds the low-rank updates of `adaptation` to the maps they update, and drops them: the
    /// parameters are then those of an encoder without it. Other adaptations stay.
    ///
    /// # Errors
    /// If an update fits no map.
    pub fn merge_low_rank(&self, adaptation: Adaptation) -> Result<()> {
        let Some(scale) = adaptation.scale() else { return Ok(()) };
        let mut vars = self.vars.lock().unwrap_or_else(PoisonError::into_inner);
        let updated: Vec<String> = vars
            .keys()
            .filter_map(|name| name.strip_suffix(".lora_B.weight"))
            .map(str::to_owned)
            .collect();
        for name in updated {
            let weight = format!("{name}.weight");
            let names = [format!("{name}.lora_A.weight"), format!("{name}.lora_B.weight")];
            let (Some(a), Some(b)) = (vars.remove(&names[0]), vars.remove(&names[1])) else {
                bail!("parameter `{}` is missing", names[0]);
            };
            let Some(whole) = vars.get(&weight) else { bail!("parameter `{weight}` is missing") };
            let update = (b.as_tensor().detach().matmul(&a.as_tensor().detach())? * scale)?;
            let merged = Var::from_tensor(&(whole.as_tensor().detach() + update)?)?;
            vars.insert(weight, merged);
        }
        Ok(())
    }

    /// A copy of the list: what is added to, dropped from or merged in one is not in the other.
    /// The numbers are shared.
    #[must_use]
    pub fn fork(&self) -> Self {
        let vars = self.vars.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Self { vars: Arc::new(Mutex::new(vars)), frozen: Frozen::default() }
    }

    /// Every parameter that is not frozen, in the order of names.
    #[must_use]
    pub fn trainable(&self) -> Vec<(String, Var)> {
        self.all().into_iter().filter(|(name, _)| !self.frozen.contains(name)).collect()
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
    frozen: bool,
}

impl Backend {
    fn handed_out(&self, name: &str, var: &Var) -> Tensor {
        let constant = self.frozen || self.parameters.frozen.contains(name);
        if constant { var.as_tensor().detach() } else { var.as_tensor().clone() }
    }
}

impl SimpleBackend for Backend {
    fn get(&self, shape: Shape, name: &str, hint: Init, _: DType, _: &Device) -> Result<Tensor> {
        let mut vars = self.parameters.vars.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(var) = vars.get(name) {
            if var.shape() != &shape {
                bail!("parameter `{name}` has shape {:?}, expected {shape:?}", var.shape());
            }
            return Ok(self.handed_out(name, var));
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
        let var = Var::from_vec(values, shape, &device())?;
        let tensor = self.handed_out(name, &var);
        vars.insert(name.to_owned(), var);
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        let vars = self.parameters.vars.lock().unwrap_or_else(PoisonError::into_inner);
        match vars.get(name) {
            Some(var) => Ok(self.handed_out(name, var)),
            None => bail!("parameter `{name}` is missing"),
        }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.parameters.vars.lock().unwrap_or_else(PoisonError::into_inner).contains_key(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frozen_parameters_share_their_numbers_and_get_no_gradient() -> Result<()> {
        let parameters = Parameters::default();
        parameters.insert("w", vec![2.0, 3.0], &[2])?;
        let var = parameters.all().swap_remove(0).1;
        for (vb, has_gradient) in [(parameters.seeded(0), true), (parameters.frozen(), false)] {
            let w = vb.get(2, "w")?;
            assert_eq!(w.to_vec1::<f32>()?, [2.0, 3.0]);
            let gradients = w.sqr()?.sum_all()?.backward()?;
            assert_eq!(gradients.get(&var).is_some(), has_gradient);
        }
        Ok(())
    }
}
