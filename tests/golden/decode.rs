//! Greedy and beam-search decoding against exhaustive scoring with KenLM's language models.

use asr::decode::lm::{Alphabet, Fusion, LanguageModel, LmUnit, LmWeights, NgramModel};
use asr::decode::{BeamOptions, Hypothesis, beam_search, best_path};
use candle_core::Device;
use candle_core::safetensors::load;
use serde::Deserialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Absolute, and relative to the wanted value.
const TOLERANCE: (f64, f64) = (1e-4, 1e-5);

fn case_file(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ctc-decode").join(file)
}

fn json<T: serde::de::DeserializeOwned>(file: &str) -> T {
    let bytes = std::fs::read(case_file(file)).expect("golden file");
    serde_json::from_slice(&bytes).expect("golden file is valid")
}

#[derive(Deserialize)]
struct Case {
    name: String,
    symbols: Vec<String>,
    blank: u32,
    alpha: f64,
    beta: f64,
    unit: String,
    eos: bool,
}

#[derive(Deserialize)]
struct Expected {
    greedy_ids: Vec<u32>,
    greedy_path_log_prob: f64,
    exact: bool,
    best: Vec<Best>,
    margin: f64,
}

#[derive(Deserialize)]
struct Best {
    ids: Vec<u32>,
    total: f64,
    ctc_log_prob: f64,
    lm_log10: f64,
}

fn fusion(case: &Case) -> Fusion {
    // The first symbol is the blank, `|` the space.
    let letters = case.symbols.iter().enumerate().map(|(id, symbol)| match symbol.as_str() {
        _ if id as u32 == case.blank => None,
        "|" => Some(' '),
        symbol => symbol.chars().next(),
    });
    let alphabet = Arc::new(Alphabet::from_characters(letters));
    let (file, unit) = match case.unit.as_str() {
        "word" => ("lm_word.arpa", LmUnit::Word),
        _ => ("lm_char.arpa", LmUnit::Character),
    };
    let arpa = std::fs::File::open(case_file(file)).expect("golden file");
    let ngrams = NgramModel::read(arpa).expect("golden file is valid");
    let model = LanguageModel::new(ngrams, None, &alphabet);
    assert_eq!(model.unit(), unit, "told from the file");
    let weights = LmWeights { weight: case.alpha, bonus: case.beta, closed: case.eos };
    Fusion::new(alphabet).with_model(Arc::new(model), weights)
}

fn close(got: f64, want: f64, what: &str) {
    let bound = TOLERANCE.0 + TOLERANCE.1 * want.abs();
    assert!((got - want).abs() <= bound, "{what}: got {got}, want {want}");
}

fn compare(name: &str, found: &[Hypothesis], expected: &Expected) {
    if expected.exact {
        assert_eq!(found.len(), expected.best.len(), "{name}");
        for (i, (found, best)) in found.iter().zip(&expected.best).enumerate() {
            assert_eq!(found.tokens, best.ids, "{name}[{i}]");
            close(found.total, best.total, &format!("{name}[{i}].total"));
            close(found.log_prob, best.ctc_log_prob, &format!("{name}[{i}].ctc_log_prob"));
            close(found.lm_log10, best.lm_log10, &format!("{name}[{i}].lm_log10"));
        }
        return;
    }
    // Not every sequence was tried there: one may be better, not worse.
    let (found, best) = (&found[0], &expected.best[0]);
    assert!(found.total >= best.total - TOLERANCE.0, "{name}: {} < {}", found.total, best.total);
    if found.tokens == best.ids {
        close(found.total, best.total, name);
        close(found.log_prob, best.ctc_log_prob, name);
        close(found.lm_log10, best.lm_log10, name);
    } else {
        assert!(found.total > best.total + expected.margin.min(1e-3), "{name}");
    }
}

#[test]
fn hypotheses_and_scores_are_those_of_the_reference() {
    let cases: Vec<Case> = json("cases.json");
    let expected: HashMap<String, Expected> = json("expected.json");
    let input = load(case_file("input.safetensors"), &Device::Cpu).expect("golden file is valid");
    for case in &cases {
        let name = case.name.as_str();
        let log_probs: Vec<f32> = input[&format!("{name}.log_probs")]
            .flatten_all()
            .and_then(|t| t.to_vec1())
            .expect("f32 values");
        let expected = &expected[name];
        let vocab = case.symbols.len();
        let greedy = best_path(&log_probs, vocab, |_| true);
        let ids: Vec<u32> = greedy.iter().map(|token| token.id).collect();
        assert_eq!(ids, expected.greedy_ids, "{name}");
        let path: f64 = log_probs
            .chunks(vocab)
            .map(|row| f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max)))
            .sum();
        close(path, expected.greedy_path_log_prob, name);
        let fusion = fusion(case);
        let options = BeamOptions {
            beam: 4000,
            n_best: expected.best.len(),
            token_range: f64::INFINITY,
            max_tokens: usize::MAX,
        };
        let wide = beam_search(&log_probs, &fusion, &options);
        compare(name, &wide, expected);
        // As users run it: nothing better is possible, and the same is found every time.
        let narrow = beam_search(&log_probs, &fusion, &BeamOptions::new(64));
        let loss = wide[0].total - narrow[0].total;
        println!("{name}: a beam of 64 loses {loss:e} nats");
        assert!(loss >= -TOLERANCE.0, "{name}: {loss}");
        assert_eq!(narrow, beam_search(&log_probs, &fusion, &BeamOptions::new(64)), "{name}");
    }
    assert_eq!(cases.len(), 11);
}
