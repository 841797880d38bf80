//! A checkpoint of every family and format, imported: the folder gives the numbers of the file,
//! bit for bit.

use asr::config::{
    Head, LoadOptions, Outputs, Provenance, SpeechModel, Wanted, WriteOptions, load_speech_model,
};
use asr::model::checkpoint::{StoredAs, open};
use asr::model::{Padding, Sequence};
use asr_kernels::Precision;
use candle_core::Tensor;
use std::path::{Path, PathBuf};

const CASES: [&str; 16] = [
    "hubert-base",
    "hubert-base/hubert_fairseq.pt",
    "wavlm-base",
    "wavlm-base/wavlm_unilm.pt",
    "wavlm-torchaudio/wavlm_torchaudio.pth",
    "wavlablm-espnet/5epoch.pth",
    "xls-r-pretraining",
    "wav2vec2-ctc-masked",
    "mms-lid",
    "mms-adapters",
    "lid-weighted-sum",
    "mr-hubert-mono-resolution/checkpoint.pt",
    "mr-hubert-2res-large/checkpoint.pt",
    "mr-hubert-3res-20-40-80/checkpoint.pt",
    "mr-hubert-s3prl-converted/mrhubert_mono_base.pt",
    "broken-checkpoints/folders/two_shards_ok",
];

fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(case)
}

fn load(path: &Path) -> SpeechModel {
    load_speech_model(path, &LoadOptions::default()).expect("the model loads")
}

fn write(model: &SpeechModel, folder: &Path, stored_as: StoredAs, languages: &[String]) {
    let provenance = Provenance { files: Vec::new(), licence: Some("mit".to_owned()) };
    let options = WriteOptions { name: "imported", stored_as, languages, provenance };
    model.write(folder, &options).expect("the folder is written");
}

fn outputs(model: &SpeechModel, languages: [Option<&str>; 2], parity: bool) -> Outputs {
    let clip = |n: usize| (0..n).map(|i| (i as f32 * 0.37).sin() * 0.2).collect::<Vec<f32>>();
    let clips = [clip(6000), clip(3700)];
    let wanted = Wanted { precision: Precision::F32, hidden_states: true, parity };
    model.run(&clips.each_ref().map(Vec::as_slice), &languages, wanted).expect("the model runs")
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    let values = tensor.flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("f32 values");
    values.into_iter().map(f32::to_bits).collect()
}

/// Every number of the outputs, in order.
fn numbers(outputs: &Outputs) -> Vec<Vec<u32>> {
    let hidden = |sequence: Sequence| bits(&sequence.hidden);
    let states = outputs.encoded.hidden_states().into_iter();
    let resolutions = outputs.encoded.resolutions.iter().map(|r| r.output.clone());
    let logits = outputs.logits.iter().flatten().map(bits);
    states.chain(resolutions).map(hidden).chain(logits).collect()
}

#[test]
fn a_folder_gives_the_numbers_of_what_it_was_imported_from() {
    for case in CASES {
        let source = load(&golden(case));
        let folder = tempfile::tempdir().expect("a folder");
        write(&source, folder.path(), StoredAs::Exact, &[]);
        // The folder, and the file of its weights, too, are the model.
        let imported = load(folder.path());
        assert_eq!(load(&folder.path().join("model.safetensors")).name(), "imported", "{case}");
        assert_eq!(imported.unused(), [""; 0], "{case}");
        assert_eq!(imported.name(), "imported", "{case}");
        let (was, is) = (source.config(), imported.config());
        assert_eq!((&was.encoder, &was.head), (&is.encoder, &is.head), "{case}");
        assert_eq!(was.waveform_norm, is.waveform_norm, "{case}");
        assert_ne!(was.reference_padding, Padding::Unseen, "{case}");
        assert_eq!(source.n_parameters(), imported.n_parameters(), "{case}");
        for parity in [false, true] {
            let (was, is) = (
                numbers(&outputs(&source, [None; 2], parity)),
                numbers(&outputs(&imported, [None; 2], parity)),
            );
            assert!(was.len() > 2 && was == is, "{case}: other numbers");
        }
        let shapes =
            |model: &SpeechModel| model.pretraining().map(|heads| heads.shapes().expect("shapes"));
        assert_eq!(shapes(&source), shapes(&imported), "{case}");
        let mask = |model: &SpeechModel| model.mask_embedding().map(bits);
        assert_eq!(mask(&source), mask(&imported), "{case}");
        for (file, name) in [("hubert-2res-large", "f16"), ("hubert-base", "f32")] {
            if case.contains(file) {
                let file = open(folder.path()).expect("a checkpoint");
                let tensor = file.find("encoder.layers.0.fc1.weight");
                let tensor = tensor.or_else(|| file.find("encoders.0.layers.0.fc1.weight"));
                let kind = tensor.expect("published names").element_type().to_string();
                assert_eq!(kind, name, "{case}: as many bits as the source has");
            }
        }
    }
}

#[test]
fn tokens_and_labels_go_along() {
    for case in ["wav2vec2-ctc-masked", "mms-lid", "mms-adapters"] {
        let source = load(&golden(case));
        let folder = tempfile::tempdir().expect("a folder");
        write(&source, folder.path(), StoredAs::Exact, &[]);
        let imported = load(folder.path());
        match (source.head(), imported.head()) {
            (Head::Ctc { tokens: was, .. }, Head::Ctc { tokens: is, .. }) => {
                assert!(was.is_some() && was == is, "{case}");
            }
            (Head::Classifier { labels: was, .. }, Head::Classifier { labels: is, .. }) => {
                assert!(was.len() > 2 && was == is, "{case}");
            }
            (Head::Languages(was), Head::Languages(is)) => {
                let languages = was.languages().expect("a folder");
                assert_eq!(languages, is.languages().expect("a folder"));
                for language in &languages {
                    let tokens = |units: &asr::config::LanguageUnits| {
                        units.get(language).expect("an adapter").tokens.clone()
                    };
                    assert_eq!(tokens(was), tokens(is), "{language}");
                }
            }
            other => panic!("{case}: {other:?}"),
        }
    }
}

#[test]
fn adapters_go_along_and_those_of_other_languages_stay() {
    let source = load(&golden("mms-adapters"));
    let (all, one) = (tempfile::tempdir(), tempfile::tempdir());
    let (all, one) = (all.expect("a folder"), one.expect("a folder"));
    write(&source, all.path(), StoredAs::Exact, &[]);
    write(&source, one.path(), StoredAs::Exact, &["fr".to_owned()]);
    let languages = [Some("fra"), Some("kmr-script_latin")];
    let was = numbers(&outputs(&source, languages, false));
    assert!(was == numbers(&outputs(&load(all.path()), languages, false)), "other numbers");
    let alone = load(one.path());
    let french = [Some("French"), Some("fra")];
    assert!(numbers(&outputs(&source, french, false)) == numbers(&outputs(&alone, french, false)));
    let Head::Languages(units) = alone.head() else { panic!("adapters") };
    assert_eq!(units.languages().expect("a folder"), ["eng", "fra"]);
    let error = units.get("kmr-script_latin").expect_err("it was not asked for");
    assert!(error.to_string().contains("has no adapter"), "{error}");
}

/// In 8 bits the folder is a fraction of the size and close by.
#[test]
fn a_folder_in_eight_bits_is_close() {
    for case in ["hubert-base", "mms-adapters", "mr-hubert-2res-large/checkpoint.pt"] {
        let source = load(&golden(case));
        let folder = tempfile::tempdir().expect("a folder");
        write(&source, folder.path(), StoredAs::Int8, &[]);
        let quantised = load(folder.path());
        assert_eq!(quantised.unused(), [""; 0], "{case}");
        let (was, is) = (outputs(&source, [None; 2], false), outputs(&quantised, [None; 2], false));
        let flat = |outputs: &Outputs| -> Vec<f32> {
            let hidden = &outputs.encoded.output().hidden;
            hidden.flatten_all().and_then(|t| t.to_vec1()).expect("f32 values")
        };
        let (was, is) = (flat(&was), flat(&is));
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let cosine = dot(&was, &is) / (dot(&was, &was) * dot(&is, &is)).sqrt();
        assert!((0.99..1.0).contains(&cosine) && was != is, "{case}: cosine {cosine}");
    }
}
