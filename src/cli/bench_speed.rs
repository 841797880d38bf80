//! `asr bench speed`.

use super::Talk;
use super::failure::AnyError;
use super::model::ModelArgs;
use super::output::write_stdout;
use crate::decode::{Extract, Extractor};
use crate::model::device;
use asr_kernels::reference::uniform;
use asr_kernels::{isa, threads};
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::process::ExitCode;
use std::time::Instant;

/// Measure how fast a model is on this machine
///
/// Runs the model on noise: loaded, once to warm up, then several times. The real-time
/// factor is the median time over the seconds of audio in the batch; below 1 is faster than
/// the audio plays.
///
/// Example:
///   asr bench speed --model hubert-base --seconds 10 --batch 1,8 --precision all
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct SpeedArgs {
    /// Length of each clip, 0.025 to 3600 seconds
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = clip_length)]
    seconds: f64,
    /// Clips computed together, one measurement for each number
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,8", value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch: Vec<u16>,
    /// Runs measured
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    repeat: u16,
    /// Form of the result
    #[arg(short = 'f', long = "format", visible_alias = "output-format", alias = "output_format", value_enum, default_value_t = Form::Text)]
    format: Form,
    #[command(flatten)]
    model: ModelArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    Text,
    Json,
}

/// One line of the result.
#[derive(Debug, Serialize)]
struct Speed {
    model: String,
    precision: &'static str,
    batch: u16,
    /// Seconds of audio in the batch.
    audio_s: f64,
    threads: usize,
    isa: &'static str,
    device: &'static str,
    load_s: f64,
    /// From the loaded model to the result of the first run.
    first_s: f64,
    rtf: f64,
    p50_s: f64,
    p95_s: f64,
    /// Largest resident memory of the process during the runs; null where the system does not tell.
    peak_mb: Option<f64>,
}

/// Seconds as they are typed.
fn clip_length(given: &str) -> Result<f64, &'static str> {
    let value = given.parse::<f64>().ok().filter(|s| (0.025..=3600.0).contains(s));
    value.ok_or("must be a number from 0.025 to 3600")
}

pub(super) fn run(args: &SpeedArgs, talk: Talk) -> Result<ExitCode, AnyError> {
    let mut all = Vec::new();
    let samples = (args.seconds * 16_000.0) as usize;
    for (name, precision) in args.model.precisions() {
        let start = Instant::now();
        let extractor = args.model.measured(precision, talk)?;
        let load_s = start.elapsed().as_secs_f64();
        for &batch in &args.batch {
            talk.note(format_args!("{name}, {batch} clips"));
            let clips: Vec<Vec<f32>> = (0..u64::from(batch))
                .map(|seed| uniform(samples, seed + 1).iter().map(|v| 0.1 * v).collect())
                .collect();
            let (first_s, times, peak_mb) = measure(&extractor, &clips, args.repeat)?;
            let audio_s = samples as f64 / 16_000.0 * f64::from(batch);
            let p50_s = quantile(&times, 0.5);
            all.push(Speed {
                model: args.model.name().to_owned(),
                precision: name,
                batch,
                audio_s,
                threads: threads::available(),
                isa: isa::isa().name(),
                device: "cpu",
                load_s,
                first_s,
                rtf: p50_s / audio_s,
                p50_s,
                p95_s: quantile(&times, 0.95),
                peak_mb,
            });
        }
    }
    let text = match args.format {
        Form::Text => table(&all),
        Form::Json => serde_json::to_string_pretty(&all)?,
    };
    write_stdout(format!("{}\n", text.trim_end()).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Time of the first run, times of the others in rising order, and the peak of memory.
fn measure(
    extractor: &Extractor,
    clips: &[Vec<f32>],
    repeat: u16,
) -> Result<(f64, Vec<f64>, Option<f64>), AnyError> {
    let clips: Vec<&[f32]> = clips.iter().map(Vec::as_slice).collect();
    let once = || -> Result<f64, AnyError> {
        let start = Instant::now();
        extractor.extract(&clips, &vec![None; clips.len()], &Extract::Logits, false)?;
        device().synchronize()?;
        Ok(start.elapsed().as_secs_f64())
    };
    forget_peak();
    let first = once()?;
    let mut times = (0..repeat).map(|_| once()).collect::<Result<Vec<_>, _>>()?;
    times.sort_by(f64::total_cmp);
    Ok((first, times, peak_mb()))
}

/// The value below which a share of `sorted` lies, the next higher one of those measured.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}

/// Has Linux count the peak of resident memory anew (proc(5), `clear_refs`).
fn forget_peak() {
    // Where this is not possible the peak is that of the whole process.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn peak_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}

fn table(all: &[Speed]) -> String {
    let Some(first) = all.first() else { return String::new() };
    let mut text = format!(
        "{} on {} thread(s), {}, {}\n\n| precision | batch | audio s | load s | first s | p50 s | p95 s | real-time factor | peak MB |\n|---|---|---|---|---|---|---|---|---|\n",
        first.model, first.threads, first.isa, first.device
    );
    for speed in all {
        let peak = speed.peak_mb.map_or_else(|| "-".to_owned(), |mb| format!("{mb:.0}"));
        text.push_str(&format!(
            "| {} | {} | {:.1} | {:.3} | {:.3} | {:.3} | {:.3} | {:.4} | {peak} |\n",
            speed.precision,
            speed.batch,
            speed.audio_s,
            speed.load_s,
            speed.first_s,
            speed.p50_s,
            speed.p95_s,
            speed.rtf
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let times = [1.0, 2.0, 3.0, 4.0, 5.0];
        assert_eq!((quantile(&times, 0.5), quantile(&times, 0.95)), (3.0, 5.0));
        assert_eq!((quantile(&[7.0], 0.5), quantile(&[7.0], 0.95)), (7.0, 7.0));
        assert!(quantile(&[], 0.5).is_nan());
    }
}
