//! The recordings of the utterances that runs use, decoded once.

use crate::bench::ml_superb::{MlSuperbError, Release, hugging_face};
use crate::data::{AudioStore, Clip, Corpus, DataError, Transcript};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Share of the recordings that may be unreadable.
const MAX_UNREADABLE: f64 = 0.01;

/// Recordings, each once, however many splits list it.
#[derive(Debug)]
pub struct Recordings {
    /// The recordings; decoded audio lies in a file.
    pub corpus: Corpus,
    /// Recordings left out, with the reason.
    pub unreadable: Vec<String>,
    /// The clip of each utterance of the release; none of those that are not used or not readable.
    clips: Vec<Option<usize>>,
}

impl Recordings {
    /// Decodes the recordings of `utterances` (places in the release). What lies inside other files
    /// is unpacked into `folder`, where decoded audio is kept as well.
    ///
    /// # Errors
    /// If more than one in a hundred cannot be read, or `folder` cannot be written.
    pub fn read(
        release: &Release,
        utterances: impl Iterator<Item = usize>,
        folder: &Path,
    ) -> Result<Self, RecordingsError> {
        let mut wanted: Vec<usize> = utterances.collect();
        wanted.sort_unstable();
        wanted.dedup();
        let packed: Vec<usize> = wanted
            .iter()
            .copied()
            .filter(|&i| release.utterances[i].audio.extension().is_some_and(|e| e == "parquet"))
            .collect();
        let unpacked = hugging_face::unpack(release, &packed, &folder.join("recordings"))?;
        let mut numbers: HashMap<&Path, usize> = HashMap::new();
        let (mut clips, mut of) = (Vec::new(), vec![None; release.utterances.len()]);
        for i in wanted {
            let utterance = &release.utterances[i];
            let path = unpacked.get(&i).map_or(utterance.audio.as_path(), PathBuf::as_path);
            let number = *numbers.entry(path).or_insert_with(|| {
                clips.push(Clip {
                    path: path.to_owned(),
                    name: utterance.id.clone(),
                    language: Some(utterance.language),
                    speaker: None,
                    dataset: Some(utterance.dataset.clone()),
                    duration_s: 0.0,
                    transcript: Transcript::Text(utterance.text.clone()),
                    weight: 1.0,
                });
                clips.len() - 1
            });
            of[i] = Some(number);
        }
        let listed: Vec<PathBuf> = clips.iter().map(|clip| clip.path.clone()).collect();
        let (corpus, report) = Corpus::load_most(clips, MAX_UNREADABLE, AudioStore::Cache, folder)?;
        // The corpus keeps the order and leaves out some.
        let mut kept = 0;
        let places: Vec<Option<usize>> = listed
            .iter()
            .map(|path| {
                let is_next = corpus.clips().get(kept).is_some_and(|clip| clip.path == *path);
                is_next.then(|| {
                    kept += 1;
                    kept - 1
                })
            })
            .collect();
        Ok(Self {
            corpus,
            unreadable: report
                .unreadable
                .iter()
                .map(|(path, error)| format!("{}: {error}", path.display()))
                .collect(),
            clips: of.into_iter().map(|number| number.and_then(|number| places[number])).collect(),
        })
    }

    /// The clip of an utterance.
    #[must_use]
    pub fn clip(&self, utterance: usize) -> Option<usize> {
        self.clips.get(utterance).copied().flatten()
    }
}

/// Recordings that cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordingsError {
    /// Audio that cannot be decoded or kept.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Audio that cannot be unpacked.
    #[error(transparent)]
    Unpack(#[from] MlSuperbError),
}
