//! What of an encoder is trained.

use crate::model::{Adaptation, ConfigError, EncoderConfig, LoraTargets, is_encoder_parameter};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Beginning of the names of the convolutions that an encoder starts with.
const FRONT_END: &str = "feature_extractor.";

/// What of an encoder is trained; heads and modules beside it always are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Strategy {
    /// Nothing.
    Frozen {
        /// Folder for the encoder's hidden states, which are then computed once and not once
        /// per epoch: in f16, about 1 MB per second of audio of a base model whose layers are
        /// summed. Relative to the working directory. Clips cannot be perturbed then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cache: Option<PathBuf>,
    },
    /// Some of the Transformer blocks.
    Partial {
        /// First and last of them, from 0 in the order they run.
        layers: [usize; 2],
    },
    /// Low-rank updates of affine maps in every Transformer block (LoRA).
    Lora {
        /// Rows of the updates.
        rank: usize,
        /// Their scale, times `rank`.
        alpha: f32,
        /// Dropout of what they read.
        #[serde(default)]
        dropout: f32,
        /// The maps: some of `q`, `k`, `v`, `o`, `fc1`, `fc2`.
        #[serde(default)]
        targets: LoraTargets,
    },
    /// Bottleneck adapters in every Transformer block.
    Adapter {
        /// Their width.
        width: usize,
    },
    /// Everything, but for the front end of convolutions.
    Full {
        /// The front end too.
        #[serde(default)]
        front_end: bool,
    },
}

impl Strategy {
    /// The encoder with the modules that the strategy puts into it.
    ///
    /// # Errors
    /// If a setting is out of range, or the encoder already has such modules.
    pub fn adapted(&self, encoder: &EncoderConfig) -> Result<EncoderConfig, ConfigError> {
        let check = |ok: bool, field, problem| {
            if ok { Ok(()) } else { Err(ConfigError { field, problem }) }
        };
        let adaptation = match self {
            Self::Lora { rank, alpha, dropout, targets } => Adaptation::Lora {
                rank: *rank,
                alpha: *alpha,
                dropout: *dropout,
                targets: *targets,
            },
            Self::Adapter { width } => Adaptation::Bottleneck { width: *width },
            Self::Partial { layers: [first, last] } => {
                check(
                    first <= last && *last < encoder.block_names().len(),
                    "strategy.layers",
                    "must be the first and the last of the encoder's blocks, from 0",
                )?;
                return Ok(encoder.clone());
            }
            Self::Frozen { .. } | Self::Full { .. } => return Ok(encoder.clone()),
        };
        adaptation.validate()?;
        check(
            encoder.variant.adaptation.is_none(),
            "strategy.kind",
            "the encoder has adapters already: must be `frozen`, `partial` or `full`",
        )?;
        let mut adapted = encoder.clone();
        adapted.variant.adaptation = Some(adaptation);
        Ok(adapted)
    }

    /// Tells of a parameter's name whether it stays as it is, in a model of `encoder`.
    pub fn frozen(&self, encoder: &EncoderConfig) -> impl Fn(&str) -> bool + Send + Sync + 'static {
        let trained: Vec<String> = match self {
            Self::Frozen { .. } | Self::Lora { .. } | Self::Adapter { .. } => Vec::new(),
            Self::Partial { layers: [first, last] } => {
                let blocks = encoder.block_names().into_iter().enumerate();
                blocks.filter(|(i, _)| (first..=last).contains(&i)).map(|(_, name)| name).collect()
            }
            Self::Full { .. } => vec![String::new()],
        };
        let front_end = matches!(self, Self::Full { front_end: true });
        move |name| {
            let trains = trained.iter().any(|start| name.starts_with(start.as_str()));
            is_encoder_parameter(name) && (!trains || name.starts_with(FRONT_END) && !front_end)
        }
    }

    /// Whether nothing in the encoder learns.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        matches!(self, Self::Frozen { .. })
    }

    /// The folder for hidden states, if they are to be kept.
    #[must_use]
    pub fn cache(&self) -> Option<&std::path::Path> {
        match self {
            Self::Frozen { cache } => cache.as_deref(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::embedded_model;

    fn strategy(toml: &str) -> Strategy {
        toml::from_str(toml).expect("a strategy")
    }

    #[test]
    fn each_strategy_trains_what_it_says() -> Result<(), Box<dyn std::error::Error>> {
        let encoder = embedded_model()?.config.encoder;
        let last = encoder.block_names().len() - 1;
        let partial = format!("kind = 'partial'\nlayers = [{last}, {last}]");
        let names = [
            "feature_extractor.conv_layers.0.0.weight",
            "encoders.0.layers.0.fc1.weight",
            "decoders.0.layers.1.fc1.weight",
            "encoders.0.layers.0.fc1.lora_A.weight",
            "downstream.featurizer.weights",
            "proj.bias",
        ];
        for (toml, trained) in [
            ("kind = 'frozen'", [false, false, false, true, true, true]),
            (partial.as_str(), [false, false, true, true, true, true]),
            ("kind = 'lora'\nrank = 2\nalpha = 4", [false, false, false, true, true, true]),
            ("kind = 'full'", [false, true, true, true, true, true]),
            ("kind = 'full'\nfront_end = true", [true; 6]),
        ] {
            let frozen = strategy(toml).frozen(&encoder);
            assert_eq!(names.map(|name| !frozen(name)), trained, "{toml}");
        }
        let adapted = strategy("kind = 'adapter'\nwidth = 8").adapted(&encoder)?;
        let again = strategy("kind = 'lora'\nrank = 2\nalpha = 4").adapted(&adapted);
        assert_eq!(again.expect_err("has adapters").field, "strategy.kind");
        let far = strategy("kind = 'partial'\nlayers = [1, 99]").adapted(&encoder);
        assert_eq!(far.expect_err("too far").field, "strategy.layers");
        assert!(toml::from_str::<Strategy>("kind = 'frozen'\nrank = 2").is_err());
        Ok(())
    }
}
