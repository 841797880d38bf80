//! What is said of a model besides its tensors.

use crate::config::{AnyModel, Head, ModelInput, WaveformNorm};
use crate::features::EncoderInput;
use crate::model::EncoderConfig;
use crate::text::CtcTokens;
use serde::Serialize;

/// The head whose labels are classes, not languages.
const CLASSIFIER: &str = "classifier";
/// Labels listed in text.
const LISTED: usize = 12;

/// A model in numbers and names.
#[derive(Serialize)]
pub(super) struct ModelFacts {
    family: &'static str,
    /// Values in the parameters in use; with the adapter of one language where each has its own.
    parameters: usize,
    /// Transformer layers of each stage, in the order they run.
    layers: Vec<usize>,
    width: usize,
    ffn_width: usize,
    heads: usize,
    /// Milliseconds per frame of each output, lowest rate first.
    resolutions_ms: Vec<f64>,
    /// What it reads.
    input: &'static str,
    /// What stands on the encoder: `none`, `ctc`, `ctc with adapters` or `classifier`.
    head: &'static str,
    /// Tokens of a CTC head, where they are known; classes of a classifier.
    n_labels: Option<usize>,
    /// Classes, or languages with a tag or an adapter of their own.
    labels: Vec<String>,
}

impl ModelFacts {
    pub(super) fn new(model: &AnyModel) -> Self {
        match model {
            AnyModel::Folder(files) => {
                let languages = files.vocabulary.languages().iter().map(ToString::to_string);
                Self::of_encoder(
                    &files.config.encoder,
                    files.parameters.count(),
                    match files.config.input() {
                        EncoderInput::LogMel(features, _) => Some(features.shift_ms),
                        EncoderInput::Waveform(_) => None,
                    },
                )
                .with_head(
                    "ctc",
                    Some(files.vocabulary.len()),
                    languages.collect(),
                )
            }
            AnyModel::Speech(model) => {
                let frame_ms = match model.input() {
                    ModelInput::Waveform(_) => None,
                    ModelInput::LogMel { .. } => Some(1000.0 * model.input().step_s()),
                };
                let mut facts =
                    Self::of_encoder(model.encoder().config(), model.n_parameters(), frame_ms);
                if let ModelInput::Waveform(WaveformNorm::ZeroMeanUnitVariance { .. }) =
                    model.input()
                {
                    facts.input = "waveform, to zero mean and unit variance";
                }
                match model.head() {
                    Head::None => facts,
                    Head::Ctc { tokens, .. } => {
                        let n_labels = tokens.as_ref().map(CtcTokens::len);
                        facts.with_head("ctc", n_labels, Vec::new())
                    }
                    Head::Languages(units) => {
                        let n_labels = units.own().tokens.len();
                        let languages = units.languages().unwrap_or_default();
                        facts.with_head("ctc with adapters", Some(n_labels), languages)
                    }
                    Head::Classifier { labels, .. } => {
                        facts.with_head(CLASSIFIER, Some(labels.len()), labels.clone())
                    }
                }
            }
        }
    }

    /// `frame_ms` is what an input frame lasts; without it the input is 16 kHz samples.
    fn of_encoder(config: &EncoderConfig, parameters: usize, frame_ms: Option<f64>) -> Self {
        let stride: usize = config.conv_layers.iter().map(|layer| layer.stride).product();
        let mut ms = stride as f64 * frame_ms.unwrap_or(1.0 / 16.0);
        let mut resolutions_ms = vec![ms];
        for [up, down] in &config.rate_ratios {
            ms *= *down as f64 / *up as f64;
            resolutions_ms.push(ms);
        }
        resolutions_ms.reverse();
        Self {
            family: config.variant.family.name(),
            parameters,
            layers: config.stage_layers.clone(),
            width: config.embed_dim,
            ffn_width: config.ffn_dim,
            heads: config.heads,
            resolutions_ms,
            input: if frame_ms.is_some() { "log-mel filter banks" } else { "waveform" },
            head: "none",
            n_labels: None,
            labels: Vec::new(),
        }
    }

    fn with_head(self, head: &'static str, n_labels: Option<usize>, labels: Vec<String>) -> Self {
        Self { head, n_labels, labels, ..self }
    }

    /// Names and values for people.
    pub(super) fn lines(&self) -> Vec<(&'static str, String)> {
        let joined = |parts: Vec<String>, with: &str| parts.join(with);
        let layers = self.layers.iter().map(ToString::to_string).collect();
        let resolutions = self.resolutions_ms.iter().map(|ms| format!("{ms} ms")).collect();
        let mut lines = vec![
            ("family", self.family.to_owned()),
            ("parameters", format!("{} ({:.1} M)", self.parameters, self.parameters as f64 / 1e6)),
            (
                "encoder",
                format!(
                    "{} layers, width {}, feed-forward {}, {} heads",
                    joined(layers, "-"),
                    self.width,
                    self.ffn_width,
                    self.heads
                ),
            ),
            ("resolutions", joined(resolutions, ", ")),
            ("input", self.input.to_owned()),
            (
                "head",
                match self.n_labels {
                    Some(n) => format!("{}, {n} labels", self.head),
                    None => self.head.to_owned(),
                },
            ),
        ];
        if !self.labels.is_empty() {
            let listed = self.labels.iter().take(LISTED);
            let mut labels: Vec<String> =
                listed.map(|label| label.escape_debug().to_string()).collect();
            if self.labels.len() > LISTED {
                labels.push(format!("and {} more (--json lists them)", self.labels.len() - LISTED));
            }
            let title = if self.head == CLASSIFIER { "classes" } else { "languages" };
            lines.push((title, labels.join(" ")));
        }
        lines
    }
}
