//! Which frames are hidden: spans drawn at random (fairseq `compute_mask_indices`, static
//! lengths).

use super::PretrainError;
use crate::data::Random;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// How spans are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpanMask {
    /// Frames of spans drawn per frame of a clip; spans overlap, so that fewer are hidden.
    pub probability: f64,
    /// Frames of a span.
    pub length: usize,
    /// Fewest spans of a clip.
    #[serde(default = "two")]
    pub min_spans: usize,
    /// Spans do not overlap (`no_mask_overlap`).
    #[serde(default)]
    pub no_overlap: bool,
    /// Frames seen between two spans that do not overlap (`mask_min_space`).
    #[serde(default = "one")]
    pub min_space: usize,
}

fn one() -> usize {
    1
}

fn two() -> usize {
    2
}

impl SpanMask {
    /// Checks every range.
    ///
    /// # Errors
    /// [`PretrainError::Setting`] for the first setting out of range.
    pub fn validate(&self) -> Result<(), PretrainError> {
        let check = |ok: bool, field, expected| {
            if ok { Ok(()) } else { Err(PretrainError::Setting { field, expected }) }
        };
        check(
            self.probability > 0.0 && self.probability < 1.0,
            "objective.mask.probability",
            "above 0, below 1",
        )?;
        check((1..=1000).contains(&self.length), "objective.mask.length", "1 to 1000")?;
        check((1..=100).contains(&self.min_spans), "objective.mask.min_spans", "1 to 100")?;
        check(self.min_space <= 1000, "objective.mask.min_space", "at most 1000")
    }

    /// The mask of one clip of `frames` frames; at least one frame of a clip of two or more
    /// stays visible.
    #[must_use]
    pub fn draw(&self, frames: usize, random: &mut Random) -> Vec<bool> {
        let mut mask = vec![false; frames];
        if frames < 2 {
            return mask;
        }
        let share = self.probability * frames as f64 / self.length as f64;
        let spans = ((share + random.unit()) as usize).max(self.min_spans);
        let length = self.length.min(frames - 1);
        let starts = if self.no_overlap {
            self.apart(frames, length, spans, random)
        } else {
            overlapping(frames, length, spans, random)
        };
        for start in starts {
            let span = start..(start + length).min(frames);
            let hidden = mask.iter().filter(|m| **m).count();
            let new = mask[span.clone()].iter().filter(|m| !**m).count();
            // A clip that is hidden whole has nothing to be predicted from.
            if hidden + new < frames {
                mask[span].fill(true);
            }
        }
        mask
    }

    /// Starts of spans that keep their distance: each falls into a part of what is left, the
    /// larger the likelier.
    fn apart(&self, frames: usize, length: usize, spans: usize, random: &mut Random) -> Vec<usize> {
        let mut parts: Vec<Range<usize>> = Vec::new();
        parts.push(0..frames);
        let mut starts = Vec::with_capacity(spans);
        for _ in 0..spans {
            let room = |part: &Range<usize>| {
                if part.len() >= length + self.min_space { part.len() } else { 0 }
            };
            let total: usize = parts.iter().map(room).sum();
            if total == 0 {
                break;
            }
            let mut point = random.below(total);
            let Some(chosen) = parts.iter().position(|part| {
                let inside = point < room(part);
                point = point.saturating_sub(room(part));
                inside
            }) else {
                break;
            };
            let part = parts.swap_remove(chosen);
            let start = part.start + random.below(part.len() - length + 1);
            starts.push(start);
            let before = part.start..start.saturating_sub(self.min_space).max(part.start);
            let after = (start + length + self.min_space).min(part.end)..part.end;
            parts.extend([before, after].into_iter().filter(|part| !part.is_empty()));
        }
        starts
    }
}

/// Distinct starts; spans from them may overlap.
fn overlapping(frames: usize, length: usize, spans: usize, random: &mut Random) -> Vec<usize> {
    // Where there are fewer starts than spans, later ones count, too, and their spans are cut.
    let room = if frames - length > spans { frames - length } else { (spans + 1).min(frames) };
    let mut candidates: Vec<usize> = (0..room).collect();
    let n = spans.min(room);
    for i in 0..n {
        candidates.swap(i, i + random.below(room - i));
    }
    candidates.truncate(n);
    candidates
}

/// Lets every clip of a batch hide as many frames as the one that hides fewest
/// (`require_same_masks`).
pub(super) fn even_out(masks: &mut [Vec<bool>], random: &mut Random) {
    let count = |mask: &[bool]| mask.iter().filter(|m| **m).count();
    let fewest = masks.iter().map(|mask| count(mask)).min().unwrap_or(0);
    for mask in masks {
        let mut hidden: Vec<usize> = (0..mask.len()).filter(|&i| mask[i]).collect();
        random.shuffle(&mut hidden);
        for &i in &hidden[fewest..] {
            mask[i] = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLISHED: SpanMask =
        SpanMask { probability: 0.8, length: 10, min_spans: 2, no_overlap: false, min_space: 1 };

    fn hidden(mask: &[bool]) -> usize {
        mask.iter().filter(|m| **m).count()
    }

    #[test]
    fn about_half_of_a_clip_is_hidden_in_spans() {
        let mut random = Random::new(&[1]);
        let masks: Vec<_> = (0..50).map(|_| PUBLISHED.draw(500, &mut random)).collect();
        let share = masks.iter().map(|mask| hidden(mask)).sum::<usize>() as f64 / 25_000.0;
        // Of n = 40 starts among 490 places: 1 - (1 - 10/490)^40 = 0.56.
        assert!((0.53..0.59).contains(&share), "{share}");
        for mask in &masks {
            let runs = mask.split(|m| !m).filter(|run| !run.is_empty());
            assert!(runs.map(<[bool]>::len).all(|n| n >= 10));
        }
        let again = PUBLISHED.draw(500, &mut Random::new(&[7]));
        assert_eq!(again, PUBLISHED.draw(500, &mut Random::new(&[7])));
    }

    #[test]
    fn spans_apart_do_not_touch() {
        let apart = SpanMask { no_overlap: true, min_space: 3, ..PUBLISHED };
        let mut random = Random::new(&[2]);
        for frames in [30, 100, 700] {
            let mask = apart.draw(frames, &mut random);
            let runs: Vec<usize> =
                mask.split(|m| !m).map(<[bool]>::len).filter(|n| *n > 0).collect();
            assert!(!runs.is_empty() && runs.iter().all(|n| *n == 10), "{runs:?}");
            let ends = mask.windows(5).filter(|w| w[0] && !w[1] && w[1..].contains(&true));
            assert_eq!(ends.filter(|w| w[2] || w[3]).count(), 0);
        }
    }

    #[test]
    fn short_clips_keep_something_visible() {
        let mut random = Random::new(&[3]);
        for no_overlap in [false, true] {
            let mask = SpanMask { no_overlap, ..PUBLISHED };
            for frames in 0..40 {
                for _ in 0..20 {
                    let drawn = mask.draw(frames, &mut random);
                    assert_eq!(drawn.len(), frames);
                    assert!(hidden(&drawn) < frames.max(1), "{frames} frames");
                }
            }
        }
    }

    #[test]
    fn clips_of_a_batch_hide_the_same_number() {
        let mut random = Random::new(&[4]);
        let mut masks: Vec<_> = (0..8).map(|_| PUBLISHED.draw(200, &mut random)).collect();
        let before = masks.clone();
        even_out(&mut masks, &mut random);
        let fewest = before.iter().map(|mask| hidden(mask)).min();
        for (mask, before) in masks.iter().zip(&before) {
            assert_eq!(Some(hidden(mask)), fewest);
            assert!(mask.iter().zip(before).all(|(now, then)| *then || !now));
        }
    }
}
