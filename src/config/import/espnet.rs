//! `config.yaml` of ESPnet's HuBERT pre-training, as WavLabLM has it.

use super::error::ImportError;
use crate::model::{ConvLayer, ConvNorm, EncoderConfig, Family, Sampling, Variant};
use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

/// Largest configuration that is read: token lists make them long.
const MAX_BYTES: u64 = 16 << 20;

/// The scalars and number lists under `encoder_conf`, and the encoder's name.
///
/// ESPnet writes its configuration with one key a line; of that, this reads the few flat keys
/// that describe the encoder and nothing else of YAML.
#[derive(Debug, Default)]
struct EncoderSettings {
    encoder: Option<String>,
    values: HashMap<String, String>,
}

impl EncoderSettings {
    fn parse(text: &str) -> Self {
        let mut settings = Self::default();
        let mut inside = false;
        let mut indent = None;
        let mut key: Option<String> = None;
        for line in text.lines() {
            let trimmed = line.trim_start();
            let depth = line.len() - trimmed.len();
            if trimmed.is_empty() || trimmed.starts_with('#') {
                continue;
            }
            if depth == 0 {
                inside = trimmed.starts_with("encoder_conf:");
                if let Some(name) = trimmed.strip_prefix("encoder:") {
                    settings.encoder = Some(name.trim().to_owned());
                }
                continue;
            }
            if !inside {
                continue;
            }
            let is_key = depth <= *indent.get_or_insert(depth) && !trimmed.starts_with('-');
            match trimmed.split_once(':').filter(|_| is_key) {
                Some((name, value)) => {
                    settings.values.insert(name.trim().to_owned(), value.trim().to_owned());
                    key = Some(name.trim().to_owned());
                }
                // A list over several lines: its numbers are kept, its brackets are not.
                None => {
                    let value = key.as_ref().and_then(|key| settings.values.get_mut(key));
                    if let Some(value) = value {
                        value.push(' ');
                        value.push_str(trimmed);
                    }
                }
            }
        }
        settings
    }

    fn size(&self, name: &str, field: &'static str, default: usize) -> Result<usize, ImportError> {
        let problem = "must be a whole number";
        let error = || ImportError::Setting { name: name.to_owned(), field, problem };
        self.values.get(field).map_or(Ok(default), |value| value.parse().map_err(|_| error()))
    }

    fn flag(&self, field: &str) -> bool {
        self.values.get(field).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    fn rate(&self, field: &str) -> f32 {
        self.values.get(field).and_then(|value| value.parse().ok()).unwrap_or(0.0)
    }
}

/// Reads the encoder that `config.yaml` describes.
pub(super) fn read(path: &Path) -> Result<EncoderConfig, ImportError> {
    let io = |source| ImportError::Io { path: path.to_owned(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(io)?;
    file.take(MAX_BYTES).read_to_string(&mut text).map_err(io)?;
    encoder(&text, &path.display().to_string())
}

fn encoder(text: &str, name: &str) -> Result<EncoderConfig, ImportError> {
    let settings = EncoderSettings::parse(text);
    let setting = |field, problem| ImportError::Setting { name: name.to_owned(), field, problem };
    if settings.encoder.as_deref() != Some("torchaudio_hubert") {
        return Err(setting("encoder", "must be `torchaudio_hubert`, no other is known"));
    }
    let size = |field, default| settings.size(name, field, default);
    const CONVOLUTIONS: &str = "extractor_conv_layer_config";
    let conv_layers = match settings.values.get(CONVOLUTIONS).map(String::as_str) {
        None | Some("" | "null") => super::standard_conv_layers(512),
        Some(list) => {
            let numbers: Option<Vec<usize>> = list
                .split(|c: char| c.is_whitespace() || "[],-".contains(c))
                .filter(|part| !part.is_empty())
                .map(|part| part.parse().ok())
                .collect();
            let numbers = numbers.filter(|n| n.len() % 3 == 0);
            numbers
                .ok_or_else(|| setting(CONVOLUTIONS, "must be a list of [dim, kernel, stride]"))?
                .chunks_exact(3)
                .map(|n| ConvLayer { dim: n[0], kernel: n[1], stride: n[2] })
                .collect()
        }
    };
    let config = EncoderConfig {
        input_channels: 1,
        conv_layers,
        conv_norm: match settings.values.get("extractor_mode").map(String::as_str) {
            None | Some("group_norm") => ConvNorm::FirstGroup,
            Some("layer_norm") => ConvNorm::EveryLayer,
            Some(_) => {
                return Err(setting("extractor_mode", "must be `group_norm` or `layer_norm`"));
            }
        },
        embed_dim: size("encoder_embed_dim", 768)?,
        ffn_dim: size("encoder_ff_interm_features", 3072)?,
        heads: size("encoder_num_heads", 12)?,
        stage_layers: vec![size("encoder_num_layers", 12)?],
        rate_ratios: Vec::new(),
        sampling: Sampling::ConvAdapter { kernel: 1 },
        layer_norm_first: settings.flag("encoder_layer_norm_first"),
        position_kernel: size("encoder_pos_conv_kernel", 128)?,
        position_groups: size("encoder_pos_conv_groups", 16)?,
        dropout: settings.rate("encoder_dropout"),
        attention_dropout: settings.rate("encoder_attention_dropout"),
        activation_dropout: settings.rate("encoder_ff_interm_dropout"),
        input_dropout: settings.rate("encoder_projection_dropout"),
        layer_drop: settings.rate("encoder_layer_drop"),
        variant: Variant {
            family: Family::Hubert,
            conv_bias: settings.flag("extractor_conv_bias"),
            always_project: true,
            ..Variant::default()
        },
    };
    config.validate().map_err(|source| ImportError::Encoder { name: name.to_owned(), source })?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_writing_a_list_are_read() -> Result<(), ImportError> {
        let head = "encoder: torchaudio_hubert\nencoder_conf:\n    encoder_embed_dim: 64\n";
        let tail = "    encoder_num_heads: 4\n    encoder_layer_norm_first: true\nmodel: x\n";
        let block = "    extractor_conv_layer_config:\n    -   - 32\n        - 10\n        - 5\n    -   - 32\n        - 3\n        - 2\n";
        let flow = "    extractor_conv_layer_config: [[32, 10, 5], [32, 3, 2]]\n";
        for list in [block, flow] {
            let config = encoder(&format!("{head}{list}{tail}"), "x")?;
            assert_eq!((config.embed_dim, config.heads, config.ffn_dim), (64, 4, 3072));
            assert_eq!(config.conv_layers.len(), 2);
            assert_eq!(config.conv_layers[1], ConvLayer { dim: 32, kernel: 3, stride: 2 });
            assert!(config.layer_norm_first);
        }
        assert!(encoder("encoder: conformer\n", "x").is_err());
        assert!(encoder(&format!("{head}    encoder_num_heads: many\n"), "x").is_err());
        Ok(())
    }
}
