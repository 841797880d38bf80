//! Heads of masked prediction: a frame is compared with the embedding of each class.

use super::pass::Pass;
use super::transformer::Linear;
use asr_kernels::Precision;
use asr_kernels::linear::linear;
use candle_core::{D, Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};
use serde::{Deserialize, Serialize};

/// Heads of masked prediction, one per resolution or label set.
#[derive(Debug)]
pub struct PretrainingHeads {
    heads: Vec<PredictionHead>,
}

/// Compares projected frames with the embedding of each class.
#[derive(Debug)]
struct PredictionHead {
    final_proj: Linear,
    /// `(classes, final_dim)`
    label_embs: Tensor,
}

/// What cosines are divided by (`logit_temp` of every published configuration).
const TEMPERATURE: f64 = 0.1;
/// Least norm that is divided by, as in PyTorch's cosine similarity.
const MIN_NORM: f64 = 1e-8;

/// Shape of one prediction head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PredictionShape {
    /// Rows of the label embeddings: the units and the dictionary's special entries.
    pub classes: usize,
    /// Width of the comparison (`final_dim`).
    pub width: usize,
}

/// How the parameters of several heads are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadNames {
    /// `final_projs.<i>` and `label_embs_concat.<i>`: MR-HuBERT.
    Numbered,
    /// All in one `final_proj` and `label_embs_concat`, one behind the other: HuBERT with
    /// `untie_final_proj`, or with a single label set.
    Together,
}

impl PretrainingHeads {
    /// Builds the heads, highest resolution first.
    ///
    /// # Errors
    /// If a parameter is missing or has another shape, or heads kept together differ in width.
    pub fn new(
        dim: usize,
        shapes: &[PredictionShape],
        names: HeadNames,
        vb: &VarBuilder,
    ) -> Result<Self> {
        let heads = match names {
            HeadNames::Numbered => shapes
                .iter()
                .enumerate()
                .map(|(i, shape)| {
                    let labels = format!("label_embs_concat.{i}");
                    Ok(PredictionHead {
                        final_proj: Linear::uniform(
                            dim,
                            shape.width,
                            &vb.pp(format!("final_projs.{i}")),
                        )?,
                        label_embs: label_embeddings(shape.classes, shape.width, &labels, vb)?,
                    })
                })
                .collect::<Result<_>>()?,
            HeadNames::Together => together(dim, shapes, vb)?,
        };
        Ok(Self { heads })
    }

    /// Number of heads.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// Shapes of the heads, highest resolution first.
    ///
    /// # Errors
    /// If a tensor is damaged.
    pub fn shapes(&self) -> Result<Vec<PredictionShape>> {
        let shape = |head: &PredictionHead| {
            let (classes, width) = head.label_embs.dims2()?;
            Ok(PredictionShape { classes, width })
        };
        self.heads.iter().map(shape).collect()
    }

    /// Logits of each class of head `index` for frames of its resolution: the cosine of the
    /// projected frame and the class, divided by 0.1 (fairseq's `logit_temp`). The cosine is
    /// computed in f32 whatever the pass says: a tenth of its rounding is what logits differ by.
    ///
    /// # Shapes
    /// `hidden`: `(..., dim)`; returns `(..., classes)`.
    ///
    /// # Errors
    /// If there is no such head or shapes disagree.
    pub fn logits(&self, index: usize, hidden: &Tensor, pass: &Pass) -> Result<Tensor> {
        let Some(head) = self.heads.get(index) else {
            bail!("head {index} of {}", self.heads.len());
        };
        let unit = |x: &Tensor| {
            let norm = x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?;
            x.broadcast_div(&norm.maximum(MIN_NORM)?)
        };
        let frames = unit(&head.final_proj.forward(hidden, pass)?)?;
        let labels = unit(&head.label_embs)?;
        let no_bias = labels.narrow(1, 0, 1)?.squeeze(1)?.zeros_like()?;
        linear(&frames, &labels, &no_bias, Precision::F32)? / TEMPERATURE
    }
}

fn label_embeddings(classes: usize, width: usize, name: &str, vb: &VarBuilder) -> Result<Tensor> {
    vb.get_with_hints((classes, width), name, Init::Uniform { lo: 0.0, up: 1.0 })
}

fn together(
    dim: usize,
    shapes: &[PredictionShape],
    vb: &VarBuilder,
) -> Result<Vec<PredictionHead>> {
    let Some(first) = shapes.first() else { return Ok(Vec::new()) };
    if shapes.iter().any(|shape| shape.width != first.width) {
        bail!("heads kept together have one width");
    }
    let all = shapes.iter().map(|shape| shape.classes).sum();
    let labels = label_embeddings(all, first.width, "label_embs_concat", vb)?;
    let projections = Linear::uniform(dim, first.width * shapes.len(), &vb.pp("final_proj"))?;
    let mut row = 0;
    shapes
        .iter()
        .enumerate()
        .map(|(i, shape)| {
            let (start, n) = (row, shape.classes);
            row += n;
            Ok(PredictionHead {
                final_proj: projections.rows(i * shape.width, shape.width)?,
                label_embs: labels.narrow(0, start, n)?,
            })
        })
        .collect()
}
