//! The hot operations of `asr`, where candle is slow or cannot differentiate.
//!
//! Each operation is one file: what it computes (with its formula), the function on
//! candle tensors that the models call, its gradient, and the plain twin in
//! [`mod@reference`] that the tests hold it against. Nothing here knows of models, audio or text.
//!
//! | module | operation |
//! |---|---|
//! | [`matmul`] | matrix product of strided f32 views, f32 or bf16 arithmetic with f32 sums |
//! | [`linear`] | affine map of the last dimension |
//! | [`conv`] | convolution over time as a matrix product, nothing unrolled in memory |
//! | [`depthwise`] | convolution over time of each channel by itself |
//! | [`position_conv`] | grouped convolution that gives HuBERT its positions |
//! | [`norm`] | layer norm and masked group norm |
//! | [`gelu`] | exact (erf) GELU |
//! | [`dropout`] | dropout whose mask is a function of a seed |
//! | [`attention`] | scaled dot-product attention with lengths, memory linear in time |
//! | [`sum`] | scaled sum of two branches |
//! | [`front_end`] | a stack of convolutions for inference, a stretch of time at a time |
//! | [`padding`] | zeroing what lies past the end of a clip |
//! | [`masking`] | frames replaced by a learned vector, gradients damped |
//! | [`ctc`] | CTC loss straight from logits |
//! | [`cross_entropy`] | cross entropy of classes straight from logits |
//! | [`nearest`] | the nearest of many centroids to each frame |
//! | [`gradients`] | gradients of parameters, collected without candle's copies |
//! | [`recompute`] | parts that are computed again for the backward pass, not kept |
//! | [`adamw`] | the optimiser's update |
//! | [`accelerator`] | the device that is not the CPU |
//!
//! All tensors are f32, contiguous `(batch, frames, dim)`. Instruction sets are chosen at
//! run time ([`isa`]); work is spread by [`threads`]. With the feature `cuda`, operations on
//! tensors of a CUDA device run there: `device` launches the kernels of `kernels/cuda`.

pub mod accelerator;
pub mod adamw;
pub mod attention;
pub mod conv;
pub mod cross_entropy;
pub mod ctc;
pub mod depthwise;
#[cfg(any(test, feature = "cuda"))]
mod device;
pub mod dropout;
pub mod front_end;
pub mod gelu;
pub mod gradients;
pub mod isa;
pub mod linear;
pub mod masking;
pub mod matmul;
pub mod nearest;
pub mod norm;
pub mod padding;
pub mod position_conv;
pub mod recompute;
pub mod reference;
mod storage;
pub mod sum;
pub mod threads;
mod three_taps;
mod vector;

pub use matmul::{Precision, PreparedWeight};
