//! Reading and writing index files of faiss (1.7 to 1.15), as far as labels need them.
//!
//! Of an inverted file only the coarse quantiser gives labels; it stands before everything
//! large, so that an index of many gigabytes is read as fast as a small one. Nothing is
//! allocated beyond what is left of the file.
//!
//! | tag | holds |
//! |---|---|
//! | `IxF2`, `IxFl` | vectors, searched one after the other |
//! | `IHNf` | the same behind a graph ([`Graph`]) |
//! | `IxPT` | linear maps (`LTra`, `rrot`), then an index |
//! | `IwPf`, `IwPQ`, `IwFl`, `IwSq` | inverted lists: numbers, then the coarse quantiser |

use super::PretrainError;
use super::graph::Graph;
use std::io::{self, Read};
use std::path::Path;

/// Most bytes of one vector in a file.
const MAX_BYTES: u64 = 1 << 29;
/// Most linear maps before an index.
const MAX_MAPS: i32 = 8;
/// Most indices inside one another.
const MAX_DEPTH: usize = 4;
/// Largest number of values per vector.
const MAX_DIM: i32 = 1 << 16;
/// What faiss calls squared Euclidean distance.
const METRIC_L2: i32 = 1;

/// `y = matrix x + bias`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LinearMap {
    /// `(d_out, d_in)`, row-major.
    pub(super) matrix: Vec<f32>,
    /// `(d_out,)`, or empty.
    pub(super) bias: Vec<f32>,
    pub(super) d_in: usize,
    pub(super) d_out: usize,
}

/// What of an index gives labels.
#[derive(Debug)]
pub(super) struct IndexFile {
    /// Applied to a frame one after the other.
    pub(super) maps: Vec<LinearMap>,
    /// `(units, dim)`, row-major.
    pub(super) centroids: Vec<f32>,
    pub(super) dim: usize,
    pub(super) graph: Option<Graph>,
}

/// Why a file is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexFault {
    /// It cannot be read, or ends early.
    #[error("it cannot be read to the end")]
    Read(#[source] io::Error),
    /// An index of another kind.
    #[error("it has an index of kind `{tag}`, which gives no labels")]
    Kind {
        /// Its four letters.
        tag: String,
    },
    /// A distance other than Euclidean.
    #[error("its vectors are not compared by Euclidean distance")]
    Metric,
    /// Numbers that contradict each other.
    #[error("{what} is not consistent")]
    Inconsistent {
        /// Which of its parts.
        what: &'static str,
    },
}

impl From<io::Error> for IndexFault {
    fn from(source: io::Error) -> Self {
        Self::Read(source)
    }
}

fn inconsistent<T>(what: &'static str) -> Result<T, IndexFault> {
    Err(IndexFault::Inconsistent { what })
}

/// Reads an index file.
pub(super) fn read(path: &Path) -> Result<IndexFile, PretrainError> {
    let reading = |source| PretrainError::Read { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(reading)?;
    let size = file.metadata().map_err(reading)?.len();
    parse(io::BufReader::new(file), size)
        .map_err(|source| PretrainError::Index { path: path.to_owned(), source })
}

/// Reads an index of `size` bytes.
pub(super) fn parse(input: impl Read, size: u64) -> Result<IndexFile, IndexFault> {
    let mut reader = Reader { input, left: size };
    let mut maps = Vec::new();
    let (centroids, dim, graph) = index(&mut reader, &mut maps, MAX_DEPTH)?;
    if centroids.is_empty() {
        return inconsistent("the number of centroids");
    }
    let widths = maps.iter().map(|map: &LinearMap| map.d_in).skip(1).chain([dim]);
    if maps.iter().zip(widths).any(|(map, next)| map.d_out != next) {
        return inconsistent("the width of a linear map");
    }
    Ok(IndexFile { maps, centroids, dim, graph })
}

struct Reader<R> {
    input: R,
    left: u64,
}

impl<R: Read> Reader<R> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], IndexFault> {
        let mut bytes = [0; N];
        self.left = self
            .left
            .checked_sub(N as u64)
            .ok_or(io::ErrorKind::UnexpectedEof)
            .map_err(|kind| IndexFault::Read(io::Error::from(kind)))?;
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn int(&mut self) -> Result<i32, IndexFault> {
        self.bytes().map(i32::from_le_bytes)
    }

    fn long(&mut self) -> Result<u64, IndexFault> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn flag(&mut self) -> Result<bool, IndexFault> {
        self.bytes::<1>().map(|[byte]| byte != 0)
    }

    fn tag(&mut self) -> Result<[u8; 4], IndexFault> {
        self.bytes()
    }

    /// A count, then as many values of `N` bytes.
    fn vector<const N: usize, T>(
        &mut self,
        value: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>, IndexFault> {
        let count = self.long()?;
        let bytes = count.checked_mul(N as u64).filter(|&b| b <= MAX_BYTES.min(self.left));
        let Some(bytes) = bytes else {
            return inconsistent("the length of a list");
        };
        let mut raw = vec![0; bytes as usize];
        self.input.read_exact(&mut raw)?;
        self.left -= bytes;
        let (chunks, _) = raw.as_chunks::<N>();
        Ok(chunks.iter().map(|chunk| value(*chunk)).collect())
    }

    fn floats(&mut self) -> Result<Vec<f32>, IndexFault> {
        let floats = self.vector(f32::from_le_bytes)?;
        if floats.iter().all(|value| value.is_finite()) {
            Ok(floats)
        } else {
            inconsistent("a number")
        }
    }
}

/// Width and number of the vectors of an index.
fn header<R: Read>(reader: &mut Reader<R>) -> Result<(usize, u64), IndexFault> {
    let dim = reader.int()?;
    let count = reader.long()?;
    reader.bytes::<16>()?;
    reader.flag()?;
    let metric = reader.int()?;
    if metric != METRIC_L2 {
        return Err(IndexFault::Metric);
    }
    if !(1..=MAX_DIM).contains(&dim) {
        return inconsistent("the width of the vectors");
    }
    Ok((dim as usize, count))
}

type Found = (Vec<f32>, usize, Option<Graph>);

fn index<R: Read>(
    reader: &mut Reader<R>,
    maps: &mut Vec<LinearMap>,
    depth: usize,
) -> Result<Found, IndexFault> {
    let tag = reader.tag()?;
    let unknown = || {
        let tag = tag.iter().map(|&byte| char::from(byte)).flat_map(char::escape_default);
        IndexFault::Kind { tag: tag.collect() }
    };
    let Some(depth) = depth.checked_sub(1) else { return Err(unknown()) };
    match &tag {
        b"IxF2" | b"IxFl" => {
            let (dim, count) = header(reader)?;
            let values = reader.floats()?;
            if count.checked_mul(dim as u64) != Some(values.len() as u64) {
                return inconsistent("the number of vectors");
            }
            Ok((values, dim, None))
        }
        b"IHNf" => {
            let (dim, count) = header(reader)?;
            let graph = graph(reader)?;
            let (values, inner, None) = index(reader, maps, depth)? else {
                return Err(unknown());
            };
            if inner != dim || count.checked_mul(dim as u64) != Some(values.len() as u64) {
                return inconsistent("the number of vectors");
            }
            if graph.len() as u64 != count {
                return inconsistent("the number of nodes");
            }
            Ok((values, dim, Some(graph)))
        }
        b"IxPT" => {
            header(reader)?;
            let n_maps = reader.int()?;
            if !(0..=MAX_MAPS).contains(&n_maps) {
                return inconsistent("the number of linear maps");
            }
            for _ in 0..n_maps {
                maps.push(linear_map(reader)?);
            }
            index(reader, maps, depth)
        }
        b"IwPf" | b"IwPQ" | b"IwFl" | b"IwSq" => {
            let (dim, _) = header(reader)?;
            let (lists, _probes) = (reader.long()?, reader.long()?);
            let (values, inner, graph) = index(reader, maps, depth)?;
            if inner != dim || lists.checked_mul(dim as u64) != Some(values.len() as u64) {
                return inconsistent("the number of lists");
            }
            Ok((values, dim, graph))
        }
        _ => Err(unknown()),
    }
}

fn linear_map<R: Read>(reader: &mut Reader<R>) -> Result<LinearMap, IndexFault> {
    let tag = reader.tag()?;
    if !matches!(&tag, b"LTra" | b"rrot") {
        let tag = tag.iter().map(|&byte| char::from(byte)).flat_map(char::escape_default);
        return Err(IndexFault::Kind { tag: tag.collect() });
    }
    let has_bias = reader.flag()?;
    let matrix = reader.floats()?;
    let mut bias = reader.floats()?;
    let (d_in, d_out) = (reader.int()?, reader.int()?);
    reader.flag()?;
    if !(1..=MAX_DIM).contains(&d_in) || !(1..=MAX_DIM).contains(&d_out) {
        return inconsistent("the width of a linear map");
    }
    let (d_in, d_out) = (d_in as usize, d_out as usize);
    if !has_bias {
        bias.clear();
    }
    if matrix.len() != d_in * d_out || (has_bias && bias.len() != d_out) {
        return inconsistent("a linear map");
    }
    Ok(LinearMap { matrix, bias, d_in, d_out })
}

fn graph<R: Read>(reader: &mut Reader<R>) -> Result<Graph, IndexFault> {
    // Probabilities of the levels, which only growing needs.
    reader.vector(f64::from_le_bytes)?;
    let level_ends = reader.vector(i32::from_le_bytes)?;
    let levels = reader.vector(i32::from_le_bytes)?;
    let offsets = reader.vector(u64::from_le_bytes)?;
    let neighbours = reader.vector(i32::from_le_bytes)?;
    let (entry, max_level) = (reader.int()?, reader.int()?);
    let (_construction, search) = (reader.int()?, reader.int()?);
    reader.int()?;
    Graph::new(&level_ends, &levels, &offsets, neighbours, (entry, max_level), search)
        .ok_or(IndexFault::Inconsistent { what: "the graph" })
}

/// The bytes of an index of vectors `(units, dim)` searched one after the other.
pub(super) fn flat(centroids: &[f32], dim: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 * centroids.len() + 64);
    bytes.extend(b"IxF2");
    bytes.extend((dim as i32).to_le_bytes());
    bytes.extend(((centroids.len() / dim) as u64).to_le_bytes());
    // Two numbers that are there for old readers, then: trained, by Euclidean distance.
    bytes.extend([(1_u64 << 20).to_le_bytes(); 2].concat());
    bytes.push(1);
    bytes.extend(METRIC_L2.to_le_bytes());
    bytes.extend((centroids.len() as u64).to_le_bytes());
    bytes.extend(centroids.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(bytes: &[u8]) -> Result<IndexFile, IndexFault> {
        parse(bytes, bytes.len() as u64)
    }

    #[test]
    fn what_is_written_is_read() {
        let centroids = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let bytes = flat(&centroids, 3);
        let index = parsed(&bytes).expect("sound");
        assert_eq!((index.centroids.as_slice(), index.dim), (&centroids[..], 3));
        assert!(index.maps.is_empty() && index.graph.is_none());
        for end in 0..bytes.len() {
            assert!(parsed(&bytes[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn numbers_that_lie_are_refused_before_anything_is_allocated() {
        let sound = flat(&[1.0, 2.0, 3.0, 4.0], 2);
        let changed = |at: usize, bytes: &[u8]| {
            let mut file = sound.clone();
            file[at..at + bytes.len()].copy_from_slice(bytes);
            parsed(&file).expect_err("refused").to_string()
        };
        assert_eq!(changed(0, b"IxHe"), "it has an index of kind `IxHe`, which gives no labels");
        assert_eq!(changed(4, &0_i32.to_le_bytes()), "the width of the vectors is not consistent");
        assert_eq!(changed(8, &9_u64.to_le_bytes()), "the number of vectors is not consistent");
        let metric = 4 + 4 + 8 + 16 + 1;
        assert!(changed(metric, &0_i32.to_le_bytes()).contains("Euclidean"));
        let length = changed(metric + 4, &u64::MAX.to_le_bytes());
        assert_eq!(length, "the length of a list is not consistent");
        let number = changed(metric + 12, &f32::NAN.to_le_bytes());
        assert_eq!(number, "a number is not consistent");
        let mut nested = b"IxPT".to_vec();
        nested.extend(&sound[4..metric + 4]);
        nested.extend(0_i32.to_le_bytes());
        let mut deep = nested.repeat(9);
        deep.extend(&sound);
        assert!(matches!(parsed(&deep), Err(IndexFault::Kind { .. })));
        let mut once = nested;
        once.extend(&sound);
        assert_eq!(parsed(&once).expect("sound").centroids.len(), 4);
    }
}
