//! `asr pretrain CONFIG.toml`: the stages of an iterative run.

use super::batch::UnitBatchConfig;
use super::mixing::Mixing;
use super::objective::ObjectiveConfig;
use super::{FitOptions, Method, PretrainError};
use crate::config::{InputConfig, ModelInput, RecipeError, read_recipe_table};
use crate::data::AudioStore;
use crate::model::EncoderConfig;
use crate::train::RunConfig;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Settings that hold for every stage unless it has its own.
const SHARED: [&str; 7] =
    ["input", "encoder", "objective", "batch", "mixing", "train", "clustering"];
/// Most stages of a run.
const MAX_STAGES: usize = 64;

/// A pre-training run.
///
/// In the file, `stages` lists the names of the stages in their order, and each has a table
/// `[stage.NAME]`. What stands in `[input]`, `[encoder]`, `[objective]`, `[batch]`,
/// `[clustering]`, `[mixing]` and `[train]` holds for every stage; a stage overrides single settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainRecipe {
    /// Version of the layout: 1.
    pub schema: u32,
    /// Name of the model it makes.
    pub name: String,
    /// Folder of everything the run writes, one folder per stage; relative to the working
    /// directory.
    pub output: PathBuf,
    /// The speech.
    pub data: PretrainData,
    /// The stages in their order.
    pub stages: Vec<Stage>,
}

/// Where speech comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainData {
    /// Folder that the manifests lie in; relative to the working directory.
    pub root: PathBuf,
    /// Manifests, relative to `root`; transcripts in them are not read.
    pub manifests: Vec<PathBuf>,
    /// Clips of the first manifest held out, a list relative to the recipe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dev: Option<PathBuf>,
    /// Share of the other clips held out, drawn by their name.
    #[serde(default)]
    pub held_out: f64,
    /// Most clips that a validation looks at.
    pub validation_clips: usize,
    /// Clips shorter than this are left out, seconds.
    pub min_clip_s: f64,
    /// Clips longer than this are left out, seconds.
    pub max_clip_s: f64,
    /// Share of the clips that may be unreadable; they are listed and left out.
    pub max_unreadable: f64,
    /// Where decoded audio is kept: `memory`, `cache` (a file in the output folder) or `files`
    /// (decoded each time). It changes nothing of the result.
    #[serde(default)]
    pub audio: AudioStore,
}

/// A stage: labels, and a model that learns to predict them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Its name, the one of its folder.
    pub name: String,
    /// What is predicted: one label set or several.
    pub labels: Vec<LabelSource>,
    /// Weights to start from instead of random ones, heads and all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial: Option<ModelReference>,
    /// What the encoder reads.
    pub input: InputConfig,
    /// The encoder.
    pub encoder: EncoderConfig,
    /// What is hidden and predicted.
    pub objective: ObjectiveConfig,
    /// How batches are drawn.
    pub batch: UnitBatchConfig,
    /// How frames are clustered.
    pub clustering: ClusteringConfig,
    /// Other voices and noise mixed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mixing: Option<Mixing>,
    /// The training.
    pub train: RunConfig,
}

/// A model of this run or of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelReference {
    /// That of an earlier stage.
    Stage(String),
    /// A folder or file, relative to the working directory.
    Model(PathBuf),
}

/// Where labels come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "from", deny_unknown_fields)]
pub enum LabelSource {
    /// Clusters of MFCC with their deltas, 39 values every 10 ms.
    Mfcc {
        /// Number of clusters.
        units: usize,
    },
    /// Clusters of a hidden layer.
    Layer {
        /// The model.
        of: ModelReference,
        /// Its hidden state: 0 is the input of the first layer, `i` the output of layer `i`.
        layer: usize,
        /// Number of clusters.
        units: usize,
    },
    /// Those of another stage.
    Stage {
        /// The stage.
        stage: String,
        /// Which of its label sets, from 0.
        #[serde(default)]
        set: usize,
    },
    /// A label file for the clips of all manifests, in their order.
    File {
        /// The file, relative to the working directory.
        path: PathBuf,
        /// Middle of what the first label of a clip sees, seconds.
        #[serde(default = "hubert_first_s")]
        first_s: f64,
    },
}

/// Frames of 25 ms, as those of HuBERT and of MFCC.
fn hubert_first_s() -> f64 {
    0.0125
}

/// How frames are clustered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusteringConfig {
    /// The algorithm.
    pub method: Method,
    /// Frames per cluster that clusters are found from, drawn from all clips.
    pub frames_per_unit: usize,
    /// Seed of the draw and of the first centroids.
    pub seed: u64,
}

impl ClusteringConfig {
    pub(super) fn options(&self, n_units: usize) -> FitOptions {
        let Self { method, frames_per_unit, seed } = *self;
        FitOptions { n_units, method, seed, frames_per_unit }
    }
}

impl PretrainRecipe {
    /// Reads a recipe and applies `overrides` of the form `key.key=value`, value in TOML.
    /// `train.x=1` sets what stages share; a stage that has its own keeps it until
    /// `stage.NAME.train.x=1`.
    ///
    /// # Errors
    /// [`PretrainError`]: unreadable, unknown keys, or settings out of range.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self, PretrainError> {
        let table = read_recipe_table(path, overrides)?;
        Self::from_table(table, &path.display().to_string())
    }

    pub(super) fn from_table(mut table: toml::Table, name: &str) -> Result<Self, PretrainError> {
        if table.get("stages").is_some_and(|stages| {
            stages.as_array().is_some_and(|stages| stages.iter().all(toml::Value::is_str))
        }) {
            spread(&mut table)?;
        }
        let recipe: Self = table.try_into().map_err(|source| {
            PretrainError::Recipe(RecipeError::Toml {
                name: name.to_owned(),
                source: Box::new(source),
            })
        })?;
        if recipe.schema != 1 {
            let found = recipe.schema;
            return Err(RecipeError::Schema { name: name.to_owned(), found }.into());
        }
        recipe.validate()?;
        Ok(recipe)
    }

    /// Folder of a stage.
    #[must_use]
    pub fn stage_folder(&self, stage: &str) -> PathBuf {
        self.output.join(stage)
    }

    fn validate(&self) -> Result<(), PretrainError> {
        let check = |ok: bool, field, expected| {
            if ok { Ok(()) } else { Err(PretrainError::Setting { field, expected }) }
        };
        let data = &self.data;
        check(!data.manifests.is_empty(), "data.manifests", "one or more")?;
        check((0.0..1.0).contains(&data.held_out), "data.held_out", "from 0 up to 1")?;
        check(
            data.held_out > 0.0 || data.dev.is_some(),
            "data.held_out",
            "above 0, or `data.dev` given: something must be held out",
        )?;
        check(
            (1..=100_000).contains(&data.validation_clips),
            "data.validation_clips",
            "1 to 100000",
        )?;
        check(data.min_clip_s > 0.0, "data.min_clip_s", "above 0")?;
        check(
            data.max_clip_s >= data.min_clip_s && data.max_clip_s <= 3600.0,
            "data.max_clip_s",
            "at least data.min_clip_s, at most 3600",
        )?;
        check(
            (0.0..=1.0).contains(&data.max_unreadable),
            "data.max_unreadable",
            "between 0 and 1",
        )?;
        check((1..=MAX_STAGES).contains(&self.stages.len()), "stages", "1 to 64 stages")?;
        for (i, stage) in self.stages.iter().enumerate() {
            stage.validate(&self.stages[..i], data.min_clip_s).map_err(|source| {
                PretrainError::Stage { name: stage.name.clone(), source: Box::new(source) }
            })?;
        }
        Ok(())
    }
}

impl Stage {
    fn validate(&self, earlier: &[Self], min_clip_s: f64) -> Result<(), PretrainError> {
        let check = |ok: bool, field, expected| {
            if ok { Ok(()) } else { Err(PretrainError::Setting { field, expected }) }
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.';
        check(
            !self.name.is_empty()
                && self.name.len() <= 64
                && !self.name.starts_with('.')
                && self.name.chars().all(plain),
            "name",
            "letters, digits, `-`, `_` and `.`",
        )?;
        check(
            earlier.iter().all(|stage| stage.name != self.name),
            "name",
            "that of no other stage",
        )?;
        self.encoder.validate()?;
        let input = ModelInput::new(&self.input)?;
        check(
            input.channels() == self.encoder.input_channels,
            "encoder.input_channels",
            "what the input gives: 1 for a waveform, the number of bins otherwise",
        )?;
        let receptive_s = input.step_s() * self.encoder.receptive_field() as f64;
        check(
            min_clip_s > receptive_s + 2.0 * input.frame_times(&self.encoder).step_s,
            "data.min_clip_s",
            "enough for three frames of the encoder",
        )?;
        self.objective.validate(self.encoder.rate_ratios.len() + 1, self.labels.len())?;
        self.batch.validate(min_clip_s)?;
        self.train.validate()?;
        if let Some(mixing) = &self.mixing {
            mixing.validate()?;
        }
        self.clustering.options(1).validate()?;
        check((1..=64).contains(&self.labels.len()), "labels", "1 to 64 label sets")?;
        let find = |reference: &ModelReference| match reference {
            ModelReference::Model(_) => Ok(None),
            ModelReference::Stage(name) => earlier
                .iter()
                .find(|stage| stage.name == *name)
                .map(Some)
                .ok_or_else(|| PretrainError::NoSuchStage { name: name.clone() }),
        };
        for source in &self.labels {
            let units = match source {
                LabelSource::Mfcc { units } => *units,
                LabelSource::Layer { of, layer, units } => {
                    if let Some(stage) = find(of)? {
                        let layers: usize = stage.encoder.stage_layers.iter().sum();
                        check(*layer <= layers, "labels.layer", "a layer that the model has")?;
                    }
                    *units
                }
                LabelSource::Stage { stage, set } => {
                    let stage = find(&ModelReference::Stage(stage.clone()))?;
                    let made = stage.and_then(|stage| stage.labels.get(*set));
                    check(
                        !matches!(made, None | Some(LabelSource::Stage { .. })),
                        "labels.set",
                        "a label set that the stage itself has",
                    )?;
                    1
                }
                LabelSource::File { first_s, .. } => {
                    check(first_s.abs() < 10.0, "labels.first_s", "within 10 s of 0")?;
                    1
                }
            };
            check((1..=1 << 16).contains(&units), "labels.units", "1 to 65536")?;
        }
        if let Some(initial) = &self.initial
            && let Some(stage) = find(initial)?
        {
            check(
                stage.encoder.same_shape(&self.encoder) && stage.input == self.input,
                "initial",
                "a stage whose encoder has the same shape and input",
            )?;
        }
        Ok(())
    }
}

/// Turns names and tables of stages into stages that have every setting.
fn spread(table: &mut toml::Table) -> Result<(), PretrainError> {
    let invalid = |expected| PretrainError::Setting { field: "stages", expected };
    let names = match table.remove("stages") {
        Some(toml::Value::Array(names)) => names,
        _ => return Err(invalid("a list of names")),
    };
    let mut tables = match table.remove("stage") {
        Some(toml::Value::Table(tables)) => tables,
        None => toml::Table::new(),
        Some(_) => return Err(invalid("names of tables `[stage.NAME]`")),
    };
    let shared: Vec<(String, toml::Value)> = SHARED
        .iter()
        .filter_map(|key| table.remove(*key).map(|value| ((*key).to_owned(), value)))
        .collect();
    let mut stages = Vec::new();
    for name in &names {
        let Some(toml::Value::Table(own)) = name.as_str().and_then(|name| tables.remove(name))
        else {
            return Err(invalid("names of tables `[stage.NAME]`, each once"));
        };
        let mut stage: toml::Table = shared.iter().cloned().collect();
        merge(&mut stage, own);
        stage.insert("name".to_owned(), name.clone());
        stages.push(toml::Value::Table(stage));
    }
    if let Some((name, _)) = tables.into_iter().next() {
        return Err(PretrainError::NoSuchStage { name });
    }
    table.insert("stages".to_owned(), toml::Value::Array(stages));
    Ok(())
}

/// Puts the settings of `own` over those of `shared`, table by table. A table that names
/// another `kind` replaces the whole.
fn merge(shared: &mut toml::Table, own: toml::Table) {
    for (key, value) in own {
        match (shared.get_mut(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above))
                if above.get("kind").is_none_or(|kind| below.get("kind") == Some(kind)) =>
            {
                merge(below, above);
            }
            (_, value) => {
                shared.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests;
