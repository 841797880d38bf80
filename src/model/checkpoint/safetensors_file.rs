//! The header of a safetensors file, held to every rule of the format.
//!
//! Eight bytes of length, JSON of names to types, shapes and byte ranges, then the numbers.
//! Rules: <https://github.com/huggingface/safetensors#format>. Ranges must follow each other
//! without holes from the first byte to the last, names must differ.

use super::source::Source;
use super::stored::{ElementType, Region, StoredTensor, View, ViewError, count};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

/// Largest header of the format.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// A damaged safetensors file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SafetensorsError {
    /// No room for the length of the header.
    #[error("it has {bytes} bytes, fewer than the length of its header takes")]
    TooShort {
        /// Bytes of the file.
        bytes: u64,
    },
    /// A header longer than the format allows.
    #[error("its header claims {bytes} bytes, the format allows {MAX_HEADER_BYTES}")]
    HeaderTooLarge {
        /// What it claims.
        bytes: u64,
    },
    /// A header longer than the file.
    #[error("its header claims {bytes} bytes, the file has {available} left")]
    HeaderPastEnd {
        /// What it claims.
        bytes: u64,
        /// What is there.
        available: u64,
    },
    /// A header that is not UTF-8.
    #[error("its header is not UTF-8")]
    NotUtf8,
    /// A header that is not the JSON of the format.
    #[error("its header is not as the format wants it")]
    Json {
        /// Why.
        source: serde_json::Error,
    },
    /// A type that the format, or this reader, does not have.
    #[error("tensor `{tensor}` has unknown type `{dtype}`")]
    UnknownType {
        /// The tensor.
        tensor: String,
        /// The type.
        dtype: String,
    },
    /// A byte range whose end is before its start.
    #[error("tensor `{tensor}` ends before it begins")]
    Reversed {
        /// The tensor.
        tensor: String,
    },
    /// A byte range past the end of the file.
    #[error("tensor `{tensor}` ends at byte {end} of the data, the file holds {available}")]
    PastEnd {
        /// The tensor.
        tensor: String,
        /// Where it ends.
        end: u64,
        /// Bytes of data.
        available: u64,
    },
    /// A byte range of another size than type and shape make.
    #[error("tensor `{tensor}` takes {found} bytes, its type and shape make {expected}")]
    Size {
        /// The tensor.
        tensor: String,
        /// Bytes of its range.
        found: u64,
        /// Bytes of its type and shape.
        expected: u64,
    },
    /// Too many elements to count.
    #[error("tensor `{tensor}` has a shape that cannot be")]
    Shape {
        /// The tensor.
        tensor: String,
        /// Why.
        source: ViewError,
    },
    /// Two tensors with bytes in common.
    #[error("tensor `{tensor}` overlaps the one before it")]
    Overlap {
        /// The second of them.
        tensor: String,
    },
    /// Bytes that belong to no tensor.
    #[error("{bytes} bytes before tensor `{tensor}` belong to none")]
    Hole {
        /// The tensor after them.
        tensor: String,
        /// How many.
        bytes: u64,
    },
    /// Bytes after the last tensor.
    #[error("{bytes} bytes after the last tensor belong to none")]
    TrailingBytes {
        /// How many.
        bytes: u64,
    },
    /// The file system refused.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Names and tensors of a file, and what it says of itself.
pub(super) struct Contents {
    pub(super) tensors: Vec<(String, StoredTensor)>,
    pub(super) metadata: Vec<(String, String)>,
}

/// Whether a file of `total` bytes that begins with `start` has a header: JSON behind a length
/// that fits.
pub(super) fn has_header(start: &[u8], total: u64) -> bool {
    let Some((word, [b'{', ..])) = start.split_first_chunk() else { return false };
    u64::from_le_bytes(*word) <= total.saturating_sub(8)
}

/// Reads and checks the header; tensors stay in the file.
pub(super) fn read(source: &Arc<Source>) -> Result<Contents, SafetensorsError> {
    let total = source.len();
    let available = total.checked_sub(8).ok_or(SafetensorsError::TooShort { bytes: total })?;
    let mut word = [0; 8];
    source.read_at(0, &mut word)?;
    let bytes = u64::from_le_bytes(word);
    if bytes > MAX_HEADER_BYTES {
        return Err(SafetensorsError::HeaderTooLarge { bytes });
    }
    if bytes > available {
        return Err(SafetensorsError::HeaderPastEnd { bytes, available });
    }
    let header = source.bytes_at(8, bytes)?;
    let header = std::str::from_utf8(&header).map_err(|_| SafetensorsError::NotUtf8)?;
    let Header { tensors: mut entries, metadata } =
        serde_json::from_str(header).map_err(|source| SafetensorsError::Json { source })?;
    entries.sort_by_key(|(_, info)| info.data_offsets);
    let data = Region {
        source: Arc::clone(source),
        start: 8 + bytes,
        bytes: available - bytes,
        checksum: None,
    };
    let mut position = 0;
    let mut tensors = Vec::with_capacity(entries.len());
    for (tensor, info) in entries {
        let stored = stored(&data, position, &tensor, &info)?;
        position = info.data_offsets.1;
        tensors.push((tensor, stored));
    }
    if position < data.bytes {
        return Err(SafetensorsError::TrailingBytes { bytes: data.bytes - position });
    }
    Ok(Contents { tensors, metadata })
}

/// One tensor, which must begin where the one before ended.
fn stored(
    data: &Region,
    position: u64,
    name: &str,
    info: &Info,
) -> Result<StoredTensor, SafetensorsError> {
    let tensor = || name.escape_debug().to_string();
    let element = element_type(&info.dtype).ok_or_else(|| SafetensorsError::UnknownType {
        tensor: tensor(),
        dtype: info.dtype.escape_debug().to_string(),
    })?;
    let (begin, end) = info.data_offsets;
    let found = end.checked_sub(begin);
    let found = found.ok_or_else(|| SafetensorsError::Reversed { tensor: tensor() })?;
    if end > data.bytes {
        let available = data.bytes;
        return Err(SafetensorsError::PastEnd { tensor: tensor(), end, available });
    }
    let shape = |source| SafetensorsError::Shape { tensor: tensor(), source };
    let elements = count(&info.shape).map_err(shape)?;
    let expected = (elements as u64).checked_mul(element.size() as u64);
    let expected = expected.ok_or_else(|| shape(ViewError::Overflow))?;
    if found != expected {
        return Err(SafetensorsError::Size { tensor: tensor(), found, expected });
    }
    if begin < position {
        return Err(SafetensorsError::Overlap { tensor: tensor() });
    }
    if begin > position {
        return Err(SafetensorsError::Hole { tensor: tensor(), bytes: begin - position });
    }
    let region = Region { start: data.start + begin, bytes: found, ..data.clone() };
    StoredTensor::new(&region, element, elements, View::whole(&info.shape)).map_err(shape)
}

fn element_type(dtype: &str) -> Option<ElementType> {
    Some(match dtype {
        "F64" => ElementType::F64,
        "F32" => ElementType::F32,
        "F16" => ElementType::F16,
        "BF16" => ElementType::Bf16,
        "I64" => ElementType::I64,
        "I32" => ElementType::I32,
        "I16" => ElementType::I16,
        "I8" => ElementType::I8,
        "U8" => ElementType::U8,
        "BOOL" => ElementType::Bool,
        _ => return None,
    })
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Info {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

/// The JSON object of the header, in which a name may appear once.
struct Header {
    tensors: Vec<(String, Info)>,
    metadata: Vec<(String, String)>,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        use serde::de::Error;
        let mut header = Header { tensors: Vec::new(), metadata: Vec::new() };
        let mut seen = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if !seen.insert(name.clone()) {
                return Err(A::Error::custom(format_args!("name {name:?} appears twice")));
            }
            if name == "__metadata__" {
                let metadata = map.next_value::<serde_json::Map<String, serde_json::Value>>()?;
                for (key, value) in metadata {
                    let serde_json::Value::String(value) = value else {
                        return Err(A::Error::custom("metadata are texts"));
                    };
                    header.metadata.push((key, value));
                }
            } else {
                header.tensors.push((name, map.next_value()?));
            }
        }
        Ok(header)
    }
}
