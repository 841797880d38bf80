//! A model folder gives back what was written.

use crate::encoders::{
    VOCAB_SIZE, batch, clip, encoder_config, random_parameters, recogniser_config,
};
use asr::config::{ModelConfig, ModelFiles};
use asr::features::{EncoderInput, FeatureNorm, LogMelConfig};
use asr::model::checkpoint::StoredAs;
use asr::model::{EncoderConfig, Pass, Recogniser};
use asr::text::Vocabulary;
use asr_kernels::Precision;
use proptest::prelude::*;
use std::path::Path;

fn files(config: &EncoderConfig, seed: u64) -> ModelFiles {
    let norms = [FeatureNorm::None, FeatureNorm::Mean, FeatureNorm::MeanAndVariance];
    let features = LogMelConfig { n_mels: 20 + (seed % 60) as usize, ..LogMelConfig::default() };
    let language = "swa".parse().expect("a code");
    ModelFiles {
        config: ModelConfig::new(
            "any",
            EncoderInput::LogMel(features, norms[(seed % 3) as usize]),
            config.clone(),
        ),
        vocabulary: Vocabulary::build([language], ["ab \u{915}\u{93f}"], 1)
            .expect("four characters"),
        parameters: random_parameters(config, seed).expect("a valid configuration"),
    }
}

/// Names, shapes and bits of all parameters that inference needs.
fn bits(files: &ModelFiles) -> Vec<(String, Vec<usize>, Vec<u32>)> {
    let kept =
        files.parameters.all().into_iter().filter(|(name, _)| !name.starts_with("low_proj."));
    kept.map(|(name, var)| {
        let values = var.flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("f32");
        (name, var.dims().to_vec(), values.into_iter().map(f32::to_bits).collect())
    })
    .collect()
}

fn logits(files: &ModelFiles, seed: u64) -> Vec<f32> {
    let config = &files.config.encoder;
    let model = Recogniser::new(&recogniser_config(config), &files.parameters).expect("complete");
    let input = batch(config, &[&clip(config, 50, seed)], 0).expect("one clip");
    let logits = model.forward(&input, &Pass::inference(Precision::F32)).expect("fits").high;
    logits.values.flatten_all().and_then(|t| t.to_vec1()).expect("f32")
}

fn bytes(folder: &Path) -> [Vec<u8>; 3] {
    ["config.json", "vocab.json", "model.safetensors"]
        .map(|file| std::fs::read(folder.join(file)).expect("the folder is complete"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_written_is_read(config in encoder_config(), seed in any::<u64>()) {
        let folder = tempfile::tempdir().expect("a folder");
        let written = files(&config, seed);
        prop_assert!(written.vocabulary.len() >= VOCAB_SIZE);
        written.write(folder.path(), StoredAs::F32).expect("space is left");
        let read = ModelFiles::read(folder.path()).expect("what was written");
        prop_assert_eq!(&read.config, &written.config);
        prop_assert_eq!(&read.vocabulary, &written.vocabulary);
        prop_assert!(read.parameters.all().iter().all(|(name, _)| !name.starts_with("low_proj.")));
        prop_assert_eq!(bits(&read), bits(&written));
        prop_assert_eq!(logits(&read, seed), logits(&written, seed));

        let [config_bytes, vocabulary, weights] = bytes(folder.path());
        // Weights inside a program live as long as it does.
        let inside: &'static [u8] = weights.clone().leak();
        let from_bytes = ModelFiles::from_bytes(&config_bytes, &vocabulary, inside, "any");
        prop_assert_eq!(bits(&from_bytes.expect("the same bytes")), bits(&read));
        let again = tempfile::tempdir().expect("a folder");
        read.write(again.path(), StoredAs::F32).expect("space is left");
        prop_assert_eq!(bytes(again.path()), [config_bytes, vocabulary, weights]);
        let n_files = std::fs::read_dir(folder.path()).expect("readable").count();
        prop_assert_eq!(n_files, 3, "temporary files are left");
    }

    #[test]
    fn half_floats_are_within_their_rounding_and_stay(config in encoder_config(), seed in any::<u64>()) {
        let folder = tempfile::tempdir().expect("a folder");
        let written = files(&config, seed);
        written.write(folder.path(), StoredAs::F16).expect("space is left");
        let read = ModelFiles::read(folder.path()).expect("what was written");
        for ((name, _, got), (_, _, want)) in bits(&read).into_iter().zip(bits(&written)) {
            for (got, want) in got.into_iter().zip(want) {
                let (got, want) = (f32::from_bits(got), f32::from_bits(want));
                // Half a unit in the last of 11 places; below 2^-14 the spacing stays 2^-24.
                let allowed = (want.abs() / 2048.0).max(2.0_f32.powi(-25));
                prop_assert!((got - want).abs() <= allowed, "{name}: {got} for {want}");
            }
        }
        read.write(folder.path(), StoredAs::F16).expect("space is left");
        let again = ModelFiles::read(folder.path()).expect("what was written");
        prop_assert_eq!(bits(&again), bits(&read));
    }
}
