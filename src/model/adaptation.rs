//! Small modules in the layers of an encoder that itself stays as it is: low-rank updates
//! (LoRA, Hu et al. 2022) and bottleneck adapters (Houlsby et al. 2019).

use super::config::ConfigError;
use super::pass::Pass;
use super::transformer::Linear;
use asr_kernels::linear::linear;
use candle_core::{Device, Result, Tensor};
use candle_nn::{Init, VarBuilder};
use serde::{Deserialize, Serialize};

/// Modules that every Transformer layer of an encoder has besides the published ones.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum Adaptation {
    /// Low-rank updates of affine maps: `y = W x + b + alpha / rank B A x`.
    Lora {
        /// Rows of `A`.
        rank: usize,
        /// Scale of the update, times `rank`.
        alpha: f32,
        /// Dropout of what `A` reads, in training.
        #[serde(default)]
        dropout: f32,
        /// Which maps are updated.
        #[serde(default)]
        targets: LoraTargets,
    },
    /// Two adapters, after the attention and after the feed-forward block:
    /// `x + up(gelu(down(x)))`.
    Bottleneck {
        /// Width between `down` and `up`; 32 in the ML-SUPERB examples.
        width: usize,
    },
}

/// An affine map of a Transformer layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoraTarget {
    /// Queries.
    Q,
    /// Keys.
    K,
    /// Values.
    V,
    /// Output of the attention.
    O,
    /// First map of the feed-forward block.
    Fc1,
    /// Second map of the feed-forward block.
    Fc2,
}

impl LoraTarget {
    const ALL: [Self; 6] = [Self::Q, Self::K, Self::V, Self::O, Self::Fc1, Self::Fc2];

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of [`LoraTarget`]s, written as a list; `["q", "v"]` unless told otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<LoraTarget>", into = "Vec<LoraTarget>")]
pub struct LoraTargets(u8);

impl LoraTargets {
    /// Whether `target` is in it.
    #[must_use]
    pub fn contains(self, target: LoraTarget) -> bool {
        self.0 & target.bit() != 0
    }
}

impl Default for LoraTargets {
    fn default() -> Self {
        vec![LoraTarget::Q, LoraTarget::V].into()
    }
}

impl From<Vec<LoraTarget>> for LoraTargets {
    fn from(targets: Vec<LoraTarget>) -> Self {
        Self(targets.into_iter().map(LoraTarget::bit).fold(0, |all, bit| all | bit))
    }
}

impl From<LoraTargets> for Vec<LoraTarget> {
    fn from(targets: LoraTargets) -> Self {
        LoraTarget::ALL.into_iter().filter(|&target| targets.contains(target)).collect()
    }
}

impl Adaptation {
    /// Checks every range.
    ///
    /// # Errors
    /// The first setting out of range.
    pub fn validate(&self) -> std::result::Result<(), ConfigError> {
        let check = |ok: bool, field, problem| {
            if ok { Ok(()) } else { Err(ConfigError { field, problem }) }
        };
        match self {
            Self::Lora { rank, alpha, dropout, targets } => {
                check((1..=4096).contains(rank), "lora.rank", "must be 1 to 4096")?;
                check(
                    *alpha > 0.0 && *alpha <= 1e4,
                    "lora.alpha",
                    "must be above 0, at most 10000",
                )?;
                check(
                    (0.0..1.0).contains(dropout),
                    "lora.dropout",
                    "must be from 0 up to, not including, 1",
                )?;
                check(targets.0 != 0, "lora.targets", "must be some of q, k, v, o, fc1, fc2")
            }
            Self::Bottleneck { width } => {
                check((1..=16_384).contains(width), "adapter.width", "must be 1 to 16384")
            }
        }
    }

    /// Whether it can be merged into the maps of the encoder.
    #[must_use]
    pub fn is_low_rank(&self) -> bool {
        matches!(self, Self::Lora { .. })
    }

    /// What `B A` is multiplied by, of LoRA.
    pub(super) fn scale(&self) -> Option<f64> {
        match self {
            Self::Lora { rank, alpha, .. } => Some(f64::from(*alpha) / *rank as f64),
            Self::Bottleneck { .. } => None,
        }
    }
}

/// Whether a parameter belongs to an [`Adaptation`].
pub(super) fn is_adaptation(name: &str) -> bool {
    name.contains(".lora_") || name.contains(".houlsby_adapter.")
}

/// A low-rank update of an affine map.
#[derive(Debug)]
pub(super) struct LowRank {
    /// `(rank, inputs)`
    a: Tensor,
    /// `(outputs, rank)`
    b: Tensor,
    /// Zeros: the maps have no bias.
    biases: [Tensor; 2],
    scale: f64,
    dropout: f32,
}

impl LowRank {
    /// The update of `target`, if the adaptation has one there; tensors `lora_A.weight`
    /// (uniform in ±1/sqrt(inputs)) and `lora_B.weight` (zero), as in PEFT.
    pub(super) fn new(
        adaptation: Option<Adaptation>,
        target: LoraTarget,
        (inputs, outputs): (usize, usize),
        vb: &VarBuilder,
    ) -> Result<Option<Self>> {
        let Some(adaptation) = adaptation else { return Ok(None) };
        let Adaptation::Lora { rank, dropout, targets, .. } = adaptation else { return Ok(None) };
        if !targets.contains(target) {
            return Ok(None);
        }
        let bound = (inputs as f64).sqrt().recip();
        let start = Init::Uniform { lo: -bound, up: bound };
        let zeros = |n: usize| Tensor::zeros(n, candle_core::DType::F32, &Device::Cpu);
        Ok(Some(Self {
            a: vb.get_with_hints((rank, inputs), "lora_A.weight", start)?,
            b: vb.get_with_hints((outputs, rank), "lora_B.weight", Init::Const(0.0))?,
            biases: [zeros(rank)?, zeros(outputs)?],
            scale: adaptation.scale().unwrap_or(1.0),
            dropout,
        }))
    }

    /// `y` with the update for `x`.
    pub(super) fn add(&self, y: &Tensor, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let x = pass.dropout(x, self.dropout)?;
        let narrow = linear(&x, &self.a, &self.biases[0], pass.precision())?;
        let update = linear(&narrow, &self.b, &self.biases[1], pass.precision())?;
        y + (update * self.scale)?
    }
}

/// A bottleneck adapter; changes nothing until it has learned.
#[derive(Debug)]
pub(super) struct Bottleneck {
    down: Linear,
    up: Linear,
}

impl Bottleneck {
    /// The adapter on the tensors `houlsby_adapter.{0,2}`, if there is to be one.
    pub(super) fn new(
        adaptation: Option<Adaptation>,
        dim: usize,
        vb: &VarBuilder,
    ) -> Result<Option<Self>> {
        let Some(Adaptation::Bottleneck { width }) = adaptation else { return Ok(None) };
        let vb = vb.pp("houlsby_adapter");
        Ok(Some(Self {
            down: Linear::uniform(dim, width, &vb.pp(0))?,
            up: Linear::zero(width, dim, &vb.pp(2))?,
        }))
    }

    pub(super) fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        x + self.up.forward(&self.down.forward_gelu(x, pass)?, pass)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_a_list_in_any_order() {
        let targets: LoraTargets = vec![LoraTarget::Fc2, LoraTarget::Q].into();
        assert!(targets.contains(LoraTarget::Q) && !targets.contains(LoraTarget::Fc1));
        assert_eq!(serde_json::to_string(&targets).expect("JSON"), r#"["q","fc2"]"#);
        let both: LoraTargets = serde_json::from_str(r#"["v","q"]"#).expect("targets");
        assert_eq!(both, LoraTargets::default());
        let none = Adaptation::Lora { rank: 1, alpha: 1.0, dropout: 0.0, targets: vec![].into() };
        assert_eq!(none.validate().expect_err("no target").field, "lora.targets");
    }
}
