//! Files that describe a model or a run, assembled from the structs of the layers.

mod embedded;
mod model_folder;
mod recipe;

pub use embedded::{DEFAULT_MODEL, embedded_model, embedded_weights};
pub use model_folder::{ModelConfig, ModelFiles, ModelFolderError};
pub use recipe::{DataConfig, Recipe, RecipeError};
