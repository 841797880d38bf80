//! `asr manifest`.

use super::Talk;
use super::failure::{AnyError, CliError, chain};
use super::output::write_stdout;
use crate::data::{Collect, SourceDefaults, Upsampling, read_source, write_manifest};
use crate::text::Language;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

/// Make a manifest of speech: the table that training, clustering and benchmarks read
///
/// Examples:
///   asr manifest recordings/ -o train.tsv
///   asr manifest cv-corpus/sw/validated.tsv -o swa.tsv --dataset common-voice
///   asr manifest dump/raw/train/ mls.tsv -o train.tsv --min-s 2 --max-s 30 --join --clips clips/
///
/// A SOURCE is a folder of audio whose folders are named after languages, a table with a header
/// (Common Voice's too), a Kaldi or ESPnet data directory, or a fairseq manifest. Commands in a
/// `wav.scp` are never run. The columns are path, language, speaker, dataset, duration_s, text.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ManifestArgs {
    /// Folders, tables, Kaldi directories, fairseq manifests
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<PathBuf>,
    /// File to write to
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Language of clips whose language the source does not tell
    #[arg(short, long, value_name = "LANG")]
    language: Option<Language>,
    /// Name of the data set where the source tells none [default: name of the source]
    #[arg(long, value_name = "NAME")]
    dataset: Option<String>,
    /// Leave out shorter clips, seconds (mHuBERT-147: 2)
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0)]
    min_s: f64,
    /// Leave out longer clips, seconds (mHuBERT-147: 30)
    #[arg(long, value_name = "SECONDS", default_value_t = f64::INFINITY)]
    max_s: f64,
    /// Join shorter clips of a language and data set instead of leaving them out
    #[arg(long, requires = "clips")]
    join: bool,
    /// Folder for the WAV files of joined clips and of parts of recordings
    #[arg(long, value_name = "FOLDER")]
    clips: Option<PathBuf>,
    /// Share of the clips that may be unreadable
    #[arg(long, value_name = "SHARE", default_value_t = 0.01)]
    max_unreadable: f64,
}

pub(super) fn run(args: &ManifestArgs, talk: Talk) -> Result<ExitCode, AnyError> {
    let defaults = SourceDefaults { language: args.language, dataset: args.dataset.clone() };
    let mut sources = Vec::new();
    for path in &args.sources {
        let clips = read_source(path, &defaults)?;
        if clips.is_empty() {
            return Err(CliError::NoClips { path: path.clone() }.into());
        }
        talk.progress(format_args!("{} clips in `{}`", clips.len(), path.display()));
        sources.extend(clips);
    }
    let collect = Collect {
        min_s: args.min_s,
        max_s: args.max_s,
        join: args.join,
        folder: args.clips.clone(),
        max_unreadable: args.max_unreadable,
    };
    let (clips, report) = collect.collect(sources)?;
    for (path, error) in &report.unreadable {
        talk.warn(format_args!("left out `{}`: {}", path.display(), chain(error)));
    }
    if clips.is_empty() {
        return Err(CliError::NothingLeft.into());
    }
    write_manifest(&args.output, &clips)?;
    let natural = Upsampling { language: 1.0, dataset: 1.0 };
    let mut text = String::new();
    for share in natural.shares(&clips) {
        let code = share.language.map_or_else(|| "-".to_owned(), |code| code.to_string());
        text.push_str(&format!(
            "{code}  {:8} clips {:10.2} h\n",
            share.total.clips, share.total.hours
        ));
    }
    let hours = clips.iter().map(|clip| clip.duration_s).sum::<f64>() / 3600.0;
    text.push_str(&format!("all  {:8} clips {hours:10.2} h\n", clips.len()));
    write_stdout(text.as_bytes())?;
    for (count, why) in [
        (report.joined, "short clips were joined"),
        (report.too_short, "clips were too short"),
        (report.too_long, "clips were too long"),
    ] {
        if count > 0 {
            talk.progress(format_args!("{count} {why}"));
        }
    }
    Ok(ExitCode::from(u8::from(!report.unreadable.is_empty())))
}
