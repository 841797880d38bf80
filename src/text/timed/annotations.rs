//! Tables of words (TSV, CTM) and Praat's TextGrid.

use super::{TimedWord, milliseconds};
use crate::text::one_line;

/// Rows of start and end in milliseconds and the text, after a heading, as whisper has them.
#[must_use]
pub fn tsv<'a>(rows: impl IntoIterator<Item = (f64, f64, &'a str)>) -> String {
    let mut table = "start\tend\ttext\n".to_owned();
    for (start_s, end_s, text) in rows {
        let (start, end) = (milliseconds(start_s), milliseconds(end_s));
        table.push_str(&format!("{start}\t{end}\t{}\n", one_line(text)));
    }
    table
}

/// Words in the CTM format of NIST's scoring tools: recording, channel, start, duration,
/// word, confidence. White space in a recording's name becomes `_`.
#[must_use]
pub fn ctm(recording: &str, words: &[TimedWord]) -> String {
    let recording: String =
        recording.chars().map(|c| if c.is_whitespace() { '_' } else { c }).collect();
    let recording = if recording.is_empty() { "_".to_owned() } else { recording };
    let mut table = String::new();
    for word in words {
        let name: String = word.word.split_whitespace().collect();
        if name.is_empty() {
            continue;
        }
        let (start, end) = (milliseconds(word.start_s), milliseconds(word.end_s));
        let length = end.saturating_sub(start);
        table.push_str(&format!(
            "{recording} 1 {}.{:03} {}.{:03} {name} {:.4}\n",
            start / 1000,
            start % 1000,
            length / 1000,
            length % 1000,
            word.score.clamp(0.0, 1.0)
        ));
    }
    table
}

/// A tier of intervals.
#[derive(Debug, Clone, PartialEq)]
pub struct TextGridTier {
    /// Its name.
    pub name: String,
    /// Start and end in seconds and the label, in order. What is in between has no label.
    pub intervals: Vec<(f64, f64, String)>,
}

/// Tiers as a TextGrid of `duration_s` seconds in Praat's long text format.
///
/// Intervals are rounded to milliseconds and cut where they overlap; those without a length
/// are left out, for Praat has none.
#[must_use]
pub fn text_grid(duration_s: f64, tiers: &[TextGridTier]) -> String {
    let total = milliseconds(duration_s).max(1);
    let seconds = |ms: u64| format!("{}.{:03}", ms / 1000, ms % 1000);
    let mut text = format!(
        "File type = \"ooTextFile\"\nObject class = \"TextGrid\"\n\nxmin = 0\nxmax = {}\ntiers? <exists>\nsize = {}\nitem []:\n",
        seconds(total),
        tiers.len()
    );
    for (number, tier) in (1..).zip(tiers) {
        let mut intervals: Vec<(u64, u64, &str)> = Vec::new();
        let mut now = 0;
        for (start_s, end_s, label) in &tier.intervals {
            let start = milliseconds(*start_s).clamp(now, total);
            let end = milliseconds(*end_s).clamp(start, total);
            if end > start {
                if start > now {
                    intervals.push((now, start, ""));
                }
                intervals.push((start, end, label));
                now = end;
            }
        }
        if now < total {
            intervals.push((now, total, ""));
        }
        text.push_str(&format!(
            "    item [{number}]:\n        class = \"IntervalTier\"\n        name = \"{}\"\n        xmin = 0\n        xmax = {}\n        intervals: size = {}\n",
            quoted(&tier.name),
            seconds(total),
            intervals.len()
        ));
        for (number, (start, end, label)) in (1..).zip(&intervals) {
            text.push_str(&format!(
                "        intervals [{number}]:\n            xmin = {}\n            xmax = {}\n            text = \"{}\"\n",
                seconds(*start),
                seconds(*end),
                quoted(label)
            ));
        }
    }
    text
}

/// Praat doubles quotation marks; a label has one line.
fn quoted(text: &str) -> String {
    one_line(text).replace('"', "\"\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_by_hand() {
        assert_eq!(
            tsv([(0.0, 1.5, "a\tb"), (1.5, 2.0, "c")]),
            "start\tend\ttext\n0\t1500\ta b\n1500\t2000\tc\n"
        );
        let word = |word: &str, start_s, end_s| TimedWord {
            word: word.into(),
            start_s,
            end_s,
            score: 0.5,
        };
        assert_eq!(
            ctm("my file.wav", &[word("hi", 0.04, 1.2), word(" ", 1.2, 1.3)]),
            "my_file.wav 1 0.040 1.160 hi 0.5000\n"
        );
    }

    #[test]
    fn a_text_grid_covers_its_time_without_gaps() {
        let tier = TextGridTier {
            name: "words".into(),
            intervals: vec![
                (0.1, 0.3, "a".into()),
                (0.3, 0.3, "%".into()),
                (0.25, 0.5, "\"b\"".into()),
                (0.9, 7.0, "c".into()),
            ],
        };
        let grid = text_grid(1.0, &[tier]);
        let edges: Vec<&str> =
            grid.lines().filter(|line| line.starts_with("            x")).map(str::trim).collect();
        let want = [
            "0.000", "0.100", "0.100", "0.300", "0.300", "0.500", "0.500", "0.900", "0.900",
            "1.000",
        ];
        let found: Vec<&str> = edges.iter().map(|edge| &edge[7..]).collect();
        assert_eq!(found, want);
        assert!(grid.contains("intervals: size = 5\n") && grid.contains("text = \"\"\"b\"\"\"\n"));
    }
}
