//! The corpus as published on Hugging Face: Parquet files of rows with their recordings inside.

use super::labels::{Label, label, language_of_id};
use super::lengths::seconds_of_bytes;
use super::problems::{ProblemKind, Problems};
use super::published::LabelSet;
use super::{MlSuperbError, Release, Split, Utterance};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

/// Name of a split at the start of its files' names, and the split; longer names first.
const SPLITS: [(&str, Split); 3] =
    [("dev_dialect", Split::DevDialect), ("train", Split::Train1H), ("dev", Split::Dev)];

/// What a row holds of use.
struct Entry {
    id: String,
    language: String,
    text: String,
    audio: Vec<u8>,
}

/// The Parquet files of a folder or its subfolder `data`, sorted; none for any other corpus.
pub(super) fn files(root: &Path) -> Result<Vec<PathBuf>, MlSuperbError> {
    let mut found = Vec::new();
    for folder in [root.to_owned(), root.join("data")] {
        if !folder.is_dir() {
            continue;
        }
        let read = |source| MlSuperbError::Read { path: folder.clone(), source };
        for entry in std::fs::read_dir(&folder).map_err(read)? {
            let path = entry.map_err(read)?.path();
            if path.extension().is_some_and(|extension| extension == "parquet") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Reads every row, its recording for the length alone.
///
/// The columns `id`, `language`, `text` (which begins with its tag) and `audio` (a struct with `bytes`) are needed.
pub(super) fn read(
    root: &Path,
    files: &[PathBuf],
    labels: LabelSet,
) -> Result<Release, MlSuperbError> {
    let mut problems = Problems::default();
    let mut utterances = Vec::new();
    let mut seen: HashSet<(Split, String)> = HashSet::new();
    for path in files {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some((_, split)) = SPLITS.iter().find(|(start, _)| name.starts_with(start)) else {
            problems.add(ProblemKind::WrongLayout, || format!("{name}: of no known split"));
            continue;
        };
        let refused = |source: ParquetError| MlSuperbError::Parquet {
            path: path.clone(),
            source: source.into(),
        };
        let file = std::fs::File::open(path)
            .map_err(|source| MlSuperbError::Read { path: path.clone(), source })?;
        let reader = SerializedFileReader::new(file).map_err(refused)?;
        for (number, row) in reader.get_row_iter(None).map_err(refused)?.enumerate() {
            let at = || format!("{name}, row {}", number + 1);
            let Some(entry) = entry(&row.map_err(refused)?) else {
                problems.add(ProblemKind::MalformedLine, at);
                continue;
            };
            if !seen.insert((*split, entry.id.clone())) {
                problems.add(ProblemKind::DuplicateId, || format!("{}: {}", at(), entry.id));
                continue;
            }
            utterances.extend(utterance(entry, *split, labels, path, &at, &mut problems));
        }
    }
    let datasets: BTreeSet<&str> = utterances.iter().map(|u| u.dataset.as_str()).collect();
    let datasets = datasets.into_iter().map(str::to_owned).collect();
    Ok(Release { root: root.to_owned(), labels, datasets, utterances, problems })
}

/// One row as an utterance, unless something is wrong with it.
fn utterance(
    entry: Entry,
    split: Split,
    labels: LabelSet,
    path: &Path,
    at: &dyn Fn() -> String,
    problems: &mut Problems,
) -> Option<Utterance> {
    let Entry { id, language, text, audio } = entry;
    let here = || format!("{}: {id}", at());
    // Dialects of this source are stored under one language, and carry theirs in the id.
    let code = match language_of_id(&id) {
        Some(code) if split == Split::DevDialect && id.starts_with("ms_speech_") => code,
        _ => &language,
    };
    let language = match label(code, split, labels) {
        Label::Language(language) => language,
        Label::LeftOut => {
            problems.add(ProblemKind::LeftOutByLabels, here);
            return None;
        }
        Label::Unknown => {
            problems.add(ProblemKind::UnknownLanguage, || format!("{}: {code}", here()));
            return None;
        }
    };
    let tagged = text.trim_start().strip_prefix('[').and_then(|rest| rest.split_once(']'));
    if tagged.is_none() {
        problems.add(ProblemKind::MalformedLine, || format!("{}: no tag", here()));
    }
    let text = tagged.map_or(text.as_str(), |(_, rest)| rest).trim().to_owned();
    if text.is_empty() {
        problems.add(ProblemKind::NoText, here);
    }
    if audio.is_empty() {
        problems.add(ProblemKind::MissingAudio, here);
        return None;
    }
    let seconds = match seconds_of_bytes(audio, &id) {
        Ok(seconds) if seconds > 0.0 => seconds,
        Ok(_) => {
            problems.add(ProblemKind::EmptyAudio, here);
            return None;
        }
        Err(error) => {
            problems.add(ProblemKind::UnreadableAudio, || format!("{}: {error}", at()));
            return None;
        }
    };
    // `googlei18n-asr_sun_000001`: what comes before language and number.
    let dataset = id.rsplitn(3, '_').nth(2).unwrap_or(&id).to_owned();
    let (seconds, audio) = (Some(seconds), path.to_owned());
    Some(Utterance { id, dataset, language, split, text, audio, seconds })
}

/// Writes the recordings of `wanted` utterances (places in the release), all of which are rows of
/// Parquet files, into `folder`, each as it was published; the file of each.
pub(super) fn unpack(
    release: &Release,
    wanted: &[usize],
    folder: &Path,
) -> Result<HashMap<usize, PathBuf>, MlSuperbError> {
    let mut found = HashMap::new();
    if wanted.is_empty() {
        return Ok(found);
    }
    let write = |path: &Path| {
        let path = path.to_owned();
        move |source| MlSuperbError::Write { path, source }
    };
    std::fs::create_dir_all(folder).map_err(write(folder))?;
    // A place in the release makes a name that no id can spoil.
    let mut places: BTreeMap<&Path, HashMap<&str, usize>> = BTreeMap::new();
    for &i in wanted {
        let utterance = &release.utterances[i];
        places.entry(&utterance.audio).or_default().insert(&utterance.id, i);
    }
    for (path, places) in places {
        let refused = |source: ParquetError| MlSuperbError::Parquet {
            path: path.to_owned(),
            source: source.into(),
        };
        let file = std::fs::File::open(path)
            .map_err(|source| MlSuperbError::Read { path: path.to_owned(), source })?;
        let reader = SerializedFileReader::new(file).map_err(refused)?;
        for row in reader.get_row_iter(None).map_err(refused)? {
            let Some(entry) = entry(&row.map_err(refused)?) else { continue };
            // The first row of an id is the one that was read.
            let place = places.get(entry.id.as_str()).filter(|i| !found.contains_key(*i));
            let Some(&i) = place else { continue };
            let to = folder.join(format!("{i:07}"));
            let is_there =
                std::fs::metadata(&to).is_ok_and(|m| m.len() == entry.audio.len() as u64);
            if !is_there {
                crate::files::write_whole(&to, &entry.audio).map_err(write(&to))?;
            }
            found.insert(i, to);
        }
    }
    Ok(found)
}

fn entry(row: &Row) -> Option<Entry> {
    let (mut id, mut language, mut text, mut audio) = (None, None, None, None);
    for (name, field) in row.get_column_iter() {
        match (name.as_str(), field) {
            ("id", Field::Str(value)) => id = Some(value.clone()),
            ("language", Field::Str(value)) => language = Some(value.clone()),
            ("text", Field::Str(value)) => text = Some(value.clone()),
            ("audio", Field::Group(group)) => {
                let bytes = group.get_column_iter().find(|(name, _)| name.as_str() == "bytes");
                audio = bytes.map(|(_, field)| match field {
                    Field::Bytes(bytes) => bytes.data().to_vec(),
                    _ => Vec::new(),
                });
            }
            _ => {}
        }
    }
    Some(Entry { id: id?, language: language?, text: text?, audio: audio? })
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;
    use parquet::data_type::{ByteArray, ByteArrayType};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;
    use std::sync::Arc;

    const SCHEMA: &str = "message schema {
        required binary id (UTF8); required binary language (UTF8);
        required group audio { required binary bytes; required binary path (UTF8); }
        required binary text (UTF8);
    }";

    /// A WAV file of so many samples at 16 kHz.
    fn wav(n_samples: u32) -> Vec<u8> {
        let mut bytes = b"RIFF".to_vec();
        bytes.extend((36 + 2 * n_samples).to_le_bytes());
        bytes.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
        bytes.extend(16_000_u32.to_le_bytes());
        bytes.extend(32_000_u32.to_le_bytes());
        bytes.extend(b"\x02\0\x10\0data");
        bytes.extend((2 * n_samples).to_le_bytes());
        bytes.extend((0..n_samples).flat_map(|i| (i as i16).to_le_bytes()));
        bytes
    }

    fn write(path: &Path, rows: &[(&str, &str, Vec<u8>, &str)]) {
        let schema = Arc::new(parse_message_type(SCHEMA).expect("a schema"));
        let properties =
            WriterProperties::builder().set_compression(parquet::basic::Compression::SNAPPY);
        let file = std::fs::File::create(path).expect("created");
        let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties.build()))
            .expect("a writer");
        let mut group = writer.next_row_group().expect("a row group");
        type Pick = fn(&(&str, &str, Vec<u8>, &str)) -> Vec<u8>;
        let columns: [Pick; 5] = [
            |row| row.0.as_bytes().to_vec(),
            |row| row.1.as_bytes().to_vec(),
            |row| row.2.clone(),
            |row| row.0.as_bytes().to_vec(),
            |row| row.3.as_bytes().to_vec(),
        ];
        for column in columns {
            let values: Vec<ByteArray> = rows.iter().map(|row| column(row).into()).collect();
            let mut writer = group.next_column().expect("no error").expect("a column");
            writer.typed::<ByteArrayType>().write_batch(&values, None, None).expect("written");
            writer.close().expect("closed");
        }
        group.close().expect("closed");
        writer.close().expect("closed");
    }

    #[test]
    fn rows_become_utterances_and_faults_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        std::fs::create_dir(&data).expect("made");
        write(
            &data.join("train-00000-of-00001.parquet"),
            &[
                ("cv_eng_000001", "eng", wav(16_000), "[eng] one"),
                ("cv_eng_000001", "eng", wav(16_000), "[eng] one"),
                ("fleurs_ory_000002", "ory", wav(8_000), "[ory] two"),
                ("NST_nob_000003", "nob", wav(8_000), "[nob] three"),
                ("cv_qqx_000004", "qqx", wav(8_000), "[qqx] four"),
                ("cv_eng_000005", "eng", wav(0), "[eng] five"),
                ("cv_eng_000006", "eng", b"noise".to_vec(), "[eng] six"),
                ("cv_eng_000007", "eng", wav(8_000), "seven"),
            ],
        );
        write(
            &data.join("dev_dialect-00000-of-00001.parquet"),
            &[("ms_speech_tam_1_2", "hin", wav(8_000), "[hin] eight")],
        );
        let release = Release::read(folder.path(), LabelSet::Refined).expect("a corpus");
        let rows: Vec<(&str, &str, Split, &str)> = release
            .utterances
            .iter()
            .map(|u| (u.id.as_str(), u.language.code(), u.split, u.text.as_str()))
            .collect();
        assert_eq!(
            rows,
            [
                ("ms_speech_tam_1_2", "tam", Split::DevDialect, "eight"),
                ("cv_eng_000001", "eng", Split::Train1H, "one"),
                ("fleurs_ory_000002", "ori", Split::Train1H, "two"),
                ("cv_eng_000007", "eng", Split::Train1H, "seven"),
            ]
        );
        assert_eq!(release.utterances[1].dataset, "cv");
        let out = folder.path().join("out");
        let unpacked = unpack(&release, &[0, 2], &out).expect("unpacked");
        assert_eq!(unpacked.len(), 2);
        for i in [0, 2] {
            assert_eq!(std::fs::read(&unpacked[&i]).expect("a recording"), wav(8_000));
        }
        // What is there already stays; nothing else is unpacked.
        assert_eq!(unpack(&release, &[0, 2], &out).expect("unpacked"), unpacked);
        assert_eq!(std::fs::read_dir(&out).expect("listed").count(), 2);
        let check = check(&release, |_, _| {});
        let hours: f64 = check.splits.iter().find(|s| s.name == "train, 1 h").expect("it").hours;
        assert!((hours - 2.0 / 3_600.0).abs() < 1e-9, "{hours}");
        let kinds: Vec<ProblemKind> = check.problems.iter().map(|problem| problem.kind).collect();
        assert_eq!(
            kinds,
            [
                ProblemKind::UnknownLanguage,
                ProblemKind::MalformedLine,
                ProblemKind::DuplicateId,
                ProblemKind::UnreadableAudio,
                ProblemKind::EmptyAudio,
                ProblemKind::LeftOutByLabels,
            ]
        );
        std::fs::write(data.join("train-bad.parquet"), b"PAR1 no such thing PAR1")
            .expect("written");
        let error = Release::read(folder.path(), LabelSet::Refined).expect_err("damaged");
        assert!(error.to_string().contains("train-bad.parquet"), "{error}");
    }
}
