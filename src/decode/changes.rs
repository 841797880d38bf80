//! Where the language changes inside of a window.

use super::reader::FrameModel;
use super::transcriber::{DecodeError, Heard, ScoredLanguage};
use crate::text::Language;

const RATE: usize = 16_000;
/// The language is asked of stretches this long, in samples.
const PROBE: usize = 3 * RATE;
/// From one such stretch to the next, in samples.
const HOP: usize = RATE;
/// Nats that a change costs: by so much another language must explain a stretch better.
const CHANGE_COST: f64 = 4.0;
/// A language is no less likely than this, so that no single stretch decides.
const LEAST: f64 = 0.01;
/// A change is moved to the quietest moment no further away than this, in samples.
const REACH: usize = RATE;
/// Loudness is measured over this many samples.
const HUSH: usize = RATE / 10;

/// Nats that a change in a pause costs.
const PAUSE_COST: f64 = 3.0;
/// Speech between pauses whose language is asked by itself is no shorter, in samples.
const PHRASE: usize = RATE;

/// Samples at which another language begins, in order.
///
/// # Errors
/// [`DecodeError`] if the model cannot be run.
pub(super) fn language_changes(
    model: &dyn FrameModel,
    samples: &[f32],
    candidates: Option<&[Language]>,
) -> Result<Vec<usize>, DecodeError> {
    if samples.len() < PROBE + 2 * HOP {
        return Ok(Vec::new());
    }
    let probes: Vec<&[f32]> = samples.windows(PROBE).step_by(HOP).collect();
    let heard = model.hear(&probes)?;
    let scores: Vec<Vec<ScoredLanguage>> =
        heard.iter().map(|heard| model.languages(heard, candidates)).collect();
    // Stretches overlap: each second is heard so many times.
    let path = likeliest(&scores, HOP as f64 / PROBE as f64, CHANGE_COST);
    let between = |i: usize| i * HOP + (PROBE + HOP) / 2;
    Ok((1..path.len())
        .filter(|&i| path[i - 1] != path[i])
        .map(|i| quietest(samples, between(i - 1)))
        .collect())
}

/// Speech between pauses, in groups of one language each: where a group ends, in order, and what
/// was heard of it if that is known already. `pauses` are samples in order.
///
/// # Errors
/// [`DecodeError`] if the model cannot be run.
pub(super) fn language_groups(
    model: &dyn FrameModel,
    samples: &[f32],
    pauses: &[usize],
    candidates: Option<&[Language]>,
) -> Result<Vec<(usize, Option<Heard>)>, DecodeError> {
    let mut ends = Vec::new();
    for &pause in pauses {
        let start = ends.last().copied().unwrap_or(0);
        if pause >= start + PHRASE && pause + PHRASE <= samples.len() {
            ends.push(pause);
        }
    }
    ends.push(samples.len());
    if ends.len() == 1 {
        return Ok(vec![(samples.len(), None)]);
    }
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let phrases: Vec<&[f32]> =
        starts.zip(&ends).map(|(start, &end)| &samples[start..end]).collect();
    let heard = model.hear(&phrases)?;
    let scores: Vec<Vec<ScoredLanguage>> =
        heard.iter().map(|heard| model.languages(heard, candidates)).collect();
    let path = likeliest(&scores, 1.0, PAUSE_COST);
    let mut groups: Vec<(usize, Option<Heard>)> = Vec::new();
    for (i, (end, heard)) in ends.into_iter().zip(heard).enumerate() {
        match groups.last_mut() {
            // More is understood of what is heard together.
            Some(group) if path[i - 1] == path[i] => *group = (end, None),
            _ => groups.push((end, Some(heard))),
        }
    }
    Ok(groups)
}

/// The likeliest language of each stretch if a change costs `cost` nats (Viterbi), of which a stretch
/// counts `share`; stretches without scores, where nobody speaks, follow their neighbours.
fn likeliest(scores: &[Vec<ScoredLanguage>], share: f64, cost: f64) -> Vec<Option<Language>> {
    let mut languages: Vec<Language> = scores.iter().flatten().map(|scored| scored.code).collect();
    languages.sort_unstable();
    languages.dedup();
    let mut totals = vec![0.0_f64; languages.len()];
    let mut came_from: Vec<Vec<usize>> = Vec::with_capacity(scores.len());
    for (i, stretch) in scores.iter().enumerate() {
        let best = (0..totals.len()).max_by(|&a, &b| totals[a].total_cmp(&totals[b])).unwrap_or(0);
        let change = totals.get(best).map_or(0.0, |total| total - cost);
        let mut from = Vec::with_capacity(totals.len());
        for (own, total) in totals.iter_mut().enumerate() {
            let stays = i == 0 || *total >= change;
            from.push(if stays { own } else { best });
            *total = total.max(if i == 0 { *total } else { change });
            if !stretch.is_empty() {
                let score =
                    stretch.iter().find(|s| s.code == languages[own]).map_or(0.0, |s| s.score);
                *total += share * score.max(LEAST).ln();
            }
        }
        came_from.push(from);
    }
    let mut at = (0..totals.len()).max_by(|&a, &b| totals[a].total_cmp(&totals[b]));
    let mut path = vec![None; scores.len()];
    for i in (0..scores.len()).rev() {
        let Some(own) = at else { break };
        path[i] = Some(languages[own]);
        at = Some(came_from[i][own]);
    }
    path
}

/// The middle of the quietest tenth of a second around `sample`; of equals the nearest.
fn quietest(samples: &[f32], sample: usize) -> usize {
    if samples.len() < HUSH {
        return sample;
    }
    let energy = |start: usize| -> f64 {
        samples[start..start + HUSH].iter().map(|s| f64::from(*s).powi(2)).sum()
    };
    let last = samples.len() - HUSH;
    let starts = (sample.saturating_sub(REACH)..=(sample + REACH).min(last)).step_by(HUSH / 4);
    // In whole decibels, so that alike are equal.
    let level = |start: &usize| (10.0 * (energy(*start) + 1e-9).log10()).round() as i64;
    let quiet = starts.min_by_key(|start| (level(start), (start + HUSH / 2).abs_diff(sample)));
    quiet.map_or(sample, |start| start + HUSH / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_needs_evidence_and_silence_has_no_say() {
        let code = |code: &str| code.parse::<Language>().expect("a code");
        let (eng, swa) = (code("eng"), code("swa"));
        let likeliest = |scores: &[Vec<ScoredLanguage>]| likeliest(scores, 1.0 / 3.0, CHANGE_COST);
        let sure = |code| vec![ScoredLanguage { code, score: 0.99 }];
        let stretches = |n: usize, code| std::iter::repeat_n(sure(code), n);
        // One odd stretch, and silence, change nothing.
        let mut scores: Vec<_> = stretches(4, eng).collect();
        scores.push(sure(swa));
        scores.extend([vec![], vec![]]);
        scores.extend(stretches(4, eng));
        assert!(likeliest(&scores).iter().all(|language| *language == Some(eng)));
        let scores: Vec<_> = stretches(5, eng).chain(stretches(5, swa)).collect();
        let path = likeliest(&scores);
        assert_eq!(path.iter().filter(|language| **language == Some(eng)).count(), 5);
        assert_eq!((path[4], path[5]), (Some(eng), Some(swa)));
        assert_eq!(likeliest(&[vec![], vec![]]), [None, None]);
        assert!(likeliest(&[]).is_empty());
    }

    #[test]
    fn changes_move_into_the_pause() {
        let mut samples = vec![0.5_f32; 5 * RATE];
        samples[2 * RATE..2 * RATE + HUSH].fill(0.0);
        let found = quietest(&samples, 2 * RATE + RATE / 2);
        assert!(found.abs_diff(2 * RATE + HUSH / 2) <= HUSH / 4, "{found}");
        assert_eq!(quietest(&[0.5; 100], 50), 50);
    }
}
