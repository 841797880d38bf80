//! The command line: the only layer that prints.

mod finetune;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Multilingual speech recognition and language identification.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a recogniser from a recipe.
    Finetune(finetune::FinetuneArgs),
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Finetune(args) => finetune::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#?}");
            ExitCode::from(1)
        }
    }
}
