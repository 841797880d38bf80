//! Any bytes as a language model: an error or a model whose probabilities are numbers, in bounded memory.
#![no_main]

use asr::decode::lm::{Alphabet, Fusion, LanguageModel, LmWeights, NgramModel};
use asr::decode::{BeamOptions, beam_search};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

fuzz_target!(|data: &[u8]| {
    let Ok(model) = NgramModel::read(data) else { return };
    // Unless compressed, every n-gram has a line of its own.
    if !data.starts_with(&[0x1f, 0x8b]) {
        assert!(model.counts().iter().sum::<usize>() <= data.len());
    }
    let words: Vec<String> = model.words().map(|(word, _)| word.to_owned()).take(50).collect();
    let sentence = words.iter().map(String::as_str).chain(["a word that is not there"]);
    assert!(model.sentence(sentence, true).is_finite());
    let letters = std::iter::once(None).chain(" ab".chars().map(Some));
    let alphabet = Arc::new(Alphabet::from_characters(letters));
    let model = LanguageModel::new(model, None, &alphabet);
    let fusion = Fusion::new(alphabet).with_model(Arc::new(model), LmWeights::default());
    let found = beam_search(&[0.25_f32.ln(); 4 * 6], &fusion, &BeamOptions::new(8));
    assert!(found.iter().all(|hypothesis| hypothesis.total.is_finite()));
});
