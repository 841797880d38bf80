//! Hugging Face folders that are damaged or inconsistent: a clear error each, or a sound model.

use asr::config::{ImportError, LoadOptions, SpeechModel, Wanted, load_speech_model};
use asr_kernels::Precision;
use std::error::Error;
use std::path::Path;

fn load(folder: &str) -> Result<SpeechModel, ImportError> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/broken-checkpoints");
    load_speech_model(&root.join("folders").join(folder), &LoadOptions::default())
}

/// The message with its causes.
fn said(error: &ImportError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[test]
fn damaged_folders_are_refused_with_the_reason() {
    for (folder, reasons) in [
        ("missing_key", &["encoder.layers.1.attention.k_proj.weight"][..]),
        ("missing_layer", &["encoder.layers.2."]),
        ("shape_mismatch", &["feature_projection.projection.weight", "[16, 9]", "[16, 8]"]),
        ("nan_weight", &["NaN or infinity", "tensor `"]),
        ("inf_weight", &["NaN or infinity", "tensor `"]),
        ("integer_weight", &["i64", "tensor `"]),
        ("head_count_does_not_divide", &["heads", "divide"]),
        ("unknown_model_type", &["`bert`"]),
        ("absurd_config", &["stage_layers"]),
        ("conv_lists_disagree", &["conv_kernel"]),
        ("config_not_json", &["config.json"]),
        ("no_config", &["config.json"]),
        ("missing_shard", &["model-00002-of-00002.safetensors"]),
        ("shard_traversal", &["PWNED", "not opened"]),
    ] {
        let error = load(folder).expect_err(folder);
        let said = said(&error);
        assert!(said.contains(folder), "{folder} is not named: {said}");
        for reason in reasons {
            assert!(said.contains(reason), "{folder}: `{reason}` is not in: {said}");
        }
    }
}

/// Shards and half precision give the numbers of the same weights in one f32 file.
#[test]
fn sound_folders_load_and_agree() -> Result<(), Box<dyn Error>> {
    let clip: Vec<f32> = (0..2000).map(|i| (i as f32 * 0.07).sin() * 0.3).collect();
    let wanted = Wanted { precision: Precision::F32, hidden_states: false, parity: false };
    let output = |folder: &str| -> Result<Vec<f32>, Box<dyn Error>> {
        let outputs = load(folder)?.run(&[&clip], &[None], wanted)?;
        Ok(outputs.encoded.output().hidden.flatten_all()?.to_vec1()?)
    };
    let control = output("control")?;
    for (folder, tolerance) in [("two_shards_ok", 0.0), ("fp16_ok", 0.05), ("bf16_ok", 0.2)] {
        for (a, b) in control.iter().zip(output(folder)?) {
            assert!((a - b).abs() <= tolerance, "{folder}: {a} against {b}");
        }
    }
    Ok(())
}

#[test]
fn tensors_that_nothing_uses_are_named() -> Result<(), ImportError> {
    let model = load("extra_keys")?;
    assert_eq!(model.unused(), ["encoder.layers.7.attention.k_proj.weight", "something.else"]);
    assert_eq!(load("control")?.unused(), [""; 0]);
    Ok(())
}
