//! Files that describe a model or a run, assembled from the structs of the layers.

mod embedded;
mod encoder_folder;
mod fine_tuning;
mod import;
mod input_batch;
mod model_folder;
mod model_input;
mod peft;
mod recipe;
mod speech_model;
mod strategy;
mod upstream;
mod waveform_config;

pub use embedded::{DEFAULT_MODEL, embedded_model, embedded_weights};
pub use encoder_folder::{EncoderFiles, EncoderFolderConfig, EncoderModelType};
pub use fine_tuning::{FineTuning, FineTuningError, FineTuningPlan};
pub use import::{
    AnyModel, ImportError, LanguageUnit, LanguageUnits, LoadError, LoadOptions, WriteOptions,
    load_model, load_speech_model,
};
pub use input_batch::input_batch;
pub use model_folder::{Calibration, ModelConfig, ModelFiles, ModelFolderError};
pub use model_input::{FrameTimes, InputConfig, ModelInput};
pub use peft::write_low_rank;
pub use recipe::{DataConfig, Recipe, RecipeError, read_recipe_table};
pub use speech_model::{Head, Outputs, SpeechModel, Wanted, WaveformNorm};
pub use strategy::Strategy;
pub use upstream::{EncoderRates, Upstream};
pub use waveform_config::{
    HeadConfig, Provenance, SourceFile, Spelling, WaveformConfig, WaveformType,
};
