//! Hostile, truncated and inconsistent checkpoints, and views of every kind.

use asr::model::checkpoint::{CheckpointFile, ElementType, NamedTensor, StoredTensor, open};
use std::path::{Path, PathBuf};

fn case() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/broken-checkpoints")
}

/// Outcome and path of each file of the case.
fn outcomes() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(case().join("OUTCOMES.txt")).expect("the case is there");
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (outcome, path) = (words.next()?, words.next()?);
        let is_file = ["pickle/", "safetensors/", "folders/"].iter().any(|p| path.starts_with(p));
        is_file.then(|| (outcome.to_owned(), path.to_owned()))
    });
    let lines: Vec<_> = lines.collect();
    assert_eq!(lines.len(), 62, "lines of OUTCOMES.txt");
    lines
}

#[test]
fn files_load_or_fail_as_they_must() {
    for (outcome, path) in outcomes() {
        if path.starts_with("folders/") {
            continue;
        }
        let opened = open(&case().join(&path));
        match (outcome.as_str(), opened) {
            ("load", Ok(file)) => assert!(!file.tensors().is_empty(), "{path}"),
            ("error", Err(error)) => {
                let name = Path::new(&path).file_name().expect("a file name");
                let name = name.to_string_lossy();
                assert!(error.to_string().contains(name.as_ref()), "{path}: {error}");
            }
            ("load-or-error", _) => {}
            (_, opened) => panic!("{path}: expected {outcome}, got {opened:?}"),
        }
    }
}

/// A header of 128 to 1535 bytes has a length that begins as a pickle does.
#[test]
fn safetensors_of_any_header_length_are_read() {
    for n in 40..2000_usize {
        let header = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
        let header = format!("{header:<n$}");
        let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[7]].concat();
        let file = CheckpointFile::from_bytes(bytes, "no ending");
        let file = file.unwrap_or_else(|error| panic!("header of {n} bytes: {error}"));
        assert_eq!(integers(file.tensors()[0].stored()), Some(vec![7]));
    }
}

fn integers(tensor: &StoredTensor) -> Option<Vec<i64>> {
    tensor.integers().expect("the file can be read")
}

fn floats(tensor: &StoredTensor) -> Option<(Vec<f32>, bool)> {
    tensor.values().expect("the file can be read")
}

#[test]
fn views_are_exact() {
    let views = open(&case().join("pickle/shared_storage_ok.pt")).expect("a sound file");
    let want = open(&case().join("views.safetensors")).expect("a sound file");
    assert_eq!(views.tensors().len(), want.tensors().len());
    for expected in want.tensors() {
        let got = views.find(expected.name()).expect("as many tensors, of the same names");
        let name = expected.name();
        assert_eq!(got.element_type(), expected.element_type(), "{name}");
        assert_eq!(got.shape(), expected.shape(), "{name}");
        assert_eq!(integers(got.stored()), integers(expected.stored()), "{name}");
        assert_eq!(floats(got.stored()), floats(expected.stored()), "{name}");
    }
    let kinds: Vec<ElementType> = want.tensors().iter().map(NamedTensor::element_type).collect();
    for kind in [ElementType::I64, ElementType::F16, ElementType::Bf16, ElementType::Bool] {
        assert!(kinds.contains(&kind), "{kind}");
    }
}

/// Cut off anywhere and with any byte changed, a file is an error or a checkpoint.
#[test]
fn damage_anywhere_is_told() {
    for path in ["pickle/shared_storage_ok.pt", "pickle/legacy_ok.pt", "safetensors/ok.safetensors"]
    {
        let whole = std::fs::read(case().join(path)).expect("the case is there");
        for n in 0..whole.len() {
            let cut = CheckpointFile::from_bytes(whole[..n].to_vec(), path);
            assert!(cut.is_err(), "{path} cut off after {n} bytes");
        }
        for at in 0..whole.len() {
            for flip in [1, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] ^= flip;
                if let Ok(file) = CheckpointFile::from_bytes(bytes, path) {
                    for tensor in file.tensors() {
                        let _ = tensor.stored().values();
                        let _ = tensor.stored().integers();
                    }
                }
            }
        }
    }
}

/// Names and numbers of a file; nothing if it, or one of its tensors, cannot be read.
fn contents(bytes: Vec<u8>) -> Option<Vec<(String, String)>> {
    let file = CheckpointFile::from_bytes(bytes, "zip").ok()?;
    let read = |tensor: &NamedTensor| {
        let (floats, integers) = (tensor.stored().values().ok()?, tensor.stored().integers().ok()?);
        let bits =
            floats.map(|(values, _)| values.into_iter().map(f32::to_bits).collect::<Vec<_>>());
        Some((tensor.name().to_owned(), format!("{bits:?} {integers:?} {:?}", tensor.shape())))
    };
    file.tensors().iter().map(read).collect()
}

/// A zip archive has a checksum of each entry: no changed byte goes unnoticed.
#[test]
fn a_changed_byte_of_a_zip_is_an_error_or_changes_nothing() {
    let whole = std::fs::read(case().join("pickle/shared_storage_ok.pt")).expect("the case");
    let sound = contents(whole.clone()).expect("a sound file");
    let mut refused = 0;
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        match contents(bytes) {
            None => refused += 1,
            Some(found) => assert!(found == sound, "byte {at} changes what is read"),
        }
    }
    assert!(refused > whole.len() / 4, "{refused} of {}", whole.len());
}
