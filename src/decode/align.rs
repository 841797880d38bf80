//! CTC Viterbi alignment of a known text, frame by frame in bounded memory.

use std::collections::VecDeque;

/// States of the alignment that are followed at a time; more than this the text has from
/// about 8,000 characters on.
const MAX_STATES: usize = 16_384;
/// Frames after which the best path no longer changes: two minutes at 40 ms.
const LAG: usize = 3_000;
/// Nats that a frame of something else costs where the text may have a gap.
const GAP_COST: f32 = 2.0;
/// Nats that a character without a token costs more than the likeliest token.
const ANY_COST: f32 = 1.0;

/// A text that cannot be aligned.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum AlignError {
    /// More tokens than frames.
    #[error(
        "the text has {tokens} characters and needs more frames than the {frames} of the audio"
    )]
    TooLong {
        /// Characters of the text.
        tokens: usize,
        /// Frames of the audio.
        frames: u64,
    },
    /// A token outside of the vocabulary, or the blank.
    #[error("token {token} of the text is not in the vocabulary of {vocab}")]
    Token {
        /// The token.
        token: u32,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// The text is long and strays so far from the audio that its end is not reached.
    #[error("the text does not fit the audio: its end is not reached")]
    Strayed,
}

/// What is to be heard next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// This token.
    Token(u32),
    /// Some token: stands for a character that the vocabulary has not.
    Any,
}

/// A unit of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// What is to be heard.
    pub unit: Unit,
    /// Whether something that is not in the text may be heard before it (a star token).
    pub gap_before: bool,
}

/// Where a unit was heard.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// First frame.
    pub start: u64,
    /// Frame after the last.
    pub end: u64,
    /// Mean probability of the unit over these frames, 0 to 1.
    pub score: f64,
    /// Mean natural-log probability over these frames.
    pub log_prob: f64,
}

/// Frames followed and not decided yet: how each state was reached.
struct Step {
    low: usize,
    /// 0 stayed, 1 from the state before, 2 from the one before that.
    from: Vec<u8>,
}

/// The best alignment of a text to frames that come one by one.
///
/// Exact (the path of greatest probability among all) up to 8,000 characters or two minutes;
/// beyond both, states farther than 4,000 characters from the best one are given up, and what
/// lies two minutes back is settled.
pub struct Aligner {
    targets: Vec<Target>,
    gap_at_end: bool,
    blank: u32,
    vocab: usize,
    /// First state of `scores`. States: blank, target 0, blank, target 1, ..., blank.
    low: usize,
    scores: Vec<f64>,
    steps: VecDeque<Step>,
    rows: VecDeque<Vec<f32>>,
    frames: u64,
    /// State of each settled frame.
    settled: Vec<Settled>,
    max_states: usize,
    lag: usize,
}

/// A settled frame: its state, and the log-probability of the state there.
#[derive(Debug, Clone, Copy)]
struct Settled {
    state: u32,
    log_prob: f32,
}

impl Aligner {
    /// An alignment of `targets`; something else may follow them if `gap_at_end`.
    ///
    /// # Errors
    /// [`AlignError::Token`].
    pub fn new(
        targets: Vec<Target>,
        gap_at_end: bool,
        vocab: usize,
        blank: u32,
    ) -> Result<Self, AlignError> {
        for target in &targets {
            if let Unit::Token(token) = target.unit
                && (token as usize >= vocab || token == blank)
            {
                return Err(AlignError::Token { token, vocab });
            }
        }
        Ok(Self {
            targets,
            gap_at_end,
            blank,
            vocab,
            low: 0,
            scores: Vec::new(),
            steps: VecDeque::new(),
            rows: VecDeque::new(),
            frames: 0,
            settled: Vec::new(),
            max_states: MAX_STATES,
            lag: LAG,
        })
    }

    fn n_states(&self) -> usize {
        2 * self.targets.len() + 1
    }

    /// Log-probability of a state in a frame; `best` is the likeliest token that is no blank.
    fn emission(&self, state: usize, row: &[f32], best: f32) -> f32 {
        let blank = row[self.blank as usize];
        if state % 2 == 1 {
            return match self.targets[state / 2].unit {
                Unit::Token(token) => row[token as usize],
                Unit::Any => best - ANY_COST,
            };
        }
        let gap = self.targets.get(state / 2).map_or(self.gap_at_end, |next| next.gap_before);
        if gap { blank.max(best - GAP_COST) } else { blank }
    }

    fn best_token(&self, row: &[f32]) -> f32 {
        let tokens = (0..).zip(row).filter(|&(token, _)| token != self.blank);
        tokens.map(|(_, &log_prob)| log_prob).fold(f32::NEG_INFINITY, f32::max)
    }

    /// Takes the log-probabilities of the next frame, `(vocab,)`.
    ///
    /// # Panics
    /// If `row` has another length than the vocabulary.
    pub fn push(&mut self, row: &[f32]) {
        assert_eq!(row.len(), self.vocab, "one log-probability per token");
        let n_states = self.n_states();
        let best = self.best_token(row);
        let previous = std::mem::take(&mut self.scores);
        let (low, old_low) = (self.low, self.low);
        let end = (low + self.max_states).min(n_states);
        let at = |state: usize| previous.get(state.wrapping_sub(old_low)).copied();
        let mut scores = vec![f64::NEG_INFINITY; end - low];
        let mut from = vec![0_u8; end - low];
        for state in low..end {
            let (mut score, mut way) = (f64::NEG_INFINITY, 0);
            if self.frames == 0 {
                if state <= 1 {
                    score = 0.0;
                }
            } else {
                score = at(state).unwrap_or(score);
                if state > low
                    && let Some(one) = at(state - 1).filter(|one| *one > score)
                {
                    (score, way) = (one, 1);
                }
                if state % 2 == 1
                    && state >= low + 2
                    && self.targets[state / 2].unit != self.targets[state / 2 - 1].unit
                    && let Some(two) = at(state - 2).filter(|two| *two > score)
                {
                    (score, way) = (two, 2);
                }
            }
            scores[state - low] = score + f64::from(self.emission(state, row, best));
            from[state - low] = way;
        }
        self.scores = scores;
        self.steps.push_back(Step { low, from });
        self.rows.push_back(row.to_vec());
        self.frames += 1;
        if n_states > self.max_states {
            let centre = self.low + argmax(&self.scores);
            let wanted = centre.saturating_sub(self.max_states / 2);
            let new_low = wanted.min(n_states - self.max_states).max(self.low);
            self.scores.drain(..new_low - self.low);
            self.low = new_low;
        }
        if self.steps.len() >= 2 * self.lag {
            self.settle();
        }
    }

    /// Settles all but the last `lag` frames, by the path of the best state.
    fn settle(&mut self) {
        // The ancestor of each live state in the last frame to be settled.
        let mut ancestors: Vec<usize> = (self.low..self.low + self.scores.len()).collect();
        for step in self.steps.range(self.lag..).rev() {
            for state in &mut ancestors {
                *state -= step.from.get(*state - step.low).copied().unwrap_or(0) as usize;
            }
        }
        let chosen = ancestors[argmax(&self.scores)];
        for (score, ancestor) in self.scores.iter_mut().zip(&ancestors) {
            if *ancestor != chosen {
                *score = f64::NEG_INFINITY;
            }
        }
        self.trace(chosen, self.lag);
    }

    /// Settles the first `n` undecided frames, of which the last is in `state`.
    fn trace(&mut self, mut state: usize, n: usize) {
        let start = self.settled.len();
        for (step, row) in self.steps.range(..n).zip(self.rows.range(..n)).rev() {
            let log_prob = self.emission(state, row, self.best_token(row));
            self.settled.push(Settled { state: state as u32, log_prob });
            state -= step.from[state - step.low] as usize;
        }
        self.settled[start..].reverse();
        self.steps.drain(..n);
        self.rows.drain(..n);
    }

    /// The spans of all targets, in order.
    ///
    /// # Errors
    /// [`AlignError::TooLong`] if the frames are too few, [`AlignError::Strayed`].
    pub fn finish(self) -> Result<Vec<Span>, AlignError> {
        Ok(self.finish_with_path()?.0)
    }

    /// As [`finish`](Self::finish), with the token (or blank) and the log-probability of
    /// every frame.
    fn finish_with_path(mut self) -> Result<(Vec<Span>, Vec<Settled>), AlignError> {
        let n_states = self.n_states();
        if self.frames < needed(&self.targets) {
            let tokens = self.targets.len();
            return Err(AlignError::TooLong { tokens, frames: self.frames });
        }
        if self.frames == 0 {
            return Ok((Vec::new(), Vec::new()));
        }
        let finals = [n_states - 1, n_states.saturating_sub(2)];
        let score = |state: usize| {
            let score = self.scores.get(state.wrapping_sub(self.low));
            score.copied().unwrap_or(f64::NEG_INFINITY)
        };
        // Of equals the one that ends with a token.
        let last = if score(finals[1]) >= score(finals[0]) { finals[1] } else { finals[0] };
        if score(last) == f64::NEG_INFINITY || score(last).is_nan() {
            return Err(AlignError::Strayed);
        }
        let n = self.steps.len();
        self.trace(last, n);
        let mut spans = Vec::with_capacity(self.targets.len());
        let mut frame = 0;
        while frame < self.settled.len() {
            let state = self.settled[frame].state;
            let run = self.settled[frame..].iter().take_while(|f| f.state == state).count();
            if state % 2 == 1 {
                let frames = &self.settled[frame..frame + run];
                let mean = |value: fn(f64) -> f64| {
                    frames.iter().map(|f| value(f64::from(f.log_prob))).sum::<f64>() / run as f64
                };
                spans.push(Span {
                    start: frame as u64,
                    end: (frame + run) as u64,
                    score: mean(f64::exp),
                    log_prob: mean(|log_prob| log_prob),
                });
            }
            frame += run;
        }
        Ok((spans, self.settled))
    }
}

/// Frames that the targets need: one each, and a blank between two equal ones.
fn needed(targets: &[Target]) -> u64 {
    let repeats = targets.windows(2).filter(|pair| pair[0].unit == pair[1].unit).count();
    (targets.len() + repeats) as u64
}

fn argmax(scores: &[f64]) -> usize {
    let mut best = 0;
    for (i, score) in scores.iter().enumerate() {
        if *score > scores[best] {
            best = i;
        }
    }
    best
}

/// An alignment with its path.
#[derive(Debug, Clone, PartialEq)]
pub struct Alignment {
    /// Token of each frame, the blank between tokens.
    pub path: Vec<u32>,
    /// Natural-log probability of that token in each frame.
    pub frame_scores: Vec<f32>,
    /// Span of each token.
    pub spans: Vec<Span>,
}

/// Finds the likeliest alignment of `tokens` to frames (the Viterbi path of CTC).
///
/// # Shapes
/// - `log_probs`: `(frames, vocab)` row-major, natural log
/// - `tokens`: never `blank`
///
/// # Errors
/// [`AlignError`] if the tokens need more frames than there are, or are not in the vocabulary.
///
/// # Example
/// ```
/// use asr::decode::align;
///
/// // Three frames over blank, a: 0.9 and 0.1, 0.2 and 0.8, 0.6 and 0.4.
/// let log_probs = [0.9_f32, 0.1, 0.2, 0.8, 0.6, 0.4].map(f32::ln);
/// let alignment = align(&log_probs, 2, &[1], 0)?;
/// assert_eq!(alignment.path, [0, 1, 0]);
/// assert_eq!((alignment.spans[0].start, alignment.spans[0].end), (1, 2));
/// # Ok::<(), asr::decode::AlignError>(())
/// ```
pub fn align(
    log_probs: &[f32],
    vocab: usize,
    tokens: &[u32],
    blank: u32,
) -> Result<Alignment, AlignError> {
    let target = |&token: &u32| Target { unit: Unit::Token(token), gap_before: false };
    let mut aligner = Aligner::new(tokens.iter().map(target).collect(), false, vocab, blank)?;
    // All of it at once: nothing is settled before its end.
    aligner.max_states = aligner.n_states();
    aligner.lag = usize::MAX / 2;
    for row in log_probs.chunks_exact(vocab.max(1)) {
        aligner.push(row);
    }
    let (spans, settled) = aligner.finish_with_path()?;
    let token = |state: u32| if state % 2 == 1 { tokens[state as usize / 2] } else { blank };
    Ok(Alignment {
        path: settled.iter().map(|frame| token(frame.state)).collect(),
        frame_scores: settled.iter().map(|frame| frame.log_prob).collect(),
        spans,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Frames that spell `tokens` clearly, each for two frames and then a blank.
    fn spoken(tokens: &[u32], vocab: usize, sure: f32) -> Vec<f32> {
        let rest = ((1.0 - sure) / (vocab - 1) as f32).ln();
        let row = |token: u32| {
            (0..vocab as u32).map(move |id| if id == token { sure.ln() } else { rest })
        };
        tokens.iter().flat_map(|&token| [token, token, 0]).flat_map(row).collect()
    }

    #[test]
    fn what_is_not_in_the_text_falls_into_the_gap() {
        // Heard: 1 2 | 5 5 5 6 | 3 4; the text has 1 2 and 3 4.
        let log_probs = spoken(&[1, 2, 5, 5, 5, 6, 3, 4], 8, 0.9);
        let targets =
            [1, 2, 3, 4].map(|token| Target { unit: Unit::Token(token), gap_before: token == 3 });
        let mut aligner = Aligner::new(targets.to_vec(), false, 8, 0).expect("valid");
        log_probs.chunks_exact(8).for_each(|row| aligner.push(row));
        let spans = aligner.finish().expect("fits");
        let found: Vec<(u64, u64)> = spans.iter().map(|s| (s.start, s.end)).collect();
        assert_eq!(found, [(0, 2), (3, 5), (18, 20), (21, 23)]);
        assert!(spans.iter().all(|s| (s.score - 0.9).abs() < 1e-6));
    }

    #[test]
    fn characters_without_a_token_take_what_is_there() {
        let log_probs = spoken(&[1, 5, 2], 8, 0.9);
        let targets = [Unit::Token(1), Unit::Any, Unit::Token(2)]
            .map(|unit| Target { unit, gap_before: false });
        let mut aligner = Aligner::new(targets.to_vec(), false, 8, 0).expect("valid");
        log_probs.chunks_exact(8).for_each(|row| aligner.push(row));
        let spans = aligner.finish().expect("fits");
        assert!((3..5).contains(&spans[1].start), "{spans:?}");
    }

    #[test]
    fn settling_early_and_following_few_states_changes_nothing_on_clear_speech() {
        let tokens: Vec<u32> = (0..600_u32).map(|i| 1 + (i * 7 + i / 5) % 6).collect();
        let log_probs = spoken(&tokens, 7, 0.8);
        let whole = align(&log_probs, 7, &tokens, 0).expect("fits");
        let target = |&token: &u32| Target { unit: Unit::Token(token), gap_before: false };
        let mut aligner =
            Aligner::new(tokens.iter().map(target).collect(), false, 7, 0).expect("valid");
        (aligner.max_states, aligner.lag) = (64, 40);
        let mut held = 0;
        for row in log_probs.chunks_exact(7) {
            aligner.push(row);
            held = held.max(aligner.rows.len());
        }
        assert!(held <= 80, "{held}");
        assert_eq!(aligner.finish().expect("fits"), whole.spans);
    }

    #[test]
    fn texts_that_do_not_fit_are_errors() {
        let log_probs = [0.5_f32.ln(); 6];
        let too_long = AlignError::TooLong { tokens: 2, frames: 2 };
        assert_eq!(align(&log_probs, 2, &[1, 1], 0).map(|a| a.path), Ok(vec![1, 0, 1]));
        assert_eq!(align(&log_probs[..4], 2, &[1, 1], 0), Err(too_long));
        assert_eq!(align(&log_probs, 2, &[2], 0), Err(AlignError::Token { token: 2, vocab: 2 }));
        assert_eq!(align(&log_probs, 2, &[0], 0), Err(AlignError::Token { token: 0, vocab: 2 }));
        assert_eq!(align(&[], 2, &[], 0).map(|a| a.path), Ok(vec![]));
        assert_eq!(align(&[f32::NEG_INFINITY; 4], 2, &[1], 0), Err(AlignError::Strayed));
    }

    proptest! {
        /// The path collapses to the text, spans are in order, and no other path is better.
        #[test]
        fn the_path_spells_the_text_and_is_the_best(
            logits in prop::collection::vec(-4.0_f32..0.0, 5 * 3),
            tokens in prop::collection::vec(1_u32..3, 1..4),
        ) {
            let frames = 5;
            let Ok(found) = align(&logits, 3, &tokens, 0) else {
                let repeats = tokens.windows(2).filter(|p| p[0] == p[1]).count();
                prop_assert!(tokens.len() + repeats > frames);
                return Ok(());
            };
            let collapse = |path: &[u32]| {
                let mut path = path.to_vec();
                path.dedup();
                path.retain(|&token| token != 0);
                path
            };
            prop_assert_eq!(collapse(&found.path), tokens.clone());
            prop_assert!(found.spans.windows(2).all(|pair| pair[0].end <= pair[1].start));
            let score = |path: &[u32]| -> f64 {
                path.iter().enumerate().map(|(t, &k)| f64::from(logits[3 * t + k as usize])).sum()
            };
            let mut best = f64::NEG_INFINITY;
            for code in 0..3_u32.pow(frames as u32) {
                let path: Vec<u32> = (0..frames as u32).map(|t| code / 3_u32.pow(t) % 3).collect();
                if collapse(&path) == tokens {
                    best = best.max(score(&path));
                }
            }
            prop_assert!((score(&found.path) - best).abs() < 1e-9);
        }
    }
}
