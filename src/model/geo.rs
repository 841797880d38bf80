//! Geolocation inside an encoder (Wang et al. 2025, arXiv 2508.17148): after chosen blocks the
//! place of the language is predicted from the frames, and the prediction added to them.

use super::after_block::AfterBlock;
use super::location::LOCATION_DIM;
use super::pass::Pass;
use super::pooling::{AttentivePooling, Projector};
use super::sequence::Sequence;
use super::transformer::Linear;
use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How predictions are brought back into the encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conditioning {
    /// Not at all: the branches only regularise.
    None,
    /// Through one map for all blocks, which learns from what happens behind it.
    SharedTrainable,
    /// Through one random map for all blocks, which stays as it is.
    SharedFrozen,
    /// Through a map per block, which learns from what happens behind it.
    IndependentTrainable,
    /// Through a random map per block, which stays as it is.
    IndependentFrozen,
}

impl Conditioning {
    /// Whether the maps learn.
    #[must_use]
    pub fn is_trainable(self) -> bool {
        matches!(self, Self::SharedTrainable | Self::IndependentTrainable)
    }
}

/// Geolocation branches of an encoder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeoConfig {
    /// Blocks after which a branch sits, from 0 in the order they run.
    pub blocks: Vec<usize>,
    /// Width of the pooling's attention; 128 as published.
    pub bottleneck: usize,
    /// Width of the embedding that the place is read from; 192 as published.
    pub embedding: usize,
    /// How predictions are brought back.
    pub conditioning: Conditioning,
}

/// Names of the maps from predictions to frames.
pub(super) const CONDITIONING_MAPS: &str = "lang2vec_conditioning_projs";

#[derive(Debug)]
struct Branch {
    pooling: AttentivePooling,
    projector: Projector,
    head: Linear,
    /// Where predictions go back.
    condition: Option<Linear>,
}

/// The branches and the maps back.
#[derive(Debug)]
pub struct GeoBranches {
    branches: BTreeMap<usize, Branch>,
    /// The map of all blocks, if they share one.
    shared: Option<Linear>,
    trainable: bool,
}

impl GeoBranches {
    /// Branches on frames of `dim` numbers, with the published tensor names: `pooling.{block}`,
    /// `projector.{block}`, `lang2vec_head.{block}.0`, `lang2vec_conditioning_projs`.
    ///
    /// Maps back that learn start at zero, so that a recogniser that is given branches
    /// computes what it did before; frozen ones start random.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(config: &GeoConfig, dim: usize, vb: &VarBuilder) -> Result<Self> {
        let maps = vb.pp(CONDITIONING_MAPS);
        let map = |vb: &VarBuilder| {
            if config.conditioning.is_trainable() {
                Linear::zero(LOCATION_DIM, dim, vb)
            } else {
                Linear::uniform(LOCATION_DIM, dim, vb)
            }
        };
        let shared = match config.conditioning {
            Conditioning::SharedTrainable | Conditioning::SharedFrozen => Some(map(&maps)?),
            _ => None,
        };
        let independent = matches!(
            config.conditioning,
            Conditioning::IndependentTrainable | Conditioning::IndependentFrozen
        );
        let mut branches = BTreeMap::new();
        for &block in &config.blocks {
            let pooling =
                AttentivePooling::new(dim, config.bottleneck, &vb.pp("pooling").pp(block))?;
            let projector =
                Projector::new(2 * dim, config.embedding, &vb.pp("projector").pp(block))?;
            let head = vb.pp("lang2vec_head").pp(block).pp(0);
            let head = Linear::uniform(config.embedding, LOCATION_DIM, &head)?;
            let condition = if independent { Some(map(&maps.pp(block).pp(0))?) } else { None };
            branches.insert(block, Branch { pooling, projector, head, condition });
        }
        Ok(Self { branches, shared, trainable: config.conditioning.is_trainable() })
    }

    /// One pass through an encoder.
    #[must_use]
    pub fn listen(&self) -> GeoListener<'_> {
        GeoListener { branches: self, predictions: Vec::new() }
    }
}

/// Predicts, and conditions, while an encoder runs.
#[derive(Debug)]
pub struct GeoListener<'a> {
    branches: &'a GeoBranches,
    /// `(batch, 299)` per branch, in the order of the blocks.
    pub predictions: Vec<Tensor>,
}

impl AfterBlock for GeoListener<'_> {
    fn block(&mut self, block: usize, frames: &Sequence, pass: &Pass) -> Result<Option<Tensor>> {
        let Some(branch) = self.branches.branches.get(&block) else { return Ok(None) };
        let pooled = branch.pooling.forward(frames, pass)?;
        let place = branch.head.forward(&branch.projector.forward(&pooled, pass)?, pass)?;
        self.predictions.push(place.clone());
        let Some(map) = branch.condition.as_ref().or(self.branches.shared.as_ref()) else {
            return Ok(None);
        };
        // What lies behind teaches the map, never the prediction.
        let mut condition = map.forward(&place.detach(), pass)?;
        if !self.branches.trainable {
            condition = condition.detach();
        }
        Ok(Some(frames.hidden.broadcast_add(&condition.unsqueeze(1)?)?))
    }
}
