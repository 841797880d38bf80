//! CTC on frames inside the encoder, and its predictions given back to the frames: intermediate
//! (Lee and Watanabe 2021), self-conditioned (Nozaki and Komatsu 2021) and hierarchical CTC with
//! language labels (Chen et al. 2023, arXiv 2302.12829).

use super::after_block::AfterBlock;
use super::pass::Pass;
use super::recogniser::Logits;
use super::sequence::Sequence;
use super::transformer::{LayerNorm, Linear};
use candle_core::{D, Result, Tensor};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a tap is to spell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Predicts {
    /// The language tag, once (`lid_utt`).
    Language,
    /// The language tag, once for itself and once per word (`lid_tok`).
    LanguagePerWord,
    /// What the output spells: tag and text.
    Text,
}

/// A place in the encoder with a CTC loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tap {
    /// The block after which it sits, from 0 in the order they run.
    pub block: usize,
    /// What it is to spell.
    pub predicts: Predicts,
}

/// The layer that turns frames into logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Projection {
    /// The output layer of the recogniser, whose tokens include the language tags.
    Shared,
    /// One for the taps alone, over the blank and the language tags.
    Own,
}

/// Taps of an encoder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntermediateCtcConfig {
    /// Where they sit, in increasing order of blocks.
    pub taps: Vec<Tap>,
    /// How logits are made.
    pub projection: Projection,
    /// Whether the probabilities are mapped back and added to the frames: the encoder then
    /// needs the taps in use as well.
    pub conditioning: bool,
}

impl IntermediateCtcConfig {
    /// Whether a tap is to spell the language.
    #[must_use]
    pub fn names_languages(&self) -> bool {
        self.taps.iter().any(|tap| tap.predicts != Predicts::Text)
    }
}

/// The modules of the taps.
#[derive(Debug)]
pub(super) struct IntermediateCtc {
    config: IntermediateCtcConfig,
    norms: BTreeMap<usize, LayerNorm>,
    own: Option<Linear>,
    condition: Option<Linear>,
}

impl IntermediateCtc {
    /// Taps on frames of `dim` numbers; tensors `norm.{block}`, `proj` and `condition`.
    ///
    /// The map back starts at zero, so that an encoder that is given taps computes what it did.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub(super) fn new(
        config: &IntermediateCtcConfig,
        dim: usize,
        vocab_size: usize,
        n_languages: usize,
        vb: &VarBuilder,
    ) -> Result<Self> {
        let (own, width) = match config.projection {
            Projection::Shared => (None, vocab_size),
            Projection::Own => {
                let width = 1 + n_languages;
                (Some(Linear::uniform(dim, width, &vb.pp("proj"))?), width)
            }
        };
        let norm = |tap: &Tap| Ok((tap.block, LayerNorm::new(dim, &vb.pp("norm").pp(tap.block))?));
        Ok(Self {
            norms: config.taps.iter().map(norm).collect::<Result<_>>()?,
            own,
            condition: if config.conditioning {
                Some(Linear::zero(width, dim, &vb.pp("condition"))?)
            } else {
                None
            },
            config: config.clone(),
        })
    }

    /// One pass through an encoder whose output layer is `shared`.
    pub(super) fn listen<'a>(&'a self, shared: &'a Linear) -> CtcListener<'a> {
        let projection = self.own.as_ref().unwrap_or(shared);
        CtcListener { modules: self, projection, logits: Vec::new() }
    }
}

/// Predicts, and conditions, while an encoder runs.
#[derive(Debug)]
pub(super) struct CtcListener<'a> {
    modules: &'a IntermediateCtc,
    projection: &'a Linear,
    /// Logits of each tap, in order.
    pub(super) logits: Vec<(Predicts, Logits)>,
}

impl AfterBlock for CtcListener<'_> {
    fn block(&mut self, block: usize, frames: &Sequence, pass: &Pass) -> Result<Option<Tensor>> {
        let Some(tap) = self.modules.config.taps.iter().find(|tap| tap.block == block) else {
            return Ok(None);
        };
        let norm = self.modules.norms.get(&block).expect("every tap has a norm");
        let logits = self.projection.forward(&norm.forward(&frames.hidden)?, pass)?;
        let lengths = frames.lengths.clone();
        self.logits.push((tap.predicts, Logits { values: logits.clone(), lengths }));
        let Some(condition) = &self.modules.condition else { return Ok(None) };
        let highest = logits.max_keepdim(D::Minus1)?.detach();
        let shares = logits.broadcast_sub(&highest)?.exp()?;
        let shares = shares.broadcast_div(&shares.sum_keepdim(D::Minus1)?)?;
        Ok(Some((&frames.hidden + condition.forward(&shares, pass)?)?))
    }
}
