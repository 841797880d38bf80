//! A safetensors file written tensor by tensor, whatever their number and size.

use super::failure::{AnyError, CliError};
use crate::files;
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

/// Alignment of the numbers in the file.
const ALIGNMENT: usize = 8;

/// Collects numbers in a temporary file; the header, which comes first, is known last.
pub(super) struct TensorFile {
    path: PathBuf,
    data_path: PathBuf,
    data: BufWriter<File>,
    header: Map<String, Value>,
    written: u64,
}

impl TensorFile {
    pub(super) fn create(path: &Path) -> Result<Self, CliError> {
        let write = |source| CliError::Write { path: path.to_owned(), source };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(write)?;
        }
        let partial = files::partial(path);
        // Beside the file; beside what is no file, such as `/dev/null`, there may be no room.
        let data_path = if partial == path {
            std::env::temp_dir().join(format!("asr-{}.numbers", std::process::id()))
        } else {
            files::partial(&partial)
        };
        let options = File::options().read(true).write(true).create(true).truncate(true).to_owned();
        let data = BufWriter::new(options.open(&data_path).map_err(write)?);
        Ok(Self { path: path.to_owned(), data_path, data, header: Map::new(), written: 0 })
    }

    /// Adds an f32 tensor.
    pub(super) fn add(
        &mut self,
        name: &str,
        shape: &[usize],
        values: &[f32],
    ) -> Result<(), CliError> {
        let start = self.written;
        for value in values {
            let write = |source| CliError::Write { path: self.path.clone(), source };
            self.data.write_all(&value.to_le_bytes()).map_err(write)?;
            self.written += 4;
        }
        let entry =
            json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, self.written] });
        self.header.insert(name.to_owned(), entry);
        Ok(())
    }

    /// Puts header and numbers together under the file's name.
    pub(super) fn finish(self) -> Result<(), AnyError> {
        let Self { path, data_path, data, header, .. } = self;
        let write = |source| CliError::Write { path: path.clone(), source };
        let mut header = serde_json::to_vec(&header)?;
        header.resize(header.len().next_multiple_of(ALIGNMENT), b' ');
        let mut data = data.into_inner().map_err(|e| write(e.into_error()))?;
        let whole = (|| -> io::Result<()> {
            data.rewind()?;
            let mut file = BufWriter::new(File::create(files::partial(&path))?);
            file.write_all(&(header.len() as u64).to_le_bytes())?;
            file.write_all(&header)?;
            io::copy(&mut data, &mut file)?;
            drop(file.into_inner().map_err(io::IntoInnerError::into_error)?);
            files::put_in_place(&path)
        })();
        // What is left of a failure is only the numbers' own copy.
        let _ = std::fs::remove_file(&data_path);
        Ok(whole.map_err(write)?)
    }
}
