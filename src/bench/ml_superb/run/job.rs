//! The runs that the tracks of ML-SUPERB consist of: which utterances, and what they are to say.

use crate::bench::ml_superb::{Release, Split, Utterance, few_shot_ids};
use crate::data::Labels;
use crate::text::{
    Language, MONOLINGUAL, RESERVED_LANGUAGES, TextError, Vocabulary, normalise_ml_superb,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};

/// A track.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Track {
    /// 1.0: recognition of one language, trained on one dataset.
    Monolingual,
    /// 1.0: recognition of all languages.
    Asr,
    /// 1.0: identification alone.
    Lid,
    /// 1.0: the tag of the language, then the text.
    AsrLid,
    /// 2.0: the same on texts as they are published.
    Second,
}

/// How much each pair of dataset and language trains on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Budget {
    /// Ten minutes.
    #[serde(rename = "10min")]
    TenMinutes,
    /// An hour.
    #[serde(rename = "1h")]
    Hour,
}

impl Budget {
    /// As in the names of the recipes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TenMinutes => "10min",
            Self::Hour => "1h",
        }
    }

    fn split(self) -> Split {
        match self {
            Self::TenMinutes => Split::Train10Min,
            Self::Hour => Split::Train1H,
        }
    }
}

/// A monolingual configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Monolingual {
    /// Such as `eng1`.
    pub name: String,
    /// Code of the language.
    pub language: String,
    /// Folder of what it trains on; it is tested on every dataset of the language.
    pub dataset: String,
}

/// One run of a head on an encoder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Job {
    /// The track.
    pub track: Track,
    /// Budget of training.
    pub budget: Budget,
    /// Of the monolingual track.
    pub monolingual: Option<Monolingual>,
}

/// The utterances of a run, as places in [`Release::utterances`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen {
    /// To learn from.
    pub train: Vec<usize>,
    /// To choose among states of the model.
    pub dev: Vec<usize>,
    /// To score.
    pub test: Vec<usize>,
    /// Varieties to score, of 2.0.
    pub dialects: Vec<usize>,
}

/// The monolingual configurations of a release, and whether they are published ones.
///
/// A release that has none of the thirteen (a small one of other recordings) gets one for each of
/// the three languages with the most training utterances, in the dataset with the most.
#[must_use]
pub fn monolingual_configs(release: &Release) -> (Vec<Monolingual>, bool) {
    let mut pairs: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for utterance in release.utterances.iter().filter(|u| u.split == Split::Train1H) {
        *pairs.entry((utterance.language.code(), &utterance.dataset)).or_default() += 1;
    }
    let published: Vec<Monolingual> = MONOLINGUAL
        .iter()
        .filter(|config| pairs.contains_key(&(config.language, config.dataset)))
        .map(|config| Monolingual {
            name: config.name.to_owned(),
            language: config.language.to_owned(),
            dataset: config.dataset.to_owned(),
        })
        .collect();
    if !published.is_empty() {
        return (published, true);
    }
    let mut pairs: Vec<_> = pairs.into_iter().collect();
    pairs.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    let mut seen = HashSet::new();
    pairs.retain(|((language, _), _)| seen.insert(*language));
    let most = pairs.into_iter().take(3).map(|((language, dataset), _)| Monolingual {
        name: language.to_owned(),
        language: language.to_owned(),
        dataset: dataset.to_owned(),
    });
    (most.collect(), false)
}

/// Ids of the training utterances that few-shot languages keep: the published five, or in a
/// release that has none of these the first five of a language by their ids.
fn kept_of_few_shot(release: &Release) -> HashSet<&str> {
    let mut by_language: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for utterance in release.utterances.iter().filter(|u| u.split.is_training()) {
        let code = utterance.language.code();
        if RESERVED_LANGUAGES.contains(&code) {
            by_language.entry(code).or_default().push(&utterance.id);
        }
    }
    let mut kept = HashSet::new();
    for (code, mut ids) in by_language {
        ids.sort_unstable();
        ids.dedup();
        let published = few_shot_ids(code);
        let found: Vec<&str> =
            ids.iter().copied().filter(|id| published.iter().any(|p| p == id)).collect();
        kept.extend(if found.is_empty() { ids.into_iter().take(5).collect() } else { found });
    }
    kept
}

impl Job {
    /// Name of its folder, such as `asr-1h` or `mono-eng1-10min`.
    #[must_use]
    pub fn name(&self) -> String {
        let track = match (self.track, &self.monolingual) {
            (Track::Monolingual, Some(config)) => format!("mono-{}", config.name),
            (Track::Monolingual, None) => "mono".to_owned(),
            (Track::Asr, _) => "asr".to_owned(),
            (Track::Lid, _) => "lid".to_owned(),
            (Track::AsrLid, _) => "asr_lid".to_owned(),
            (Track::Second, _) => "second".to_owned(),
        };
        format!("{track}-{}", self.budget.name())
    }

    /// Its utterances. What has no test split (the release on Hugging Face) is scored on
    /// development.
    #[must_use]
    pub fn choose(&self, release: &Release) -> Chosen {
        let kept = kept_of_few_shot(release);
        let scored = if release.utterances.iter().any(|u| u.split == Split::Test) {
            Split::Test
        } else {
            Split::Dev
        };
        let mut chosen = Chosen::default();
        for (i, utterance) in release.utterances.iter().enumerate() {
            let code = utterance.language.code();
            let (of_language, of_dataset) = match &self.monolingual {
                Some(config) => (
                    code == config.language,
                    code == config.language && utterance.dataset == config.dataset,
                ),
                None => (true, true),
            };
            let few_shot = self.monolingual.is_none() && RESERVED_LANGUAGES.contains(&code);
            let learns = !few_shot || kept.contains(utterance.id.as_str());
            if utterance.split == self.budget.split()
                && of_dataset
                && learns
                && self.says_something(utterance)
            {
                chosen.train.push(i);
            }
            if utterance.split == Split::Dev && of_dataset {
                chosen.dev.push(i);
            }
            if utterance.split == scored && of_language {
                chosen.test.push(i);
            }
            if utterance.split == Split::DevDialect && self.track == Track::Second {
                chosen.dialects.push(i);
            }
        }
        chosen
    }

    fn says_something(&self, utterance: &Utterance) -> bool {
        self.track == Track::Lid || !self.text(utterance).trim().is_empty()
    }

    fn has_tag(&self) -> bool {
        matches!(self.track, Track::Lid | Track::AsrLid | Track::Second)
    }

    /// The text that is to be written, prepared as the track's recipe does.
    #[must_use]
    pub fn text(&self, utterance: &Utterance) -> String {
        match self.track {
            Track::Lid => String::new(),
            Track::Monolingual => normalise_ml_superb(&utterance.text, false),
            Track::Asr | Track::AsrLid => normalise_ml_superb(&utterance.text, true),
            Track::Second => utterance.text.clone(),
        }
    }

    /// The line of the references: id, tag and text.
    #[must_use]
    pub fn reference(&self, utterance: &Utterance) -> String {
        let tag = if self.has_tag() { format!("[{}]", utterance.language) } else { String::new() };
        let text = self.text(utterance);
        let space = if tag.is_empty() || text.is_empty() { "" } else { " " };
        format!("{} {tag}{space}{text}\n", utterance.id)
    }

    /// What the model is to spell: the tag, a space, the text.
    ///
    /// # Errors
    /// [`TextError::LanguageNotInVocabulary`] for a language that training does not have.
    pub fn labels(
        &self,
        utterance: &Utterance,
        vocabulary: &Vocabulary,
    ) -> Result<Labels, TextError> {
        let text = self.text(utterance);
        let tokens = match (self.has_tag(), text.is_empty()) {
            (true, true) => vocabulary.encode("", utterance.language)?.tokens,
            (true, false) => vocabulary.encode(&format!(" {text}"), utterance.language)?.tokens,
            (false, _) => vocabulary.encode_characters(&text).tokens,
        };
        Ok(Labels { tokens, open_ended: false, words: text.split_whitespace().count() })
    }

    /// The tokens: a tag for each language and the characters of the training texts.
    ///
    /// # Errors
    /// [`TextError::VocabularyTokens`] if there are too many.
    pub fn vocabulary(&self, release: &Release, train: &[usize]) -> Result<Vocabulary, TextError> {
        let utterances = train.iter().map(|&i| &release.utterances[i]);
        let languages: Vec<Language> = utterances.clone().map(|u| u.language).collect();
        Vocabulary::build(languages, utterances.map(|u| self.text(u)), 1)
    }

    /// The line of the hypotheses for these tokens. A benchmark that takes no empty lines gets a
    /// tag that is no language.
    #[must_use]
    pub fn hypothesis(&self, id: &str, tokens: &[u32], vocabulary: &Vocabulary) -> String {
        let mut text = String::new();
        let mut characters: Vec<u32> = Vec::new();
        let spell = |characters: &mut Vec<u32>, text: &mut String| {
            text.push_str(&vocabulary.decode(characters));
            characters.clear();
        };
        for &token in tokens {
            match vocabulary.language_of(token) {
                Some(language) if self.has_tag() => {
                    spell(&mut characters, &mut text);
                    text.push_str(&format!("[{language}]"));
                }
                Some(_) => {}
                None => characters.push(token),
            }
        }
        spell(&mut characters, &mut text);
        if self.track == Track::Second && vocabulary_tag(&text).is_none() {
            text = format!("[und] {}", text.trim_start());
        }
        format!("{id} {text}\n")
    }
}

/// The tag that a text begins with.
fn vocabulary_tag(text: &str) -> Option<&str> {
    text.strip_prefix('[')?.split_once(']').map(|(tag, _)| tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::ml_superb::published::LabelSet;

    fn utterance(id: &str, dataset: &str, split: Split, text: &str) -> Utterance {
        let code = id.rsplit('_').nth(1).expect("a language");
        Utterance {
            id: id.to_owned(),
            dataset: dataset.to_owned(),
            language: code.parse().expect("a language"),
            split,
            text: text.to_owned(),
            audio: format!("{id}.wav").into(),
            seconds: None,
        }
    }

    fn release(utterances: Vec<Utterance>) -> Release {
        Release {
            root: "x".into(),
            labels: LabelSet::Original,
            datasets: Vec::new(),
            utterances,
            problems: Default::default(),
        }
    }

    fn job(track: Track) -> Job {
        Job { track, budget: Budget::Hour, monolingual: None }
    }

    #[test]
    fn few_shot_languages_keep_five() {
        let mut utterances: Vec<Utterance> = (1..=7)
            .map(|n| utterance(&format!("cv_lit_{n:06}"), "commonvoice", Split::Train1H, "a"))
            .collect();
        utterances.push(utterance("cv_eng_000001", "commonvoice", Split::Train1H, "b"));
        utterances.push(utterance("cv_eng_000002", "commonvoice", Split::Train1H, "?!"));
        utterances.push(utterance("cv_lit_000008", "commonvoice", Split::Test, "c"));
        // Without the published five, the first five; what says nothing is not learned from.
        let chosen = job(Track::AsrLid).choose(&release(utterances.clone()));
        assert_eq!(chosen.train, [0, 1, 2, 3, 4, 7]);
        assert_eq!(chosen.test, [9]);
        assert_eq!(job(Track::Lid).choose(&release(utterances.clone())).train.len(), 7);
        utterances[6].id = "cv_lit_000026".to_owned();
        let chosen = job(Track::AsrLid).choose(&release(utterances));
        assert_eq!(chosen.train, [6, 7]);
    }

    #[test]
    fn configurations_are_tested_on_every_dataset() {
        let utterances = vec![
            utterance("mls_eng_000001", "mls", Split::Train1H, "a"),
            utterance("cv_eng_000001", "commonvoice", Split::Train1H, "a"),
            utterance("cv_eng_000002", "commonvoice", Split::Test, "a"),
            utterance("mls_deu_000002", "mls", Split::Test, "a"),
        ];
        let release = release(utterances);
        let (configs, published) = monolingual_configs(&release);
        assert!(published && configs.len() == 1 && configs[0].name == "eng1");
        let job = Job {
            track: Track::Monolingual,
            budget: Budget::Hour,
            monolingual: Some(configs[0].clone()),
        };
        assert_eq!(job.name(), "mono-eng1-1h");
        let chosen = job.choose(&release);
        assert_eq!((chosen.train, chosen.test), (vec![0], vec![2]));
    }

    #[test]
    fn other_releases_have_the_languages_with_most() {
        let utterances: Vec<Utterance> =
            [("own_eng", 2), ("own_deu", 3), ("b_eng", 1), ("own_fra", 4), ("own_ita", 1)]
                .iter()
                .flat_map(|&(start, n)| {
                    (0..n).map(move |i| {
                        let dataset = start.split('_').next().expect("a part");
                        utterance(&format!("{start}_{i:06}"), dataset, Split::Train1H, "a")
                    })
                })
                .collect();
        let (configs, published) = monolingual_configs(&release(utterances));
        let names: Vec<(&str, &str)> =
            configs.iter().map(|c| (c.name.as_str(), c.dataset.as_str())).collect();
        assert_eq!(
            (names, published),
            (vec![("fra", "own"), ("deu", "own"), ("eng", "own")], false)
        );
    }

    #[test]
    fn what_is_spelt_is_what_is_read_back() {
        let said = utterance("cv_eng_000001", "commonvoice", Split::Train1H, "It's [noise] fine");
        let release = release(vec![said.clone()]);
        for (track, reference) in [
            (Track::Asr, "cv_eng_000001 ITS  FINE\n"),
            (Track::Lid, "cv_eng_000001 [eng]\n"),
            (Track::AsrLid, "cv_eng_000001 [eng] ITS  FINE\n"),
            (Track::Second, "cv_eng_000001 [eng] It's [noise] fine\n"),
        ] {
            let job = job(track);
            let vocabulary = job.vocabulary(&release, &[0]).expect("a vocabulary");
            let labels = job.labels(&said, &vocabulary).expect("spelt");
            assert_eq!(job.reference(&said), reference);
            assert_eq!(job.hypothesis(&said.id, &labels.tokens, &vocabulary), reference);
        }
        let second = job(Track::Second);
        let vocabulary = second.vocabulary(&release, &[0]).expect("a vocabulary");
        assert_eq!(second.hypothesis("a", &[], &vocabulary), "a [und] \n");
    }
}
