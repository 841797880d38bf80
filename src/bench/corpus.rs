//! Scores of a model on clips with known language and text.

use crate::data::{Condition, Corpus, DataError, Transcript};
use crate::decode::{DecodeError, SegmentText, Transcribe};
use crate::text::{Language, count_characters, count_words, normalise};
use serde::Serialize;
use std::collections::BTreeMap;

/// Seconds of audio, padding included, decoded at a time.
const BATCH_S: f64 = 120.0;

/// Errors and hits of some clips.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Counts {
    clips: usize,
    identified: usize,
    character_errors: usize,
    characters: usize,
    word_errors: usize,
    words: usize,
    seconds: f64,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.clips += other.clips;
        self.identified += other.identified;
        self.character_errors += other.character_errors;
        self.characters += other.characters;
        self.word_errors += other.word_errors;
        self.words += other.words;
        self.seconds += other.seconds;
    }

    fn cer(&self) -> Option<f64> {
        (self.characters > 0).then(|| self.character_errors as f64 / self.characters as f64)
    }

    fn wer(&self) -> Option<f64> {
        (self.words > 0).then(|| self.word_errors as f64 / self.words as f64)
    }

    fn lid(&self) -> Option<f64> {
        (self.clips > 0).then(|| self.identified as f64 / self.clips as f64)
    }
}

/// Scores of one language under one condition; rates are fractions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LanguageScore {
    /// The language.
    pub language: Language,
    /// Whether the speakers are in training; absent where nothing is known of that.
    pub condition: Option<Condition>,
    /// Clips scored.
    pub clips: usize,
    /// Seconds of audio.
    pub seconds: f64,
    /// Characters of the references after normalising.
    pub characters: usize,
    /// Character errors over characters; absent without transcripts.
    pub cer: Option<f64>,
    /// Word errors over words; absent without transcripts.
    pub wer: Option<f64>,
    /// Share of the clips whose language was named.
    pub lid_accuracy: f64,
}

/// Scores over several languages: pooled over clips, and the mean of the languages' own.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Group {
    /// Languages in it.
    pub languages: usize,
    /// Clips in it.
    pub clips: usize,
    /// Character errors of all clips over characters of all.
    pub cer: Option<f64>,
    /// Mean over the languages that have transcripts.
    pub macro_cer: Option<f64>,
    /// Word errors of all clips over words of all.
    pub wer: Option<f64>,
    /// Share of all clips whose language was named.
    pub lid_accuracy: Option<f64>,
    /// Mean over the languages.
    pub macro_lid_accuracy: Option<f64>,
}

/// What became of one clip.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipScore {
    /// The path that the manifest gives.
    pub name: String,
    /// The language spoken.
    pub language: Language,
    /// The language named; `None` where no speech was found.
    pub named: Option<Language>,
    /// Length.
    pub seconds: f64,
    /// What was said, as the manifest has it; `None` where nobody wrote it down.
    pub reference: Option<String>,
    /// What was recognised.
    pub heard: String,
    /// Errors between both after normalising.
    pub character_errors: usize,
    /// Characters of the reference after normalising.
    pub characters: usize,
}

/// What [`evaluate`] finds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CorpusScores {
    /// Clips of speakers that are in training, languages with enough training data only.
    pub seen: Group,
    /// Clips of speakers that are not, the same languages.
    pub unseen: Group,
    /// Clips of the languages with less training data than that, whatever their speakers.
    pub few_shot: Group,
    /// Every clip, whatever its speaker and language.
    pub all: Group,
    /// Every language.
    pub languages: Vec<LanguageScore>,
    /// Most frequent confusions: spoken, named, clips. Named is absent where no speech was found.
    pub confusions: Vec<(Language, Option<Language>, usize)>,
    /// Every clip, shortest first.
    #[serde(skip)]
    pub clips: Vec<ClipScore>,
}

/// A corpus that cannot be scored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CorpusError {
    /// A clip that cannot be read any more.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A model that cannot be run.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// Decodes every clip of `corpus` and scores it.
///
/// References and hypotheses are compared after [`normalise`]. `condition` tells of a clip's
/// name whether its speaker is in training; `counted` which languages enter the groups
/// (those with at least five minutes of training data, say).
///
/// # Errors
/// [`CorpusError`] if a clip cannot be read any more or the model not be run.
pub fn evaluate(
    transcriber: &dyn Transcribe,
    corpus: &Corpus,
    condition: impl Fn(&str) -> Option<Condition>,
    counted: impl Fn(Language) -> bool,
    mut progress: impl FnMut(usize),
) -> Result<CorpusScores, CorpusError> {
    let mut table: BTreeMap<(Language, Option<Condition>), Counts> = BTreeMap::new();
    let mut confusions: BTreeMap<(Language, Option<Language>), usize> = BTreeMap::new();
    let mut outcomes = Vec::with_capacity(corpus.clips().len());
    let mut done = 0;
    for clips in batches(corpus) {
        for (i, found) in transcribed(transcriber, corpus, &clips)? {
            let clip = &corpus.clips()[i];
            let Some(language) = clip.language else { continue };
            let named = found.languages.first().map(|l| l.code);
            let mut counts =
                Counts { clips: 1, seconds: corpus.duration_s(i), ..Counts::default() };
            if named == Some(language) {
                counts.identified = 1;
            } else {
                *confusions.entry((language, named)).or_default() += 1;
            }
            let reference = match &clip.transcript {
                Transcript::Text(text) => Some(text.clone()),
                Transcript::Unknown | Transcript::Silence => None,
            };
            if let Some(text) = &reference {
                let (reference, heard) =
                    (normalise(text, language), normalise(&found.text, language));
                let (characters, words) =
                    (count_characters(&reference, &heard), count_words(&reference, &heard));
                counts.character_errors = characters.errors();
                counts.characters = characters.reference;
                counts.word_errors = words.errors();
                counts.words = words.reference;
            }
            table.entry((language, condition(&clip.name))).or_default().add(counts);
            outcomes.push(ClipScore {
                name: clip.name.clone(),
                language,
                named,
                seconds: counts.seconds,
                reference,
                heard: found.text,
                character_errors: counts.character_errors,
                characters: counts.characters,
            });
        }
        done += clips.len();
        progress(done);
    }
    let group = |wanted: &dyn Fn(Language, Option<Condition>) -> bool| {
        // Seen and unseen speakers of a language are one language.
        let mut rows: BTreeMap<Language, Counts> = BTreeMap::new();
        for ((language, condition), counts) in &table {
            if wanted(*language, *condition) {
                rows.entry(*language).or_default().add(*counts);
            }
        }
        grouped(&rows.values().collect::<Vec<_>>())
    };
    let mut confusions: Vec<_> =
        confusions.into_iter().map(|((spoken, named), clips)| (spoken, named, clips)).collect();
    confusions.sort_by_key(|(_, _, clips)| std::cmp::Reverse(*clips));
    Ok(CorpusScores {
        seen: group(&|language, condition| condition == Some(Condition::Seen) && counted(language)),
        unseen: group(&|language, condition| {
            condition == Some(Condition::Unseen) && counted(language)
        }),
        few_shot: group(&|language, _| !counted(language)),
        all: group(&|_, _| true),
        languages: table
            .into_iter()
            .map(|((language, condition), counts)| LanguageScore {
                language,
                condition,
                clips: counts.clips,
                seconds: counts.seconds,
                characters: counts.characters,
                cer: counts.cer(),
                wer: counts.wer(),
                lid_accuracy: counts.lid().unwrap_or(0.0),
            })
            .collect(),
        confusions,
        clips: outcomes,
    })
}

/// Clips by length, shortest first, as batches of [`BATCH_S`].
pub(super) fn batches(corpus: &Corpus) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..corpus.clips().len()).collect();
    order.sort_by(|&a, &b| corpus.duration_s(a).total_cmp(&corpus.duration_s(b)));
    let mut batches = Vec::new();
    let mut rest = order.as_slice();
    while !rest.is_empty() {
        // Clips are in order of length, so the last one decides the padding.
        let fits = |n: &usize| corpus.duration_s(rest[*n - 1]) * *n as f64 <= BATCH_S;
        let (batch, others) = rest.split_at((1..=rest.len()).take_while(fits).last().unwrap_or(1));
        batches.push(batch.to_vec());
        rest = others;
    }
    batches
}

/// What is understood of each clip of a batch.
pub(super) fn transcribed(
    transcriber: &dyn Transcribe,
    corpus: &Corpus,
    clips: &[usize],
) -> Result<Vec<(usize, SegmentText)>, CorpusError> {
    let waveforms: Vec<Vec<f32>> =
        clips.iter().map(|&i| corpus.waveform(i)).collect::<Result<_, _>>()?;
    let views: Vec<&[f32]> = waveforms.iter().map(Vec::as_slice).collect();
    Ok(clips.iter().copied().zip(transcriber.transcribe(&views, None)?).collect())
}

/// Mean of what there is; `None` of nothing.
pub(super) fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let values: Vec<f64> = values.collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn grouped(rows: &[&Counts]) -> Group {
    let mut pooled = Counts::default();
    for row in rows {
        pooled.add(**row);
    }
    Group {
        languages: rows.len(),
        clips: pooled.clips,
        cer: pooled.cer(),
        macro_cer: mean(rows.iter().filter_map(|row| row.cer())),
        wer: pooled.wer(),
        lid_accuracy: pooled.lid(),
        macro_lid_accuracy: mean(rows.iter().filter_map(|row| row.lid())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pooled_and_mean_scores_by_hand() {
        let row = |clips, identified, character_errors, characters| Counts {
            clips,
            identified,
            character_errors,
            characters,
            ..Counts::default()
        };
        // 10 of 100 and 5 of 10 characters wrong; 3 of 4 and 0 of 1 clips named.
        let group = grouped(&[&row(4, 3, 10, 100), &row(1, 0, 5, 10)]);
        assert_eq!((group.languages, group.clips), (2, 5));
        assert!((group.cer.expect("has text") - 15.0 / 110.0).abs() < 1e-12);
        assert!((group.macro_cer.expect("has text") - 0.3).abs() < 1e-12);
        assert!((group.lid_accuracy.expect("has clips") - 0.6).abs() < 1e-12);
        assert!((group.macro_lid_accuracy.expect("has clips") - 0.375).abs() < 1e-12);
        assert_eq!(grouped(&[]).cer, None);
    }
}
