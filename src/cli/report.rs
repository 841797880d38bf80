//! What `asr bench` and `asr score` share in writing reports.

use super::failure::{AnyError, CliError};
use super::model::{file_sha256, hexadecimal};
use crate::bench::ml_superb::published::LabelSet;
use crate::bench::report::{Input, LayerWeights, Place, Provenance, command_line};
use crate::text::{Language, place_of_language};
use clap::ValueEnum;
use std::collections::BTreeMap;
use std::path::Path;

/// Which repairs of the language labels the references have had.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Labels {
    /// December 2024: `org_jpn` is `jpn`
    Original,
    /// May 2026: also lga is lug, ory is ori, arb is ara, and Norwegian is left out
    Refined,
}

impl From<Labels> for LabelSet {
    fn from(labels: Labels) -> Self {
        match labels {
            Labels::Original => Self::Original,
            Labels::Refined => Self::Refined,
        }
    }
}

/// Where a language is at home.
pub(super) fn place(language: Language) -> Option<Place> {
    let (latitude, longitude) = place_of_language(language)?;
    Some(Place { latitude, longitude })
}

/// Provenance of a result of this very command.
pub(super) fn provenance(
    labels: &str,
    scorer: &str,
    inputs: &[(&str, &Path)],
) -> Result<Provenance, CliError> {
    let arguments = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned());
    let command = command_line("asr", arguments);
    let mut provenance = Provenance::now(command, labels.to_owned(), scorer.to_owned());
    for (role, path) in inputs {
        provenance.inputs.push(Input {
            role: (*role).to_owned(),
            file: path.display().to_string(),
            sha256: hexadecimal(&file_sha256(path)?),
        });
    }
    Ok(provenance)
}

/// Layer weights from a JSON object: name to list of weights, the input of the first layer first.
pub(super) fn read_layer_weights(path: &Path) -> Result<Vec<LayerWeights>, AnyError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| CliError::Read { path: path.to_owned(), source })?;
    let weights: BTreeMap<String, Vec<f64>> = serde_json::from_str(&text)
        .map_err(|source| CliError::LayerWeights { path: path.to_owned(), source })?;
    Ok(weights.into_iter().map(|(name, weights)| LayerWeights { name, weights }).collect())
}
