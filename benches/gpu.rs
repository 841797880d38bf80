//! A CUDA device on the work of HuBERT base: kernels, encoder and training step, as one table.
//! `bash tests/gpu.sh` runs it. Medians of eleven runs after two to warm up; the clock stops when
//! the device is done.

mod published;

use asr::model::{Encoder, Parameters, Pass, Sequence, compute_on};
use asr_kernels::attention::Attend;
use asr_kernels::ctc::{Target, ctc_loss};
use asr_kernels::gradients::Gradients;
use asr_kernels::{Precision, accelerator, adamw, attention, conv, gelu, linear, norm};
use asr_kernels::{position_conv, reference::uniform};
use candle_core::{Device, Result, Tensor, Var};
use std::time::Instant;

const RUNS: usize = 11;
const WARM_UP: usize = 2;

/// Prints the median time of `work` as a row of the table.
fn row(device: &Device, name: &str, mut work: impl FnMut() -> Result<()>) -> Result<()> {
    let mut times = Vec::new();
    for run in 0..WARM_UP + RUNS {
        device.synchronize()?;
        let start = Instant::now();
        work()?;
        device.synchronize()?;
        if run >= WARM_UP {
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    println!("| {name} | {:.3} ms |", times[RUNS / 2]);
    Ok(())
}

fn var(device: &Device, shape: &[usize]) -> Result<Var> {
    Var::from_vec(uniform(shape.iter().product(), 1), shape, device)
}

/// An operation, and the same with its gradient.
fn rows(device: &Device, name: &str, operation: impl Fn() -> Result<Tensor>) -> Result<()> {
    row(device, name, || operation().map(drop))?;
    row(device, &format!("{name}, and gradient"), || operation()?.sum_all()?.backward().map(drop))
}

fn kernels(device: &Device) -> Result<()> {
    let (x, w, b) =
        (var(device, &[8, 499, 768])?, var(device, &[3072, 768])?, var(device, &[3072])?);
    for (name, precision) in [("f32", Precision::F32), ("bf16", Precision::Bf16)] {
        let name = format!("linear 8 x 499 x 768 -> 3072, {name}");
        rows(device, &name, || linear::linear(&x, &w, &b, precision))?;
    }
    rows(device, "attention, 8 x 12 heads, 499 frames", || {
        attention::attention(&x, &x, &x, &Attend::new(12, &[499; 8], Precision::F32))
    })?;
    let (weight, bias) = (var(device, &[768])?, var(device, &[768])?);
    rows(device, "layer norm, 8 x 499 x 768", || norm::layer_norm(&x, &weight, &bias, 1e-5))?;
    let wide = var(device, &[8, 499, 3072])?;
    rows(device, "GELU, 8 x 499 x 3072", || gelu::gelu(&wide))?;
    let front = var(device, &[1, 31_999, 512])?;
    let taps = var(device, &[512, 512, 3])?;
    rows(device, "convolution 512 -> 512, kernel 3, stride 2, 31 999 frames, bf16", || {
        conv::conv1d(&front, &taps, 2, 0, Precision::Bf16)
    })?;
    let (scale, shift) = (var(device, &[512])?, var(device, &[512])?);
    rows(device, "group norm, 31 999 x 512", || {
        norm::group_norm(&front, &scale, &shift, 512, 1e-5, None)
    })?;
    let positions = var(device, &[768, 48, 128])?;
    rows(device, "position convolution, 8 x 499 frames", || {
        position_conv::position_conv(&x, &positions, Precision::Bf16)
    })?;
    let logits = var(device, &[8, 1000, 60])?;
    let tokens: Vec<u32> = (0..150).map(|i| 1 + i % 59).collect();
    let targets = vec![Target { tokens, open_ended: false }; 8];
    rows(device, "CTC, 8 x 1000 frames, 60 symbols", || ctc_loss(&logits, &targets, &[1000; 8], 0))
}

fn wave(clips: usize) -> Result<Sequence> {
    let samples = 160_000;
    let values: Vec<f32> = uniform(clips * samples, 1).iter().map(|v| 0.1 * v).collect();
    let hidden = Tensor::from_vec(values, (clips, samples, 1), &Device::Cpu)?;
    Ok(Sequence { hidden, lengths: vec![samples; clips] })
}

fn encoder(device: &Device) -> Result<()> {
    let config = published::base(false);
    let parameters = Parameters::default();
    let trained = Encoder::new(&config, &parameters.seeded(1))?;
    let frozen = Encoder::new(&config, &parameters.frozen())?;
    for (name, precision) in [("f32", Precision::F32), ("bf16", Precision::Bf16)] {
        for clips in [1, 8] {
            let input = wave(clips)?;
            row(device, &format!("HuBERT base, {clips} x 10 s, {name}"), || {
                frozen.outputs(&input, &[], &Pass::inference(precision)).map(drop)
            })?;
        }
        let input = wave(4)?;
        let variables = parameters.trainable();
        let mut gradients = Gradients::of(variables.iter().map(|(_, var)| var));
        let moments: Vec<(Tensor, Tensor)> = variables
            .iter()
            .map(|(_, var)| Ok((var.zeros_like()?, var.zeros_like()?)))
            .collect::<Result<_>>()?;
        let step = adamw::Step {
            betas: [0.9, 0.999],
            scale: 1.0,
            shrink: 1.0 - 1e-6,
            rate: 1e-4,
            root: 1.0,
            eps: 1e-8,
        };
        row(device, &format!("training step, 4 x 10 s, {name}"), || {
            let encoded = trained.outputs(&input, &[], &Pass::training(precision, 1))?;
            gradients.backward(&encoded.output().hidden.sqr()?.mean_all()?)?;
            let slopes = variables
                .iter()
                .map(|(_, var)| Ok(gradients.elsewhere(var)?.expect("room for every parameter")))
                .collect::<Result<Vec<Tensor>>>()?;
            let norm = adamw::norm_and_factor(&slopes, 1.0, 10.0)?;
            for (((_, var), (mean, square)), slope) in variables.iter().zip(&moments).zip(&slopes) {
                adamw::update_on_device(var, step, (mean, square), slope, &norm)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn main() -> Result<()> {
    let device = match accelerator::cuda(0) {
        Ok(device) => device,
        Err(reason) => {
            eprintln!("error: {reason}");
            std::process::exit(1);
        }
    };
    compute_on(device.clone());
    println!("| work | median |\n|---|---|");
    kernels(&device)?;
    encoder(&device)
}
