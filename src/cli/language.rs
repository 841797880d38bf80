//! The option that says where the language is taken from.

use super::failure::AnyError;
use super::model::LoadedModel;
use crate::decode::LanguageSource;
use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub(super) struct LanguageArgs {
    /// Where the language is taken from: the tag that the text begins with, what the model has
    /// besides (a head for languages, or a CTC output inside the encoder), or both; `auto` is
    /// the head where there is one, else the tag
    #[arg(long, value_enum, default_value_t = Source::Auto)]
    lid_from: Source,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Source {
    Auto,
    Tag,
    Aux,
    Both,
}

impl LanguageArgs {
    /// Has the model take the language from where it is asked to.
    pub(super) fn apply(&self, model: &mut LoadedModel) -> Result<(), AnyError> {
        let source = match self.lid_from {
            Source::Auto => return Ok(()),
            Source::Tag => LanguageSource::Tag,
            Source::Aux => LanguageSource::Aux,
            Source::Both => LanguageSource::Both,
        };
        Ok(model.transcriber.set_language_source(source)?)
    }
}
