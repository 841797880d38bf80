//! AdamW (Loshchilov and Hutter 2019) whose state can be saved.

use asr_kernels::adamw::{self, Step};
use asr_kernels::gradients::Gradients;
use candle_core::{Device, Result, Shape, Tensor, Var, bail};
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
    pub(super) moments: Moments,
}

/// Running means of a parameter's gradient and of its square, where the parameter lies.
#[derive(Debug)]
pub(super) enum Moments {
    /// On the CPU.
    Here(Vec<f32>, Vec<f32>),
    /// On another device.
    Elsewhere(Tensor, Tensor),
}

impl Moments {
    /// Moments of `var`, row-major.
    pub(super) fn new(var: &Var, mean: Vec<f32>, square: Vec<f32>) -> Result<Self> {
        if var.device().is_cpu() {
            return Ok(Self::Here(mean, square));
        }
        let put = |values| Tensor::from_vec(values, var.shape(), var.device());
        Ok(Self::Elsewhere(put(mean)?, put(square)?))
    }

    fn zero(var: &Var) -> Result<Self> {
        if !var.device().is_cpu() {
            return Ok(Self::Elsewhere(var.zeros_like()?, var.zeros_like()?));
        }
        let n = var.elem_count();
        Ok(Self::Here(vec![0.0; n], vec![0.0; n]))
    }

    /// The mean as a tensor of the parameter's shape.
    pub(super) fn mean(&self, shape: &Shape) -> Result<Tensor> {
        match self {
            Self::Here(mean, _) => Tensor::from_slice(mean, shape, &Device::Cpu),
            Self::Elsewhere(mean, _) => Ok(mean.clone()),
        }
    }

    /// The mean square as a tensor of the parameter's shape.
    pub(super) fn square(&self, shape: &Shape) -> Result<Tensor> {
        match self {
            Self::Here(_, square) => Tensor::from_slice(square, shape, &Device::Cpu),
            Self::Elsewhere(_, square) => Ok(square.clone()),
        }
    }
}

impl AdamW {
    /// Each parameter with its name and what the learning rate is multiplied by for it.
    ///
    /// # Errors
    /// If the device has no room for the moments.
    pub(super) fn new(config: AdamWConfig, parameters: Vec<(String, Var, f64)>) -> Result<Self> {
        let slots = parameters
            .into_iter()
            .map(|(name, var, rate)| {
                let moments = Moments::zero(&var)?;
                Ok(Slot { name, var, rate, held: 0, moments })
            })
            .collect::<Result<_>>()?;
        Ok(Self { config, slots })
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
        if self.slots.iter().any(|slot| !slot.var.device().is_cpu()) {
            return self.step_on_device(shares, scale, lr, step);
        }
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
        let config = &self.config;
        self.slots.par_iter_mut().zip(gradients).try_for_each(|(slot, parts)| {
            let Some(change) = slot.change(config, (scale * clip) as f32, lr, step) else {
                return Ok(());
            };
            match &mut slot.moments {
                Moments::Here(mean, square) => {
                    adamw::update(&slot.var, change, (mean, square), &parts[0])
                }
                Moments::Elsewhere(..) => bail!("parameter `{}` left the CPU", slot.name),
            }
        })
    }

    /// As [`AdamW::step`] of parameters on a device: the norm is read once all is on its way.
    fn step_on_device(
        &mut self,
        shares: &[Gradients],
        scale: f64,
        lr: f64,
        step: u64,
    ) -> Result<f64> {
        let mut gradients = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            let mut sum: Option<Tensor> = None;
            for share in shares {
                let Some(part) = share.elsewhere(&slot.var)? else {
                    bail!("no gradient was collected for parameter `{}`", slot.name);
                };
                sum = Some(match sum {
                    Some(sum) => (sum + part)?,
                    None => part,
                });
            }
            let Some(sum) = sum else { bail!("a step without gradients") };
            gradients.push(sum);
        }
        let norm = adamw::norm_and_factor(&gradients, scale, self.config.clip_norm)?;
        for (slot, gradient) in self.slots.iter().zip(&gradients) {
            let Some(change) = slot.change(&self.config, 1.0, lr, step) else { continue };
            match &slot.moments {
                Moments::Elsewhere(mean, square) => {
                    adamw::update_on_device(&slot.var, change, (mean, square), gradient, &norm)?;
                }
                Moments::Here(..) => bail!("parameter `{}` is on the CPU", slot.name),
            }
        }
        Ok(f64::from(norm.get(0)?.to_scalar::<f32>()?))
    }
}

impl Slot {
    /// What the step does to the parameter, whose gradient is multiplied by `scale`; nothing
    /// while it is held.
    fn change(&self, config: &AdamWConfig, scale: f32, lr: f64, step: u64) -> Option<Step> {
        let step = step.checked_sub(self.held).filter(|&step| step > 0)?;
        let [beta1, beta2] = config.betas;
        let lr = lr * self.rate;
        let decay = if self.var.rank() > 1 { lr * config.weight_decay } else { 0.0 };
        Some(Step {
            betas: [beta1 as f32, beta2 as f32],
            scale,
            shrink: (1.0 - decay) as f32,
            rate: (lr / (1.0 - beta1.powf(step as f64))) as f32,
            root: (1.0 - beta2.powf(step as f64)).sqrt().recip() as f32,
            eps: config.eps as f32,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let mut optimiser = AdamW::new(config, vec![("w".into(), var.clone(), 1.0)])?;
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
        AdamW::new(config, parameters)?.step(&mut [gradients], 1.0, 0.01, 1)?;
        let moved = |var: &Var| Ok::<_, candle_core::Error>(1.0 - var.to_vec1::<f32>()?[0]);
        assert!((moved(&fast)? - 0.01).abs() < 1e-6 && (moved(&slow)? - 0.001).abs() < 1e-6);
        Ok(())
    }

    #[test]
    fn a_held_parameter_starts_afresh_when_it_is_let_go() -> Result<()> {
        let config =
            AdamWConfig { betas: [0.9, 0.98], eps: 1e-8, weight_decay: 0.0, clip_norm: 10.0 };
        let var = Var::new(&[1.0_f32], &Device::Cpu)?;
        let mut optimiser = AdamW::new(config, vec![("b".into(), var.clone(), 1.0)])?;
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
        let mut optimiser = AdamW::new(config, vec![("b".into(), var.clone(), 1.0)])?;
        optimiser.step(&mut shares(&var, &[&[50.0]])?, 0.1, 0.01, 1)?;
        let mean = optimiser.slots()[0].moments.mean(var.shape())?.to_vec1::<f32>()?;
        assert!((mean[0] - 0.1).abs() < 1e-6);
        Ok(())
    }
}
