//! The language of a whole clip: pooled frames, an embedding, cosines to class centres.

use super::ecapa::EcapaTdnn;
use super::location::LOCATION_DIM;
use super::pass::Pass;
use super::pooling::{AttentivePooling, Projector, mean};
use super::sequence::Sequence;
use super::transformer::Linear;
use candle_core::{D, Result, Tensor};
use candle_nn::{Init, VarBuilder};
use serde::{Deserialize, Serialize};

/// An ECAPA-TDNN before the pooling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EcapaConfig {
    /// Channels inside, a multiple of 8; 512 as published.
    pub dim: usize,
    /// Channels it gives; 1536 as published.
    pub outputs: usize,
}

/// Size of a [`LanguageHead`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LanguageHeadConfig {
    /// The block whose frames it reads, from 0; without one it reads the encoder's output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<usize>,
    /// A frame encoder of its own; without one the encoder's frames are pooled as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ecapa: Option<EcapaConfig>,
    /// Width of the pooling's attention; 128 as published.
    pub bottleneck: usize,
    /// Width of the embedding; 192 as published.
    pub embedding: usize,
    /// Centres of each language, of which the nearest counts; 3 as published.
    pub sub_centres: usize,
    /// Whether the place of the language is predicted from the embedding as well.
    pub location: bool,
}

/// What a [`LanguageHead`] says of a batch.
#[derive(Debug, Clone)]
pub struct LanguageOutput {
    /// `(batch, embedding)`, not normalised.
    pub embedding: Tensor,
    /// `(batch, classes)`: cosine of the embedding and the nearest centre of each class.
    pub cosines: Tensor,
    /// `(batch, 299)`: the predicted geolocation vector, where there is a head for it.
    pub location: Option<Tensor>,
}

/// The head: per-clip mean removed, ECAPA-TDNN, attentive pooling, projector, centres.
#[derive(Debug)]
pub struct LanguageHead {
    encoder: Option<EcapaTdnn>,
    pooling: AttentivePooling,
    projector: Projector,
    /// `(classes * sub_centres, embedding)`, the centres of a class one after the other.
    weight: Tensor,
    location: Option<Linear>,
    sub_centres: usize,
}

impl LanguageHead {
    /// A head on frames of `dim` numbers for `classes` languages, with the published tensor
    /// names: `encoder`, `pooling`, `projector`, `loss.weight`, `loss.lang2vec_head.0`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(
        config: &LanguageHeadConfig,
        dim: usize,
        classes: usize,
        vb: &VarBuilder,
    ) -> Result<Self> {
        let (encoder, width) = match &config.ecapa {
            Some(ecapa) => (
                Some(EcapaTdnn::new(dim, ecapa.dim, ecapa.outputs, &vb.pp("encoder"))?),
                ecapa.outputs,
            ),
            None => (None, dim),
        };
        let (rows, embedding) = (classes * config.sub_centres, config.embedding);
        // Xavier uniform.
        let bound = (6.0 / (rows + embedding) as f64).sqrt();
        let loss = vb.pp("loss");
        Ok(Self {
            encoder,
            pooling: AttentivePooling::new(width, config.bottleneck, &vb.pp("pooling"))?,
            projector: Projector::new(2 * width, embedding, &vb.pp("projector"))?,
            weight: loss.get_with_hints(
                (rows, embedding),
                "weight",
                Init::Uniform { lo: -bound, up: bound },
            )?,
            location: if config.location {
                Some(Linear::uniform(embedding, LOCATION_DIM, &loss.pp("lang2vec_head").pp(0))?)
            } else {
                None
            },
            sub_centres: config.sub_centres,
        })
    }

    /// Reads `(batch, frames, dim)`.
    ///
    /// With padded norms the mean is taken off padding too, as in the reference.
    ///
    /// # Errors
    /// If shapes disagree.
    pub fn forward(&self, input: &Sequence, pass: &Pass) -> Result<LanguageOutput> {
        let clean = input.zero_padding()?;
        let centred = input.with_hidden(clean.hidden.broadcast_sub(&mean(input)?)?);
        let frames = match &self.encoder {
            Some(encoder) => encoder.forward(&centred, pass)?,
            None => centred,
        };
        let pooled = self.pooling.forward(&frames, pass)?;
        let embedding = self.projector.forward(&pooled, pass)?;
        let cosines = unit_rows(&embedding)?.matmul(&unit_rows(&self.weight)?.t()?)?;
        let (batch, rows) = cosines.dims2()?;
        let shape = (batch, rows / self.sub_centres, self.sub_centres);
        let cosines = cosines.reshape(shape)?.max(D::Minus1)?;
        let location = match &self.location {
            Some(head) => Some(head.forward(&embedding, pass)?),
            None => None,
        };
        Ok(LanguageOutput { embedding, cosines, location })
    }
}

/// Rows of length 1; shorter than 1e-12 they are divided by that, as PyTorch does.
fn unit_rows(x: &Tensor) -> Result<Tensor> {
    let length = x.sqr()?.sum_keepdim(D::Minus1)?.maximum(1e-24)?.sqrt()?;
    x.broadcast_div(&length)
}
