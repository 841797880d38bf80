//! `asr transcribe`.

use super::Talk;
use super::failure::{AnyError, CliError};
use super::input::{Input, InputArgs};
use super::model::ModelArgs;
use super::output::{Format, ModelEntry, Output, json};
use super::recognise::{InputError, Recognised, Sink, recognise};
use crate::text::Language;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

/// Write down what is said, and in which language
///
/// Examples:
///   asr transcribe talk.mp3
///   asr transcribe recordings/ --recursive -f jsonl -o talks.jsonl
///   asr transcribe -l swa,eng interview.ogg          only these two languages
///   arecord -f S16_LE -r 16000 | asr transcribe -    from a pipe
///
/// Text output is one line per file: `[language] text`, with the file's name in front if there
/// are several; `[-]` where nobody speaks. Times and scores are in the JSON formats.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct TranscribeArgs {
    #[command(flatten)]
    input: InputArgs,
    /// Languages that may be spoken: `auto`, or codes such as `swa` or `en,fr`
    #[arg(short, long, value_name = "auto|LANG,...", default_value = "auto")]
    language: String,
    /// Form of the results
    #[arg(short = 'f', long = "format", visible_alias = "output-format", alias = "output_format", value_enum, default_value_t = Format::Text)]
    format: Format,
    /// File to write to [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
}

/// The languages of a list such as `en,swa`; `None` for `auto`.
pub(super) fn languages(list: &str) -> Result<Option<Vec<Language>>, AnyError> {
    if list == "auto" {
        return Ok(None);
    }
    Ok(Some(list.split(',').map(|code| code.trim().parse()).collect::<Result<_, _>>()?))
}

pub(super) fn run(args: &TranscribeArgs, talk: Talk) -> Result<ExitCode, AnyError> {
    let candidates = languages(&args.language)?;
    let several = args.input.list()?.len() > 1;
    let language = Some(args.language.as_str()).filter(|language| *language != "auto");
    let model = args.model.load(language, talk)?;
    talk.note(format_args!("model `{}`", model.name));
    if !model.transcriber.writes_text() {
        return Err(CliError::NoText { name: model.name }.into());
    }
    let entry = match args.format {
        Format::Text => None,
        Format::Json | Format::Jsonl => Some(ModelEntry::new(&model)?),
    };
    let output = Output::create(args.output.as_deref())?;
    let mut writer = Writer { format: args.format, several, entry, output, written: 0 };
    let code = recognise(
        model.transcriber.as_ref(),
        &args.input,
        candidates.as_deref(),
        talk,
        &mut writer,
    )?;
    writer.finish()?;
    Ok(code)
}

struct Writer {
    format: Format,
    several: bool,
    entry: Option<ModelEntry>,
    output: Output,
    written: usize,
}

impl Sink for Writer {
    fn result(
        &mut self,
        input: &Input,
        result: &Result<Recognised, InputError>,
    ) -> Result<(), AnyError> {
        let line = match (&self.entry, result) {
            (Some(model), _) => {
                let value = json(input, result, None, true, 0.0, model)?;
                match self.format {
                    Format::Json if self.written == 0 => format!("[\n{value}"),
                    Format::Json => format!(",\n{value}"),
                    _ => format!("{value}\n"),
                }
            }
            (None, Err(_)) => return Ok(()),
            (None, Ok(found)) => {
                let transcription = &found.transcription;
                let language =
                    transcription.languages.first().map_or("-".to_owned(), |l| l.code.to_string());
                let name = if self.several { format!("{}: ", input.name()) } else { String::new() };
                let line = format!("{name}[{language}] {}", transcription.text());
                format!("{}\n", line.trim_end())
            }
        };
        self.written += 1;
        self.output.write(&line)
    }
}

impl Writer {
    fn finish(mut self) -> Result<(), AnyError> {
        if self.format == Format::Json {
            self.output.write(if self.written == 0 { "[]\n" } else { "\n]\n" })?;
        }
        Ok(self.output.finish()?)
    }
}
