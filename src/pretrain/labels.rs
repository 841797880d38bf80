//! Files of labels: for each clip of a manifest, in its order, a unit per frame.
//!
//! | layout | holds | made for names |
//! |---|---|---|
//! | fairseq | `NAME.km`, a line of numbers per clip; beside it `dict.km.txt`, a line `k 1` per unit, and `rate.km.txt`, labels per second | ending in `.km` |
//! | compact | header, two bytes per label, where each clip begins | any other |
//!
//! fairseq keeps the rate in its configuration and ignores `rate.km.txt`. The compact layout,
//! little-endian: `ASRUNITS`, version `u32`, units `u32`, labels per second `f64`, clips `u64`,
//! labels `u64`; the labels, `u16` each; where each clip ends, `u64` each, counted in labels.

use super::PretrainError;
use crate::files;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Extension of label files in fairseq's layout.
const FAIRSEQ: &str = "km";
/// Names of the files beside those.
const DICTIONARY: &str = "dict.km.txt";
const RATE: &str = "rate.km.txt";

/// Most units: labels are `u16`.
const MAX_UNITS: usize = 1 << 16;
/// Highest label rate, hertz.
const MAX_RATE_HZ: f64 = 1000.0;
/// Most clips, so that what is kept of them stays below 1 GiB.
const MAX_CLIPS: u64 = 1 << 27;
/// Longest line of labels that is read, bytes.
const MAX_LINE: u64 = 1 << 28;
/// Largest file beside labels that is read.
const MAX_BESIDE: u64 = 1 << 22;

const MAGIC: &[u8; 8] = b"ASRUNITS";
const VERSION: u32 = 1;
const HEADER_BYTES: u64 = 40;

fn check(n_units: usize, rate_hz: f64) -> Result<(), PretrainError> {
    if !(1..=MAX_UNITS).contains(&n_units) {
        return Err(PretrainError::UnitCount { found: n_units, limit: MAX_UNITS });
    }
    if !(rate_hz > 0.0 && rate_hz <= MAX_RATE_HZ) {
        return Err(PretrainError::LabelRate { found: rate_hz, limit: MAX_RATE_HZ });
    }
    Ok(())
}

fn is_fairseq(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == FAIRSEQ)
}

fn reading(path: &Path) -> impl FnOnce(std::io::Error) -> PretrainError + Copy {
    move |source| PretrainError::Read { path: path.to_owned(), source }
}

fn writing(path: &Path) -> impl FnOnce(std::io::Error) -> PretrainError + Copy {
    move |source| PretrainError::Write { path: path.to_owned(), source }
}

/// The labels of a manifest's clips, read from their file one clip at a time.
///
/// Eight bytes per clip are kept in memory. Can be shared between threads.
#[derive(Debug)]
pub struct UnitLabels {
    path: PathBuf,
    file: Mutex<File>,
    layout: Layout,
    n_units: usize,
    rate_hz: f64,
    /// Where the first clip begins, bytes.
    start: u64,
    /// Where each clip ends: labels in the compact layout, bytes in the other.
    ends: Vec<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Fairseq,
    Compact,
}

impl UnitLabels {
    /// Opens a label file of either layout; one ending in `.km` needs `dict.km.txt` and
    /// `rate.km.txt` beside it.
    ///
    /// # Errors
    /// [`PretrainError`] if a file cannot be read or its numbers do not agree with its size.
    pub fn open(path: &Path) -> Result<Self, PretrainError> {
        if !is_fairseq(path) {
            return Self::open_compact(path);
        }
        let beside = path.with_file_name(RATE);
        let text = read_beside(&beside)?;
        let problem = "it should hold the number of labels per second";
        let rate_hz = text
            .trim()
            .parse()
            .map_err(|_| PretrainError::LabelFile { path: beside.clone(), problem })?;
        Self::open_fairseq(path, rate_hz)
    }

    /// Opens labels in fairseq's layout, which does not say how many there are per second.
    ///
    /// # Errors
    /// As [`UnitLabels::open`].
    pub fn open_fairseq(path: &Path, rate_hz: f64) -> Result<Self, PretrainError> {
        let n_units = dictionary(&path.with_file_name(DICTIONARY))?;
        check(n_units, rate_hz)?;
        let file = File::open(path).map_err(reading(path))?;
        let mut reader = BufReader::with_capacity(1 << 20, &file);
        let mut ends = Vec::new();
        let (mut at, mut line_start) = (0_u64, 0_u64);
        loop {
            let block = reader.fill_buf().map_err(reading(path))?;
            if block.is_empty() {
                break;
            }
            for (i, _) in block.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
                line_start = at + i as u64 + 1;
                ends.push(line_start);
            }
            let n = block.len();
            at += n as u64;
            reader.consume(n);
            if ends.len() as u64 > MAX_CLIPS {
                let problem = "it has more lines than there can be clips";
                return Err(PretrainError::LabelFile { path: path.to_owned(), problem });
            }
        }
        if line_start < at {
            ends.push(at);
        }
        let layout = Layout::Fairseq;
        Ok(Self {
            path: path.to_owned(),
            file: Mutex::new(file),
            layout,
            n_units,
            rate_hz,
            start: 0,
            ends,
        })
    }

    fn open_compact(path: &Path) -> Result<Self, PretrainError> {
        let problem = |problem| PretrainError::LabelFile { path: path.to_owned(), problem };
        let mut file = File::open(path).map_err(reading(path))?;
        let size = file.metadata().map_err(reading(path))?.len();
        let mut header = [0_u8; HEADER_BYTES as usize];
        if size < HEADER_BYTES {
            return Err(problem("it is shorter than a header"));
        }
        file.read_exact(&mut header).map_err(reading(path))?;
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("4 bytes"));
        let long = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("8 bytes"));
        if header[..8] != *MAGIC {
            return Err(problem("it does not begin with `ASRUNITS`"));
        }
        if word(8) != VERSION {
            return Err(problem("it is of another version"));
        }
        let (n_units, rate_hz) = (word(12) as usize, f64::from_bits(long(16)));
        check(n_units, rate_hz)?;
        let (n_clips, n_labels) = (long(24), long(32));
        let bytes = n_labels
            .checked_mul(2)
            .and_then(|labels| labels.checked_add(n_clips.checked_mul(8)?))
            .and_then(|bytes| bytes.checked_add(HEADER_BYTES));
        if bytes != Some(size) {
            return Err(problem("its size is not what its header says"));
        }
        if n_clips > MAX_CLIPS {
            return Err(problem("it has more clips than there can be"));
        }
        file.seek(SeekFrom::Start(HEADER_BYTES + 2 * n_labels)).map_err(reading(path))?;
        let mut bytes = vec![0_u8; 8 * n_clips as usize];
        file.read_exact(&mut bytes).map_err(reading(path))?;
        let ends: Vec<u64> = bytes
            .chunks_exact(8)
            .map(|b| u64::from_le_bytes(b.try_into().expect("8 bytes")))
            .collect();
        if !ends.is_sorted() || ends.last().copied().unwrap_or(0) != n_labels {
            return Err(problem("its clips do not follow one another"));
        }
        let layout = Layout::Compact;
        Ok(Self {
            path: path.to_owned(),
            file: Mutex::new(file),
            layout,
            n_units,
            rate_hz,
            start: HEADER_BYTES,
            ends,
        })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of clips.
    #[must_use]
    pub fn n_clips(&self) -> usize {
        self.ends.len()
    }

    /// Number of units; labels are below it.
    #[must_use]
    pub fn n_units(&self) -> usize {
        self.n_units
    }

    /// Labels per second.
    #[must_use]
    pub fn rate_hz(&self) -> f64 {
        self.rate_hz
    }

    /// The labels of a clip.
    ///
    /// # Errors
    /// [`PretrainError`] if there is no such clip, or a label is not below
    /// [`n_units`](Self::n_units).
    pub fn clip(&self, index: usize) -> Result<Vec<u16>, PretrainError> {
        let Some(&end) = self.ends.get(index) else {
            let (clip, n_clips) = (index, self.n_clips());
            return Err(PretrainError::NoSuchClip { path: self.path.clone(), clip, n_clips });
        };
        let begin = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        let per_item = if self.layout == Layout::Compact { 2 } else { 1 };
        let length = (end - begin) * per_item;
        if length > MAX_LINE {
            let problem = "a clip is longer than clips can be";
            return Err(PretrainError::LabelFile { path: self.path.clone(), problem });
        }
        let mut bytes = vec![0_u8; length as usize];
        {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            file.seek(SeekFrom::Start(self.start + begin * per_item))
                .and_then(|_| file.read_exact(&mut bytes))
                .map_err(reading(&self.path))?;
        }
        match self.layout {
            Layout::Compact => bytes
                .chunks_exact(2)
                .map(|b| u16::from_le_bytes([b[0], b[1]]))
                .map(|label| self.checked(index, Some(label), &label.to_string()))
                .collect(),
            Layout::Fairseq => bytes
                .split(u8::is_ascii_whitespace)
                .filter(|field| !field.is_empty())
                .map(|field| {
                    let text = String::from_utf8_lossy(field);
                    self.checked(index, text.parse().ok(), &text)
                })
                .collect(),
        }
    }

    fn checked(&self, clip: usize, label: Option<u16>, found: &str) -> Result<u16, PretrainError> {
        label.filter(|label| usize::from(*label) < self.n_units).ok_or_else(|| {
            PretrainError::Label {
                path: self.path.clone(),
                clip,
                found: found.chars().take(16).collect(),
                n_units: self.n_units,
            }
        })
    }
}

fn read_beside(path: &Path) -> Result<String, PretrainError> {
    let mut text = String::new();
    let file = File::open(path).map_err(reading(path))?;
    file.take(MAX_BESIDE).read_to_string(&mut text).map_err(reading(path))?;
    Ok(text)
}

/// Number of units that a dictionary names; they must be 0, 1, 2 and so on, as fairseq would
/// otherwise number them anew.
fn dictionary(path: &Path) -> Result<usize, PretrainError> {
    let text = read_beside(path)?;
    let mut n_units = 0_usize;
    for line in text.lines().filter(|line| !line.is_empty()) {
        let unit = line.split(' ').next().and_then(|unit| unit.parse::<usize>().ok());
        if unit != Some(n_units) {
            let problem = "its lines should be `0 1`, `1 1`, `2 1` and so on";
            return Err(PretrainError::LabelFile { path: path.to_owned(), problem });
        }
        n_units += 1;
    }
    if n_units == 0 {
        // fairseq would take every label for an unknown one.
        let problem = "it names no unit";
        return Err(PretrainError::LabelFile { path: path.to_owned(), problem });
    }
    Ok(n_units)
}

/// Writes labels, clip by clip, under a temporary name; [`finish`](Self::finish) gives the
/// file its own. What is not finished is removed.
#[derive(Debug)]
pub struct LabelWriter {
    path: PathBuf,
    temporary: PathBuf,
    /// `None` once the file is finished.
    file: Option<BufWriter<File>>,
    layout: Layout,
    n_units: usize,
    rate_hz: f64,
    n_labels: u64,
    ends: Vec<u64>,
}

impl LabelWriter {
    /// Begins a file, in fairseq's layout if its name ends in `.km`, in the compact one otherwise.
    ///
    /// # Errors
    /// [`PretrainError`] if it cannot be written, `n_units` or `rate_hz` is out of range, or
    /// `dict.km.txt` beside it names another number of units.
    pub fn create(path: &Path, n_units: usize, rate_hz: f64) -> Result<Self, PretrainError> {
        check(n_units, rate_hz)?;
        let layout = if is_fairseq(path) { Layout::Fairseq } else { Layout::Compact };
        if layout == Layout::Fairseq {
            let beside = path.with_file_name(DICTIONARY);
            if beside.exists() {
                let found = dictionary(&beside)?;
                if found != n_units {
                    let expected = n_units;
                    return Err(PretrainError::Dictionary { path: beside, found, expected });
                }
            }
        }
        let temporary = files::partial(path);
        let mut file = BufWriter::new(File::create(&temporary).map_err(writing(path))?);
        if layout == Layout::Compact {
            file.write_all(&[0; HEADER_BYTES as usize]).map_err(writing(path))?;
        }
        let (path, file, ends) = (path.to_owned(), Some(file), Vec::new());
        Ok(Self { path, temporary, file, layout, n_units, rate_hz, n_labels: 0, ends })
    }

    /// Adds the labels of the next clip.
    ///
    /// # Errors
    /// [`PretrainError`] if they cannot be written or one is no unit.
    ///
    /// # Panics
    /// After an earlier call failed.
    pub fn push(&mut self, labels: &[u16]) -> Result<(), PretrainError> {
        if let Some(wrong) = labels.iter().find(|label| usize::from(**label) >= self.n_units) {
            return Err(PretrainError::Label {
                path: self.path.clone(),
                clip: self.ends.len(),
                found: wrong.to_string(),
                n_units: self.n_units,
            });
        }
        let mut bytes = Vec::with_capacity(4 * labels.len() + 1);
        match self.layout {
            Layout::Compact => bytes.extend(labels.iter().flat_map(|label| label.to_le_bytes())),
            Layout::Fairseq => {
                for (i, label) in labels.iter().enumerate() {
                    if i > 0 {
                        bytes.push(b' ');
                    }
                    bytes.extend(label.to_string().bytes());
                }
                bytes.push(b'\n');
            }
        }
        let file = self.file.as_mut().expect("finishing takes the writer");
        file.write_all(&bytes).map_err(writing(&self.path))?;
        self.n_labels += labels.len() as u64;
        self.ends.push(self.n_labels);
        Ok(())
    }

    /// Completes the file and gives it its name.
    ///
    /// # Errors
    /// [`PretrainError`] if it cannot be written.
    ///
    /// # Panics
    /// Never.
    pub fn finish(mut self) -> Result<(), PretrainError> {
        let mut file = self.file.take().expect("finishing takes the writer");
        let write = writing(&self.path);
        if self.layout == Layout::Compact {
            for end in &self.ends {
                file.write_all(&end.to_le_bytes()).map_err(write)?;
            }
            let mut header = Vec::from(*MAGIC);
            header.extend(VERSION.to_le_bytes());
            header.extend((self.n_units as u32).to_le_bytes());
            header.extend(self.rate_hz.to_le_bytes());
            header.extend((self.ends.len() as u64).to_le_bytes());
            header.extend(self.n_labels.to_le_bytes());
            file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(&header)).map_err(write)?;
        } else {
            let units: String = (0..self.n_units).map(|unit| format!("{unit} 1\n")).collect();
            write_whole(&self.path.with_file_name(DICTIONARY), units.as_bytes())?;
            let rate = format!("{}\n", self.rate_hz);
            write_whole(&self.path.with_file_name(RATE), rate.as_bytes())?;
        }
        file.into_inner().map_err(|error| write(error.into_error()))?;
        files::put_in_place(&self.path).map_err(write)
    }
}

impl Drop for LabelWriter {
    fn drop(&mut self) {
        // Finished files have another name by now; what is no file never had.
        if self.temporary != self.path {
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// Writes `bytes` to `path`, whole or not at all.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), PretrainError> {
    files::write_whole(path, bytes).map_err(writing(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIPS: [&[u16]; 4] = [&[3, 0, 499], &[], &[7], &[1, 1, 1, 2]];

    fn written(path: &Path) {
        let mut writer = LabelWriter::create(path, 500, 50.0).expect("created");
        for clip in CLIPS {
            writer.push(clip).expect("pushed");
        }
        assert!(!path.exists(), "nothing has the name before it is whole");
        writer.finish().expect("finished");
    }

    #[test]
    fn both_layouts_give_back_what_was_written() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["train.km", "train.units"] {
            let path = folder.path().join(name);
            written(&path);
            let labels = UnitLabels::open(&path).expect("sound");
            assert_eq!((labels.n_clips(), labels.n_units(), labels.rate_hz()), (4, 500, 50.0));
            for (i, clip) in CLIPS.iter().enumerate().rev() {
                assert_eq!(labels.clip(i).expect("there"), *clip, "{name}, clip {i}");
            }
            assert!(matches!(labels.clip(4), Err(PretrainError::NoSuchClip { .. })));
        }
        let text = std::fs::read_to_string(folder.path().join("train.km")).expect("text");
        assert_eq!(text, "3 0 499\n\n7\n1 1 1 2\n");
        let units = std::fs::read_to_string(folder.path().join(DICTIONARY)).expect("text");
        assert!(units.starts_with("0 1\n1 1\n") && units.ends_with("499 1\n"));
        let files = std::fs::read_dir(folder.path()).expect("readable").count();
        assert_eq!(files, 4, "no temporary file is left");
    }

    #[test]
    fn a_writer_that_is_dropped_leaves_nothing_and_harms_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.units");
        written(&path);
        let mut writer = LabelWriter::create(&path, 2, 100.0).expect("created");
        writer.push(&[1, 0]).expect("pushed");
        assert!(matches!(writer.push(&[2]), Err(PretrainError::Label { clip: 1, .. })));
        drop(writer);
        assert_eq!(UnitLabels::open(&path).expect("sound").n_clips(), 4);
        assert_eq!(std::fs::read_dir(folder.path()).expect("readable").count(), 1);
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.units");
        written(&path);
        let sound = std::fs::read(&path).expect("readable");
        let changed = |at: usize, bytes: &[u8]| {
            let mut file = sound.clone();
            file[at..at + bytes.len()].copy_from_slice(bytes);
            file
        };
        let last = sound.len() - 8;
        for (what, bytes) in [
            ("empty", Vec::new()),
            ("cut", sound[..sound.len() - 1].to_vec()),
            ("magic", changed(0, b"X")),
            ("version", changed(8, &[9])),
            ("no units", changed(12, &[0, 0])),
            ("rate", changed(16, &f64::NAN.to_le_bytes())),
            ("clips", changed(24, &u64::MAX.to_le_bytes())),
            ("labels", changed(32, &(u64::MAX / 2 + 1).to_le_bytes())),
            ("order", changed(last - 8, &u64::MAX.to_le_bytes())),
            ("end", changed(last, &3_u64.to_le_bytes())),
        ] {
            std::fs::write(&path, bytes).expect("written");
            let is_refused = matches!(
                UnitLabels::open(&path),
                Err(PretrainError::LabelFile { .. }
                    | PretrainError::UnitCount { .. }
                    | PretrainError::LabelRate { .. })
            );
            assert!(is_refused, "{what}");
        }
        // A label that is no unit is told of when its clip is read.
        std::fs::write(&path, changed(12, &[4, 0])).expect("written");
        let labels = UnitLabels::open(&path).expect("sizes are sound");
        assert!(matches!(labels.clip(0), Err(PretrainError::Label { clip: 0, .. })));
        assert_eq!(labels.clip(3).expect("all below 4"), CLIPS[3]);
    }

    #[test]
    fn fairseq_files_are_read_as_fairseq_would() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let write = |name: &str, text: &str| std::fs::write(at(name), text).expect("written");
        write("a.km", "0 1\n\n2");
        assert!(matches!(UnitLabels::open(&at("a.km")), Err(PretrainError::Read { .. })));
        write(RATE, "100");
        write(DICTIONARY, "");
        assert!(matches!(UnitLabels::open(&at("a.km")), Err(PretrainError::LabelFile { .. })));
        write(DICTIONARY, "1 1\n0 1\n");
        assert!(matches!(UnitLabels::open(&at("a.km")), Err(PretrainError::LabelFile { .. })));
        write(DICTIONARY, "0 1\n1 1\n");
        let labels = UnitLabels::open(&at("a.km")).expect("sound");
        assert_eq!((labels.n_clips(), labels.rate_hz()), (3, 100.0));
        assert_eq!(labels.clip(0).expect("sound"), [0, 1]);
        assert!(labels.clip(1).expect("an empty line").is_empty());
        let error = labels.clip(2).expect_err("there are two units").to_string();
        assert!(error.ends_with("clip 2: label `2` is not a number below 2"), "{error}");
        let other = LabelWriter::create(&at("b.km"), 3, 100.0).expect_err("another dictionary");
        assert!(matches!(other, PretrainError::Dictionary { found: 2, expected: 3, .. }));
    }
}
