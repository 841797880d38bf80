//! Files, folders and standard input as a list of things to recognise.

use super::failure::{AnyError, CliError};
use crate::audio::{AudioError, AudioStream, DecodeOptions, Limits, RawFormat, audio_files};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Debug, Args)]
#[command(next_help_heading = "Input")]
pub(super) struct InputArgs {
    /// Audio files, folders of them, or `-` for standard input
    ///
    /// Formats: wav, flac, mp3, ogg (vorbis, opus), m4a (aac, alac), aac, aiff, caf, mkv, webm;
    /// any sample rate, any number of channels.
    #[arg(required = true, value_name = "AUDIO|DIR|-")]
    audio: Vec<PathBuf>,
    /// Look into the folders of folders too
    #[arg(short, long)]
    recursive: bool,
    /// Take this channel, counted from 0, instead of the mean of all
    #[arg(long, value_name = "N")]
    channel: Option<usize>,
    /// Standard input is raw samples of this format, one channel, without a header
    #[arg(long, value_enum, requires = "stdin_rate")]
    stdin_format: Option<StdinFormat>,
    /// Sample rate of raw standard input
    #[arg(long, value_name = "HZ", requires = "stdin_format")]
    stdin_rate: Option<u32>,
    /// Give up on an input after this many hours of audio
    #[arg(long, value_name = "HOURS", default_value_t = 24.0)]
    max_hours: f64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum StdinFormat {
    S16le,
    F32le,
}

/// One thing to recognise.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Input {
    File {
        path: PathBuf,
        /// Its place in the folder that was asked for, or its name.
        relative: PathBuf,
    },
    Stdin,
}

impl Input {
    /// The name results carry.
    pub(super) fn name(&self) -> String {
        match self {
            Self::File { path, .. } => path.display().to_string(),
            Self::Stdin => "-".to_owned(),
        }
    }

    /// The place of its result in a folder of results, but for the extension.
    pub(super) fn relative(&self) -> PathBuf {
        match self {
            Self::File { relative, .. } => relative.clone(),
            Self::Stdin => "stdin".into(),
        }
    }

    fn file(path: &Path, folder: Option<&Path>) -> Self {
        let inside = folder.and_then(|folder| path.strip_prefix(folder).ok());
        let name = path.file_name().map_or_else(|| Path::new("audio"), Path::new);
        Self::File { path: path.to_owned(), relative: inside.unwrap_or(name).to_owned() }
    }
}

impl InputArgs {
    /// Every input, folders opened up. A file that does not exist stays in the list and
    /// fails when its turn comes.
    pub(super) fn list(&self) -> Result<Vec<Input>, AnyError> {
        let mut inputs = Vec::new();
        for path in &self.audio {
            if path == Path::new("-") {
                if inputs.contains(&Input::Stdin) {
                    return Err(CliError::StdinTwice.into());
                }
                inputs.push(Input::Stdin);
            } else if path.is_dir() {
                let files = audio_files(path, self.recursive)?;
                if files.is_empty() {
                    return Err(CliError::NothingToDo { path: path.clone() }.into());
                }
                inputs.extend(files.iter().map(|file| Input::file(file, Some(path))));
            } else {
                inputs.push(Input::file(path, None));
            }
        }
        Ok(inputs)
    }

    /// Starts to decode an input.
    pub(super) fn open(&self, input: &Input) -> Result<AudioStream, AudioError> {
        let limits = Limits {
            max_duration_s: self.max_hours * 3600.0,
            max_decode_time: Some(Duration::from_secs(24 * 3600)),
            ..Limits::default()
        };
        let options = DecodeOptions { channel: self.channel, limits, ..DecodeOptions::default() };
        match (input, self.stdin_format, self.stdin_rate) {
            (Input::File { path, .. }, _, _) => AudioStream::open(path, &options),
            (Input::Stdin, Some(format), Some(rate_hz)) => {
                let format = match format {
                    StdinFormat::S16le => RawFormat::S16le,
                    StdinFormat::F32le => RawFormat::F32le,
                };
                AudioStream::from_raw(std::io::stdin(), format, rate_hz, 1, &options)
            }
            (Input::Stdin, _, _) => {
                AudioStream::from_reader(std::io::stdin(), "standard input", None, &options)
            }
        }
    }
}
