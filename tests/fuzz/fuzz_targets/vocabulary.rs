//! Any bytes as a vocabulary file: an error or a vocabulary that round-trips, within bounded memory.
#![no_main]

use asr::text::{Language, MAX_TOKENS, Vocabulary, normalise};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(vocabulary) = Vocabulary::from_json(data) {
        assert!(vocabulary.len() <= MAX_TOKENS);
        let again =
            Vocabulary::from_json(vocabulary.to_json().as_bytes()).expect("own output is valid");
        assert_eq!(again, vocabulary);
        let ids: Vec<u32> = (0..vocabulary.len() as u32 + 1).collect();
        let text = vocabulary.decode(&ids);
        for &language in vocabulary.languages() {
            vocabulary.encode(&text, language).expect("its own language");
            normalise(&text, language);
        }
    }
    // The same bytes as text: what is built from them encodes and decodes without loss.
    if let Ok(text) = std::str::from_utf8(data) {
        let language = text.parse::<Language>().unwrap_or("eng".parse().expect("a code"));
        let normal = normalise(text, language);
        let vocabulary =
            Vocabulary::build([language], [&normal], 1).expect("fewer characters than tokens");
        let encoding = vocabulary.encode(&normal, language).expect("its own language");
        assert_eq!(encoding.n_unknown, 0);
        assert_eq!(vocabulary.decode(&encoding.tokens), normal);
        assert_eq!(normalise(&normal, language), normal);
    }
});
