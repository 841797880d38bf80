//! Losses: from logits and labels to one number to minimise.
//!
//! The layer knows nothing of text, files or optimisers.

mod ctc;

pub use ctc::{MultiResolutionCtc, MultiResolutionLoss};
