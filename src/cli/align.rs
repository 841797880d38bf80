//! `asr align`.

use super::Talk;
use super::failure::{AnyError, CliError};
use super::model::ModelArgs;
use super::output::{ModelEntry, Output, rounded, seconds};
use crate::audio::{AudioStream, DecodeOptions, Limits};
use crate::decode::{
    AlignedCharacter, AlignedWord, Aligner, FrameModel, Piece, Reader, Script, Stream,
    StreamOptions,
};
use crate::text::timed::{TextGridTier, ctm, text_grid, tsv};
use crate::text::{Language, TimedWord};
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Largest text.
const MAX_TEXT_BYTES: u64 = 64 << 20;
/// Pieces of some 15 s each that are searched for a language.
const MAX_PIECES_FOR_LANGUAGE: usize = 20;

/// Find when each word and character of a text is said
///
/// Examples:
///   asr align chapter.mp3 chapter.txt -f textgrid -o chapter.TextGrid
///   asr align -l swa interview.ogg interview.txt -f ctm
///
/// Lines of the text may be separated by speech that is not in it, and so may its beginning and
/// end. Any model that writes text will do; one that names no languages needs `-l`. Scores are the
/// model's mean probability of what is aligned, 0 to 1; 0 for what is not spoken, such as a dash.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct AlignArgs {
    /// The recording
    #[arg(value_name = "AUDIO")]
    audio: PathBuf,
    /// What is said in it, UTF-8
    #[arg(value_name = "TEXTFILE")]
    text: PathBuf,
    /// Language of the text: `auto` or a code such as `swa`
    #[arg(short, long, value_name = "auto|LANG", default_value = "auto")]
    language: String,
    /// Form of the result
    #[arg(short = 'f', long = "format", visible_alias = "output-format", alias = "output_format", value_enum, default_value_t = Form::Json)]
    format: Form,
    /// File to write to [default: standard output]
    #[arg(short, long, value_name = "FILE|-")]
    output: Option<PathBuf>,
    /// Take this channel, counted from 0, instead of the mean of all
    #[arg(long, value_name = "N")]
    channel: Option<usize>,
    #[command(flatten)]
    model: ModelArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    /// A JSON object with lines, words and characters
    Json,
    /// A table of words: start and end in milliseconds, text
    Tsv,
    /// A line per word: recording, channel, start, duration, word, score
    Ctm,
    /// Tiers of lines, words and characters for Praat
    Textgrid,
}

/// What was aligned.
struct Aligned {
    language: Language,
    duration_s: f64,
    words: Vec<AlignedWord>,
    n_unknown: usize,
}

pub(super) fn run(args: &AlignArgs, talk: Talk) -> Result<ExitCode, AnyError> {
    let language: Option<Language> =
        if args.language == "auto" { None } else { Some(args.language.parse()?) };
    let text = read_text(&args.text)?;
    let asked = language.map(|_| args.language.clone());
    let model = args.model.load(asked.as_slice(), talk)?;
    let aligned = align(model.frames()?, args, &text, language)?;
    if aligned.n_unknown > 0 {
        talk.warn(format_args!(
            "the model cannot write {} characters of `{}`; they are taken to be any sound",
            aligned.n_unknown,
            args.text.display()
        ));
    }
    let name = args.audio.display().to_string();
    let result = match args.format {
        Form::Json => {
            let model = ModelEntry::new(&model)?;
            format!("{}\n", serde_json::to_string_pretty(&entry(name, &aligned, &model))?)
        }
        Form::Tsv => tsv(aligned.words.iter().map(|w| (w.start_s, w.end_s, w.word.as_str()))),
        Form::Ctm => ctm(&name, &timed_words(&aligned.words)),
        Form::Textgrid => text_grid(aligned.duration_s, &tiers(&aligned.words)),
    };
    let mut output = Output::create(args.output.as_deref())?;
    output.write(&result)?;
    output.finish()?;
    Ok(ExitCode::SUCCESS)
}

fn read_text(path: &Path) -> Result<String, CliError> {
    let read = |source| CliError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let file = File::open(path).map_err(read)?;
    file.take(MAX_TEXT_BYTES).read_to_string(&mut text).map_err(read)?;
    Ok(text.trim_start_matches('\u{FEFF}').to_owned())
}

/// An alignment that has begun, once the language is known.
struct Running {
    language: Language,
    script: Script,
    aligner: Aligner,
}

impl Running {
    fn new(
        model: &dyn FrameModel,
        args: &AlignArgs,
        text: &str,
        language: Language,
    ) -> Result<Self, AnyError> {
        let tokens = model.reader().tokens();
        let script = Script::new(text, language, tokens);
        if script.n_words() == 0 {
            return Err(CliError::NoWords { path: args.text.clone() }.into());
        }
        let aligner = script
            .aligner(tokens.len())
            .map_err(|source| CliError::Align { path: args.text.clone(), source })?;
        Ok(Self { language, script, aligner })
    }

    fn listen(&mut self, reader: &Reader, piece: &Piece) {
        let rows = reader.text_log_probs(piece);
        rows.chunks_exact(reader.tokens().len()).for_each(|row| self.aligner.push(row));
    }
}

fn align(
    model: &dyn FrameModel,
    args: &AlignArgs,
    text: &str,
    language: Option<Language>,
) -> Result<Aligned, AnyError> {
    let limits = Limits {
        max_duration_s: 24.0 * 3600.0,
        max_decode_time: Some(Duration::from_secs(24 * 3600)),
        ..Limits::default()
    };
    let options = DecodeOptions { channel: args.channel, limits, ..DecodeOptions::default() };
    let mut audio = AudioStream::open(&args.audio, &options)?;
    // Every frame counts: what a voice detector would pass over may be in the text.
    let options =
        StreamOptions { detect_voice: false, at_a_time: asr_kernels::threads::available() };
    let reader = model.reader();
    let mut stream = Stream::new(model, options);
    let start = |language| Running::new(model, args, text, language);
    let mut running = language.map(start).transpose()?;
    let mut waiting: Vec<Piece> = Vec::new();
    let mut samples = 0_u64;
    let mut take = |pieces: Vec<Piece>| -> Result<(), AnyError> {
        for piece in pieces {
            if let Some(running) = &mut running {
                running.listen(reader, &piece);
                continue;
            }
            let heard = model.read_piece(&piece, None);
            waiting.push(piece);
            if let Some(spoken) = heard.languages.first() {
                let mut begun = start(spoken.code)?;
                waiting.drain(..).for_each(|piece| begun.listen(reader, &piece));
                running = Some(begun);
            } else if waiting.len() > MAX_PIECES_FOR_LANGUAGE {
                return Err(CliError::NoSpeech { path: args.audio.clone() }.into());
            }
        }
        Ok(())
    };
    while let Some(block) = audio.next_block()? {
        samples += block.len() as u64;
        take(stream.push(&block)?)?;
    }
    take(stream.finish()?)?;
    let Some(Running { language, script, aligner }) = running else {
        return Err(CliError::NoSpeech { path: args.audio.clone() }.into());
    };
    let spans =
        aligner.finish().map_err(|source| CliError::Align { path: args.text.clone(), source })?;
    let duration_s = samples as f64 / 16_000.0;
    let words = script.words(&spans, reader.frame_times(), duration_s);
    Ok(Aligned { language, duration_s, words, n_unknown: script.n_unknown() })
}

fn timed_words(words: &[AlignedWord]) -> Vec<TimedWord> {
    let timed = |word: &AlignedWord| TimedWord {
        word: word.word.clone(),
        start_s: word.start_s,
        end_s: word.end_s,
        score: word.score,
    };
    words.iter().map(timed).collect()
}

/// Words by line.
fn lines(words: &[AlignedWord]) -> impl Iterator<Item = &[AlignedWord]> {
    words.chunk_by(|a, b| a.line == b.line)
}

fn line_text(words: &[AlignedWord]) -> String {
    words.iter().map(|word| word.word.as_str()).collect::<Vec<_>>().join(" ")
}

fn tiers(words: &[AlignedWord]) -> Vec<TextGridTier> {
    let tier = |name: &str, intervals: Vec<(f64, f64, String)>| TextGridTier {
        name: name.to_owned(),
        intervals,
    };
    vec![
        tier(
            "lines",
            lines(words)
                .filter_map(|line| {
                    Some((line.first()?.start_s, line.last()?.end_s, line_text(line)))
                })
                .collect(),
        ),
        tier("words", words.iter().map(|w| (w.start_s, w.end_s, w.word.clone())).collect()),
        tier(
            "characters",
            words
                .iter()
                .flat_map(|word| &word.characters)
                .map(|c| (c.start_s, c.end_s, c.character.clone()))
                .collect(),
        ),
    ]
}

#[derive(Debug, Serialize)]
struct AlignmentEntry<'a> {
    schema: u32,
    file: String,
    duration_s: f64,
    language: String,
    segments: Vec<LineEntry<'a>>,
    model: &'a ModelEntry,
}

#[derive(Debug, Serialize)]
struct LineEntry<'a> {
    start_s: f64,
    end_s: f64,
    text: String,
    score: f64,
    words: Vec<WordEntry<'a>>,
}

#[derive(Debug, Serialize)]
struct WordEntry<'a> {
    word: &'a str,
    start_s: f64,
    end_s: f64,
    score: f64,
    characters: Vec<CharacterEntry<'a>>,
}

#[derive(Debug, Serialize)]
struct CharacterEntry<'a> {
    character: &'a str,
    start_s: f64,
    end_s: f64,
    score: f64,
}

fn entry<'a>(file: String, aligned: &'a Aligned, model: &'a ModelEntry) -> AlignmentEntry<'a> {
    let characters = |word: &'a AlignedWord| {
        let entry = |c: &'a AlignedCharacter| CharacterEntry {
            character: &c.character,
            start_s: seconds(c.start_s),
            end_s: seconds(c.end_s),
            score: rounded(c.score),
        };
        word.characters.iter().map(entry).collect()
    };
    let word = |word: &'a AlignedWord| WordEntry {
        word: &word.word,
        start_s: seconds(word.start_s),
        end_s: seconds(word.end_s),
        score: rounded(word.score),
        characters: characters(word),
    };
    let line = |words: &'a [AlignedWord]| {
        let spoken: Vec<f64> =
            words.iter().filter(|w| !w.characters.is_empty()).map(|w| w.score).collect();
        LineEntry {
            start_s: seconds(words.first().map_or(0.0, |word| word.start_s)),
            end_s: seconds(words.last().map_or(0.0, |word| word.end_s)),
            text: line_text(words),
            score: rounded(spoken.iter().sum::<f64>() / spoken.len().max(1) as f64),
            words: words.iter().map(word).collect(),
        }
    };
    AlignmentEntry {
        schema: 1,
        file,
        duration_s: seconds(aligned.duration_s),
        language: aligned.language.to_string(),
        segments: lines(&aligned.words).map(line).collect(),
        model,
    }
}
