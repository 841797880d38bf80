//! Long audio as overlapping windows, cut where nobody speaks or where it is quiet.

use crate::features::VoiceDetector;

const RATE: u64 = 16_000;
/// Longest window: what is not longer is never cut. Training clips reach 20 s.
const LONGEST: usize = 20 * RATE as usize;
/// What a window sees of its neighbours.
const CONTEXT: usize = 2 * RATE as usize;
/// A cut falls no earlier than this after the beginning of a window.
const EARLIEST_CUT: usize = 8 * RATE as usize;
/// Loudness and voice are measured over this much around a cut; cuts are tried at a quarter of it.
const PROBE: usize = 1_600;
/// A window in which no 16 ms are likelier than this to hold a voice is not decoded.
const VOICE_THRESHOLD: f32 = 0.2;
/// Decibels of loudness that a certain voice outweighs.
const VOICE_DB: f64 = 40.0;
/// How far from a cut the next window may take over: well inside of both contexts.
const REACH: u64 = RATE;
/// Live speech ends where for this long no frame is as likely as `LIVE_THRESHOLD` to hold a voice.
const PAUSE: u64 = RATE * 7 / 10;
/// What a window sees of the silence before a voice. Models hear speech best without much
/// silence around it, as in the clips they are trained on.
const LEAD: u64 = RATE * 3 / 10;
/// From the end of a voice to the cut.
const TAIL: u64 = RATE * 2 / 10;
/// As `REACH`, for a cut in a pause: less than `LEAD`, and with `TAIL` less than `PAUSE`.
const PAUSE_REACH: u64 = RATE / 10;
/// Silence that is not waited with any longer.
const SILENCE: u64 = RATE;
/// A frame as likely as this to hold a voice is live speech.
const LIVE_THRESHOLD: f32 = 0.5;
/// Pauses are looked for at multiples of this.
const PAUSE_STEP: u64 = RATE / 10;

/// A stretch of audio to be decoded in one piece.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// Its first sample in the stream; a multiple of the frame step.
    pub start: u64,
    /// Samples at 16 kHz.
    pub samples: Vec<f32>,
    /// Where the next window is to take over, a sample of the stream; `None` for the last.
    pub cut: Option<u64>,
    /// How far from `cut` it may take over, in samples.
    pub reach: u64,
    /// False where a voice detector found nobody speaking.
    pub voiced: bool,
}

/// Collects samples and hands out windows; holds at most one window and one push.
///
/// Windows depend on the samples alone, not on how they arrive. A stream of 20 s or less is
/// one window, and always counts as voiced.
#[derive(Debug)]
pub struct Windows {
    step: u64,
    detector: Option<VoiceDetector>,
    pending: Vec<f32>,
    start: u64,
    /// The last cut.
    seam: u64,
    ends_at_pauses: bool,
}

impl Windows {
    /// Windows that start at multiples of `step_samples`, with a voice detector or by
    /// loudness alone.
    #[must_use]
    pub fn new(step_samples: u64, detect_voice: bool) -> Self {
        Self {
            // A longer step might not move on.
            step: step_samples.clamp(1, CONTEXT as u64),
            detector: detect_voice.then(VoiceDetector::default),
            pending: Vec::new(),
            start: 0,
            seam: 0,
            ends_at_pauses: false,
        }
    }

    /// Windows of live speech, which end at every pause of 0.7 s; long silence is handed out
    /// by the second.
    #[must_use]
    pub fn live(step_samples: u64) -> Self {
        Self { ends_at_pauses: true, ..Self::new(step_samples, true) }
    }

    /// Takes samples at 16 kHz; returns the windows they complete.
    pub fn push(&mut self, samples: &[f32]) -> Vec<Window> {
        let mut windows = Vec::new();
        if !self.ends_at_pauses {
            self.take(samples, &mut windows);
            return windows;
        }
        let mut rest = samples;
        while !rest.is_empty() {
            let to_step = PAUSE_STEP - self.end() % PAUSE_STEP;
            let (now, later) = rest.split_at(rest.len().min(to_step as usize));
            self.take(now, &mut windows);
            rest = later;
            if self.end().is_multiple_of(PAUSE_STEP) {
                windows.extend(self.at_pause());
            }
        }
        windows
    }

    /// The sample after the last one taken.
    fn end(&self) -> u64 {
        self.start + self.pending.len() as u64
    }

    fn take(&mut self, samples: &[f32], windows: &mut Vec<Window>) {
        self.pending.extend_from_slice(samples);
        if let Some(detector) = &mut self.detector {
            detector.push(samples);
        }
        while self.pending.len() > LONGEST {
            let cut = self.best_cut();
            let voiced = self.voiced(cut + CONTEXT);
            let samples = self.pending[..cut + CONTEXT].to_vec();
            let cut = self.start + cut as u64;
            let start = self.start;
            windows.push(Window { start, samples, cut: Some(cut), reach: REACH, voiced });
            self.move_on(cut, CONTEXT as u64);
        }
    }

    /// Goes on after `cut`, with `context` before it.
    fn move_on(&mut self, cut: u64, context: u64) {
        let next = (cut.saturating_sub(context) / self.step * self.step).max(self.start);
        self.pending.drain(..(next - self.start) as usize);
        self.start = next;
        self.seam = cut;
        if let Some(detector) = &mut self.detector {
            detector.forget(next);
        }
    }

    /// The window that ends in the pause or silence just heard, if there is one.
    fn at_pause(&mut self) -> Option<Window> {
        let end = self.end();
        let cut = match self.voice() {
            Some((_, voice_end)) if end >= voice_end + PAUSE => voice_end + TAIL,
            None if end >= self.seam + SILENCE => end - LEAD,
            _ => return None,
        };
        let window = Window { cut: Some(cut), reach: PAUSE_REACH, ..self.pending() };
        self.move_on(cut, LEAD);
        Some(window)
    }

    /// Where somebody has begun and ceased to speak since the last cut, in samples.
    #[must_use]
    pub fn voice(&self) -> Option<(u64, u64)> {
        self.detector.as_ref()?.voiced(self.seam, self.end(), LIVE_THRESHOLD)
    }

    /// What is pending of live speech, as it stands: the voice and a little around it.
    #[must_use]
    pub fn pending(&self) -> Window {
        let voice = self.voice();
        let (start, end) = match voice {
            Some((start, end)) => (start.saturating_sub(LEAD), end + TAIL + PAUSE_REACH),
            None => (0, u64::MAX),
        };
        let start = (start / self.step * self.step).max(self.start);
        let end = end.min(self.end());
        let samples =
            self.pending[(start - self.start) as usize..(end - self.start) as usize].to_vec();
        Window { start, samples, cut: None, reach: 0, voiced: voice.is_some() }
    }

    /// The rest, if any.
    pub fn finish(&mut self) -> Option<Window> {
        if self.pending.is_empty() {
            return None;
        }
        if self.ends_at_pauses {
            let window = self.pending();
            self.pending.clear();
            return Some(window);
        }
        let voiced = self.start == 0 || self.voiced(self.pending.len());
        let samples = std::mem::take(&mut self.pending);
        Some(Window { start: self.start, samples, cut: None, reach: 0, voiced })
    }

    fn voiced(&self, n_samples: usize) -> bool {
        let Some(detector) = &self.detector else { return true };
        let mut known = detector.probabilities(self.start, self.start + n_samples as u64);
        known.any(|p| p >= VOICE_THRESHOLD)
    }

    /// The point with the least voice and sound around it; the last one of equals.
    fn best_cut(&self) -> usize {
        let mut best = (f64::INFINITY, EARLIEST_CUT);
        let mut start = EARLIEST_CUT;
        while start + PROBE <= LONGEST - CONTEXT {
            let probe = &self.pending[start..start + PROBE];
            let energy: f64 = probe.iter().map(|s| f64::from(*s).powi(2)).sum();
            let mut cost = 10.0 * (energy / PROBE as f64 + 1e-12).log10();
            if let Some(detector) = &self.detector {
                let from = self.start + start as u64;
                let voice: Vec<f32> = detector.probabilities(from, from + PROBE as u64).collect();
                let total: f64 = voice.iter().copied().map(f64::from).sum();
                cost += VOICE_DB * total / voice.len().max(1) as f64;
            }
            if cost <= best.0 {
                best = (cost, start + PROBE / 2);
            }
            start += PROBE / 4;
        }
        best.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(samples: &[f32], chunk: usize, voice: bool) -> Vec<Window> {
        let mut windows = Windows::new(640, voice);
        let mut found: Vec<Window> =
            samples.chunks(chunk).flat_map(|chunk| windows.push(chunk)).collect();
        found.extend(windows.finish());
        found
    }

    #[test]
    fn windows_cover_everything_and_do_not_depend_on_how_samples_arrive() {
        let samples: Vec<f32> =
            (0..16_000 * 65).map(|i| (i as f32 * 0.01).sin() * (i as f32 * 1e-5).sin()).collect();
        for voice in [false, true] {
            let whole = windows(&samples, samples.len(), voice);
            assert_eq!(whole, windows(&samples, 777, voice));
            for window in &whole {
                let start = window.start as usize;
                assert_eq!(start % 640, 0);
                assert_eq!(window.samples, samples[start..start + window.samples.len()]);
                assert!(window.samples.len() <= LONGEST);
            }
            for pair in whole.windows(2) {
                let cut = pair[0].cut.expect("not the last");
                assert!(pair[1].start + CONTEXT as u64 <= cut);
                assert_eq!(pair[0].start + pair[0].samples.len() as u64, cut + CONTEXT as u64);
            }
            let last = whole.last().expect("some");
            assert_eq!((last.cut, last.start as usize + last.samples.len()), (None, samples.len()));
        }
    }

    #[test]
    fn live_windows_do_not_depend_on_how_samples_arrive_and_pass_silence_on() {
        let mut noise = 1_u32;
        let samples: Vec<f32> = (0..16_000 * 30)
            .map(|i| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let loud = if (i / 40_000) % 2 == 0 { 0.0 } else { 0.3 };
                loud * (noise as f32 / u32::MAX as f32 - 0.5)
            })
            .collect();
        let live = |chunk| {
            let mut windows = Windows::live(640);
            let mut found: Vec<Window> =
                samples.chunks(chunk).flat_map(|chunk| windows.push(chunk)).collect();
            found.extend(windows.finish());
            found
        };
        let whole = live(samples.len());
        assert_eq!(whole, live(1_111));
        for pair in whole.windows(2) {
            let cut = pair[0].cut.expect("not the last");
            assert_eq!(pair[1].start % 640, 0);
            assert!(pair[1].voiced || pair[1].start + PAUSE_REACH <= cut);
            assert!(cut + PAUSE_REACH <= pair[0].start + pair[0].samples.len() as u64);
        }
        let silence = Windows::live(640).push(&vec![0.0; 16_000 * 10]);
        assert!(silence.len() > 5 && silence.iter().all(|window| !window.voiced));
        let mut speaking = Windows::live(640);
        assert_eq!(speaking.voice(), None);
        assert!(!speaking.pending().voiced);
        assert_eq!(speaking.finish(), None);
    }

    #[test]
    fn the_cut_falls_into_the_pause_and_short_audio_is_one_window() {
        let mut samples = vec![0.5_f32; 16_000 * 25];
        samples[16_000 * 14..16_000 * 15].fill(0.0);
        let found = windows(&samples, 4_096, false);
        assert_eq!(found.len(), 2);
        assert!((14 * RATE..15 * RATE).contains(&found[0].cut.expect("not the last")));
        assert_eq!(windows(&samples[..LONGEST], 1000, true).len(), 1);
        assert_eq!(windows(&[], 1, true).len(), 0);
    }

    #[test]
    fn long_silence_is_not_voiced() {
        let found = windows(&vec![0.0; 16_000 * 60], 16_000, true);
        assert!(found.iter().all(|window| !window.voiced), "no speech is expected");
        assert!(windows(&vec![0.0; 16_000 * 60], 16_000, false).iter().all(|w| w.voiced));
        assert!(windows(&[0.0; 1_000], 16_000, true)[0].voiced);
    }
}
