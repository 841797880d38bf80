//! MMS: one encoder, and for each language its adapters, output layer and tokens.

use super::error::ImportError;
use super::hugging_face::read_bytes;
use super::weights::Weights;
use crate::config::Spelling;
use crate::model::checkpoint::open;
use crate::model::{EncoderConfig, LanguageAdapter, Parameters, requirements};
use crate::text::{CtcTokens, Language, edit_counts};
use candle_nn::VarBuilder;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Similar names listed when a language is not there.
const NEAR: usize = 5;

/// What belongs together for one language.
#[derive(Debug)]
pub struct LanguageUnit {
    /// Its name in the model, such as `fra` or `kmr-script_latin`.
    pub language: String,
    /// Adapters and output layer.
    pub adapter: LanguageAdapter,
    /// Tokens of the output layer.
    pub tokens: CtcTokens,
    /// What the adapter is built on.
    pub(in crate::config) parameters: Parameters,
}

/// The languages of an MMS folder; each is read when it is first asked for, then kept.
#[derive(Debug)]
pub struct LanguageUnits {
    folder: PathBuf,
    config: EncoderConfig,
    spelling: Spelling,
    own: Arc<LanguageUnit>,
    loaded: Mutex<HashMap<String, Arc<LanguageUnit>>>,
}

impl LanguageUnits {
    pub(super) fn new(
        folder: &Path,
        config: &EncoderConfig,
        spelling: Spelling,
        own: LanguageUnit,
    ) -> Self {
        Self {
            folder: folder.to_owned(),
            config: config.clone(),
            spelling,
            own: Arc::new(own),
            loaded: Mutex::default(),
        }
    }

    /// The language whose adapters are in the model file itself.
    #[must_use]
    pub fn own(&self) -> &Arc<LanguageUnit> {
        &self.own
    }

    /// Names of the languages, sorted.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn languages(&self) -> Result<Vec<String>, ImportError> {
        let io = |source| ImportError::Io { path: self.folder.clone(), source };
        let mut languages = vec![self.own.language.clone()];
        for entry in std::fs::read_dir(&self.folder).map_err(io)? {
            let name = entry.map_err(io)?.file_name();
            let name = name.to_string_lossy();
            if let Some(rest) = name.strip_prefix("adapter.") {
                let language = rest.strip_suffix(".safetensors").or(rest.strip_suffix(".bin"));
                languages.extend(language.map(str::to_owned));
            }
        }
        languages.sort();
        languages.dedup();
        Ok(languages)
    }

    /// Adapters, output layer and tokens of a language by its name in the model, or by any code
    /// or name of the language (`fr`, `French`) where the model calls it by its ISO 639-3 code.
    ///
    /// # Errors
    /// [`ImportError::Language`] with similar names if there is none; if its parts do not fit
    /// each other or the encoder.
    pub fn get(&self, language: &str) -> Result<Arc<LanguageUnit>, ImportError> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(unit) = loaded.get(language) {
            return Ok(Arc::clone(unit));
        }
        let unit = match self.load(language)? {
            Some(unit) => Arc::new(unit),
            None => Arc::clone(&self.own),
        };
        loaded.insert(language.to_owned(), Arc::clone(&unit));
        Ok(unit)
    }

    /// What the model calls a language.
    ///
    /// # Errors
    /// As [`LanguageUnits::get`].
    pub(super) fn name_of(&self, language: &str) -> Result<String, ImportError> {
        let languages = self.languages()?;
        let is_known = |name: &String| languages.contains(name);
        spellings(language).into_iter().find(is_known).ok_or_else(|| ImportError::Language {
            name: self.folder.display().to_string(),
            language: language.chars().take(64).collect(),
            near: near(language, self.named()),
        })
    }

    /// As [`LanguageUnits::get`], without keeping it; `None` is the model's own.
    pub(super) fn load(&self, language: &str) -> Result<Option<LanguageUnit>, ImportError> {
        // A name from the folder's own list: nothing else is ever part of a path.
        let name = self.name_of(language)?;
        let files = ["safetensors", "bin"]
            .map(|ending| self.folder.join(format!("adapter.{name}.{ending}")));
        let Some(file) = files.iter().find(|path| path.is_file()) else { return Ok(None) };
        let tokens = read_tokens(&self.folder, Some(&name), &self.spelling)?;
        let mut weights = Weights::of_adapter(open(file)?)?;
        unit(&name, &self.config, tokens, &mut weights).map(Some)
    }

    /// Every language that the folder names, whether its adapter is there or may still be
    /// downloaded.
    fn named(&self) -> Vec<String> {
        let vocabulary = read_bytes(&self.folder.join("vocab.json")).ok().flatten();
        let mut named =
            vocabulary.and_then(|json| CtcTokens::languages(&json).ok()).unwrap_or_default();
        named.extend(self.languages().unwrap_or_default());
        named.sort();
        named.dedup();
        named
    }
}

/// What a model may call the language that was asked for: that, or its ISO 639-3 code.
fn spellings(language: &str) -> Vec<String> {
    let code = Language::lookup(language).map(|code| code.to_string());
    let names_script = language.contains(['-', '_']);
    // `kmr-script_arabic` is not served by an adapter of `kmr`.
    std::iter::once(language.to_owned()).chain(code.filter(|_| !names_script)).collect()
}

/// Reads `vocab.json` of a folder.
pub(super) fn read_tokens(
    folder: &Path,
    language: Option<&str>,
    spelling: &Spelling,
) -> Result<CtcTokens, ImportError> {
    let path = folder.join("vocab.json");
    let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
    let json = read_bytes(&path)?
        .ok_or_else(|| ImportError::Io { path: path.clone(), source: missing })?;
    CtcTokens::from_json(&json, language, &spelling.blank, &spelling.delimiter)
        .map_err(|source| ImportError::Vocabulary { path, source })
}

/// Reads and builds what belongs to a language, if the output layer has as many rows as there are
/// tokens.
pub(super) fn unit(
    language: &str,
    config: &EncoderConfig,
    tokens: CtcTokens,
    weights: &mut Weights,
) -> Result<LanguageUnit, ImportError> {
    let name = weights.file().name().to_owned();
    check_vocabulary(weights, tokens.len())?;
    let build = |vb: &VarBuilder| LanguageAdapter::new(config, tokens.len(), vb);
    let model_error = |source| ImportError::Model { name: name.clone(), source: Box::new(source) };
    let parameters = Parameters::default();
    weights.read(&requirements(build).map_err(model_error)?, &parameters)?;
    let adapter = build(&parameters.frozen()).map_err(model_error)?;
    Ok(LanguageUnit { language: language.to_owned(), adapter, tokens, parameters })
}

/// That the output layer has a row for each token.
pub(super) fn check_vocabulary(weights: &Weights, tokens: usize) -> Result<(), ImportError> {
    match weights.shape("proj.weight").as_deref() {
        Some([outputs, _]) if *outputs != tokens => Err(ImportError::VocabularySize {
            name: weights.file().name().to_owned(),
            tokens,
            outputs: *outputs,
        }),
        _ => Ok(()),
    }
}

/// The known names most like `language`: those of the same code first.
fn near(language: &str, mut known: Vec<String>) -> Vec<String> {
    known.retain(|name| name != language);
    let letters = |name: &str| name.to_lowercase().chars().take(32).collect::<Vec<_>>();
    let code = |name: &str| match Language::lookup(name) {
        Some(language) => language.to_string(),
        None => name.split(['-', '_']).next().unwrap_or_default().to_lowercase(),
    };
    let wanted = letters(language);
    known.sort_by_cached_key(|name| {
        let distance = edit_counts(&letters(name), &wanted).errors();
        (code(name) != code(language), distance, name.clone())
    });
    known.retain(|name| {
        code(name) == code(language) || edit_counts(&letters(name), &wanted).errors() <= 2
    });
    known.truncate(NEAR);
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_same_code_come_first() {
        let known = ["eng", "fra", "kmr-script_latin", "kma"].map(str::to_owned).to_vec();
        assert_eq!(near("kmr", known.clone()), ["kmr-script_latin", "kma"]);
        assert_eq!(near("en", known.clone()), ["eng"]);
        assert_eq!(near("ku-Latn", vec!["kur-script_latin".into()]), ["kur-script_latin"]);
        assert!(near("quechua", known).is_empty());
    }

    #[test]
    fn languages_go_by_their_code_and_scripts_by_their_name() {
        for (asked, spelled) in [
            ("fr", &["fr", "fra"][..]),
            ("French", &["French", "fra"]),
            ("azj-script_cyrillic", &["azj-script_cyrillic"]),
            ("??", &["??"]),
        ] {
            assert_eq!(spellings(asked), spelled);
        }
    }
}
