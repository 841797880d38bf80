//! Clips and their samples: in memory, in one file on disk, or decoded each time.

use super::{Clip, DataError, Disturbance, Random};
use crate::audio::{AudioError, DecodeOptions, decode_path};
use crate::files;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Share of a list that may be unreadable before that is an error.
const MAX_UNREADABLE: f64 = 0.01;
/// Clips decoded side by side before they are put away.
const CHUNK: usize = 64;

/// Where the samples of a corpus are between uses. What is heard does not depend on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AudioStore {
    /// In memory: a day of speech takes 3 GB.
    #[default]
    Memory,
    /// In one file of 16-bit samples in the run's folder: a day of speech takes 3 GB of disk.
    Cache,
    /// Nowhere: clips are decoded whenever they are needed, which takes no room and more time.
    Files,
}

/// Clips with their samples, as 16 bits; their rounding lies far below the noise of any
/// recording.
#[derive(Debug)]
pub struct Corpus {
    clips: Vec<Clip>,
    samples: Samples,
}

#[derive(Debug)]
enum Samples {
    Memory(Vec<Vec<i16>>),
    /// The file with where each clip begins in it, and its length, both in samples.
    Cache {
        file: Mutex<File>,
        path: PathBuf,
        spans: Vec<(u64, usize)>,
    },
    /// The length of each clip in samples.
    Files(Vec<usize>),
}

/// Samples as they are kept.
fn stored(samples: &[f32]) -> Vec<i16> {
    samples.iter().map(|s| (s * 32_767.0).clamp(-32_768.0, 32_767.0) as i16).collect()
}

fn decoded(path: &Path) -> Result<Vec<i16>, AudioError> {
    decode_path(path, &DecodeOptions::default()).map(|audio| stored(&audio.samples))
}

/// What was left out while loading.
#[derive(Debug, Default)]
pub struct CorpusReport {
    /// Clips that could not be decoded, with the reason.
    pub unreadable: Vec<(PathBuf, AudioError)>,
}

impl Corpus {
    /// Decodes `clips` into memory on all cores, leaving out up to one in a hundred that cannot
    /// be read.
    ///
    /// # Errors
    /// [`DataError::TooManyUnreadable`] beyond that.
    pub fn load(clips: Vec<Clip>) -> Result<(Self, CorpusReport), DataError> {
        Self::load_most(clips, MAX_UNREADABLE, AudioStore::Memory, Path::new(""))
    }

    /// As [`Corpus::load`], leaving out up to a share `max_unreadable` that cannot be read, with
    /// samples kept in `store`; a cache is a file `audio.s16` in `folder`, written anew.
    ///
    /// # Errors
    /// [`DataError::TooManyUnreadable`], or [`DataError::AudioCache`] if it cannot be written.
    pub fn load_most(
        clips: Vec<Clip>,
        max_unreadable: f64,
        store: AudioStore,
        folder: &Path,
    ) -> Result<(Self, CorpusReport), DataError> {
        let total = clips.len();
        let mut keeper = Keeper::new(store, folder)?;
        let mut kept = Vec::with_capacity(total);
        let mut report = CorpusReport::default();
        let mut rest = clips.into_iter();
        loop {
            let chunk: Vec<Clip> = rest.by_ref().take(CHUNK).collect();
            if chunk.is_empty() {
                break;
            }
            let all: Vec<_> = chunk.par_iter().map(|clip| decoded(&clip.path)).collect();
            for (clip, samples) in chunk.into_iter().zip(all) {
                match samples {
                    Ok(samples) => {
                        keeper.keep(samples)?;
                        kept.push(clip);
                    }
                    Err(error) => report.unreadable.push((clip.path, error)),
                }
            }
        }
        if report.unreadable.len() as f64 > max_unreadable * total as f64 {
            let failed = report.unreadable.len();
            let (first, source) = report.unreadable.swap_remove(0);
            return Err(DataError::TooManyUnreadable { failed, total, first, source });
        }
        Ok((Self { clips: kept, samples: keeper.finish()? }, report))
    }

    /// The same clips in memory, each disturbed by chance of `seed` and its number.
    ///
    /// # Errors
    /// If a clip cannot be read any more or a codec fails.
    pub fn disturbed(self, disturbance: Disturbance, seed: u64) -> Result<Self, DataError> {
        let samples = (0..self.clips.len())
            .into_par_iter()
            .map(|clip| {
                let mut random = Random::new(&[seed, clip as u64]);
                let heard = disturbance.apply(&self.waveform(clip)?, &mut random)?;
                Ok(stored(&heard))
            })
            .collect::<Result<_, DataError>>()?;
        Ok(Self { samples: Samples::Memory(samples), ..self })
    }

    /// The clips, in the order given.
    #[must_use]
    pub fn clips(&self) -> &[Clip] {
        &self.clips
    }

    /// Samples of a clip in [-1, 1], 16 kHz.
    ///
    /// # Errors
    /// As [`Corpus::samples`].
    pub fn waveform(&self, clip: usize) -> Result<Vec<f32>, DataError> {
        Ok(self.samples(clip)?.iter().map(|&s| f32::from(s) / 32_768.0).collect())
    }

    /// Samples of a clip as they are kept, 16 kHz.
    ///
    /// # Errors
    /// [`DataError::Changed`] if the clip is no longer what it was when the corpus was loaded,
    /// [`DataError::AudioCache`] if the cache cannot be read; none for samples in memory.
    pub fn samples(&self, clip: usize) -> Result<Cow<'_, [i16]>, DataError> {
        match &self.samples {
            Samples::Memory(all) => Ok(Cow::Borrowed(&all[clip])),
            Samples::Cache { file, path, spans } => {
                let (start, n) = spans[clip];
                read_span(file, start, n)
                    .map(Cow::Owned)
                    .map_err(|source| DataError::AudioCache { path: path.clone(), source })
            }
            Samples::Files(lengths) => {
                let path = &self.clips[clip].path;
                let changed = |source| DataError::Changed { clip: path.clone(), source };
                let samples = decoded(path).map_err(|error| changed(Some(error)))?;
                if samples.len() != lengths[clip] {
                    return Err(changed(None));
                }
                Ok(Cow::Owned(samples))
            }
        }
    }

    /// Length of a clip in seconds.
    #[must_use]
    pub fn duration_s(&self, clip: usize) -> f64 {
        let n = match &self.samples {
            Samples::Memory(all) => all[clip].len(),
            Samples::Cache { spans, .. } => spans[clip].1,
            Samples::Files(lengths) => lengths[clip],
        };
        n as f64 / 16_000.0
    }
}

fn read_span(file: &Mutex<File>, start: u64, n: usize) -> std::io::Result<Vec<i16>> {
    let mut bytes = vec![0; 2 * n];
    // A panic elsewhere leaves the file usable: every reader seeks first.
    let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
    file.seek(SeekFrom::Start(2 * start))?;
    file.read_exact(&mut bytes)?;
    drop(file);
    Ok(bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect())
}

/// Puts samples away, clip after clip.
enum Keeper {
    Memory(Vec<Vec<i16>>),
    Cache { file: BufWriter<File>, path: PathBuf, spans: Vec<(u64, usize)>, end: u64 },
    Files(Vec<usize>),
}

impl Keeper {
    fn new(store: AudioStore, folder: &Path) -> Result<Self, DataError> {
        Ok(match store {
            AudioStore::Memory => Self::Memory(Vec::new()),
            AudioStore::Files => Self::Files(Vec::new()),
            AudioStore::Cache => {
                let path = folder.join("audio.s16");
                let file = std::fs::create_dir_all(folder)
                    .and_then(|()| File::create(files::partial(&path)));
                let file = file.map_err(cannot(&path))?;
                Self::Cache { file: BufWriter::new(file), path, spans: Vec::new(), end: 0 }
            }
        })
    }

    fn keep(&mut self, samples: Vec<i16>) -> Result<(), DataError> {
        match self {
            Self::Memory(all) => all.push(samples),
            Self::Files(lengths) => lengths.push(samples.len()),
            Self::Cache { file, path, spans, end } => {
                let bytes: Vec<u8> = samples.iter().flat_map(|s| s.to_le_bytes()).collect();
                file.write_all(&bytes).map_err(cannot(path))?;
                spans.push((*end, samples.len()));
                *end += samples.len() as u64;
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Samples, DataError> {
        Ok(match self {
            Self::Memory(all) => Samples::Memory(all),
            Self::Files(lengths) => Samples::Files(lengths),
            Self::Cache { file, path, spans, .. } => {
                let cannot = cannot(&path);
                file.into_inner().map_err(|error| cannot(error.into_error()))?;
                files::put_in_place(&path).map_err(&cannot)?;
                let file = Mutex::new(File::open(&path).map_err(&cannot)?);
                Samples::Cache { file, path, spans }
            }
        })
    }
}

fn cannot(path: &Path) -> impl Fn(std::io::Error) -> DataError + use<> {
    let path = path.to_owned();
    move |source| DataError::AudioCache { path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::WavFormat;
    use crate::data::Transcript;

    fn clip(path: PathBuf) -> Clip {
        let name = path.display().to_string();
        Clip {
            path,
            name,
            language: None,
            speaker: None,
            dataset: None,
            duration_s: 0.1,
            transcript: Transcript::Unknown,
            weight: 1.0,
        }
    }

    #[test]
    fn every_store_gives_the_same_samples() {
        let folder = tempfile::tempdir().expect("a folder");
        // More than are decoded side by side, with one that cannot be read among them.
        let clips: Vec<Clip> = (0..CHUNK + 3)
            .map(|i| {
                let path = folder.path().join(format!("{i}.wav"));
                let samples: Vec<f32> = (0..900 + 7 * i).map(|n| (n as f32 * 0.1).sin()).collect();
                crate::audio::write_wav(&path, &samples, 16_000, WavFormat::S16).expect("written");
                clip(path)
            })
            .collect();
        std::fs::write(&clips[5].path, "no sound").expect("written");
        let load = |store| {
            let (corpus, report) =
                Corpus::load_most(clips.clone(), 0.1, store, folder.path()).expect("loaded");
            assert_eq!(report.unreadable.len(), 1);
            corpus
        };
        let memory = load(AudioStore::Memory);
        assert_eq!(memory.clips().len(), CHUNK + 2);
        for store in [AudioStore::Cache, AudioStore::Files] {
            let other = load(store);
            assert_eq!(other.clips(), memory.clips());
            for clip in (0..memory.clips().len()).rev() {
                assert!((other.duration_s(clip) - memory.duration_s(clip)).abs() < 1e-12);
                let (found, want) = (other.samples(clip), memory.samples(clip));
                assert_eq!(found.expect("samples"), want.expect("samples"), "{store:?} {clip}");
            }
        }
        assert!(folder.path().join("audio.s16").is_file());
        // A clip that changes under a run is not taken for what it was.
        let files = load(AudioStore::Files);
        crate::audio::write_wav(&clips[0].path, &[0.5; 40], 16_000, WavFormat::S16)
            .expect("written");
        assert!(matches!(files.samples(0), Err(DataError::Changed { source: None, .. })));
        let error = Corpus::load(clips).expect_err("one in 67 is more than one in a hundred");
        assert!(matches!(error, DataError::TooManyUnreadable { failed: 1, .. }));
    }
}
