//! A stream of samples of any length as pieces of log-probabilities without seams.

use super::changes::language_changes;
use super::reader::FrameModel;
use super::transcriber::{DecodeError, Heard};
use super::windows::{Window, Windows};
use crate::text::Language;
use asr_kernels::threads;
use rayon::prelude::*;
use std::ops::Range;

/// Shortest piece that a change of language leaves, in samples.
const MIN_PART: u64 = 8_000;
/// Frames to both sides of a seam that should be no letter.
const SEAM_MARGIN: usize = 2;

/// How a stream is cut and decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamOptions {
    /// Cut where nobody speaks, and pass over windows in which nobody does.
    pub detect_voice: bool,
    /// Windows that are decoded side by side, each on one thread; 1 gives results as early
    /// as can be, and each window all threads.
    pub at_a_time: usize,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self { detect_voice: true, at_a_time: 1 }
    }
}

/// A piece of a stream: pieces follow each other without gap or overlap.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// Seconds from the beginning of the stream.
    pub start_s: f64,
    /// Seconds from the beginning of the stream.
    pub end_s: f64,
    /// Number in the stream of the first frame that was heard.
    pub first_frame: u64,
    /// The piece and what its window saw around it; without frames where a voice detector
    /// found nobody speaking.
    pub heard: Heard,
    /// Frames that are the piece itself.
    pub core: Range<usize>,
}

/// Decodes a stream window by window in constant memory.
///
/// Windows of at most 20 s overlap by four seconds. In the middle of each overlap the
/// log-probabilities are cut where the model hears no letter, and each frame is taken from
/// the window that sees more around it. Audio of 20 s or less is one piece.
#[derive(Debug)]
pub struct Stream<'a> {
    model: &'a dyn FrameModel,
    windows: Windows,
    waiting: Vec<Window>,
    at_a_time: usize,
    samples: u64,
    /// Frame and time from which the next piece takes over.
    seam: (u64, f64),
    /// Whether pieces end where the language changes, and the languages there may be.
    by_language: Option<Option<&'a [Language]>>,
}

impl<'a> Stream<'a> {
    /// A stream for `model`.
    #[must_use]
    pub fn new(model: &'a dyn FrameModel, options: StreamOptions) -> Self {
        let windows = Windows::new(step_samples(model), options.detect_voice);
        Self::cut_by(windows, model, options.at_a_time)
    }

    /// A stream of live speech: pieces end at pauses and come as early as can be.
    #[must_use]
    pub fn live(model: &'a dyn FrameModel) -> Self {
        Self::cut_by(Windows::live(step_samples(model)), model, 1)
    }

    fn cut_by(windows: Windows, model: &'a dyn FrameModel, at_a_time: usize) -> Self {
        let at_a_time = at_a_time.max(1);
        let waiting = Vec::new();
        Self { model, windows, waiting, at_a_time, samples: 0, seam: (0, 0.0), by_language: None }
    }

    /// Ends pieces where the language changes among `candidates`, or among all that the model
    /// knows. Costs about three times as much.
    #[must_use]
    pub fn by_language(mut self, candidates: Option<&'a [Language]>) -> Self {
        self.by_language = Some(candidates);
        self
    }

    /// When somebody began to speak who has not paused since, in seconds from the beginning of
    /// the stream; of live streams.
    #[must_use]
    pub fn speaking_since_s(&self) -> Option<f64> {
        Some(self.windows.voice()?.0 as f64 / 16_000.0)
    }

    /// Seconds taken so far.
    #[must_use]
    pub fn duration_s(&self) -> f64 {
        self.samples as f64 / 16_000.0
    }

    /// What follows the last piece, as far as it is known; nothing where nobody speaks. The
    /// stream goes on as if nobody had asked.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn pending(&self) -> Result<Option<Piece>, DecodeError> {
        let window = self.windows.pending();
        if !window.voiced {
            return Ok(None);
        }
        let heard = self.model.hear(&[&window.samples])?.swap_remove(0);
        Ok(Some(self.piece(&window, heard).0))
    }

    /// Takes samples at 16 kHz; returns the pieces they complete.
    ///
    /// # Errors
    /// [`DecodeError`] if the model cannot be run.
    pub fn push(&mut self, samples: &[f32]) -> Result<Vec<Piece>, DecodeError> {
        self.samples += samples.len() as u64;
        self.waiting.extend(self.windows.push(samples));
        let mut pieces = Vec::new();
        while self.waiting.len() >= self.at_a_time {
            let ready: Vec<Window> = self.waiting.drain(..self.at_a_time).collect();
            self.decode(&ready, &mut pieces)?;
        }
        Ok(pieces)
    }

    /// The rest.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn finish(mut self) -> Result<Vec<Piece>, DecodeError> {
        let mut ready = std::mem::take(&mut self.waiting);
        ready.extend(self.windows.finish());
        let mut pieces = Vec::new();
        self.decode(&ready, &mut pieces)?;
        Ok(pieces)
    }

    fn decode(&mut self, windows: &[Window], pieces: &mut Vec<Piece>) -> Result<(), DecodeError> {
        let (model, by_language) = (self.model, self.by_language);
        let hear = |window: &Window| -> Result<Vec<(Window, Heard)>, DecodeError> {
            if !window.voiced {
                return Ok(vec![(window.clone(), Heard::default())]);
            }
            let heard = |part: Window| -> Result<(Window, Heard), DecodeError> {
                let heard = model.hear(&[&part.samples])?.swap_remove(0);
                Ok((part, heard))
            };
            match by_language {
                Some(candidates) => {
                    parts(model, window, candidates)?.into_iter().map(heard).collect()
                }
                None => Ok(vec![heard(window.clone())?]),
            }
        };
        let decoded: Vec<Vec<(Window, Heard)>> = if windows.len() > 1 {
            let alone = |window| threads::serial(|| hear(window));
            windows.par_iter().map(alone).collect::<Result<_, _>>()?
        } else {
            windows.iter().map(hear).collect::<Result<_, _>>()?
        };
        for (window, heard) in decoded.into_iter().flatten() {
            let (piece, seam) = self.piece(&window, heard);
            self.seam = seam;
            // A part of a window that its neighbour has taken over already.
            if piece.end_s > piece.start_s {
                pieces.push(piece);
            }
        }
        Ok(())
    }

    /// The piece of a window, and the frame and time at which the next one takes over.
    fn piece(&self, window: &Window, heard: Heard) -> (Piece, (u64, f64)) {
        let log_probs = heard.log_probs.as_slice();
        let times = self.model.reader().frame_times();
        let step_samples = times.step_s * 16_000.0;
        let first_frame = (window.start as f64 / step_samples).round() as u64;
        let frames = log_probs.len() / self.model.reader().tokens().len();
        let (start_frame, start_s) = self.seam;
        let start = start_frame.saturating_sub(first_frame) as usize;
        let (end, end_s) = match window.cut {
            None => (frames, self.samples as f64 / 16_000.0),
            Some(cut) => {
                let cut_s = cut as f64 / 16_000.0;
                let wanted = (cut_s - times.first_s) / times.step_s - first_frame as f64;
                let wanted = wanted.max(0.0).round() as usize;
                let reach = (window.reach as f64 / 16_000.0 / times.step_s) as usize;
                let earliest = wanted.saturating_sub(reach).max(start + 1);
                let end = if log_probs.is_empty() {
                    wanted
                } else {
                    self.quietest(log_probs, earliest..(wanted + reach).min(frames))
                        .unwrap_or(wanted)
                };
                (end, times.span_s(0..first_frame + end as u64).1.max(start_s))
            }
        };
        let end = end.max(start);
        let core = start.min(frames)..end.min(frames);
        let seam = (first_frame + end as u64, end_s);
        (Piece { start_s, end_s, first_frame, heard, core }, seam)
    }

    /// The frame of `range` around which letters are least likely; of equals the middle one.
    fn quietest(&self, log_probs: &[f32], range: Range<usize>) -> Option<usize> {
        let tokens = self.model.reader().tokens();
        let vocab = tokens.len();
        let last = log_probs.len() / vocab;
        let quiet = |frame: usize| tokens.quiet(&log_probs[frame * vocab..(frame + 1) * vocab]);
        let middle = range.start + range.len() / 2;
        let cost = |frame: usize| -> f64 {
            let around = frame.saturating_sub(SEAM_MARGIN)..(frame + SEAM_MARGIN + 1).min(last);
            around.map(|frame| 1.0 - quiet(frame)).sum()
        };
        // Thousandths, so that frames alike are equal.
        let key = |frame: &usize| ((cost(*frame) * 1e3).round() as u64, frame.abs_diff(middle));
        range.clone().min_by_key(key)
    }
}

/// Samples from one frame of a model to the next.
fn step_samples(model: &dyn FrameModel) -> u64 {
    (model.reader().frame_times().step_s * 16_000.0).round() as u64
}

/// A window, cut where the language changes. Parts see nothing of each other.
fn parts(
    model: &dyn FrameModel,
    window: &Window,
    candidates: Option<&[Language]>,
) -> Result<Vec<Window>, DecodeError> {
    let step = step_samples(model);
    // What is nearer to the next seam than this belongs to the next window.
    let last = match window.cut {
        Some(cut) => cut - window.reach.max(MIN_PART),
        None => (window.start + window.samples.len() as u64).saturating_sub(MIN_PART),
    };
    let mut rest = window.clone();
    let mut parts = Vec::new();
    for change in language_changes(model, &window.samples, candidates)? {
        let change = (window.start + change as u64) / step * step;
        if (rest.start + MIN_PART..=last).contains(&change) {
            let samples = rest.samples.split_off((change - rest.start) as usize);
            parts.push(Window { cut: Some(change), reach: 0, ..rest });
            rest = Window {
                start: change,
                samples,
                cut: window.cut,
                reach: window.reach,
                voiced: true,
            };
        }
    }
    parts.push(rest);
    Ok(parts)
}
