//! Any bytes as `config.json` of a folder of others: an error or a model, without large allocations.
#![no_main]

use asr::config::{LoadOptions, load_model};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

const CONTROL: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../golden/broken-checkpoints/folders/control");

fuzz_target!(|data: &[u8]| {
    let folder = tempfile::tempdir().expect("a folder");
    let weights = Path::new(CONTROL).join("model.safetensors");
    std::fs::copy(weights, folder.path().join("model.safetensors")).expect("space is left");
    std::fs::write(folder.path().join("config.json"), data).expect("space is left");
    if let Err(error) = load_model(folder.path(), &LoadOptions::default()) {
        assert!(!error.to_string().is_empty());
    }
});
