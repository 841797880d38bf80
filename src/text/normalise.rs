//! Transcript normalisation: the one spelling of a text that models are trained on and scored against.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::Language;
use super::script::{
    chillu, is_arabic, is_harakat, is_hyphenating_letter, is_invisible, is_niqqud,
    is_presentation_form, is_unspaced,
};

const ZERO_WIDTH_NON_JOINER: char = '\u{200C}';
const ZERO_WIDTH_JOINER: char = '\u{200D}';
const MALAYALAM_VIRAMA: char = '\u{0D4D}';
const SINHALA_AL_LAKUNA: char = '\u{0DCA}';
const DOT_ABOVE: char = '\u{0307}';

/// Normalises a transcript in `language`.
///
/// Total (any string gives a result) and idempotent. Letters, marks and digits of every script stay, in NFC and in
/// lowercase; what is not spoken becomes a space or nothing; runs of whitespace become one space, none at the ends.
///
/// | what | becomes |
/// |---|---|
/// | presentation forms (ﬁ, ﻻ, Ａ, ｱ) | the ordinary letters |
/// | uppercase | lowercase, full Unicode mapping; `I` is `ı` in Turkish, Azerbaijani, Crimean Tatar and Gagauz; a dot above after `i` is dropped |
/// | apostrophes `'` `’` `ʼ` `׳` between letters | `'`; elsewhere a space |
/// | hyphens between Latin, Greek, Cyrillic, Armenian or Georgian letters | `-`; elsewhere a space |
/// | `·` between Latin letters (Catalan), `་` between Tibetan letters | kept; elsewhere a space |
/// | other punctuation, symbols, emoji, control characters | a space |
/// | Arabic | tatweel dropped; short vowels and Koranic signs dropped, except in Kashmiri, which spells with them; zero-width non-joiner between letters a space |
/// | Persian, Dari, Urdu, Western Punjabi, Central Kurdish | Arabic `ك` `ي` as `ک` `ی` |
/// | Romanian | `ş` `ţ` with cedilla as `ș` `ț` with comma |
/// | Hebrew | niqqud and cantillation dropped, except in Yiddish, which spells with them; gershayim dropped |
/// | Indic scripts | all vowel signs, viramas and nuktas kept; joiners dropped, except the joiner after the Sinhala al-lakuna; Malayalam chillus in their one-letter form |
/// | Armenian | the marks that stand inside a word (՛ ՜ ՞) dropped |
/// | Han, Kana, Bopomofo, Thai | no space between two of their characters |
/// | Lao, Khmer, Burmese, Tibetan | spaces kept as written |
/// | Hangul | syllables (a [`Vocabulary`](super::Vocabulary) splits them into jamo) |
/// | a combining mark without a letter before it | nothing |
///
/// # Example
/// ```
/// use asr::text::{Language, normalise};
///
/// let english: Language = "eng".parse()?;
/// assert_eq!(normalise("  “It’s a well-known FACT,” she said (twice) …", english), "it's a well-known fact she said twice");
/// let mandarin: Language = "cmn".parse()?;
/// assert_eq!(normalise("你好， 世界！", mandarin), "你好世界");
/// # Ok::<(), asr::text::TextError>(())
/// ```
pub fn normalise(text: &str, language: Language) -> String {
    let rules = Rules::of(language);
    let letters = fold_case(&strip(text, &rules), &rules);
    let mut kept = Vec::with_capacity(letters.len());
    for c in spell(&letters) {
        match c {
            ' ' if matches!(kept.last(), None | Some(' ')) => {}
            c => kept.push(c),
        }
    }
    if kept.last() == Some(&' ') {
        kept.pop();
    }
    join_unspaced(&kept).nfc().collect()
}

/// What differs between languages that share a script.
struct Rules {
    dotless_i: bool,
    keep_harakat: bool,
    keep_niqqud: bool,
    /// Letters that old keyboards and encodings put in place of the right ones.
    respelt: &'static [(char, char)],
}

/// Cedilla to comma below.
const ROMANIAN: [(char, char); 2] = [('ş', 'ș'), ('ţ', 'ț')];
/// Arabic kaf and yeh to Persian ones.
const PERSIAN: [(char, char); 2] = [('ك', 'ک'), ('ي', 'ی')];

impl Rules {
    fn of(language: Language) -> Self {
        let code = language.code();
        Self {
            dotless_i: matches!(code, "tur" | "aze" | "azj" | "crh" | "gag"),
            keep_harakat: code == "kas",
            keep_niqqud: matches!(code, "yid" | "ydd" | "yih"),
            respelt: match code {
                "ron" => &ROMANIAN,
                "fas" | "pes" | "prs" | "urd" | "pnb" | "ckb" => &PERSIAN,
                _ => &[],
            },
        }
    }
}

/// `text` without what leaves no trace: presentation forms unfolded, joiners resolved, invisible characters, Arabic
/// short vowels and Hebrew points dropped.
///
/// This comes before any composition, because a dropped character may stand between marks that then reorder.
fn strip(text: &str, rules: &Rules) -> String {
    let mut stripped: Vec<char> = Vec::with_capacity(text.len());
    let mut keep = |c: char| match c {
        ZERO_WIDTH_JOINER => match stripped[..] {
            [.., base, MALAYALAM_VIRAMA] if chillu(base).is_some() => {
                stripped.truncate(stripped.len() - 2);
                stripped.extend(chillu(base));
            }
            [.., SINHALA_AL_LAKUNA] => stripped.push(c),
            _ => {}
        },
        ZERO_WIDTH_NON_JOINER => {
            if stripped.last().copied().is_some_and(is_arabic) {
                stripped.push(' ');
            }
        }
        _ if is_invisible(c) => {}
        _ if is_harakat(c) && !rules.keep_harakat => {}
        _ if is_niqqud(c) && !rules.keep_niqqud => {}
        _ => stripped.push(c),
    };
    for c in text.chars() {
        if is_presentation_form(c) {
            std::iter::once(c).nfkc().for_each(&mut keep);
        } else {
            keep(c);
        }
    }
    stripped.into_iter().collect()
}

/// Lowercase in the way of the language, composed.
fn fold_case(text: &str, rules: &Rules) -> Vec<char> {
    let composed: String = text.nfc().collect();
    let cased =
        if rules.dotless_i { composed.replace('I', "ı").replace('İ', "i") } else { composed };
    let respell =
        |c| rules.respelt.iter().find(|(wrong, _)| *wrong == c).map_or(c, |&(_, right)| right);
    cased.to_lowercase().nfc().map(respell).collect()
}

/// Each character as it is spelt after normalisation; whitespace not yet folded.
fn spell(letters: &[char]) -> Vec<char> {
    let mut spelt: Vec<char> = Vec::with_capacity(letters.len());
    for (index, &c) in letters.iter().enumerate() {
        let before = spelt.last().copied().unwrap_or(' ');
        match c {
            // Left over from the capital I with a dot; the letter has its dot already.
            DOT_ABOVE if before == 'i' => {}
            ZERO_WIDTH_JOINER if before != SINHALA_AL_LAKUNA => {}
            _ if is_combining_mark(c) => {
                if before != ' ' {
                    spelt.push(c);
                }
            }
            ZERO_WIDTH_JOINER => spelt.push(c),
            _ if is_letter(c) => spelt.push(c),
            _ => {
                let after = letters.get(index + 1).copied().unwrap_or(' ');
                spelt.push(inside_word(c, before, after).unwrap_or(' '));
            }
        }
    }
    spelt
}

/// Letters and digits of any script, apart from the letter apostrophe.
fn is_letter(c: char) -> bool {
    c.is_alphanumeric() && !is_apostrophe(c)
}

fn is_apostrophe(c: char) -> bool {
    matches!(c, '\'' | '\u{2018}' | '\u{2019}' | '\u{02BC}' | '\u{05F3}')
}

/// What the punctuation mark `c` becomes between two characters of one word.
fn inside_word(c: char, before: char, after: char) -> Option<char> {
    if !(is_letter(before) || is_combining_mark(before))
        || !is_letter(after)
        || is_combining_mark(after)
    {
        return None;
    }
    match c {
        _ if is_apostrophe(c) => Some('\''),
        '-' | '\u{2010}' | '\u{2011}' | '\u{058A}' => {
            (is_hyphenating_letter(before) && is_hyphenating_letter(after)).then_some('-')
        }
        '\u{00B7}' => (is_hyphenating_letter(before) && is_hyphenating_letter(after)).then_some(c),
        '\u{0F0B}' => Some(c),
        _ => None,
    }
}

/// Removes each space between two characters of scripts that do not write them.
fn join_unspaced(letters: &[char]) -> impl Iterator<Item = char> {
    letters.iter().enumerate().filter_map(|(index, &c)| {
        let joins = c == ' '
            && index > 0
            && is_unspaced(letters[index - 1])
            && letters.get(index + 1).is_some_and(|&next| is_unspaced(next));
        (!joins).then_some(c)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn language(code: &str) -> Language {
        code.parse().expect("well-formed")
    }

    #[test]
    fn rules_by_hand() {
        struct Case(&'static str, &'static str, &'static str);
        let cases = [
            Case("eng", "", ""),
            Case("eng", " \t\r\n", ""),
            Case("eng", "Don't STOP - now!", "don't stop now"),
            Case("eng", "'tis the dogs' ‘fault’", "tis the dogs fault"),
            Case("eng", "rock'n'roll and/or e-mail, 3.14 $5", "rock'n'roll and or e-mail 3 14 5"),
            Case("eng", "A4-size 2010-12 -x- a--b", "a4 size 2010 12 x a b"),
            Case("eng", "ﬁne ＡＢＣ", "fine abc"),
            Case("eng", "cafe\u{301} soft\u{AD}ly zero\u{200B}width", "caf\u{E9} softly zerowidth"),
            Case("eng", "thumbs 👍🏽 1\u{FE0F}\u{20E3} up", "thumbs 1 up"),
            Case("eng", "\u{301}lone a \u{301}b", "lone a b"),
            Case("deu", "Straße ẞ", "straße ß"),
            Case("ell", "ΟΔΟΣ ΣΟΦΟΣ;", "οδος σοφος"),
            Case("tur", "IĞDIR İZMİR", "ığdır izmir"),
            Case("eng", "İzmir I", "izmir i"),
            Case("lit", "Šią-tą", "šią-tą"),
            Case("cat", "col·lecció · a", "col·lecció a"),
            Case("ukr", "п’ять пʼять п'ять", "п'ять п'ять п'ять"),
            Case("hye", "Ինչո՞ւ, եւ։", "ինչու եւ"),
            Case("ara", "مُحَمَّدٌ ـــ آلـة ﻻ", "محمد آلة لا"),
            Case("ara", "لا-سلكي", "لا سلكي"),
            Case("fas", "می\u{200C}خواهم", "می خواهم"),
            Case("urd", "كتابي", "کتابی"),
            Case("ara", "كتابي", "كتابي"),
            Case("ron", "Ştiinţă", "știință"),
            Case("tur", "Şey", "şey"),
            Case("kas", "کٲشُر", "کٲشُر"),
            Case("heb", "שָׁלוֹם צה״ל ג׳ירפה בית־ספר", "שלום צהל ג'ירפה בית ספר"),
            Case("yid", "ייִדיש אַ", "יי\u{5B4}דיש א\u{5B7}"),
            Case("hin", "क्\u{200D}ष क्\u{200C}ष हिन्दी।", "क्ष क्ष हिन्दी"),
            Case("hin", "क\u{93C}लम", "क\u{93C}लम"),
            Case("mal", "അവന്\u{200D}", "അവൻ"),
            Case("sin", "ක්\u{200D}\u{DBA}", "ක්\u{200D}\u{DBA}"),
            Case("cmn", "你 好，世界。 OK 吗", "你好世界 ok 吗"),
            Case("jpn", "ｱ が か\u{3099}「は」 12 時", "アががは 12 時"),
            Case("tha", "สวัสดี ครับ ๆ", "สวัสดีครับๆ"),
            Case("lao", "ສະບາຍ ດີ", "ສະບາຍ ດີ"),
            Case("kor", "\u{1112}\u{1161}\u{11AB}국어!", "한국어"),
            Case("bod", "བོད་སྐད།", "བོད་སྐད"),
            Case("amh", "ሰላም፡ዓለም።", "ሰላም ዓለም"),
            Case("pan", "ਖ\u{80}\u{83}ਬ", "ਖ ਬ"),
        ];
        for Case(code, text, want) in cases {
            assert_eq!(normalise(text, language(code)), want, "{code}: {text:?}");
        }
    }

    #[test]
    fn every_assigned_character_alone_and_between_letters_is_a_fixed_point_after_one_pass() {
        let codes = ["eng", "kas"].map(language);
        for c in ('\0'..'\u{32500}').chain('\u{E0000}'..'\u{E0200}') {
            let text = format!("{c} a{c}b ا{c}ب 日{c}本");
            for code in codes {
                let once = normalise(&text, code);
                assert_eq!(normalise(&once, code), once, "{code} {text:?} U+{:04X}", u32::from(c));
            }
        }
    }

    /// Characters that the rules treat specially, mixed with plain letters.
    fn tricky() -> impl Strategy<Value = String> {
        let specials: Vec<char> = "aBİIıi\u{307}\u{301}\u{300} '’ʼ-·‐.,\u{AD}\u{200B}\u{200C}\u{200D}\u{FEFF}\u{FE0F}\u{20E3}\
            ΣσςЙи\u{306}՛եא״׳־\u{5B7}\u{5C1}اـ\u{64B}\u{654}\u{651}یक\u{94D}\u{93C}ന\u{D4D}ක\u{DCA}ය你好か\u{3099}ｱﾞสวั\u{E31}\
            \u{1112}\u{1161}\u{11AB}한ﬁﻻ\u{FDFA}་བ12²$👍\u{130}\u{1E9E}\u{345}\u{1F80}"
            .chars()
            .collect();
        prop::collection::vec(
            prop_oneof![4 => prop::sample::select(specials), 1 => any::<char>()],
            0..24,
        )
        .prop_map(|chars| chars.into_iter().collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        #[test]
        fn idempotent_total_and_folded(
            text in tricky(),
            code in prop::sample::select(vec!["eng", "tur", "ara", "fas", "kas", "heb", "yid", "mal", "sin", "cmn", "ron"]),
        ) {
            let once = normalise(&text, language(code));
            prop_assert_eq!(normalise(&once, language(code)), once.clone());
            prop_assert!(!once.starts_with(' ') && !once.ends_with(' ') && !once.contains("  "));
            prop_assert_eq!(once.nfc().collect::<String>(), once.clone());
        }
    }
}
