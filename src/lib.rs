//! `asr`: a multilingual speech engine.

pub mod audio;
pub mod bench;
pub mod cli;
pub mod config;
pub mod data;
pub mod decode;
pub mod features;
pub mod model;
pub mod objective;
pub mod text;
pub mod train;
