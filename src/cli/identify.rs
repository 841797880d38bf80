//! `asr identify`.

use super::Talk;
use super::failure::{AnyError, CliError};
use super::input::{Input, InputArgs};
use super::model::ModelArgs;
use super::output::{Format, ModelEntry, json, write_stdout};
use super::recognise::{InputError, Recognised, Sink, recognise};
use super::transcribe::languages;
use clap::Args;
use std::process::ExitCode;

/// Name the language that is spoken
///
/// Examples:
///   asr identify voicemail.ogg
///   asr identify clips/ --top 1 -f jsonl
///   asr identify call.wav --candidates ces,slk,pol     one of these three
///
/// Scores are the model's probabilities, not calibrated. Where nobody speaks the language is `-`.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct IdentifyArgs {
    #[command(flatten)]
    input: InputArgs,
    /// Languages to list per file
    #[arg(long, value_name = "K", default_value_t = 3)]
    top: usize,
    /// Languages to choose from: codes such as `swa` or `en,fr`
    #[arg(long, value_name = "LANG,...", default_value = "auto")]
    candidates: String,
    /// Form of the results
    #[arg(short = 'f', long = "format", visible_alias = "output-format", alias = "output_format", value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    model: ModelArgs,
}

pub(super) fn run(args: &IdentifyArgs, talk: Talk) -> Result<ExitCode, AnyError> {
    let candidates = languages(&args.candidates)?;
    let several = args.input.list()?.len() > 1;
    let model = args.model.load(None, talk)?;
    if !model.transcriber.names_languages() {
        return Err(CliError::NoLanguages { name: model.name }.into());
    }
    let entry = match args.format {
        Format::Text => None,
        Format::Json | Format::Jsonl => Some(ModelEntry::new(&model)?),
    };
    let mut writer = Writer { args, several, entry, all: Vec::new() };
    let code = recognise(
        model.transcriber.as_ref(),
        &args.input,
        candidates.as_deref(),
        talk,
        &mut writer,
    )?;
    if args.format == Format::Json {
        write_stdout(format!("{}\n", serde_json::to_string_pretty(&writer.all)?).as_bytes())?;
    }
    Ok(code)
}

struct Writer<'a> {
    args: &'a IdentifyArgs,
    several: bool,
    entry: Option<ModelEntry>,
    all: Vec<serde_json::Value>,
}

impl Sink for Writer<'_> {
    fn result(
        &mut self,
        input: &Input,
        result: &Result<Recognised, InputError>,
    ) -> Result<(), AnyError> {
        if let Some(model) = &self.entry {
            let value = json(input, result, Some(self.args.top), false, model)?;
            if self.args.format == Format::Jsonl {
                write_stdout(format!("{value}\n").as_bytes())?;
            } else {
                self.all.push(value);
            }
            return Ok(());
        }
        let Ok(found) = result else { return Ok(()) };
        let ranked: Vec<String> = found
            .transcription
            .languages
            .iter()
            .take(self.args.top)
            .map(|l| format!("{} {} {:.2}", l.code, l.code.name().unwrap_or("(no name)"), l.score))
            .collect();
        let ranked = if ranked.is_empty() { "-".to_owned() } else { ranked.join(", ") };
        let name = if self.several { format!("{}: ", input.name()) } else { String::new() };
        write_stdout(format!("{name}{ranked}\n").as_bytes())?;
        Ok(())
    }
}
