//! Files of `torch.save` before 1.6: five pickles and then the storages.
//!
//! The pickles are a magic number, the protocol version, facts of the system, the object and
//! the keys of its storages; each storage is its number of elements (64 bits, little-endian)
//! and its bytes, in the order of the keys (`_legacy_save` of `torch/serialization.py`).

use super::error::{CheckpointError, Impostor};
use super::pickle::{PickleError, StorageSpec, unpickle};
use super::source::Source;
use super::stored::Region;
use super::value::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// `0x1950a86a20f9469cfc6c`, ten bytes, after its opcode and length.
pub(super) const MAGIC: &[u8] = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
const PROTOCOL: i64 = 1001;
/// Bytes looked at first for the pickles, and at most.
const FIRST_LOOK: u64 = 1 << 20;
const LAST_LOOK: u64 = 64 << 20;

/// A damaged file of torch before 1.6.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LegacyError {
    /// Another version of the layout, or numbers in the other byte order.
    #[error("it was written on a system of another layout or byte order")]
    Layout,
    /// Keys of storages that are not a list of names.
    #[error("its list of storages is damaged")]
    Keys,
    /// A storage that tensors use and the file lacks.
    #[error("storage `{key}` is missing")]
    Missing {
        /// Its key.
        key: String,
    },
    /// A storage of another size than the tensors say.
    #[error("storage `{key}` has {found} elements, its tensors say {expected}")]
    Elements {
        /// Its key.
        key: String,
        /// Number in front of the storage.
        found: u64,
        /// Number in the pickle.
        expected: usize,
    },
    /// The file ends inside a storage.
    #[error("it ends inside storage `{key}`; the file was cut off")]
    Truncated {
        /// Its key.
        key: String,
    },
}

/// Whether a file that starts with `bytes` has the layout, or is a pickle at all.
pub(super) fn starts_as_pickle(bytes: &[u8]) -> bool {
    matches!(bytes, [0x80, protocol, ..] if *protocol <= 5)
}

/// Reads the pickles; tensors stay in the file.
pub(super) fn read(source: &Arc<Source>, name: &str) -> Result<Value, CheckpointError> {
    let mut look = FIRST_LOOK;
    loop {
        let bytes = source
            .bytes_at(0, look.min(source.len()))
            .map_err(|source| CheckpointError::Read { name: name.to_owned(), source })?;
        match read_pickles(&bytes, source, name) {
            // The pickles have no length: they may go on past what was looked at.
            Err(CheckpointError::Pickle { source: PickleError::Truncated, .. })
                if look < source.len().min(LAST_LOOK) =>
            {
                look = (8 * look).min(LAST_LOOK);
            }
            result => return result,
        }
    }
}

fn read_pickles(bytes: &[u8], source: &Arc<Source>, name: &str) -> Result<Value, CheckpointError> {
    let pickle = |source| CheckpointError::Pickle { name: name.to_owned(), source };
    let legacy = |source| CheckpointError::Legacy { name: name.to_owned(), source };
    let mut rest = bytes;
    let first = unpickle(rest).map_err(pickle)?;
    if !rest[..first.bytes].ends_with(MAGIC) {
        let found = Impostor::BarePickle;
        return Err(CheckpointError::NotACheckpoint { name: name.to_owned(), found });
    }
    rest = &rest[first.bytes..];
    let mut plain = || {
        let unpickled = unpickle(rest)?;
        rest = &rest[unpickled.bytes..];
        unpickled.value(&[])
    };
    let protocol = plain().map_err(pickle)?;
    let system = plain().map_err(pickle)?;
    let little_endian = system.get("little_endian").and_then(Value::as_bool) == Some(true);
    if protocol.as_i64() != Some(PROTOCOL) || !little_endian {
        return Err(legacy(LegacyError::Layout));
    }
    let object = unpickle(rest).map_err(pickle)?;
    rest = &rest[object.bytes..];
    let keys = unpickle(rest).map_err(pickle)?;
    rest = &rest[keys.bytes..];
    let keys = keys.value(&[]).map_err(pickle)?;
    let start = (bytes.len() - rest.len()) as u64;
    let regions = storages(source, start, &keys, object.storages()).map_err(legacy)?;
    object.value(&regions).map_err(pickle)
}

/// Where each storage of `specs` is: they follow each other from `start` on.
fn storages(
    source: &Arc<Source>,
    start: u64,
    keys: &Value,
    specs: &[StorageSpec],
) -> Result<Vec<Region>, LegacyError> {
    let by_key: HashMap<&str, &StorageSpec> =
        specs.iter().map(|spec| (spec.key.as_str(), spec)).collect();
    let mut regions: HashMap<&str, Region> = HashMap::new();
    let mut position = start;
    for key in keys.as_list().ok_or(LegacyError::Keys)? {
        let spec = key.as_str().and_then(|key| by_key.get(key)).ok_or(LegacyError::Keys)?;
        let truncated = || LegacyError::Truncated { key: spec.key.escape_debug().to_string() };
        let mut word = [0; 8];
        source.read_at(position, &mut word).map_err(|_| truncated())?;
        let found = u64::from_le_bytes(word);
        if found != spec.elements as u64 {
            let key = spec.key.escape_debug().to_string();
            return Err(LegacyError::Elements { key, found, expected: spec.elements });
        }
        let start = position + 8;
        let bytes = found.checked_mul(spec.element.size() as u64).ok_or_else(truncated)?;
        let end = start.checked_add(bytes).filter(|end| *end <= source.len());
        position = end.ok_or_else(truncated)?;
        regions
            .insert(&spec.key, Region { source: Arc::clone(source), start, bytes, checksum: None });
    }
    specs
        .iter()
        .map(|spec| {
            let missing = || LegacyError::Missing { key: spec.key.escape_debug().to_string() };
            regions.get(spec.key.as_str()).cloned().ok_or_else(missing)
        })
        .collect()
}
