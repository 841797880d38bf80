//! Decoding many inputs side by side and long ones in pieces; results in the order asked for.

use super::Talk;
use super::failure::{AnyError, chain, hint};
use super::input::{Input, InputArgs};
use crate::audio::{AudioError, AudioStream};
use crate::decode::{
    DecodeError, FrameModel, Piece, SegmentText, Stream, StreamOptions, Transcribe, Transcription,
    Windows,
};
use crate::text::Language;
use asr_kernels::threads;
use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};

/// Samples of audio that is decoded in one piece.
const ONE_PIECE: usize = 20 * 16_000;

/// What was found in one input.
pub(super) struct Recognised {
    pub(super) transcription: Transcription,
    pub(super) duration_s: f64,
    /// What was lost or repaired, in plain words.
    pub(super) warnings: Vec<String>,
    /// Ctrl-C came before its end.
    pub(super) is_cut: bool,
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

/// A segment with its start and end in seconds.
pub(super) type TimedSegment = (f64, f64, SegmentText);

/// Where results go.
pub(super) trait Sink {
    /// Takes the result of the next input, in order.
    fn result(
        &mut self,
        input: &Input,
        result: &Result<Recognised, InputError>,
    ) -> Result<(), AnyError>;

    /// Takes a segment of an input that still goes on; called only if there is one input.
    fn segment(&mut self, _input: &Input, _segment: &TimedSegment) -> Result<(), AnyError> {
        Ok(())
    }
}

/// How inputs are recognised.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner<'a> {
    /// Languages that may be spoken.
    pub(super) candidates: Option<&'a [Language]>,
    /// Whether to decode each utterance by itself, and to leave out what lies between.
    pub(super) detect_voice: bool,
    /// Whether segments end where the language changes.
    pub(super) by_language: bool,
    /// Inputs of at most 20 s that are decoded as one batch.
    pub(super) batch_size: usize,
}

enum Message {
    Segment(usize, TimedSegment),
    Done(usize, Result<Recognised, InputError>),
}

/// What the workers share.
struct Work<'a> {
    transcriber: &'a dyn Transcribe,
    inputs: &'a InputArgs,
    list: &'a [Input],
    manner: Manner<'a>,
    stop: &'a AtomicBool,
    sender: Sender<Message>,
}

/// Recognises every input of `list` and hands the results to `sink` in order.
///
/// A failed input is named on standard error and does not stop the others.
pub(super) fn recognise(
    transcriber: &dyn Transcribe,
    inputs: &InputArgs,
    list: &[Input],
    manner: Manner,
    talk: Talk,
    sink: &mut dyn Sink,
) -> Result<ExitCode, AnyError> {
    transcriber.check_languages(manner.candidates)?;
    let stop = stop_on_ctrl_c()?;
    let progress = progress_bar(list.len(), talk);
    let mut failed = false;
    let mut interrupted = false;
    let (sender, receiver) = channel();
    std::thread::scope(|scope| {
        let work = Work { transcriber, inputs, list, manner, stop: &stop, sender };
        scope.spawn(move || work.all());
        let tell_all = || {
            // Results come as they are ready; those ahead of their turn wait here.
            let mut waiting = BTreeMap::new();
            let mut next = 0;
            for message in receiver {
                let (i, result) = match message {
                    Message::Segment(i, segment) => {
                        sink.segment(&list[i], &segment)?;
                        continue;
                    }
                    Message::Done(i, result) => (i, result),
                };
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
        };
        let told = tell_all();
        if told.is_err() {
            // Nobody takes what else is found, so nobody need look for it.
            stop.store(true, Ordering::Relaxed);
        }
        told
    })?;
    progress.finish_and_clear();
    Ok(ExitCode::from(match (interrupted || stop.load(Ordering::Relaxed), failed) {
        (true, _) => 130,
        (false, true) => 1,
        (false, false) => 0,
    }))
}

/// What Ctrl-C sets. Asked twice it ends the program without waiting for what is in progress.
pub(super) fn stop_on_ctrl_c() -> Result<Arc<AtomicBool>, AnyError> {
    let stop = Arc::new(AtomicBool::new(false));
    let signal = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if signal.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })?;
    Ok(stop)
}

fn tell(error: &InputError) {
    eprintln!("error: {}", chain(error));
    if let InputError::Audio(error) = error
        && let Some(hint) = hint(error)
    {
        eprintln!("\nhint: {hint}");
    }
}

pub(super) fn progress_bar(inputs: usize, talk: Talk) -> ProgressBar {
    if talk.quiet || inputs < 2 || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} files, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(inputs as u64).with_style(style)
}

/// An input that is short enough for one piece.
struct Short {
    index: usize,
    samples: Vec<f32>,
    warnings: Vec<String>,
}

impl Work<'_> {
    fn all(&self) {
        if self.list.len() == 1 {
            return self.send(0, self.one(0));
        }
        let in_batches = self.manner.batch_size > 1 && !self.manner.by_language;
        match self.transcriber.frames().filter(|_| in_batches) {
            Some(model) => {
                // Enough inputs for each thread to find clips of similar length.
                let at_a_time = self.manner.batch_size * 4 * threads::available();
                let order: Vec<usize> = (0..self.list.len()).collect();
                order.chunks(at_a_time).for_each(|indices| self.batches(model, indices));
            }
            None => (0..self.list.len()).into_par_iter().for_each(|i| {
                self.send(i, threads::serial(|| self.one(i)));
            }),
        }
    }

    fn send(&self, index: usize, result: Result<Recognised, InputError>) {
        // A receiver that is gone has failed to write and says so itself.
        let _ = self.sender.send(Message::Done(index, result));
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Recognises inputs, the short ones in batches of similar length.
    fn batches(&self, model: &dyn FrameModel, indices: &[usize]) {
        let mut short: Vec<Short> = indices
            .par_iter()
            .filter_map(|&i| match self.load(i) {
                Ok(Some(short)) => Some(short),
                Ok(None) => {
                    self.send(i, threads::serial(|| self.one(i)));
                    None
                }
                Err(error) => {
                    self.send(i, Err(error));
                    None
                }
            })
            .collect();
        short.sort_by_key(|short| short.samples.len());
        short.par_chunks(self.manner.batch_size).for_each(|clips| {
            match threads::serial(|| self.batch(model, clips)) {
                Ok(found) => {
                    for (clip, transcription) in clips.iter().zip(found) {
                        let duration_s = clip.samples.len() as f64 / 16_000.0;
                        let warnings = clip.warnings.clone();
                        self.send(
                            clip.index,
                            Ok(Recognised { transcription, duration_s, warnings, is_cut: false }),
                        );
                    }
                }
                // One of them is at fault: let each speak for itself.
                Err(_) => clips.iter().for_each(|clip| self.send(clip.index, self.one(clip.index))),
            }
        });
    }

    /// What each of some clips would give alone, computed as one batch.
    fn batch(
        &self,
        model: &dyn FrameModel,
        clips: &[Short],
    ) -> Result<Vec<Transcription>, DecodeError> {
        let candidates = self.manner.candidates;
        let views: Vec<&[f32]> = clips.iter().map(|clip| clip.samples.as_slice()).collect();
        let pieces = Stream::of_clips(model, &views, self.manner.detect_voice, candidates)?;
        let read = |pieces: Vec<Piece>| {
            let mut transcription = Transcription::default();
            for piece in pieces {
                let text = model.read_piece(&piece, candidates);
                transcription.push(piece.start_s, piece.end_s, text);
            }
            transcription
        };
        Ok(pieces.into_iter().map(read).collect())
    }

    /// The samples of an input, if they are few enough for one piece. Standard input cannot
    /// be read twice, so it is not tried.
    fn load(&self, index: usize) -> Result<Option<Short>, InputError> {
        if self.stopped() {
            return Err(InputError::Interrupted);
        }
        let input = &self.list[index];
        if *input == Input::Stdin {
            return Ok(None);
        }
        let mut audio = self.inputs.open(input)?;
        let mut samples = Vec::new();
        while let Some(block) = audio.next_block()? {
            samples.extend_from_slice(&block);
            if samples.len() > ONE_PIECE {
                return Ok(None);
            }
        }
        let warnings = audio.damage().iter().map(ToString::to_string).collect();
        Ok(Some(Short { index, samples, warnings }))
    }

    /// Recognises one input, decoding while it recognises: memory does not grow with its length.
    fn one(&self, index: usize) -> Result<Recognised, InputError> {
        if self.stopped() {
            return Err(InputError::Interrupted);
        }
        let mut audio = self.inputs.open(&self.list[index])?;
        let mut transcription = Transcription::default();
        let mut take = |start_s: f64, end_s: f64, text: SegmentText| {
            transcription.push(start_s, end_s, text);
            let newest = transcription.segments.last().filter(|_| self.list.len() == 1);
            if let Some(segment) = newest {
                let _ = self.sender.send(Message::Segment(index, segment.clone()));
            }
        };
        let samples = match self.transcriber.frames() {
            Some(model) => self.in_pieces(model, index, &mut audio, &mut take)?,
            None => self.in_windows(&mut audio, &mut take)?,
        };
        Ok(Recognised {
            transcription,
            duration_s: samples as f64 / 16_000.0,
            warnings: audio.damage().iter().map(ToString::to_string).collect(),
            is_cut: self.stopped(),
        })
    }

    /// Joins windows on their log-probabilities; returns the number of samples.
    fn in_pieces(
        &self,
        model: &dyn FrameModel,
        index: usize,
        audio: &mut AudioStream,
        take: &mut dyn FnMut(f64, f64, SegmentText),
    ) -> Result<u64, InputError> {
        // What comes from a pipe is wanted as early as possible.
        let side_by_side = self.list.len() == 1 && self.list[index] != Input::Stdin;
        let options = StreamOptions {
            detect_voice: self.manner.detect_voice,
            // Enough for each thread, though some are longer than others.
            at_a_time: if side_by_side { 4 * threads::available() } else { 1 },
        };
        let mut stream = Stream::new(model, options).among(self.manner.candidates);
        if self.manner.by_language {
            stream = stream.by_language();
        }
        let mut read = |pieces: Vec<Piece>| {
            for piece in pieces {
                let text = model.read_piece(&piece, self.manner.candidates);
                take(piece.start_s, piece.end_s, text);
            }
        };
        let mut samples = 0;
        while let Some(block) = audio.next_block()? {
            samples += block.len() as u64;
            read(stream.push(&block)?);
            if self.stopped() {
                break;
            }
        }
        read(stream.finish()?);
        Ok(samples)
    }

    /// Decodes what lies between two cuts by itself; returns the number of samples.
    fn in_windows(
        &self,
        audio: &mut AudioStream,
        take: &mut dyn FnMut(f64, f64, SegmentText),
    ) -> Result<u64, InputError> {
        let mut windows = Windows::new(1, self.manner.detect_voice);
        let (mut samples, mut from) = (0_u64, 0);
        let mut ended = false;
        while !ended {
            let block = if self.stopped() { None } else { audio.next_block()? };
            ended = block.is_none();
            let block = block.unwrap_or_default();
            samples += block.len() as u64;
            let mut ready = windows.push(&block);
            if ended {
                ready.extend(windows.finish());
            }
            for window in ready {
                from = window.start.max(from);
                let to = window.cut.unwrap_or(window.end());
                let core = (from - window.start) as usize..(to - window.start) as usize;
                let clip = [&window.samples[core]];
                let mut text =
                    self.transcriber.transcribe(&clip, self.manner.candidates)?.swap_remove(0);
                let from_s = from as f64 / 16_000.0;
                for word in &mut text.words {
                    word.start_s += from_s;
                    word.end_s += from_s;
                }
                take(from_s, to as f64 / 16_000.0, text);
                from = to;
            }
        }
        Ok(samples)
    }
}
