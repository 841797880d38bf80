//! A stream of samples of any length as pieces of log-probabilities without seams.

use super::changes::{language_changes, language_groups};
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
    /// The languages there may be; any if it is not known.
    candidates: Option<&'a [Language]>,
    /// Whether pieces end where the language changes without a pause, too.
    by_language: bool,
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
            candidates: None,
            by_language: false,
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
        candidates: Option<&'a [Language]>,
    ) -> Result<Vec<Vec<Piece>>, DecodeError> {
        let options = StreamOptions { detect_voice, at_a_time: 1 };
        let stream = |_| Self::new(model, options).among(candidates);
        let mut streams: Vec<Self> = clips.iter().map(stream).collect();
        let mut parts = Vec::new();
        for (i, (stream, clip)) in streams.iter_mut().zip(clips).enumerate() {
            let mut windows = stream.windows.push(clip);
            windows.extend(stream.windows.finish());
            for window in &windows {
                parts.extend(stream.parts(window)?.into_iter().map(|part| (i, part)));
            }
        }
        let unheard: Vec<&[f32]> = parts
            .iter()
            .filter(|(_, part)| part.heard.is_none())
            .map(|(_, part)| part.window.samples.as_slice())
            .collect();
        let mut heard = model.hear(&unheard)?.into_iter();
        let mut pieces: Vec<Vec<Piece>> = clips.iter().map(|_| Vec::new()).collect();
        for (i, part) in parts {
            if let Some(heard) = part.heard.or_else(|| heard.next()) {
                streams[i].take(&part.window, heard, &mut pieces[i]);
            }
        }
        Ok(pieces)
    }

    /// Knows which languages there may be.
    #[must_use]
    pub fn among(self, candidates: Option<&'a [Language]>) -> Self {
        Self { candidates, ..self }
    }

    /// Ends pieces where the language changes, in the middle of a sentence too and not in pauses
    /// alone. Costs about three times as much.
    #[must_use]
    pub fn by_language(self) -> Self {
        Self { by_language: true, ..self }
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
        let hear = |window: &Window| -> Result<Vec<(Window, Heard)>, DecodeError> {
            let heard = |part: Part| -> Result<(Window, Heard), DecodeError> {
                let heard = match part.heard {
                    Some(heard) => heard,
                    None => self.model.hear(&[&part.window.samples])?.swap_remove(0),
                };
                Ok((part.window, heard))
            };
            self.parts(window)?.into_iter().map(heard).collect()
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

    /// A window, cut in the pauses where the language changes, and elsewhere if asked for.
    fn parts(&self, window: &Window) -> Result<Vec<Part>, DecodeError> {
        let (model, candidates) = (self.model, self.candidates);
        let only_one = candidates.is_some_and(|languages| languages.len() == 1);
        if only_one || model.reader().tokens().tags().is_empty() {
            return Ok(vec![Part { window: window.clone(), heard: None }]);
        }
        let at = |sample: u64| (sample - window.start) as usize;
        let pauses: Vec<usize> = window.pauses.iter().map(|&pause| at(pause)).collect();
        let groups = language_groups(model, &window.samples, &pauses, candidates)?;
        let parts = window.split(groups);
        if !self.by_language {
            return Ok(parts);
        }
        let mut smaller = Vec::new();
        for part in parts {
            let changes = language_changes(model, &part.window.samples, candidates)?;
            if changes.is_empty() {
                smaller.push(part);
            } else {
                smaller.extend(part.window.split(changes.into_iter().map(|end| (end, None))));
            }
        }
        Ok(smaller)
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

/// A part of a window, and what was heard of it if that is known already.
#[derive(Debug)]
struct Part {
    window: Window,
    heard: Option<Heard>,
}

impl Window {
    /// Parts that see nothing of each other, and what was heard of them; `ends` are samples of the
    /// window in order, and what comes after the last of them is a part as well.
    fn split(&self, ends: impl IntoIterator<Item = (usize, Option<Heard>)>) -> Vec<Part> {
        // What is nearer to the next seam than this belongs to the next window.
        let last = match self.cut {
            Some(cut) => cut - self.reach.max(MIN_PART),
            None => self.end().saturating_sub(MIN_PART),
        };
        let mut parts = Vec::new();
        let mut rest = self.clone();
        let mut rest_heard = None;
        // What is put together is not what was heard of its parts.
        let mut is_one = true;
        for (end, heard) in ends {
            let change = self.start + end as u64;
            let heard = heard.filter(|_| is_one);
            is_one = true;
            if change == self.end() {
                rest_heard = heard;
            } else if (rest.start + MIN_PART..=last).contains(&change) {
                let samples = rest.samples.split_off((change - rest.start) as usize);
                let (before, after) = rest.pauses.iter().partition(|pause| **pause < change);
                parts.push(Part {
                    window: Window { cut: None, reach: 0, pauses: before, ..rest },
                    heard,
                });
                rest = Window {
                    start: change,
                    samples,
                    cut: self.cut,
                    reach: self.reach,
                    pauses: after,
                };
            } else {
                is_one = false;
            }
        }
        parts.push(Part { window: rest, heard: rest_heard });
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_a_window_and_what_is_put_together_is_heard_anew() {
        let of = |label: f32| Some(Heard { log_probs: vec![label], ..Heard::default() });
        let window = |cut| Window {
            start: 1_000,
            samples: vec![0.0; 80_000],
            cut,
            reach: 4_000,
            pauses: vec![21_000, 41_000],
        };
        let ends = || [(30_000, of(1.0)), (33_000, of(2.0)), (60_000, of(3.0)), (80_000, of(4.0))];
        let lengths =
            |parts: &[Part]| parts.iter().map(|p| p.window.samples.len()).collect::<Vec<_>>();
        let heard = |parts: &[Part]| {
            parts.iter().map(|p| p.heard.as_ref().map(|h| h.log_probs[0])).collect::<Vec<_>>()
        };
        let parts = window(None).split(ends());
        assert_eq!(lengths(&parts), [30_000, 30_000, 20_000]);
        assert_eq!(heard(&parts), [Some(1.0), None, Some(4.0)]);
        assert_eq!(
            (parts[1].window.start, parts[1].window.pauses.as_slice()),
            (31_000, &[41_000][..])
        );
        assert_eq!((parts[2].window.end(), parts[2].window.cut), (81_000, None));
        // The next window may take over at 57,000.
        let parts = window(Some(61_000)).split(ends());
        assert_eq!(lengths(&parts), [30_000, 50_000]);
        assert_eq!(heard(&parts), [Some(1.0), None]);
        assert_eq!((parts[0].window.cut, parts[1].window.cut), (None, Some(61_000)));
    }
}
