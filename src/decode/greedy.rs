//! The best path of CTC: the likeliest token of each frame, repeats merged, blanks dropped.

/// A token of the best path.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Token {
    /// Id in the vocabulary.
    pub id: u32,
    /// First frame.
    pub start: usize,
    /// Frame after the last.
    pub end: usize,
    /// Mean natural-log probability over those frames.
    pub log_prob: f32,
}

/// Reads the best path of `log_probs`, `(frames, vocab)` row-major, for which `allowed` holds.
///
/// The tokens come in order; the blank is `0`. Equal scores go to the lowest id.
#[must_use]
pub fn best_path(log_probs: &[f32], vocab: usize, allowed: impl Fn(u32) -> bool) -> Vec<Token> {
    let mut tokens: Vec<Token> = Vec::new();
    let mut previous = 0;
    for (t, row) in log_probs.chunks_exact(vocab.max(1)).enumerate() {
        let mut best = (0_u32, f32::NEG_INFINITY);
        for (id, &score) in row.iter().enumerate() {
            if score > best.1 && (id == 0 || allowed(id as u32)) {
                best = (id as u32, score);
            }
        }
        let (id, score) = best;
        match tokens.last_mut() {
            Some(token) if id != 0 && id == previous => {
                let n = (t - token.start) as f32;
                token.log_prob = (token.log_prob * n + score) / (n + 1.0);
                token.end = t + 1;
            }
            _ if id != 0 => tokens.push(Token { id, start: t, end: t + 1, log_prob: score }),
            _ => {}
        }
        previous = id;
    }
    tokens
}

/// Natural-log softmax of each row, in place.
pub(super) fn log_softmax(logits: &mut [f32], vocab: usize) {
    for row in logits.chunks_exact_mut(vocab.max(1)) {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = row.iter().map(|x| (x - max).exp()).sum();
        let log_sum = max + sum.ln();
        for x in row {
            *x -= log_sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_merge_and_blanks_part() {
        // Frames spell: a a blank a b blank.
        let path = [1, 1, 0, 1, 2, 0];
        let log_probs: Vec<f32> = path
            .iter()
            .flat_map(|&best| {
                (0..3).map(move |id| if id == best { 0.8_f32.ln() } else { 0.1_f32.ln() })
            })
            .collect();
        let found: Vec<(u32, usize, usize)> =
            best_path(&log_probs, 3, |_| true).iter().map(|t| (t.id, t.start, t.end)).collect();
        assert_eq!(found, [(1, 0, 2), (1, 3, 4), (2, 4, 5)]);
        let only_b: Vec<u32> =
            best_path(&log_probs, 3, |id| id == 2).iter().map(|t| t.id).collect();
        assert_eq!(only_b, [2]);
    }
}
