//! What a recogniser may have besides its CTC output: losses on the way up, places, a head
//! for the language.

use super::config::{ConfigError, EncoderConfig};
use super::geo::{Conditioning, GeoConfig};
use super::intermediate_ctc::{IntermediateCtcConfig, Predicts, Projection};
use super::language_head::LanguageHeadConfig;
use serde::{Deserialize, Serialize};

/// Modules beside the CTC output; none by default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JointConfig {
    /// CTC on frames inside the encoder, of the language or the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intermediate_ctc: Option<IntermediateCtcConfig>,
    /// Places predicted inside the encoder and added to its frames.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub geo: Option<GeoConfig>,
    /// A head that names the language of the whole clip.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<LanguageHeadConfig>,
}

impl JointConfig {
    /// Whether there is nothing beside the CTC output.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The modules that a finished model needs: those that only teach are left out, but for
    /// taps that name the language, which can be asked for it.
    #[must_use]
    pub fn for_inference(&self) -> Self {
        Self {
            intermediate_ctc: self
                .intermediate_ctc
                .clone()
                .filter(|ctc| ctc.conditioning || ctc.names_languages()),
            geo: self.geo.clone().filter(|geo| geo.conditioning != Conditioning::None),
            language: self.language.clone(),
        }
    }

    /// Whether a model of these modules has the parameter `name`; the head at the lowest
    /// resolution is for training only.
    #[must_use]
    pub fn keeps(&self, name: &str) -> bool {
        match name.split('.').next() {
            Some("low_proj") => false,
            Some("intermediate_ctc") => self.intermediate_ctc.is_some(),
            Some("geo") => self.geo.is_some(),
            Some("language") => self.language.is_some(),
            _ => true,
        }
    }

    /// Checks every setting against the encoder that the modules sit in.
    ///
    /// # Errors
    /// The first setting that does not fit, with the reason.
    pub fn validate(&self, encoder: &EncoderConfig) -> Result<(), ConfigError> {
        let check = |ok: bool, field, problem| {
            if ok { Ok(()) } else { Err(ConfigError { field, problem }) }
        };
        let n_blocks: usize = encoder.stage_layers.iter().sum();
        let width = |n: usize| (1..=16_384).contains(&n);
        let increasing = |blocks: &[usize]| blocks.windows(2).all(|pair| pair[0] < pair[1]);
        let fit = |blocks: &[usize]| {
            !blocks.is_empty() && increasing(blocks) && blocks.iter().all(|&b| b < n_blocks)
        };
        if let Some(ctc) = &self.intermediate_ctc {
            let blocks: Vec<usize> = ctc.taps.iter().map(|tap| tap.block).collect();
            check(
                fit(&blocks),
                "joint.intermediate_ctc.taps",
                "needs blocks of the encoder, from 0, in increasing order",
            )?;
            let text = ctc.taps.iter().any(|tap| tap.predicts == Predicts::Text);
            check(
                !(text && ctc.projection == Projection::Own),
                "joint.intermediate_ctc.projection",
                "must be `shared` where a tap predicts text: the own one knows languages only",
            )?;
        }
        if let Some(geo) = &self.geo {
            check(
                fit(&geo.blocks),
                "joint.geo.blocks",
                "needs blocks of the encoder, from 0, in increasing order",
            )?;
            check(width(geo.bottleneck), "joint.geo.bottleneck", "must be 1 to 16384")?;
            check(width(geo.embedding), "joint.geo.embedding", "must be 1 to 16384")?;
        }
        if let Some(head) = &self.language {
            if let Some(ecapa) = &head.ecapa {
                check(
                    width(ecapa.dim) && ecapa.dim.is_multiple_of(8),
                    "joint.language.ecapa.dim",
                    "must be a multiple of 8, at most 16384",
                )?;
                check(width(ecapa.outputs), "joint.language.ecapa.outputs", "must be 1 to 16384")?;
            }
            check(
                head.block.is_none_or(|block| block < n_blocks),
                "joint.language.block",
                "must be a block of the encoder, from 0",
            )?;
            check(width(head.bottleneck), "joint.language.bottleneck", "must be 1 to 16384")?;
            check(width(head.embedding), "joint.language.embedding", "must be 1 to 16384")?;
            check(
                (1..=64).contains(&head.sub_centres),
                "joint.language.sub_centres",
                "must be 1 to 64",
            )?;
        }
        Ok(())
    }
}
