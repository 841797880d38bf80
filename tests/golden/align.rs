//! Forced alignment against torchaudio.

use asr::decode::align;
use candle_core::safetensors::load;
use candle_core::{Device, Tensor};
use serde::Deserialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Absolute, and relative to the wanted value.
const TOLERANCE: f64 = 1e-5;

fn case_file(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ctc-forced-alignment").join(file)
}

fn tensors(file: &str) -> HashMap<String, Tensor> {
    load(case_file(file), &Device::Cpu).expect("golden file is valid")
}

#[derive(Deserialize)]
struct Case {
    name: String,
    #[serde(rename = "T")]
    frames: usize,
    #[serde(rename = "V")]
    vocab: usize,
    blank: u32,
    target: Vec<u32>,
}

#[test]
fn paths_spans_and_scores_are_those_of_torchaudio() {
    let cases = std::fs::read(case_file("cases.json")).expect("golden file");
    let cases: Vec<Case> = serde_json::from_slice(&cases).expect("golden file is valid");
    let (input, expected) = (tensors("input.safetensors"), tensors("expected.safetensors"));
    let mut largest = 0.0_f64;
    for case in &cases {
        let name = case.name.as_str();
        let log_probs: Vec<f32> = input[&format!("{name}.log_probs")]
            .flatten_all()
            .and_then(|t| t.to_vec1())
            .expect("f32 values");
        assert_eq!(log_probs.len(), case.frames * case.vocab);
        let found = align(&log_probs, case.vocab, &case.target, case.blank).expect("fits");
        let integers = |key: &str| -> Vec<i64> {
            expected[&format!("{name}.{key}")].to_vec1().expect("i64 values")
        };
        let numbers = |key: &str| -> Vec<f32> {
            expected[&format!("{name}.{key}")].to_vec1().expect("f32 values")
        };
        let path: Vec<i64> = found.path.iter().map(|&token| token.into()).collect();
        assert_eq!(path, integers("path"), "{name}");
        let starts: Vec<i64> = found.spans.iter().map(|span| span.start as i64).collect();
        let ends: Vec<i64> = found.spans.iter().map(|span| span.end as i64).collect();
        assert_eq!((starts, ends), (integers("span_start"), integers("span_end")), "{name}");
        let frame_scores = found.frame_scores.iter().map(|&score| f64::from(score));
        let span_scores = found.spans.iter().map(|span| span.score);
        let got: Vec<f64> = frame_scores.chain(span_scores).collect();
        let want = [numbers("frame_scores"), numbers("span_score")].concat();
        assert_eq!(got.len(), want.len(), "{name}");
        for (i, (got, want)) in got.iter().zip(want).enumerate() {
            let want = f64::from(want);
            let difference = (got - want).abs();
            assert!(
                difference <= TOLERANCE * (1.0 + want.abs()),
                "{name}[{i}]: {got}, want {want}"
            );
            largest = largest.max(difference);
        }
        // One frame fewer than the target needs is an error.
        let repeats = case.target.windows(2).filter(|pair| pair[0] == pair[1]).count();
        let short = (case.target.len() + repeats - 1) * case.vocab;
        assert!(
            align(&log_probs[..short], case.vocab, &case.target, case.blank).is_err(),
            "{name}"
        );
    }
    assert_eq!(cases.len(), 13);
    println!("largest difference {largest:e}");
}
