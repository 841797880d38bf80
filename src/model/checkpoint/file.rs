//! A checkpoint of any container.

use super::error::{CheckpointError, Impostor};
use super::shards::{ShardError, read_index};
use super::source::Source;
use super::stored::{ElementType, StoredTensor};
use super::value::Value;
use super::write::{SCALE, scale_name};
use super::{safetensors_file, torch_legacy, torch_zip};
use crate::model::parameters::Parameters;
use candle_core::{Device, Tensor};
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes by which containers are told from each other.
const LOOK_BYTES: u64 = 512;
/// Files of a folder that hold its weights, the first that is there counts.
const WEIGHT_FILES: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];
/// Names under which checkpoints keep their weights.
const STATE_DICTS: [&str; 3] = ["model", "model_weight", "state_dict"];

/// How tensors are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Container {
    /// A safetensors file
    Safetensors,
    /// Several files and their index
    Shards,
    /// `torch.save` since 1.6
    TorchZip,
    /// `torch.save` before 1.6
    TorchLegacy,
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Safetensors => "safetensors",
            Self::Shards => "sharded",
            Self::TorchZip => "torch zip",
            Self::TorchLegacy => "torch legacy",
        })
    }
}

/// A tensor of a checkpoint.
#[derive(Debug, Clone)]
pub struct NamedTensor {
    name: String,
    stored: StoredTensor,
}

impl NamedTensor {
    /// Its name in the checkpoint.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Type of its numbers.
    #[must_use]
    pub fn element_type(&self) -> ElementType {
        self.stored.element_type()
    }

    /// Its shape.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        self.stored.shape()
    }

    /// Where its numbers are.
    #[must_use]
    pub fn stored(&self) -> &StoredTensor {
        &self.stored
    }
}

/// An open checkpoint: what describes the tensors is in memory, the numbers are in the file.
#[derive(Debug)]
pub struct CheckpointFile {
    name: String,
    files: Vec<PathBuf>,
    container: Container,
    root: Value,
    metadata: Vec<(String, String)>,
    tensors: Vec<NamedTensor>,
    index: HashMap<String, usize>,
}

/// Opens a checkpoint: a file of any container, an index of shards, or a folder with one of
/// `model.safetensors`, `model.safetensors.index.json`, `pytorch_model.bin`.
///
/// # Errors
/// [`CheckpointError`] naming the file and what is wrong with it.
pub fn open(path: &Path) -> Result<CheckpointFile, CheckpointError> {
    if path.is_dir() {
        let mut candidates = WEIGHT_FILES.iter().map(|name| path.join(name));
        let missing = || CheckpointError::NoWeights { name: path.display().to_string() };
        return open(&candidates.find(|path| path.is_file()).ok_or_else(missing)?);
    }
    if path.as_os_str().to_string_lossy().ends_with(".index.json") {
        return open_shards(path);
    }
    let io = |source| CheckpointError::Io { path: path.to_owned(), source };
    let source = Source::open(path).map_err(io)?;
    let mut file = CheckpointFile::from_source(source, path.display().to_string())?;
    file.files = vec![path.to_owned()];
    Ok(file)
}

fn open_shards(path: &Path) -> Result<CheckpointFile, CheckpointError> {
    let name = path.display().to_string();
    let shards_error = |source| CheckpointError::Shards { name: name.clone(), source };
    let (mut files, mut tensors) = (vec![path.to_owned()], Vec::new());
    for shard in read_index(path).map_err(shards_error)? {
        let file = open(&shard.path)?;
        files.push(shard.path);
        for tensor in shard.tensors {
            let stored = file.find(&tensor).ok_or_else(|| {
                shards_error(ShardError::MissingTensor {
                    shard: shard.name.clone(),
                    tensor: tensor.clone(),
                })
            })?;
            tensors.push((tensor, stored.stored.clone()));
        }
    }
    let whole = CheckpointFile::new(name.clone(), Container::Shards, Value::None, tensors)?;
    Ok(CheckpointFile { files, ..whole })
}

impl CheckpointFile {
    /// A checkpoint in memory; `name` stands for it in errors.
    ///
    /// # Errors
    /// As [`open`].
    pub fn from_bytes(bytes: Vec<u8>, name: &str) -> Result<Self, CheckpointError> {
        Self::from_source(Source::Memory(bytes), name.to_owned())
    }

    /// A checkpoint inside the program; `name` stands for it in errors.
    ///
    /// # Errors
    /// As [`open`].
    pub fn from_static(bytes: &'static [u8], name: &str) -> Result<Self, CheckpointError> {
        Self::from_source(Source::Static(bytes), name.to_owned())
    }

    fn from_source(source: Source, name: String) -> Result<Self, CheckpointError> {
        let start = source
            .bytes_at(0, source.len().min(LOOK_BYTES))
            .map_err(|source| CheckpointError::Read { name: name.clone(), source })?;
        let source = Arc::new(source);
        if start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06") {
            let root = torch_zip::read(source, &name)?;
            return Self::from_root(name, Container::TorchZip, root);
        }
        // The length of a safetensors header may begin like a pickle: look for the header first.
        let is_safetensors = safetensors_file::has_header(&start, source.len());
        if !is_safetensors && torch_legacy::starts_as_pickle(&start) {
            let root = torch_legacy::read(&source, &name)?;
            return Self::from_root(name, Container::TorchLegacy, root);
        }
        if !is_safetensors {
            let found = impostor(&start);
            // What is called safetensors and is nothing else is told what it lacks.
            if found != Impostor::Unknown || !name.ends_with(".safetensors") {
                return Err(CheckpointError::NotACheckpoint { name, found });
            }
        }
        let contents = match safetensors_file::read(&source) {
            Ok(contents) => contents,
            Err(source) => return Err(CheckpointError::Safetensors { name, source }),
        };
        let container = Container::Safetensors;
        let mut file = Self::new(name, container, Value::None, contents.tensors)?;
        file.metadata = contents.metadata;
        Ok(file)
    }

    fn from_root(name: String, container: Container, root: Value) -> Result<Self, CheckpointError> {
        let kept = STATE_DICTS.iter().filter_map(|key| root.get(key)).find(|at| has_tensors(at));
        let state = kept.unwrap_or(&root);
        let tensors: Vec<(String, StoredTensor)> = state
            .entries()
            .unwrap_or_default()
            .iter()
            .filter_map(|entry| match entry {
                (Value::Text(name), Value::Tensor(tensor)) => Some((name.clone(), tensor.clone())),
                _ => None,
            })
            .collect();
        if tensors.is_empty() {
            return Err(CheckpointError::NoTensors { name });
        }
        Self::new(name, container, root, tensors)
    }

    fn new(
        name: String,
        container: Container,
        root: Value,
        tensors: Vec<(String, StoredTensor)>,
    ) -> Result<Self, CheckpointError> {
        let mut index = HashMap::with_capacity(tensors.len());
        for (i, (tensor, _)) in tensors.iter().enumerate() {
            if index.insert(tensor.clone(), i).is_some() {
                return Err(CheckpointError::Duplicate { name, tensor: tensor.clone() });
            }
        }
        let tensors =
            tensors.into_iter().map(|(name, stored)| NamedTensor { name, stored }).collect();
        let (files, metadata) = (Vec::new(), Vec::new());
        Ok(Self { name, files, container, root, metadata, tensors, index })
    }

    /// The file, or what stands for it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The files that it is read from: one, or an index and its shards; none for one in memory.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// How its tensors are kept.
    #[must_use]
    pub fn container(&self) -> Container {
        self.container
    }

    /// Everything in the pickle of a torch file; [`Value::None`] for others.
    #[must_use]
    pub fn root(&self) -> &Value {
        &self.root
    }

    /// What a safetensors file says of itself.
    #[must_use]
    pub fn metadata(&self) -> &[(String, String)] {
        &self.metadata
    }

    /// The tensors of the state dict: what is under `model`, `model_weight` or `state_dict`,
    /// else at the root.
    #[must_use]
    pub fn tensors(&self) -> &[NamedTensor] {
        &self.tensors
    }

    /// The tensor called `name`.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&NamedTensor> {
        self.index.get(name).map(|&i| &self.tensors[i])
    }

    /// Reads the tensor called `name` as f32, in the order of its shape.
    ///
    /// # Errors
    /// [`CheckpointError`] naming the tensor if it is not there, is not of floats or holds NaN
    /// or infinity.
    pub fn values(&self, name: &str) -> Result<Vec<f32>, CheckpointError> {
        let (file, tensor) = (|| self.name.clone(), || name.escape_debug().to_string());
        let missing = || CheckpointError::MissingTensor { name: file(), tensor: tensor() };
        let found = self.find(name).ok_or_else(missing)?;
        let read = found.stored.values();
        match read.map_err(|source| CheckpointError::Read { name: file(), source })? {
            Some((values, true)) => Ok(values),
            Some((_, false)) => Err(CheckpointError::NotFinite { name: file(), tensor: tensor() }),
            None => self.scaled(found)?.ok_or_else(|| CheckpointError::Type {
                name: file(),
                tensor: tensor(),
                found: found.element_type(),
            }),
        }
    }

    /// The values of 8-bit integers with a scale for each of their rows beside them, as
    /// [`StoredAs::Int8`](super::StoredAs::Int8) writes them; `None` for anything else.
    fn scaled(&self, tensor: &NamedTensor) -> Result<Option<Vec<f32>>, CheckpointError> {
        let [rows, columns] = *tensor.shape() else { return Ok(None) };
        let scale = self.find(&scale_name(&tensor.name));
        let Some(scale) = scale.filter(|scale| scale.shape() == [rows]) else { return Ok(None) };
        if tensor.element_type() != ElementType::I8 || !scale.element_type().is_float() {
            return Ok(None);
        }
        let read = |source| CheckpointError::Read { name: self.name.clone(), source };
        let Some(integers) = tensor.stored.integers().map_err(read)? else { return Ok(None) };
        let scales = self.values(&scale.name)?;
        let mut values = Vec::with_capacity(integers.len());
        for (row, scale) in integers.chunks_exact(columns.max(1)).zip(scales) {
            values.extend(row.iter().map(|&q| q as f32 * scale));
        }
        Ok(Some(values))
    }

    /// Whether a tensor holds the scales of another one's integers
    /// ([`StoredAs::Int8`](super::StoredAs::Int8)), and is no parameter of its own.
    #[must_use]
    pub fn is_scale(&self, tensor: &NamedTensor) -> bool {
        let scaled = tensor.name.strip_suffix(SCALE).and_then(|name| self.find(name));
        scaled.is_some_and(|scaled| scaled.element_type() == ElementType::I8)
    }

    /// Reads the tensor called `name` as f32.
    ///
    /// # Errors
    /// As [`CheckpointFile::values`].
    pub fn tensor(&self, name: &str) -> Result<Tensor, CheckpointError> {
        let values = self.values(name)?;
        let shape = self.find(name).map(NamedTensor::shape).unwrap_or_default();
        Tensor::from_vec(values, shape, &Device::Cpu)
            .map_err(|source| CheckpointError::Tensor { name: self.name.clone(), source })
    }

    /// Reads every tensor as a parameter; the numbers are held once.
    ///
    /// # Errors
    /// As [`CheckpointFile::values`].
    pub fn parameters(&self) -> Result<Parameters, CheckpointError> {
        let parameters = Parameters::default();
        for tensor in self.tensors.iter().filter(|tensor| !self.is_scale(tensor)) {
            let values = self.values(&tensor.name)?;
            parameters
                .insert(&tensor.name, values, tensor.shape())
                .map_err(|source| CheckpointError::Tensor { name: self.name.clone(), source })?;
        }
        Ok(parameters)
    }
}

/// Whether some entry is a tensor.
fn has_tensors(value: &Value) -> bool {
    let entries = value.entries().unwrap_or_default();
    entries.iter().any(|(_, value)| matches!(value, Value::Tensor(_)))
}

/// What a file is that starts with none of the marks of a checkpoint.
fn impostor(start: &[u8]) -> Impostor {
    let text = start.trim_ascii_start().to_ascii_lowercase();
    let is_markup =
        [b"<!doctype".as_slice(), b"<html", b"<?xml"].iter().any(|tag| text.starts_with(tag));
    if start.is_empty() {
        Impostor::Empty
    } else if start.starts_with(b"version https://git-lfs") {
        Impostor::LfsPointer
    } else if is_markup {
        Impostor::WebPage
    } else {
        Impostor::Unknown
    }
}
