//! Languages of the corpus: from directories and tags to evaluation labels.

use super::Split;
use super::published::LabelSet;
use crate::text::Language;

/// The second Japanese directory.
const SECOND_JAPANESE: &str = "org_jpn";
/// Left out of training and development by the refined labels.
const NORWEGIAN: [&str; 3] = ["nno", "nob", "nor"];

/// What a label stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label {
    /// This language.
    Language(Language),
    /// A language that the label set leaves out.
    LeftOut,
    /// Nothing that is a language.
    Unknown,
}

/// The evaluation label of a directory or tag `code` in `split` (ESPnet `egs2/ml_superb2/asr1/local/download*.py`).
///
/// Codes that are in no list of languages are unknown.
#[must_use]
pub fn label(code: &str, split: Split, labels: LabelSet) -> Label {
    let code = if code == SECOND_JAPANESE { "jpn" } else { code };
    let code = match (labels, code) {
        (LabelSet::Original, code) => code,
        (LabelSet::Refined, "lga") => "lug",
        (LabelSet::Refined, "ory") => "ori",
        (LabelSet::Refined, "arb") => "ara",
        (LabelSet::Refined, code) => code,
    };
    let is_left_out = labels == LabelSet::Refined
        && NORWEGIAN.contains(&code)
        && matches!(split, Split::Train10Min | Split::Train1H | Split::Dev);
    if is_left_out {
        return Label::LeftOut;
    }
    let is_code = code.len() == 3 && code.bytes().all(|b| b.is_ascii_lowercase());
    let known = Language::lookup(code)
        .filter(|language| is_code && language.code() == code)
        // `lga` is no language's name but a label of the corpus.
        .filter(|language| language.name().is_some() || code == "lga");
    known.map_or(Label::Unknown, Label::Language)
}

/// The language that an id carries: its second-to-last part, or for dialects of `ms_speech` its third.
#[must_use]
pub fn language_of_id(id: &str) -> Option<&str> {
    let part =
        if id.starts_with("ms_speech_") { id.split('_').nth(2) } else { id.rsplit('_').nth(1) };
    part.filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_by_hand() {
        let code = |given, split, labels| match label(given, split, labels) {
            Label::Language(language) => language.code().to_owned(),
            Label::LeftOut => "left out".to_owned(),
            Label::Unknown => "unknown".to_owned(),
        };
        use LabelSet::{Original, Refined};
        for (given, split, labels, want) in [
            ("org_jpn", Split::Test, Original, "jpn"),
            ("org_jpn", Split::Dev, Refined, "jpn"),
            ("ory", Split::Dev, Original, "ory"),
            ("ory", Split::Dev, Refined, "ori"),
            ("lga", Split::Train1H, Refined, "lug"),
            ("arb", Split::Train1H, Original, "arb"),
            ("arb", Split::Train1H, Refined, "ara"),
            ("nno", Split::Train1H, Original, "nno"),
            ("nno", Split::Train1H, Refined, "left out"),
            ("nob", Split::Test, Refined, "nob"),
            ("zzz", Split::Dev, Original, "unknown"),
            ("English", Split::Dev, Original, "unknown"),
            ("en", Split::Dev, Original, "unknown"),
            ("zho", Split::Dev, Original, "unknown"),
            ("", Split::Dev, Original, "unknown"),
        ] {
            assert_eq!(code(given, split, labels), want, "{given}");
        }
    }

    #[test]
    fn languages_of_ids() {
        assert_eq!(language_of_id("cv_org_jpn_000001"), Some("jpn"));
        assert_eq!(language_of_id("ms_speech_tam_12_3"), Some("tam"));
        assert_eq!(language_of_id("eng"), None);
        assert_eq!(language_of_id("_1"), None);
    }
}
