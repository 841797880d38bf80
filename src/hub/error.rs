//! What can go wrong with the Hub.

use std::path::PathBuf;

/// A model that cannot be brought from the Hub.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// No folder for the cache.
    #[error("no folder for downloads: neither HF_HOME nor a home folder is known")]
    NoHome,
    /// The network is not to be used and the cache lacks something.
    #[error("`{repository}` is not in the cache `{}`, and the network is not to be used", cache.display())]
    Offline {
        /// What was asked for.
        repository: String,
        /// The cache.
        cache: PathBuf,
    },
    /// The Hub does not know it.
    #[error("the Hub has no model `{repository}`")]
    NotFound {
        /// What was asked for.
        repository: String,
    },
    /// The Hub does not let everyone have it.
    #[error("the Hub refuses `{repository}` (status {status})")]
    Refused {
        /// What was asked for.
        repository: String,
        /// Status of its answer.
        status: u16,
    },
    /// An answer that is none.
    #[error("`{url}` answers with status {status}")]
    Status {
        /// What was asked.
        url: String,
        /// Status of the answer.
        status: u16,
    },
    /// A connection that fails.
    #[error("cannot reach `{url}`")]
    Connection {
        /// What was asked.
        url: String,
        /// Why.
        source: Box<ureq::Error>,
    },
    /// An answer that cannot be understood.
    #[error("`{url}` answers with something else than a model's description")]
    Answer {
        /// What was asked.
        url: String,
    },
    /// No weights among its files.
    #[error("`{repository}` holds no weights that can be read")]
    NoWeights {
        /// What was asked for.
        repository: String,
    },
    /// Several files that could be meant.
    #[error("`{repository}` holds several checkpoints: {}", files.join(", "))]
    Several {
        /// What was asked for.
        repository: String,
        /// Their names.
        files: Vec<String>,
    },
    /// A file that is not there.
    #[error("`{repository}` has no file `{file}`")]
    NoFile {
        /// What was asked for.
        repository: String,
        /// The file.
        file: String,
    },
    /// A language without an adapter.
    #[error(
        "`{repository}` has no adapter for `{language}`; {}",
        if near.is_empty() { "none is near it".to_owned() } else { format!("near it are {}", near.join(", ")) }
    )]
    NoAdapter {
        /// What was asked for.
        repository: String,
        /// The language.
        language: String,
        /// Languages with a similar name that have one.
        near: Vec<String>,
    },
    /// A download that ends early again and again.
    #[error(
        "the download of `{file}` ends after {got} of {expected} bytes; what is there is kept and continued next time"
    )]
    Truncated {
        /// The file.
        file: String,
        /// Bytes that came.
        got: u64,
        /// Bytes it should have.
        expected: u64,
    },
    /// Other bytes than the Hub announced.
    #[error("the download of `{file}` has another checksum than the Hub says; it was thrown away")]
    Checksum {
        /// The file.
        file: String,
    },
    /// The file system refused.
    #[error("cannot access `{}`", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}
