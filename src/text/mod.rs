//! Text on its way into and out of models: languages, transcript normalisation, vocabularies, error rates.
//!
//! The layer stands alone: it knows nothing of audio, models, training or terminals.

mod ctc_tokens;
mod edit_distance;
mod language;
mod ml_superb;
mod ml_superb2;
mod monolingual;
mod normalise;
mod place;
mod punctuation;
mod score;
mod score_table;
mod script;
mod superb;
pub mod timed;
mod transcripts;
mod vocabulary;
mod vocabulary_file;

pub use ctc_tokens::CtcTokens;
pub use edit_distance::{EditCounts, edit_counts};
pub use language::{Language, languages};
pub use ml_superb::{MlSuperbGroup, MlSuperbReport, RESERVED_LANGUAGES, normalise_ml_superb};
pub use ml_superb2::{MlSuperb2Language, MlSuperb2Report};
pub use monolingual::{
    MONOLINGUAL, MonolingualConfig, MonolingualError, mean_of_languages, monolingual_rate,
};
pub use normalise::normalise;
pub use place::place_of_language;
pub use score::{
    PlainLanguage, PlainReport, Scheme, ScoreError, ScoreReport, UtteranceScore, Variant,
    count_characters, count_words, score, score_utterances,
};
pub use script::{has_letter, is_unspaced};
pub use superb::{SuperbResults, superb_score};
pub use timed::TimedWord;
pub use transcripts::{MAX_UTTERANCE_CHARS, NamedIds, Side};
pub use vocabulary::{BLANK_TOKEN, Encoding, MAX_TOKENS, SPACE_TOKEN, Vocabulary, spelling};
pub use vocabulary_file::MAX_VOCABULARY_BYTES;

use std::path::PathBuf;

/// The words of a text with one space between them, on one line.
#[must_use]
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Why a language, a text or a vocabulary was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// Neither a code nor a name of a language.
    #[error("unknown language `{given}`{}", did_you_mean(suggestions))]
    Language {
        /// What was given, cut to 64 characters.
        given: String,
        /// Known languages with a similar code or name, closest first.
        suggestions: Vec<Language>,
    },
    /// A language without a token in the vocabulary.
    #[error("language `{language}` is not in the vocabulary")]
    LanguageNotInVocabulary {
        /// The language asked for.
        language: Language,
    },
    /// A vocabulary file that cannot be read.
    #[error("cannot read vocabulary `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A vocabulary file that cannot be written.
    #[error("cannot write vocabulary `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A vocabulary file larger than [`MAX_VOCABULARY_BYTES`].
    #[error("vocabulary has more than {MAX_VOCABULARY_BYTES} bytes")]
    VocabularyBytes,
    /// A vocabulary that is not a JSON object of token to id.
    #[error("vocabulary is not a JSON object of token to id")]
    VocabularyJson(#[from] serde_json::Error),
    /// More tokens than [`MAX_TOKENS`].
    #[error("vocabulary has more than {MAX_TOKENS} tokens")]
    VocabularyTokens,
    /// A token that is neither the blank, nor a language tag, nor one character; cut to 64 characters.
    #[error(
        "vocabulary token `{token}` is not {BLANK_TOKEN}, [language] or one character in normal form"
    )]
    VocabularyToken {
        /// The token.
        token: String,
    },
    /// A token listed twice.
    #[error("vocabulary lists token `{token}` twice")]
    VocabularyDuplicate {
        /// The token.
        token: String,
    },
    /// Ids that are not 0, 1, 2, ... each once.
    #[error("vocabulary gives token `{token}` id {id}, which is taken or leaves a gap")]
    VocabularyId {
        /// The token.
        token: String,
        /// Its id.
        id: u32,
    },
    /// Id 0 is not the blank.
    #[error("vocabulary has `{token}` at id 0, expected {BLANK_TOKEN}")]
    VocabularyBlank {
        /// The token found at id 0; empty in an empty vocabulary.
        token: String,
    },
    /// A vocabulary with tokens for each language, but not for the one wanted.
    #[error("vocabulary has no tokens for language `{language}`")]
    VocabularyLanguage {
        /// The language.
        language: String,
    },
    /// A language tag after a character.
    #[error("vocabulary has language tag `{token}` after its characters")]
    VocabularyOrder {
        /// The tag.
        token: String,
    },
}

fn did_you_mean(suggestions: &[Language]) -> String {
    let mut text = String::new();
    for (index, language) in suggestions.iter().enumerate() {
        text.push_str(match index {
            0 => ", did you mean ",
            _ if index + 1 == suggestions.len() => " or ",
            _ => ", ",
        });
        text.push_str(&format!("`{language}`"));
        if let Some(name) = language.name() {
            text.push_str(&format!(" ({name})"));
        }
    }
    text
}

/// The first 64 characters of hostile text, for error messages.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}
