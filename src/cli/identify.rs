//! `asr identify`.

use super::Talk;
use super::failure::{AnyError, CliError};
use super::input::{Input, InputArgs};
use super::language::LanguageArgs;
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
/// Scores are probabilities, calibrated on held-out clips if the model was. Where nobody speaks
/// the language is `-`; where the best score is below the threshold it is `unknown`, and the
/// list says what it might be. A model that knows places adds where the voice points, in degrees
/// north and east.
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
    /// Score below which the language is `unknown`, 0 to 1 [default: the model's own, else 0]
    #[arg(long, value_name = "P", value_parser = probability)]
    unknown_threshold: Option<f64>,
    /// List the stretches of the recording in which one language is spoken, to about a second;
    /// of models that tell languages apart frame by frame, such as `default`
    #[arg(long)]
    windows: bool,
    /// Form of the results
    #[arg(short = 'f', long = "format", visible_alias = "output-format", alias = "output_format", value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    language: LanguageArgs,
    #[command(flatten)]
    model: ModelArgs,
}

pub(super) fn run(args: &IdentifyArgs, talk: Talk) -> Result<ExitCode, AnyError> {
    let candidates = languages(&args.candidates)?;
    let list = args.input.list()?;
    let several = list.len() > 1;
    let mut model = args.model.load(&[], talk)?;
    if !model.transcriber.names_languages() {
        return Err(CliError::NoLanguages { name: model.name }.into());
    }
    args.language.apply(&mut model)?;
    let entry = match args.format {
        Format::Text => None,
        Format::Json | Format::Jsonl => Some(ModelEntry::new(&model)?),
    };
    let fitted = model.transcriber.calibration().map(|fitted| fitted.unknown_threshold);
    let threshold = args.unknown_threshold.or(fitted).unwrap_or(0.0);
    let mut writer = Writer { args, several, threshold, entry, all: Vec::new() };
    let manner = Manner {
        candidates: candidates.as_deref(),
        detect_voice: true,
        by_language: args.windows,
        batch_size: 1,
    };
    let code =
        recognise(model.transcriber.as_ref(), &args.input, &list, manner, talk, &mut writer)?;
    if args.format == Format::Json {
        write_stdout(format!("{}\n", serde_json::to_string_pretty(&writer.all)?).as_bytes())?;
    }
    Ok(code)
}

/// A probability as it is typed.
fn probability(given: &str) -> Result<f64, &'static str> {
    let value = given.parse::<f64>().ok().filter(|p| (0.0..=1.0).contains(p));
    value.ok_or("must be a number from 0 to 1")
}

struct Writer<'a> {
    args: &'a IdentifyArgs,
    several: bool,
    /// Score below which nobody knows.
    threshold: f64,
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
            let value = json(input, result, Some(self.args.top), detail, self.threshold, model)?;
            if self.args.format == Format::Jsonl {
                write_stdout(format!("{value}\n").as_bytes())?;
            } else {
                self.all.push(value);
            }
            return Ok(());
        }
        let Ok(found) = result else { return Ok(()) };
        let transcription = &found.transcription;
        let mut ranked: Vec<String> = transcription
            .languages
            .iter()
            .take(self.args.top)
            .map(|l| format!("{} {} {:.2}", l.code, l.code.name().unwrap_or("(no name)"), l.score))
            .collect();
        if !ranked.is_empty() && transcription.language(self.threshold).is_none() {
            ranked.insert(0, "unknown".to_owned());
        }
        if let Some(place) = transcription.location() {
            ranked.push(format!("at {:.1} {:.1}", place.latitude, place.longitude));
        }
        let ranked = if ranked.is_empty() { "-".to_owned() } else { ranked.join(", ") };
        let name = if self.several { format!("{}: ", input.name()) } else { String::new() };
        let mut lines = format!("{name}{ranked}\n");
        if self.args.windows {
            for (start, end, language) in transcription.language_changes(found.duration_s) {
                let code = language.map_or_else(|| "-".to_owned(), |found| found.code.to_string());
                let (start, end) = (seconds(start), seconds(end));
                lines.push_str(&format!("{name}{start:.3} {end:.3} {code}\n"));
            }
        }
        write_stdout(lines.as_bytes())?;
        Ok(())
    }
}
