//! Tokens of a CTC model: the blank, one tag per language, characters.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{Read, Write};
use std::path::Path;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use unicode_normalization::UnicodeNormalization;

use super::{Language, TextError, shortened};

/// Token of the CTC blank, always id 0.
pub const BLANK_TOKEN: &str = "<blank>";
/// Token of a space, as in wav2vec2 vocabularies.
pub const SPACE_TOKEN: &str = "|";
/// Most tokens of a vocabulary.
pub const MAX_TOKENS: usize = 65_536;
/// Largest vocabulary file.
pub const MAX_VOCABULARY_BYTES: usize = 4 << 20;

/// A text as tokens.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Encoding {
    /// Token ids, `(tokens,)`, never the blank.
    pub tokens: Vec<u32>,
    /// Characters (after splitting Hangul syllables) that were dropped because they have no token.
    pub n_unknown: usize,
}

/// The tokens of a model, in both directions.
///
/// Id 0 is [`BLANK_TOKEN`]; then one tag `[eng]` per language; then characters, each one Unicode scalar value of NFC
/// text. Hangul syllables are spelt as two or three conjoining jamo, so that 11,172 syllables need 67 tokens; decoding
/// composes them again. A space is written [`SPACE_TOKEN`]; the character `|` itself has no token.
///
/// # Example
/// ```
/// use asr::text::Vocabulary;
///
/// let (korean, english) = ("kor".parse()?, "eng".parse()?);
/// let vocabulary = Vocabulary::build([korean, english], ["한 a"], 1)?;
/// assert_eq!(vocabulary.to_json(), r#"{"<blank>":0,"[eng]":1,"[kor]":2,"|":3,"a":4,"ᄒ":5,"ᅡ":6,"ᆫ":7}"#);
/// let encoding = vocabulary.encode("한!", korean)?;
/// assert_eq!((encoding.tokens.as_slice(), encoding.n_unknown), ([2, 5, 6, 7].as_slice(), 1));
/// assert_eq!(vocabulary.decode(&encoding.tokens), "한");
/// # Ok::<(), asr::text::TextError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vocabulary {
    /// Sorted as stored, ids `1..=languages.len()`.
    languages: Vec<Language>,
    /// Ids from `languages.len() + 1`.
    characters: Vec<char>,
    language_ids: HashMap<Language, u32>,
    character_ids: HashMap<char, u32>,
}

impl Vocabulary {
    /// Collects the characters of normalised transcripts that occur at least `min_count` times, sorted, after one tag
    /// per language, sorted. The space always has a token.
    ///
    /// # Errors
    /// [`TextError::VocabularyTokens`] beyond [`MAX_TOKENS`] tokens.
    pub fn build(
        languages: impl IntoIterator<Item = Language>,
        transcripts: impl IntoIterator<Item = impl AsRef<str>>,
        min_count: u64,
    ) -> Result<Self, TextError> {
        let languages: BTreeSet<Language> = languages.into_iter().collect();
        let mut counts: BTreeMap<char, u64> = BTreeMap::new();
        for transcript in transcripts {
            for c in spelling(transcript.as_ref()) {
                *counts.entry(c).or_default() += 1;
            }
        }
        let characters = counts
            .into_iter()
            .filter(|&(c, count)| c != ' ' && is_character_token(c) && count >= min_count)
            .map(|(c, _)| c);
        Self::from_parts(
            languages.into_iter().collect(),
            std::iter::once(' ').chain(characters).collect(),
        )
    }

    fn from_parts(languages: Vec<Language>, characters: Vec<char>) -> Result<Self, TextError> {
        let n_tokens = 1 + languages.len() + characters.len();
        if n_tokens > MAX_TOKENS {
            return Err(TextError::VocabularyTokens);
        }
        let language_ids = languages.iter().copied().zip(1..).collect();
        let character_ids = characters
            .iter()
            .copied()
            .zip(1 + languages.len() as u32..)
            .collect();
        Ok(Self {
            languages,
            characters,
            language_ids,
            character_ids,
        })
    }

    /// Number of tokens, the blank included; the width of the model's output.
    #[expect(clippy::len_without_is_empty, reason = "the blank is always there")]
    pub fn len(&self) -> usize {
        1 + self.languages.len() + self.characters.len()
    }

    /// The languages in the order of their ids.
    pub fn languages(&self) -> &[Language] {
        &self.languages
    }

    /// Ids of the language tags; the language of `1 + i` is `languages()[i]`.
    pub fn language_ids(&self) -> std::ops::Range<u32> {
        1..1 + self.languages.len() as u32
    }

    /// Whether `id` is a language tag.
    pub fn is_language(&self, id: u32) -> bool {
        self.language_ids().contains(&id)
    }

    /// The language whose tag `id` is.
    pub fn language_of(&self, id: u32) -> Option<Language> {
        self.languages.get((id as usize).checked_sub(1)?).copied()
    }

    /// The tag of a language.
    pub fn id_of_language(&self, language: Language) -> Option<u32> {
        self.language_ids.get(&language).copied()
    }

    /// The token of a character of NFC text; a space has one, a Hangul syllable has none of its own.
    pub fn id_of_character(&self, character: char) -> Option<u32> {
        self.character_ids.get(&character).copied()
    }

    /// The character that `id` stands for; `None` for the blank, language tags and ids past the end.
    pub fn character_of(&self, id: u32) -> Option<char> {
        self.characters
            .get((id as usize).checked_sub(1 + self.languages.len())?)
            .copied()
    }

    /// The token `id` as written in `vocab.json`.
    pub fn token(&self, id: u32) -> Option<String> {
        if id == 0 {
            return Some(BLANK_TOKEN.to_owned());
        }
        self.language_of(id)
            .map(|language| format!("[{language}]"))
            .or_else(|| self.character_of(id).map(character_token))
    }

    /// The tag of `language`, then the characters of `text`.
    ///
    /// `text` is normalised already ([`normalise`](super::normalise)); here it is only brought to NFC and Hangul is
    /// split. Characters without a token are dropped and counted.
    ///
    /// # Errors
    /// [`TextError::LanguageNotInVocabulary`].
    pub fn encode(&self, text: &str, language: Language) -> Result<Encoding, TextError> {
        let tag = self
            .id_of_language(language)
            .ok_or(TextError::LanguageNotInVocabulary { language })?;
        let mut encoding = self.encode_characters(text);
        encoding.tokens.insert(0, tag);
        Ok(encoding)
    }

    /// As [`encode`](Self::encode), without a language tag.
    pub fn encode_characters(&self, text: &str) -> Encoding {
        let mut encoding = Encoding::default();
        for c in spelling(text) {
            match self.id_of_character(c) {
                Some(id) => encoding.tokens.push(id),
                None => encoding.n_unknown += 1,
            }
        }
        encoding
    }

    /// The text of a token sequence, NFC; blanks, language tags and ids past the end have none.
    ///
    /// Repeats are kept: collapsing them is the decoder's work.
    pub fn decode(&self, tokens: &[u32]) -> String {
        tokens
            .iter()
            .filter_map(|&id| self.character_of(id))
            .nfc()
            .collect()
    }

    /// The JSON object of token to id, in the order of ids.
    pub fn to_json(&self) -> String {
        let mut bytes = Vec::new();
        let mut serializer = serde_json::Serializer::new(&mut bytes);
        let mut map = serializer
            .serialize_map(Some(self.len()))
            .expect("writing to memory does not fail");
        for id in 0..self.len() as u32 {
            map.serialize_entry(
                &self.token(id).expect("every id below len has a token"),
                &id,
            )
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
                return Err(TextError::VocabularyDuplicate {
                    token: shortened(token),
                });
            }
            match by_id.get_mut(*id as usize) {
                Some(slot @ None) => *slot = Some(token.as_str()),
                _ => {
                    return Err(TextError::VocabularyId {
                        token: shortened(token),
                        id: *id,
                    });
                }
            }
        }
        // As many distinct ids as slots, so every slot is filled.
        let mut tokens = by_id.into_iter().flatten();
        let first = tokens.next().unwrap_or_default();
        if first != BLANK_TOKEN {
            return Err(TextError::VocabularyBlank {
                token: shortened(first),
            });
        }
        let (mut languages, mut characters) = (Vec::new(), Vec::new());
        for token in tokens {
            if let Some(language) = language_token(token) {
                if !characters.is_empty() {
                    return Err(TextError::VocabularyOrder {
                        token: shortened(token),
                    });
                }
                languages.push(language);
            } else {
                let unusable = || TextError::VocabularyToken {
                    token: shortened(token),
                };
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
        let read = |source| TextError::Read {
            path: path.to_owned(),
            source,
        };
        let file = std::fs::File::open(path).map_err(read)?;
        let mut json = Vec::new();
        file.take(MAX_VOCABULARY_BYTES as u64 + 1)
            .read_to_end(&mut json)
            .map_err(read)?;
        Self::from_json(&json)
    }

    /// Writes `vocab.json`: to a temporary name beside it, then synced and renamed.
    ///
    /// # Errors
    /// [`TextError::Write`].
    pub fn save(&self, path: &Path) -> Result<(), TextError> {
        let write = |source| TextError::Write {
            path: path.to_owned(),
            source,
        };
        let mut name = path.as_os_str().to_owned();
        name.push(".partial");
        let partial = Path::new(&name);
        let mut file = std::fs::File::create(partial).map_err(write)?;
        file.write_all(self.to_json().as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(write)?;
        std::fs::rename(partial, path).map_err(write)
    }
}

/// The characters of NFC text with Hangul syllables split into jamo.
fn spelling(text: &str) -> impl Iterator<Item = char> {
    text.nfc().flat_map(|c| {
        let mut jamo = [Some(c), None, None];
        if ('\u{AC00}'..='\u{D7A3}').contains(&c) {
            let mut length = 0;
            unicode_normalization::char::decompose_canonical(c, |part| {
                jamo[length] = Some(part);
                length += 1;
            });
        }
        jamo.into_iter().flatten()
    })
}

/// Whether `c` can be a token: not the stand-in for a space, not a Hangul syllable, and unchanged by NFC on its own.
fn is_character_token(c: char) -> bool {
    c != '|' && !('\u{AC00}'..='\u{D7A3}').contains(&c) && std::iter::once(c).nfc().eq([c])
}

fn character_token(c: char) -> String {
    if c == ' ' {
        SPACE_TOKEN.to_owned()
    } else {
        c.to_string()
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

    fn languages(codes: &[&str]) -> Vec<Language> {
        codes
            .iter()
            .map(|code| code.parse().expect("well-formed"))
            .collect()
    }

    fn small() -> Vocabulary {
        Vocabulary::build(languages(&["swa", "eng"]), ["ab ba", "b|c"], 1).expect("small")
    }

    #[test]
    fn ids_are_blank_languages_space_characters() {
        let vocabulary = small();
        let tokens: Vec<String> = (0..8).map_while(|id| vocabulary.token(id)).collect();
        assert_eq!(tokens, ["<blank>", "[eng]", "[swa]", "|", "a", "b", "c"]);
        assert_eq!(vocabulary.len(), 7);
        assert_eq!(vocabulary.language_ids(), 1..3);
        assert_eq!(
            (0..9)
                .map(|id| vocabulary.is_language(id))
                .filter(|&is| is)
                .count(),
            2
        );
        assert_eq!(vocabulary.language_of(2), Some(languages(&["swa"])[0]));
        assert_eq!(
            [0, 3, 9, u32::MAX].map(|id| vocabulary.language_of(id)),
            [None; 4]
        );
        assert_eq!(
            [0, 1, 7, u32::MAX].map(|id| vocabulary.character_of(id)),
            [None; 4]
        );
    }

    #[test]
    fn rare_characters_are_left_out_and_counted() {
        let vocabulary = Vocabulary::build(languages(&["eng"]), ["aab", "ac"], 2).expect("small");
        assert_eq!(
            vocabulary.to_json(),
            r#"{"<blank>":0,"[eng]":1,"|":2,"a":3}"#
        );
        let encoding = vocabulary
            .encode("a cab|", languages(&["eng"])[0])
            .expect("known language");
        assert_eq!(
            encoding,
            Encoding {
                tokens: vec![1, 3, 2, 3],
                n_unknown: 3
            }
        );
        let error = vocabulary
            .encode("a", languages(&["fra"])[0])
            .expect_err("unknown language");
        assert_eq!(error.to_string(), "language `fra` is not in the vocabulary");
    }

    #[test]
    fn decoding_skips_what_is_not_text() {
        assert_eq!(
            small().decode(&[1, 4, 0, 0, 5, 3, 6, 2, 99, u32::MAX]),
            "ab c"
        );
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
        assert!(matches!(
            parse(r#"{"<blank>":0,"a":1,"a":2}"#),
            Err(VocabularyDuplicate { .. })
        ));
        assert!(matches!(
            parse(r#"{"<blank>":0,"a":0}"#),
            Err(VocabularyId { id: 0, .. })
        ));
        assert!(matches!(
            parse(r#"{"<blank>":0,"a":2}"#),
            Err(VocabularyId { id: 2, .. })
        ));
        assert!(matches!(
            parse(r#"{"<blank>":0,"a":4294967295}"#),
            Err(VocabularyId { .. })
        ));
        assert!(matches!(
            parse(r#"{"<blank>":0,"a":1,"[eng]":2}"#),
            Err(VocabularyOrder { .. })
        ));
        for token in [
            "", "ab", " ", "[en]", "[ENG]", "<unk>", "한", "e\u{301}", "\u{212B}",
        ] {
            let json = format!(r#"{{"<blank>":0,"{token}":1}}"#);
            assert!(
                matches!(parse(&json), Err(VocabularyToken { .. })),
                "{token}"
            );
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
        assert!(matches!(
            parse(&" ".repeat(MAX_VOCABULARY_BYTES + 1)),
            Err(VocabularyBytes)
        ));
        let many: String = (0..=MAX_TOKENS)
            .map(|id| format!("\"{id}\":{id},"))
            .collect();
        assert!(matches!(
            parse(&format!("{{{}}}", many.trim_end_matches(','))),
            Err(VocabularyTokens)
        ));
        let characters: String = ('\u{F0000}'..).take(MAX_TOKENS).collect();
        assert!(matches!(
            Vocabulary::build([], [characters], 1),
            Err(VocabularyTokens)
        ));
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
        fn hangul_survives_encoding(text in "[가-힣ᄀ-ᇿ ]{0,12}") {
            let vocabulary = Vocabulary::build(languages(&["kor"]), [&text], 1).expect("few characters");
            let encoding = vocabulary.encode_characters(&text);
            prop_assert_eq!(encoding.n_unknown, 0);
            prop_assert_eq!(vocabulary.decode(&encoding.tokens), text.nfc().collect::<String>());
        }

        #[test]
        fn bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), ids in any::<Vec<u32>>()) {
            let _ = Vocabulary::from_json(&bytes);
            let _ = small().decode(&ids);
        }
    }
}
