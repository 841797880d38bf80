//! Decoding many inputs side by side and long ones in pieces; results in the order asked for.

use super::Talk;
use super::failure::{AnyError, chain, hint};
use super::input::{Input, InputArgs};
use crate::audio::AudioError;
use crate::decode::{DecodeError, Segment, SegmentText, Segmenter, Transcribe, Transcription};
use crate::text::Language;
use asr_kernels::threads;
use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;

/// What was found in one input.
pub(super) struct Recognised {
    pub(super) transcription: Transcription,
    pub(super) duration_s: f64,
    /// What was lost or repaired, in plain words.
    pub(super) warnings: Vec<String>,
}

/// Why an input has no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum InputError {
    #[error(transparent)]
    Audio(#[from] AudioError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("interrupted")]
    Interrupted,
}

/// Where results go.
pub(super) trait Sink {
    /// Takes the result of the next input, in order.
    fn result(
        &mut self,
        input: &Input,
        result: &Result<Recognised, InputError>,
    ) -> Result<(), AnyError>;
}

/// Recognises every input and hands the results to `sink` in order.
///
/// A failed input is named on standard error and does not stop the others.
pub(super) fn recognise(
    transcriber: &dyn Transcribe,
    inputs: &InputArgs,
    candidates: Option<&[Language]>,
    talk: Talk,
    sink: &mut dyn Sink,
) -> Result<ExitCode, AnyError> {
    let list = inputs.list()?;
    let stop = Arc::new(AtomicBool::new(false));
    let signal = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if signal.swap(true, Ordering::Relaxed) {
            // Asked twice: do not wait for the segment in progress.
            std::process::exit(130);
        }
    })?;
    let progress = progress_bar(list.len(), talk);
    let side_by_side = list.len() > 1;
    let mut failed = false;
    let mut interrupted = false;
    let (sender, receiver) = channel();
    std::thread::scope(|scope| {
        let (list, stop) = (&list, &stop);
        scope.spawn(move || {
            list.par_iter().enumerate().for_each(|(i, input)| {
                let result = if stop.load(Ordering::Relaxed) {
                    Err(InputError::Interrupted)
                } else {
                    one(transcriber, inputs, input, candidates, side_by_side, stop)
                };
                // A receiver that is gone has failed to write and says so itself.
                let _ = sender.send((i, result));
            });
        });
        // Results come as they are ready; those ahead of their turn wait here.
        let mut waiting = std::collections::BTreeMap::new();
        let mut next = 0;
        for (i, result) in receiver {
            waiting.insert(i, result);
            while let Some(result) = waiting.remove(&next) {
                let input = &list[next];
                next += 1;
                progress.inc(1);
                match &result {
                    Ok(found) => {
                        for warning in &found.warnings {
                            progress.suspend(|| {
                                talk.warn(format_args!("`{}`: {warning}", input.name()));
                            });
                        }
                    }
                    Err(InputError::Interrupted) => {
                        interrupted = true;
                        continue;
                    }
                    Err(error) => {
                        failed = true;
                        progress.suspend(|| tell(error));
                    }
                }
                progress.suspend(|| sink.result(input, &result))?;
            }
        }
        Ok::<(), AnyError>(())
    })?;
    progress.finish_and_clear();
    Ok(ExitCode::from(match (interrupted, failed) {
        (true, _) => 130,
        (false, true) => 1,
        (false, false) => 0,
    }))
}

fn tell(error: &InputError) {
    eprintln!("error: {}", chain(error));
    if let InputError::Audio(error) = error
        && let Some(hint) = hint(error)
    {
        eprintln!("\nhint: {hint}");
    }
}

fn progress_bar(inputs: usize, talk: Talk) -> ProgressBar {
    if talk.quiet || inputs < 2 || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} files, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(inputs as u64).with_style(style)
}

/// Recognises one input, decoding while it recognises: memory does not grow with its length.
fn one(
    transcriber: &dyn Transcribe,
    inputs: &InputArgs,
    input: &Input,
    candidates: Option<&[Language]>,
    side_by_side: bool,
    stop: &AtomicBool,
) -> Result<Recognised, InputError> {
    let mut stream = inputs.open(input)?;
    let mut segmenter = Segmenter::default();
    let mut pending: Vec<Segment> = Vec::new();
    let mut transcription = Transcription::default();
    let at_a_time = if side_by_side { 1 } else { threads::available() };
    let mut samples = 0_u64;
    while let Some(block) = stream.next_block()? {
        samples += block.len() as u64;
        pending.extend(segmenter.push(&block));
        while pending.len() >= at_a_time {
            let ready: Vec<Segment> = pending.drain(..at_a_time).collect();
            add(transcriber, &ready, candidates, side_by_side, &mut transcription)?;
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    pending.extend(segmenter.finish());
    add(transcriber, &pending, candidates, side_by_side, &mut transcription)?;
    Ok(Recognised {
        transcription,
        duration_s: samples as f64 / 16_000.0,
        warnings: stream.damage().iter().map(ToString::to_string).collect(),
    })
}

/// Recognises segments: several at once one per thread, one alone with all threads.
fn add(
    transcriber: &dyn Transcribe,
    segments: &[Segment],
    candidates: Option<&[Language]>,
    side_by_side: bool,
    transcription: &mut Transcription,
) -> Result<(), DecodeError> {
    let single = |segment: &Segment| -> Result<SegmentText, DecodeError> {
        let mut texts = transcriber.transcribe(&[&segment.samples], candidates)?;
        Ok(texts.swap_remove(0))
    };
    let texts: Vec<SegmentText> = if side_by_side || segments.len() > 1 {
        segments.par_iter().map(|s| threads::serial(|| single(s))).collect::<Result<_, _>>()?
    } else {
        segments.iter().map(single).collect::<Result<_, _>>()?
    };
    for (segment, text) in segments.iter().zip(texts) {
        transcription.push(segment.start_s, segment.end_s(), text);
    }
    Ok(())
}
