//! Vocabularies as JSON files, `token -> id`, read with hostile files in mind.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};

use crate::files::write_whole;

use super::vocabulary::is_character_token;
use super::{BLANK_TOKEN, Language, MAX_TOKENS, SPACE_TOKEN, TextError, Vocabulary, shortened};

/// Largest vocabulary file.
pub const MAX_VOCABULARY_BYTES: usize = 4 << 20;

impl Vocabulary {
    /// The JSON object of token to id, in the order of ids.
    pub fn to_json(&self) -> String {
        let mut bytes = Vec::new();
        let mut serializer = serde_json::Serializer::new(&mut bytes);
        let mut map =
            serializer.serialize_map(Some(self.len())).expect("writing to memory does not fail");
        for id in 0..self.len() as u32 {
            map.serialize_entry(&self.token(id).expect("every id below len has a token"), &id)
                .expect("writing to memory does not fail");
        }
        map.end().expect("writing to memory does not fail");
        String::from_utf8(bytes).expect("serde_json writes UTF-8")
    }

    /// Reads a JSON object of token to id.
    ///
    /// The tokens may be in any order; their ids must be 0, 1, 2, ... each once: the blank, language tags, characters.
    /// Memory is bounded by the limits below, whatever the input.
    ///
    /// # Errors
    /// The `Vocabulary...` variants of [`TextError`]: too large, not such an object, a token that is none of ours,
    /// duplicates, gaps, no blank at 0, a language tag after a character.
    pub fn from_json(json: &[u8]) -> Result<Self, TextError> {
        if json.len() > MAX_VOCABULARY_BYTES {
            return Err(TextError::VocabularyBytes);
        }
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let entries = deserializer.deserialize_map(EntriesVisitor)?;
        deserializer.end()?;
        Self::from_entries(&entries)
    }

    fn from_entries(entries: &[(String, u32)]) -> Result<Self, TextError> {
        if entries.len() > MAX_TOKENS {
            return Err(TextError::VocabularyTokens);
        }
        let mut seen = BTreeSet::new();
        let mut by_id: Vec<Option<&str>> = vec![None; entries.len()];
        for (token, id) in entries {
            if !seen.insert(token.as_str()) {
                return Err(TextError::VocabularyDuplicate { token: shortened(token) });
            }
            match by_id.get_mut(*id as usize) {
                Some(slot @ None) => *slot = Some(token.as_str()),
                _ => {
                    return Err(TextError::VocabularyId { token: shortened(token), id: *id });
                }
            }
        }
        // As many distinct ids as slots, so every slot is filled.
        let mut tokens = by_id.into_iter().flatten();
        let first = tokens.next().unwrap_or_default();
        if first != BLANK_TOKEN {
            return Err(TextError::VocabularyBlank { token: shortened(first) });
        }
        let (mut languages, mut characters) = (Vec::new(), Vec::new());
        for token in tokens {
            if let Some(language) = language_token(token) {
                if !characters.is_empty() {
                    return Err(TextError::VocabularyOrder { token: shortened(token) });
                }
                languages.push(language);
            } else {
                let unusable = || TextError::VocabularyToken { token: shortened(token) };
                characters.push(token_character(token).ok_or_else(unusable)?);
            }
        }
        Self::from_parts(languages, characters)
    }

    /// Reads `vocab.json`.
    ///
    /// # Errors
    /// [`TextError::Read`], and as [`from_json`](Self::from_json).
    pub fn load(path: &Path) -> Result<Self, TextError> {
        let read = |source| TextError::Read { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(read)?;
        let mut json = Vec::new();
        file.take(MAX_VOCABULARY_BYTES as u64 + 1).read_to_end(&mut json).map_err(read)?;
        Self::from_json(&json)
    }

    /// Writes `vocab.json`: to a temporary name beside it, then synced and renamed.
    ///
    /// # Errors
    /// [`TextError::Write`].
    pub fn save(&self, path: &Path) -> Result<(), TextError> {
        write_whole(path, self.to_json().as_bytes())
            .map_err(|source| TextError::Write { path: path.to_owned(), source })
    }
}

fn language_token(token: &str) -> Option<Language> {
    Language::from_code(token.strip_prefix('[')?.strip_suffix(']')?)
}

fn token_character(token: &str) -> Option<char> {
    if token == SPACE_TOKEN {
        return Some(' ');
    }
    let mut characters = token.chars();
    let c = characters.next()?;
    (characters.next().is_none() && c != ' ' && is_character_token(c)).then_some(c)
}

/// Collects the entries of a JSON object, duplicates included; one more than [`MAX_TOKENS`] stands for too many.
struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Vec<(String, u32)>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object of token to id")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while entries.len() <= MAX_TOKENS
            && let Some(entry) = map.next_entry()?
        {
            entries.push(entry);
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use unicode_normalization::UnicodeNormalization;

    fn languages(codes: &[&str]) -> Vec<Language> {
        codes.iter().map(|code| code.parse().expect("well-formed")).collect()
    }

    fn small() -> Vocabulary {
        Vocabulary::build(languages(&["swa", "eng"]), ["ab ba", "b|c"], 1).expect("small")
    }

    #[test]
    fn files_round_trip_in_any_order() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("vocab.json");
        small().save(&path).expect("writable");
        assert_eq!(Vocabulary::load(&path).expect("valid"), small());
        assert_eq!(
            std::fs::read_dir(folder.path()).expect("readable").count(),
            1,
            "no partial file stays"
        );
        let shuffled = br#"{"c":6,"|":3,"[swa]":2,"b":5,"<blank>":0,"a":4,"[eng]":1}"#;
        assert_eq!(Vocabulary::from_json(shuffled).expect("valid"), small());
        assert!(matches!(
            Vocabulary::load(&folder.path().join("none")),
            Err(TextError::Read { .. })
        ));
        assert!(matches!(
            small().save(&folder.path().join("none/vocab.json")),
            Err(TextError::Write { .. })
        ));
    }

    #[test]
    fn hostile_files_are_errors() {
        let parse = |json: &str| Vocabulary::from_json(json.as_bytes());
        use TextError::{
            VocabularyBlank, VocabularyBytes, VocabularyDuplicate, VocabularyId, VocabularyJson,
            VocabularyOrder, VocabularyToken, VocabularyTokens,
        };
        assert!(matches!(parse("{}"), Err(VocabularyBlank { .. })));
        assert!(matches!(parse(r#"{"a":0}"#), Err(VocabularyBlank { .. })));
        assert!(matches!(parse(r#"{"<blank>":0,"a":1,"a":2}"#), Err(VocabularyDuplicate { .. })));
        assert!(matches!(parse(r#"{"<blank>":0,"a":0}"#), Err(VocabularyId { id: 0, .. })));
        assert!(matches!(parse(r#"{"<blank>":0,"a":2}"#), Err(VocabularyId { id: 2, .. })));
        assert!(matches!(parse(r#"{"<blank>":0,"a":4294967295}"#), Err(VocabularyId { .. })));
        assert!(matches!(parse(r#"{"<blank>":0,"a":1,"[eng]":2}"#), Err(VocabularyOrder { .. })));
        for token in ["", "ab", " ", "[en]", "[ENG]", "<unk>", "한", "e\u{301}", "\u{212B}"] {
            let json = format!(r#"{{"<blank>":0,"{token}":1}}"#);
            assert!(matches!(parse(&json), Err(VocabularyToken { .. })), "{token}");
        }
        for json in [
            "",
            "[",
            "[]",
            "null",
            "{\"<blank>\":0",
            r#"{"<blank>":-1}"#,
            r#"{"<blank>":0.5}"#,
            r#"{"<blank>":"0"}"#,
            r#"{"<blank>":99999999999}"#,
            r#"{"<blank>":0} x"#,
            r#"{"<blank>":{"a":{"b":1}}}"#,
            "{\"\\ud800\":0}",
        ] {
            assert!(matches!(parse(json), Err(VocabularyJson(_))), "{json}");
        }
        assert!(matches!(parse(&" ".repeat(MAX_VOCABULARY_BYTES + 1)), Err(VocabularyBytes)));
        let many: String = (0..=MAX_TOKENS).map(|id| format!("\"{id}\":{id},")).collect();
        assert!(matches!(
            parse(&format!("{{{}}}", many.trim_end_matches(','))),
            Err(VocabularyTokens)
        ));
        let characters: String = ('\u{F0000}'..).take(MAX_TOKENS).collect();
        assert!(matches!(Vocabulary::build([], [characters], 1), Err(VocabularyTokens)));
        let long = parse(&format!(r#"{{"<blank>":0,"{}":1}}"#, "x".repeat(100_000)))
            .expect_err("token too long");
        assert!(long.to_string().len() < 300);
    }

    proptest! {
        #[test]
        fn known_text_survives_encoding(texts in prop::collection::vec(any::<String>(), 1..4)) {
            let vocabulary = Vocabulary::build(languages(&["eng", "swa"]), &texts, 1).expect("few characters");
            let back = Vocabulary::from_json(vocabulary.to_json().as_bytes()).expect("own output");
            prop_assert_eq!(&back, &vocabulary);
            for text in &texts {
                let encoding = vocabulary.encode(text, languages(&["swa"])[0]).expect("known language");
                let bars = text.matches('|').count();
                prop_assert_eq!(encoding.n_unknown, bars);
                prop_assert!(encoding.tokens.iter().all(|&id| id > 0 && (id as usize) < vocabulary.len()));
                if bars == 0 {
                    prop_assert_eq!(vocabulary.decode(&encoding.tokens), text.nfc().collect::<String>());
                }
            }
        }

        #[test]
        fn bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), ids in any::<Vec<u32>>()) {
            let _ = Vocabulary::from_json(&bytes);
            let _ = small().decode(&ids);
        }
    }
}
