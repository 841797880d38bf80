//! Tokens of a CTC model: the blank, one tag per language, characters.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use unicode_normalization::UnicodeNormalization;

use super::{Language, TextError};

/// Token of the CTC blank, always id 0.
pub const BLANK_TOKEN: &str = "<blank>";
/// Token of a space, as in wav2vec2 vocabularies.
pub const SPACE_TOKEN: &str = "|";
/// Most tokens of a vocabulary.
pub const MAX_TOKENS: usize = 65_536;
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

    pub(super) fn from_parts(
        languages: Vec<Language>,
        characters: Vec<char>,
    ) -> Result<Self, TextError> {
        let n_tokens = 1 + languages.len() + characters.len();
        if n_tokens > MAX_TOKENS {
            return Err(TextError::VocabularyTokens);
        }
        let language_ids = languages.iter().copied().zip(1..).collect();
        let character_ids = characters.iter().copied().zip(1 + languages.len() as u32..).collect();
        Ok(Self { languages, characters, language_ids, character_ids })
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
        self.characters.get((id as usize).checked_sub(1 + self.languages.len())?).copied()
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
    /// `text` is normalised already ([`normalise`](super::normalise())); here it is only brought to NFC and Hangul is
    /// split. Characters without a token are dropped and counted.
    ///
    /// # Errors
    /// [`TextError::LanguageNotInVocabulary`].
    pub fn encode(&self, text: &str, language: Language) -> Result<Encoding, TextError> {
        let tag =
            self.id_of_language(language).ok_or(TextError::LanguageNotInVocabulary { language })?;
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
        tokens.iter().filter_map(|&id| self.character_of(id)).nfc().collect()
    }
}

/// The characters of a text as a [`Vocabulary`] spells it: NFC, Hangul syllables split into jamo.
pub fn spelling(text: &str) -> impl Iterator<Item = char> {
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
pub(super) fn is_character_token(c: char) -> bool {
    c != '|' && !('\u{AC00}'..='\u{D7A3}').contains(&c) && std::iter::once(c).nfc().eq([c])
}

fn character_token(c: char) -> String {
    if c == ' ' { SPACE_TOKEN.to_owned() } else { c.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn languages(codes: &[&str]) -> Vec<Language> {
        codes.iter().map(|code| code.parse().expect("well-formed")).collect()
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
        assert_eq!((0..9).map(|id| vocabulary.is_language(id)).filter(|&is| is).count(), 2);
        assert_eq!(vocabulary.language_of(2), Some(languages(&["swa"])[0]));
        assert_eq!([0, 3, 9, u32::MAX].map(|id| vocabulary.language_of(id)), [None; 4]);
        assert_eq!([0, 1, 7, u32::MAX].map(|id| vocabulary.character_of(id)), [None; 4]);
    }

    #[test]
    fn rare_characters_are_left_out_and_counted() {
        let vocabulary = Vocabulary::build(languages(&["eng"]), ["aab", "ac"], 2).expect("small");
        assert_eq!(vocabulary.to_json(), r#"{"<blank>":0,"[eng]":1,"|":2,"a":3}"#);
        let encoding = vocabulary.encode("a cab|", languages(&["eng"])[0]).expect("known language");
        assert_eq!(encoding, Encoding { tokens: vec![1, 3, 2, 3], n_unknown: 3 });
        let error = vocabulary.encode("a", languages(&["fra"])[0]).expect_err("unknown language");
        assert_eq!(error.to_string(), "language `fra` is not in the vocabulary");
    }

    #[test]
    fn decoding_skips_what_is_not_text() {
        assert_eq!(small().decode(&[1, 4, 0, 0, 5, 3, 6, 2, 99, u32::MAX]), "ab c");
    }

    proptest! {
        #[test]
        fn hangul_survives_encoding(text in "[가-힣ᄀ-ᇿ ]{0,12}") {
            let vocabulary = Vocabulary::build(languages(&["kor"]), [&text], 1).expect("few characters");
            let encoding = vocabulary.encode_characters(&text);
            prop_assert_eq!(encoding.n_unknown, 0);
            prop_assert_eq!(vocabulary.decode(&encoding.tokens), text.nfc().collect::<String>());
        }

    }
}
