//! The monolingual track of ML-SUPERB 1.0: thirteen configurations, averaged by language.

use std::collections::BTreeMap;

use super::shortened;

/// One monolingual run: a language, and the dataset it trains on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MonolingualConfig {
    /// Name as published, such as `eng1`.
    pub name: &'static str,
    /// ISO 639-3 code.
    pub language: &'static str,
    /// Directory of the training data; the test data is every dataset with this language.
    pub dataset: &'static str,
}

const fn config(
    name: &'static str,
    language: &'static str,
    dataset: &'static str,
) -> MonolingualConfig {
    MonolingualConfig { name, language, dataset }
}

/// The configurations (ESPnet `egs2/ml_superb/asr1`), for each training budget.
pub const MONOLINGUAL: [MonolingualConfig; 13] = [
    config("eng1", "eng", "mls"),
    config("eng2", "eng", "nchlt"),
    config("eng3", "eng", "voxpopuli"),
    config("fra1", "fra", "voxforge"),
    config("fra2", "fra", "voxpopuli"),
    config("deu1", "deu", "swc"),
    config("deu2", "deu", "voxpopuli"),
    config("rus", "rus", "M-AILABS"),
    config("swa", "swa", "ALFFA"),
    config("swe", "swe", "NST"),
    config("jpn", "jpn", "commonvoice"),
    config("cmn", "cmn", "fleurs"),
    config("xty", "xty", "mexico-el"),
];

/// Rates that do not cover the track.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MonolingualError {
    /// Configurations without a rate.
    #[error("the monolingual track lacks {}", missing.join(", "))]
    Missing {
        /// Their names.
        missing: Vec<&'static str>,
    },
    /// A name that is no configuration.
    #[error("`{name}` is no configuration of the monolingual track")]
    Unknown {
        /// The name, cut to 64 characters.
        name: String,
    },
}

/// The track's rate: the mean over languages of the mean over each language's configurations.
///
/// `rates` holds one error rate per configuration of [`MONOLINGUAL`] by name: CER, or PER for `cmn` and `jpn`
/// (`mono_superb_score.py`). A language with three configurations weighs no more than one with a single one.
///
/// # Errors
/// [`MonolingualError`] if a configuration is missing or unknown.
pub fn monolingual_rate(rates: &BTreeMap<String, f64>) -> Result<f64, MonolingualError> {
    if let Some(name) =
        rates.keys().find(|name| MONOLINGUAL.iter().all(|config| config.name != **name))
    {
        return Err(MonolingualError::Unknown { name: shortened(name) });
    }
    let missing: Vec<&str> = MONOLINGUAL
        .iter()
        .map(|config| config.name)
        .filter(|name| !rates.contains_key(*name))
        .collect();
    if !missing.is_empty() {
        return Err(MonolingualError::Missing { missing });
    }
    let rates = MONOLINGUAL.map(|config| (config.language, rates[config.name]));
    Ok(mean_of_languages(&rates).expect("there are configurations"))
}

/// The mean over languages of the mean over each language's configurations, of `(language, rate)`;
/// `None` of nothing.
#[must_use]
pub fn mean_of_languages(rates: &[(&str, f64)]) -> Option<f64> {
    let mut by_language: BTreeMap<&str, (f64, usize)> = BTreeMap::new();
    for (language, rate) in rates {
        let (sum, n) = by_language.entry(language).or_default();
        *sum += rate;
        *n += 1;
    }
    let n = by_language.len() as f64;
    (n > 0.0).then(|| by_language.values().map(|(sum, n)| sum / *n as f64).sum::<f64>() / n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_weigh_the_same_however_many_configurations() {
        // (10 + 20 + 60) / 3 = 30 and 50.
        let rates = [("eng", 10.0), ("eng", 20.0), ("eng", 60.0), ("rus", 50.0)];
        assert_eq!(mean_of_languages(&rates), Some(40.0));
        assert_eq!(mean_of_languages(&[]), None);
    }

    #[test]
    fn configurations_are_averaged_by_language_first() {
        // eng (10 + 20 + 60) / 3 = 30, fra (10 + 30) / 2 = 20, deu (40 + 60) / 2 = 50,
        // rus 10, swa 20, swe 30, jpn 40, cmn 25, xty 45: 270 over nine languages.
        let table = [
            ("eng1", 10.0),
            ("eng2", 20.0),
            ("eng3", 60.0),
            ("fra1", 10.0),
            ("fra2", 30.0),
            ("deu1", 40.0),
            ("deu2", 60.0),
            ("rus", 10.0),
            ("swa", 20.0),
            ("swe", 30.0),
            ("jpn", 40.0),
            ("cmn", 25.0),
            ("xty", 45.0),
        ];
        let mut rates: BTreeMap<String, f64> =
            table.iter().map(|(name, rate)| ((*name).to_owned(), *rate)).collect();
        assert!((monolingual_rate(&rates).expect("complete") - 30.0).abs() < 1e-12);
        // Over configurations it would be another number: 400 over thirteen.
        assert!((rates.values().sum::<f64>() / 13.0 - 30.0).abs() > 0.7);
        rates.remove("xty");
        assert_eq!(
            monolingual_rate(&rates),
            Err(MonolingualError::Missing { missing: vec!["xty"] })
        );
        rates.insert("eng4".to_owned(), 1.0);
        assert!(matches!(monolingual_rate(&rates), Err(MonolingualError::Unknown { .. })));
    }
}
