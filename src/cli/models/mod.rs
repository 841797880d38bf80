//! `asr models`.

mod facts;
mod import;
mod inspect;
mod list;
mod pull;
mod quantize;

use super::Talk;
use super::failure::AnyError;
use clap::{Args, Subcommand};
use std::process::ExitCode;

/// Look at models, list and download them, turn checkpoints of others into folders of ours
#[derive(Debug, Args)]
pub(super) struct ModelsArgs {
    #[command(subcommand)]
    command: ModelsCommand,
}

#[derive(Debug, Subcommand)]
enum ModelsCommand {
    Import(import::ImportArgs),
    Inspect(inspect::InspectArgs),
    List(list::ListArgs),
    Pull(pull::PullArgs),
    Quantize(quantize::QuantizeArgs),
}

pub(super) fn run(args: &ModelsArgs, talk: Talk) -> Result<ExitCode, AnyError> {
    match &args.command {
        ModelsCommand::Import(args) => import::run(args, talk),
        ModelsCommand::Inspect(args) => inspect::run(args, talk),
        ModelsCommand::List(args) => list::run(args),
        ModelsCommand::Pull(args) => pull::run(args, talk),
        ModelsCommand::Quantize(args) => quantize::run(args, talk),
    }
}
