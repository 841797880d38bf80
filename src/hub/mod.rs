//! Models of the Hugging Face Hub: found in the cache that Python shares, else downloaded.
//!
//! The layer knows nothing of what the files hold: it brings the folder of a model and says
//! where it is. The cache has the layout of `huggingface_hub`
//! (`models--ORG--NAME/{blobs,refs,snapshots}`), and so do the settings: `HF_HOME`,
//! `HF_HUB_CACHE`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HUB_OFFLINE`.

mod cache;
mod card;
mod client;
mod download;
mod error;
mod fetch;
mod repository;
mod selection;
mod settings;

#[cfg(test)]
mod tests;

pub use card::Licence;
pub use error::HubError;
pub use fetch::{Fetched, Hub};
pub use repository::{NotARepository, Repository};
pub use settings::HubSettings;

/// Told how a download goes.
pub trait Progress {
    /// A file of so many bytes (if known), of which `there` are already on this machine.
    fn start(&self, file: &str, bytes: Option<u64>, there: u64);
    /// So many bytes more.
    fn advance(&self, bytes: u64);
    /// The file is complete.
    fn finish(&self);
}
