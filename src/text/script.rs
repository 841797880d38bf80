//! The few facts about scripts and characters that normalisation needs, as code point ranges.

use unicode_normalization::char::is_combining_mark;

fn within(c: char, ranges: &[(u32, u32)]) -> bool {
    let code = u32::from(c);
    ranges.iter().any(|&(first, last)| (first..=last).contains(&code))
}

/// Han, Hiragana, Katakana, Bopomofo and Thai: written without spaces between words.
pub fn is_unspaced(c: char) -> bool {
    const RANGES: [(u32, u32); 10] = [
        (0x0E01, 0x0E5B),
        (0x2E80, 0x2FDF),
        (0x3005, 0x3007),
        (0x3031, 0x3035),
        (0x3041, 0x30FF),
        (0x3105, 0x312F),
        (0x31A0, 0x31FF),
        (0x3400, 0x4DBF),
        (0x4E00, 0x9FFF),
        (0xF900, 0xFAFF),
    ];
    const SUPPLEMENTARY: [(u32, u32); 2] = [(0x1AFF0, 0x1B16F), (0x20000, 0x3FFFF)];
    c >= '\u{E01}' && (within(c, &RANGES) || within(c, &SUPPLEMENTARY))
}

/// Whether a text has a character that stands by itself, such as a letter or a digit: marks and
/// spaces alone are no text.
pub fn has_letter(text: &str) -> bool {
    text.chars().any(|c| !c.is_whitespace() && !is_combining_mark(c))
}

/// Letters of Latin, Greek, Cyrillic, Armenian and Georgian: scripts that write hyphens inside words.
pub(super) fn is_hyphenating_letter(c: char) -> bool {
    const RANGES: [(u32, u32); 9] = [
        (0x0041, 0x02AF),
        (0x0370, 0x058F),
        (0x10A0, 0x10FF),
        (0x1C80, 0x1CBF),
        (0x1D00, 0x1DBF),
        (0x1E00, 0x1FFF),
        (0x2C60, 0x2C7F),
        (0x2D00, 0x2D2F),
        (0xA640, 0xA7FF),
    ];
    (c.is_alphabetic() && within(c, &RANGES))
        || (is_combining_mark(c) && within(c, &[(0x0300, 0x036F)]))
}

/// Arabic presentation forms, Latin and Hebrew ligatures, half and full width forms: other drawings of ordinary letters.
pub(super) fn is_presentation_form(c: char) -> bool {
    within(c, &[(0xFB00, 0xFDFF), (0xFE70, 0xFEFC), (0xFF01, 0xFFEF)])
}

/// Letters of the Arabic script.
pub(super) fn is_arabic(c: char) -> bool {
    within(c, &[(0x0600, 0x06FF), (0x0750, 0x077F), (0x0870, 0x08FF)])
}

/// Arabic short vowels, doubling, Koranic signs; not the hamza and madda that belong to letters.
pub(super) fn is_harakat(c: char) -> bool {
    const RANGES: [(u32, u32); 9] = [
        (0x0610, 0x061A),
        (0x064B, 0x0652),
        (0x0656, 0x065F),
        (0x0670, 0x0670),
        (0x06D6, 0x06DC),
        (0x06DF, 0x06E4),
        (0x06E7, 0x06E8),
        (0x06EA, 0x06ED),
        (0x08D3, 0x08FF),
    ];
    within(c, &RANGES)
}

/// Hebrew points and cantillation.
pub(super) fn is_niqqud(c: char) -> bool {
    is_combining_mark(c) && within(c, &[(0x0591, 0x05C7)])
}

/// Characters that leave no trace: format controls, variation selectors, enclosing marks, tatweel, Hebrew gershayim,
/// the Armenian marks that stand inside a word.
pub(super) fn is_invisible(c: char) -> bool {
    const RANGES: [(u32, u32); 19] = [
        (0x00AD, 0x00AD),
        (0x034F, 0x034F),
        (0x055A, 0x055C),
        (0x055E, 0x055F),
        (0x05F4, 0x05F4),
        (0x061C, 0x061C),
        (0x0640, 0x0640),
        (0x115F, 0x1160),
        (0x17B4, 0x17B5),
        (0x180B, 0x180F),
        (0x200B, 0x200F),
        (0x202A, 0x202E),
        (0x2060, 0x206F),
        (0x20D0, 0x20FF),
        (0x3164, 0x3164),
        (0xFE00, 0xFE0F),
        (0xFEFF, 0xFEFF),
        (0xFFA0, 0xFFA0),
        (0xE0000, 0xE0FFF),
    ];
    within(c, &RANGES)
}

/// The precomposed chillu letter that Malayalam `base`, virama, zero-width joiner stands for.
pub(super) fn chillu(base: char) -> Option<char> {
    match base {
        '\u{0D23}' => Some('\u{0D7A}'),
        '\u{0D28}' => Some('\u{0D7B}'),
        '\u{0D30}' => Some('\u{0D7C}'),
        '\u{0D32}' => Some('\u{0D7D}'),
        '\u{0D33}' => Some('\u{0D7E}'),
        '\u{0D15}' => Some('\u{0D7F}'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_and_spaces_alone_are_no_text() {
        for text in ["", " ", "\u{D40}", "\u{301} \u{D40}"] {
            assert!(!has_letter(text), "{text:?}");
        }
        for text in ["a", "7", "\u{D2E}\u{D40}", " \u{4E00}", "\u{1100}\u{1161}"] {
            assert!(has_letter(text), "{text:?}");
        }
    }
}
