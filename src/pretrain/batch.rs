//! Batches of masked prediction: clips cropped to one length, their labels with them.

use super::PretrainError;
use super::labels::UnitLabels;
use super::mixing::{Mixing, Overlay, Second, mix};
use super::objective::LabelTimes;
use super::span_mask::{SpanMask, even_out};
use crate::config::ModelInput;
use crate::data::{BatchPlan, Clip, Corpus, Random, Upsampling};
use crate::model::EncoderConfig;
use crate::train::{Source, TrainError};
use serde::{Deserialize, Serialize};

/// Seconds by which labels may be fewer or more than their clip has room for.
const LABEL_TOLERANCE_S: f64 = 0.1;

/// How batches are drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitBatchConfig {
    /// Seconds of audio in a batch.
    pub seconds: f64,
    /// Longer clips are cropped at random, seconds; the clips of a batch are all cropped to
    /// the shortest of them.
    pub max_crop_s: f64,
    /// How small languages and data sets are drawn more often; exponents of 1 keep the natural
    /// balance.
    pub upsampling: Upsampling,
}

impl UnitBatchConfig {
    pub(super) fn validate(&self, min_clip_s: f64) -> Result<(), PretrainError> {
        let check = |ok: bool, field, expected| {
            if ok { Ok(()) } else { Err(PretrainError::Setting { field, expected }) }
        };
        check(
            self.max_crop_s >= min_clip_s && self.max_crop_s <= 3600.0,
            "batch.max_crop_s",
            "at least data.min_clip_s, at most 3600",
        )?;
        check(
            self.seconds >= self.max_crop_s && self.seconds <= 1e6,
            "batch.seconds",
            "at least batch.max_crop_s, at most 1000000",
        )?;
        Ok(self.upsampling.validate()?)
    }
}

/// Labels of the clips of all manifests.
#[derive(Debug)]
pub(super) struct LabelSet {
    pub(super) labels: UnitLabels,
    /// Middle of what the first label sees, seconds.
    pub(super) first_s: f64,
}

impl LabelSet {
    pub(super) fn times(&self) -> LabelTimes {
        LabelTimes {
            n_units: self.labels.n_units(),
            rate_hz: self.labels.rate_hz(),
            first_s: self.first_s,
        }
    }

    /// Whether `n` labels are what a clip of `duration_s` has: as many as fit between the
    /// middle of the first and as much before the end.
    pub(super) fn fits(&self, n: usize, duration_s: f64) -> bool {
        let rate_hz = self.labels.rate_hz();
        let seconds = n as f64 / rate_hz;
        let fewest = duration_s - 2.0 * self.first_s.max(0.0) - 1.0 / rate_hz;
        (fewest - LABEL_TOLERANCE_S..=duration_s + LABEL_TOLERANCE_S).contains(&seconds)
    }
}

/// The clips that are learned from, or held out.
#[derive(Debug)]
pub(super) struct Share<'a> {
    pub(super) corpus: &'a Corpus,
    /// Clips of the corpus.
    pub(super) clips: &'a [usize],
    /// The same as they are listed.
    pub(super) listed: Vec<Clip>,
    /// The place of each clip of the corpus in the label files.
    pub(super) places: &'a [usize],
    pub(super) sets: &'a [LabelSet],
}

/// A batch of clips of one length.
#[derive(Debug)]
pub(super) struct UnitBatch {
    /// `(clips, steps, channels)`, row-major.
    pub(super) input: Vec<f32>,
    pub(super) shape: (usize, usize, usize),
    /// Hidden frames of each clip at the rate of the front end.
    pub(super) masks: Vec<Vec<bool>>,
    /// Units of each label set and clip.
    pub(super) units: Vec<Vec<Vec<u32>>>,
    pub(super) audio_s: f64,
}

/// Makes batches.
#[derive(Debug)]
pub(super) struct UnitBatches<'a> {
    pub(super) share: &'a Share<'a>,
    pub(super) input: &'a ModelInput,
    pub(super) encoder: &'a EncoderConfig,
    pub(super) config: &'a UnitBatchConfig,
    pub(super) mask: &'a SpanMask,
    pub(super) mixing: Option<&'a Mixing>,
    /// Clips of the corpus in which nobody speaks.
    pub(super) noise: &'a [usize],
    pub(super) seed: u64,
}

impl Source for UnitBatches<'_> {
    type Batch = UnitBatch;

    fn plan(&self, epoch: u64) -> BatchPlan {
        let mut random = Random::new(&[self.seed, epoch]);
        let drawn = self.config.upsampling.ordered_indices(&self.share.listed, self.seed, epoch);
        let mut drawn: Vec<usize> = drawn.into_iter().map(|i| self.share.clips[i]).collect();
        // Clips of one length in any order.
        random.shuffle(&mut drawn);
        let seconds = |i: &usize| self.share.corpus.duration_s(*i).min(self.config.max_crop_s);
        drawn.sort_by(|a, b| seconds(a).total_cmp(&seconds(b)));
        let mut batches: Vec<Vec<usize>> = Vec::new();
        let mut batch: Vec<usize> = Vec::new();
        for i in drawn {
            if seconds(&i) * (batch.len() + 1) as f64 > self.config.seconds && !batch.is_empty() {
                batches.push(std::mem::take(&mut batch));
            }
            batch.push(i);
        }
        if !batch.is_empty() {
            batches.push(batch);
        }
        random.shuffle(&mut batches);
        BatchPlan { batches }
    }

    fn make(&self, clips: &[usize], key: u64) -> Result<UnitBatch, TrainError> {
        self.batch(clips, key).map_err(|error| TrainError::Source(Box::new(error)))
    }
}

impl UnitBatches<'_> {
    /// The batch of `clips`; crops, masks and what is mixed in follow from `key`.
    pub(super) fn batch(&self, clips: &[usize], key: u64) -> Result<UnitBatch, PretrainError> {
        let channels = self.input.channels();
        let mut random = Random::new(&[self.seed, key]);
        let waves: Vec<Vec<f32>> =
            clips.iter().map(|&clip| self.share.corpus.waveform(clip)).collect::<Result<_, _>>()?;
        let prepared: Vec<Vec<f32>> = (0..clips.len())
            .map(|i| Ok(self.input.prepare(self.mixed(&waves, i, &mut random)?)))
            .collect::<Result<_, PretrainError>>()?;
        let most = (self.config.max_crop_s / self.input.step_s()).round() as usize;
        let shortest = prepared.iter().map(|clip| clip.len() / channels).min().unwrap_or(0);
        let steps = shortest.min(most).max(1);
        // Crops begin where a frame does, so that frames keep their labels.
        let stride = self.encoder.input_stride();
        let starts: Vec<usize> = prepared
            .iter()
            .map(|clip| {
                let room = (clip.len() / channels).saturating_sub(steps);
                stride * random.below(room / stride + 1)
            })
            .collect();
        let mut input = Vec::with_capacity(clips.len() * steps * channels);
        for (clip, start) in prepared.iter().zip(&starts) {
            input.extend_from_slice(&clip[start * channels..(start + steps) * channels]);
        }
        let frames = self.encoder.frames(steps.max(self.encoder.receptive_field()));
        let mut masks: Vec<Vec<bool>> =
            clips.iter().map(|_| self.mask.draw(frames, &mut random)).collect();
        even_out(&mut masks, &mut random);
        let step_s = self.input.step_s();
        let crops = Crops { starts: &starts, steps, step_s };
        let sets = self.share.sets.iter();
        Ok(UnitBatch {
            input,
            shape: (clips.len(), steps, channels),
            masks,
            units: sets.map(|set| self.units(set, clips, &crops)).collect::<Result<_, _>>()?,
            audio_s: (clips.len() * steps) as f64 * step_s,
        })
    }

    /// Clip `i` of a batch, perhaps with something mixed in.
    fn mixed(
        &self,
        waves: &[Vec<f32>],
        i: usize,
        random: &mut Random,
    ) -> Result<Vec<f32>, PretrainError> {
        let mut primary = waves[i].clone();
        let Some(mixing) = self.mixing else { return Ok(primary) };
        let has_noise = !self.noise.is_empty();
        let Some(kind) = mixing.draw(waves.len() - 1, has_noise, random) else {
            return Ok(primary);
        };
        let noise;
        let second = match kind.second {
            Second::Noise => {
                noise = self.share.corpus.waveform(self.noise[random.below(self.noise.len())])?;
                &noise
            }
            Second::Voice(other) => &waves[if other < i { other } else { other + 1 }],
        };
        if let Some(overlay) = Overlay::draw(primary.len(), second.len(), random) {
            mix(&mut primary, second, &overlay, kind.snr_db);
        }
        Ok(primary)
    }

    /// The units of the crops, as many of each clip as of the one that has fewest.
    fn units(
        &self,
        set: &LabelSet,
        clips: &[usize],
        crops: &Crops,
    ) -> Result<Vec<Vec<u32>>, PretrainError> {
        let rate_hz = set.labels.rate_hz();
        let label = |steps: usize| (steps as f64 * crops.step_s * rate_hz).round() as usize;
        let n = label(crops.steps);
        let mut all = Vec::with_capacity(clips.len());
        for (&clip, &start) in clips.iter().zip(crops.starts) {
            let units = set.labels.clip(self.share.places[clip])?;
            let duration_s = self.share.corpus.duration_s(clip);
            if !set.fits(units.len(), duration_s) {
                return Err(PretrainError::LabelMismatch {
                    clip: self.share.corpus.clips()[clip].path.clone(),
                    labels: set.labels.path().to_owned(),
                    found: units.len(),
                    expected: (duration_s * rate_hz).round() as usize,
                });
            }
            let start = label(start).min(units.len());
            let end = (start + n).min(units.len());
            all.push(units[start..end].iter().map(|&unit| u32::from(unit)).collect::<Vec<u32>>());
        }
        let fewest = all.iter().map(Vec::len).min().unwrap_or(0);
        all.iter_mut().for_each(|units| units.truncate(fewest));
        Ok(all)
    }
}

/// Where clips are cropped.
struct Crops<'a> {
    /// First step of each clip.
    starts: &'a [usize],
    /// Steps of every clip.
    steps: usize,
    step_s: f64,
}
