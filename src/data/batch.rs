//! Which clips make a batch, and the batch itself.

use super::{Augmentation, Corpus, DataError, Random, StoredStates, Transcript};
use crate::features::{Features, InputFeatures};
use crate::text::{Language, Vocabulary, normalise};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How batches are drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchConfig {
    /// Seconds of audio in a batch, padding included.
    pub seconds: f64,
    /// Clips longer than this are left out, seconds.
    pub max_clip_s: f64,
    /// The first epoch leaves out clips longer than this: on short clips CTC finds its first
    /// alignments sooner, seconds.
    pub first_epoch_max_clip_s: f64,
    /// A language with `n` seconds is drawn in proportion to `n ^ temperature`: 1 keeps the
    /// natural balance, 0 makes all languages equal.
    pub temperature: f64,
    /// Most times a clip is drawn per epoch.
    pub max_repeats: usize,
}

impl BatchConfig {
    /// Checks every range.
    ///
    /// # Errors
    /// [`DataError::Setting`] for the first setting out of range.
    pub fn validate(&self) -> Result<(), DataError> {
        let check = |ok: bool, field, expected| {
            if ok { Ok(()) } else { Err(DataError::Setting { field, expected }) }
        };
        check(self.seconds.is_finite() && self.seconds > 0.0, "seconds", "above 0")?;
        check(
            self.max_clip_s > 0.0 && self.max_clip_s <= self.seconds,
            "max_clip_s",
            "above 0, at most `seconds`",
        )?;
        check(
            self.first_epoch_max_clip_s > 0.0 && self.first_epoch_max_clip_s <= self.max_clip_s,
            "first_epoch_max_clip_s",
            "above 0, at most `max_clip_s`",
        )?;
        check((0.0..=1.0).contains(&self.temperature), "temperature", "between 0 and 1")?;
        check((1..=1000).contains(&self.max_repeats), "max_repeats", "from 1 to 1000")
    }
}

/// What a batch should spell, clip by clip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// Language tag and characters; empty for silence.
    pub tokens: Vec<u32>,
    /// Only the beginning is known (a clip without transcript).
    pub open_ended: bool,
    /// Words of the transcript; 0 where it is unknown or there is none.
    pub words: usize,
}

/// A padded batch.
#[derive(Debug, Clone)]
pub struct Batch {
    /// `(clips, frames, bins)`, row-major, zero past each clip's length.
    pub features: Vec<f32>,
    /// Frames of the longest clip.
    pub frames: usize,
    /// Values per frame.
    pub bins: usize,
    /// Valid frames of each clip.
    pub lengths: Vec<usize>,
    /// What each clip spells.
    pub labels: Vec<Labels>,
    /// Seconds of audio, without padding.
    pub audio_s: f64,
}

/// The clips of each batch of one epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchPlan {
    /// Indices into the corpus.
    pub batches: Vec<Vec<usize>>,
}

impl BatchPlan {
    /// Draws an epoch: as many clips as the corpus has, languages balanced by temperature,
    /// clips of like length together, batches in random order.
    #[must_use]
    pub fn draw(corpus: &Corpus, config: &BatchConfig, seed: u64, epoch: u64) -> Self {
        let mut random = Random::new(&[seed, epoch]);
        let mut by_language: BTreeMap<Option<Language>, Vec<usize>> = BTreeMap::new();
        let longest_s = if epoch == 0 { config.first_epoch_max_clip_s } else { config.max_clip_s };
        for (i, clip) in corpus.clips().iter().enumerate() {
            if corpus.duration_s(i) <= longest_s {
                by_language.entry(clip.language).or_default().push(i);
            }
        }
        let clip_weight = |i: usize| corpus.clips()[i].weight;
        by_language.retain(|_, clips| clips.iter().any(|&i| clip_weight(i) > 0.0));
        let seconds = |clips: &[usize]| {
            clips.iter().map(|&i| corpus.duration_s(i) * clip_weight(i)).sum::<f64>()
        };
        let total: f64 = by_language.values().map(|clips| seconds(clips)).sum();
        let weight = |clips: &[usize]| seconds(clips).powf(config.temperature);
        let weights: f64 = by_language.values().map(|clips| weight(clips)).sum();
        let mut drawn = Vec::new();
        for clips in by_language.values() {
            // Rounds of the whole language, the last one partial.
            let rounds =
                (total * weight(clips) / weights / seconds(clips)).min(config.max_repeats as f64);
            let in_a_round: f64 = clips.iter().map(|&i| clip_weight(i)).sum();
            let count = (rounds * in_a_round).round() as usize;
            let mut order: Vec<usize> = Vec::new();
            while order.len() < count {
                let mut round: Vec<usize> =
                    clips.iter().copied().filter(|&i| random.chance(clip_weight(i))).collect();
                random.shuffle(&mut round);
                order.extend(round);
            }
            drawn.extend_from_slice(&order[..count]);
        }
        // Jitter keeps batches from being the same neighbours every epoch.
        let mut keyed: Vec<(f64, usize)> = drawn
            .into_iter()
            .map(|i| (corpus.duration_s(i) * random.between(0.9, 1.1), i))
            .collect();
        keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut batches = Vec::new();
        let mut batch: Vec<usize> = Vec::new();
        let mut longest = 0.0_f64;
        for (_, i) in keyed {
            let with = longest.max(corpus.duration_s(i));
            if !batch.is_empty() && with * (batch.len() + 1) as f64 > config.seconds {
                batches.push(std::mem::take(&mut batch));
                longest = 0.0;
            }
            longest = longest.max(corpus.duration_s(i));
            batch.push(i);
        }
        if !batch.is_empty() {
            batches.push(batch);
        }
        random.shuffle(&mut batches);
        Self { batches }
    }
}

/// Where what the model reads of a clip comes from.
#[derive(Debug, Clone, Copy)]
pub enum ClipInput<'a> {
    /// Computed from the clip, perturbed.
    Computed(&'a InputFeatures),
    /// Hidden states on disk, as they are.
    Stored(&'a StoredStates),
}

impl ClipInput<'_> {
    /// Steps per second of what is computed; hidden states do not say, and 0 stands for that.
    #[must_use]
    pub fn steps_per_s(&self) -> f64 {
        match self {
            Self::Computed(input) => input.steps_per_s(),
            Self::Stored(_) => 0.0,
        }
    }

    /// What the model reads of a clip without perturbation.
    ///
    /// # Errors
    /// [`DataError::States`] if hidden states cannot be read.
    pub fn plain(&self, corpus: &Corpus, clip: usize) -> Result<Features, DataError> {
        match self {
            Self::Computed(input) => Ok(input.compute(&corpus.waveform(clip)?)),
            Self::Stored(states) => states.features(clip),
        }
    }
}

/// Turns planned batches into features and labels.
#[derive(Debug)]
pub struct Batches<'a> {
    /// The clips.
    pub corpus: &'a Corpus,
    /// Tokens.
    pub vocabulary: &'a Vocabulary,
    /// What each clip of the corpus is to spell; without it its language tag, then its transcript
    /// in normal form.
    pub labels: Option<&'a [Labels]>,
    /// What the model reads.
    pub input: ClipInput<'a>,
    /// Perturbations.
    pub augmentation: &'a Augmentation,
    /// Seed of the perturbations.
    pub seed: u64,
}

impl Batches<'_> {
    /// The batch of `clips`; `key` (epoch and number, say) decides its perturbations.
    ///
    /// # Errors
    /// [`DataError`] if a clip's speed cannot be changed or its text not be spelt.
    pub fn make(&self, clips: &[usize], key: u64) -> Result<Batch, DataError> {
        let mut audio_s = 0.0;
        let mut all = Vec::with_capacity(clips.len());
        for (position, &clip) in clips.iter().enumerate() {
            let mut random = Random::new(&[self.seed, key, position as u64]);
            let features = match self.input {
                ClipInput::Computed(input) => {
                    let features = self.perturbed(clip, input, &mut random)?;
                    audio_s += features.n_frames as f64 / input.steps_per_s();
                    features
                }
                ClipInput::Stored(states) => {
                    audio_s += self.corpus.duration_s(clip);
                    states.features(clip)?
                }
            };
            all.push(features);
        }
        let bins = all.first().map_or(0, |f| f.n_bins);
        let frames = all.iter().map(|f| f.n_frames).max().unwrap_or(0);
        let mut features = vec![0.0; clips.len() * frames * bins];
        for (row, clip) in features.chunks_exact_mut((frames * bins).max(1)).zip(&all) {
            row[..clip.data.len()].copy_from_slice(&clip.data);
        }
        Ok(Batch {
            features,
            frames,
            bins,
            lengths: all.iter().map(|f| f.n_frames).collect(),
            labels: clips.iter().map(|&i| self.labels(i)).collect::<Result<_, _>>()?,
            audio_s,
        })
    }

    fn perturbed(
        &self,
        clip: usize,
        input: &InputFeatures,
        random: &mut Random,
    ) -> Result<Features, DataError> {
        let waveform = self.corpus.waveform(clip)?;
        let clips = self.corpus.clips().len();
        let other = |random: &mut Random| self.corpus.waveform(random.below(clips));
        let mut features = self.augmentation.features(waveform, other, input, random)?;
        if !input.is_waveform() {
            self.augmentation.mask(&mut features, input.steps_per_s(), random);
        }
        Ok(features)
    }

    fn labels(&self, clip: usize) -> Result<Labels, DataError> {
        if let Some(labels) = self.labels {
            return Ok(labels[clip].clone());
        }
        let clip = &self.corpus.clips()[clip];
        let text = |source| DataError::Text { clip: clip.path.clone(), source };
        let Some(language) = clip.language else {
            return Ok(Labels { tokens: Vec::new(), open_ended: false, words: 0 });
        };
        match &clip.transcript {
            Transcript::Text(words) => {
                let normal = normalise(words, language);
                let encoding = self.vocabulary.encode(&normal, language).map_err(text)?;
                let words = normal.split_whitespace().count();
                Ok(Labels { tokens: encoding.tokens, open_ended: false, words })
            }
            Transcript::Unknown => {
                let encoding = self.vocabulary.encode("", language).map_err(text)?;
                Ok(Labels { tokens: encoding.tokens, open_ended: true, words: 0 })
            }
            Transcript::Silence => Ok(Labels { tokens: Vec::new(), open_ended: false, words: 0 }),
        }
    }
}
