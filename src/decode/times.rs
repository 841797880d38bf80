//! When a frame is, and which tokens make a word.

use super::greedy::Token;
use super::tokens::Tokens;
use crate::text::TimedWord;
use std::ops::Range;

/// When the frames of a model are: frame `i` is centred `first_s + i * step_s` after the
/// beginning of its input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FrameTimes {
    /// Centre of the first frame's receptive field, in seconds.
    pub first_s: f64,
    /// From one frame to the next, in seconds.
    pub step_s: f64,
}

impl FrameTimes {
    /// The stretch of time that frames stand for, each half a step to both sides of its centre.
    #[must_use]
    pub fn span_s(&self, frames: Range<u64>) -> (f64, f64) {
        let edge = |frame: u64| self.first_s + (frame as f64 - 0.5) * self.step_s;
        (edge(frames.start).max(0.0), edge(frames.end).max(0.0))
    }
}

/// Joins tokens to words.
///
/// Words are separated by spaces; in scripts written without spaces each character, with the
/// marks that follow it, is one. `offset_s` is added to the times of the tokens. The score of a
/// word is the mean over its tokens of the mean probability of each over its frames.
pub(super) fn words(
    tokens: &[Token],
    known: &Tokens,
    times: FrameTimes,
    offset_s: f64,
) -> Vec<TimedWord> {
    let word = |tokens: &[Token]| {
        let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
        let word = known.decode(&ids).trim().to_owned();
        let (first, last) = (tokens.first()?, tokens.last()?);
        let (start_s, end_s) = times.span_s(first.start as u64..last.end as u64);
        let (start_s, end_s) = (offset_s + start_s, offset_s + end_s);
        let total: f64 = tokens.iter().map(|token| f64::from(token.log_prob).exp()).sum();
        let score = total / tokens.len() as f64;
        (!word.is_empty()).then_some(TimedWord { word, start_s, end_s, score })
    };
    tokens.chunk_by(|a, b| known.joins(a.id, b.id)).filter_map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Vocabulary;

    #[test]
    fn words_of_several_scripts_by_hand() {
        let text = "ab 3 東京 กำ한";
        let vocabulary =
            Vocabulary::build(["eng".parse().expect("a code")], [text], 1).expect("few characters");
        let ids = vocabulary.encode_characters(text).tokens;
        let tokens: Vec<Token> = (0..)
            .zip(&ids)
            .map(|(i, &id)| Token { id, start: 2 * i, end: 2 * i + 1, log_prob: 0.5_f32.ln() })
            .collect();
        let times = FrameTimes { first_s: 0.1, step_s: 0.04 };
        let found = words(&tokens, &Tokens::from(&vocabulary), times, 0.4);
        let texts: Vec<&str> = found.iter().map(|word| word.word.as_str()).collect();
        assert_eq!(texts, ["ab", "3", "東", "京", "ก", "ำ", "한"]);
        assert!((found[0].start_s - (0.1 + 9.5 * 0.04)).abs() < 1e-9);
        assert!((found[0].end_s - (0.1 + 12.5 * 0.04)).abs() < 1e-9);
        assert!(found.iter().all(|word| (word.score - 0.5).abs() < 1e-6));
        assert!(found.windows(2).all(|pair| pair[0].end_s <= pair[1].start_s));
        let (start_s, end_s) = times.span_s(0..1);
        assert!((start_s - 0.08).abs() < 1e-9 && (end_s - 0.12).abs() < 1e-9);
    }
}
