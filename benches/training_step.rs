//! A training step of HuBERT base: forward, backward and AdamW of 95 million parameters, on
//! clips of ten seconds. `benches/torch_training_step.py` is the same in PyTorch.
//!
//! ```text
//! cargo bench --bench training_step -- [f32|bf16] [clips] [runs]
//! ```

mod published;

use asr::model::{Encoder, Parameters, Pass, Sequence};
use asr_kernels::adamw::{self, Step};
use asr_kernels::gradients::Gradients;
use asr_kernels::{Precision, isa, reference, threads};
use candle_core::{Device, Result, Tensor, Var};
use rayon::prelude::*;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CLIP_S: f64 = 10.0;

struct Parameter {
    var: Var,
    mean: Vec<f32>,
    square: Vec<f32>,
}

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1).filter(|word| !word.starts_with("--"));
    let precision = match words.next().as_deref() {
        Some("bf16") => Precision::Bf16,
        _ => Precision::F32,
    };
    let mut number = |default| words.next().and_then(|word| word.parse().ok()).unwrap_or(default);
    let (clips, runs) = (number(4), number(5));
    let samples = (CLIP_S * 16_000.0) as usize;
    let parameters = Parameters::default();
    let encoder = Encoder::new(&published::base(false), &parameters.seeded(1))?;
    let wave = reference::uniform(clips * samples, 1).iter().map(|v| 0.1 * v).collect();
    let input = Sequence {
        hidden: Tensor::from_vec::<_, f32>(wave, (clips, samples, 1), &Device::Cpu)?,
        lengths: vec![samples; clips],
    };
    let mut trained: Vec<Parameter> = parameters
        .all()
        .into_iter()
        .map(|(_, var)| {
            let n = var.elem_count();
            Parameter { var, mean: vec![0.0; n], square: vec![0.0; n] }
        })
        .collect();
    let mut gradients = Gradients::of(trained.iter().map(|p| &p.var));
    let mut times = Vec::new();
    for run in 0..=runs {
        let start = Instant::now();
        let encoded = encoder.outputs(&input, &[], &Pass::training(precision, 1))?;
        let output = &encoded.output().hidden;
        gradients.backward(&output.sqr()?.mean_all()?)?;
        let step = Step {
            betas: [0.9, 0.999],
            scale: 1.0,
            shrink: 1.0 - 1e-6,
            rate: 1e-4,
            root: 1.0,
            eps: 1e-8,
        };
        trained.par_iter_mut().try_for_each(|p| match gradients.get(&p.var) {
            Some(gradient) => adamw::update(&p.var, step, (&mut p.mean, &mut p.square), gradient),
            None => Ok(()),
        })?;
        if run > 0 {
            times.push(start.elapsed().as_secs_f64());
        }
    }
    times.sort_by(f64::total_cmp);
    println!(
        "{{\"batch\": {clips}, \"clip_s\": {CLIP_S}, \"threads\": {}, \"isa\": \"{}\", \"precision\": \"{precision:?}\", \"seconds\": {:.3}, \"best\": {:.3}}}",
        threads::available(),
        isa::isa().name(),
        times.get(times.len() / 2).copied().unwrap_or(f64::NAN),
        times.first().copied().unwrap_or(f64::NAN)
    );
    Ok(())
}
