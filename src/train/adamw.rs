//! AdamW (Loshchilov and Hutter 2019) whose state can be saved.

use asr_kernels::adamw::{self, Step};
use asr_kernels::gradients::Gradients;
use candle_core::{Result, Var, bail};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Settings of the optimiser.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamWConfig {
    /// Decay rates of the running mean of the gradient and of its square.
    pub betas: [f64; 2],
    /// Added to the root of the mean square.
    pub eps: f64,
    /// Decay of matrices per unit of learning rate; vectors (biases, norms) do not decay.
    pub weight_decay: f64,
    /// Largest norm of the gradient over all parameters.
    pub clip_norm: f64,
}

/// The optimiser with its parameters.
#[derive(Debug)]
pub(super) struct AdamW {
    config: AdamWConfig,
    slots: Vec<Slot>,
}

/// A parameter and its running moments.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) var: Var,
    /// What the learning rate is multiplied by.
    rate: f64,
    /// Steps for which it stays as it is.
    held: u64,
    pub(super) mean: Vec<f32>,
    pub(super) square: Vec<f32>,
}

impl AdamW {
    /// Each parameter with its name and what the learning rate is multiplied by for it.
    pub(super) fn new(config: AdamWConfig, parameters: Vec<(String, Var, f64)>) -> Self {
        let slots = parameters
            .into_iter()
            .map(|(name, var, rate)| {
                let n = var.elem_count();
                Slot { name, var, rate, held: 0, mean: vec![0.0; n], square: vec![0.0; n] }
            })
            .collect();
        Self { config, slots }
    }

    /// Leaves each parameter as it is for the steps that `held` says of its name; its moments
    /// start then.
    pub(super) fn hold(&mut self, held: impl Fn(&str) -> u64) {
        for slot in &mut self.slots {
            slot.held = held(&slot.name);
        }
    }

    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    pub(super) fn slots_mut(&mut self) -> &mut [Slot] {
        &mut self.slots
    }

    /// Updates every parameter from the sum of `shares`, multiplied by `scale`; returns the norm
    /// of the scaled gradient before clipping. If that is not finite, nothing is changed.
    /// The shares are used up.
    pub(super) fn step(
        &mut self,
        shares: &mut [Gradients],
        scale: f64,
        lr: f64,
        step: u64,
    ) -> Result<f64> {
        // Per parameter, the gradient of every share.
        let mut gradients = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            let parts: Option<Vec<Vec<f32>>> =
                shares.iter_mut().map(|share| share.take(&slot.var)).collect();
            let Some(parts) = parts.filter(|parts| !parts.is_empty()) else {
                bail!("no gradient was collected for parameter `{}`", slot.name);
            };
            gradients.push(parts);
        }
        // Summed in order, so that the norm does not depend on threads.
        let squares: Vec<f64> = gradients
            .par_iter_mut()
            .map(|parts| {
                let (first, others) = parts.split_at_mut(1);
                let others: Vec<&[f32]> = others.iter().map(Vec::as_slice).collect();
                adamw::add_and_square(&mut first[0], &others)
            })
            .collect();
        let norm = squares.iter().sum::<f64>().sqrt() * scale;
        let done =
            if norm.is_finite() { self.apply(&gradients, norm, scale, lr, step) } else { Ok(()) };
        for (slot, parts) in self.slots.iter().zip(gradients) {
            for (share, part) in shares.iter_mut().zip(parts) {
                share.give_back(&slot.var, part);
            }
        }
        done.map(|()| norm)
    }

    fn apply(
        &mut self,
        gradients: &[Vec<Vec<f32>>],
        norm: f64,
        scale: f64,
        lr: f64,
        step: u64,
    ) -> Result<()> {
        let clip = if norm > self.config.clip_norm { self.config.clip_norm / norm } else { 1.0 };
        let [beta1, beta2] = self.config.betas;
        let decay = self.config.weight_decay;
        let plain = Step {
            betas: [beta1 as f32, beta2 as f32],
            scale: (scale * clip) as f32,
            shrink: 1.0,
            rate: 0.0,
            root: 1.0,
            eps: self.config.eps as f32,
        };
        self.slots.par_iter_mut().zip(gradients).try_for_each(|(slot, parts)| {
            let Some(step) = step.checked_sub(slot.held).filter(|&step| step > 0) else {
                return Ok(());
            };
            let correction1 = 1.0 - beta1.powf(step as f64);
            let root = (1.0 - beta2.powf(step as f64)).sqrt().recip() as f32;
            let lr = lr * slot.rate;
            let rate = (lr / correction1) as f32;
            let shrink = if slot.var.rank() > 1 { (1.0 - lr * decay) as f32 } else { 1.0 };
            let moments = (slot.mean.as_mut_slice(), slot.square.as_mut_slice());
            adamw::update(&slot.var, Step { shrink, rate, root, ..plain }, moments, &parts[0])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};

    /// What a loss with the gradient `slopes` leaves behind, once per micro-batch.
    fn shares(var: &Var, slopes: &[&[f32]]) -> Result<Vec<Gradients>> {
        slopes
            .iter()
            .map(|slopes| {
                let slopes = Tensor::from_slice(slopes, var.shape(), &Device::Cpu)?;
                let mut gradients = Gradients::of([var]);
                gradients.backward(&(var.as_tensor() * slopes)?.sum_all()?)?;
                Ok(gradients)
            })
            .collect()
    }

    #[test]
    fn first_steps_are_those_of_the_paper() -> Result<()> {
        let config =
            AdamWConfig { betas: [0.9, 0.98], eps: 1e-8, weight_decay: 0.1, clip_norm: 10.0 };
        let var = Var::new(&[[1.0_f32, -2.0]], &Device::Cpu)?;
        let mut optimiser = AdamW::new(config, vec![("w".into(), var.clone(), 1.0)]);
        // By hand: the first step moves each value by the learning rate against the sign of
        // its gradient, after shrinking it by lr * decay.
        let mut gradients = shares(&var, &[&[1.0, -5.0], &[2.0, 1.0]])?;
        let norm = optimiser.step(&mut gradients, 1.0, 0.01, 1)?;
        assert!((norm - 5.0).abs() < 1e-9);
        let values = var.flatten_all()?.to_vec1::<f32>()?;
        assert!(
            (values[0] - (0.999 - 0.01)).abs() < 1e-6 && (values[1] - (-1.998 + 0.01)).abs() < 1e-6
        );
        let mut gradients = shares(&var, &[&[f32::NAN, 0.0]])?;
        assert!(!optimiser.step(&mut gradients, 1.0, 0.01, 2)?.is_finite());
        assert_eq!(var.flatten_all()?.to_vec1::<f32>()?, values);
        Ok(())
    }

    #[test]
    fn a_parameter_moves_at_its_own_rate() -> Result<()> {
        let config =
            AdamWConfig { betas: [0.9, 0.98], eps: 1e-8, weight_decay: 0.0, clip_norm: 10.0 };
        let [fast, slow] = [1.0_f32, 1.0].map(|v| Var::new(&[v], &Device::Cpu));
        let (fast, slow) = (fast?, slow?);
        let parameters = vec![("a".into(), fast.clone(), 1.0), ("b".into(), slow.clone(), 0.1)];
        let mut gradients = Gradients::of([&fast, &slow]);
        gradients.backward(&(fast.as_tensor() + slow.as_tensor())?.sum_all()?)?;
        AdamW::new(config, parameters).step(&mut [gradients], 1.0, 0.01, 1)?;
        let moved = |var: &Var| Ok::<_, candle_core::Error>(1.0 - var.to_vec1::<f32>()?[0]);
        assert!((moved(&fast)? - 0.01).abs() < 1e-6 && (moved(&slow)? - 0.001).abs() < 1e-6);
        Ok(())
    }

    #[test]
    fn a_held_parameter_starts_afresh_when_it_is_let_go() -> Result<()> {
        let config =
            AdamWConfig { betas: [0.9, 0.98], eps: 1e-8, weight_decay: 0.0, clip_norm: 10.0 };
        let var = Var::new(&[1.0_f32], &Device::Cpu)?;
        let mut optimiser = AdamW::new(config, vec![("b".into(), var.clone(), 1.0)]);
        optimiser.hold(|name| if name == "b" { 2 } else { 0 });
        for (step, want) in [(1, 1.0), (2, 1.0), (3, 0.99), (4, 0.98)] {
            optimiser.step(&mut shares(&var, &[&[3.0]])?, 1.0, 0.01, step)?;
            assert!((var.to_vec1::<f32>()?[0] - want).abs() < 1e-6, "step {step}");
        }
        Ok(())
    }

    #[test]
    fn a_long_gradient_is_shortened_before_it_enters_the_moments() -> Result<()> {
        let config =
            AdamWConfig { betas: [0.9, 0.98], eps: 1e-8, weight_decay: 0.0, clip_norm: 1.0 };
        let var = Var::new(&[0.0_f32], &Device::Cpu)?;
        let mut optimiser = AdamW::new(config, vec![("b".into(), var.clone(), 1.0)]);
        optimiser.step(&mut shares(&var, &[&[50.0]])?, 0.1, 0.01, 1)?;
        assert!((optimiser.slots()[0].mean[0] - 0.1).abs() < 1e-6);
        Ok(())
    }
}
