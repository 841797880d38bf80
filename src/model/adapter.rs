//! Adapters that turn one wav2vec 2.0 into a recogniser of one language each (MMS, Pratap et
//! al. 2023, arXiv 2305.13516, section 4.4).

use super::config::EncoderConfig;
use super::pass::Pass;
use super::transformer::{LayerNorm, Linear};
use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

/// The small layers behind every Transformer layer and the output layer, for one language.
///
/// They belong together: a base model with the adapters of one language and the output layer
/// of another spells nonsense.
#[derive(Debug)]
pub struct LanguageAdapter {
    layers: Vec<AdapterLayer>,
    pub(super) head: Linear,
    vocab_size: usize,
}

#[derive(Debug)]
struct AdapterLayer {
    norm: LayerNorm,
    linear_1: Linear,
    linear_2: Linear,
}

impl LanguageAdapter {
    /// Builds the adapters and the output layer of `vocab_size` tokens on the parameters of `vb`.
    ///
    /// # Errors
    /// If a parameter is missing or has another shape, or the encoder takes no adapters.
    pub fn new(config: &EncoderConfig, vocab_size: usize, vb: &VarBuilder) -> Result<Self> {
        let Some(width) = config.variant.adapter_dim else {
            candle_core::bail!("the encoder takes no adapters");
        };
        let dim = config.embed_dim;
        let layer = |i: usize| {
            let vb = vb.pp("encoder.layers").pp(i).pp("adapter_layer");
            Ok(AdapterLayer {
                norm: LayerNorm::new(dim, &vb.pp("norm"))?,
                linear_1: Linear::uniform(dim, width, &vb.pp("linear_1"))?,
                linear_2: Linear::uniform(width, dim, &vb.pp("linear_2"))?,
            })
        };
        Ok(Self {
            layers: (0..config.stage_layers.iter().sum()).map(layer).collect::<Result<_>>()?,
            head: Linear::uniform(dim, vocab_size, &vb.pp("proj"))?,
            vocab_size,
        })
    }

    /// Tokens of its output layer.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn forward(&self, layer: usize, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let layer = &self.layers[layer];
        let hidden = layer.linear_1.forward(&layer.norm.forward(x)?, pass)?.relu()?;
        x + layer.linear_2.forward(&hidden, pass)?
    }
}

/// `x` after the adapter of each clip behind Transformer layer `layer`; `x` itself where there
/// are none.
pub(super) fn adapt(
    adapters: &[&LanguageAdapter],
    layer: usize,
    x: Tensor,
    pass: &Pass,
) -> Result<Tensor> {
    let Some((first, rest)) = adapters.split_first() else {
        return Ok(x);
    };
    if rest.iter().all(|other| std::ptr::eq(*first, *other)) {
        return first.forward(layer, &x, pass);
    }
    let clips = adapters
        .iter()
        .enumerate()
        .map(|(i, adapter)| adapter.forward(layer, &x.narrow(0, i, 1)?, pass))
        .collect::<Result<Vec<_>>>()?;
    Tensor::cat(&clips, 0)
}
