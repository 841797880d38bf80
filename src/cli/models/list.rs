//! `asr models list`.

use crate::cli::failure::AnyError;
use crate::cli::locate::hub;
use crate::cli::output::write_stdout;
use crate::config::DEFAULT_MODEL;
use clap::Args;
use serde::Serialize;
use std::fmt::Write;
use std::process::ExitCode;

/// List the models on this machine: the one inside the binary and those of the Hub
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Entry {
    name: String,
    /// Its folder; none for the model inside the binary.
    path: Option<String>,
}

pub(super) fn run(args: &ListArgs) -> Result<ExitCode, AnyError> {
    let cached = hub(true).map(|hub| hub.list()).unwrap_or_default();
    let embedded = Entry { name: DEFAULT_MODEL.to_owned(), path: None };
    let cached = cached
        .into_iter()
        .map(|(name, path)| Entry { name, path: Some(path.display().to_string()) });
    let entries: Vec<Entry> = std::iter::once(embedded).chain(cached).collect();
    let mut text = String::new();
    if args.json {
        text = serde_json::to_string_pretty(&entries)? + "\n";
    } else {
        let width = entries.iter().map(|entry| entry.name.len()).max().unwrap_or(0);
        for Entry { name, path } in &entries {
            let path = path.as_deref().unwrap_or("inside the binary");
            writeln!(text, "{name:width$}  {path}")?;
        }
    }
    write_stdout(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
