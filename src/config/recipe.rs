//! `asr finetune CONFIG.toml`: everything a training run is made of.

use super::{EncoderRates, Strategy};
use crate::data::{Augmentation, BatchConfig, DataError};
use crate::features::{EncoderInput, FeatureError, FeatureNorm, LogMelConfig};
use crate::model::{ConfigError, DownstreamConfig, EncoderConfig, JointConfig};
use crate::train::{TrainConfig, TrainError};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Largest recipe that is read.
const MAX_BYTES: u64 = 1 << 20;

/// A recipe that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// The file cannot be read.
    #[error("cannot read recipe `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not the expected TOML.
    #[error("recipe `{name}` is not valid")]
    Toml {
        /// The file.
        name: String,
        /// Why.
        source: Box<toml::de::Error>,
    },
    /// A `--set` that is not `key.key=value`.
    #[error("`--set {given}` is not of the form key.key=value")]
    Set {
        /// What was given.
        given: String,
    },
    /// A layout of another version.
    #[error("recipe `{name}` has schema {found}, this version reads 1")]
    Schema {
        /// The file.
        name: String,
        /// The version found.
        found: u32,
    },
    /// Settings of the encoder.
    #[error(transparent)]
    Encoder(#[from] ConfigError),
    /// Settings of the features.
    #[error(transparent)]
    Features(#[from] FeatureError),
    /// Settings of the data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Settings of the training.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// Weights that do not fit the manifests.
    #[error("data.weights must be one number from 0 to 1 per manifest, or none")]
    Weights,
    /// A module without its loss, or the other way round.
    #[error("`{module}` and `{loss}` go together: a recipe has both or neither")]
    Loss {
        /// The module.
        module: &'static str,
        /// Its loss.
        loss: &'static str,
    },
    /// Neither an encoder nor an upstream, or both.
    #[error(
        "a recipe has either `upstream`, or `features`, `feature_norm` and `encoder`; \
         `initial_model` goes with the second"
    )]
    Source,
    /// Perturbations that what is read does not allow.
    #[error("`data.augmentation.{setting}` must be off: {why}")]
    Perturbation {
        /// The setting.
        setting: &'static str,
        /// Why.
        why: &'static str,
    },
    /// Features and encoder that do not fit.
    #[error("encoder.input_channels is {channels}, the features have {bins} bins")]
    Input {
        /// What the encoder takes.
        channels: usize,
        /// What the features give.
        bins: usize,
    },
}

/// Where clips come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Folder that the manifests lie in; relative to the working directory.
    pub root: PathBuf,
    /// Manifests, relative to `root`. The dev list refers to the first.
    pub manifests: Vec<PathBuf>,
    /// How much each manifest counts, 0 to 1: of a manifest with weight 0.3, training draws
    /// three clips in ten per round through a language. One per manifest, or none for all 1.
    #[serde(default)]
    pub weights: Vec<f64>,
    /// Clips of the first manifest held out, relative to the recipe.
    pub dev: PathBuf,
    /// Fewest occurrences of a character that gets a token.
    pub min_character_count: u64,
    /// How batches are drawn.
    pub batch: BatchConfig,
    /// Perturbations of training clips.
    pub augmentation: Augmentation,
}

/// A training recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Version of the layout: 1.
    pub schema: u32,
    /// Name of the model it makes.
    pub name: String,
    /// Folder of checkpoint, log and finished model; relative to the working directory.
    pub output: PathBuf,
    /// Folder of a model to start from instead of random weights; its vocabulary is kept, and
    /// features and encoder must be those of the recipe, dropout rates aside. A pre-trained
    /// encoder (`asr pretrain`) has no vocabulary: it is built from the transcripts. Modules of
    /// `joint` that it lacks start from the seed, those that the recipe lacks are dropped.
    /// Relative to the working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_model: Option<PathBuf>,
    /// An encoder to build on instead of one described here: a folder or checkpoint of ours or
    /// of others, `default`, or ORG/NAME on the Hugging Face Hub. Its heads are left away, its
    /// vocabulary too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// Dropout of the upstream in training, instead of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_rates: Option<EncoderRates>,
    /// Features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<LogMelConfig>,
    /// Their normalisation over each clip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feature_norm: Option<FeatureNorm>,
    /// The encoder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoder: Option<EncoderConfig>,
    /// What of the encoder is trained; without it all of it, but for `train.frozen`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// Modules between the encoder and the output layer.
    #[serde(default, skip_serializing_if = "DownstreamConfig::is_plain")]
    pub downstream: DownstreamConfig,
    /// Modules beside the CTC output: CTC inside the encoder, places, a head for the language.
    #[serde(default, skip_serializing_if = "JointConfig::is_empty")]
    pub joint: JointConfig,
    /// The data.
    pub data: DataConfig,
    /// The training.
    pub train: TrainConfig,
}

impl Recipe {
    /// Reads a recipe and applies `overrides` of the form `key.key=value`, value in TOML;
    /// a value that is no TOML is taken as a string.
    ///
    /// # Errors
    /// [`RecipeError`]: unreadable, unknown keys, or settings out of range.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self, RecipeError> {
        Self::from_table(read_recipe_table(path, overrides)?, &path.display().to_string())
    }

    fn from_table(table: toml::Table, name: &str) -> Result<Self, RecipeError> {
        let invalid =
            |source| RecipeError::Toml { name: name.to_owned(), source: Box::new(source) };
        let recipe: Self = table.try_into().map_err(invalid)?;
        if recipe.schema != 1 {
            return Err(RecipeError::Schema { name: name.to_owned(), found: recipe.schema });
        }
        if let Some(encoder) = &recipe.encoder {
            encoder.validate()?;
        }
        if let Some(features) = &recipe.features {
            features.validate()?;
        }
        let own =
            [recipe.features.is_some(), recipe.feature_norm.is_some(), recipe.encoder.is_some()];
        let built_on = recipe.upstream.is_some();
        if own != [!built_on; 3]
            || built_on && recipe.initial_model.is_some()
            || recipe.upstream_rates.is_some() && !built_on
        {
            return Err(RecipeError::Source);
        }
        recipe.downstream.validate()?;
        recipe.data.batch.validate()?;
        recipe.data.augmentation.validate()?;
        recipe.train.validate()?;
        if let (Some(encoder), Some(input)) = (&recipe.encoder, recipe.input()) {
            recipe.validate_for(encoder, &input)?;
        }
        recipe.validate_losses()?;
        let weights = &recipe.data.weights;
        if !weights.is_empty() && weights.len() != recipe.data.manifests.len()
            || !weights.iter().all(|w| (0.0..=1.0).contains(w))
        {
            return Err(RecipeError::Weights);
        }
        Ok(recipe)
    }

    /// What the encoder reads, where the recipe says so itself.
    #[must_use]
    pub fn input(&self) -> Option<EncoderInput> {
        Some(EncoderInput::LogMel(self.features.clone()?, self.feature_norm?))
    }

    /// Checks the recipe against the encoder that it is for.
    ///
    /// # Errors
    /// [`RecipeError`] for the first setting that does not fit.
    pub fn validate_for(
        &self,
        encoder: &EncoderConfig,
        input: &EncoderInput,
    ) -> Result<(), RecipeError> {
        encoder.validate()?;
        self.joint.validate(encoder)?;
        if let Some(strategy) = &self.strategy {
            strategy.adapted(encoder)?;
        }
        let (channels, bins) = (encoder.input_channels, input.n_bins());
        if channels != bins {
            return Err(RecipeError::Input { channels, bins });
        }
        let augmentation = &self.data.augmentation;
        let refused = if self.strategy.as_ref().is_some_and(|s| s.cache().is_some()) {
            let why = "the encoder's hidden states are computed once (`strategy.cache`)";
            augmentation.any().map(|setting| (setting, why))
        } else if matches!(input, EncoderInput::Waveform(_)) {
            let why = "the encoder reads waveforms";
            augmentation.of_features().map(|setting| (setting, why))
        } else {
            None
        };
        match refused {
            Some((setting, why)) => Err(RecipeError::Perturbation { setting, why }),
            None => Ok(()),
        }
    }

    /// Every module has its loss, and every loss its module.
    fn validate_losses(&self) -> Result<(), RecipeError> {
        let (joint, train) = (&self.joint, &self.train);
        if joint.intermediate_ctc.is_some() != (train.intermediate_weight > 0.0) {
            let (module, loss) = ("joint.intermediate_ctc", "train.intermediate_weight");
            return Err(RecipeError::Loss { module, loss });
        }
        if (joint.language.is_some() || joint.geo.is_some()) != train.language_loss.is_some() {
            let (module, loss) = ("joint.language or joint.geo", "train.language_loss");
            return Err(RecipeError::Loss { module, loss });
        }
        if let Some(loss) = &train.language_loss {
            // What counts nothing gets no gradient, and would never be trained.
            let places = loss.places;
            let inner = places.share > 0.0 && places.intermediate > 0.0;
            if joint.geo.is_some() && !inner {
                let loss = "train.language_loss.places.intermediate and share above 0";
                return Err(RecipeError::Loss { module: "joint.geo", loss });
            }
            let last = places.share > 0.0 && places.intermediate < 1.0;
            if joint.language.as_ref().is_some_and(|head| head.location) && !last {
                let loss = "train.language_loss.places.share above 0, intermediate below 1";
                return Err(RecipeError::Loss { module: "joint.language.location", loss });
            }
        }
        Ok(())
    }
}

/// Reads a recipe as a table and applies `overrides` of the form `key.key=value`, value in
/// TOML; a value that is no TOML is taken as a string.
///
/// # Errors
/// [`RecipeError`]: unreadable, no TOML, or an override without `=`.
pub fn read_recipe_table(path: &Path, overrides: &[String]) -> Result<toml::Table, RecipeError> {
    let read = |source| RecipeError::Read { path: path.to_owned(), source };
    let size = std::fs::metadata(path).map_err(read)?.len();
    if size > MAX_BYTES {
        return Err(read(std::io::Error::other("larger than any recipe should be")));
    }
    let text = std::fs::read_to_string(path).map_err(read)?;
    recipe_table(&text, &path.display().to_string(), overrides)
}

fn recipe_table(text: &str, name: &str, overrides: &[String]) -> Result<toml::Table, RecipeError> {
    let invalid = |source| RecipeError::Toml { name: name.to_owned(), source: Box::new(source) };
    let mut table: toml::Table = text.parse().map_err(invalid)?;
    for given in overrides {
        set(&mut table, given).ok_or_else(|| RecipeError::Set { given: given.clone() })?;
    }
    Ok(table)
}

/// Sets `key.key=value` in a table.
fn set(table: &mut toml::Table, given: &str) -> Option<()> {
    let (keys, value) = given.split_once('=')?;
    let parsed = format!("value = {value}").parse::<toml::Table>().ok();
    let value = parsed.and_then(|mut t| t.remove("value")).unwrap_or_else(|| value.into());
    let (parents, last) = keys.rsplit_once('.').map_or((None, keys), |(p, l)| (Some(p), l));
    let mut table = table;
    for key in parents.into_iter().flat_map(|p| p.split('.')) {
        let entry = table.entry(key).or_insert_with(|| toml::Table::new().into());
        table = entry.as_table_mut()?;
    }
    if last.is_empty() {
        return None;
    }
    table.insert(last.to_owned(), value);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Recogniser, RecogniserConfig};

    fn parse(text: &str, name: &str, overrides: &[String]) -> Result<Recipe, RecipeError> {
        Recipe::from_table(recipe_table(text, name, overrides)?, name)
    }

    const DEFAULT: &str = include_str!("../../models/default.toml");
    const JOINT: &str = include_str!("../../models/joint.toml");
    const UPSTREAM: &str = include_str!("../../models/upstream.toml");

    #[test]
    fn the_recipe_of_the_default_model_is_valid() -> Result<(), RecipeError> {
        parse(DEFAULT, "default.toml", &[]).map(|_| ())
    }

    #[test]
    fn the_recipe_for_released_encoders_is_valid() -> Result<(), RecipeError> {
        let recipe = parse(UPSTREAM, "upstream.toml", &[])?;
        assert_eq!(recipe.train.max_trainable, Some(100_000_000));
        for (set, want) in [
            ("feature_norm=mean", "either `upstream`"),
            ("strategy.kind=other", "not valid"),
            ("downstream.transformer.layers=0", "downstream.layers"),
            ("data.augmentation.codec=0.5", "codecs"),
        ] {
            let error = parse(UPSTREAM, "r", &[set.to_owned()]).expect_err(set);
            assert!(error.to_string().contains(want), "{set}: {error}");
        }
        let written = toml::to_string_pretty(&recipe).expect("TOML");
        assert_eq!(parse(&written, "r", &[])?, recipe);
        Ok(())
    }

    /// The joint model starts from the default one, costs what its recipe says and has the size
    /// that a default model may have.
    #[test]
    fn the_recipe_of_the_joint_model_fits_the_default_model()
    -> Result<(), Box<dyn std::error::Error>> {
        let recipe = parse(JOINT, "joint.toml", &[])?;
        let files = crate::config::embedded_model()?;
        let encoder = recipe.encoder.clone().expect("an encoder of its own");
        assert!(files.config.encoder.same_shape(&encoder));
        assert_eq!(Some(files.config.input()), recipe.input());
        let joint = recipe.joint.for_inference();
        assert!(joint.intermediate_ctc.is_some(), "the taps name the language");
        let config = RecogniserConfig {
            encoder,
            vocab_size: files.vocabulary.len(),
            n_languages: files.vocabulary.language_ids().len(),
            joint,
            downstream: recipe.downstream,
        };
        Recogniser::for_training(&config, &files.parameters, 1)?;
        let size = |kept: &dyn Fn(&str) -> bool| -> usize {
            let all = files.parameters.all();
            all.iter().filter(|(name, _)| kept(name)).map(|(_, var)| var.elem_count()).sum()
        };
        let after = size(&|name| config.joint.keeps(name));
        let plain = JointConfig::default();
        let added = after - size(&|name| plain.keeps(name));
        assert!((400_000..500_000).contains(&added), "{added} parameters are added");
        assert!(2 * after < 30 << 20, "{after} parameters in f16 exceed 30 MiB");
        Ok(())
    }

    #[test]
    fn a_module_whose_loss_counts_nothing_is_refused() {
        for (set, want) in [
            ("train.language_loss.places.share=0.0", "joint.geo"),
            ("train.language_loss.places.intermediate=0.0", "joint.geo"),
            ("train.language_loss.places.intermediate=1.0", "joint.language.location"),
        ] {
            let error = parse(JOINT, "r", &[set.to_owned()]).expect_err(set).to_string();
            assert!(error.contains(want), "{set}: {error}");
        }
    }

    #[test]
    fn overrides_replace_values_and_faults_are_named() -> Result<(), RecipeError> {
        let sets = ["train.schedule.peak=3e-4".to_owned(), "data.root=some/folder".to_owned()];
        let recipe = parse(DEFAULT, "r", &sets)?;
        assert!((recipe.train.schedule.peak - 3e-4).abs() < 1e-12);
        assert_eq!(recipe.data.root, Path::new("some/folder"));
        for (given, want) in [
            ("nonsense", "--set nonsense"),
            ("train.unknown=1", "recipe `r` is not valid"),
            ("train.schedule.peak=-1", "schedule.peak"),
            ("encoder.heads=3", "heads"),
            ("encoder.input_channels=7", "input_channels is 7"),
            ("schema=2", "schema 2"),
            ("data.weights=[1.0, 2.0, 1.0]", "data.weights"),
            ("data.weights=[1.0]", "data.weights"),
            ("train.intermediate_weight=0.3", "joint.intermediate_ctc"),
            ("train.ctc_dro={ step = 0.1, smoothing = 0.0 }", "ctc_dro.smoothing"),
            ("train.encoder_rate=0.0", "encoder_rate"),
            (
                "joint.language={ bottleneck = 8, embedding = 8, sub_centres = 1, location = true }",
                "train.language_loss",
            ),
            (
                "joint.language={ block = 8, bottleneck = 8, embedding = 8, sub_centres = 1, location = true }",
                "joint.language.block",
            ),
            (
                "joint.intermediate_ctc={ taps = [{ block = 1, predicts = 'text' }], projection = 'own', conditioning = false }",
                "joint.intermediate_ctc.projection",
            ),
            (
                "joint.geo={ blocks = [3, 1], bottleneck = 8, embedding = 8, conditioning = 'none' }",
                "joint.geo.blocks",
            ),
        ] {
            let error = parse(DEFAULT, "r", &[given.to_owned()]).expect_err(given).to_string();
            assert!(error.contains(want), "{error}");
        }
        Ok(())
    }
}
