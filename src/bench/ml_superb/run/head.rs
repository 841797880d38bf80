//! The downstream models of the benchmark.

use crate::config::Upstream;
use crate::features::InputFeatures;
use crate::model::{DownstreamConfig, HeadLayer, TransformerHeadConfig};
use serde::{Deserialize, Serialize};

/// Frames the head is made for, seconds.
const FRAME_S: f64 = 0.02;

/// What stands above an encoder, at its published size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Head {
    /// Two Transformer layers of 256 numbers: 1.0, and the baseline of 2.0.
    #[default]
    Baseline,
    /// 24 Transformer layers of 512.
    Transformer,
    /// 12 Conformer layers of 512.
    Conformer,
    /// 12 E-Branchformer layers of 512.
    EBranchformer,
}

impl Head {
    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Transformer => "transformer",
            Self::Conformer => "conformer",
            Self::EBranchformer => "e-branchformer",
        }
    }

    /// The model above an encoder that reads `input`.
    pub(super) fn config(self, upstream: &Upstream, input: &InputFeatures) -> DownstreamConfig {
        let frame_s = upstream.encoder.input_stride() as f64 / input.steps_per_s();
        let repeat = (frame_s / FRAME_S).round().clamp(1.0, 2.0) as usize;
        let baseline = TransformerHeadConfig { repeat, ..TransformerHeadConfig::default() };
        let large = |layers, layer| TransformerHeadConfig {
            dim: 512,
            ffn_dim: 2048,
            layers,
            layer,
            ..baseline.clone()
        };
        let transformer = match self {
            Self::Baseline => baseline,
            Self::Transformer => large(24, HeadLayer::Transformer),
            Self::Conformer => large(12, HeadLayer::Conformer { kernel: 15 }),
            Self::EBranchformer => {
                let (mlp_dim, kernel, merge_kernel) = (3072, 31, 31);
                large(12, HeadLayer::EBranchformer { mlp_dim, kernel, merge_kernel })
            }
        };
        DownstreamConfig { layer_sum: true, transformer: Some(transformer) }
    }
}
