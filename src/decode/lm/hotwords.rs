//! Words that the search prefers.

use super::fusion::Alphabet;
use crate::text::{Language, is_unspaced, normalise, spelling};
use std::collections::HashMap;

/// Most words of a list.
pub const MAX_HOTWORDS: usize = 10_000;
/// Longest word, in characters after normalisation.
const MAX_CHARACTERS: usize = 200;
const ROOT: u32 = 0;

/// Why a list of hotwords is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum HotwordError {
    /// More than [`MAX_HOTWORDS`].
    #[error("more than {MAX_HOTWORDS} hotwords")]
    TooMany,
    /// A word longer than 200 characters.
    #[error("hotword on line {line} is longer than 200 characters")]
    TooLong {
        /// Its line, from 1.
        line: usize,
    },
    /// What follows the tab is no number from 0 to 100.
    #[error("weight of the hotword on line {line} is no number from 0 to 100")]
    Weight {
        /// Its line, from 1.
        line: usize,
    },
}

#[derive(Debug, Clone, Default)]
struct Node {
    /// Nats earned if a match gets this far and further.
    potential: f64,
    /// Nats earned by the word that ends here.
    bonus: Option<f64>,
    /// Where a match goes on if this one fails: its longest end that begins at a word.
    fallback: u32,
}

/// A list of words or phrases, each with what a matched character is worth.
///
/// A match begins and ends at a word boundary; in scripts written without spaces, anywhere.
#[derive(Debug, Clone)]
pub struct Hotwords {
    nodes: Vec<Node>,
    children: HashMap<(u32, char), u32>,
}

/// How far a hypothesis has matched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct HotState {
    node: u32,
    last: char,
    earned: f64,
    /// Earned by the longest word that this match has completed.
    kept: f64,
}

impl Default for HotState {
    fn default() -> Self {
        Self { node: ROOT, last: ' ', earned: 0.0, kept: 0.0 }
    }
}

fn is_boundary(before: char, after: char) -> bool {
    before == ' ' || after == ' ' || is_unspaced(before) || is_unspaced(after)
}

impl Hotwords {
    /// Reads one word or phrase per line, with an optional weight after a tab: nats per
    /// character, `weight` where there is none. Words are normalised as in `language`.
    ///
    /// Returns the words that `alphabet` cannot spell beside the others.
    ///
    /// # Errors
    /// [`HotwordError`] beyond the limits or with a weight that is none.
    pub fn parse(
        text: &str,
        language: Language,
        weight: f64,
        alphabet: &Alphabet,
    ) -> Result<(Self, Vec<String>), HotwordError> {
        let mut words: Vec<(Vec<char>, f64)> = Vec::new();
        let mut unusable = Vec::new();
        for (line, entry) in (1..).zip(text.lines()) {
            let (word, own) = match entry.split_once('\t') {
                Some((word, own)) => (word, own.trim().parse().unwrap_or(f64::NAN)),
                None => (entry, weight),
            };
            if !(0.0..=100.0).contains(&own) {
                return Err(HotwordError::Weight { line });
            }
            let spelt: Vec<char> = spelling(&normalise(word, language)).collect();
            if spelt.is_empty() {
                if !word.trim().is_empty() {
                    unusable.push(word.trim().to_owned());
                }
                continue;
            }
            if spelt.len() > MAX_CHARACTERS {
                return Err(HotwordError::TooLong { line });
            }
            if words.len() == MAX_HOTWORDS {
                return Err(HotwordError::TooMany);
            }
            if spelt.iter().all(|&c| alphabet.spells(c)) {
                words.push((spelt, own));
            } else {
                unusable.push(word.trim().to_owned());
            }
        }
        Ok((Self::new(&words), unusable))
    }

    fn new(words: &[(Vec<char>, f64)]) -> Self {
        let mut hotwords = Self { nodes: vec![Node::default()], children: HashMap::new() };
        for (word, weight) in words {
            let mut node = ROOT;
            for (depth, &c) in (1..).zip(word) {
                let new = hotwords.nodes.len() as u32;
                node = *hotwords.children.entry((node, c)).or_insert(new);
                if node == new {
                    hotwords.nodes.push(Node::default());
                }
                let potential = &mut hotwords.nodes[node as usize].potential;
                *potential = potential.max(f64::from(depth) * weight);
            }
            let bonus = &mut hotwords.nodes[node as usize].bonus;
            let own = word.len() as f64 * weight;
            *bonus = Some(bonus.map_or(own, |bonus| bonus.max(own)));
        }
        for (word, _) in words {
            let mut node = ROOT;
            for end in 1..=word.len() {
                node = hotwords.children[&(node, word[end - 1])];
                let suffix = (1..end)
                    .filter(|&start| is_boundary(word[start - 1], word[start]))
                    .filter(|&start| word[start] != ' ')
                    .find_map(|start| hotwords.find(&word[start..end]));
                hotwords.nodes[node as usize].fallback = suffix.unwrap_or(ROOT);
            }
        }
        hotwords
    }

    fn find(&self, letters: &[char]) -> Option<u32> {
        letters.iter().try_fold(ROOT, |node, &c| self.children.get(&(node, c)).copied())
    }

    pub(super) fn advance(&self, mut state: HotState, c: char) -> HotState {
        let boundary = is_boundary(state.last, c);
        if boundary {
            state.kept = self.completed(state);
        }
        state.last = c;
        loop {
            let child = self.children.get(&(state.node, c)).copied();
            if let Some(child) = child.filter(|_| state.node != ROOT || boundary) {
                state.node = child;
                return state;
            }
            // The match is over; what it completed stays.
            state.earned += state.kept;
            state.kept = 0.0;
            if state.node == ROOT {
                return state;
            }
            state.node = self.nodes[state.node as usize].fallback;
        }
    }

    fn completed(&self, state: HotState) -> f64 {
        self.nodes[state.node as usize].bonus.map_or(state.kept, |bonus| bonus.max(state.kept))
    }

    /// Nats that count while the search goes on.
    pub(super) fn outlook(&self, state: HotState) -> f64 {
        state.earned + state.kept.max(self.nodes[state.node as usize].potential)
    }

    /// Nats if the text ends here.
    pub(super) fn total(&self, state: HotState) -> f64 {
        state.earned + self.completed(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hotwords(list: &str) -> Hotwords {
        let alphabet = Alphabet::from_characters(
            std::iter::once(None).chain(" abcdefghijklmnopqrstuvwxyz東京都".chars().map(Some)),
        );
        let english = "eng".parse().expect("a code");
        Hotwords::parse(list, english, 1.0, &alphabet).expect("a list").0
    }

    fn total(hotwords: &Hotwords, text: &str) -> f64 {
        let end = text.chars().fold(HotState::default(), |s, c| hotwords.advance(s, c));
        hotwords.total(end)
    }

    #[test]
    fn whole_words_count_once() {
        let list = hotwords("New York\nyork\t2\nnew\n東京");
        for (text, want) in [
            ("", 0.0),
            ("new", 3.0),
            ("news", 0.0),
            ("renew", 0.0),
            ("a new one", 3.0),
            ("new york", 8.0),
            ("york", 8.0),
            ("new yorks", 3.0),
            ("new yorker york", 3.0 + 8.0),
            ("new new york", 3.0 + 8.0),
            ("a東京都", 2.0),
            ("東都東京", 2.0),
        ] {
            let got = total(&list, text);
            assert!((got - want).abs() < 1e-12, "{text}: {got}, want {want}");
        }
    }

    #[test]
    fn lists_are_checked() {
        let alphabet = Alphabet::from_characters([None, Some('a')]);
        let english = "eng".parse().expect("a code");
        let parse = |text: &str| Hotwords::parse(text, english, 1.0, &alphabet);
        assert_eq!(parse("a\nqq\n\n!").expect("a list").1, ["qq", "!"]);
        assert_eq!(parse("a\tx").err(), Some(HotwordError::Weight { line: 1 }));
        assert_eq!(parse("a\n\na\t-1").err(), Some(HotwordError::Weight { line: 3 }));
        assert_eq!(parse(&"a".repeat(201)).err(), Some(HotwordError::TooLong { line: 1 }));
        assert_eq!(parse(&"a\n".repeat(10_001)).err(), Some(HotwordError::TooMany));
    }
}
