//! `asr identify`.

use super::Talk;
use super::failure::{AnyError, CliError};
use super::input::{Input, InputArgs};
use super::model::ModelArgs;
use super::output::{Detail, Format, ModelEntry, json, seconds, write_stdout};
use super::recognise::{InputError, Manner, Recognised, Sink, recognise};
use super::transcribe::languages;
use clap::Args;
use std::process::ExitCode;

/// Name the language that is spoken
///
/// Examples:
///   asr identify voicemail.ogg
///   asr identify clips/ --top 1 -f jsonl
///   asr identify call.wav --candidates ces,slk,pol     one of these three
///   asr identify meeting.ogg --windows                 where the language changes
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
    /// List the stretches of the recording in which one language is spoken
    #[arg(long)]
    windows: bool,
    /// Form of the results
    #[arg(short = 'f', long = "format", visible_alias = "output-format", alias = "output_format", value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    model: ModelArgs,
}

pub(super) fn run(args: &IdentifyArgs, talk: Talk) -> Result<ExitCode, AnyError> {
    let candidates = languages(&args.candidates)?;
    let list = args.input.list()?;
    let several = list.len() > 1;
    let model = args.model.load(None, talk)?;
    if !model.transcriber.names_languages() {
        return Err(CliError::NoLanguages { name: model.name }.into());
    }
    let entry = match args.format {
        Format::Text => None,
        Format::Json | Format::Jsonl => Some(ModelEntry::new(&model)?),
    };
    let mut writer = Writer { args, several, entry, all: Vec::new() };
    let manner = Manner { candidates: candidates.as_deref(), detect_voice: true, batch_size: 1 };
    let code =
        recognise(model.transcriber.as_ref(), &args.input, &list, manner, talk, &mut writer)?;
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
            let detail = self.args.windows.then_some(Detail::Language);
            let value = json(input, result, Some(self.args.top), detail, model)?;
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
        let mut lines = format!("{name}{ranked}\n");
        if self.args.windows {
            for (start, end, language) in found.transcription.language_changes() {
                let code = language.map_or_else(|| "-".to_owned(), |code| code.to_string());
                let (start, end) = (seconds(start), seconds(end));
                lines.push_str(&format!("{name}{start:.3} {end:.3} {code}\n"));
            }
        }
        write_stdout(lines.as_bytes())?;
        Ok(())
    }
}
