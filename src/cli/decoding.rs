//! The options that say how text is searched for.

use super::Talk;
use super::failure::{AnyError, CliError};
use super::model::LoadedModel;
use crate::decode::lm::{Alphabet, Hotwords, LanguageModel, LmUnit, LmWeights, NgramModel};
use crate::decode::{BeamOptions, Decoding};
use crate::text::Language;
use clap::{Args, ValueEnum};
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Width of the search where something needs one and none is given.
const DEFAULT_BEAM: usize = 16;
/// Largest list of hotwords.
const MAX_HOTWORD_BYTES: u64 = 16 << 20;

#[derive(Debug, Args)]
#[command(next_help_heading = "Decoding")]
pub(super) struct DecodingArgs {
    /// Search among this many hypotheses instead of taking the best path [default: 16 with `--lm` or `--hotwords`]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    beam: Option<u16>,
    /// Language model: an n-gram model in ARPA format (gzipped or not), or a folder of models named
    /// after languages, such as `swa.arpa.gz`, each used where its language is spoken
    #[arg(long, value_name = "ARPA|DIR")]
    lm: Option<PathBuf>,
    /// Factor of the language model's log-probability
    #[arg(long, value_name = "X", default_value_t = 0.5, allow_negative_numbers = true)]
    lm_weight: f64,
    /// Nats for every word (with a character model, for every character)
    #[arg(long, value_name = "X", default_value_t = 0.5, allow_negative_numbers = true)]
    lm_bonus: f64,
    /// What the language model's words are: words between spaces, or characters
    #[arg(long, value_enum, default_value_t = Unit::Auto)]
    lm_unit: Unit,
    /// File with a word or phrase per line that is preferred, with its own weight after a tab if wanted
    #[arg(long, value_name = "FILE")]
    hotwords: Option<PathBuf>,
    /// Nats for every character of a hotword
    #[arg(long, value_name = "X", default_value_t = 1.5)]
    hotword_weight: f64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Unit {
    Auto,
    Word,
    Char,
}

impl DecodingArgs {
    /// Has the model search for text as asked. Hotwords are normalised as in `language`.
    pub(super) fn apply(
        &self,
        model: &mut LoadedModel,
        language: Option<Language>,
        talk: Talk,
    ) -> Result<(), AnyError> {
        if self.beam.is_some() || self.lm.is_some() || self.hotwords.is_some() {
            let decoding = self.load(model.frames()?.reader().alphabet(), language, talk)?;
            model.transcriber.set_decoding(decoding);
        }
        Ok(())
    }

    fn load(
        &self,
        alphabet: &Alphabet,
        language: Option<Language>,
        talk: Talk,
    ) -> Result<Decoding, AnyError> {
        let mut decoding = Decoding {
            weights: LmWeights { weight: self.lm_weight, bonus: self.lm_bonus, closed: true },
            ..Decoding::default()
        };
        let wanted = self.beam.map(usize::from);
        let needed = self.lm.is_some() || self.hotwords.is_some();
        decoding.beam = wanted.or(needed.then_some(DEFAULT_BEAM)).map(BeamOptions::new);
        match &self.lm {
            Some(path) if path.is_dir() => decoding.models = self.folder(path, alphabet)?,
            Some(path) => decoding.model = Some(Arc::new(self.model(path, alphabet)?)),
            None => {}
        }
        if let Some(path) = &self.hotwords {
            let language = match language {
                Some(language) => language,
                None => "eng".parse()?,
            };
            let read = |source| CliError::Read { path: path.clone(), source };
            let mut list = String::new();
            let file = File::open(path).map_err(read)?;
            file.take(MAX_HOTWORD_BYTES).read_to_string(&mut list).map_err(read)?;
            let (hotwords, unusable) =
                Hotwords::parse(&list, language, self.hotword_weight, alphabet)
                    .map_err(|source| CliError::Hotwords { path: path.clone(), source })?;
            for word in &unusable {
                talk.warn(format_args!("the model cannot write the hotword `{word}`"));
            }
            decoding.hotwords = Some(Arc::new(hotwords));
        }
        Ok(decoding)
    }

    fn model(&self, path: &Path, alphabet: &Alphabet) -> Result<LanguageModel, AnyError> {
        let file =
            File::open(path).map_err(|source| CliError::Read { path: path.to_owned(), source })?;
        let ngrams = NgramModel::read(file)
            .map_err(|source| CliError::LanguageModel { path: path.to_owned(), source })?;
        let unit = match self.lm_unit {
            Unit::Auto => None,
            Unit::Word => Some(LmUnit::Word),
            Unit::Char => Some(LmUnit::Character),
        };
        Ok(LanguageModel::new(ngrams, unit, alphabet))
    }

    /// Models named after their languages.
    fn folder(
        &self,
        folder: &Path,
        alphabet: &Alphabet,
    ) -> Result<HashMap<Language, Arc<LanguageModel>>, AnyError> {
        let read = |source| CliError::Read { path: folder.to_owned(), source };
        let mut models = HashMap::new();
        for entry in std::fs::read_dir(folder).map_err(read)? {
            let path = entry.map_err(read)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let stem = name.strip_suffix(".arpa").or_else(|| name.strip_suffix(".arpa.gz"));
            let Some(stem) = stem else { continue };
            let language: Language = stem.parse()?;
            models.insert(language, Arc::new(self.model(&path, alphabet)?));
        }
        if models.is_empty() {
            return Err(CliError::NoLanguageModels { folder: folder.to_owned() }.into());
        }
        Ok(models)
    }
}
