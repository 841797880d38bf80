//! A model about to be fine-tuned, and what becomes of it.
//!
//! To train a head on a frozen encoder from code: [`Upstream::load`](super::Upstream::load),
//! [`FineTuning::new`], [`FineTuning::states_model`] with [`StatesPlan`](crate::train::StatesPlan)
//! where states are kept on disk, [`Trainer`](crate::train::Trainer) with
//! [`Recognition`](crate::train::Recognition), [`FineTuning::finished`].

use super::{ModelConfig, ModelFiles, Strategy};
use crate::features::EncoderInput;
use crate::model::{
    Adaptation, ConfigError, DownstreamConfig, EncoderConfig, JointConfig, Parameters, Recogniser,
    RecogniserConfig, is_encoder_parameter,
};
use crate::text::Vocabulary;
use crate::train::TrainConfig;

/// A model that cannot be fine-tuned as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FineTuningError {
    /// Settings that do not fit the encoder.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Parameters that do not fit the settings.
    #[error("cannot build the model")]
    Model(#[from] candle_core::Error),
}

/// What a model is to be.
#[derive(Debug, Clone)]
pub struct FineTuningPlan<'a> {
    /// Name of the model.
    pub name: &'a str,
    /// What the encoder reads.
    pub input: EncoderInput,
    /// The encoder.
    pub encoder: &'a EncoderConfig,
    /// What of it is trained; all of it where nothing is said.
    pub strategy: Option<&'a Strategy>,
    /// Modules beside the CTC output.
    pub joint: &'a JointConfig,
    /// Modules between the encoder and the output layer.
    pub downstream: &'a DownstreamConfig,
    /// Seed, frozen parameters and steps before the encoder learns.
    pub train: &'a TrainConfig,
}

/// A model ready to be trained.
#[derive(Debug)]
pub struct FineTuning {
    /// The model as it is used while it is trained; parameters are shared.
    pub files: ModelFiles,
    /// The model that is trained. It reads hidden states where the strategy keeps those.
    pub model: Recogniser,
    /// The same for the steps in which the encoder stays as it is, if there are any.
    pub early: Option<Recogniser>,
    config: RecogniserConfig,
}

impl FineTuning {
    /// Puts the model together on `parameters`; those that are not there start from the seed.
    ///
    /// # Errors
    /// [`FineTuningError`] if settings or parameters do not fit.
    pub fn new(
        plan: &FineTuningPlan,
        vocabulary: Vocabulary,
        parameters: Parameters,
    ) -> Result<Self, FineTuningError> {
        let encoder = match plan.strategy {
            Some(strategy) => strategy.adapted(plan.encoder)?,
            None => plan.encoder.clone(),
        };
        let still = plan.strategy.is_some_and(Strategy::is_frozen);
        plan.joint.validate(&encoder)?;
        plan.downstream.validate()?;
        if let Some(strategy) = plan.strategy {
            parameters.freeze(strategy.frozen(&encoder));
        }
        let frozen = plan.train.frozen.clone();
        parameters.freeze(move |name| frozen.iter().any(|start| name.starts_with(start.as_str())));
        let config = RecogniserConfig {
            encoder: encoder.clone(),
            vocab_size: vocabulary.len(),
            n_languages: vocabulary.language_ids().len(),
            joint: plan.joint.clone(),
            downstream: plan.downstream.clone(),
        };
        let seed = plan.train.seed;
        let mut model = Recogniser::for_training(&config, &parameters, seed)?;
        if still {
            model = match plan.strategy.and_then(Strategy::cache) {
                Some(_) => model.reading_states()?,
                None => model.with_still_encoder(),
            };
        }
        let early = if plan.train.unfreeze_after > 0 {
            let parameters = parameters.freezing(is_encoder_parameter);
            Some(Recogniser::for_training(&config, &parameters, seed)?)
        } else {
            None
        };
        let mut files = ModelFiles {
            config: ModelConfig::new(plan.name, plan.input.clone(), encoder),
            vocabulary,
            parameters,
        };
        files.config.joint = plan.joint.for_inference();
        files.config.downstream = plan.downstream.clone();
        Ok(Self { files, model, early, config })
    }

    /// Number of parameters that are trained.
    #[must_use]
    pub fn trained(&self) -> usize {
        self.files.parameters.trainable().iter().map(|(_, var)| var.elem_count()).sum()
    }

    /// A model that gives the states which [`FineTuning::model`] reads.
    ///
    /// # Errors
    /// If candle cannot make the tensors.
    pub fn states_model(&self) -> Result<Recogniser, FineTuningError> {
        let joint = JointConfig::default();
        let config = RecogniserConfig { joint, ..self.config.clone() };
        Ok(Recogniser::new(&config, &self.files.parameters)?)
    }

    /// The model as it is used from now on: low-rank updates are merged into the maps they
    /// update. Parameters of the model in training stay as they are.
    ///
    /// # Errors
    /// If an update fits no map.
    pub fn finished(&self) -> Result<ModelFiles, FineTuningError> {
        let parameters = self.files.parameters.fork();
        let mut config = self.files.config.clone();
        let adaptation = &mut config.encoder.variant.adaptation;
        if let Some(low_rank) = adaptation.filter(Adaptation::is_low_rank) {
            parameters.merge_low_rank(low_rank)?;
            *adaptation = None;
        }
        Ok(ModelFiles { config, vocabulary: self.files.vocabulary.clone(), parameters })
    }
}
