//! CTC losses and gradients against PyTorch in f64.

use asr_kernels::ctc::{Target, ctc_loss};
use candle_core::safetensors::load;
use candle_core::{DType, Device, Tensor, Var};
use serde::Deserialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Both cases: absolute, and relative to the wanted value.
const TOLERANCE: f64 = 1e-5;

fn case_file(case: &str, file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(case).join(file)
}

fn tensors(case: &str, file: &str) -> HashMap<String, Tensor> {
    load(case_file(case, file), &Device::Cpu).expect("golden file is valid")
}

fn values(tensor: &Tensor) -> Vec<f64> {
    let tensor = tensor.flatten_all().and_then(|t| t.to_dtype(DType::F64)).expect("a tensor");
    tensor.to_vec1().expect("f64 values")
}

/// Asserts `|got - want| <= TOLERANCE (1 + |want|)` and prints the largest difference.
fn compare(name: &str, got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len(), "{name}: number of values");
    let mut largest = (0.0, 0);
    for (index, (g, w)) in got.iter().zip(want).enumerate() {
        if g == w {
            // Two infinities among others.
            continue;
        }
        let difference = (g - w).abs();
        assert!(difference <= TOLERANCE * (1.0 + w.abs()), "{name}[{index}]: got {g}, want {w}");
        if difference > largest.0 {
            largest = (difference, index);
        }
    }
    println!("{name}: largest difference {:e} at {}", largest.0, largest.1);
}

fn closed(tokens: &[u32]) -> Target {
    Target { tokens: tokens.to_vec(), open_ended: false }
}

/// Losses of a batch and the gradient of their sum in the logits.
fn loss_and_gradient(
    logits: &Tensor,
    targets: &[Target],
    lengths: &[usize],
    blank: u32,
) -> candle_core::Result<(Vec<f64>, Vec<f64>)> {
    let logits = Var::from_tensor(logits)?;
    let losses = ctc_loss(&logits, targets, lengths, blank)?;
    let gradients = losses.sum_all()?.backward()?;
    let gradient = gradients.get(&logits).expect("the loss depends on the logits");
    Ok((values(&losses), values(gradient)))
}

#[derive(Deserialize)]
struct Case {
    name: String,
    targets: Vec<Vec<u32>>,
    lens: Vec<usize>,
    blank: u32,
    zero_inf: bool,
}

/// Where no path spells the target, the loss is infinite. The reference's gradient is then
/// NaN, which the golden file leaves out, or with `zero_infinity` loss and gradient are 0.
/// Ours keeps the loss infinite, so that nobody takes it for a good one, and the gradient 0.
#[test]
fn losses_and_gradients_are_those_of_pytorch() -> candle_core::Result<()> {
    let cases = std::fs::read(case_file("ctc-loss", "cases.json")).expect("golden file");
    let cases: Vec<Case> = serde_json::from_slice(&cases).expect("golden file is valid");
    let input = tensors("ctc-loss", "input.safetensors");
    let expected = tensors("ctc-loss", "expected.safetensors");
    let (mut n_infinite, mut without_gradient) = (0, Vec::new());
    for case in &cases {
        let name = case.name.as_str();
        let logits = &input[&format!("{name}.logits")];
        let targets: Vec<Target> = case.targets.iter().map(|tokens| closed(tokens)).collect();
        let (losses, gradient) = loss_and_gradient(logits, &targets, &case.lens, case.blank)?;
        let n_values = gradient.len() / targets.len();
        for (clip, loss) in losses.iter().enumerate().filter(|(_, loss)| loss.is_infinite()) {
            let gradient = &gradient[clip * n_values..(clip + 1) * n_values];
            assert!(*loss > 0.0 && gradient.iter().all(|&g| g == 0.0), "{name} {clip}");
            n_infinite += 1;
        }
        let reported: Vec<f64> = losses
            .iter()
            .map(|&loss| if case.zero_inf && loss.is_infinite() { 0.0 } else { loss })
            .collect();
        compare(&format!("{name}.loss"), &reported, &values(&expected[&format!("{name}.loss")]));
        match expected.get(&format!("{name}.grad_logits")) {
            Some(want) => compare(&format!("{name}.grad_logits"), &gradient, &values(want)),
            None => without_gradient.push(name),
        }
    }
    assert_eq!(cases.len(), 23);
    assert_eq!(n_infinite, 5);
    assert_eq!(without_gradient, ["too_short"]);
    Ok(())
}

/// Losses of the one-token targets `repeat([k])` for every `k` but the blank, 0.
fn losses_of_labels(log_probs: &Tensor, n_repeats: usize) -> candle_core::Result<Vec<f64>> {
    let (frames, vocab) = log_probs.dims2()?;
    let targets: Vec<Target> =
        (1..vocab as u32).map(|label| closed(&vec![label; n_repeats])).collect();
    let batch = log_probs.unsqueeze(0)?.repeat((targets.len(), 1, 1))?;
    let losses = ctc_loss(&batch, &targets, &vec![frames; targets.len()], 0)?;
    Ok(values(&losses))
}

/// Log-probabilities are logits whose normaliser is 1.
#[test]
fn single_labels_cost_what_their_recursion_says() -> candle_core::Result<()> {
    let input = tensors("ctc-single-label", "input.safetensors");
    let expected = tensors("ctc-single-label", "expected.safetensors");
    for (key, log_probs) in &input {
        let name = key.strip_suffix(".log_probs").expect("name of an input");
        for (suffix, n_repeats) in [("nll", 1), ("repeated.nll", 2)] {
            let key = format!("{name}.{suffix}");
            compare(&key, &losses_of_labels(log_probs, n_repeats)?, &values(&expected[&key]));
        }
    }
    assert_eq!(input.len(), 5);
    // The worked example, by hand: P(1) = 0.633, P(1, 1) = 0.012.
    let spec = &input["spec.log_probs"];
    for (n_repeats, want) in [(1, 0.633), (2, 0.012)] {
        let probability = (-losses_of_labels(spec, n_repeats)?[0]).exp();
        assert!((probability - want).abs() < 1e-6, "{n_repeats}: {probability} against {want}");
    }
    Ok(())
}
