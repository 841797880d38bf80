//! A stream of samples of any length as pieces of log-probabilities without seams.

use super::transcriber::{DecodeError, Heard, Transcriber};
use super::windows::{Window, Windows};
use asr_kernels::threads;
use rayon::prelude::*;
use std::ops::Range;

/// How far from the wanted cut a seam may lie, in seconds: well inside of both contexts.
const SEAM_RANGE_S: f64 = 1.0;
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
    transcriber: &'a Transcriber,
    windows: Windows,
    waiting: Vec<Window>,
    at_a_time: usize,
    samples: u64,
    /// Frame and time from which the next piece takes over.
    seam: (u64, f64),
}

impl<'a> Stream<'a> {
    /// A stream for `transcriber`.
    #[must_use]
    pub fn new(transcriber: &'a Transcriber, options: StreamOptions) -> Self {
        let step = (transcriber.frame_times().step_s * 16_000.0).round();
        Self {
            transcriber,
            windows: Windows::new(step as u64, options.detect_voice),
            waiting: Vec::new(),
            at_a_time: options.at_a_time.max(1),
            samples: 0,
            seam: (0, 0.0),
        }
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
        let hear = |window: &Window| -> Result<Heard, DecodeError> {
            if !window.voiced {
                return Ok(Heard::default());
            }
            Ok(self.transcriber.hear(&[&window.samples])?.swap_remove(0))
        };
        let decoded: Vec<Heard> = if windows.len() > 1 {
            let alone = |window| threads::serial(|| hear(window));
            windows.par_iter().map(alone).collect::<Result<_, _>>()?
        } else {
            windows.iter().map(hear).collect::<Result<_, _>>()?
        };
        for (window, heard) in windows.iter().zip(decoded) {
            pieces.push(self.cut(window, heard));
        }
        Ok(())
    }

    fn cut(&mut self, window: &Window, heard: Heard) -> Piece {
        let log_probs = heard.log_probs.as_slice();
        let times = self.transcriber.frame_times();
        let step_samples = times.step_s * 16_000.0;
        let first_frame = (window.start as f64 / step_samples).round() as u64;
        let frames = log_probs.len() / self.transcriber.vocabulary().len();
        let (start_frame, start_s) = self.seam;
        let start = start_frame.saturating_sub(first_frame) as usize;
        let (end, end_s) = match window.cut {
            None => (frames, self.samples as f64 / 16_000.0),
            Some(cut) => {
                let cut_s = cut as f64 / 16_000.0;
                let wanted = (cut_s - times.first_s) / times.step_s - first_frame as f64;
                let wanted = wanted.max(0.0).round() as usize;
                let reach = (SEAM_RANGE_S / times.step_s) as usize;
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
        self.seam = (first_frame + end as u64, end_s);
        let core = start.min(frames)..end.min(frames).max(start.min(frames));
        Piece { start_s, end_s, first_frame, heard, core }
    }

    /// The frame of `range` around which letters are least likely; of equals the middle one.
    fn quietest(&self, log_probs: &[f32], range: Range<usize>) -> Option<usize> {
        let vocabulary = self.transcriber.vocabulary();
        let vocab = vocabulary.len();
        let space = vocabulary.id_of_character(' ');
        let last = log_probs.len() / vocab;
        let quiet = |frame: usize| -> f64 {
            let row = &log_probs[frame * vocab..(frame + 1) * vocab];
            let tags = &row[..=vocabulary.languages().len()];
            let gap = space.map_or(0.0, |id| row[id as usize].exp());
            f64::from(tags.iter().map(|x| x.exp()).sum::<f32>() + gap).min(1.0)
        };
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
