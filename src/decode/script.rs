//! A text to be aligned: words as written, each with the tokens to listen for.

use super::align::{AlignError, Aligner, Span, Target, Unit};
use super::times::FrameTimes;
use super::tokens::Tokens;
use crate::text::{Language, is_unspaced, normalise, spelling};
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// A word of the text and when it is said.
#[derive(Debug, Clone, PartialEq)]
pub struct AlignedWord {
    /// As written.
    pub word: String,
    /// Line of the text, from 0.
    pub line: usize,
    /// Seconds.
    pub start_s: f64,
    /// Seconds.
    pub end_s: f64,
    /// Mean over its tokens of the mean probability of each over its frames, 0 to 1; 0 for
    /// what is not spoken, such as a dash.
    pub score: f64,
    /// Its characters in normal form.
    pub characters: Vec<AlignedCharacter>,
}

/// A character of a word.
#[derive(Debug, Clone, PartialEq)]
pub struct AlignedCharacter {
    /// The character, with the marks that belong to it.
    pub character: String,
    /// Seconds.
    pub start_s: f64,
    /// Seconds.
    pub end_s: f64,
    /// Mean probability over its frames.
    pub score: f64,
}

#[derive(Debug, Clone)]
struct Word {
    written: String,
    line: usize,
    /// Each with the number of its tokens.
    characters: Vec<(String, usize)>,
    /// Its first token among all.
    first_target: usize,
}

/// A text with the tokens it is made of.
///
/// Words are what stands between white space; in scripts written without spaces each
/// character. A character that the vocabulary has no token for is taken to be any sound.
/// Something else than the text may be heard before, after and between its lines.
#[derive(Debug, Clone)]
pub struct Script {
    words: Vec<Word>,
    targets: Vec<Target>,
    n_unknown: usize,
}

impl Script {
    /// Reads a text in `language`.
    #[must_use]
    pub fn new(text: &str, language: Language, tokens: &Tokens) -> Self {
        let mut script = Self { words: Vec::new(), targets: Vec::new(), n_unknown: 0 };
        let space = tokens.id_of_character(' ');
        for (line, written) in text.lines().enumerate() {
            let mut first_of_line = true;
            for word in written.split_whitespace() {
                let mut first_of_word = true;
                for part in split_unspaced(word) {
                    let spoken = normalise(&part, language);
                    let characters: Vec<String> = clusters(&spoken);
                    let mut first_target = script.targets.len();
                    if !characters.is_empty() {
                        if first_of_word && !first_of_line && !part.starts_with(is_unspaced) {
                            let unit = space.map(Unit::Token);
                            script
                                .targets
                                .extend(unit.map(|unit| Target { unit, gap_before: false }));
                            first_target = script.targets.len();
                        }
                        first_of_word = false;
                    }
                    let characters = characters
                        .into_iter()
                        .map(|character| {
                            let n = script.listen_for(&character, tokens, first_of_line);
                            first_of_line = false;
                            (character, n)
                        })
                        .collect();
                    script.words.push(Word { written: part, line, characters, first_target });
                }
            }
        }
        script
    }

    fn listen_for(&mut self, character: &str, tokens: &Tokens, gap: bool) -> usize {
        let before = self.targets.len();
        for c in spelling(character) {
            let unit = match tokens.id_of_character(c) {
                Some(id) => Unit::Token(id),
                None => {
                    self.n_unknown += 1;
                    Unit::Any
                }
            };
            let gap_before = gap && self.targets.len() == before;
            self.targets.push(Target { unit, gap_before });
        }
        self.targets.len() - before
    }

    /// Words of the text.
    #[must_use]
    pub fn n_words(&self) -> usize {
        self.words.len()
    }

    /// Characters that the vocabulary has no token for.
    #[must_use]
    pub fn n_unknown(&self) -> usize {
        self.n_unknown
    }

    /// An alignment of the text, to be given the frames.
    ///
    /// # Errors
    /// None for the vocabulary that the script was made with.
    pub fn aligner(&self, vocab: usize) -> Result<Aligner, AlignError> {
        Aligner::new(self.targets.clone(), true, vocab, 0)
    }

    /// When each word is said, given the spans of all tokens; inside of `duration_s`.
    ///
    /// What is not spoken lies between its neighbours.
    #[must_use]
    pub fn words(&self, spans: &[Span], times: FrameTimes, duration_s: f64) -> Vec<AlignedWord> {
        let seconds = |span: &Span| {
            let (start_s, end_s) = times.span_s(span.start..span.end);
            (start_s.min(duration_s), end_s.min(duration_s))
        };
        let mut words: Vec<AlignedWord> = Vec::with_capacity(self.words.len());
        for word in &self.words {
            let mut target = word.first_target;
            let mut characters = Vec::with_capacity(word.characters.len());
            let mut scores = Vec::new();
            for (character, n) in &word.characters {
                let own = spans.get(target..target + n).unwrap_or_default();
                target += n;
                let (Some(first), Some(last)) = (own.first(), own.last()) else { continue };
                scores.extend(own.iter().map(|span| span.score));
                characters.push(AlignedCharacter {
                    character: character.clone(),
                    start_s: seconds(first).0,
                    end_s: seconds(last).1,
                    score: own.iter().map(|span| span.score).sum::<f64>() / own.len() as f64,
                });
            }
            let before = words.last().map_or(0.0, |word| word.end_s);
            words.push(AlignedWord {
                word: word.written.clone(),
                line: word.line,
                start_s: characters.first().map_or(before, |c| c.start_s),
                end_s: characters.last().map_or(before, |c| c.end_s),
                score: scores.iter().sum::<f64>() / scores.len().max(1) as f64,
                characters,
            });
        }
        spread_unspoken(&mut words, duration_s);
        words
    }
}

/// Shares the time between spoken neighbours among the words that are not spoken.
fn spread_unspoken(words: &mut [AlignedWord], duration_s: f64) {
    let mut start = 0;
    while start < words.len() {
        let run = words[start..].iter().take_while(|word| word.characters.is_empty()).count();
        if run > 0 {
            let from = start.checked_sub(1).map_or(0.0, |i| words[i].end_s);
            let to = words.get(start + run).map_or(duration_s, |next| next.start_s).max(from);
            let share = (to - from) / run as f64;
            for (i, word) in words[start..start + run].iter_mut().enumerate() {
                word.start_s = from + share * i as f64;
                word.end_s = from + share * (i + 1) as f64;
            }
        }
        start += run.max(1);
    }
}

/// Parts of a word: single characters of scripts without spaces, the rest together.
fn split_unspaced(word: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    let mut before = None;
    for c in word.nfc() {
        let joins = before.is_some_and(|b: char| {
            is_combining_mark(c) || !(is_unspaced(b) || is_unspaced(c)) || !c.is_alphanumeric()
        });
        match parts.last_mut().filter(|_| joins) {
            Some(part) => part.push(c),
            None => parts.push(c.to_string()),
        }
        before = Some(c);
    }
    parts
}

/// Characters with the marks that follow them; spaces left out.
fn clusters(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for c in text.chars().filter(|c| *c != ' ') {
        match found.last_mut().filter(|_| is_combining_mark(c)) {
            Some(cluster) => cluster.push(c),
            None => found.push(c.to_string()),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Vocabulary;

    fn tokens() -> Tokens {
        let language = "eng".parse().expect("a code");
        let vocabulary = Vocabulary::build([language], ["abcdefg 3 東京 한"], 1);
        Tokens::from(&vocabulary.expect("few characters"))
    }

    fn aligned(text: &str, language: &str) -> Vec<AlignedWord> {
        let tokens = tokens();
        let script = Script::new(text, language.parse().expect("a code"), &tokens);
        let spans: Vec<Span> = (0..script.targets.len() as u64)
            .map(|i| Span { start: 2 * i, end: 2 * i + 1, score: 0.5, log_prob: 0.5_f64.ln() })
            .collect();
        script.words(&spans, FrameTimes { first_s: 0.02, step_s: 0.04 }, 1.0)
    }

    #[test]
    fn every_word_of_every_script_gets_a_time() {
        let words = aligned("Ab — cé, (3%)\n東京。 한!", "eng");
        let found: Vec<(&str, usize, usize)> =
            words.iter().map(|w| (w.word.as_str(), w.line, w.characters.len())).collect();
        let want = [
            ("Ab", 0, 2),
            ("—", 0, 0),
            ("cé,", 0, 2),
            ("(3%)", 0, 1),
            ("東", 1, 1),
            ("京。", 1, 1),
            ("한!", 1, 1),
        ];
        assert_eq!(found, want);
        assert!(words.windows(2).all(|pair| pair[0].end_s <= pair[1].start_s + 1e-9));
        assert!(words.iter().all(|w| w.start_s <= w.end_s && w.end_s <= 1.0));
        // a b, space, c, any: the dash lies in the gap around the space.
        assert!((words[1].start_s - 0.12).abs() < 1e-9 && (words[1].end_s - 0.24).abs() < 1e-9);
        assert!(aligned("", "eng").is_empty());
        assert_eq!(aligned("...", "eng")[0].end_s, 1.0);
    }

    #[test]
    fn gaps_are_between_lines_and_spaces_between_words() {
        let tokens = tokens();
        let script = Script::new("a b\n\n¡c!", "eng".parse().expect("a code"), &tokens);
        let id = |c| Unit::Token(tokens.id_of_character(c).expect("known"));
        let target = |c, gap_before| Target { unit: id(c), gap_before };
        assert_eq!(
            script.targets,
            [target('a', true), target(' ', false), target('b', false), target('c', true)]
        );
        assert_eq!((script.n_words(), script.n_unknown()), (3, 0));
    }
}
