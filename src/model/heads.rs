//! What sits on top of an encoder in released checkpoints.

use super::adapter::LanguageAdapter;
use super::pass::Pass;
use super::recogniser::Logits;
use super::sequence::Sequence;
use super::transformer::Linear;
use asr_kernels::padding;
use candle_core::{Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};

/// Output layer of a CTC model.
#[derive(Debug)]
pub struct CtcHead {
    proj: Linear,
    vocab_size: usize,
}

impl CtcHead {
    /// Builds the layer on the parameters `proj.*` of `vb`.
    ///
    /// # Errors
    /// If a parameter is missing or has another shape.
    pub fn new(dim: usize, vocab_size: usize, vb: &VarBuilder) -> Result<Self> {
        Ok(Self { proj: Linear::uniform(dim, vocab_size, &vb.pp("proj"))?, vocab_size })
    }

    /// Tokens, the blank among them.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Logits of the encoder's output.
    ///
    /// # Errors
    /// If shapes disagree.
    pub fn forward(&self, output: &Sequence, pass: &Pass) -> Result<Logits> {
        let values = self.proj.forward(&output.hidden, pass)?;
        Ok(Logits { values, lengths: output.lengths.clone() })
    }
}

impl LanguageAdapter {
    /// Logits of one clip of the encoder's output over this language's tokens,
    /// `(frames, vocab)`; `clip` counts from 0.
    ///
    /// # Errors
    /// If shapes disagree.
    pub fn logits(&self, output: &Sequence, clip: usize, pass: &Pass) -> Result<Tensor> {
        let frames = output.hidden.narrow(0, clip, 1)?.narrow(1, 0, output.lengths[clip])?;
        self.head.forward(&frames, pass)?.squeeze(0)
    }
}

/// Which states a weighted sum of layers adds up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LayerSum {
    /// The last one after the final norm: transformers 4, in which such heads were trained.
    #[default]
    LastNormed,
    /// The last one before the final norm: transformers 5.
    LastRaw,
}

/// Classifier of whole clips: states of one or all layers, projected, averaged over the valid
/// frames, classified.
#[derive(Debug)]
pub struct ClassifierHead {
    /// One weight per hidden state before their softmax, if all are added up.
    layer_weights: Option<Tensor>,
    projector: Linear,
    classifier: Linear,
}

impl ClassifierHead {
    /// Builds the head for `classes` classes on the parameters of `vb`; `states` is the number
    /// of hidden states it adds up, if it does.
    ///
    /// # Errors
    /// If a parameter is missing or has another shape.
    pub fn new(
        dim: usize,
        width: usize,
        classes: usize,
        states: Option<usize>,
        vb: &VarBuilder,
    ) -> Result<Self> {
        let layer_weights = match states {
            Some(n) => {
                Some(vb.get_with_hints(n, "layer_weights", Init::Const((n as f64).recip()))?)
            }
            None => None,
        };
        Ok(Self {
            layer_weights,
            projector: Linear::uniform(dim, width, &vb.pp("projector"))?,
            classifier: Linear::uniform(width, classes, &vb.pp("classifier"))?,
        })
    }

    /// Whether it reads every hidden state rather than the output alone.
    #[must_use]
    pub fn sums_layers(&self) -> bool {
        self.layer_weights.is_some()
    }

    /// Logits `(batch, classes)` of the encoder's output and its hidden states, which a head
    /// that does not sum layers leaves unread.
    ///
    /// # Errors
    /// If shapes disagree.
    pub fn forward(
        &self,
        output: &Sequence,
        states: &[Sequence],
        sum: LayerSum,
        pass: &Pass,
    ) -> Result<Tensor> {
        let hidden = match &self.layer_weights {
            None => output.hidden.clone(),
            Some(weights) => {
                let weights = candle_nn::ops::softmax(weights, 0)?.to_vec1::<f32>()?;
                if states.len() != weights.len() {
                    bail!("{} hidden states for {} weights", states.len(), weights.len());
                }
                let mut total = output.hidden.zeros_like()?;
                for (i, (state, weight)) in states.iter().zip(&weights).enumerate() {
                    let normed = sum == LayerSum::LastNormed && i + 1 == weights.len();
                    let state = if normed { output } else { state };
                    total = (total + (&state.hidden * f64::from(*weight))?)?;
                }
                total
            }
        };
        let projected = self.projector.forward(&hidden, pass)?;
        let valid = padding::zero_padding(&projected, &output.lengths)?.sum(1)?;
        let counts: Vec<f32> = output.lengths.iter().map(|&n| n as f32).collect();
        let counts = Tensor::new(counts.as_slice(), valid.device())?.unsqueeze(1)?;
        self.classifier.forward(&valid.broadcast_div(&counts)?, pass)
    }
}
