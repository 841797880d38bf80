//! Where on the map languages are at home.

use super::Language;
use std::sync::LazyLock;

/// Code, degrees north, degrees east; sorted by code. Lines that begin with `#` say what it is.
const TABLE: &str = include_str!("places.tsv");

static PLACES: LazyLock<Vec<(Language, f64, f64)>> =
    LazyLock::new(|| TABLE.lines().filter(|line| !line.starts_with('#')).filter_map(row).collect());

fn row(line: &str) -> Option<(Language, f64, f64)> {
    let mut fields = line.split('\t');
    let language = Language::from_code(fields.next()?)?;
    Some((language, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Latitude and longitude in degrees of the middle of where `language` is at home, approximate;
/// `None` for constructed languages and those we have no place for.
///
/// ```
/// use asr::text::place_of_language;
/// assert_eq!(place_of_language("isl".parse()?), Some((64.8, -18.8)));
/// assert_eq!(place_of_language("epo".parse()?), None);
/// # Ok::<(), asr::text::TextError>(())
/// ```
#[must_use]
pub fn place_of_language(language: Language) -> Option<(f64, f64)> {
    let index = PLACES.binary_search_by_key(&language, |(language, _, _)| *language).ok()?;
    let (_, latitude, longitude) = PLACES[index];
    Some((latitude, longitude))
}

#[cfg(test)]
mod tests {
    use super::super::RESERVED_LANGUAGES;
    use super::*;

    /// Languages of VoxLingua107, FLEURS and the challenge's own that we know by name.
    const EXPECTED: &str = "abk afr amh ara asm ast aze bak bel ben bod bos bre bul cat ceb ces ckb \
        cmn cym dan deu ell eng est eus fao fas fil fin fra frr ful gle glg glv grn guj hat hau haw \
        heb hin hrv hun hye ibo ind isl ita jav jpn kam kan kat kaz kea khm kir kor lao lat lav lin \
        lit ltz lug luo mal mar mkd mlg mlt mon mri msa mya nep nld nno nob nor nso nya oci ori orm \
        pan pol por pus ron rus san sco sin slk slv sna snd som spa sqi srp sun swa swe tam tat tel \
        tgk tgl tha tos tsn tso tuk tur ukr umb urd uzb vie war wol xho yid yor yue zul";

    #[test]
    fn every_line_is_a_known_language_on_earth_and_in_order() {
        let lines: Vec<&str> = TABLE.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(lines.len(), PLACES.len(), "a line is malformed");
        assert!(PLACES.windows(2).all(|pair| pair[0].0 < pair[1].0), "sorted, none twice");
        for &(language, latitude, longitude) in PLACES.iter() {
            assert!(language.name().is_some(), "{language} is not in the list of languages");
            assert!((-90.0..=90.0).contains(&latitude), "{language}");
            assert!((-180.0..=180.0).contains(&longitude), "{language}");
        }
    }

    #[test]
    fn natural_languages_that_we_meet_have_a_place() {
        let constructed = ["epo", "tok", "ina"];
        let embedded: Vec<String> = serde_json::from_str::<serde_json::Value>(include_str!(
            "../../models/default/vocab.json"
        ))
        .expect("the vocabulary is JSON")
        .as_object()
        .expect("an object")
        .keys()
        .filter_map(|token| Some(token.strip_prefix('[')?.strip_suffix(']')?.to_owned()))
        .collect();
        assert!(embedded.len() > 50);
        let expected = EXPECTED.split_whitespace().chain(RESERVED_LANGUAGES);
        for code in expected.chain(embedded.iter().map(String::as_str)) {
            let language: Language = code.parse().expect("a code");
            let place = place_of_language(language);
            assert_eq!(place.is_some(), !constructed.contains(&code), "{code}");
        }
    }
}
