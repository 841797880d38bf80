//! SubRip and WebVTT.

use super::{TimedWord, milliseconds};
use crate::text::{is_unspaced, one_line};

/// How words are laid out as subtitles.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CueOptions {
    /// Characters of a line; a single longer word has a line of its own.
    pub max_line_chars: usize,
    /// Lines of a cue.
    pub max_lines: usize,
    /// Words of a cue, if limited.
    pub max_words: Option<usize>,
    /// Longest cue, in seconds; a single longer word has a cue of its own.
    pub max_duration_s: f64,
    /// A silence of this many seconds ends a cue.
    pub pause_s: f64,
}

impl Default for CueOptions {
    /// Two lines of 42 characters for up to seven seconds, as broadcasters have it.
    fn default() -> Self {
        Self {
            max_line_chars: 42,
            max_lines: 2,
            max_words: None,
            max_duration_s: 7.0,
            pause_s: 0.8,
        }
    }
}

/// A subtitle.
#[derive(Debug, Clone, PartialEq)]
pub struct Cue {
    /// Where it appears, in seconds.
    pub start_s: f64,
    /// Where it goes.
    pub end_s: f64,
    /// Its lines.
    pub lines: Vec<String>,
}

/// Least length of a cue: one frame of a film.
const SHORTEST_S: f64 = 0.04;

/// Lays out words, which are in order, as cues that do not overlap.
#[must_use]
pub fn cues(words: &[TimedWord], options: &CueOptions) -> Vec<Cue> {
    let mut cues: Vec<Cue> = Vec::new();
    let mut n_words = 0;
    for word in words {
        let text = one_line(&word.word);
        if text.is_empty() {
            continue;
        }
        let open = cues.last_mut().filter(|cue| {
            word.start_s - cue.end_s < options.pause_s
                && word.end_s - cue.start_s <= options.max_duration_s
                && options.max_words.is_none_or(|most| n_words < most.max(1))
        });
        if let Some(cue) = open
            && add(cue, &text, options)
        {
            cue.end_s = cue.end_s.max(word.end_s);
            n_words += 1;
            continue;
        }
        cues.push(Cue { start_s: word.start_s, end_s: word.end_s, lines: vec![text] });
        n_words = 1;
    }
    separate(&mut cues);
    cues
}

/// Adds a word to the last line or a new one; false if there is no place for it.
fn add(cue: &mut Cue, word: &str, options: &CueOptions) -> bool {
    let Some(line) = cue.lines.last_mut() else { return false };
    let joined = join(line, word);
    if joined.chars().count() <= options.max_line_chars {
        *line = joined;
        return true;
    }
    let fits = cue.lines.len() < options.max_lines.max(1);
    if fits {
        cue.lines.push(word.to_owned());
    }
    fits
}

/// Two words with the space that their script puts between them.
fn join(before: &str, after: &str) -> String {
    let unspaced = |c: Option<char>| c.is_some_and(is_unspaced);
    let gap =
        if unspaced(before.chars().last()) && unspaced(after.chars().next()) { "" } else { " " };
    format!("{before}{gap}{after}")
}

/// Gives each cue a length, and none a place in the next.
fn separate(cues: &mut [Cue]) {
    let mut last_end_s = 0.0_f64;
    for cue in cues.iter_mut() {
        cue.start_s = cue.start_s.max(last_end_s);
        cue.end_s = cue.end_s.max(cue.start_s + SHORTEST_S);
        last_end_s = cue.end_s;
    }
}

/// `HH:MM:SS.mmm`
fn clock(time_s: f64, point: char) -> String {
    let ms = milliseconds(time_s);
    let (s, ms) = (ms / 1000, ms % 1000);
    format!("{:02}:{:02}:{:02}{point}{ms:03}", s / 3600, s / 60 % 60, s % 60)
}

/// Cues as SubRip.
#[must_use]
pub fn srt(cues: &[Cue]) -> String {
    let mut text = String::new();
    for (number, cue) in (1..).zip(cues) {
        let (start, end) = (clock(cue.start_s, ','), clock(cue.end_s, ','));
        let lines = cue.lines.join("\n").replace("-->", "->");
        text.push_str(&format!("{number}\n{start} --> {end}\n{lines}\n\n"));
    }
    text
}

/// Cues as WebVTT.
#[must_use]
pub fn vtt(cues: &[Cue]) -> String {
    let mut text = "WEBVTT\n\n".to_owned();
    for cue in cues {
        let (start, end) = (clock(cue.start_s, '.'), clock(cue.end_s, '.'));
        let lines = cue.lines.join("\n");
        let lines = lines.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        text.push_str(&format!("{start} --> {end}\n{lines}\n\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn word(word: &str, start_s: f64, end_s: f64) -> TimedWord {
        TimedWord { word: word.to_owned(), start_s, end_s, score: 1.0 }
    }

    #[test]
    fn layout_by_hand() {
        let words = [
            word("the", 0.0, 0.2),
            word("quick", 0.3, 0.5),
            word("brown", 0.6, 0.9),
            word("fox", 1.0, 1.2),
            word("jumps", 3.0, 3.3),
            word("東", 3.4, 3.5),
            word("京", 3.5, 3.6),
        ];
        let options = CueOptions { max_line_chars: 9, ..CueOptions::default() };
        let found = cues(&words, &options);
        let lines: Vec<&[String]> = found.iter().map(|cue| cue.lines.as_slice()).collect();
        assert_eq!(lines, [&["the quick", "brown fox"][..], &["jumps 東京"][..]]);
        assert_eq!(
            srt(&found),
            "1\n00:00:00,000 --> 00:00:01,200\nthe quick\nbrown fox\n\n2\n00:00:03,000 --> 00:00:03,600\njumps 東京\n\n"
        );
        let two = cues(&words, &CueOptions { max_words: Some(2), ..options });
        assert_eq!(two.len(), 4);
        assert!(
            vtt(&two[..1]).starts_with("WEBVTT\n\n00:00:00.000 --> 00:00:00.500\nthe quick\n\n")
        );
        assert_eq!(clock(36_061.000_5, '.'), "10:01:01.001");
    }

    #[test]
    fn marks_of_the_formats_are_no_marks_in_text() {
        let found =
            cues(&[word("a\n\n-->", 0.0, 1.0), word("<b>&", 1.0, 2.0)], &CueOptions::default());
        assert_eq!(srt(&found), "1\n00:00:00,000 --> 00:00:02,000\na -> <b>&\n\n");
        assert_eq!(
            vtt(&found),
            "WEBVTT\n\n00:00:00.000 --> 00:00:02.000\na --&gt; &lt;b&gt;&amp;\n\n"
        );
    }

    proptest! {
        /// Nothing is lost, limits hold, cues have a length and do not overlap.
        #[test]
        fn cues_keep_to_the_limits(
            parts in prop::collection::vec(("[a-z東 \n]{0,9}", 0_u32..1500, 0_u32..900), 0..40),
            line in 1_usize..30,
            lines in 1_usize..4,
            most in prop::option::of(1_usize..6),
        ) {
            let mut now = 0.0;
            let words: Vec<TimedWord> = parts.iter().map(|(text, gap, length)| {
                let start = now + f64::from(*gap) / 1000.0;
                now = start + f64::from(*length) / 1000.0;
                word(text, start, now)
            }).collect();
            let options = CueOptions {
                max_line_chars: line, max_lines: lines, max_words: most, ..CueOptions::default()
            };
            let found = cues(&words, &options);
            let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            let all: String = words.iter().map(|word| letters(&word.word)).collect();
            prop_assert_eq!(found.iter().flat_map(|c| &c.lines).map(|l| letters(l)).collect::<String>(), all);
            for cue in &found {
                prop_assert!(cue.lines.len() <= lines && cue.end_s > cue.start_s);
                prop_assert!(cue.lines.iter().all(|l| l.chars().count() <= line.max(9)));
            }
            prop_assert!(found.windows(2).all(|pair| pair[0].end_s <= pair[1].start_s));
        }
    }
}
