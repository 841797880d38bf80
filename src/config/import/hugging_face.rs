//! `config.json` and its companions of Hugging Face transformers.

use super::error::ImportError;
use crate::model::{
    ConvLayer, ConvNorm, EncoderConfig, Family, RelativePositions, Sampling, Variant,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// Largest JSON file that is read: vocabularies of a thousand languages take a few megabytes.
const MAX_JSON_BYTES: u64 = 64 << 20;

/// `config.json`; defaults are those of transformers, which leaves them out.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub(super) struct HubConfig {
    pub(super) model_type: String,
    pub(super) architectures: Option<Vec<String>>,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    hidden_act: String,
    feat_extract_activation: String,
    feat_extract_norm: String,
    feat_proj_layer_norm: bool,
    conv_dim: Vec<usize>,
    conv_kernel: Vec<usize>,
    conv_stride: Vec<usize>,
    num_feat_extract_layers: Option<usize>,
    conv_bias: bool,
    conv_pos_batch_norm: bool,
    num_conv_pos_embeddings: usize,
    num_conv_pos_embedding_groups: usize,
    do_stable_layer_norm: bool,
    layer_norm_eps: f64,
    hidden_dropout: f32,
    attention_dropout: f32,
    activation_dropout: f32,
    feat_proj_dropout: f32,
    layerdrop: f32,
    num_buckets: usize,
    max_bucket_distance: usize,
    add_adapter: bool,
    adapter_attn_dim: Option<usize>,
    pub(super) vocab_size: usize,
    pub(super) pad_token_id: Option<u32>,
    pub(super) classifier_proj_size: usize,
    pub(super) use_weighted_layer_sum: bool,
    id2label: Option<BTreeMap<String, String>>,
}

impl Default for HubConfig {
    fn default() -> Self {
        Self {
            model_type: String::new(),
            architectures: None,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: "gelu".into(),
            feat_extract_activation: "gelu".into(),
            feat_extract_norm: "group".into(),
            feat_proj_layer_norm: true,
            conv_dim: vec![512; 7],
            conv_kernel: vec![10, 3, 3, 3, 3, 2, 2],
            conv_stride: vec![5, 2, 2, 2, 2, 2, 2],
            num_feat_extract_layers: None,
            conv_bias: false,
            conv_pos_batch_norm: false,
            num_conv_pos_embeddings: 128,
            num_conv_pos_embedding_groups: 16,
            do_stable_layer_norm: false,
            layer_norm_eps: 1e-5,
            hidden_dropout: 0.1,
            attention_dropout: 0.1,
            activation_dropout: 0.1,
            feat_proj_dropout: 0.0,
            layerdrop: 0.1,
            num_buckets: 320,
            max_bucket_distance: 800,
            add_adapter: false,
            adapter_attn_dim: None,
            vocab_size: 32,
            pad_token_id: Some(0),
            classifier_proj_size: 256,
            use_weighted_layer_sum: false,
            id2label: None,
        }
    }
}

/// `preprocessor_config.json`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default)]
pub(super) struct Preprocessor {
    pub(super) do_normalize: bool,
    pub(super) return_attention_mask: bool,
    pub(super) sampling_rate: u32,
}

impl Default for Preprocessor {
    fn default() -> Self {
        Self { do_normalize: true, return_attention_mask: false, sampling_rate: 16_000 }
    }
}

/// What is on top of the encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HubHead {
    None,
    Ctc,
    Classifier,
}

/// Reads a JSON file of bounded size; `None` if it is not there.
pub(super) fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>, ImportError> {
    let io = |source| ImportError::Io { path: path.to_owned(), source };
    if !path.exists() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(io)?;
    file.take(MAX_JSON_BYTES).read_to_end(&mut bytes).map_err(io)?;
    Ok(Some(bytes))
}

/// Reads a JSON file; `None` if it is not there.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ImportError> {
    let Some(bytes) = read_bytes(path)? else { return Ok(None) };
    let value = serde_json::from_slice(&bytes)
        .map_err(|source| ImportError::Json { path: path.to_owned(), source })?;
    Ok(Some(value))
}

impl HubConfig {
    /// The encoder it describes; `name` stands for the file in errors.
    pub(super) fn encoder(&self, name: &str) -> Result<EncoderConfig, ImportError> {
        let setting =
            |field, problem| ImportError::Setting { name: name.to_owned(), field, problem };
        let family = match self.model_type.as_str() {
            "hubert" => Family::Hubert,
            "wav2vec2" => Family::Wav2vec2,
            "wavlm" => Family::Wavlm,
            other => {
                return Err(ImportError::ModelType {
                    name: name.to_owned(),
                    model_type: other.chars().take(64).collect(),
                });
            }
        };
        let layers = self.conv_dim.len();
        if self.conv_kernel.len() != layers
            || self.conv_stride.len() != layers
            || self.num_feat_extract_layers.is_some_and(|n| n != layers)
        {
            let problem = "must have as many entries as conv_kernel and conv_stride";
            return Err(setting("conv_dim", problem));
        }
        for (field, activation) in [
            ("hidden_act", &self.hidden_act),
            ("feat_extract_activation", &self.feat_extract_activation),
        ] {
            if activation != "gelu" {
                return Err(setting(field, "must be `gelu`, no other activation is known"));
            }
        }
        if self.conv_pos_batch_norm {
            return Err(setting("conv_pos_batch_norm", "must be false: batch norm is not known"));
        }
        if self.add_adapter {
            return Err(setting("add_adapter", "must be false: length adapters are not known"));
        }
        let config = EncoderConfig {
            input_channels: 1,
            conv_layers: (0..layers)
                .map(|i| ConvLayer {
                    dim: self.conv_dim[i],
                    kernel: self.conv_kernel[i],
                    stride: self.conv_stride[i],
                })
                .collect(),
            conv_norm: match self.feat_extract_norm.as_str() {
                "group" => ConvNorm::FirstGroup,
                "layer" => ConvNorm::EveryLayer,
                _ => return Err(setting("feat_extract_norm", "must be `group` or `layer`")),
            },
            embed_dim: self.hidden_size,
            ffn_dim: self.intermediate_size,
            heads: self.num_attention_heads,
            stage_layers: vec![self.num_hidden_layers],
            rate_ratios: Vec::new(),
            sampling: Sampling::ConvAdapter { kernel: 1 },
            layer_norm_first: self.do_stable_layer_norm,
            position_kernel: self.num_conv_pos_embeddings,
            position_groups: self.num_conv_pos_embedding_groups,
            dropout: self.hidden_dropout,
            attention_dropout: self.attention_dropout,
            activation_dropout: self.activation_dropout,
            input_dropout: self.feat_proj_dropout,
            layer_drop: self.layerdrop,
            variant: Variant {
                family,
                conv_bias: self.conv_bias,
                always_project: true,
                raw_features: family == Family::Hubert && !self.feat_proj_layer_norm,
                layer_norm_eps: (self.layer_norm_eps != 1e-5).then_some(self.layer_norm_eps),
                relative_positions: (family == Family::Wavlm).then_some(RelativePositions {
                    buckets: self.num_buckets,
                    max_distance: self.max_bucket_distance,
                }),
                adapter_dim: self.adapter_attn_dim.filter(|_| family == Family::Wav2vec2),
                ..Variant::default()
            },
        };
        config
            .validate()
            .map_err(|source| ImportError::Encoder { name: name.to_owned(), source })?;
        Ok(config)
    }

    /// The head that its architecture has, or that the weights speak for.
    pub(super) fn head(&self, has: impl Fn(&str) -> bool) -> HubHead {
        match self.architectures.as_ref().and_then(|names| names.first()) {
            Some(name) if name.ends_with("ForCTC") => HubHead::Ctc,
            Some(name) if name.ends_with("ForSequenceClassification") => HubHead::Classifier,
            Some(_) => HubHead::None,
            None if has("proj.weight") => HubHead::Ctc,
            None if has("classifier.weight") && has("projector.weight") => HubHead::Classifier,
            None => HubHead::None,
        }
    }

    /// Names of the classes in order.
    pub(super) fn labels(&self, name: &str) -> Result<Vec<String>, ImportError> {
        let setting =
            |problem| ImportError::Setting { name: name.to_owned(), field: "id2label", problem };
        let Some(labels) = &self.id2label else {
            return Ok(vec!["LABEL_0".to_owned(), "LABEL_1".to_owned()]);
        };
        let mut ordered = vec![None; labels.len()];
        for (id, label) in labels {
            let slot = id.parse::<usize>().ok().and_then(|id| ordered.get_mut(id));
            *slot.ok_or_else(|| setting("must number its labels 0, 1, 2, ..."))? =
                Some(label.clone());
        }
        let n = ordered.len();
        let labels: Vec<String> = ordered.into_iter().flatten().collect();
        if labels.len() != n || n == 0 {
            return Err(setting("must number its labels 0, 1, 2, ... each once"));
        }
        Ok(labels)
    }
}
