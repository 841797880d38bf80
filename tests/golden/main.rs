//! The same numbers as the reference implementations.
//!
//! One folder per case: the tensors, and `provenance.toml` saying what made them and how
//! far from them one may be.

mod align;
mod checkpoints;
mod ctc;
mod decode;
mod encoders;
mod features;
mod folders;
mod geolocation;
mod imports;
mod pretraining;
mod scoring;
mod units;
