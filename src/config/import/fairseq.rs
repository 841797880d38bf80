//! Settings inside the checkpoints of fairseq, of s3prl's converters and of unilm's WavLM.

use super::error::ImportError;
use crate::model::checkpoint::Value;
use crate::model::{
    ConvLayer, ConvNorm, EncoderConfig, Family, RelativePositions, Sampling, UpsamplerOrder,
    Variant,
};

/// Most convolutions that a setting is read to.
const MAX_CONVOLUTIONS: usize = 64;

/// Settings of a checkpoint: those of the model, and whether waveforms are normalised.
pub(super) struct Settings<'a> {
    model: &'a Value,
    task: Option<&'a Value>,
    /// Where they stand in the file, for errors.
    name: &'a str,
}

impl<'a> Settings<'a> {
    /// Finds the settings of a checkpoint; `None` if it has none.
    pub(super) fn find(root: &'a Value, name: &'a str) -> Option<Self> {
        let there = |key: &str| root.get(key).filter(|value| !value.is_none());
        // s3prl's converter; then fairseq since 1.0, whose settings are in groups, unilm, whose
        // are not, and fairseq before 1.0.
        let (model, task) = if let Some(model) = there("model_cfg") {
            (model, there("task_cfg"))
        } else if let Some(cfg) = there("cfg") {
            match cfg.get("model").filter(|model| !model.is_none()) {
                Some(model) => (model, cfg.get("task")),
                None => (cfg, None),
            }
        } else {
            (there("args")?, None)
        };
        // A fine-tuned model keeps the settings of the pre-trained one inside its own.
        match model.get("w2v_args").filter(|inner| !inner.is_none()) {
            Some(inner) => {
                let model = inner.get("model").filter(|model| !model.is_none()).unwrap_or(inner);
                Some(Self { model, task: inner.get("task").or(task), name })
            }
            None => Some(Self { model, task, name }),
        }
    }

    fn error(&self, field: &'static str, problem: &'static str) -> ImportError {
        ImportError::Setting { name: self.name.to_owned(), field, problem }
    }

    fn get(&self, field: &str) -> Option<&'a Value> {
        self.model.get(field).filter(|value| !value.is_none())
    }

    fn size(&self, field: &'static str, default: usize) -> Result<usize, ImportError> {
        match self.get(field) {
            None => Ok(default),
            Some(value) => value
                .as_i64()
                .and_then(|n| usize::try_from(n).ok())
                .ok_or_else(|| self.error(field, "must be a whole number")),
        }
    }

    fn flag(&self, field: &'static str) -> bool {
        self.get(field).and_then(Value::as_bool).unwrap_or(false)
    }

    fn rate(&self, field: &'static str) -> f32 {
        self.get(field).and_then(Value::as_f64).unwrap_or(0.0) as f32
    }

    /// Whether waveforms are normalised before they are encoded.
    pub(super) fn normalise(&self) -> bool {
        let of = |value: Option<&Value>| value?.get("normalize")?.as_bool();
        of(self.task).or_else(|| of(Some(self.model))).unwrap_or(false)
    }

    /// The encoder; `has_tree` says whether the weights are those of several resolutions.
    pub(super) fn encoder(
        &self,
        has_tree: bool,
        order: UpsamplerOrder,
    ) -> Result<EncoderConfig, ImportError> {
        let kind = self.get("_name").or_else(|| self.get("arch")).and_then(Value::as_str);
        let wavlm = self.flag("relative_position_embedding");
        let family = if has_tree {
            Family::MrHubert
        } else if wavlm {
            Family::Wavlm
        } else if kind.is_some_and(|kind| kind.starts_with("wav2vec")) {
            Family::Wav2vec2
        } else {
            Family::Hubert
        };
        for (field, known) in
            [("activation_fn", "gelu"), ("layer_type", "transformer"), ("pos_enc_type", "abs")]
        {
            if self.get(field).and_then(Value::as_str).is_some_and(|value| value != known) {
                return Err(self.error(field, "has a value that no known encoder has"));
            }
        }
        if self.flag("conv_pos_batch_norm") || self.size("pos_conv_depth", 1)? > 1 {
            return Err(self.error("conv_pos", "asks for another position convolution than known"));
        }
        if wavlm && !self.flag("gru_rel_pos") {
            return Err(
                self.error("gru_rel_pos", "must be true: positions without gate are not known")
            );
        }
        let (stage_layers, rate_ratios) =
            if has_tree { self.tree()? } else { (vec![self.size("encoder_layers", 12)?], vec![]) };
        let kernel = self.size("conv_adapator_kernal", 7)?;
        let config = EncoderConfig {
            input_channels: 1,
            conv_layers: self.conv_layers()?,
            conv_norm: match self.get("extractor_mode").and_then(Value::as_str) {
                None | Some("default") => ConvNorm::FirstGroup,
                Some("layer_norm") => ConvNorm::EveryLayer,
                Some(_) => {
                    return Err(self.error("extractor_mode", "must be `default` or `layer_norm`"));
                }
            },
            embed_dim: self.size("encoder_embed_dim", 768)?,
            ffn_dim: self.size("encoder_ffn_embed_dim", 3072)?,
            heads: self.size("encoder_attention_heads", 12)?,
            stage_layers,
            rate_ratios,
            sampling: if self.flag("use_plain_updownsample") {
                Sampling::Plain { kernel }
            } else {
                Sampling::ConvAdapter { kernel }
            },
            layer_norm_first: self.flag("layer_norm_first"),
            position_kernel: self.size("conv_pos", 128)?,
            position_groups: self.size("conv_pos_groups", 16)?,
            dropout: self.rate("dropout"),
            attention_dropout: self.rate("attention_dropout"),
            activation_dropout: self.rate("activation_dropout"),
            input_dropout: self.rate("dropout_input"),
            layer_drop: self.rate("encoder_layerdrop"),
            variant: Variant {
                family,
                conv_bias: self.flag("conv_bias"),
                relative_positions: if wavlm {
                    Some(RelativePositions {
                        buckets: self.size("num_buckets", 320)?,
                        max_distance: self.size("max_distance", 1280)?,
                    })
                } else {
                    None
                },
                upsampler_order: order,
                ..Variant::default()
            },
        };
        config
            .validate()
            .map_err(|source| ImportError::Encoder { name: self.name.to_owned(), source })?;
        Ok(config)
    }

    /// Layers of each stage in the order they run, and the rate changes.
    fn tree(&self) -> Result<(Vec<usize>, Vec<[usize; 2]>), ImportError> {
        const RATIOS: &str = "label_rate_ratios";
        let flat = self.get(RATIOS).and_then(numbers).unwrap_or_default();
        if !flat.len().is_multiple_of(2) || flat.len() > 16 {
            return Err(self.error(RATIOS, "must be at most eight pairs"));
        }
        let ratios: Vec<[usize; 2]> = flat.chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect();
        let stages = 2 * ratios.len() + 1;
        let counts = match self.get("override_encoder_layers").and_then(numbers) {
            Some(counts) if !counts.is_empty() => counts,
            _ => vec![self.size("encoder_layers", 12)?; stages],
        };
        if counts.len() != stages {
            return Err(self.error("override_encoder_layers", "must have one entry per stage"));
        }
        // The published code reads the decoders' counts from the end, so the decoder that runs
        // first (at the lowest rate) gets the last one.
        let down = ratios.len() + 1;
        let up = counts[down..].iter().rev();
        Ok((counts[..down].iter().chain(up).copied().collect(), ratios))
    }

    fn conv_layers(&self) -> Result<Vec<ConvLayer>, ImportError> {
        const FIELD: &str = "conv_feature_layers";
        let Some(value) = self.get(FIELD) else {
            return Ok(super::standard_conv_layers(512));
        };
        let problem = "must be a sum of lists of (dim, kernel, stride)";
        value.as_str().and_then(parse_conv_layers).ok_or_else(|| self.error(FIELD, problem))
    }
}

/// Whole numbers of a list, or of a text such as `[3,2,2]`.
fn numbers(value: &Value) -> Option<Vec<usize>> {
    if let Some(list) = value.as_list() {
        return list.iter().map(|n| usize::try_from(n.as_i64()?).ok()).collect();
    }
    let text = value.as_str()?.trim();
    let text = text.trim_start_matches(['[', '(']).trim_end_matches([']', ')']);
    if text.trim().is_empty() {
        return Some(Vec::new());
    }
    text.split([',', '-']).map(|n| n.trim().parse().ok()).collect()
}

/// Reads the Python expressions that fairseq evaluates: lists of triples, repeated with `*`,
/// added with `+`, as in `[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2`.
fn parse_conv_layers(text: &str) -> Option<Vec<ConvLayer>> {
    let mut layers = Vec::new();
    for term in text.split('+') {
        let (list, times) = match term.rsplit_once('*') {
            Some((list, times)) => (list, times.trim().parse().ok()?),
            None => (term, 1_usize),
        };
        let list = list.trim().strip_prefix('[')?.strip_suffix(']')?;
        let triples: Vec<ConvLayer> = list
            .split(')')
            .map(|triple| triple.trim().trim_start_matches(',').trim())
            .filter(|triple| !triple.is_empty())
            .map(|triple| {
                let numbers: Vec<usize> = triple
                    .strip_prefix('(')?
                    .split(',')
                    .map(|n| n.trim().parse().ok())
                    .collect::<Option<_>>()?;
                let [dim, kernel, stride] = numbers[..] else { return None };
                Some(ConvLayer { dim, kernel, stride })
            })
            .collect::<Option<_>>()?;
        if times > MAX_CONVOLUTIONS || layers.len() + triples.len() * times > MAX_CONVOLUTIONS {
            return None;
        }
        for _ in 0..times {
            layers.extend_from_slice(&triples);
        }
    }
    Some(layers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(entries: Vec<(&str, Value)>) -> Value {
        let text = |(key, value): (&str, Value)| (Value::Text(key.to_owned()), value);
        Value::Dict(entries.into_iter().map(text).collect())
    }

    #[test]
    fn convolutions_are_read_as_python_would() {
        let layers = parse_conv_layers("[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2");
        assert_eq!(layers, Some(super::super::standard_conv_layers(512)));
        let pair = parse_conv_layers("[(8, 10, 5), (8, 3, 2),]").expect("a list");
        assert_eq!((pair[0].kernel, pair[1].stride), (10, 2));
        for text in ["", "[(1,2)]", "__import__('os')", "[(1,2,3)] * 99999999", "[(1,2,3)]*4*4"] {
            assert_eq!(parse_conv_layers(text), None, "{text}");
        }
    }

    /// `[3,2,1,2,4]` runs as 3, 2, 1, 4, 2: decoders count from the end.
    #[test]
    fn decoders_take_their_layers_from_the_end() -> Result<(), ImportError> {
        let model = settings(vec![
            ("label_rate_ratios", Value::List([1, 2, 1, 2].map(Value::Int).to_vec())),
            ("override_encoder_layers", Value::Text("[3,2,1,2,4]".into())),
        ]);
        let found = Settings { model: &model, task: None, name: "x" };
        assert_eq!(found.tree()?, (vec![3, 2, 1, 4, 2], vec![[1, 2], [1, 2]]));
        Ok(())
    }
}
