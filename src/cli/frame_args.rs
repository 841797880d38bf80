//! The options that say which frames are clustered.

use super::Talk;
use super::failure::{AnyError, CliError};
use super::model::{ModelArgs, weights_sha256};
use crate::pretrain::{FrameCard, FrameMaker};
use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub(super) struct FrameArgs {
    /// Take the output of this layer of the model, counted from 1
    #[arg(long, value_name = "L", help_heading = "Frames", conflicts_with = "features")]
    layer: Option<usize>,
    /// Features to take instead of a layer [default: mfcc]
    #[arg(long, value_enum, help_heading = "Frames")]
    features: Option<FeatureKind>,
    #[command(flatten)]
    model: ModelArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FeatureKind {
    /// 39 MFCC with deltas every 10 ms
    Mfcc,
    /// 80 log-mel filter banks every 10 ms
    Fbank,
}

impl FrameArgs {
    /// Makes the frames asked for, or those of a clustering's description where nothing is.
    pub(super) fn maker(
        &self,
        described: Option<&FrameCard>,
        talk: Talk,
    ) -> Result<(FrameMaker, FrameCard), AnyError> {
        if let Some(layer) = self.layer {
            return layer_maker(&self.model, layer, None, talk);
        }
        match (self.features, described) {
            (None, Some(FrameCard::Layer { model, sha256, layer })) => {
                let args = self.model.of_model(model.clone());
                layer_maker(&args, *layer, Some(sha256), talk)
            }
            (Some(FeatureKind::Fbank), _) | (None, Some(FrameCard::LogMel)) => {
                Ok((FrameMaker::log_mel()?, FrameCard::LogMel))
            }
            (Some(FeatureKind::Mfcc), _) | (None, _) => Ok((FrameMaker::mfcc()?, FrameCard::Mfcc)),
        }
    }
}

fn layer_maker(
    args: &ModelArgs,
    layer: usize,
    sha256: Option<&String>,
    talk: Talk,
) -> Result<(FrameMaker, FrameCard), AnyError> {
    let (model, path, precision) = args.read(talk)?;
    let found = weights_sha256(&model, path.as_deref())?;
    if sha256.is_some_and(|expected| *expected != found) {
        return Err(CliError::ModelChanged { name: args.name().to_owned() }.into());
    }
    // An absolute path still names the model when read from elsewhere.
    let name = path.and_then(|path| std::path::absolute(path).ok());
    let model_name = name.map_or_else(|| args.name().to_owned(), |path| path.display().to_string());
    let maker = FrameMaker::layer(model, layer, precision)?;
    Ok((maker, FrameCard::Layer { model: model_name, sha256: found, layer }))
}
