//! Files that describe a model or a run, assembled from the structs of the layers.

mod model_folder;
mod recipe;

pub use model_folder::{ModelConfig, ModelFiles, ModelFolderError};
pub use recipe::{DataConfig, Recipe, RecipeError};
