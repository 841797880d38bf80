//! Files of `torch.save` since 1.6: a zip archive with a pickle and one entry per storage.

use super::error::CheckpointError;
use super::pickle::unpickle;
use super::source::Source;
use super::stored::Region;
use super::value::Value;
use super::zip::{Archive, ZipError};
use std::sync::Arc;

/// Largest pickle that is read; it holds settings and names, not numbers.
const MAX_PICKLE_BYTES: u64 = 64 << 20;

/// Reads the pickle; tensors stay in the file.
pub(super) fn read(source: Arc<Source>, name: &str) -> Result<Value, CheckpointError> {
    let zip = |source| CheckpointError::Zip { name: name.to_owned(), source };
    let pickle = |source| CheckpointError::Pickle { name: name.to_owned(), source };
    let archive = Archive::open(source).map_err(zip)?;
    let folder = folder(&archive).map_err(zip)?;
    little_endian(&archive, &folder).map_err(zip)?;
    let region = archive.region(&format!("{folder}data.pkl")).map_err(zip)?;
    if region.bytes > MAX_PICKLE_BYTES {
        let (bytes, limit) = (region.bytes, MAX_PICKLE_BYTES);
        return Err(zip(ZipError::PickleSize { bytes, limit }));
    }
    let bytes = region.read().map_err(|source| zip(source.into()))?;
    let unpickled = unpickle(&bytes).map_err(pickle)?;
    let regions = unpickled
        .storages()
        .iter()
        .map(|storage| archive.region(&format!("{folder}data/{}", storage.key)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(zip)?;
    unpickled.value(&regions).map_err(pickle)
}

/// The folder of the archive, with its slash: the one that holds `data.pkl`.
fn folder(archive: &Archive) -> Result<String, ZipError> {
    let mut found = archive.names().filter_map(|name| {
        let folder = name.strip_suffix("data.pkl")?;
        (folder.find('/')? + 1 == folder.len()).then_some(folder)
    });
    let missing = || ZipError::Missing { entry: "data.pkl".to_owned() };
    let folder = found.next().ok_or_else(missing)?;
    match found.next() {
        Some(_) => Err(ZipError::Duplicate { entry: "data.pkl".to_owned() }),
        None => Ok(folder.to_owned()),
    }
}

/// Files before torch 2.0 do not state their byte order; the others do.
fn little_endian(archive: &Archive, folder: &str) -> Result<(), ZipError> {
    let region = match archive.region(&format!("{folder}byteorder")) {
        Ok(region) => region,
        Err(ZipError::Missing { .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    let shown = Region { bytes: region.bytes.min(16), checksum: None, ..region.clone() };
    let order = if shown.bytes < region.bytes { &shown } else { &region }.read()?;
    if order == b"little" {
        return Ok(());
    }
    Err(ZipError::ByteOrder { order: order.escape_ascii().to_string() })
}
