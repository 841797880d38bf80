//! The names of parameters in released checkpoints, and ours.
//!
//! Ours are those of fairseq. One table per layout says where a parameter of ours is found in
//! it; in a pattern, each `*` stands for the same part of a name without dots on both sides.

use std::collections::BTreeSet;

/// Ours, then theirs in order of preference.
type Rule = (&'static str, &'static [&'static str]);

/// Marks a name that does not lie under the encoder's prefix but under one of the prefixes
/// around it.
const OUTSIDE: char = '^';
/// Marks one of three equal parts of the rows of a fused tensor.
const PART: char = '#';

/// fairseq, unilm, s3prl: names are ours, but for these.
const FAIRSEQ: &[Rule] =
    &[("proj.*", &["^proj.*"]), ("label_embs_concat", &["label_embs_concat", "label_embs"])];

/// Hugging Face transformers: `HubertModel`, `Wav2Vec2Model`, `WavLMModel` and their heads.
const TRANSFORMERS: &[Rule] = &[
    ("feature_extractor.conv_layers.*.0.*", &["feature_extractor.conv_layers.*.conv.*"]),
    ("feature_extractor.conv_layers.*.2.1.*", &["feature_extractor.conv_layers.*.layer_norm.*"]),
    ("feature_extractor.conv_layers.*.2.*", &["feature_extractor.conv_layers.*.layer_norm.*"]),
    ("layer_norm.*", &["feature_projection.layer_norm.*"]),
    // `feat_proj_layer_norm: false` leaves a bare linear map in older HuBERT files.
    ("post_extract_proj.*", &["feature_projection.projection.*", "feature_projection.*"]),
    ("mask_emb", &["masked_spec_embed"]),
    ("encoder.pos_conv.0.bias", &["encoder.pos_conv_embed.conv.bias"]),
    (
        "encoder.pos_conv.0.weight_g",
        &[
            "encoder.pos_conv_embed.conv.parametrizations.weight.original0",
            "encoder.pos_conv_embed.conv.weight_g",
        ],
    ),
    (
        "encoder.pos_conv.0.weight_v",
        &[
            "encoder.pos_conv_embed.conv.parametrizations.weight.original1",
            "encoder.pos_conv_embed.conv.weight_v",
        ],
    ),
    (
        "encoder.layers.*.self_attn.relative_attention_bias.weight",
        &["encoder.layers.*.attention.rel_attn_embed.weight"],
    ),
    (
        "encoder.layers.*.self_attn.grep_linear.*",
        &["encoder.layers.*.attention.gru_rel_pos_linear.*"],
    ),
    ("encoder.layers.*.self_attn.grep_a", &["encoder.layers.*.attention.gru_rel_pos_const"]),
    ("encoder.layers.*.self_attn.*.*", &["encoder.layers.*.attention.*.*"]),
    ("encoder.layers.*.self_attn_layer_norm.*", &["encoder.layers.*.layer_norm.*"]),
    ("encoder.layers.*.fc1.*", &["encoder.layers.*.feed_forward.intermediate_dense.*"]),
    ("encoder.layers.*.fc2.*", &["encoder.layers.*.feed_forward.output_dense.*"]),
    ("proj.*", &["^lm_head.*"]),
    ("projector.*", &["^projector.*"]),
    ("classifier.*", &["^classifier.*"]),
    ("layer_weights", &["^layer_weights"]),
];

/// torchaudio, also inside ESPnet: `Wav2Vec2Model`, `HuBERTPretrainModel`, `wavlm_model`.
const TORCHAUDIO: &[Rule] = &[
    ("feature_extractor.conv_layers.*.0.*", &["feature_extractor.conv_layers.*.conv.*"]),
    ("feature_extractor.conv_layers.*.2.1.*", &["feature_extractor.conv_layers.*.layer_norm.*"]),
    ("feature_extractor.conv_layers.*.2.*", &["feature_extractor.conv_layers.*.layer_norm.*"]),
    ("layer_norm.*", &["encoder.feature_projection.layer_norm.*"]),
    ("post_extract_proj.*", &["encoder.feature_projection.projection.*"]),
    ("encoder.pos_conv.0.bias", &["encoder.transformer.pos_conv_embed.conv.bias"]),
    (
        "encoder.pos_conv.0.weight_g",
        &[
            "encoder.transformer.pos_conv_embed.conv.weight_g",
            "encoder.transformer.pos_conv_embed.conv.parametrizations.weight.original0",
        ],
    ),
    (
        "encoder.pos_conv.0.weight_v",
        &[
            "encoder.transformer.pos_conv_embed.conv.weight_v",
            "encoder.transformer.pos_conv_embed.conv.parametrizations.weight.original1",
        ],
    ),
    (
        "encoder.layers.*.self_attn.relative_attention_bias.weight",
        &["encoder.transformer.layers.*.attention.rel_attn_embed.weight"],
    ),
    (
        "encoder.layers.*.self_attn.grep_linear.*",
        &["encoder.transformer.layers.*.attention.gru_rel_pos_linear.*"],
    ),
    (
        "encoder.layers.*.self_attn.grep_a",
        &["encoder.transformer.layers.*.attention.gru_rel_pos_const"],
    ),
    (
        "encoder.layers.*.self_attn.q_proj.*",
        &[
            "encoder.transformer.layers.*.attention.q_proj.*",
            "encoder.transformer.layers.*.attention.attention.in_proj_*#0",
        ],
    ),
    (
        "encoder.layers.*.self_attn.k_proj.*",
        &[
            "encoder.transformer.layers.*.attention.k_proj.*",
            "encoder.transformer.layers.*.attention.attention.in_proj_*#1",
        ],
    ),
    (
        "encoder.layers.*.self_attn.v_proj.*",
        &[
            "encoder.transformer.layers.*.attention.v_proj.*",
            "encoder.transformer.layers.*.attention.attention.in_proj_*#2",
        ],
    ),
    (
        "encoder.layers.*.self_attn.out_proj.*",
        &[
            "encoder.transformer.layers.*.attention.out_proj.*",
            "encoder.transformer.layers.*.attention.attention.out_proj.*",
        ],
    ),
    ("encoder.layers.*.self_attn_layer_norm.*", &["encoder.transformer.layers.*.layer_norm.*"]),
    ("encoder.layers.*.fc1.*", &["encoder.transformer.layers.*.feed_forward.intermediate_dense.*"]),
    ("encoder.layers.*.fc2.*", &["encoder.transformer.layers.*.feed_forward.output_dense.*"]),
    ("encoder.layers.*.final_layer_norm.*", &["encoder.transformer.layers.*.final_layer_norm.*"]),
    ("encoder.layer_norm.*", &["encoder.transformer.layer_norm.*"]),
    ("mask_emb", &["^mask_generator.mask_embedding"]),
    ("final_proj.*", &["^logit_generator.final_proj.*"]),
    ("label_embs_concat", &["^logit_generator.label_embeddings"]),
    ("proj.*", &["^aux.*"]),
];

/// Beginnings (under any prefix) of what only the pre-training or training of others uses:
/// left out without a word.
const LEFT_OUT: &[&str] = &[
    "quantizer.",
    "project_hid.",
    "project_q.",
    "masked_spec_embed",
    "mask_emb",
    "global_step",
    "num_updates",
    "target_glu",
];

/// Whose names a checkpoint uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// fairseq, unilm, s3prl.
    Fairseq,
    /// Hugging Face transformers.
    Transformers,
    /// torchaudio and ESPnet.
    Torchaudio,
}

/// Where a parameter of ours may be in a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Name in the checkpoint.
    pub name: String,
    /// Which third of its rows, if it is fused of three.
    pub third: Option<usize>,
}

/// The names of one checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Naming {
    /// Whose names they are.
    pub layout: Layout,
    /// What stands before the encoder's names, with its dot.
    pub prefix: String,
}

impl Naming {
    /// Recognises the names of a checkpoint by its first convolution; `None` if it has none.
    pub fn detect<'a>(names: &(impl Iterator<Item = &'a str> + Clone)) -> Option<Self> {
        const FIRST: &str = "feature_extractor.conv_layers.0.";
        let find = |ending: &str| {
            let ending = format!("{FIRST}{ending}");
            names
                .clone()
                .filter_map(|name| name.strip_suffix(&ending))
                .filter(|prefix| prefix.is_empty() || prefix.ends_with('.'))
                .min_by_key(|prefix| prefix.len())
                .map(str::to_owned)
        };
        if let Some(prefix) = find("0.weight") {
            return Some(Self { layout: Layout::Fairseq, prefix });
        }
        let prefix = find("conv.weight")?;
        let inside = format!("{prefix}encoder.feature_projection.");
        let torchaudio = names.clone().any(|name| name.starts_with(&inside));
        let layout = if torchaudio { Layout::Torchaudio } else { Layout::Transformers };
        Some(Self { layout, prefix })
    }

    /// Recognises the names of a file that holds nothing but the adapters of one language.
    pub fn detect_adapter<'a>(names: &(impl Iterator<Item = &'a str> + Clone)) -> Option<Self> {
        let prefix = names
            .clone()
            .find_map(|name| name.strip_suffix("encoder.layers.0.adapter_layer.norm.weight"))?
            .to_owned();
        // The layers have the same names in both; the output layer has not.
        let is_ours = names.clone().any(|name| name == "proj.weight");
        let layout = if is_ours { Layout::Fairseq } else { Layout::Transformers };
        Some(Self { layout, prefix })
    }

    /// Where `ours` may be, most likely first.
    #[must_use]
    pub fn places(&self, ours: &str) -> Vec<Place> {
        let rules = match self.layout {
            Layout::Fairseq => FAIRSEQ,
            Layout::Transformers => TRANSFORMERS,
            Layout::Torchaudio => TORCHAUDIO,
        };
        for (pattern, theirs) in rules {
            if let Some(parts) = matched(pattern, ours) {
                return theirs.iter().flat_map(|theirs| self.filled(theirs, &parts)).collect();
            }
        }
        self.filled(ours, &[])
    }

    /// The names that `theirs` stands for.
    fn filled(&self, theirs: &str, parts: &[&str]) -> Vec<Place> {
        let (theirs, third) = match theirs.split_once(PART) {
            Some((name, third)) => (name, third.parse().ok()),
            None => (theirs, None),
        };
        let (theirs, outside) = match theirs.strip_prefix(OUTSIDE) {
            Some(name) => (name, true),
            None => (theirs, false),
        };
        let mut name = String::new();
        let mut parts = parts.iter();
        for c in theirs.chars() {
            match c {
                '*' => name.push_str(parts.next().unwrap_or(&"")),
                c => name.push(c),
            }
        }
        let prefixes = if outside { self.outer_prefixes() } else { vec![self.prefix.as_str()] };
        prefixes
            .into_iter()
            .map(|prefix| Place { name: format!("{prefix}{name}"), third })
            .collect()
    }

    /// The prefixes around the encoder's, outermost last, and its own first.
    fn outer_prefixes(&self) -> Vec<&str> {
        let mut prefixes = vec![self.prefix.as_str()];
        while let Some(inner) = prefixes.last().and_then(|p| p.strip_suffix('.')) {
            prefixes.push(inner.rfind('.').map_or("", |dot| &inner[..=dot]));
        }
        // The head lies next to the encoder, so the nearest comes first but for its own.
        prefixes.rotate_left(1);
        prefixes
    }

    /// Names of the checkpoint that are neither used nor known to be of no use.
    pub fn unused<'a>(
        &self,
        names: impl Iterator<Item = &'a str>,
        used: &BTreeSet<String>,
    ) -> Vec<String> {
        let prefixes = self.outer_prefixes();
        names
            .filter(|name| !used.contains(*name))
            .filter(|name| {
                !prefixes.iter().any(|prefix| {
                    name.strip_prefix(prefix)
                        .is_some_and(|rest| LEFT_OUT.iter().any(|start| rest.starts_with(start)))
                })
            })
            .map(str::to_owned)
            .collect()
    }
}

/// What the stars of `pattern` stand for in `name`.
fn matched<'a>(pattern: &str, name: &'a str) -> Option<Vec<&'a str>> {
    let mut parts = Vec::new();
    let (mut patterns, mut names) = (pattern.split('.'), name.split('.'));
    loop {
        match (patterns.next(), names.next()) {
            (None, None) => return Some(parts),
            (Some("*"), Some(part)) => parts.push(part),
            (Some(pattern), Some(part)) if pattern == part => {}
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naming(names: &[&str]) -> Naming {
        Naming::detect(&names.iter().copied()).expect("an encoder")
    }

    fn names(naming: &Naming, ours: &str) -> Vec<String> {
        naming.places(ours).into_iter().map(|place| place.name).collect()
    }

    #[test]
    fn layouts_and_prefixes_are_recognised() {
        let hub = naming(&["wav2vec2.feature_extractor.conv_layers.0.conv.weight"]);
        assert_eq!((hub.layout, hub.prefix.as_str()), (Layout::Transformers, "wav2vec2."));
        assert_eq!(names(&hub, "proj.weight"), ["lm_head.weight", "wav2vec2.lm_head.weight"]);
        assert_eq!(
            names(&hub, "encoder.layers.3.fc1.bias"),
            ["wav2vec2.encoder.layers.3.feed_forward.intermediate_dense.bias"]
        );
        assert_eq!(
            names(&hub, "encoder.layers.3.adapter_layer.norm.weight"),
            ["wav2vec2.encoder.layers.3.adapter_layer.norm.weight"]
        );
        let espnet = naming(&[
            "encoder.hubert_pretrain_model.wav2vec2.feature_extractor.conv_layers.0.conv.weight",
            "encoder.hubert_pretrain_model.wav2vec2.encoder.feature_projection.projection.bias",
        ]);
        assert_eq!(espnet.layout, Layout::Torchaudio);
        assert_eq!(
            names(&espnet, "mask_emb")[0],
            "encoder.hubert_pretrain_model.mask_generator.mask_embedding"
        );
        let fused = &espnet.places("encoder.layers.0.self_attn.k_proj.bias")[1];
        assert!(fused.name.ends_with("layers.0.attention.attention.in_proj_bias"));
        assert_eq!(fused.third, Some(1));
        let fairseq = naming(&["w2v_encoder.w2v_model.feature_extractor.conv_layers.0.0.weight"]);
        assert_eq!(names(&fairseq, "proj.bias")[0], "w2v_encoder.proj.bias");
        assert_eq!(Naming::detect(&["decoder.weight"].into_iter()), None);
    }

    #[test]
    fn what_only_training_uses_is_not_missed() {
        let hub = naming(&["wav2vec2.feature_extractor.conv_layers.0.conv.weight"]);
        let all =
            ["quantizer.codevectors", "wav2vec2.masked_spec_embed", "lm_head.weight", "other"];
        let used = BTreeSet::from(["lm_head.weight".to_owned()]);
        assert_eq!(hub.unused(all.into_iter(), &used), ["other"]);
    }
}
