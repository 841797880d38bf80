//! Decoded clips in memory, two bytes a sample.

use super::{Clip, DataError, Disturbance, Random};
use crate::audio::{AudioError, DecodeOptions, decode_path};
use rayon::prelude::*;
use std::path::PathBuf;

/// Share of a list that may be unreadable before that is an error.
const MAX_UNREADABLE: f64 = 0.01;

/// Clips with their samples.
///
/// 16-bit samples keep a day of speech in under 3 GB; their rounding lies far below the
/// noise of any recording.
#[derive(Debug, Default)]
pub struct Corpus {
    clips: Vec<Clip>,
    samples: Vec<Vec<i16>>,
}

/// Samples as they are kept.
fn stored(samples: &[f32]) -> Vec<i16> {
    samples.iter().map(|s| (s * 32_767.0).clamp(-32_768.0, 32_767.0) as i16).collect()
}

/// What was left out while loading.
#[derive(Debug, Default)]
pub struct CorpusReport {
    /// Clips that could not be decoded, with the reason.
    pub unreadable: Vec<(PathBuf, AudioError)>,
}

impl Corpus {
    /// Decodes `clips` on all cores, leaving out up to one in a hundred that cannot be read.
    ///
    /// # Errors
    /// [`DataError::TooManyUnreadable`] beyond that.
    pub fn load(clips: Vec<Clip>) -> Result<(Self, CorpusReport), DataError> {
        Self::load_most(clips, MAX_UNREADABLE)
    }

    /// As [`Corpus::load`], leaving out up to a share `max_unreadable` that cannot be read.
    ///
    /// # Errors
    /// [`DataError::TooManyUnreadable`] beyond that.
    pub fn load_most(
        clips: Vec<Clip>,
        max_unreadable: f64,
    ) -> Result<(Self, CorpusReport), DataError> {
        let total = clips.len();
        let options = DecodeOptions::default();
        let decoded: Vec<_> = clips
            .par_iter()
            .map(|clip| decode_path(&clip.path, &options).map(|audio| stored(&audio.samples)))
            .collect();
        let mut corpus = Self::default();
        let mut report = CorpusReport::default();
        for (clip, samples) in clips.into_iter().zip(decoded) {
            match samples {
                Ok(samples) => {
                    corpus.clips.push(clip);
                    corpus.samples.push(samples);
                }
                Err(error) => report.unreadable.push((clip.path, error)),
            }
        }
        if report.unreadable.len() as f64 > max_unreadable * total as f64 {
            let failed = report.unreadable.len();
            let (first, source) = report.unreadable.swap_remove(0);
            return Err(DataError::TooManyUnreadable { failed, total, first, source });
        }
        Ok((corpus, report))
    }

    /// The same clips, each disturbed by chance of `seed` and its number.
    ///
    /// # Errors
    /// If a codec fails.
    pub fn disturbed(self, disturbance: Disturbance, seed: u64) -> Result<Self, DataError> {
        let samples = (0..self.clips.len())
            .into_par_iter()
            .map(|clip| {
                let mut random = Random::new(&[seed, clip as u64]);
                let heard = disturbance.apply(&self.waveform(clip), &mut random)?;
                Ok(stored(&heard))
            })
            .collect::<Result<_, DataError>>()?;
        Ok(Self { samples, ..self })
    }

    /// The clips, in the order given.
    #[must_use]
    pub fn clips(&self) -> &[Clip] {
        &self.clips
    }

    /// Samples of a clip in [-1, 1], 16 kHz.
    #[must_use]
    pub fn waveform(&self, clip: usize) -> Vec<f32> {
        self.samples[clip].iter().map(|&s| f32::from(s) / 32_768.0).collect()
    }

    /// Samples of a clip as they are kept, 16 kHz.
    #[must_use]
    pub fn samples(&self, clip: usize) -> &[i16] {
        &self.samples[clip]
    }

    /// Length of a clip in seconds.
    #[must_use]
    pub fn duration_s(&self, clip: usize) -> f64 {
        self.samples[clip].len() as f64 / 16_000.0
    }
}
