//! Prefix beam search over CTC log-probabilities (Hannun et al. 2014, arXiv 1408.2873).

use super::lm::{Fusion, FusionState};
use std::collections::HashMap;

/// How widely to search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BeamOptions {
    /// Hypotheses kept from frame to frame.
    pub beam: usize,
    /// Hypotheses returned.
    pub n_best: usize,
    /// A token enters a frame only within this many nats of the likeliest of the frame.
    pub token_range: f64,
    /// Tokens that enter a frame, the likeliest first.
    pub max_tokens: usize,
}

impl BeamOptions {
    /// A search that costs far less than running a model.
    #[must_use]
    pub fn new(beam: usize) -> Self {
        Self { beam, n_best: 1, token_range: 9.0, max_tokens: 40 }
    }
}

/// A token sequence with its scores.
#[derive(Debug, Clone, PartialEq)]
pub struct Hypothesis {
    /// Token ids, repeats merged, without blanks.
    pub tokens: Vec<u32>,
    /// Natural-log probability of the tokens over all alignments, exact.
    pub log_prob: f64,
    /// log10 probability of the language model, 0 without one.
    pub lm_log10: f64,
    /// `log_prob` and what the fusion adds; what hypotheses are ranked by.
    pub total: f64,
}

const ROOT: u32 = 0;
const NONE: f64 = f64::NEG_INFINITY;

/// A prefix; prefixes form a tree.
struct Prefix {
    parent: u32,
    /// Never met at the root.
    token: u32,
    state: FusionState,
    outlook: f64,
    /// Frame for which `slot` holds, plus one.
    stamp: u32,
    slot: u32,
}

/// Log-probabilities of a prefix by what its last frame is.
#[derive(Debug, Clone, Copy)]
struct Mass {
    prefix: u32,
    blank: f64,
    token: f64,
}

impl Mass {
    fn total(&self) -> f64 {
        log_add(self.blank, self.token)
    }
}

/// `ln(exp(a) + exp(b))`.
fn log_add(a: f64, b: f64) -> f64 {
    let (high, low) = if a >= b { (a, b) } else { (b, a) };
    if low == NONE { high } else { high + (low - high).exp().ln_1p() }
}

struct Search<'a> {
    fusion: &'a Fusion,
    prefixes: Vec<Prefix>,
    children: HashMap<(u32, u32), u32>,
    next: Vec<Mass>,
}

impl Search<'_> {
    /// The masses of `prefix` in the frame after `frame`.
    fn mass(&mut self, prefix: u32, frame: u32) -> &mut Mass {
        let known = &mut self.prefixes[prefix as usize];
        if known.stamp != frame + 1 {
            known.stamp = frame + 1;
            known.slot = self.next.len() as u32;
            self.next.push(Mass { prefix, blank: NONE, token: NONE });
        }
        &mut self.next[known.slot as usize]
    }

    fn add_prefix(&mut self, parent: u32, token: u32) -> u32 {
        let state = self.fusion.advance(self.prefixes[parent as usize].state, token);
        let new = self.prefixes.len() as u32;
        let outlook = self.fusion.outlook(state);
        self.prefixes.push(Prefix { parent, token, state, outlook, stamp: 0, slot: 0 });
        self.children.insert((parent, token), new);
        new
    }

    fn tokens(&self, mut prefix: u32) -> Vec<u32> {
        let mut tokens = Vec::new();
        while prefix != ROOT {
            tokens.push(self.prefixes[prefix as usize].token);
            prefix = self.prefixes[prefix as usize].parent;
        }
        tokens.reverse();
        tokens
    }
}

/// Finds the token sequences with the best total of acoustic and fusion scores.
///
/// Tokens that are no text in the alphabet of `fusion` (id 0 is the blank) are never part of
/// a hypothesis. The acoustic score of what is returned is exact, not the part of it that the
/// search has seen. The search is deterministic: equal scores go to the prefix met first.
///
/// # Shapes
/// - `log_probs`: `(frames, vocab)` row-major, natural log; `vocab` is the alphabet's size
/// - returns at most `n_best`, best first; at least one, which may be empty
#[must_use]
pub fn beam_search(log_probs: &[f32], fusion: &Fusion, options: &BeamOptions) -> Vec<Hypothesis> {
    let vocab = fusion.alphabet().n_tokens().max(1);
    let beam = options.beam.max(1);
    let start = fusion.start();
    let root = Prefix { parent: ROOT, token: 0, state: start, outlook: 0.0, stamp: 0, slot: 0 };
    let mut search =
        Search { fusion, prefixes: vec![root], children: HashMap::new(), next: Vec::new() };
    let mut active = vec![Mass { prefix: ROOT, blank: 0.0, token: NONE }];
    let mut entering: Vec<(u32, f64)> = Vec::new();
    // New prefixes: acoustic score with the fusion score of the parent, parent, token, score.
    let mut candidates: Vec<(f64, u32, u32, f64)> = Vec::new();
    for (frame, row) in (0..).zip(log_probs.chunks_exact(vocab)) {
        enter(row, fusion, options, &mut entering);
        candidates.clear();
        search.next.clear();
        for mass in &active {
            let (prefix, total) = (mass.prefix, mass.total());
            let last = (prefix != ROOT).then(|| search.prefixes[prefix as usize].token);
            let outlook = search.prefixes[prefix as usize].outlook;
            let kept = search.mass(prefix, frame);
            kept.blank = log_add(kept.blank, total + f64::from(row[0]));
            if let Some(last) = last {
                kept.token = log_add(kept.token, mass.token + f64::from(row[last as usize]));
            }
            for &(token, log_prob) in &entering {
                // After the same token only a blank makes it a second one.
                let before = if last == Some(token) { mass.blank } else { total };
                if before == NONE {
                    continue;
                }
                let score = before + log_prob;
                match search.children.get(&(prefix, token)) {
                    Some(&child) => {
                        let kept = search.mass(child, frame);
                        kept.token = log_add(kept.token, score);
                    }
                    None => candidates.push((score + outlook, prefix, token, score)),
                }
            }
        }
        // A language model is asked only about the new prefixes that sound best.
        let asked = beam.saturating_mul(4);
        let by_score = |a: &(f64, u32, u32, f64), b: &(f64, u32, u32, f64)| {
            b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2)))
        };
        if candidates.len() > asked {
            candidates.select_nth_unstable_by(asked - 1, by_score);
            candidates.truncate(asked);
        }
        candidates.sort_unstable_by(by_score);
        for &(_, parent, token, score) in &candidates {
            let child = search.add_prefix(parent, token);
            search.mass(child, frame).token = score;
        }
        let mut ranked: Vec<(f64, Mass)> = search
            .next
            .iter()
            .map(|mass| (mass.total() + search.prefixes[mass.prefix as usize].outlook, *mass))
            .collect();
        let by_total = |a: &(f64, Mass), b: &(f64, Mass)| {
            b.0.total_cmp(&a.0).then(a.1.prefix.cmp(&b.1.prefix))
        };
        if ranked.len() > beam {
            ranked.select_nth_unstable_by(beam - 1, by_total);
            ranked.truncate(beam);
        }
        ranked.sort_unstable_by(by_total);
        active.clear();
        active.extend(ranked.iter().map(|(_, mass)| mass));
    }
    finish(&search, &active, log_probs, vocab, options)
}

/// The tokens that extend prefixes in a frame, in the order of their ids.
fn enter(row: &[f32], fusion: &Fusion, options: &BeamOptions, entering: &mut Vec<(u32, f64)>) {
    let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let floor = f64::from(best) - options.token_range;
    entering.clear();
    for (token, &log_prob) in (0..).zip(row) {
        let log_prob = f64::from(log_prob);
        if token != 0 && log_prob >= floor && log_prob > NONE && fusion.alphabet().is_text(token) {
            entering.push((token, log_prob));
        }
    }
    if entering.len() > options.max_tokens {
        entering.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        entering.truncate(options.max_tokens);
        entering.sort_unstable_by_key(|&(token, _)| token);
    }
}

/// Scores the leading prefixes exactly, as finished texts.
fn finish(
    search: &Search,
    active: &[Mass],
    log_probs: &[f32],
    vocab: usize,
    options: &BeamOptions,
) -> Vec<Hypothesis> {
    let n_best = options.n_best.max(1);
    let mut finals: Vec<(f64, &Mass)> = active
        .iter()
        .map(|mass| {
            let state = search.prefixes[mass.prefix as usize].state;
            (mass.total() + search.fusion.total(state).0, mass)
        })
        .collect();
    finals.sort_by(|a, b| b.0.total_cmp(&a.0));
    finals.truncate(n_best.saturating_mul(2).saturating_add(8));
    let mut hypotheses: Vec<Hypothesis> = finals
        .iter()
        .map(|(_, mass)| {
            let tokens = search.tokens(mass.prefix);
            let log_prob = sequence_log_prob(log_probs, vocab, &tokens);
            let state = search.prefixes[mass.prefix as usize].state;
            let (added, lm_log10) = search.fusion.total(state);
            Hypothesis { tokens, log_prob, lm_log10, total: log_prob + added }
        })
        .collect();
    hypotheses.sort_by(|a, b| b.total.total_cmp(&a.total));
    hypotheses.truncate(n_best);
    hypotheses
}

/// Natural-log probability of `tokens` over all their alignments (CTC forward pass, f64).
///
/// Minus infinity if they need more frames than there are.
#[must_use]
pub fn sequence_log_prob(log_probs: &[f32], vocab: usize, tokens: &[u32]) -> f64 {
    // States: blank, token 0, blank, token 1, ..., blank.
    let n_states = 2 * tokens.len() + 1;
    let mut alpha = vec![NONE; n_states];
    alpha[0] = 0.0;
    for row in log_probs.chunks_exact(vocab.max(1)) {
        for state in (0..n_states).rev() {
            let mut score = alpha[state];
            if state >= 1 {
                score = log_add(score, alpha[state - 1]);
            }
            let token = (state % 2 == 1).then(|| tokens[state / 2]);
            if state >= 3 && token.is_some_and(|token| token != tokens[state / 2 - 1]) {
                score = log_add(score, alpha[state - 2]);
            }
            alpha[state] = score + f64::from(row[token.unwrap_or(0) as usize]);
        }
    }
    if tokens.is_empty() { alpha[0] } else { log_add(alpha[n_states - 1], alpha[n_states - 2]) }
}

#[cfg(test)]
mod tests {
    use super::super::lm::Alphabet;
    use super::*;
    use std::sync::Arc;

    fn fusion(n_tokens: usize) -> Fusion {
        let letters = (0..n_tokens).map(|i| (i > 0).then(|| char::from(b'a' + i as u8)));
        Fusion::new(Arc::new(Alphabet::from_characters(letters)))
    }

    /// Three frames, uniform over blank and `b`: of eight paths one is empty, six spell `b`
    /// and one `b b`.
    #[test]
    fn counts_by_hand() {
        let log_probs = [0.5_f32.ln(); 6];
        let options = BeamOptions { n_best: 5, ..BeamOptions::new(8) };
        let found = beam_search(&log_probs, &fusion(2), &options);
        let got: Vec<(Vec<u32>, f64)> =
            found.iter().map(|h| (h.tokens.clone(), h.log_prob.exp())).collect();
        assert_eq!(got.len(), 3);
        for ((tokens, p), (want, share)) in
            got.iter().zip([(vec![1], 0.75), (vec![], 0.125), (vec![1, 1], 0.125)])
        {
            assert!((p - share).abs() < 1e-6, "{tokens:?}: {p}");
            assert!(*tokens == want || (share - 0.125).abs() < 1e-9);
        }
        assert_eq!(sequence_log_prob(&log_probs, 2, &[1, 1, 1]), f64::NEG_INFINITY);
    }

    #[test]
    fn no_frames_spell_nothing_and_impossible_frames_do_not_panic() {
        let nothing = beam_search(&[], &fusion(3), &BeamOptions::new(4));
        assert_eq!((nothing.len(), nothing[0].tokens.len()), (1, 0));
        for value in [f32::NEG_INFINITY, f32::NAN] {
            assert!(!beam_search(&[value; 9], &fusion(3), &BeamOptions::new(4)).is_empty());
        }
    }
}
