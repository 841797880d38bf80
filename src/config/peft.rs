//! Low-rank updates as PEFT stores them: `adapter_config.json`, `adapter_model.safetensors`.
//!
//! Names are those of Hugging Face transformers where that has the encoder, else ours, behind
//! `base_model.model.` (PEFT 0.10 and later, `save_pretrained`).

use super::model_folder::ModelFolderError;
use crate::files::write_whole;
use crate::model::checkpoint::{self, StoredAs};
use crate::model::{Adaptation, Layout, LoraTarget, Naming, Parameters};
use candle_core::Tensor;
use serde_json::json;
use std::path::Path;

/// Writes the low-rank updates among `parameters`, of an encoder that is called `base`.
/// Other adaptations have no such form, and nothing is written.
///
/// # Errors
/// [`ModelFolderError`] naming the file.
pub fn write_low_rank(
    folder: &Path,
    parameters: &Parameters,
    adaptation: Adaptation,
    base: &str,
) -> Result<(), ModelFolderError> {
    let Adaptation::Lora { rank, alpha, dropout, targets } = adaptation else { return Ok(()) };
    let naming = Naming { layout: Layout::Transformers, prefix: "base_model.model.".to_owned() };
    let tensors: Vec<(String, Tensor)> = parameters
        .all()
        .into_iter()
        .filter_map(|(name, var)| {
            let (map, update) = name.split_once(".lora_")?;
            let place = naming.places(&format!("{map}.weight")).into_iter().next()?;
            let theirs = place.name.strip_suffix(".weight")?.to_owned();
            Some((format!("{theirs}.lora_{update}"), var.as_tensor().clone()))
        })
        .collect();
    let modules: Vec<&str> = Vec::from(targets).into_iter().map(module).collect();
    let config = json!({
        "peft_type": "LORA",
        "task_type": null,
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": dropout,
        "target_modules": modules,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
    });
    let io = |source| ModelFolderError::Io { path: folder.to_owned(), source };
    std::fs::create_dir_all(folder).map_err(io)?;
    let path = folder.join("adapter_config.json");
    let io = |source| ModelFolderError::Io { path: path.clone(), source };
    write_whole(&path, format!("{config:#}\n").as_bytes()).map_err(io)?;
    let views = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    Ok(checkpoint::write(&folder.join("adapter_model.safetensors"), views, StoredAs::F32)?)
}

/// The name of a map in Hugging Face transformers.
fn module(target: LoraTarget) -> &'static str {
    match target {
        LoraTarget::Q => "q_proj",
        LoraTarget::K => "k_proj",
        LoraTarget::V => "v_proj",
        LoraTarget::O => "out_proj",
        LoraTarget::Fc1 => "intermediate_dense",
        LoraTarget::Fc2 => "output_dense",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_transformers() -> Result<(), Box<dyn std::error::Error>> {
        let parameters = Parameters::default();
        let layer = "encoder.layers.3";
        for (name, shape) in [
            ("self_attn.q_proj.lora_A.weight", [1, 2]),
            ("self_attn.q_proj.lora_B.weight", [2, 1]),
            ("fc1.lora_A.weight", [1, 2]),
            ("fc1.weight", [2, 1]),
        ] {
            parameters.insert(&format!("{layer}.{name}"), vec![1.0, 2.0], &shape)?;
        }
        let folder = tempfile::tempdir()?;
        let targets = vec![LoraTarget::Q, LoraTarget::Fc1].into();
        let adaptation = Adaptation::Lora { rank: 1, alpha: 2.0, dropout: 0.0, targets };
        write_low_rank(folder.path(), &parameters, adaptation, "ORG/NAME")?;
        let stored = checkpoint::read(&folder.path().join("adapter_model.safetensors"))?;
        let names: Vec<String> = stored.all().into_iter().map(|(name, _)| name).collect();
        let start = "base_model.model.encoder.layers.3";
        assert_eq!(
            names,
            [
                format!("{start}.attention.q_proj.lora_A.weight"),
                format!("{start}.attention.q_proj.lora_B.weight"),
                format!("{start}.feed_forward.intermediate_dense.lora_A.weight"),
            ]
        );
        let config = std::fs::read(folder.path().join("adapter_config.json"))?;
        let config: serde_json::Value = serde_json::from_slice(&config)?;
        assert_eq!(config["target_modules"], json!(["q_proj", "intermediate_dense"]));
        assert_eq!(config["r"], 1);
        Ok(())
    }
}
