//! Weights in several files, found through their index.

use super::source::Source;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// Largest index file that is read.
const MAX_INDEX_BYTES: u64 = 16 << 20;

/// Shards that make no whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShardError {
    /// An index that is not the JSON of one.
    #[error("the index is not as it should be")]
    Json {
        /// Why.
        source: serde_json::Error,
    },
    /// An index larger than any is.
    #[error("the index has {bytes} bytes, at most {MAX_INDEX_BYTES} are read")]
    TooLarge {
        /// Its size.
        bytes: u64,
    },
    /// A name that leads out of the folder.
    #[error("the index names `{shard}`, which is not a plain file name; it was not opened")]
    OutsideFolder {
        /// The name.
        shard: String,
    },
    /// A shard that is not there.
    #[error("shard `{shard}` is missing")]
    Missing {
        /// Its name.
        shard: String,
    },
    /// A tensor that its shard does not hold.
    #[error("shard `{shard}` lacks tensor `{tensor}`, which the index places there")]
    MissingTensor {
        /// Its name.
        shard: String,
        /// The tensor.
        tensor: String,
    },
    /// The file system refused.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

#[derive(serde::Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// A shard and the tensors that the index places in it.
pub(super) struct Shard {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) tensors: Vec<String>,
}

/// Reads an index; the shards it names lie beside it.
pub(super) fn read_index(path: &Path) -> Result<Vec<Shard>, ShardError> {
    let source = Source::open(path)?;
    if source.len() > MAX_INDEX_BYTES {
        return Err(ShardError::TooLarge { bytes: source.len() });
    }
    let json = source.bytes_at(0, source.len())?;
    let index: Index =
        serde_json::from_slice(&json).map_err(|source| ShardError::Json { source })?;
    let mut tensors: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (tensor, shard) in index.weight_map {
        tensors.entry(shard).or_default().push(tensor);
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    tensors
        .into_iter()
        .map(|(name, tensors)| {
            let mut parts = Path::new(&name).components();
            let is_plain = matches!(parts.next(), Some(Component::Normal(_)))
                && parts.next().is_none()
                && !name.contains(['\\', ':']);
            let shown = || name.escape_debug().to_string();
            if !is_plain {
                return Err(ShardError::OutsideFolder { shard: shown() });
            }
            let path = folder.join(&name);
            if !path.exists() {
                return Err(ShardError::Missing { shard: shown() });
            }
            Ok(Shard { name, path, tensors })
        })
        .collect()
}
