//! Why pre-training, or the making of its labels, cannot go on.

use super::index_file::IndexFault;
use crate::audio::AudioError;
use crate::config::{ImportError, LoadError, ModelFolderError, RecipeError};
use crate::data::DataError;
use crate::features::FeatureError;
use crate::model::ConfigError;
use crate::train::TrainError;
use std::path::PathBuf;

/// Pre-training that cannot start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PretrainError {
    /// A recipe that cannot be read.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// A stage that cannot be run.
    #[error("stage `{name}`")]
    Stage {
        /// The stage.
        name: String,
        /// Why.
        source: Box<PretrainError>,
    },
    /// A stage that is referred to and is not there, or not before.
    #[error("no earlier stage is called `{name}`")]
    NoSuchStage {
        /// The name.
        name: String,
    },
    /// Settings of an encoder.
    #[error(transparent)]
    Encoder(#[from] ConfigError),
    /// The data failed.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The training failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A model folder that cannot be read or written.
    #[error(transparent)]
    Folder(#[from] ModelFolderError),
    /// A model that cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A clip that two manifests list.
    #[error("`{}` lists `{}`, which an earlier manifest lists, too", manifest.display(), clip.display())]
    ListedTwice {
        /// The later manifest.
        manifest: PathBuf,
        /// The clip.
        clip: PathBuf,
    },
    /// Labels that are too many or too few for their clip.
    #[error("`{}` has {found} labels of `{}`, whose length makes about {expected}", labels.display(), clip.display())]
    LabelMismatch {
        /// The clip.
        clip: PathBuf,
        /// The label file.
        labels: PathBuf,
        /// How many labels it has.
        found: usize,
        /// How many there are at its label rate.
        expected: usize,
    },
    /// A folder that holds the run of another recipe.
    #[error("the run in `{}` was begun with other settings of `{name}`", folder.display())]
    OtherRecipe {
        /// The run's folder.
        folder: PathBuf,
        /// The stage, or `data`.
        name: String,
    },
    /// A model to start from that has another encoder or input.
    #[error("the model in `{}` has another encoder or input than the stage", path.display())]
    OtherEncoder {
        /// The model.
        path: PathBuf,
    },
    /// Something that cannot be put into words of its file format.
    #[error("cannot write the run's settings")]
    Unwritable {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file that cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A number of units that labels cannot have.
    #[error("there can be 1 to {limit} units, not {found}")]
    UnitCount {
        /// What was asked for.
        found: usize,
        /// The most.
        limit: usize,
    },
    /// A label rate that makes no sense.
    #[error("labels per second must be above 0 and at most {limit}, not {found}")]
    LabelRate {
        /// What was asked for.
        found: f64,
        /// The most.
        limit: f64,
    },
    /// A file of labels that is none, or not whole.
    #[error("`{}` is not a label file: {problem}", path.display())]
    LabelFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A label that no unit has.
    #[error("`{}`, clip {clip}: label `{found}` is not a number below {n_units}", path.display())]
    Label {
        /// The file.
        path: PathBuf,
        /// The clip, counted from 0.
        clip: usize,
        /// What was found, cut to 16 characters.
        found: String,
        /// How many units there are.
        n_units: usize,
    },
    /// A clip past the last.
    #[error("`{}` has the labels of {n_clips} clips, clip {clip} is asked for", path.display())]
    NoSuchClip {
        /// The file.
        path: PathBuf,
        /// The clip, counted from 0.
        clip: usize,
        /// How many there are.
        n_clips: usize,
    },
    /// A dictionary of other units than those written beside it.
    #[error("`{}` names {found} units, the labels beside it have {expected}", path.display())]
    Dictionary {
        /// The dictionary.
        path: PathBuf,
        /// How many units it names.
        found: usize,
        /// How many the labels have.
        expected: usize,
    },
    /// A file that is no clustering.
    #[error("cannot use the clustering `{}`", path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// Why.
        source: IndexFault,
    },
    /// Frames of another width than those clustered.
    #[error("frames have {found} values, {expected} are expected")]
    Width {
        /// What was found.
        found: usize,
        /// What was expected.
        expected: usize,
    },
    /// Frames that hold what is no number.
    #[error("a frame holds a value that is not a finite number")]
    NotFinite,
    /// Too little to cluster.
    #[error("{found} frames cannot make {needed} units")]
    TooFewFrames {
        /// How many frames there are.
        found: usize,
        /// How many are needed.
        needed: usize,
    },
    /// A setting out of range.
    #[error("setting `{field}` must be {expected}")]
    Setting {
        /// Name of the setting.
        field: &'static str,
        /// What is accepted.
        expected: &'static str,
    },
    /// A build that cannot cluster.
    #[error("built without `faiss`; rebuild with `--features faiss`")]
    WithoutFaiss,
    /// A failure inside faiss.
    #[error("faiss cannot cluster the frames")]
    Faiss {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A layer past the last.
    #[error("the model has {layers} layers, there is no layer {layer}")]
    NoLayer {
        /// The layer asked for.
        layer: usize,
        /// How many there are.
        layers: usize,
    },
    /// A model that cannot be run.
    #[error("cannot run the model")]
    Model {
        /// Why.
        source: Box<ImportError>,
    },
    /// Arithmetic that failed.
    #[error("cannot run the model")]
    Compute(#[from] candle_core::Error),
    /// Features that cannot be computed.
    #[error("cannot compute features")]
    Features(#[from] FeatureError),
    /// More unreadable clips than may be skipped.
    #[error("{failed} of {total} clips cannot be read, the first: `{}`", first.display())]
    TooManyUnreadable {
        /// How many failed so far.
        failed: usize,
        /// Of how many.
        total: usize,
        /// The first of them.
        first: PathBuf,
        /// Why that one failed.
        source: AudioError,
    },
    /// Units and reference labels of one clip that differ in length.
    #[error("labels last {seconds:.2} s, those of the reference {reference_s:.2} s")]
    Lengths {
        /// Length of the labels.
        seconds: f64,
        /// Length of the reference.
        reference_s: f64,
    },
    /// A description beside a clustering that is none.
    #[error("`{}` does not describe a clustering", path.display())]
    Card {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// Labels of another manifest.
    #[error("`{}` has the labels of {found} clips, the manifest has {expected}", path.display())]
    ClipCount {
        /// The label file.
        path: PathBuf,
        /// How many clips it has.
        found: usize,
        /// How many the manifest has.
        expected: usize,
    },
}
