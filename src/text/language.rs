//! Languages as ISO 639-3 codes, and the other spellings that are accepted for them.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::{TextError, edit_counts, shortened};

/// Known languages: code, two-letter and bibliographic aliases, English name; sorted by code.
const TABLE: &str = include_str!("languages.tsv");

/// Longest text looked at when searching for similar names.
const MAX_SEARCHED_CHARS: usize = 40;
/// Most suggestions in an error.
const MAX_SUGGESTIONS: usize = 3;

/// Macrolanguage prefixes after which BCP 47 allows a three-letter subtag that names the language itself (RFC 5646, 2.2.2).
const EXTENDED_PREFIXES: [&str; 8] = ["ar", "kok", "lv", "ms", "sgn", "sw", "uz", "zh"];

/// A language: three lowercase ASCII letters, an ISO 639-3 code.
///
/// Parsing also accepts, in any case, and keeps only the language:
/// - two letters, ISO 639-1: `en`; bibliographic ISO 639-2 codes: `ger`
/// - BCP 47 tags: `en-US`, `zh-Hans-CN`; with an extended language subtag, that one: `zh-yue` is `yue`
/// - FLORES and FLEURS forms: `eng_Latn`, `cmn_hans_cn`; MMS forms: `kmr-script_latin`
/// - an English name: `Swahili`
/// - the tag form: `[eng]`
///
/// Chinese without further word (`zh`, `zho`, `chi`) is Mandarin, `cmn`. Other macrolanguages stay as they are:
/// `ara` and `arb` are two languages here. Three letters that are in no list are accepted and have no name.
///
/// # Example
/// ```
/// use asr::text::Language;
///
/// let language: Language = "zh-Hans-CN".parse()?;
/// assert_eq!((language.code(), language.name()), ("cmn", Some("Mandarin Chinese")));
/// assert_eq!("kmr-script_latin".parse::<Language>()?.code(), "kmr");
/// assert!("xx".parse::<Language>().is_err());
/// # Ok::<(), asr::text::TextError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Language([u8; 3]);

impl Language {
    /// The ISO 639-3 code.
    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.0).expect("constructed from three ASCII letters")
    }

    /// The English name, where the code is in our list.
    pub fn name(&self) -> Option<&'static str> {
        let index = KNOWN.rows.binary_search_by_key(self, |row| row.language).ok()?;
        Some(KNOWN.rows[index].name)
    }

    /// The language that `given` stands for in any accepted form; as parsing, without the search for similar names.
    pub fn lookup(given: &str) -> Option<Self> {
        parse(given)
    }

    /// The language whose code is exactly `code`: three lowercase ASCII letters, no aliases.
    pub(super) fn from_code(code: &str) -> Option<Self> {
        let bytes: [u8; 3] = code.as_bytes().try_into().ok()?;
        bytes.iter().all(u8::is_ascii_lowercase).then_some(Self(bytes))
    }
}

/// Every language with a name, sorted by code.
pub fn languages() -> impl ExactSizeIterator<Item = Language> {
    KNOWN.rows.iter().map(|row| row.language)
}

impl FromStr for Language {
    type Err = TextError;

    /// # Errors
    /// [`TextError::Language`] with up to three similar languages.
    fn from_str(given: &str) -> Result<Self, TextError> {
        parse(given).ok_or_else(|| TextError::Language {
            given: shortened(given),
            suggestions: similar(given),
        })
    }
}

impl TryFrom<String> for Language {
    type Error = TextError;

    fn try_from(given: String) -> Result<Self, TextError> {
        given.parse()
    }
}

impl From<Language> for String {
    fn from(language: Language) -> Self {
        language.code().to_owned()
    }
}

impl std::fmt::Display for Language {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.code())
    }
}

struct Row {
    language: Language,
    name: &'static str,
}

struct Known {
    rows: Vec<Row>,
    /// Two-letter, bibliographic and macrolanguage codes.
    aliases: HashMap<&'static str, Language>,
    /// Lowercase English names.
    names: HashMap<String, Language>,
}

static KNOWN: LazyLock<Known> = LazyLock::new(|| {
    let mut known = Known { rows: Vec::new(), aliases: HashMap::new(), names: HashMap::new() };
    for line in TABLE.lines() {
        let mut fields = line.split('\t');
        let (Some(code), Some(aliases), Some(name)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let Some(language) = Language::from_code(code) else {
            continue;
        };
        known.rows.push(Row { language, name });
        known.aliases.extend(aliases.split_whitespace().map(|alias| (alias, language)));
        known.names.insert(name.to_lowercase(), language);
    }
    known
});

fn parse(given: &str) -> Option<Language> {
    let given = given.trim();
    let given = given.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(given);
    // A bound before lowercasing: every accepted form is far shorter.
    if given.len() > 4 * 64 {
        return None;
    }
    let lower = given.to_lowercase();
    // Kom is a language, but `kom` is the code of another: known codes come first, then names, then unknown codes.
    let known_code = Language::from_code(&lower).filter(|language| language.name().is_some());
    if let Some(language) = known_code.or_else(|| KNOWN.names.get(&lower).copied()) {
        return Some(language);
    }
    let mut subtags = lower.split(['-', '_']);
    let primary = subtags.next()?;
    let rest_is_tag = subtags
        .clone()
        .all(|tag| !tag.is_empty() && tag.bytes().all(|b| b.is_ascii_alphanumeric()));
    if !rest_is_tag {
        return None;
    }
    let extended = EXTENDED_PREFIXES
        .contains(&primary)
        .then(|| {
            subtags
                .next()
                .and_then(Language::from_code)
                .filter(|language| language.name().is_some())
        })
        .flatten();
    extended
        .or_else(|| KNOWN.aliases.get(primary).copied())
        .or_else(|| Language::from_code(primary))
}

/// Known languages whose name is within a third of its length of `given`, closest first.
fn similar(given: &str) -> Vec<Language> {
    let lower: Vec<char> = given.trim().to_lowercase().chars().take(MAX_SEARCHED_CHARS).collect();
    let mut found: Vec<(usize, Language)> = KNOWN
        .names
        .iter()
        .filter_map(|(name, &language)| {
            let length = name.chars().count();
            let reach = length.max(lower.len()) / 3;
            // The distance is at least the difference in length: most names need no more than that.
            if length.abs_diff(lower.len()) > reach {
                return None;
            }
            let name: Vec<char> = name.chars().collect();
            let distance = edit_counts(&name, &lower).errors();
            (distance <= reach).then_some((distance, language))
        })
        .collect();
    found.sort();
    found.truncate(MAX_SUGGESTIONS);
    found.into_iter().map(|(_, language)| language).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_table_is_well_formed() {
        let mut previous = String::new();
        for line in TABLE.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            assert_eq!(fields.len(), 3, "{line}");
            assert!(
                Language::from_code(fields[0]).is_some() && fields[0] > previous.as_str(),
                "{line}"
            );
            assert!(!fields[2].is_empty(), "{line}");
            previous = fields[0].to_owned();
        }
        assert_eq!(KNOWN.rows.len(), TABLE.lines().count());
        assert_eq!(KNOWN.names.len(), KNOWN.rows.len(), "names are unique");
        assert_eq!(
            KNOWN.aliases.keys().filter(|alias| alias.len() == 2).count(),
            184,
            "all of ISO 639-1"
        );
        assert!(
            KNOWN
                .aliases
                .keys()
                .all(|alias| KNOWN.rows.iter().all(|row| row.language.code() != *alias))
        );
    }

    #[test]
    fn accepted_forms() {
        struct Case(&'static str, &'static str);
        let cases = [
            Case("en", "eng"),
            Case("EN-us", "eng"),
            Case("eng_Latn", "eng"),
            Case("zh", "cmn"),
            Case("zho", "cmn"),
            Case("chi", "cmn"),
            Case("zh-Hans-CN", "cmn"),
            Case("zh-yue", "yue"),
            Case("zh-yue-HK", "yue"),
            Case("yue_hant_hk", "yue"),
            Case("cmn_hans_cn", "cmn"),
            Case("kmr-script_latin", "kmr"),
            Case("uzb-script_cyrillic", "uzb"),
            Case("ger", "deu"),
            Case("[swa]", "swa"),
            Case(" sw ", "swa"),
            Case("Swahili", "swa"),
            Case("norwegian bokmål", "nob"),
            Case("Tok Pisin", "tpi"),
            Case("ewe", "ewe"),
            Case("Edo", "bin"),
            Case("Kom", "kom"),
            Case("LAO", "lao"),
            Case("arb", "arb"),
            Case("qqq", "qqq"),
        ];
        for Case(given, want) in cases {
            assert_eq!(given.parse::<Language>().expect(given).code(), want, "{given}");
        }
        assert_eq!("qqq".parse::<Language>().expect("well-formed").name(), None);
    }

    #[test]
    fn refused_forms_name_their_neighbours() {
        for bad in
            ["", " ", "xx", "e", "engl", "en--us", "-", "[]", "en us", "中文", "e\u{301}ng", "123"]
        {
            assert!(bad.parse::<Language>().is_err(), "{bad}");
        }
        let error = "swahilli".parse::<Language>().expect_err("misspelt");
        assert_eq!(error.to_string(), "unknown language `swahilli`, did you mean `swa` (Swahili)");
        let long = "x".repeat(1 << 20).parse::<Language>().expect_err("too long");
        assert!(long.to_string().len() < 200);
    }

    #[test]
    fn serde_uses_the_code() {
        let language: Language = serde_json::from_str("\"sw-KE\"").expect("valid");
        assert_eq!(serde_json::to_string(&language).expect("serialisable"), "\"swa\"");
        assert!(serde_json::from_str::<Language>("\"nonsense\"").is_err());
    }

    proptest! {
        #[test]
        fn parsing_is_total_and_codes_are_fixed_points(given in any::<String>(), code in "[a-z]{3}") {
            let _ = given.parse::<Language>();
            let language = code.parse::<Language>().expect("well-formed");
            prop_assert_eq!(language.code().parse::<Language>().expect("well-formed"), language);
        }
    }
}
