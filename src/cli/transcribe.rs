//! `asr transcribe`.

use super::Talk;
use super::decoding::DecodingArgs;
use super::destination::{Destination, Folder, earlier_results, is_folder};
use super::failure::{AnyError, CliError};
use super::input::{Input, InputArgs};
use super::language::LanguageArgs;
use super::model::ModelArgs;
use super::output::{Detail, ModelEntry, Output, json, segment_json};
use super::recognise::{InputError, Manner, Recognised, Sink, TimedSegment, recognise};
use crate::text::timed::{CueOptions, ctm, cues, srt, tsv, vtt};
use crate::text::{Language, TimedWord};
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;

/// Write down what is said, and in which language
///
/// Examples:
///   asr transcribe talk.mp3
///   asr transcribe recordings/ --recursive -f jsonl -o talks.jsonl --resume
///   asr transcribe recordings/ --recursive -f srt -o subtitles/     a file per recording
///   asr transcribe -l swa,eng interview.ogg          only these two languages
///   asr transcribe -l swa,eng interview.ogg --language-changes -f json
///   asr transcribe call.wav --lm swa.arpa.gz --hotwords names.txt
///   arecord -f S16_LE -r 16000 | asr transcribe -    from a pipe
///
/// Text output is one line per file: `[language] text`, with the file's name in front if there
/// are several; `[-]` where nobody speaks. Times and scores are in the other formats. With
/// `-f jsonl`, standard input gives a line with `"partial": true` for each segment as soon as it
/// is decoded, and the whole result as the last line.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct TranscribeArgs {
    #[command(flatten)]
    input: InputArgs,
    /// Languages that may be spoken: `auto`, or codes such as `swa` or `en,fr`; of models with an
    /// adapter for each language, those tried, and the surest is taken
    #[arg(short, long, value_name = "auto|LANG,...", default_value = "auto")]
    language: String,
    /// Begin a segment where the language changes inside of a sentence too, not in pauses alone;
    /// takes about three times as long, and needs a model that names languages and writes text,
    /// such as `default`
    #[arg(long)]
    language_changes: bool,
    #[command(flatten)]
    layout: LayoutArgs,
    #[command(flatten)]
    decoding: DecodingArgs,
    #[command(flatten)]
    lid: LanguageArgs,
    /// Decode what is said between pauses by itself, and leave out where nobody speaks
    #[arg(long, value_enum, default_value_t = Switch::On)]
    vad: Switch,
    /// Decode this many short files as one batch
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch_size: u16,
    #[command(flatten)]
    model: ModelArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
struct LayoutArgs {
    /// Form of the results
    #[arg(short = 'f', long = "format", visible_alias = "output-format", alias = "output_format", value_enum, default_value_t = Form::Text)]
    format: Form,
    /// File to write to, or folder (one that exists, or with a slash at its end) for a file per
    /// input in a tree like theirs [default: standard output]
    #[arg(short, long, value_name = "DIR|FILE|-")]
    output: Option<PathBuf>,
    /// Leave out inputs whose result is in the output folder or `jsonl` file already
    #[arg(long)]
    resume: bool,
    /// Give the time of every word in the JSON formats
    #[arg(long)]
    word_timestamps: bool,
    /// Characters of a subtitle line
    #[arg(long, value_name = "N", default_value_t = 42)]
    max_line_chars: usize,
    /// Lines of a subtitle
    #[arg(long, value_name = "N", default_value_t = 2)]
    max_lines: usize,
    /// Words of a subtitle
    #[arg(long, value_name = "N")]
    max_words: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// One line per file: language and text
    Text,
    /// A JSON array with one object per file; in an output folder the object alone
    Json,
    /// One JSON object per line, written as files are done
    Jsonl,
    /// SubRip subtitles
    Srt,
    /// WebVTT subtitles
    Vtt,
    /// Subtitles as a table: start and end in milliseconds, text
    Tsv,
    /// A line per word: recording, channel, start, duration, word, score
    Ctm,
}

impl Form {
    fn name(self) -> &'static str {
        match self {
            Self::Text => "txt",
            Self::Json => "json",
            Self::Jsonl => "jsonl",
            Self::Srt => "srt",
            Self::Vtt => "vtt",
            Self::Tsv => "tsv",
            Self::Ctm => "ctm",
        }
    }

    /// Whether a file in this form holds one recording only.
    fn holds_one(self) -> bool {
        matches!(self, Self::Srt | Self::Vtt | Self::Tsv)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// The languages of a list such as `en,swa`; `None` for `auto`.
pub(super) fn languages(list: &str) -> Result<Option<Vec<Language>>, AnyError> {
    if list == "auto" {
        return Ok(None);
    }
    Ok(Some(list.split(',').map(|code| code.trim().parse()).collect::<Result<_, _>>()?))
}

/// The languages of such a list as they were typed; none for `auto`.
pub(super) fn names(list: &str) -> Vec<String> {
    match list {
        "auto" => Vec::new(),
        list => list.split(',').map(|language| language.trim().to_owned()).collect(),
    }
}

pub(super) fn run(args: &TranscribeArgs, talk: Talk) -> Result<ExitCode, AnyError> {
    let candidates = languages(&args.language)?;
    let mut list = args.input.list()?;
    let several = list.len() > 1;
    let layout = &args.layout;
    let folder = layout.output.as_deref().filter(|path| is_folder(path));
    if several && folder.is_none() && layout.format.holds_one() {
        let format = layout.format.name().to_owned();
        return Err(CliError::OneRecording { format, inputs: list.len() }.into());
    }
    let folder = folder.map(|root| Folder::new(root, &list, layout.format.name()));
    let mut earlier = Vec::new();
    if layout.resume {
        match (&folder, &layout.output) {
            (Some(folder), _) => {
                list.retain(|input| !folder.path(input).is_some_and(std::path::Path::exists));
            }
            (None, Some(path)) if layout.format == Form::Jsonl && path.as_os_str() != "-" => {
                let (lines, done) = earlier_results(path)?;
                list.retain(|input| !done.contains(&input.name()));
                earlier = lines;
            }
            _ => return Err(CliError::NothingToResume.into()),
        }
    }
    let mut model = args.model.load(&names(&args.language), talk)?;
    talk.note(format_args!("model `{}`", model.name));
    if !model.transcriber.writes_text() {
        return Err(CliError::NoText { name: model.name }.into());
    }
    let entry = match layout.format {
        Form::Json | Form::Jsonl => Some(ModelEntry::new(&model)?),
        _ => None,
    };
    let only = candidates.as_deref().filter(|languages| languages.len() == 1).map(|l| l[0]);
    args.decoding.apply(&mut model, only, talk)?;
    args.lid.apply(&mut model)?;
    let destination = match folder {
        Some(folder) => Destination::Folder(folder),
        None => {
            let mut output = Output::create(layout.output.as_deref())?;
            for line in earlier {
                output.write(&format!("{line}\n"))?;
            }
            Destination::One(output)
        }
    };
    let mut writer = Writer { layout, several, entry, destination, written: 0 };
    let manner = Manner {
        candidates: candidates.as_deref(),
        detect_voice: args.vad == Switch::On,
        by_language: args.language_changes,
        batch_size: args.batch_size.into(),
    };
    let code =
        recognise(model.transcriber.as_ref(), &args.input, &list, manner, talk, &mut writer)?;
    writer.finish()?;
    Ok(code)
}

struct Writer<'a> {
    layout: &'a LayoutArgs,
    several: bool,
    entry: Option<ModelEntry>,
    destination: Destination,
    written: usize,
}

impl Writer<'_> {
    fn detail(&self) -> Detail {
        if self.layout.word_timestamps { Detail::Words } else { Detail::Text }
    }

    /// The result of an input in formats other than JSON.
    fn text(&self, input: &Input, found: &Recognised) -> String {
        let transcription = &found.transcription;
        let words: Vec<TimedWord> = transcription.words().cloned().collect();
        let options = CueOptions {
            max_line_chars: self.layout.max_line_chars,
            max_lines: self.layout.max_lines,
            max_words: self.layout.max_words,
            ..CueOptions::default()
        };
        let laid_out = || cues(&words, &options);
        match self.layout.format {
            Form::Srt => srt(&laid_out()),
            Form::Vtt => vtt(&laid_out()),
            Form::Tsv => {
                let rows: Vec<(f64, f64, String)> = laid_out()
                    .iter()
                    .map(|cue| (cue.start_s, cue.end_s, cue.lines.join(" ")))
                    .collect();
                tsv(rows.iter().map(|(start, end, text)| (*start, *end, text.as_str())))
            }
            Form::Ctm => ctm(&input.name(), &words),
            Form::Text | Form::Json | Form::Jsonl => {
                let language =
                    transcription.languages.first().map_or("-".to_owned(), |l| l.code.to_string());
                let named = self.several && matches!(self.destination, Destination::One(_));
                let name = if named { format!("{}: ", input.name()) } else { String::new() };
                let line = format!("{name}[{language}] {}", transcription.text());
                format!("{}\n", line.trim_end())
            }
        }
    }
}

impl Sink for Writer<'_> {
    fn result(
        &mut self,
        input: &Input,
        result: &Result<Recognised, InputError>,
    ) -> Result<(), AnyError> {
        // An input that Ctrl-C cut off has no result that is kept, so that `--resume` tries it again.
        if self.destination.is_kept() && result.as_ref().is_ok_and(|found| found.is_cut) {
            return Ok(());
        }
        let text = match (&self.entry, result) {
            (Some(model), _) => {
                let value = json(input, result, None, Some(self.detail()), 0.0, model)?;
                match (self.layout.format, &self.destination) {
                    // A failed input has no file, so that `--resume` tries it again.
                    (_, Destination::Folder(_)) if result.is_err() => return Ok(()),
                    (Form::Json, Destination::Folder(_)) => {
                        format!("{}\n", serde_json::to_string_pretty(&value)?)
                    }
                    (Form::Json, _) if self.written == 0 => format!("[\n{value}"),
                    (Form::Json, _) => format!(",\n{value}"),
                    _ => format!("{value}\n"),
                }
            }
            (None, Err(_)) => return Ok(()),
            (None, Ok(found)) => self.text(input, found),
        };
        self.written += 1;
        match &mut self.destination {
            Destination::One(output) => output.write(&text),
            Destination::Folder(folder) => folder.write(input, &text),
        }
    }

    fn segment(&mut self, input: &Input, segment: &TimedSegment) -> Result<(), AnyError> {
        match &mut self.destination {
            Destination::One(output)
                if self.layout.format == Form::Jsonl && *input == Input::Stdin =>
            {
                let detail = if self.layout.word_timestamps { Detail::Words } else { Detail::Text };
                output.write(&format!("{}\n", segment_json(input, segment, detail)?))
            }
            _ => Ok(()),
        }
    }
}

impl Writer<'_> {
    fn finish(self) -> Result<(), AnyError> {
        let Destination::One(mut output) = self.destination else { return Ok(()) };
        if self.layout.format == Form::Json {
            output.write(if self.written == 0 { "[]\n" } else { "\n]\n" })?;
        }
        Ok(output.finish()?)
    }
}
