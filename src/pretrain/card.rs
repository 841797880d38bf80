//! What a clustering was made of, beside it.

use super::labels::write_whole;
use super::{FitOptions, FitReport, PretrainError, Quality};
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest description that is read.
const MAX_BYTES: u64 = 1 << 20;

/// `NAME.json` beside the clustering `NAME`: the frames it is of, how it was found, how good it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusteringCard {
    /// The frames.
    pub frames: FrameCard,
    /// What was asked for.
    pub options: FitOptions,
    /// What came of it.
    pub report: FitReport,
    /// Agreement with reference labels, where there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<Quality>,
    /// Version of this program.
    pub version: String,
}

/// Which frames were clustered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum FrameCard {
    /// MFCC with deltas.
    Mfcc,
    /// Log-mel filter banks.
    LogMel,
    /// A layer of a model.
    Layer {
        /// The model, as it was asked for.
        model: String,
        /// SHA-256 of its weights.
        sha256: String,
        /// The layer, counted from 1.
        layer: usize,
    },
}

fn beside(clustering: &Path) -> PathBuf {
    let mut name = clustering.as_os_str().to_owned();
    name.push(".json");
    PathBuf::from(name)
}

impl ClusteringCard {
    /// Writes the description of a clustering beside it.
    ///
    /// # Errors
    /// [`PretrainError`] if it cannot be written.
    pub fn save(&self, clustering: &Path) -> Result<(), PretrainError> {
        let path = beside(clustering);
        let mut json = serde_json::to_vec_pretty(self)
            .map_err(|source| PretrainError::Card { path: path.clone(), source })?;
        json.push(b'\n');
        write_whole(&path, &json)
    }

    /// Reads the description of a clustering; `None` where there is none, as beside an index
    /// of others.
    ///
    /// # Errors
    /// [`PretrainError`] if it is there but cannot be read.
    pub fn open(clustering: &Path) -> Result<Option<Self>, PretrainError> {
        let path = beside(clustering);
        let reading = |source| PretrainError::Read { path: path.clone(), source };
        let file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(reading(error)),
        };
        let mut json = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut json).map_err(reading)?;
        serde_json::from_slice(&json)
            .map(Some)
            .map_err(|source| PretrainError::Card { path: path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_come_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let clustering = folder.path().join("units.faiss");
        assert_eq!(ClusteringCard::open(&clustering).expect("none is fine"), None);
        let layer = FrameCard::Layer { model: "m".into(), sha256: "0a".into(), layer: 6 };
        let card = ClusteringCard {
            frames: layer,
            options: FitOptions::new(100),
            report: FitReport {
                frames_seen: 3000,
                frames_sampled: 2000,
                dim: 768,
                inertia: 1.5,
                empty: 0,
                tiny: 1,
                perplexity: 90.0,
                fit_s: 0.5,
            },
            quality: None,
            version: "0".into(),
        };
        card.save(&clustering).expect("saved");
        assert_eq!(ClusteringCard::open(&clustering).expect("sound"), Some(card));
        std::fs::write(folder.path().join("units.faiss.json"), "{}").expect("written");
        assert!(matches!(ClusteringCard::open(&clustering), Err(PretrainError::Card { .. })));
    }
}
