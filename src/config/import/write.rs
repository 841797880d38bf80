//! A model as a folder of ours: what the files of others say in one form, and every number as it
//! was.

use super::error::ImportError;
use super::load::OUR_WEIGHTS;
use crate::config::speech_model::{Head, SpeechModel};
use crate::config::{Provenance, WaveformConfig};
use crate::files::write_whole;
use crate::model::checkpoint::{StoredAs, write};
use candle_core::Var;
use serde_json::Map;
use std::path::Path;

/// How a folder is written.
#[derive(Debug, Clone)]
pub struct WriteOptions<'a> {
    /// Name of the model.
    pub name: &'a str,
    /// How its numbers are stored; [`StoredAs::Exact`] keeps every one.
    pub stored_as: StoredAs,
    /// Languages whose adapters go along; all that are there where none is named.
    pub languages: &'a [String],
    /// Where the model comes from.
    pub provenance: Provenance,
}

impl SpeechModel {
    /// Writes the model as a folder of ours: `model.safetensors` with parameters under our names,
    /// which are those of fairseq, `vocab.json` and `adapter.LANG.safetensors` where there are
    /// tokens and adapters, and last `config.json`, without which a folder is no model.
    ///
    /// Tensors that no part of the model uses are left out.
    ///
    /// # Errors
    /// [`ImportError`] if a language has no adapter or a file cannot be written.
    pub fn write(&self, folder: &Path, options: &WriteOptions) -> Result<(), ImportError> {
        let put = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            write_whole(&path, bytes).map_err(|source| ImportError::Write { path, source })
        };
        let languages = match &self.head {
            Head::Languages(units) if options.languages.is_empty() => units.languages()?,
            // All of them are there before anything is written.
            Head::Languages(units) => {
                let names = options.languages.iter().map(|language| units.name_of(language));
                names.collect::<Result<_, _>>()?
            }
            _ => Vec::new(),
        };
        std::fs::create_dir_all(folder)
            .map_err(|source| ImportError::Write { path: folder.to_owned(), source })?;
        let mut all = self.parameters.all();
        match &self.head {
            Head::Ctc { tokens: Some(tokens), .. } => put("vocab.json", &json(&tokens.ids()))?,
            Head::Languages(units) => {
                let own = units.own();
                all.extend(own.parameters.all());
                let mut vocabularies = Map::new();
                vocabularies.insert(own.language.clone(), own.tokens.ids().into());
                for language in &languages {
                    // One at a time: a thousand of them are many gigabytes.
                    let Some(unit) = units.load(language)? else { continue };
                    vocabularies.insert(unit.language.clone(), unit.tokens.ids().into());
                    let name = format!("adapter.{}.safetensors", unit.language);
                    store(&folder.join(name), &unit.parameters.all(), options.stored_as)?;
                }
                put("vocab.json", &json(&vocabularies))?;
            }
            _ => {}
        }
        store(&folder.join(OUR_WEIGHTS), &all, options.stored_as)?;
        let config = WaveformConfig {
            name: options.name.to_owned(),
            provenance: Some(options.provenance.clone()),
            ..self.config.clone()
        };
        put("config.json", &json(&config))
    }
}

fn store(path: &Path, parameters: &[(String, Var)], how: StoredAs) -> Result<(), ImportError> {
    let tensors = parameters.iter().map(|(name, var)| (name.as_str(), var.as_tensor()));
    Ok(write(path, tensors, how)?)
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    let mut json = serde_json::to_vec_pretty(value).expect("plain data with names as keys");
    json.push(b'\n');
    json
}
