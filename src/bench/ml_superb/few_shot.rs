//! The five training utterances of each few-shot language.

use crate::text::RESERVED_LANGUAGES;

/// A language with its utterances: prefixes of the id, each with its numbers.
type FewShot = (&'static str, &'static [(&'static str, &'static [u32])]);

/// Training utterances by language (ESPnet `egs2/ml_superb/asr1/local/data_prep.py`).
const TABLE: [FewShot; 20] = [
    ("lit", &[("cv", &[26, 105]), ("fleurs", &[97]), ("mls", &[40]), ("voxpopuli", &[1707])]),
    ("dan", &[("NST", &[7, 72]), ("cv", &[158]), ("fleurs", &[58, 71])]),
    ("tur", &[("cv", &[95, 101]), ("fleurs", &[60, 69, 95])]),
    ("srp", &[("cv", &[78, 145]), ("fleurs", &[68, 93, 105])]),
    ("vie", &[("cv", &[105, 128]), ("fleurs", &[67, 68, 77])]),
    ("kaz", &[("cv", &[80, 97, 111]), ("fleurs", &[36, 66])]),
    ("zul", &[("fleurs", &[49, 57]), ("nchlt", &[27, 90, 104])]),
    ("tsn", &[("googlei18n-tts", &[26, 44, 108]), ("nchlt", &[1, 32])]),
    ("epo", &[("cv", &[6, 39, 63, 66, 76])]),
    ("frr", &[("cv", &[23, 86, 95, 102, 104])]),
    ("tok", &[("cv", &[4, 11, 30, 84, 101])]),
    ("umb", &[("fleurs", &[28, 29, 33, 40, 47])]),
    ("bos", &[("fleurs", &[67, 78, 80, 88, 90])]),
    ("ful", &[("fleurs", &[55, 59, 67, 76, 81])]),
    ("ceb", &[("fleurs", &[54, 64, 69, 71, 80])]),
    ("luo", &[("fleurs", &[56, 62, 67, 73, 77])]),
    ("kea", &[("fleurs", &[52, 70, 78, 83, 85])]),
    ("sun", &[("googlei18n-asr", &[1, 7, 41, 99, 106])]),
    ("tso", &[("nchlt", &[35, 40, 89, 104, 125])]),
    ("tos", &[("mexico-el", &[6, 122, 152, 496, 563])]),
];

/// Ids of the training utterances of a few-shot language, such as `cv_lit_000026`; none for other languages.
#[must_use]
pub fn few_shot_ids(language: &str) -> Vec<String> {
    TABLE
        .iter()
        .filter(|(code, _)| *code == language)
        .flat_map(|(code, sources)| {
            sources.iter().flat_map(move |(prefix, numbers)| {
                numbers.iter().map(move |number| format!("{prefix}_{code}_{number:06}"))
            })
        })
        .collect()
}

/// Whether training keeps an utterance: all of most languages, five of each few-shot one.
#[must_use]
pub fn is_trained_on(language: &str, id: &str) -> bool {
    !RESERVED_LANGUAGES.contains(&language) || few_shot_ids(language).iter().any(|kept| kept == id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn there_are_five_for_each_of_twenty_languages() {
        let ids: BTreeSet<String> =
            RESERVED_LANGUAGES.iter().flat_map(|language| few_shot_ids(language)).collect();
        assert_eq!(ids.len(), 100);
        for language in RESERVED_LANGUAGES {
            assert_eq!(few_shot_ids(language).len(), 5, "{language}");
        }
        assert!(ids.contains("googlei18n-tts_tsn_000026") && ids.contains("voxpopuli_lit_001707"));
    }

    #[test]
    fn other_languages_are_trained_on_in_full() {
        assert!(is_trained_on("eng", "cv_eng_000001"));
        assert!(is_trained_on("tos", "mexico-el_tos_000496"));
        assert!(!is_trained_on("tos", "mexico-el_tos_000497"));
    }
}
