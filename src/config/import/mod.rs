//! Models that others made: what their files say, and their weights under our names.
//!
//! | files | settings | reader |
//! |---|---|---|
//! | our own folder, written by `write` | `config.json` | `load` |
//! | Hugging Face folder | `config.json`, `preprocessor_config.json`, `vocab.json` | `hub_folder` |
//! | fairseq `.pt`, s3prl's copies, unilm WavLM | inside the file | `fairseq` |
//! | ESPnet `.pth` | `config.yaml` beside it | `espnet` |
//! | torchaudio state dict | none: read off the shapes | `inferred` |

mod adapters;
mod build;
mod error;
mod espnet;
mod fairseq;
mod hub_folder;
mod hugging_face;
mod inferred;
mod load;
mod weights;
mod write;

pub use adapters::{LanguageUnit, LanguageUnits};
pub use error::ImportError;
pub use load::{AnyModel, LoadError, LoadOptions, load_model, load_speech_model};
pub use write::WriteOptions;

use crate::model::ConvLayer;

/// The seven convolutions of every released encoder, `dim` channels wide: a frame of 400
/// samples every 320.
fn standard_conv_layers(dim: usize) -> Vec<ConvLayer> {
    let shapes = [(10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2)];
    shapes.map(|(kernel, stride)| ConvLayer { dim, kernel, stride }).to_vec()
}
