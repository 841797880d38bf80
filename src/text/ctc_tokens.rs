//! Tokens of CTC models made elsewhere: any list of strings.

use super::{TextError, shortened};
use serde::Deserialize;
use std::collections::HashMap;

/// Most tokens of one language.
const MAX_TOKENS: usize = 262_144;

/// The tokens of a Hugging Face CTC model and how they spell text.
///
/// # Example
/// ```
/// use asr::text::CtcTokens;
///
/// let json = br#"{"<pad>": 0, "|": 1, "a": 2, "b": 3}"#;
/// let tokens = CtcTokens::from_json(json, None, "<pad>", "|")?;
/// assert_eq!(tokens.decode(&[0, 2, 2, 0, 2, 1, 1, 3]), "aa b");
/// # Ok::<(), asr::text::TextError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CtcTokens {
    tokens: Vec<String>,
    blank: u32,
    delimiter: Option<u32>,
}

/// `vocab.json`: tokens of the one language or of each.
#[derive(Deserialize)]
#[serde(untagged)]
enum File {
    One(HashMap<String, u32>),
    Each(HashMap<String, HashMap<String, u32>>),
}

impl CtcTokens {
    /// Reads a JSON object of token to id, or of language to such an object, of which that of
    /// `language` is taken. `blank` and `delimiter` are the tokens between repeats and between
    /// words.
    ///
    /// # Errors
    /// [`TextError`]: not such an object, no such language, no blank, ids that are not 0, 1, 2,
    /// ... each once.
    pub fn from_json(
        json: &[u8],
        language: Option<&str>,
        blank: &str,
        delimiter: &str,
    ) -> Result<Self, TextError> {
        let ids = match (serde_json::from_slice(json)?, language) {
            (File::One(ids), _) => ids,
            (File::Each(mut each), Some(language)) => each
                .remove(language)
                .ok_or_else(|| TextError::VocabularyLanguage { language: shortened(language) })?,
            (File::Each(_), None) => {
                return Err(TextError::VocabularyLanguage { language: "(none chosen)".into() });
            }
        };
        if ids.len() > MAX_TOKENS {
            return Err(TextError::VocabularyTokens);
        }
        let mut tokens: Vec<Option<String>> = vec![None; ids.len()];
        for (token, id) in ids {
            match tokens.get_mut(id as usize) {
                Some(slot @ None) => *slot = Some(token),
                _ => return Err(TextError::VocabularyId { token: shortened(&token), id }),
            }
        }
        // As many distinct ids as slots, so every slot is filled.
        let tokens: Vec<String> = tokens.into_iter().flatten().collect();
        let id_of = |wanted: &str| tokens.iter().position(|t| t == wanted).map(|id| id as u32);
        let blank =
            id_of(blank).ok_or_else(|| TextError::VocabularyToken { token: shortened(blank) })?;
        Ok(Self { delimiter: id_of(delimiter), blank, tokens })
    }

    /// Languages of a file that has tokens for each; empty for one of a single language.
    ///
    /// # Errors
    /// [`TextError`] if it is neither.
    pub fn languages(json: &[u8]) -> Result<Vec<String>, TextError> {
        Ok(match serde_json::from_slice(json)? {
            File::One(_) => Vec::new(),
            File::Each(each) => {
                let mut languages: Vec<String> = each.into_keys().collect();
                languages.sort();
                languages
            }
        })
    }

    /// Number of tokens, the blank included.
    #[expect(clippy::len_without_is_empty, reason = "the blank is always there")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Id of the blank.
    #[must_use]
    pub fn blank(&self) -> u32 {
        self.blank
    }

    /// Id of the token between words, where there is one.
    #[must_use]
    pub fn delimiter(&self) -> Option<u32> {
        self.delimiter
    }

    /// The token of an id.
    #[must_use]
    pub fn token(&self, id: u32) -> Option<&str> {
        self.tokens.get(id as usize).map(String::as_str)
    }

    /// The tokens with their ids, in the order of ids: what [`CtcTokens::from_json`] reads.
    #[must_use]
    pub fn ids(&self) -> serde_json::Map<String, serde_json::Value> {
        self.tokens.iter().cloned().zip((0_u32..).map(Into::into)).collect()
    }

    /// Text of the likeliest token of each frame: repeats merged, blanks dropped, words
    /// parted. Special tokens such as `<unk>` stay, as in transformers.
    #[must_use]
    pub fn decode(&self, frames: &[u32]) -> String {
        let mut text = String::new();
        let mut previous = None;
        for &id in frames {
            if previous != Some(id) && id != self.blank {
                match self.token(id) {
                    Some(_) if Some(id) == self.delimiter => text.push(' '),
                    Some(token) => text.push_str(token),
                    None => {}
                }
            }
            previous = Some(id);
        }
        text.trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_asked_for_is_taken() -> Result<(), TextError> {
        let json = br#"{"eng": {"<pad>": 0, "|": 1, "a": 2}, "fra": {"<pad>": 0, "e": 1}}"#;
        assert_eq!(CtcTokens::from_json(json, Some("fra"), "<pad>", "|")?.decode(&[1, 0, 1]), "ee");
        assert_eq!(CtcTokens::languages(json)?, ["eng", "fra"]);
        for language in [None, Some("deu")] {
            let error = CtcTokens::from_json(json, language, "<pad>", "|");
            assert!(matches!(error, Err(TextError::VocabularyLanguage { .. })), "{error:?}");
        }
        Ok(())
    }

    #[test]
    fn gaps_and_missing_blanks_are_errors() {
        for (json, blank) in [
            (&br#"{"a": 0, "b": 2}"#[..], "a"),
            (br#"{"a": 0, "b": 0}"#, "a"),
            (br#"{"a": 0}"#, "<pad>"),
            (br#"{"a": -1}"#, "a"),
            (br#"[1]"#, "a"),
            (b"{", "a"),
        ] {
            assert!(CtcTokens::from_json(json, None, blank, "|").is_err());
        }
    }
}
