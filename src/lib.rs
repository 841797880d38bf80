//! `asr`: speech to text and language identification for many languages.
//!
//! The way of a recording through the house, and the layer that knows each part:
//!
//! ```text
//! file, pipe  ──audio──▶  samples, 16 kHz  ──features──▶  log-mel frames
//!     ──model──▶  logits  ──decode──▶  text, language
//! ```
//!
//! | layer | does | knows nothing of |
//! |---|---|---|
//! | [`files`] | writes files whole or not at all | what is in them |
//! | [`audio`] | decodes, resamples, writes sound | features, models |
//! | [`features`] | spectra, log-mel, MFCC, normalisation | files, devices |
//! | [`text`] | languages, normalisation, vocabularies, error rates | models |
//! | [`model`] | the multi-resolution HuBERT encoder and its heads (candle) | sample rates, text |
//! | [`hub`] | models of the Hugging Face Hub: cache and downloads | what the files hold |
//! | [`objective`] | losses | text, files |
//! | [`data`] | manifests, augmentation, batches | models |
//! | [`train`] | optimiser, checkpoints, the training loop | decoding |
//! | [`config`] | model folders, recipes, the embedded model | terminals |
//! | [`pretrain`] | units of speech, self-supervised pre-training | decoding, terminals |
//! | [`decode`] | logits to text and language, long audio in segments | training, files |
//! | [`mod@bench`] | scores of a model on a corpus, ML-SUPERB, reports | terminals |
//! | [`cli`] | the command line | - |
//!
//! Layers use only what stands above them; a test enforces it. The hot operations live in
//! the crate `asr-kernels`.
//!
//! # Example
//! ```
//! use asr::audio::{DecodeOptions, decode_path};
//! use asr::config::embedded_model;
//! use asr::decode::Transcriber;
//!
//! let audio = decode_path("examples/audio/eng.flac".as_ref(), &DecodeOptions::default())?;
//! let transcriber = Transcriber::new(&embedded_model()?, asr_kernels::Precision::F32)?;
//! let heard = transcriber.transcribe(&[&audio.samples], None)?;
//! println!("[{}] {}", heard[0].languages[0].code, heard[0].text);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![deny(unsafe_code)]

pub mod audio;
pub mod bench;
pub mod cli;
pub mod config;
pub mod data;
pub mod decode;
pub mod features;
pub mod files;
pub mod hub;
pub mod model;
pub mod objective;
pub mod pretrain;
pub mod text;
pub mod train;
