//! `asr listen`.

mod lines;
mod screen;
mod session;

use super::Talk;
use super::decoding::DecodingArgs;
use super::failure::AnyError;
#[cfg(not(feature = "microphone"))]
use super::failure::CliError;
use super::model::ModelArgs;
use super::output::ModelEntry;
use super::recognise::stop_on_ctrl_c;
use super::transcribe::{languages, names};
use crate::audio::{AudioStream, DecodeOptions, LiveInput, Replay};
use clap::{Args, ValueEnum};
use lines::{JsonLines, TextLines};
use screen::Screen;
use session::{Display, Session};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;

/// Write down what is said into a microphone while it is said
///
/// Examples:
///   asr listen                                   on a terminal a small live screen
///   asr listen --list-devices
///   asr listen --input plughw:1,0 --record talk.wav
///   asr listen -f jsonl | tee talk.jsonl
///   asr listen --identify-only
///   asr listen --file talk.mp3                   a recording as if it was spoken now
///
/// The language is shown within a second after somebody begins to speak, and again every half
/// second, with the text so far; a pause of 0.6 s makes it final. Ctrl-C ends, with what was
/// pending. A device that goes away is opened again when it returns.
///
/// JSON lines have an `event`: `start`, `partial`, `final`, `dropped`, `device_lost`,
/// `device_back`, `end`. `latency_s` is from the moment that `end_s` was heard to the line.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ListenArgs {
    /// The microphone, by the name or part of the description that `--list-devices` shows
    #[arg(long, value_name = "NAME", conflicts_with = "file")]
    input: Option<String>,
    /// Name the microphones and end
    #[arg(long)]
    list_devices: bool,
    /// Listen to a recording, or `-` for standard input, no faster than it sounds
    #[arg(long, value_name = "AUDIO|-")]
    file: Option<PathBuf>,
    /// Keep what is heard in this WAV file (one channel, 16 bits, the rate of the device)
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Languages that may be spoken: `auto`, or codes such as `swa` or `en,fr`
    #[arg(short, long, value_name = "auto|LANG,...", default_value = "auto")]
    language: String,
    /// Name the language only
    #[arg(long)]
    identify_only: bool,
    /// Form of the results
    #[arg(short = 'f', long = "format", value_enum, default_value_t = Form::Text)]
    format: Form,
    #[command(flatten)]
    decoding: DecodingArgs,
    #[command(flatten)]
    model: ModelArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// A live screen on a terminal, plain lines elsewhere
    Text,
    /// A JSON object per line
    Jsonl,
}

/// Rate that recordings are played at: that of the models.
const REPLAY_HZ: u32 = 16_000;

pub(super) fn run(args: &ListenArgs, talk: Talk) -> Result<ExitCode, AnyError> {
    if args.list_devices {
        return list_devices(args.format);
    }
    let candidates = languages(&args.language)?;
    let mut input = match &args.file {
        Some(path) => replay(path)?,
        None => microphone(args.input.as_deref())?,
    };
    let mut model = args.model.load(&names(&args.language), talk)?;
    let only = candidates.as_deref().filter(|languages| languages.len() == 1).map(|l| l[0]);
    args.decoding.apply(&mut model, only, talk)?;
    model.transcriber.check_languages(candidates.as_deref())?;
    let frames = model.frames()?;
    let stop = stop_on_ctrl_c()?;
    let on_terminal = std::io::stdout().is_terminal();
    let with_text = !args.identify_only;
    let mut display: Box<dyn Display> = match args.format {
        Form::Jsonl => Box::new(JsonLines::new(ModelEntry::new(&model)?, with_text)),
        Form::Text if on_terminal => Box::new(Screen::new(with_text)),
        Form::Text => Box::new(TextLines::new(with_text, talk)),
    };
    let session = Session::new(frames, candidates.as_deref(), args.record.as_deref());
    session.run(input.as_mut(), display.as_mut(), &stop)?;
    Ok(if stop.load(Ordering::Relaxed) { ExitCode::from(130) } else { ExitCode::SUCCESS })
}

fn replay(path: &Path) -> Result<Box<dyn LiveInput>, AnyError> {
    let options = DecodeOptions { sample_rate_hz: REPLAY_HZ, ..DecodeOptions::default() };
    let stream = if path == Path::new("-") {
        AudioStream::from_reader(std::io::stdin(), "standard input", None, &options)?
    } else {
        AudioStream::open(path, &options)?
    };
    Ok(Box::new(Replay::new(stream, &path.display().to_string(), REPLAY_HZ)))
}

#[cfg(feature = "microphone")]
fn microphone(name: Option<&str>) -> Result<Box<dyn LiveInput>, AnyError> {
    Ok(Box::new(crate::audio::Microphone::open(name)?))
}

#[cfg(not(feature = "microphone"))]
fn microphone(_name: Option<&str>) -> Result<Box<dyn LiveInput>, AnyError> {
    Err(CliError::NoMicrophone.into())
}

#[cfg(feature = "microphone")]
fn list_devices(format: Form) -> Result<ExitCode, AnyError> {
    use super::output::write_stdout;

    let devices = crate::audio::microphones()?;
    let mut text = String::new();
    for device in &devices {
        if format == Form::Jsonl {
            let entry = serde_json::json!({
                "name": device.name,
                "description": device.description,
                "sample_rate_hz": device.sample_rate_hz,
                "channels": device.n_channels,
                "default": device.is_default,
            });
            text.push_str(&format!("{entry}\n"));
            continue;
        }
        let mark = if device.is_default { '*' } else { ' ' };
        let own = match (device.sample_rate_hz, device.n_channels) {
            (Some(rate), Some(channels)) => format!(", {rate} Hz, {channels} channels"),
            _ => String::new(),
        };
        let about = device.description.escape_debug();
        text.push_str(&format!("{mark} {}  ({about}{own})\n", device.name.escape_debug()));
    }
    if devices.is_empty() {
        eprintln!("no microphones");
    }
    write_stdout(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(not(feature = "microphone"))]
fn list_devices(_format: Form) -> Result<ExitCode, AnyError> {
    Err(CliError::NoMicrophone.into())
}
