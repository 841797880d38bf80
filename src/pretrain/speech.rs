//! The clips of a run: read, filtered, some of them held out.

use super::PretrainError;
use super::recipe::PretrainData;
use crate::audio::AudioError;
use crate::data::{Clip, Corpus, DevList, Random, read_manifest};
use crate::text::Language;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

/// Seed of the draw of what is held out: the same clips in every run.
const HELD_OUT_SEED: u64 = 0x0048_454c_445f_4f55;

/// The clips of all manifests, in their order.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) clips: Vec<Clip>,
    /// Whether each is held out.
    held_out: Vec<bool>,
}

/// The clips that could be read.
#[derive(Debug)]
pub(super) struct Speech {
    pub(super) corpus: Corpus,
    /// The place of each clip of the corpus among those listed.
    pub(super) places: Vec<usize>,
    /// Clips to learn from.
    pub(super) train: Vec<usize>,
    /// Clips to validate on, at most as many as the recipe says.
    pub(super) validation: Vec<usize>,
    /// Clips in which nobody speaks: nothing is learned from them, they can be mixed in.
    pub(super) noise: Vec<usize>,
    pub(super) unreadable: Vec<(PathBuf, AudioError)>,
    /// Languages of which no clip is left.
    pub(super) empty: Vec<Language>,
}

fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

fn chance_of(clip: &Clip) -> f64 {
    Random::new(&[HELD_OUT_SEED, fnv1a(&clip.name)]).unit()
}

impl Listed {
    /// Reads the manifests; `folder` is the recipe's.
    ///
    /// # Errors
    /// [`PretrainError`] naming file and line, or a clip that two manifests list.
    pub(super) fn read(data: &PretrainData, folder: &Path) -> Result<Self, PretrainError> {
        let dev = match &data.dev {
            Some(list) => DevList::read(&folder.join(list))?,
            None => DevList::default(),
        };
        let (mut clips, mut held_out) = (Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        for (i, manifest) in data.manifests.iter().enumerate() {
            let manifest = data.root.join(manifest);
            for clip in read_manifest(&manifest)? {
                if !seen.insert(clip.path.clone()) {
                    return Err(PretrainError::ListedTwice { manifest, clip: clip.path });
                }
                let listed = i == 0 && dev.condition(&clip.name).is_some();
                held_out.push(listed || chance_of(&clip) < data.held_out);
                clips.push(clip);
            }
        }
        Ok(Self { clips, held_out })
    }

    /// Decodes the clips; `folder` is where decoded audio is kept if it is to be kept on disk.
    ///
    /// # Errors
    /// [`PretrainError`] if more are unreadable than may be, or nothing is left.
    pub(super) fn load(&self, data: &PretrainData, folder: &Path) -> Result<Speech, PretrainError> {
        let (corpus, report) =
            Corpus::load_most(self.clips.clone(), data.max_unreadable, data.audio, folder)?;
        let mut places = Vec::with_capacity(corpus.clips().len());
        let mut listed = self.clips.iter().enumerate();
        for clip in corpus.clips() {
            // The corpus keeps the order and leaves out some.
            let place = listed.find(|(_, candidate)| candidate.path == clip.path);
            places.push(place.expect("the corpus holds listed clips in order").0);
        }
        let (mut train, mut validation, mut noise) = (Vec::new(), Vec::new(), Vec::new());
        let mut usable: BTreeMap<Language, bool> = BTreeMap::new();
        for clip in &self.clips {
            if let Some(language) = clip.language {
                usable.entry(language).or_insert(false);
            }
        }
        for (i, clip) in corpus.clips().iter().enumerate() {
            let range = data.min_clip_s..=data.max_clip_s;
            if !range.contains(&corpus.duration_s(i)) {
                continue;
            }
            if clip.language.is_none() {
                noise.push(i);
                continue;
            }
            if self.held_out[places[i]] {
                validation.push(i);
                continue;
            }
            if let Some(language) = clip.language {
                usable.insert(language, true);
            }
            train.push(i);
        }
        if train.is_empty() || validation.is_empty() {
            return Err(crate::data::DataError::Empty.into());
        }
        validation.sort_by(|&a, &b| {
            let chance = |i: usize| chance_of(&corpus.clips()[i]);
            chance(a).total_cmp(&chance(b)).then(a.cmp(&b))
        });
        validation.truncate(data.validation_clips);
        let empty: BTreeSet<Language> = usable
            .into_iter()
            .filter(|(_, usable)| !usable)
            .map(|(language, _)| language)
            .collect();
        Ok(Speech {
            corpus,
            places,
            train,
            validation,
            noise,
            unreadable: report.unreadable,
            empty: empty.into_iter().collect(),
        })
    }
}
