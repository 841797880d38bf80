//! A tensor in a file: where its numbers are, read when asked for.

use super::source::Source;
use half::{bf16, f16};
use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};

/// Bytes converted at a time: stays in the cache between reading and converting.
const CHUNK_BYTES: usize = 256 << 10;
/// Elements that a view may make of fewer stored ones by repeating them.
const MAX_REPEATED: usize = 1 << 20;

/// Type of the numbers of a stored tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ElementType {
    /// 64-bit float
    F64,
    /// 32-bit float
    F32,
    /// 16-bit float
    F16,
    /// The upper half of a 32-bit float
    Bf16,
    /// Signed 64-bit integer
    I64,
    /// Signed 32-bit integer
    I32,
    /// Signed 16-bit integer
    I16,
    /// Signed 8-bit integer
    I8,
    /// Unsigned 8-bit integer
    U8,
    /// One byte, 0 or 1
    Bool,
}

impl ElementType {
    /// Bytes of one number.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// Whether it is a floating-point type.
    #[must_use]
    pub fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::Bf16)
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::F64 => "f64",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::I64 => "i64",
            Self::I32 => "i32",
            Self::I16 => "i16",
            Self::I8 => "i8",
            Self::U8 => "u8",
            Self::Bool => "bool",
        })
    }
}

/// A view that does not fit what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// Sizes and strides of different number, or negative ones.
    #[error("its sizes and strides describe no tensor")]
    Layout,
    /// Sizes whose product or strides whose reach is beyond 64 bits.
    #[error("its number of elements overflows")]
    Overflow,
    /// Elements past the end of the storage.
    #[error("it reaches element {reach}, its storage holds {stored}")]
    OutOfBounds {
        /// One past the last element used.
        reach: usize,
        /// Elements of the storage.
        stored: usize,
    },
    /// Few stored elements repeated very many times.
    #[error("it repeats {stored} stored elements {elements} times")]
    Repeated {
        /// Elements of the view.
        elements: usize,
        /// Elements of the storage.
        stored: usize,
    },
    /// Bytes that the file lacks.
    #[error("its storage needs {needed} bytes, the file holds {stored}")]
    ShortStorage {
        /// Bytes of the storage by its own account.
        needed: u64,
        /// Bytes there.
        stored: u64,
    },
}

/// A run of bytes in a file.
#[derive(Debug, Clone)]
pub(super) struct Region {
    pub(super) source: Arc<Source>,
    pub(super) start: u64,
    pub(super) bytes: u64,
    /// What their CRC-32 must be, if the file says.
    pub(super) checksum: Option<Arc<Checksum>>,
}

/// A CRC-32, and whether it was found right.
#[derive(Debug)]
pub(super) struct Checksum {
    pub(super) crc32: u32,
    pub(super) is_right: OnceLock<bool>,
}

/// Bytes that are not those that were written.
#[derive(Debug, thiserror::Error)]
#[error("its bytes do not have the checksum that was written with them; the file is damaged")]
struct WrongChecksum;

impl Checksum {
    pub(super) fn new(crc32: u32) -> Self {
        Self { crc32, is_right: OnceLock::new() }
    }

    /// Checks what `find` makes of the bytes, unless that was done before.
    fn check(&self, find: impl FnOnce() -> io::Result<u32>) -> io::Result<()> {
        let is_right = match self.is_right.get() {
            Some(is_right) => *is_right,
            None => {
                let found = find()?;
                *self.is_right.get_or_init(|| found == self.crc32)
            }
        };
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, WrongChecksum);
        is_right.then_some(()).ok_or_else(wrong)
    }
}

impl Region {
    /// All of its bytes, once they are known to be right.
    pub(super) fn read(&self) -> io::Result<Vec<u8>> {
        let bytes = self.source.bytes_at(self.start, self.bytes)?;
        if let Some(checksum) = &self.checksum {
            checksum.check(|| Ok(crc32fast::hash(&bytes)))?;
        }
        Ok(bytes)
    }

    fn crc32(&self) -> io::Result<u32> {
        let mut hasher = crc32fast::Hasher::new();
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut read = 0;
        while read < self.bytes {
            let n = (self.bytes - read).min(CHUNK_BYTES as u64) as usize;
            self.source.read_at(self.start + read, &mut chunk[..n])?;
            hasher.update(&chunk[..n]);
            read += n as u64;
        }
        Ok(hasher.finalize())
    }
}

/// Where in its storage a tensor is, in elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

/// A tensor in a file: type and shape are known, numbers are read when asked for.
///
/// Every element was checked to lie inside the file. Cloning shares the file.
#[derive(Debug, Clone)]
pub struct StoredTensor(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    region: Region,
    element: ElementType,
    view: View,
}

impl PartialEq for StoredTensor {
    /// Whether both are the same place of the same open file.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0.region.source, &other.0.region.source)
            && self.0.region.start == other.0.region.start
            && self.0.element == other.0.element
            && self.0.view == other.0.view
    }
}

impl StoredTensor {
    /// A view of `region`, which holds `stored` elements.
    pub(super) fn new(
        region: &Region,
        element: ElementType,
        stored: usize,
        view: View,
    ) -> Result<Self, ViewError> {
        let needed = (stored as u64).checked_mul(element.size() as u64);
        let needed = needed.ok_or(ViewError::Overflow)?;
        if needed > region.bytes {
            return Err(ViewError::ShortStorage { needed, stored: region.bytes });
        }
        if view.shape.len() != view.strides.len() {
            return Err(ViewError::Layout);
        }
        let elements = count(&view.shape)?;
        let reach = reach(&view)?;
        if reach > stored {
            return Err(ViewError::OutOfBounds { reach, stored });
        }
        if elements > stored.max(MAX_REPEATED) {
            return Err(ViewError::Repeated { elements, stored });
        }
        Ok(Self(Arc::new(Inner { region: region.clone(), element, view })))
    }

    /// Type of its numbers.
    #[must_use]
    pub fn element_type(&self) -> ElementType {
        self.0.element
    }

    /// Its shape.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.0.view.shape
    }

    /// Number of elements.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.0.view.shape.iter().product()
    }

    /// Floating-point values in the order of the shape, rounded to f32, and whether all are
    /// finite; `None` for integers.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn values(&self) -> io::Result<Option<(Vec<f32>, bool)>> {
        let convert: fn(&[u8], &mut Vec<f32>) = match self.0.element {
            ElementType::F64 => |bytes, values| {
                values.extend(words(bytes).map(|word| f64::from_le_bytes(word) as f32));
            },
            ElementType::F32 => |bytes, values| {
                values.extend(words(bytes).map(f32::from_le_bytes));
            },
            ElementType::F16 => |bytes, values| {
                values.extend(words(bytes).map(|word| f16::from_le_bytes(word).to_f32()));
            },
            ElementType::Bf16 => |bytes, values| {
                values.extend(words(bytes).map(|word| bf16::from_le_bytes(word).to_f32()));
            },
            _ => return Ok(None),
        };
        let values = self.read(convert)?;
        let is_finite = values.iter().all(|value| value.is_finite());
        Ok(Some((values, is_finite)))
    }

    /// Integer or boolean values in the order of the shape; `None` for floats.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn integers(&self) -> io::Result<Option<Vec<i64>>> {
        let convert: fn(&[u8], &mut Vec<i64>) = match self.0.element {
            ElementType::I64 => |bytes, values| {
                values.extend(words(bytes).map(i64::from_le_bytes));
            },
            ElementType::I32 => |bytes, values| {
                values.extend(words(bytes).map(|word| i64::from(i32::from_le_bytes(word))));
            },
            ElementType::I16 => |bytes, values| {
                values.extend(words(bytes).map(|word| i64::from(i16::from_le_bytes(word))));
            },
            ElementType::I8 => |bytes, values| {
                values.extend(words(bytes).map(|word| i64::from(i8::from_le_bytes(word))));
            },
            ElementType::U8 => |bytes, values| {
                values.extend(bytes.iter().map(|byte| i64::from(*byte)));
            },
            ElementType::Bool => |bytes, values| {
                values.extend(bytes.iter().map(|byte| i64::from(*byte != 0)));
            },
            _ => return Ok(None),
        };
        Ok(Some(self.read(convert)?))
    }

    /// Reads the stored elements that the view spans and puts them in the view's order.
    fn read<T: Copy>(&self, convert: fn(&[u8], &mut Vec<T>)) -> io::Result<Vec<T>> {
        let Inner { region, element, view } = self.0.as_ref();
        let elements = self.elements();
        if elements == 0 {
            return Ok(Vec::new());
        }
        let size = element.size();
        let span = reach(view).expect("checked when the view was made") - view.offset;
        let is_whole = (span * size) as u64 == region.bytes;
        // Of a part, the whole is checked before: once, whatever the number of parts.
        if let (Some(checksum), false) = (&region.checksum, is_whole) {
            checksum.check(|| region.crc32())?;
        }
        let mut position = region.start + (view.offset * size) as u64;
        let mut stored = Vec::with_capacity(span);
        let mut chunk = vec![0; CHUNK_BYTES.min(span * size)];
        let mut hasher = region.checksum.as_ref().map(|_| crc32fast::Hasher::new());
        while stored.len() < span {
            let bytes = chunk.len().min((span - stored.len()) * size);
            region.source.read_at(position, &mut chunk[..bytes])?;
            if let Some(hasher) = &mut hasher {
                hasher.update(&chunk[..bytes]);
            }
            convert(&chunk[..bytes], &mut stored);
            position += bytes as u64;
        }
        if let (Some(checksum), Some(hasher), true) = (&region.checksum, hasher, is_whole) {
            checksum.check(|| Ok(hasher.finalize()))?;
        }
        if view.is_contiguous() {
            return Ok(stored);
        }
        let mut values = Vec::with_capacity(elements);
        let mut index = vec![0; view.shape.len()];
        let mut place = 0;
        for _ in 0..elements {
            values.push(stored[place]);
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                place += view.strides[axis];
                if index[axis] < view.shape[axis] {
                    break;
                }
                place -= view.strides[axis] * view.shape[axis];
                index[axis] = 0;
            }
        }
        Ok(values)
    }
}

impl View {
    /// All of a storage of this shape.
    pub(super) fn whole(shape: &[usize]) -> Self {
        let mut strides = vec![1_usize; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis].saturating_mul(shape[axis]);
        }
        Self { offset: 0, shape: shape.to_vec(), strides }
    }

    fn is_contiguous(&self) -> bool {
        let mut stride = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(&size, &given)| {
            let fits = size == 1 || given == stride;
            stride *= size;
            fits
        })
    }
}

/// Elements of a shape, checked; sizes beside a zero must not overflow either.
pub(super) fn count(shape: &[usize]) -> Result<usize, ViewError> {
    let mut sizes = shape.iter().map(|size| (*size).max(1));
    let product = sizes.try_fold(1_usize, usize::checked_mul).ok_or(ViewError::Overflow)?;
    Ok(if shape.contains(&0) { 0 } else { product })
}

/// One past the last element of the storage that a view uses, 0 for an empty one.
fn reach(view: &View) -> Result<usize, ViewError> {
    if view.shape.contains(&0) {
        return Ok(0);
    }
    view.shape
        .iter()
        .zip(&view.strides)
        .try_fold(view.offset, |reach, (&size, &stride)| {
            reach.checked_add((size - 1).checked_mul(stride)?)
        })
        .and_then(|last| last.checked_add(1))
        .ok_or(ViewError::Overflow)
}

/// The words of `N` bytes in a multiple of them.
fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.chunks_exact(N).map(|word| word.try_into().expect("a chunk has its size"))
}
