//! The command line: the only layer that prints.
//!
//! Results go to standard output, everything else to standard error. Exit codes: 0 all done,
//! 1 something failed, 2 misuse, 130 interrupted.

mod ablation;
mod align;
mod bench;
mod bench_speed;
mod cluster;
mod decoding;
mod destination;
mod device;
mod doctor;
mod failure;
mod features;
mod finetune;
mod finetune_data;
mod frame_args;
mod identify;
mod input;
mod language;
mod listen;
mod locate;
mod manifest;
mod ml_superb;
mod ml_superb_run;
mod model;
mod models;
mod output;
mod pretrain;
mod recognise;
mod report;
mod score;
mod tensor_file;
mod transcribe;
mod unit_quality;

use clap::{CommandFactory, Parser, Subcommand};
use failure::AnyError;
use std::process::ExitCode;

/// Speech to text and language identification for many languages, in one binary.
#[derive(Debug, Parser)]
#[command(
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "Start with:\n  asr transcribe recording.mp3          what is said, and in which language\n  asr transcribe folder/ -f jsonl       every file of a folder, one JSON object each\n  asr identify recording.ogg --top 3    only the language\n\n`asr COMMAND --help` says more about each command."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print results only: no progress, no warnings
    #[arg(long, global = true)]
    quiet: bool,
    /// Say more about what is done
    #[arg(long, global = true, conflicts_with = "quiet")]
    verbose: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Transcribe(transcribe::TranscribeArgs),
    Identify(identify::IdentifyArgs),
    Listen(listen::ListenArgs),
    Align(align::AlignArgs),
    Features(features::FeaturesArgs),
    Pretrain(pretrain::PretrainArgs),
    Finetune(finetune::FinetuneArgs),
    Manifest(manifest::ManifestArgs),
    Cluster(cluster::ClusterArgs),
    Score(score::ScoreArgs),
    Bench(bench::BenchArgs),
    Models(models::ModelsArgs),
    Doctor(doctor::DoctorArgs),
    /// Print a script that completes `asr` commands in a shell
    ///
    /// For bash: asr completions bash > ~/.local/share/bash-completion/completions/asr
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// How much is said besides results.
#[derive(Debug, Clone, Copy)]
struct Talk {
    quiet: bool,
    verbose: bool,
}

impl Talk {
    /// Something the user should know about a result.
    fn warn(self, text: impl std::fmt::Display) {
        if !self.quiet {
            eprintln!("warning: {text}");
        }
    }

    /// What is being done.
    fn note(self, text: impl std::fmt::Display) {
        if self.verbose {
            eprintln!("{text}");
        }
    }

    /// Steps of a long command.
    fn progress(self, text: impl std::fmt::Display) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let talk = Talk { quiet: cli.quiet, verbose: cli.verbose };
    let result = match &cli.command {
        Command::Transcribe(args) => transcribe::run(args, talk),
        Command::Identify(args) => identify::run(args, talk),
        Command::Listen(args) => listen::run(args, talk),
        Command::Align(args) => align::run(args, talk),
        Command::Features(args) => features::run(args, talk),
        Command::Pretrain(args) => pretrain::run(args, talk),
        Command::Finetune(args) => finetune::run(args, talk),
        Command::Manifest(args) => manifest::run(args, talk),
        Command::Cluster(args) => cluster::run(args, talk),
        Command::Score(args) => score::run(args, talk),
        Command::Bench(args) => bench::run(args, talk),
        Command::Models(args) => models::run(args, talk),
        Command::Doctor(args) => doctor::run(args),
        Command::Completions { shell } => completions(*shell),
    };
    result.unwrap_or_else(|error| failure::report(error.as_ref()))
}

fn completions(shell: clap_complete::Shell) -> Result<ExitCode, AnyError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "asr", &mut script);
    output::write_stdout(&script)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
