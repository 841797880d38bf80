//! Masked prediction against fairseq: cross entropies of each resolution, totals and gradients.
//!
//! The cases with a generator anyone can write down run always; those in files with
//! `ASR_GOLDEN=FOLDER cargo references`.

use asr::config::{LoadOptions, load_speech_model};
use asr::model::checkpoint::open;
use asr::model::{
    ConvLayer, ConvNorm, EncoderConfig, HeadNames, MaskedEncoder, MaskedEncoderConfig, Padding,
    Parameters, Pass, PredictionShape, Sampling, Sequence, Variant,
};
use asr::objective::{
    HeadLoss, LabelAlignment, PredictedFrames, PredictionWeights, UnitLoss, predict_units,
};
use asr::pretrain::{Overlay, mix, non_silent};
use asr_kernels::Precision;
use candle_core::backprop::GradStore;
use candle_core::safetensors::load;
use candle_core::{DType, Device, Result, Tensor};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// `HubertCriterion(1.0, 0.0, [10.0])`.
const WEIGHTS: PredictionWeights = PredictionWeights { masked: 1.0, unmasked: 0.0, penalty: 10.0 };
const SAMPLE_RATE_HZ: f64 = 16_000.0;

/// Labels of a batch, one class list per clip, and their rate.
struct LabelSet {
    classes: Vec<Vec<u32>>,
    rate_hz: f64,
}

/// What a model says of a batch, heads in the order of the checkpoint.
struct Outcome {
    heads: Vec<HeadLoss>,
    logits: Vec<Tensor>,
    masked: Vec<PredictedFrames>,
    penalty: Tensor,
    total: Tensor,
    frames: usize,
}

/// Seconds per frame of each resolution, highest first.
fn frame_seconds(config: &EncoderConfig) -> Vec<f64> {
    let mut seconds = vec![config.input_stride() as f64 / SAMPLE_RATE_HZ];
    for [up, down] in &config.rate_ratios {
        let last = seconds[seconds.len() - 1];
        seconds.push(last * *down as f64 / *up as f64);
    }
    seconds
}

fn outcome(
    model: &MaskedEncoder,
    input: &Sequence,
    masks: &[Vec<bool>],
    labels: &[LabelSet],
    padding: Padding,
) -> Result<Outcome> {
    let config = model.encoder().config();
    let seconds = frame_seconds(config);
    let single = config.rate_ratios.is_empty();
    let set = |resolution: usize| &labels[resolution.min(labels.len() - 1)];
    let alignment =
        |resolution: usize| LabelAlignment::new(set(resolution).rate_hz, seconds[resolution]);
    let frames = config.frames(input.frames()?);
    let keep = single.then(|| alignment(0).frames(frames, set(0).classes[0].len()));
    let pass = Pass::inference(Precision::F32).with_padding(padding);
    let output = model.forward(input, masks, keep, &pass)?;
    let trips: Vec<Vec<Vec<bool>>> =
        masks.iter().map(|mask| config.masks(&mask[..keep.unwrap_or(frames)])).collect();
    let (mut heads, mut all_logits, mut all_masked) = (Vec::new(), Vec::new(), Vec::new());
    for (i, resolution) in output.resolutions.iter().enumerate() {
        let masks: Vec<Vec<bool>> = trips.iter().map(|trip| trip[i].clone()).collect();
        let (masked, unmasked) = PredictedFrames::choose(
            resolution.frames()?,
            &masks,
            &resolution.lengths,
            &set(i).classes,
            alignment(i),
        );
        let loss = |chosen: &PredictedFrames| -> Result<(UnitLoss, Tensor)> {
            let rows = chosen.select(&resolution.hidden)?.expect("some frames");
            let logits = model.heads().logits(i, &rows, &pass)?;
            Ok((predict_units(&logits, &chosen.classes)?, logits))
        };
        let (of_masked, logits) = loss(&masked)?;
        heads.push(HeadLoss { masked: of_masked, unmasked: loss(&unmasked)?.0 });
        all_logits.push(logits);
        all_masked.push(masked);
    }
    let (total, frames) = WEIGHTS.total(&heads, &output.penalty)?;
    let penalty = output.penalty;
    Ok(Outcome { heads, logits: all_logits, masked: all_masked, penalty, total, frames })
}

fn scalar(tensor: &Tensor) -> f64 {
    f64::from(tensor.to_scalar::<f32>().expect("one number"))
}

mod generated {
    use super::*;

    fn fnv1a(text: &str) -> u64 {
        text.bytes()
            .fold(0xCBF2_9CE4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3))
    }

    fn units(seed: u64, n: usize) -> Vec<f64> {
        (1..=n as u64)
            .map(|i| {
                let mut z = seed.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
                z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
                ((z ^ (z >> 31)) >> 11) as f64 * 2.0_f64.powi(-53)
            })
            .collect()
    }

    fn model(norm_first: bool, ratios: &[[usize; 2]]) -> Result<MaskedEncoder> {
        let conv = |(kernel, stride)| ConvLayer { dim: 512, kernel, stride };
        let encoder = EncoderConfig {
            input_channels: 1,
            conv_layers: [(10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2)]
                .map(conv)
                .to_vec(),
            conv_norm: if norm_first { ConvNorm::EveryLayer } else { ConvNorm::FirstGroup },
            embed_dim: 64,
            ffn_dim: 128,
            heads: 4,
            stage_layers: vec![2; 2 * ratios.len() + 1],
            rate_ratios: ratios.to_vec(),
            sampling: Sampling::ConvAdapter { kernel: 1 },
            layer_norm_first: norm_first,
            position_kernel: 128,
            position_groups: 16,
            dropout: 0.1,
            attention_dropout: 0.0,
            activation_dropout: 0.1,
            input_dropout: 0.1,
            layer_drop: 0.05,
            variant: Variant::default(),
        };
        let config = MaskedEncoderConfig {
            encoder,
            heads: vec![PredictionShape { classes: 24, width: 32 }; ratios.len() + 1],
            head_names: HeadNames::Numbered,
            front_end_gradient: 1.0,
        };
        let started = Parameters::default();
        MaskedEncoder::for_training(&config, &started, 0)?;
        let mut tensors = HashMap::new();
        for (name, var) in started.all() {
            let shape = var.dims().to_vec();
            let fan = (var.elem_count() / shape[0]) as f64;
            let value = |u: f64| {
                let v = 2.0 * u - 1.0;
                let value = if name.ends_with(".bias") {
                    0.1 * v
                } else if name == "mask_emb" {
                    0.5 * v
                } else if name.ends_with("weight_g") || shape.len() == 1 {
                    1.0 + 0.1 * v
                } else {
                    v * (3.0 / fan).sqrt()
                };
                value as f32
            };
            let values: Vec<f32> =
                units(fnv1a(&name), var.elem_count()).into_iter().map(value).collect();
            tensors.insert(name, Tensor::from_vec(values, shape, &Device::Cpu)?);
        }
        MaskedEncoder::new(&config, &Parameters::from_tensors(tensors)?)
    }

    fn wave() -> Vec<f32> {
        use std::f64::consts::TAU;
        let sample = |(n, u): (usize, f64)| {
            let t = n as f64 / SAMPLE_RATE_HZ;
            (0.3 * (TAU * 220.0 * t).sin()
                + 0.1 * (TAU * 1333.0 * t + 0.5).sin()
                + 0.05 * (2.0 * u - 1.0)) as f32
        };
        units(fnv1a("wav"), 16_640).into_iter().enumerate().map(sample).collect()
    }

    #[test]
    fn losses_of_two_and_three_resolutions_are_those_of_the_reference() -> Result<()> {
        let two: &[[usize; 2]] = &[[1, 2]];
        let three: &[[usize; 2]] = &[[1, 2], [2, 5]];
        for (norm_first, ratios, sums, penalty, total) in [
            (false, two, &[(109.9194, 20), (49.4771, 10)][..], 2.0736e-4, 159.4379),
            (true, two, &[(95.4495, 20), (51.2227, 10)], 0.43324, 233.3211),
            (false, three, &[(98.2515, 20), (41.1697, 10), (20.2895, 4)], 2.0736e-4, 159.7521),
        ] {
            let wave = wave();
            let n = wave.len();
            let input = Sequence {
                hidden: Tensor::from_vec(wave, (1, n, 1), &Device::Cpu)?,
                lengths: vec![n],
            };
            let mask: Vec<bool> = (0..51).map(|t| (t / 5) % 3 == 0).collect();
            let classes = vec![(0..51).map(|t| 4 + (7 * t + 3) % 20).collect()];
            let labels = [LabelSet { classes, rate_hz: 50.0 }];
            let model = model(norm_first, ratios)?;
            let got = outcome(&model, &input, &[mask], &labels, Padding::Unseen)?;
            for (head, (nats, count)) in got.heads.iter().zip(sums) {
                let prediction = &head.masked.prediction;
                let found = (prediction.score()?.nats, prediction.classes.len());
                assert!((found.0 - nats).abs() < 1e-3 && found.1 == *count, "{found:?}");
            }
            assert_eq!(got.heads.len(), sums.len());
            assert!((scalar(&got.penalty) - penalty).abs() < 1e-4 * penalty + 1e-8);
            assert!((scalar(&got.total) - total).abs() < 1e-3, "{}", scalar(&got.total));
        }
        Ok(())
    }
}

/// A case in files.
struct Case {
    name: &'static str,
    folder: PathBuf,
    input: HashMap<String, Tensor>,
    expected: HashMap<String, Tensor>,
    tolerance: (f64, f64),
    largest: f64,
    compared: usize,
}

#[derive(serde::Deserialize)]
struct Provenance {
    tolerance_abs: f64,
    tolerance_rel: f64,
}

impl Case {
    fn open(name: &'static str) -> Self {
        let golden = std::env::var_os("ASR_GOLDEN").expect("ASR_GOLDEN names the golden folder");
        let folder = Path::new(&golden).join(name);
        let read = |file| load(folder.join(file), &Device::Cpu).expect("golden file is valid");
        let text = std::fs::read_to_string(folder.join("provenance.toml")).expect("provenance");
        let provenance: Provenance = toml::from_str(&text).expect("provenance");
        Self {
            name,
            input: read("input.safetensors"),
            expected: read("expected.safetensors"),
            folder,
            tolerance: (provenance.tolerance_abs, provenance.tolerance_rel),
            largest: 0.0,
            compared: 0,
        }
    }

    fn wanted(&self, key: &str) -> Vec<f64> {
        let tensor = self.expected.get(key).unwrap_or_else(|| panic!("{key} is in the case"));
        tensor.to_dtype(DType::F64).and_then(|t| t.flatten_all()?.to_vec1()).expect("numbers")
    }

    fn compare(&mut self, key: &str, got: &[f64]) {
        let want = self.wanted(key);
        assert_eq!(got.len(), want.len(), "{}: number of values of {key}", self.name);
        for (index, (g, w)) in got.iter().zip(&want).enumerate() {
            let difference = (g - w).abs();
            let allowed = self.tolerance.0 + self.tolerance.1 * w.abs();
            assert!(difference <= allowed, "{}: {key}[{index}]: {g}, want {w}", self.name);
            self.largest = self.largest.max(difference);
        }
        self.compared += 1;
    }

    fn integers(&self, key: &str) -> Option<Vec<Vec<i64>>> {
        let tensor = self.input.get(key)?;
        Some(tensor.to_dtype(DType::I64).and_then(|t| t.to_vec2::<i64>()).expect("two axes"))
    }

    /// The logits that are left when the positive's duplicate is struck out: `column 0` is the
    /// positive, the others are all classes in order.
    fn compare_logits(&mut self, key: &str, logits: &Tensor, classes: &[u32]) {
        let logits = logits.to_vec2::<f32>().expect("two axes");
        let want = self.wanted(key);
        let width = logits[0].len() + 1;
        for ((row, want), &class) in logits.iter().zip(want.chunks_exact(width)).zip(classes) {
            for (column, w) in want.iter().enumerate() {
                let index = if column == 0 { class as usize } else { column - 1 };
                if column > 0 && index == class as usize {
                    assert_eq!(*w, f64::NEG_INFINITY, "{key}: the duplicate");
                    continue;
                }
                let g = f64::from(row[index]);
                let allowed = self.tolerance.0 + self.tolerance.1 * w.abs();
                assert!((g - w).abs() <= allowed, "{key}: {g}, want {w}");
                self.largest = self.largest.max((g - w).abs());
            }
        }
        assert_eq!(want.len(), logits.len() * width, "{key}: number of rows");
        self.compared += 1;
    }

    fn gradients(&mut self, run: &str, gradients: &GradStore, parameters: &Parameters) {
        let mut squares = 0.0;
        for (name, var) in parameters.all() {
            let Some(gradient) = gradients.get(&var) else { continue };
            let values: Vec<f32> =
                gradient.flatten_all().and_then(|g| g.to_vec1()).expect("f32 values");
            let values: Vec<f64> = values.into_iter().map(f64::from).collect();
            squares += values.iter().map(|g| g * g).sum::<f64>();
            let key = format!("{run}.grad.{name}");
            if self.expected.contains_key(&key) {
                self.compare(&key, &values);
            }
        }
        self.compare(&format!("{run}.grad_norm_all"), &[squares.sqrt()]);
    }
}

/// Every run of a case; `label_rate_hz` as its checkpoint has them, highest resolution first.
fn check(name: &'static str, runs: &[&str], label_rate_hz: &[f64], front_end_gradient: f64) {
    let mut case = Case::open(name);
    let path = case.folder.join("checkpoint.pt");
    let loaded = load_speech_model(&path, &LoadOptions::default()).expect("the model loads");
    let shapes = loaded.pretraining().expect("heads").shapes().expect("shapes");
    let parameters = open(&path).expect("a checkpoint").parameters().expect("finite parameters");
    let encoder = loaded.encoder().config().clone();
    let names =
        if encoder.rate_ratios.is_empty() { HeadNames::Together } else { HeadNames::Numbered };
    let config =
        MaskedEncoderConfig { encoder, heads: shapes, head_names: names, front_end_gradient };
    let model = MaskedEncoder::new(&config, &parameters).expect("the parameters fit");
    for run in runs {
        let waveform = case.input[&format!("{run}.waveform")].unsqueeze(2).expect("two axes");
        let padding = case.integers(&format!("{run}.sample_padding")).expect("padding");
        let lengths: Vec<usize> =
            padding.iter().map(|row| row.iter().filter(|p| **p == 0).count()).collect();
        let masks: Vec<Vec<bool>> = case
            .integers(&format!("{run}.mask"))
            .expect("masks")
            .iter()
            .map(|row| row.iter().map(|m| *m == 1).collect())
            .collect();
        let labels: Vec<LabelSet> = label_rate_hz
            .iter()
            .enumerate()
            .map(|(i, &rate_hz)| {
                let rows = case.integers(&format!("{run}.target.{i}")).expect("targets");
                let classes = rows
                    .iter()
                    .map(|row| row.iter().map(|c| u32::try_from(*c).expect("a class")).collect())
                    .collect();
                LabelSet { classes, rate_hz }
            })
            .collect();
        let input = Sequence { hidden: waveform, lengths };
        let got = outcome(&model, &input, &masks, &labels, Padding::SharedOut).expect("a loss");
        for (i, head) in got.heads.iter().enumerate() {
            let [masked, unmasked] = [&head.masked, &head.unmasked].map(|part| &part.prediction);
            let [hidden, seen] = [masked, unmasked].map(|part| part.score().expect("numbers"));
            case.compare(&format!("{run}.ce_masked.{i}"), &[hidden.nats]);
            case.compare(&format!("{run}.ce_unmasked.{i}"), &[seen.nats]);
            let exact = |n: usize, key: &str| {
                assert_eq!(
                    case.wanted(&format!("{run}.{key}.{i}")),
                    [n as f64],
                    "{name} {run} {key}"
                );
            };
            exact(masked.classes.len(), "count_masked");
            exact(unmasked.classes.len(), "count_unmasked");
            exact(hidden.correct, "correct_masked");
            let key = format!("{run}.nce_logits_masked.{i}");
            case.compare_logits(&key, &got.logits[i], &got.masked[i].classes);
        }
        assert_eq!(case.wanted(&format!("{run}.sample_size")), [got.frames as f64]);
        case.compare(&format!("{run}.features_pen"), &[scalar(&got.penalty)]);
        case.compare(&format!("{run}.loss"), &[scalar(&got.total)]);
        case.gradients(run, &got.total.backward().expect("gradients"), &parameters);
    }
    println!("{name}: {} tensors, largest difference {:e}", case.compared, case.largest);
    assert!(case.compared >= 15 * runs.len(), "{name}: only {} tensors", case.compared);
}

/// The test of each case.
macro_rules! cases {
    ($($test:ident: $name:literal, $runs:expr, $rates:expr, $gradient:expr;)*) => {$(
        #[test]
        #[ignore = "needs the golden folder: ASR_GOLDEN=FOLDER cargo references"]
        fn $test() {
            check($name, &$runs, &$rates, $gradient);
        }
    )*};
}

cases! {
    hubert: "hubert-loss", ["plain", "padded", "short_labels"], [50.0], 0.1;
    hubert_of_mfcc_labels: "hubert-loss-mfcc-rate", ["plain", "short_labels"], [100.0], 0.1;
    mr_hubert: "mr-hubert-loss", ["plain", "odd", "short_labels"], [50.0], 0.1;
    mr_hubert_of_three_resolutions: "mr-hubert-loss-3res", ["plain", "padded"], [50.0], 1.0;
    mr_hubert_of_labels_per_rate:
        "mr-hubert-loss-per-rate-targets", ["plain"], [50.0, 25.0], 0.1;
}

#[derive(serde::Deserialize)]
struct MixCase {
    name: String,
    snr_db: f64,
    length: usize,
    start: usize,
    second_start: usize,
}

#[test]
fn voices_are_mixed_as_in_the_reference() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/waveform-ops");
    let read = |file| load(folder.join(file), &Device::Cpu).expect("golden file is valid");
    let (input, expected) = (read("input.safetensors"), read("expected.safetensors"));
    let text = std::fs::read_to_string(folder.join("cases.json")).expect("cases");
    let cases: Vec<MixCase> = serde_json::from_str(&text).expect("cases");
    let samples = |tensors: &HashMap<String, Tensor>, key: String| -> Vec<f32> {
        tensors[&key].to_vec1().expect("samples")
    };
    assert_eq!(cases.len(), 6);
    for MixCase { name, snr_db, length, start, second_start } in cases {
        let mut mixed = samples(&input, format!("{name}.primary"));
        let second = samples(&input, format!("{name}.second"));
        let voiced: Vec<u8> = expected[&format!("{name}.non_silent")].to_vec1().expect("marks");
        let found: Vec<u8> = non_silent(&mixed).into_iter().map(u8::from).collect();
        assert!(voiced == found, "{name}: other samples are silent");
        let overlay = Overlay { start, second: second_start..second_start + length };
        mix(&mut mixed, &second, &overlay, snr_db);
        let want = samples(&expected, format!("{name}.mixed"));
        assert_eq!(mixed.len(), want.len());
        for (i, (g, w)) in mixed.iter().zip(&want).enumerate() {
            assert!((g - w).abs() <= 1e-5 + 1e-4 * w.abs(), "{name}[{i}]: {g}, want {w}");
        }
    }
}
