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
    /// Decode each utterance by itself, and leave out what lies between.
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

/// A piece of a stream: pieces follow each other without overlap, and without a gap where no
/// voice detector leaves out what lies between utterances.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// Seconds from the beginning of the stream.
    pub start_s: f64,
    /// Seconds from the beginning of the stream.
    pub end_s: f64,
    /// Where the window begins that was heard, in seconds of the stream.
    pub window_start_s: f64,
    /// The piece and what its window saw around it.
    pub heard: Heard,
    /// Frames that are the piece itself.
    pub core: Range<usize>,
}

/// Decodes a stream window by window in constant memory.
///
/// A window is an utterance, from pause to pause; see [`Windows`]. Windows that are cut while
/// somebody speaks overlap by four seconds: in the middle of the overlap the log-probabilities are
/// cut where the model hears no letter, and each frame is taken from the window that sees more
/// around it. What is heard depends on the samples alone, not on how they arrive.
#[derive(Debug)]
pub struct Stream<'a> {
    model: &'a dyn FrameModel,
    windows: Windows,
    waiting: Vec<Window>,
    at_a_time: usize,
    samples: u64,
    seam: Seam,
    /// Whether pieces end where the language changes, and the languages there may be.
    by_language: Option<Option<&'a [Language]>>,
}

/// From where the next piece takes over.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Seam {
    /// Where its first frame begins, a sample of the stream.
    sample: u64,
    /// When the piece before has ended, in seconds of the stream.
    end_s: f64,
}

impl<'a> Stream<'a> {
    /// A stream for `model`.
    #[must_use]
    pub fn new(model: &'a dyn FrameModel, options: StreamOptions) -> Self {
        Self {
            model,
            windows: Windows::new(step_samples(model), options.detect_voice),
            waiting: Vec::new(),
            at_a_time: options.at_a_time.max(1),
            samples: 0,
            seam: Seam::default(),
            by_language: None,
        }
    }

    /// The pieces of clips that are decoded as one batch: those that a stream of each alone gives.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn of_clips(
        model: &'a dyn FrameModel,
        clips: &[&[f32]],
        detect_voice: bool,
    ) -> Result<Vec<Vec<Piece>>, DecodeError> {
        let options = StreamOptions { detect_voice, at_a_time: 1 };
        let mut streams: Vec<Self> = clips.iter().map(|_| Self::new(model, options)).collect();
        let mut windows = Vec::new();
        for (i, (stream, clip)) in streams.iter_mut().zip(clips).enumerate() {
            let mut own = stream.windows.push(clip);
            own.extend(stream.windows.finish());
            windows.extend(own.into_iter().map(|window| (i, window)));
        }
        let views: Vec<&[f32]> = windows.iter().map(|(_, w)| w.samples.as_slice()).collect();
        let heard = if views.is_empty() { Vec::new() } else { model.hear(&views)? };
        let mut pieces: Vec<Vec<Piece>> = clips.iter().map(|_| Vec::new()).collect();
        for ((i, window), heard) in windows.iter().zip(heard) {
            streams[*i].take(window, heard, &mut pieces[*i]);
        }
        Ok(pieces)
    }

    /// Ends pieces where the language changes among `candidates`, or among all that the model
    /// knows. Costs about three times as much.
    #[must_use]
    pub fn by_language(mut self, candidates: Option<&'a [Language]>) -> Self {
        self.by_language = Some(candidates);
        self
    }

    /// When somebody began to speak who has not paused since, in seconds from the beginning of
    /// the stream.
    #[must_use]
    pub fn speaking_since_s(&self) -> Option<f64> {
        Some(self.windows.speaking_since()? as f64 / 16_000.0)
    }

    /// Seconds taken so far.
    #[must_use]
    pub fn duration_s(&self) -> f64 {
        self.samples as f64 / 16_000.0
    }

    /// What was said since the last piece, as far as it is known; nothing where nobody speaks. The
    /// stream goes on as if nobody had asked.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn pending(&self) -> Result<Option<Piece>, DecodeError> {
        let Some(window) = self.windows.pending() else { return Ok(None) };
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
            self.take(&window, heard, pieces);
        }
        Ok(())
    }

    /// Adds the piece of the next window.
    fn take(&mut self, window: &Window, heard: Heard, pieces: &mut Vec<Piece>) {
        let (piece, seam) = self.piece(window, heard);
        self.seam = seam;
        // A part of a window may have been taken over already by its neighbour.
        if piece.end_s > piece.start_s {
            pieces.push(piece);
        }
    }

    /// The piece of a window, and where the next one takes over.
    fn piece(&self, window: &Window, heard: Heard) -> (Piece, Seam) {
        let times = self.model.reader().frame_times();
        let step = step_samples(self.model);
        let frames = heard.log_probs.len() / self.model.reader().tokens().len();
        let window_start_s = window.start as f64 / 16_000.0;
        let start = (self.seam.sample.saturating_sub(window.start) / step) as usize;
        let start_s = self.seam.end_s.max(window_start_s);
        let (end, end_s) = match window.cut {
            None => (frames, window.end() as f64 / 16_000.0),
            Some(cut) => {
                let cut_s = (cut - window.start) as f64 / 16_000.0;
                let wanted = ((cut_s - times.first_s) / times.step_s).max(0.0).round() as usize;
                let reach = (window.reach as f64 / 16_000.0 / times.step_s) as usize;
                let earliest = wanted.saturating_sub(reach).max(start + 1);
                let range = earliest..(wanted + reach).min(frames);
                let end = self.quietest(&heard.log_probs, range).unwrap_or(wanted);
                (end, window_start_s + times.span_s(0..end as u64).1)
            }
        };
        let end = end.max(start);
        let end_s = end_s.max(self.seam.end_s);
        let core = start.min(frames)..end.min(frames);
        let seam = Seam { sample: window.start + end as u64 * step, end_s };
        (Piece { start_s, end_s, window_start_s, heard, core }, seam)
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
    // What is nearer to the next seam than this belongs to the next window.
    let last = match window.cut {
        Some(cut) => cut - window.reach.max(MIN_PART),
        None => window.end().saturating_sub(MIN_PART),
    };
    let mut rest = window.clone();
    let mut parts = Vec::new();
    for change in language_changes(model, &window.samples, candidates)? {
        let change = window.start + change as u64;
        if (rest.start + MIN_PART..=last).contains(&change) {
            let samples = rest.samples.split_off((change - rest.start) as usize);
            parts.push(Window { cut: None, reach: 0, ..rest });
            rest = Window { start: change, samples, cut: window.cut, reach: window.reach };
        }
    }
    parts.push(rest);
    Ok(parts)
}
