//! ARPA files, plain or gzipped, read with hostile ones in mind.

use super::ngram::{Entry, NgramModel};
use flate2::read::MultiGzDecoder;
use std::io::{BufRead, BufReader, Read};

/// Largest ARPA text, after decompression.
pub const MAX_ARPA_BYTES: u64 = 4 << 30;
/// Longest n-grams.
pub const MAX_ORDER: usize = 10;
/// Longest line.
const MAX_LINE_BYTES: usize = 64 << 10;
/// Lines before `\data\` that are skipped.
const MAX_PREAMBLE_LINES: usize = 1_000;
/// Most n-grams of all orders: node numbers have 32 bits.
const MAX_NGRAMS: u64 = 1 << 31;
/// First bytes of a gzip file.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Why an ARPA file is refused. Lines are counted from 1.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArpaError {
    /// The file cannot be read or decompressed.
    #[error("cannot read the language model")]
    Read(#[from] std::io::Error),
    /// Longer than [`MAX_ARPA_BYTES`].
    #[error("the language model has more than {MAX_ARPA_BYTES} bytes")]
    TooLarge,
    /// Something else than the format wants.
    #[error("line {line} of the language model is no {expected}")]
    Line {
        /// Its number.
        line: usize,
        /// What should be there.
        expected: &'static str,
    },
    /// An n-gram whose words are not in the vocabulary or whose first words are no n-gram.
    #[error("line {line} of the language model has an n-gram whose beginning is not in the model")]
    Orphan {
        /// Its number.
        line: usize,
    },
    /// An n-gram that is there twice.
    #[error("the language model lists a {order}-gram twice")]
    Duplicate {
        /// Its order.
        order: usize,
    },
    /// A number of n-grams other than declared.
    #[error("the language model declares {declared} {order}-grams and has {found}")]
    Count {
        /// The order.
        order: usize,
        /// As declared.
        declared: u64,
        /// As found, up to one more than declared.
        found: u64,
    },
}

/// Lines of bounded length from a source of bounded length.
struct Lines<R> {
    reader: BufReader<std::io::Take<R>>,
    line: Vec<u8>,
    number: usize,
}

impl<R: Read> Lines<R> {
    fn new(reader: R) -> Self {
        Self { reader: BufReader::new(reader.take(MAX_ARPA_BYTES)), line: Vec::new(), number: 0 }
    }

    fn wrong(&self, expected: &'static str) -> ArpaError {
        ArpaError::Line { line: self.number, expected }
    }

    /// The next line without the white space around it; `None` at the end.
    fn next(&mut self) -> Result<Option<&str>, ArpaError> {
        self.line.clear();
        self.number += 1;
        let mut limited = self.reader.by_ref().take(MAX_LINE_BYTES as u64);
        if limited.read_until(b'\n', &mut self.line)? == 0 {
            return match self.reader.get_ref().limit() {
                0 => Err(ArpaError::TooLarge),
                _ => Ok(None),
            };
        }
        if self.line.len() == MAX_LINE_BYTES {
            return Err(self.wrong("line of fewer than 65536 bytes"));
        }
        match std::str::from_utf8(&self.line) {
            Ok(text) => Ok(Some(text.trim_matches(|c: char| c.is_ascii_whitespace()))),
            Err(_) => Err(ArpaError::Line { line: self.number, expected: "UTF-8 text" }),
        }
    }

    /// The next line that is not empty.
    fn next_filled(&mut self) -> Result<Option<&str>, ArpaError> {
        while let Some(line) = self.next()? {
            if !line.is_empty() {
                // Borrowed again: the loop keeps the first borrow alive otherwise.
                let line = std::str::from_utf8(&self.line).unwrap_or_default();
                return Ok(Some(line.trim_matches(|c: char| c.is_ascii_whitespace())));
            }
        }
        Ok(None)
    }
}

/// A probability or weight: a finite number, or minus infinity, which becomes -99.
fn number(text: &str) -> Option<f32> {
    let value: f32 = text.parse().ok()?;
    if value == f32::NEG_INFINITY {
        return Some(-99.0);
    }
    value.is_finite().then_some(value)
}

impl NgramModel {
    /// Reads an ARPA file, plain or gzipped (told by its first bytes).
    ///
    /// What stands before `\data\` is skipped. Memory is about 24 bytes per n-gram and is
    /// used only for n-grams that are there, whatever the file declares.
    ///
    /// # Errors
    /// [`ArpaError`] naming the line: no ARPA file, a count that is wrong, a probability
    /// above one, an n-gram listed twice or without its beginning, beyond the limits.
    pub fn read(reader: impl Read) -> Result<Self, ArpaError> {
        let mut reader = BufReader::new(reader);
        // A reader may hand out one byte at a time: collect the first two by hand.
        let mut head = Vec::with_capacity(GZIP.len());
        reader.by_ref().take(GZIP.len() as u64).read_to_end(&mut head)?;
        let whole = std::io::Cursor::new(head.clone()).chain(reader);
        if head == GZIP {
            read_text(Lines::new(MultiGzDecoder::new(whole)))
        } else {
            read_text(Lines::new(whole))
        }
    }
}

fn read_text<R: Read>(mut lines: Lines<R>) -> Result<NgramModel, ArpaError> {
    while lines.next()? != Some("\\data\\") {
        if lines.line.is_empty() || lines.number > MAX_PREAMBLE_LINES {
            return Err(lines.wrong("\\data\\ of an ARPA file"));
        }
    }
    let mut declared: Vec<u64> = Vec::new();
    let mut heading = loop {
        let Some(line) = lines.next_filled()? else {
            return Err(lines.wrong("section of an ARPA file"));
        };
        let Some(count) = line.strip_prefix("ngram ") else { break line.to_owned() };
        let parsed = count.split_once('=').and_then(|(order, count)| {
            Some((order.trim().parse::<usize>().ok()?, count.trim().parse::<u64>().ok()?))
        });
        match parsed {
            Some((order, count))
                if order == declared.len() + 1
                    && order <= MAX_ORDER
                    && declared.iter().sum::<u64>().saturating_add(count) < MAX_NGRAMS =>
            {
                declared.push(count);
            }
            _ => return Err(lines.wrong("count of n-grams, orders from 1 to 10 in turn")),
        }
    };
    if declared.is_empty() {
        return Err(lines.wrong("count of n-grams"));
    }
    let mut model = NgramModel::empty();
    for (order, &count) in (1..).zip(&declared) {
        if heading != format!("\\{order}-grams:") {
            return Err(lines.wrong("heading of the next order"));
        }
        heading = read_level(&mut lines, &mut model, order, count, order == declared.len())?;
    }
    if heading != "\\end\\" {
        return Err(lines.wrong("\\end\\ of an ARPA file"));
    }
    Ok(model)
}

/// Reads the n-grams of one order; returns the heading that follows them.
fn read_level<R: Read>(
    lines: &mut Lines<R>,
    model: &mut NgramModel,
    order: usize,
    declared: u64,
    last: bool,
) -> Result<String, ArpaError> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut words = Vec::with_capacity(order);
    let heading = loop {
        let number_of_line = lines.number + 1;
        let Some(line) = lines.next_filled()? else {
            return Err(lines.wrong("\\end\\ of an ARPA file"));
        };
        if line.starts_with('\\') && line.split_ascii_whitespace().nth(1).is_none() {
            break line.to_owned();
        }
        if entries.len() as u64 == declared {
            return Err(ArpaError::Count { order, declared, found: declared + 1 });
        }
        words.clear();
        let mut fields = line.split_ascii_whitespace();
        let log10 = fields.next().and_then(number).filter(|&log10| log10 <= 0.0);
        let mut complete = true;
        for _ in 0..order {
            match fields.next() {
                Some(word) if order == 1 => match model.add_word(word) {
                    Some(id) => words.push(id),
                    None => return Err(ArpaError::Duplicate { order }),
                },
                Some(word) => match model.word(word) {
                    Some(id) => words.push(id.0),
                    None => return Err(ArpaError::Orphan { line: number_of_line }),
                },
                None => complete = false,
            }
        }
        // Some tools write a back-off of 0 with the longest n-grams too.
        let backoff = fields.next().map_or(Some(0.0), number);
        let (Some(log10), Some(backoff), true, None) = (log10, backoff, complete, fields.next())
        else {
            return Err(lines.wrong("n-gram: log10 probability, words, back-off weight"));
        };
        let Some(parent) = model.find(&words[..order - 1]) else {
            return Err(ArpaError::Orphan { line: number_of_line });
        };
        let backoff = if last { 0.0 } else { backoff };
        entries.push(Entry { parent, word: words[order - 1], log10, backoff });
    };
    if entries.len() as u64 != declared {
        return Err(ArpaError::Count { order, declared, found: entries.len() as u64 });
    }
    model.add_level(entries).map_err(|_| ArpaError::Duplicate { order })?;
    Ok(heading)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const SMALL: &str = "written by hand\n\n\\data\\\nngram 1=5\nngram 2=3\nngram 3=1\n\n\\1-grams:\n-1.0\t</s>\n-99\t<s>\t-0.5\n-2.0\t<unk>\t0\n-0.5\ta\t-0.25\n-0.75\tb\t-0.125\n\n\\2-grams:\n-0.25\t<s> a\t-0.0625\n-0.5\ta b\t-0.03125\n-0.75 b </s>\n\n\\3-grams:\n-0.125\t<s> a b\n\n\\end\\\n";

    fn small() -> NgramModel {
        NgramModel::read(SMALL.as_bytes()).expect("well-formed")
    }

    #[test]
    fn sentences_by_hand() {
        let model = small();
        assert_eq!((model.order(), model.counts()), (3, vec![5, 3, 1]));
        let cases: [(&[&str], f64); 5] = [
            // <s> a, <s> a b, then `a b </s>` backs off to `b </s>`.
            (&["a", "b"], -0.25 - 0.125 + (-0.03125 - 0.75)),
            // <s> b backs off to b; b a to a; a </s> to </s>.
            (&["b", "a"], (-0.5 - 0.75) + (-0.125 - 0.5) + (-0.25 - 1.0)),
            // <unk> ends every history.
            (&["a", "x", "b"], -0.25 + (-0.0625 - 0.25 - 2.0) - 0.75 - 0.75),
            (&["a", "a"], -0.25 + (-0.0625 - 0.25 - 0.5) + (-0.25 - 1.0)),
            (&[], -0.5 - 1.0),
        ];
        for (words, want) in cases {
            let got = model.sentence(words.iter().copied(), true);
            assert!((got - want).abs() < 1e-6, "{words:?}: {got}, want {want}");
        }
    }

    #[test]
    fn gzip_is_recognised_and_damage_is_an_error() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(SMALL.as_bytes()).expect("memory");
        let packed = encoder.finish().expect("memory");
        let model = NgramModel::read(packed.as_slice()).expect("well-formed");
        assert_eq!(model.counts(), small().counts());
        assert!(matches!(NgramModel::read(&packed[..packed.len() / 2]), Err(ArpaError::Read(_))));
        assert!(NgramModel::read(&packed[..2]).is_err());
    }

    #[test]
    fn a_model_without_unknown_or_end_still_gives_numbers() {
        let arpa = "\\data\\\nngram 1=1\n\\1-grams:\n-0.5 a\n\\end\\\n";
        let model = NgramModel::read(arpa.as_bytes()).expect("well-formed");
        assert!((model.sentence(["a", "b"], true) - (-0.5 - 100.0 - 100.0)).abs() < 1e-4);
    }

    #[test]
    fn hostile_files_are_errors() {
        let replaced = |from: &str, to: &str| SMALL.replacen(from, to, 1);
        let cases = [
            String::new(),
            "x\n".repeat(5_000),
            "a".repeat(1 << 20),
            replaced("ngram 1=5", "ngram 1=99999999999999999999"),
            replaced("ngram 1=5", "ngram 1=1999999999"),
            replaced("ngram 1=5", "ngram 1=4"),
            replaced("ngram 2=3", "ngram 3=3"),
            replaced("ngram 3=1", "ngram 3=1\nngram 4=18446744073709551615"),
            replaced("-0.75\tb", "0.75\tb"),
            replaced("-0.75\tb", "nan\tb"),
            replaced("-0.75\tb", "-0.75\ta"),
            replaced("-0.5\ta b", "-0.5\ta c"),
            replaced("-0.5\ta b", "-0.5\t<s> a"),
            replaced("-0.125\t<s> a b", "-0.125\t<s> b a"),
            replaced("-0.125\t<s> a b", "-0.125\t<s> a"),
            replaced("-0.125\t<s> a b", "-0.125\t<s> a b -0.5 a"),
            replaced("\\3-grams:", "\\4-grams:"),
            replaced("\\end\\", ""),
        ];
        for text in cases {
            let shown: String = text.chars().take(80).collect();
            assert!(NgramModel::read(text.as_bytes()).is_err(), "{shown}");
        }
        assert!(NgramModel::read(b"\\data\\\n\xff\xfe\n".as_slice()).is_err());
    }
}
