//! Hidden states of a frozen encoder on disk, so that it runs once per clip and not once per epoch.
//!
//! Layout: a header of 56 bytes (magic, numbers per frame, key), then a record per clip in the
//! corpus's order: frames as u32, then `frames * width` numbers as f16, all little-endian. A
//! file that was cut short goes on behind its last whole record.

use super::DataError;
use crate::features::Features;
use half::f16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

const MAGIC: &[u8; 16] = b"asr states 1\n\0\0\0";
const HEADER_BYTES: u64 = 56;

/// What a file of states must be of: encoder, clips, arithmetic.
pub type StatesKey = [u8; 32];

/// Hidden states of every clip of a corpus, read from disk clip by clip.
#[derive(Debug)]
pub struct StoredStates {
    path: PathBuf,
    file: Mutex<File>,
    width: usize,
    records: Vec<Record>,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    /// Of its numbers.
    offset: u64,
    frames: usize,
}

/// A failure of whatever computes states.
pub type ComputeError = Box<dyn std::error::Error + Send + Sync>;

impl StoredStates {
    /// Opens the states in `path`, computing those of clips that are not there yet.
    ///
    /// `compute` gives the states of a clip, `(frames, width)`, at least one frame; `progress`
    /// is told how many clips are there. Nothing but the clips at work is held in memory.
    ///
    /// # Errors
    /// [`DataError::States`] if the file cannot be used, [`DataError::OtherStates`] if it has
    /// another key, [`DataError::Compute`] if `compute` fails.
    pub fn fill(
        path: &Path,
        key: &StatesKey,
        (clips, width): (usize, usize),
        compute: impl Fn(usize) -> Result<Vec<f32>, ComputeError> + Sync,
        mut progress: impl FnMut(usize),
    ) -> Result<Self, DataError> {
        let unusable = |source| DataError::States { path: path.to_owned(), source };
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(unusable)?;
        let header = header(width, key);
        let size = file.metadata().map_err(unusable)?.len();
        if size < HEADER_BYTES {
            file.set_len(0).and_then(|()| file.write_all(&header)).map_err(unusable)?;
        } else {
            let mut found = [0; HEADER_BYTES as usize];
            file.read_exact(&mut found).map_err(unusable)?;
            if found != header {
                return Err(DataError::OtherStates { path: path.to_owned() });
            }
        }
        let (mut records, mut end) =
            scan(&mut file, size.max(HEADER_BYTES), width, clips).map_err(unusable)?;
        file.set_len(end).map_err(unusable)?;
        file.seek(SeekFrom::Start(end)).map_err(unusable)?;
        while records.len() < clips {
            progress(records.len());
            let next = records.len()..clips.min(records.len() + rayon::current_num_threads());
            let computed: Vec<Vec<f32>> = next
                .into_par_iter()
                .map(&compute)
                .collect::<Result<_, _>>()
                .map_err(DataError::Compute)?;
            for states in computed {
                let frames = states.len() / width.max(1);
                let mut bytes = (frames as u32).to_le_bytes().to_vec();
                bytes.reserve(2 * states.len());
                bytes.extend(states.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()));
                file.write_all(&bytes).map_err(unusable)?;
                records.push(Record { offset: end + 4, frames });
                end += bytes.len() as u64;
            }
            file.sync_data().map_err(unusable)?;
        }
        progress(clips);
        Ok(Self { path: path.to_owned(), file: Mutex::new(file), width, records })
    }

    /// Bytes of the file of clips with so many frames in all.
    #[must_use]
    pub fn bytes(clips: usize, frames: u64, width: usize) -> u64 {
        HEADER_BYTES + 4 * clips as u64 + 2 * frames * width as u64
    }

    /// The states of a clip, `(frames, width)`.
    ///
    /// # Errors
    /// [`DataError::States`] if the file can no longer be read.
    ///
    /// # Panics
    /// If there is no such clip.
    pub fn features(&self, clip: usize) -> Result<Features, DataError> {
        let Record { offset, frames } = self.records[clip];
        let mut bytes = vec![0; 2 * frames * self.width];
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(offset))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|source| DataError::States { path: self.path.clone(), source })?;
        drop(file);
        let halves: Vec<f16> =
            bytes.chunks_exact(2).map(|pair| f16::from_le_bytes([pair[0], pair[1]])).collect();
        let mut data = vec![0.0; halves.len()];
        halves.convert_to_f32_slice(&mut data);
        Ok(Features { data, n_frames: frames, n_bins: self.width })
    }

    /// Numbers per frame.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }
}

fn header(width: usize, key: &StatesKey) -> [u8; HEADER_BYTES as usize] {
    let mut header = [0; HEADER_BYTES as usize];
    header[..16].copy_from_slice(MAGIC);
    header[16..24].copy_from_slice(&(width as u64).to_le_bytes());
    header[24..].copy_from_slice(key);
    header
}

/// The whole records of a file of `size` bytes, at most `clips`, and where they end.
fn scan(
    file: &mut File,
    size: u64,
    width: usize,
    clips: usize,
) -> std::io::Result<(Vec<Record>, u64)> {
    let mut records = Vec::new();
    let mut end = HEADER_BYTES;
    while records.len() < clips && end + 4 <= size {
        let mut frames = [0; 4];
        file.seek(SeekFrom::Start(end))?;
        file.read_exact(&mut frames)?;
        let frames = u32::from_le_bytes(frames) as usize;
        let bytes = (frames as u64).saturating_mul(2 * width as u64);
        let next = (end + 4).saturating_add(bytes);
        if frames == 0 || next > size {
            break;
        }
        records.push(Record { offset: end + 4, frames });
        end = next;
    }
    Ok((records, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Clip `i` has `i % 3 + 1` frames of two numbers.
    fn states(clip: usize) -> Vec<f32> {
        (0..2 * (clip % 3 + 1)).map(|n| clip as f32 + n as f32 / 4.0).collect()
    }

    fn fill(path: &Path, key: u8, calls: &AtomicUsize) -> Result<StoredStates, DataError> {
        let compute = |clip| {
            calls.fetch_add(1, Ordering::Relaxed);
            Ok(states(clip))
        };
        StoredStates::fill(path, &[key; 32], (40, 2), compute, |_| {})
    }

    #[test]
    fn a_file_cut_anywhere_goes_on_and_ends_the_same() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("a.states");
        let calls = AtomicUsize::new(0);
        let stored = fill(&path, 1, &calls)?;
        assert_eq!(stored.width(), 2);
        for clip in [0, 17, 39] {
            let features = stored.features(clip)?;
            assert_eq!(features.n_frames, clip % 3 + 1);
            assert_eq!(features.data, states(clip));
        }
        let whole = std::fs::read(&path)?;
        let frames: u64 = (0..40).map(|clip| clip % 3 + 1).sum();
        assert_eq!(StoredStates::bytes(40, frames, 2), whole.len() as u64);
        for cut in [0, 10, 56, 58, 61, 333, whole.len() - 1] {
            std::fs::write(&path, &whole[..cut])?;
            calls.store(0, Ordering::Relaxed);
            fill(&path, 1, &calls)?;
            assert_eq!(std::fs::read(&path)?, whole, "cut at {cut}");
            assert!(calls.load(Ordering::Relaxed) > 0);
        }
        calls.store(0, Ordering::Relaxed);
        fill(&path, 1, &calls)?;
        assert_eq!(calls.load(Ordering::Relaxed), 0, "what is there is computed again");
        let other = fill(&path, 2, &calls).expect_err("another key");
        assert!(matches!(other, DataError::OtherStates { .. }));
        Ok(())
    }
}
