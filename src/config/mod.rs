//! Files that describe a model or a run, assembled from the structs of the layers.

mod embedded;
mod import;
mod model_folder;
mod recipe;
mod speech_model;
mod waveform_config;

pub use embedded::{DEFAULT_MODEL, embedded_model, embedded_weights};
pub use import::{
    AnyModel, ImportError, LanguageUnit, LanguageUnits, LoadError, LoadOptions, WriteOptions,
    load_model, load_speech_model,
};
pub use model_folder::{Calibration, ModelConfig, ModelFiles, ModelFolderError};
pub use recipe::{DataConfig, Recipe, RecipeError};
pub use speech_model::{Head, Outputs, SpeechModel, Wanted, WaveformNorm};
pub use waveform_config::{
    HeadConfig, Provenance, SourceFile, Spelling, WaveformConfig, WaveformType,
};
