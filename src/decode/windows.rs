//! Long audio as windows that a model hears one by one.

use super::utterances::Utterances;

pub(super) const RATE: u64 = 16_000;
/// Longest window. Training clips reach 20 s.
pub(super) const LONGEST: usize = 20 * RATE as usize;
/// What a window sees of its neighbours where it is cut while somebody speaks.
pub(super) const CONTEXT: usize = 2 * RATE as usize;
/// A cut falls no earlier than this after the beginning of a window.
const EARLIEST_CUT: usize = 8 * RATE as usize;
/// Loudness and voice are measured over this much around a cut; cuts are tried at a quarter of it.
const PROBE: usize = 1_600;
/// Decibels of loudness that a certain voice outweighs.
const VOICE_DB: f64 = 40.0;
/// How far from a cut the next window may take over: well inside of both contexts.
pub(super) const REACH: u64 = RATE;

/// A stretch of audio to be decoded in one piece.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// Its first sample in the stream.
    pub start: u64,
    /// Samples at 16 kHz.
    pub samples: Vec<f32>,
    /// Where the next window is to take over, a sample of the stream; `None` where it shares
    /// nothing with the next. One that is taken over from begins a multiple of the frame step later.
    pub cut: Option<u64>,
    /// How far from `cut` it may take over, in samples.
    pub reach: u64,
    /// Middles of the pauses inside, samples of the stream in order; by loudness alone none.
    pub pauses: Vec<u64>,
}

impl Window {
    /// The sample after its last.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.start + self.samples.len() as u64
    }
}

/// Collects samples and hands out windows; holds at most one window and one push.
///
/// With a voice detector there is a window for each utterance, and none for what lies between.
/// An utterance ends at a pause of 0.6 s or at digital silence; if it is longer than 20 s, at its
/// longest pause, or, in words that follow each other without one, in the quietest place. By
/// loudness alone windows cover everything and are cut in the quietest places.
///
/// Windows depend on the samples alone, not on how they arrive.
#[derive(Debug)]
pub struct Windows(Kind);

#[derive(Debug)]
enum Kind {
    Utterances(Utterances),
    Gapless(Gapless),
}

impl Windows {
    /// Windows for a model whose frames are `step_samples` apart, with a voice detector or by
    /// loudness alone.
    #[must_use]
    pub fn new(step_samples: u64, detect_voice: bool) -> Self {
        // A longer step might not move on.
        let step = step_samples.clamp(1, CONTEXT as u64);
        Self(if detect_voice {
            Kind::Utterances(Utterances::new(step))
        } else {
            Kind::Gapless(Gapless { step, pending: Vec::new(), start: 0 })
        })
    }

    /// Takes samples at 16 kHz; returns the windows they complete.
    pub fn push(&mut self, samples: &[f32]) -> Vec<Window> {
        match &mut self.0 {
            Kind::Utterances(utterances) => utterances.push(samples),
            Kind::Gapless(gapless) => gapless.push(samples),
        }
    }

    /// The rest, if any.
    pub fn finish(&mut self) -> Option<Window> {
        match &mut self.0 {
            Kind::Utterances(utterances) => utterances.finish(),
            Kind::Gapless(gapless) => gapless.finish(),
        }
    }

    /// Since when somebody speaks, in samples.
    #[must_use]
    pub fn speaking_since(&self) -> Option<u64> {
        match &self.0 {
            Kind::Utterances(utterances) => utterances.speaking_since(),
            Kind::Gapless(_) => None,
        }
    }

    /// The utterance that goes on, as it stands.
    #[must_use]
    pub fn pending(&self) -> Option<Window> {
        match &self.0 {
            Kind::Utterances(utterances) => utterances.pending(),
            Kind::Gapless(_) => None,
        }
    }
}

/// Windows that overlap and leave nothing out.
#[derive(Debug)]
struct Gapless {
    step: u64,
    pending: Vec<f32>,
    start: u64,
}

impl Gapless {
    fn push(&mut self, samples: &[f32]) -> Vec<Window> {
        self.pending.extend_from_slice(samples);
        let mut windows = Vec::new();
        while self.pending.len() > LONGEST {
            let (window, next) = overlapping(&self.pending, self.start, self.step, |_, _| 0.0);
            windows.push(window);
            self.pending.drain(..(next - self.start) as usize);
            self.start = next;
        }
        windows
    }

    fn finish(&mut self) -> Option<Window> {
        let samples = std::mem::take(&mut self.pending);
        (!samples.is_empty()).then_some(Window {
            start: self.start,
            samples,
            cut: None,
            reach: 0,
            pauses: Vec::new(),
        })
    }
}

/// The first window of more than `LONGEST` samples, of which the first is sample `start` of the
/// stream, and where the next one begins. Both see `CONTEXT` beyond the cut. `voice` tells how
/// likely there is a voice between two samples of the stream.
pub(super) fn overlapping(
    samples: &[f32],
    start: u64,
    step: u64,
    voice: impl Fn(u64, u64) -> f32,
) -> (Window, u64) {
    let cut = best_cut(samples, start, voice);
    let next = start + (cut - CONTEXT) as u64 / step * step;
    let samples = samples[..cut + CONTEXT].to_vec();
    let cut = Some(start + cut as u64);
    (Window { start, samples, cut, reach: REACH, pauses: Vec::new() }, next)
}

/// The point with the least voice and sound around it; the last one of equals.
fn best_cut(samples: &[f32], start: u64, voice: impl Fn(u64, u64) -> f32) -> usize {
    let mut best = (f64::INFINITY, EARLIEST_CUT);
    let mut at = EARLIEST_CUT;
    while at + PROBE <= LONGEST - CONTEXT {
        let energy: f64 = samples[at..at + PROBE].iter().map(|s| f64::from(*s).powi(2)).sum();
        let mut cost = 10.0 * (energy / PROBE as f64 + 1e-12).log10();
        let from = start + at as u64;
        cost += VOICE_DB * f64::from(voice(from, from + PROBE as u64));
        if cost <= best.0 {
            best = (cost, at + PROBE / 2);
        }
        at += PROBE / 4;
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(samples: &[f32], chunk: usize) -> Vec<Window> {
        let mut windows = Windows::new(640, false);
        let mut found: Vec<Window> =
            samples.chunks(chunk).flat_map(|chunk| windows.push(chunk)).collect();
        found.extend(windows.finish());
        found
    }

    #[test]
    fn windows_cover_everything_and_do_not_depend_on_how_samples_arrive() {
        let samples: Vec<f32> =
            (0..16_000 * 65).map(|i| (i as f32 * 0.01).sin() * (i as f32 * 1e-5).sin()).collect();
        let whole = windows(&samples, samples.len());
        assert_eq!(whole, windows(&samples, 777));
        for window in &whole {
            let start = window.start as usize;
            assert_eq!(start % 640, 0);
            assert_eq!(window.samples, samples[start..start + window.samples.len()]);
            assert!(window.samples.len() <= LONGEST);
        }
        for pair in whole.windows(2) {
            let cut = pair[0].cut.expect("not the last");
            assert!(pair[1].start + CONTEXT as u64 <= cut);
            assert_eq!(pair[0].end(), cut + CONTEXT as u64);
        }
        let last = whole.last().expect("some");
        assert_eq!((last.cut, last.end() as usize), (None, samples.len()));
    }

    #[test]
    fn the_cut_falls_into_the_pause_and_short_audio_is_one_window() {
        let mut samples = vec![0.5_f32; 16_000 * 25];
        samples[16_000 * 14..16_000 * 15].fill(0.0);
        let found = windows(&samples, 4_096);
        assert_eq!(found.len(), 2);
        assert!((14 * RATE..15 * RATE).contains(&found[0].cut.expect("not the last")));
        assert_eq!(windows(&samples[..LONGEST], 1000).len(), 1);
        assert_eq!(windows(&[], 1).len(), 0);
    }
}
