//! `asr cluster`.

use super::Talk;
use super::failure::{AnyError, CliError};
use super::frame_args::FrameArgs;
use super::output::write_stdout;
use super::recognise::progress_bar;
use super::unit_quality::QualityArgs;
use crate::data::{Clip, read_manifest};
use crate::pretrain::{
    ClipFrames, Clustering, ClusteringCard, Contingency, FitOptions, FitReport, Init, LabelWriter,
    Method, PretrainError, Quality, fit,
};
use clap::{Args, Subcommand, ValueEnum};
use indicatif::ProgressBar;
use std::path::PathBuf;
use std::process::ExitCode;

/// Find units of speech (k-means) and label frames with them, for pre-training
#[derive(Debug, Args)]
pub(super) struct ClusterArgs {
    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    Fit(FitArgs),
    Assign(AssignArgs),
}

/// Find units in the frames of a manifest's clips
///
/// Examples:
///   asr cluster fit train.tsv -k 100 -o it1.faiss
///   asr cluster fit train.tsv -k 500 -m runs/it1/model --layer 6 -o it2.faiss
///   asr cluster fit train.tsv -k 1000 --method mhubert -m it2/ --layer 9 -o it3.faiss
///
/// Clusters MFCC, or with `--layer` the output of a layer of a model. Any amount of speech is
/// streamed through a fair sample of at most 1 GiB. The result is a file of faiss, with what
/// it was made of as FILE.json beside it. Needs a build with `--features faiss`.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
struct FitArgs {
    /// Clips: a table with the columns `path`, `language` and `duration_s`
    manifest: PathBuf,
    /// Number of units
    #[arg(short = 'k', long = "units", value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=65_536))]
    n_units: u32,
    /// File to write to
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Algorithm: plain k-means, or the index of mHuBERT-147
    #[arg(long, value_enum, default_value_t = MethodArg::KMeans)]
    method: MethodArg,
    /// First centroids of plain k-means
    #[arg(long, value_enum, default_value_t = InitArg::Random)]
    init: InitArg,
    /// Iterations of plain k-means
    #[arg(long, value_name = "N", default_value_t = 20)]
    iterations: u32,
    /// Runs of plain k-means, of which the best is kept
    #[arg(long, value_name = "N", default_value_t = 1)]
    runs: u32,
    /// Seed of the sample and of the first centroids
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Frames sampled per unit
    #[arg(long, value_name = "N", default_value_t = 256)]
    frames_per_unit: usize,
    /// Share of the clips that may be unreadable
    #[arg(long, value_name = "SHARE", default_value_t = 0.01)]
    max_unreadable: f64,
    #[command(flatten)]
    quality: QualityArgs,
    #[command(flatten)]
    frames: FrameArgs,
}

/// Label the frames of a manifest's clips
///
/// Examples:
///   asr cluster assign train.tsv -c it1.faiss -o it1/train.km
///   asr cluster assign train.tsv -c mhubert147_faiss.index -m mHuBERT-147-2nd-iter/ --layer 9 -o train.units
///
/// Writes a label per frame, clip by clip in the order of the manifest: fairseq's layout, with
/// `dict.km.txt` beside it, to a FILE that ends in `.km`, a compact one otherwise. The
/// clustering may be an index of faiss made elsewhere; then say which frames it is of.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
struct AssignArgs {
    /// Clips: a table with the columns `path`, `language` and `duration_s`
    manifest: PathBuf,
    /// Clustering made by `asr cluster fit`, or an index file of faiss
    #[arg(short, long, value_name = "FILE")]
    clustering: PathBuf,
    /// File to write to
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Compare each frame with every centroid, where the index has a graph that may miss the
    /// nearest
    #[arg(long)]
    exact: bool,
    /// Share of the clips that may be unreadable; they get no labels
    #[arg(long, value_name = "SHARE", default_value_t = 0.01)]
    max_unreadable: f64,
    #[command(flatten)]
    quality: QualityArgs,
    #[command(flatten)]
    frames: FrameArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum MethodArg {
    #[value(name = "k-means")]
    KMeans,
    /// OPQ16_64,IVFk_HNSW32,PQ16x4fsr
    Mhubert,
    /// OPQ32_64,IVFk_HNSW32,PQ32x8
    MhubertWeak,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum InitArg {
    Random,
    #[value(name = "k-means++")]
    PlusPlus,
}

impl FitArgs {
    fn options(&self) -> FitOptions {
        let init = match self.init {
            InitArg::Random => Init::Random,
            InitArg::PlusPlus => Init::PlusPlus,
        };
        let method = match self.method {
            MethodArg::KMeans => {
                Method::KMeans { init, iterations: self.iterations, runs: self.runs }
            }
            MethodArg::Mhubert => Method::Mhubert,
            MethodArg::MhubertWeak => Method::MhubertWeak,
        };
        FitOptions {
            n_units: self.n_units as usize,
            method,
            seed: self.seed,
            frames_per_unit: self.frames_per_unit,
        }
    }
}

pub(super) fn run(args: &ClusterArgs, talk: Talk) -> Result<ExitCode, AnyError> {
    match &args.command {
        ClusterCommand::Fit(args) => run_fit(args, talk),
        ClusterCommand::Assign(args) => run_assign(args, talk),
    }
}

fn read_clips(manifest: &std::path::Path) -> Result<Vec<Clip>, AnyError> {
    let clips = read_manifest(manifest)?;
    if clips.is_empty() {
        return Err(CliError::NoClips { path: manifest.to_owned() }.into());
    }
    Ok(clips)
}

fn run_fit(args: &FitArgs, talk: Talk) -> Result<ExitCode, AnyError> {
    let options = args.options();
    options.validate()?;
    if !cfg!(feature = "faiss") {
        return Err(PretrainError::WithoutFaiss.into());
    }
    let clips = read_clips(&args.manifest)?;
    let reference = args.quality.reference(&clips, talk)?;
    let (maker, frame_card) = args.frames.maker(None, talk)?;
    let mut frames = maker.clips(&clips, args.max_unreadable);
    let bar = progress_bar(clips.len(), talk);
    let (clustering, report) = fit(&options, frames.by_ref().inspect(|_| bar.inc(1)))?;
    bar.finish_and_clear();
    let failed = tell_unreadable(&frames, talk);
    let mut quality = None;
    if let Some(mut reference) = reference {
        let some = reference.some_clips(&clips);
        let mut counts = Contingency::default();
        let bar = progress_bar(some.len(), talk);
        for frames in maker.clips(&some, args.max_unreadable) {
            let frames = frames?;
            let units = clustering.assign(&frames.data, frames.dim)?;
            reference.count(&mut counts, frames.clip, &units, maker.rate_hz())?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        quality = counts.quality();
    }
    clustering.save(&args.output)?;
    let summary = fit_summary(&report, quality.as_ref(), options.n_units, maker.rate_hz());
    let version = env!("CARGO_PKG_VERSION").to_owned();
    ClusteringCard { frames: frame_card, options, report, quality, version }.save(&args.output)?;
    write_stdout(summary.as_bytes())?;
    Ok(ExitCode::from(u8::from(failed)))
}

fn run_assign(args: &AssignArgs, talk: Talk) -> Result<ExitCode, AnyError> {
    let mut clustering = Clustering::open(&args.clustering)?;
    if args.exact {
        clustering = clustering.without_graph();
    }
    let card = ClusteringCard::open(&args.clustering)?;
    let clips = read_clips(&args.manifest)?;
    let mut reference = args.quality.reference(&clips, talk)?;
    let (maker, _) = args.frames.maker(card.as_ref().map(|card| &card.frames), talk)?;
    if maker.dim() != clustering.dim() {
        let (found, expected) = (maker.dim(), clustering.dim());
        return Err(PretrainError::Width { found, expected }.into());
    }
    let rate_hz = maker.rate_hz();
    let mut writer = LabelWriter::create(&args.output, clustering.n_units(), rate_hz)?;
    let mut frames = maker.clips(&clips, args.max_unreadable);
    let mut counts = Contingency::default();
    let bar = progress_bar(clips.len(), talk);
    let (mut n_frames, mut inertia) = (0_u64, 0.0);
    for clip in frames.by_ref() {
        let clip = clip?;
        let (units, sum) = clustering.assign_measured(&clip.data, clip.dim)?;
        n_frames += units.len() as u64;
        inertia += sum;
        writer.push(&units)?;
        if let Some(reference) = &mut reference {
            reference.count(&mut counts, clip.clip, &units, rate_hz)?;
        }
        bar.inc(1);
    }
    finish(&bar, writer)?;
    let failed = tell_unreadable(&frames, talk);
    let mut summary = format!(
        "frames          {n_frames} ({:.2} h), {rate_hz} per second\nunits           {}\ninertia         {:.4}\n",
        hours(n_frames, rate_hz),
        clustering.n_units(),
        inertia / n_frames.max(1) as f64
    );
    summary.push_str(&counts.quality().as_ref().map_or_else(String::new, quality_lines));
    write_stdout(summary.as_bytes())?;
    Ok(ExitCode::from(u8::from(failed)))
}

fn finish(bar: &ProgressBar, writer: LabelWriter) -> Result<(), PretrainError> {
    bar.finish_and_clear();
    writer.finish()
}

/// Names the clips that could not be read; whether there were any.
fn tell_unreadable(frames: &ClipFrames<'_>, talk: Talk) -> bool {
    for (path, error) in frames.unreadable() {
        talk.warn(format_args!("left out `{}`: {}", path.display(), super::failure::chain(error)));
    }
    !frames.unreadable().is_empty()
}

fn hours(frames: u64, rate_hz: f64) -> f64 {
    frames as f64 / rate_hz / 3600.0
}

fn fit_summary(
    report: &FitReport,
    quality: Option<&Quality>,
    n_units: usize,
    rate_hz: f64,
) -> String {
    let mut text = format!(
        "frames          {} ({:.2} h) of {} values, {} sampled\nunits           {n_units}, {} empty, {} tiny, perplexity {:.1}\ninertia         {:.4}\nfitted in       {:.1} s\n",
        report.frames_seen,
        hours(report.frames_seen, rate_hz),
        report.dim,
        report.frames_sampled,
        report.empty,
        report.tiny,
        report.perplexity,
        report.inertia,
        report.fit_s,
    );
    text.push_str(&quality.map_or_else(String::new, quality_lines));
    text
}

fn quality_lines(quality: &Quality) -> String {
    format!(
        "purity          {:.4} (of units), {:.4} (of labels)\nPNMI            {:.4}, {:.4} within languages\nNMI             {:.4}\ncompared        {} frames, {} units, {} labels\n",
        quality.purity,
        quality.cluster_purity,
        quality.pnmi,
        quality.pnmi_within,
        quality.nmi,
        quality.frames,
        quality.units,
        quality.references,
    )
}
