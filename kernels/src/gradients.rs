//! Gradients of parameters, summed where they will be used.
//!
//! candle's backward pass starts every gradient as a tensor of zeros and adds to a copy of it.
//! For parameters, most of a model, the operations here write straight into buffers that a
//! training run keeps from step to step.

use crate::matmul::Output;
use crate::storage::with_slice;
use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, TensorId, Var, bail};
use std::cell::RefCell;
use std::collections::HashMap;

thread_local! {
    /// The buffers of the backward pass that runs on this thread.
    static COLLECTED: RefCell<Option<HashMap<TensorId, Slot>>> = const { RefCell::new(None) };
}

#[derive(Debug)]
struct Slot {
    values: Vec<f32>,
    /// The gradient of a parameter that does not lie on the CPU, in place of `values`.
    elsewhere: Option<Tensor>,
    /// Whether `values` belong to the pass; otherwise they are left over from the one before.
    reached: bool,
}

/// The gradients of a set of parameters.
#[derive(Debug)]
pub struct Gradients {
    slots: HashMap<TensorId, Slot>,
}

impl Gradients {
    /// Room for the gradients of `parameters`.
    #[must_use]
    pub fn of<'a>(parameters: impl IntoIterator<Item = &'a Var>) -> Self {
        let slot = |var: &Var| Slot {
            values: vec![0.0; if var.device().is_cpu() { var.elem_count() } else { 0 }],
            elsewhere: None,
            reached: false,
        };
        Self { slots: parameters.into_iter().map(|var| (var.id(), slot(var))).collect() }
    }

    /// Replaces the gradients by those of `loss`.
    ///
    /// # Errors
    /// If an operation behind `loss` cannot be differentiated.
    pub fn backward(&mut self, loss: &Tensor) -> Result<()> {
        for slot in self.slots.values_mut() {
            slot.reached = false;
            slot.elsewhere = None;
        }
        let outer = COLLECTED.replace(Some(std::mem::take(&mut self.slots)));
        let store = loss.backward();
        self.slots = COLLECTED.replace(outer).unwrap_or_default();
        let store = store?;
        add_stored(&mut self.slots, &store)
    }

    /// The gradient of a parameter on the CPU, row-major; `None` if the loss does not depend on it.
    #[must_use]
    pub fn get(&self, parameter: &Var) -> Option<&[f32]> {
        let slot = self.slots.get(&parameter.id())?;
        slot.reached.then_some(slot.values.as_slice())
    }

    /// Whether the loss depends on a parameter.
    #[must_use]
    pub fn reached(&self, parameter: &Var) -> bool {
        self.slots.get(&parameter.id()).is_some_and(|slot| slot.reached)
    }

    /// The gradient of a parameter that does not lie on the CPU, zero if the loss does not depend
    /// on it; `None` if there is no room for it.
    ///
    /// # Errors
    /// If there is no room on the device.
    pub fn elsewhere(&self, parameter: &Var) -> Result<Option<Tensor>> {
        let Some(slot) = self.slots.get(&parameter.id()) else { return Ok(None) };
        slot.elsewhere.clone().map_or_else(|| parameter.zeros_like(), Ok).map(Some)
    }

    /// The gradient of a parameter on the CPU, zero if the loss does not depend on it; `None` if there is
    /// no room for it. Its buffer is to be given back for the next pass.
    #[must_use]
    pub fn take(&mut self, parameter: &Var) -> Option<Vec<f32>> {
        let slot = self.slots.get_mut(&parameter.id())?;
        if !slot.reached {
            slot.values.fill(0.0);
        }
        slot.reached = false;
        Some(std::mem::take(&mut slot.values))
    }

    /// Gives back a buffer that was taken, whatever it holds now.
    pub fn give_back(&mut self, parameter: &Var, values: Vec<f32>) {
        if let Some(slot) = self.slots.get_mut(&parameter.id()) {
            *slot = Slot { values, elsewhere: None, reached: false };
        }
    }
}

/// Hands the gradient of an operation's input `parameter` to where it is wanted: if it is
/// collected, `write` fills or adds to its buffer and candle gets nothing; otherwise the
/// gradient becomes a tensor.
pub(crate) fn deliver(
    parameter: &Tensor,
    write: impl FnOnce(&mut [f32], Output<'static>),
) -> Result<Option<Tensor>> {
    // What is frozen needs no gradient, and its product is as dear as any.
    if !parameter.track_op() {
        return Ok(None);
    }
    let id = parameter.id();
    // Taken out while it is written, so that nothing is borrowed meanwhile.
    let slot = COLLECTED.with_borrow_mut(|slots| {
        let slot = slots.as_mut()?.get_mut(&id)?;
        Some((std::mem::take(&mut slot.values), slot.reached))
    });
    let Some((mut values, reached)) = slot else {
        let mut values = vec![0.0; parameter.elem_count()];
        write(&mut values, Output::Overwrite);
        return Tensor::from_vec(values, parameter.shape(), parameter.device()).map(Some);
    };
    values.resize(parameter.elem_count(), 0.0);
    write(&mut values, if reached { Output::Accumulate } else { Output::Overwrite });
    COLLECTED.with_borrow_mut(|slots| {
        if let Some(slot) = slots.as_mut().and_then(|slots| slots.get_mut(&id)) {
            *slot = Slot { values, elsewhere: None, reached: true };
        }
    });
    Ok(None)
}

/// Adds what operations of candle found to the gradients that are collected.
fn add_stored(slots: &mut HashMap<TensorId, Slot>, store: &GradStore) -> Result<()> {
    for (id, slot) in slots {
        if let Some(gradient) = store.get_id(*id) {
            if !gradient.device().is_cpu() {
                slot.elsewhere = Some(match slot.elsewhere.take() {
                    Some(sum) => (sum + gradient)?,
                    None => gradient.contiguous()?,
                });
                slot.reached = true;
                continue;
            }
            with_slice(gradient, |gradient| {
                if slot.reached {
                    for (sum, g) in slot.values.iter_mut().zip(gradient) {
                        *sum += g;
                    }
                } else {
                    slot.values.clear();
                    slot.values.extend_from_slice(gradient);
                }
            })?;
            slot.reached = true;
        }
    }
    Ok(())
}

/// Adds what a backward pass inside the one at work found of its parameters.
///
/// # Errors
/// Outside of [`Gradients::backward`], where they would be lost.
pub(crate) fn deliver_store(store: &GradStore) -> Result<()> {
    COLLECTED.with_borrow_mut(|slots| match slots {
        Some(slots) => add_stored(slots, store),
        None => bail!("gradients of what is computed again must be collected"),
    })
}

/// [`deliver`] for a gradient that `add` adds to what is there.
pub(crate) fn deliver_sum(
    parameter: &Tensor,
    add: impl FnOnce(&mut [f32]),
) -> Result<Option<Tensor>> {
    deliver(parameter, |values, output| {
        if matches!(output, Output::Overwrite) {
            values.fill(0.0);
        }
        add(values);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear::linear;
    use crate::{Precision, reference};
    use candle_core::Device;

    #[test]
    fn what_is_frozen_gets_no_gradient() -> Result<()> {
        let var = |shape: &[usize], seed| -> Result<Var> {
            let n = shape.iter().product();
            Var::from_tensor(&Tensor::from_vec(reference::uniform(n, seed), shape, &Device::Cpu)?)
        };
        let (x, w, b) = (var(&[3, 4], 1)?, var(&[4, 4], 2)?, var(&[4], 3)?);
        let loss = |w: &Tensor| linear(&x, w, &b, Precision::F32)?.sqr()?.sum_all()?.backward();
        let frozen = w.as_tensor().detach();
        let (all, rest) = (loss(w.as_tensor())?, loss(&frozen)?);
        assert!(all.get(&w).is_some() && rest.get(&frozen).is_none());
        for other in [&x, &b] {
            let values = |store: &candle_core::backprop::GradStore| {
                store.get(other).expect("gradient").flatten_all()?.to_vec1::<f32>()
            };
            assert_eq!(values(&all)?, values(&rest)?);
        }
        Ok(())
    }

    #[test]
    fn collected_gradients_are_those_of_candle() -> Result<()> {
        let var = |shape: &[usize], seed| -> Result<Var> {
            let n = shape.iter().product();
            Var::from_tensor(&Tensor::from_vec(reference::uniform(n, seed), shape, &Device::Cpu)?)
        };
        let (x, w, b, unused) = (var(&[3, 4], 1)?, var(&[4, 4], 2)?, var(&[4], 3)?, var(&[2], 4)?);
        // The weights are used twice by one operation and once by another.
        let loss = || -> Result<Tensor> {
            let y = linear(&x, &w, &b, Precision::F32)?;
            let y = linear(&y, &w, &b, Precision::F32)?;
            y.sqr()?.sum_all()? + w.sum_all()?
        };
        let want = loss()?.backward()?;
        let mut gradients = Gradients::of([&w, &b, &unused]);
        for _ in 0..2 {
            gradients.backward(&loss()?)?;
            for parameter in [&w, &b] {
                let want = want.get(parameter).expect("gradient").flatten_all()?;
                let got = gradients.get(parameter).expect("reached");
                for (g, w) in got.iter().zip(want.to_vec1::<f32>()?) {
                    assert!((g - w).abs() < 1e-4, "{g} against {w}");
                }
            }
            assert!(gradients.get(&unused).is_none());
        }
        assert_eq!(gradients.take(&unused).expect("room"), [0.0, 0.0]);
        assert!(gradients.get(&x).is_none() && gradients.take(&x).is_none());
        let taken = gradients.take(&b).expect("room");
        gradients.give_back(&b, taken);
        assert!(gradients.get(&b).is_none());
        gradients.backward(&loss()?)?;
        let want = want.get(&b).expect("gradient").to_vec1::<f32>()?;
        assert_eq!(gradients.get(&b).expect("reached").len(), want.len());
        Ok(())
    }
}
