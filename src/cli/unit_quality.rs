//! What units are compared with: labels of a file, or the characters of transcripts.

use super::Talk;
use super::failure::AnyError;
use crate::audio::{DecodeOptions, decode_path};
use crate::config::embedded_model;
use crate::data::{Clip, Random, Transcript};
use crate::decode::{AlignedCharacter, Transcriber};
use crate::pretrain::{Contingency, PretrainError, UnitLabels};
use asr_kernels::Precision;
use clap::Args;
use std::collections::HashMap;
use std::path::PathBuf;

/// Audio that a fit is judged on, seconds.
const JUDGED_S: f64 = 4.0 * 3600.0;
/// Moments that units are compared at, per second: the same for units of every rate, because
/// tables of fewer moments agree more by chance.
const JUDGED_HZ: f64 = 25.0;
/// Longest clip whose text is aligned, seconds.
const ALIGNED_S: f64 = 30.0;
/// Farthest that a frame may lie from a character to count as part of it, seconds.
const REACH_S: f64 = 0.1;

#[derive(Debug, Args)]
#[command(next_help_heading = "Quality")]
pub(super) struct QualityArgs {
    /// Compare units with the labels of another file (phones, say) for the same manifest: `.km`
    /// with `dict.km.txt` and `rate.km.txt` beside it, or the compact layout
    #[arg(long, value_name = "FILE", conflicts_with = "characters")]
    reference: Option<PathBuf>,
    /// Compare units with the characters of the manifest's texts, where the model inside the
    /// binary hears them
    #[arg(long)]
    characters: bool,
}

/// What units are compared with.
pub(super) enum Reference {
    Labels(UnitLabels, Vec<Clip>),
    Characters(Box<Characters>),
}

/// Characters of the clips that are compared.
pub(super) struct Characters {
    transcriber: Transcriber,
    clips: Vec<Clip>,
    /// Numbers of the characters seen.
    numbers: HashMap<String, u16>,
}

impl QualityArgs {
    pub(super) fn reference(
        &self,
        clips: &[Clip],
        talk: Talk,
    ) -> Result<Option<Reference>, AnyError> {
        if let Some(path) = &self.reference {
            let labels = UnitLabels::open(path)?;
            if labels.n_clips() != clips.len() {
                let (found, expected) = (labels.n_clips(), clips.len());
                return Err(PretrainError::ClipCount { path: path.clone(), found, expected }.into());
            }
            return Ok(Some(Reference::Labels(labels, clips.to_vec())));
        }
        if !self.characters {
            return Ok(None);
        }
        talk.note("characters are found by aligning the texts with the model inside the binary");
        let transcriber = Transcriber::new(&embedded_model()?, Precision::F32)?;
        let characters = Characters { transcriber, clips: clips.to_vec(), numbers: HashMap::new() };
        Ok(Some(Reference::Characters(Box::new(characters))))
    }
}

impl Reference {
    /// Up to four hours of the clips that can be compared, drawn fairly; from now on clips are
    /// numbered among these.
    pub(super) fn some_clips(&mut self, clips: &[Clip]) -> Vec<Clip> {
        let Self::Characters(characters) = self else {
            // Labels are told apart by the number of their clip, so all are compared.
            return clips.to_vec();
        };
        let mut some: Vec<Clip> = clips.iter().filter(|clip| is_aligned(clip)).cloned().collect();
        Random::new(&[0x6a75_6467_6564]).shuffle(&mut some);
        let mut seconds = 0.0;
        some.retain(|clip| {
            seconds += clip.duration_s;
            seconds <= JUDGED_S
        });
        characters.clips.clone_from(&some);
        some
    }

    /// Counts the units of a clip against what is known of it.
    pub(super) fn count(
        &mut self,
        counts: &mut Contingency,
        clip: usize,
        units: &[u16],
        rate_hz: f64,
    ) -> Result<(), AnyError> {
        if units.is_empty() {
            return Ok(());
        }
        match self {
            Self::Labels(labels, clips) => {
                let (group, reference) = (group(&clips[clip]), labels.clip(clip)?);
                counts.add_labels(group, units, rate_hz, &reference, labels.rate_hz())?;
            }
            Self::Characters(characters) => {
                let said = characters.of(clip)?;
                // What front ends reach beyond the ends of a clip is missing on both sides.
                let seconds = units.len() as f64 / rate_hz;
                let clip = &characters.clips[clip];
                let shift_s = (clip.duration_s - seconds) / 2.0;
                let at = |moment: usize| ((moment as f64 + 0.5) / JUDGED_HZ * rate_hz) as usize;
                let units: Vec<u16> = (0..).map_while(|i| units.get(at(i)).copied()).collect();
                counts.add(group(clip), &units, JUDGED_HZ, |time| nearest(&said, time + shift_s));
            }
        }
        Ok(())
    }
}

/// Clips of one language are a group.
fn group(clip: &Clip) -> u32 {
    clip.language.map_or(0, |language| {
        language.code().bytes().fold(0, |code, byte| code << 8 | u32::from(byte))
    })
}

/// A character: begin and end in seconds, and its number.
type Said = (f64, f64, u16);

impl Characters {
    /// When the characters of a clip are said, in order; nothing where no text is known.
    fn of(&mut self, clip: usize) -> Result<Vec<Said>, AnyError> {
        let clip = &self.clips[clip];
        let (Some(language), Transcript::Text(text)) = (clip.language, &clip.transcript) else {
            return Ok(Vec::new());
        };
        if !is_aligned(clip) {
            return Ok(Vec::new());
        }
        let audio = decode_path(&clip.path, &DecodeOptions::default())?;
        let said = self.transcriber.align_characters(&audio.samples, text, language)?;
        Ok(said.into_iter().map(|character| self.numbered(character)).collect())
    }

    fn numbered(&mut self, said: AlignedCharacter) -> Said {
        let next = u16::try_from(self.numbers.len()).unwrap_or(u16::MAX);
        let number = *self.numbers.entry(said.character).or_insert(next);
        (said.start_s, said.end_s, number)
    }
}

fn is_aligned(clip: &Clip) -> bool {
    clip.language.is_some()
        && matches!(clip.transcript, Transcript::Text(_))
        && clip.duration_s <= ALIGNED_S
}

/// The character that is said at a time, or nearest to it.
fn nearest(said: &[Said], time: f64) -> Option<u16> {
    let away = |&(start, end, _): &Said| (start - time).max(time - end).max(0.0);
    let i = said.partition_point(|&(_, end, _)| end < time);
    let around = said[i.saturating_sub(1)..].iter().take(2);
    let nearest = around.min_by(|a, b| away(a).total_cmp(&away(b)))?;
    (away(nearest) <= REACH_S).then_some(nearest.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_belong_to_the_character_nearest_in_time() {
        let said = [(0.2, 0.3, 1), (0.4, 0.44, 2), (1.0, 1.1, 3)];
        for (time, want) in [
            (0.05, None),
            (0.15, Some(1)),
            (0.25, Some(1)),
            (0.34, Some(1)),
            (0.36, Some(2)),
            (0.5, Some(2)),
            (0.7, None),
            (0.95, Some(3)),
            (1.3, None),
        ] {
            assert_eq!(nearest(&said, time), want, "{time}");
        }
        assert_eq!(nearest(&[], 0.5), None);
    }
}
