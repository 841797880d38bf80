//! What is said from one pause to the next, and a little of what is around it.

use super::windows::{LONGEST, RATE, Window, overlapping};
use crate::features::{VOICE_FRAME_SAMPLES, VoiceDetector, is_digital_silence};

const FRAME: u64 = VOICE_FRAME_SAMPLES as u64;
/// A frame as likely as this to hold a voice is speech.
const THRESHOLD: f32 = 0.35;
/// Frames of speech that follow each other: less may be a click.
const SHORTEST_RUN: u64 = 4;
/// An utterance has so many frames that are as likely as this to hold a voice: of music and noise
/// few do, of speech nearly all.
const SURE: f32 = 0.85;
const SURE_FRAMES: usize = 8;
/// An utterance ends where for this long nobody speaks.
const PAUSE: u64 = RATE * 6 / 10;
/// What is heard of the background before and after a voice. More of it helps no model that is
/// trained on clips of speech.
const MARGIN: u64 = RATE * 3 / 10;
/// Where a recording begins or ends, or goes over into digital silence, no further from the voice
/// than this, all up to there belongs to the utterance: so each of several recordings in one file
/// is heard as it is alone.
const EDGE: u64 = RATE;
/// Frames of digital silence that are an edge, and that end an utterance; what follows the latter is
/// heard as if it was the beginning of the stream.
const SILENT_EDGE: u64 = 3;
const SILENT_END: u64 = 19;
/// Utterances that get too long are parted at their longest pause if it is this long, and not
/// earlier than `EARLIEST_PART`.
const SHORT_PAUSE: u64 = RATE * 3 / 10;
const EARLIEST_PART: u64 = 3 * RATE;

/// An utterance that goes on, in samples of the stream.
#[derive(Debug)]
struct Utterance {
    /// Where its window begins.
    start: u64,
    /// Where the voice began.
    since: u64,
    /// Where speech ended last.
    end: u64,
    /// Where digital silence began since.
    edge: Option<u64>,
    /// From where to where nobody spoke meanwhile.
    pauses: Vec<(u64, u64)>,
}

impl Utterance {
    /// Middles of the pauses that are over before `end`.
    fn pauses_before(&self, end: u64) -> Vec<u64> {
        let over = self.pauses.iter().filter(|pause| pause.1 < end);
        over.map(|pause| pause.0.midpoint(pause.1)).collect()
    }
}

/// Finds utterances in a stream; see [`Windows`](super::windows::Windows).
#[derive(Debug)]
pub(super) struct Utterances {
    step: u64,
    /// Hears what follows a long digital silence, or the beginning of the stream.
    detector: VoiceDetector,
    /// The first sample that it has heard; none while there is digital silence.
    heard_from: Option<u64>,
    /// Samples from `start` on.
    pending: Vec<f32>,
    start: u64,
    /// Samples that are judged.
    judged: u64,
    /// Frames of speech, and of digital silence, in a row.
    run: u64,
    silent_run: u64,
    /// Where the last digital silence ended that is an edge.
    after_silence: u64,
    /// Where the last utterance ended.
    taken: u64,
    utterance: Option<Utterance>,
}

impl Utterances {
    pub(super) fn new(step: u64) -> Self {
        Self {
            step,
            detector: VoiceDetector::default(),
            heard_from: None,
            pending: Vec::new(),
            start: 0,
            judged: 0,
            run: 0,
            silent_run: 0,
            after_silence: 0,
            taken: 0,
            utterance: None,
        }
    }

    pub(super) fn speaking_since(&self) -> Option<u64> {
        self.utterance.as_ref().filter(|u| self.is_sure(u)).map(|utterance| utterance.since)
    }

    fn is_sure(&self, utterance: &Utterance) -> bool {
        let from = self.heard_from.unwrap_or(utterance.since);
        let known = self.detector.probabilities(utterance.since - from, utterance.end - from);
        known.filter(|p| *p >= SURE).count() >= SURE_FRAMES
    }

    pub(super) fn pending(&self) -> Option<Window> {
        let utterance = self.utterance.as_ref().filter(|utterance| self.is_sure(utterance))?;
        let end = self.end_of(utterance).min(self.end());
        Some(self.window(utterance, end))
    }

    pub(super) fn push(&mut self, samples: &[f32]) -> Vec<Window> {
        self.pending.extend_from_slice(samples);
        let mut windows = Vec::new();
        let mut rest = samples;
        while !rest.is_empty() {
            let at = self.end() - rest.len() as u64;
            let Some(from) = self.heard_from else {
                let n = rest.iter().take_while(|&&s| is_digital_silence(s)).count();
                rest = &rest[n..];
                if !rest.is_empty() {
                    self.wake(at + n as u64);
                }
                continue;
            };
            let to_frame = (FRAME - (at - from) % FRAME) as usize;
            let (now, later) = rest.split_at(to_frame.min(rest.len()));
            self.detector.push(now);
            rest = later;
            let Some(frame) = self.detector.frame((self.judged - from) / FRAME) else { continue };
            self.judged += FRAME;
            self.run = if frame.probability >= THRESHOLD { self.run + 1 } else { 0 };
            self.silent_run = if frame.is_silent { self.silent_run + 1 } else { 0 };
            if self.silent_run >= SILENT_EDGE {
                self.after_silence = self.judged;
            }
            windows.extend(self.judge());
            if self.silent_run >= SILENT_END {
                self.heard_from = None;
            }
        }
        let needed = match (&self.utterance, self.heard_from) {
            (Some(utterance), _) => utterance.start,
            (None, Some(_)) => self.taken.max(self.judged.saturating_sub(EDGE + 8 * FRAME)),
            (None, None) => self.end(),
        };
        self.drop_before(needed);
        windows
    }

    /// Begins to listen at the first sample after digital silence.
    fn wake(&mut self, sample: u64) {
        self.detector = VoiceDetector::default();
        self.heard_from = Some(sample);
        self.judged = sample;
        self.after_silence = sample;
        self.run = 0;
        self.silent_run = 0;
    }

    pub(super) fn finish(&mut self) -> Option<Window> {
        let utterance = self.utterance.take().filter(|utterance| self.is_sure(utterance))?;
        let end = match utterance.edge {
            Some(_) => self.end_of(&utterance),
            None => self.last_sound(utterance.start, self.end()),
        };
        Some(self.window(&utterance, end))
    }

    /// Looks at the newest frame; returns the window that it ends.
    fn judge(&mut self) -> Option<Window> {
        let now = self.judged;
        let speaks = self.run >= SHORTEST_RUN;
        let voice_start = now - self.run * FRAME;
        let Some(utterance) = &mut self.utterance else {
            if speaks {
                let start = self.start_of(voice_start);
                let pauses = Vec::new();
                self.utterance =
                    Some(Utterance { start, since: voice_start, end: now, edge: None, pauses });
            }
            return None;
        };
        if speaks {
            if self.run == SHORTEST_RUN && voice_start >= utterance.end + SHORT_PAUSE {
                utterance.pauses.push((utterance.end, voice_start));
            }
            utterance.end = now;
            utterance.edge = None;
        } else {
            if self.silent_run == SILENT_EDGE && utterance.edge.is_none() {
                utterance.edge = Some(now - SILENT_EDGE * FRAME);
            }
            // Whether digital silence that has just begun is an edge is waited for.
            let is_known = self.silent_run == 0 || self.silent_run >= SILENT_EDGE;
            let is_over = now >= utterance.end + PAUSE && is_known;
            if is_over || self.silent_run >= SILENT_END {
                let utterance = self.utterance.take()?;
                let end = self.end_of(&utterance);
                self.taken = end;
                return self.is_sure(&utterance).then(|| self.window(&utterance, end));
            }
        }
        (now - utterance.start > LONGEST as u64).then(|| self.part()).flatten()
    }

    /// The first part of an utterance that is too long.
    fn part(&mut self) -> Option<Window> {
        let mut utterance = self.utterance.take()?;
        let is_sure = self.is_sure(&utterance);
        let earliest = utterance.start + EARLIEST_PART;
        let long = utterance.pauses.iter().filter(|pause| pause.0 >= earliest);
        let window = match long.max_by_key(|pause| pause.1 - pause.0).copied() {
            Some((before, after)) => {
                let margin = MARGIN.min((after - before) / 2);
                let window = self.window(&utterance, before + margin);
                utterance.start = after - margin;
                utterance.since = after;
                window
            }
            None => {
                let from = (utterance.start - self.start) as usize;
                let heard_from = self.heard_from.unwrap_or(utterance.start);
                let voice = |from: u64, to: u64| {
                    let heard: Vec<f32> =
                        self.detector.probabilities(from - heard_from, to - heard_from).collect();
                    heard.iter().sum::<f32>() / heard.len().max(1) as f32
                };
                let samples = &self.pending[from..];
                let (mut window, next) = overlapping(samples, utterance.start, self.step, voice);
                window.pauses = utterance.pauses_before(window.end());
                utterance.start = next;
                utterance.since = window.cut.unwrap_or(next);
                window
            }
        };
        utterance.pauses.retain(|pause| pause.0 >= utterance.since);
        self.taken = utterance.start;
        self.utterance = Some(utterance);
        is_sure.then_some(window)
    }

    /// Where the window of a voice begins.
    fn start_of(&self, voice_start: u64) -> u64 {
        let after_silence = self.after_silence;
        if after_silence >= self.taken && voice_start - after_silence <= EDGE {
            let from = (after_silence - self.start) as usize;
            let to = (voice_start - self.start) as usize;
            let sound = self.pending[from..to].iter().position(|&s| !is_digital_silence(s));
            return sound.map_or(voice_start, |n| after_silence + n as u64);
        }
        voice_start.saturating_sub(MARGIN).max(self.taken)
    }

    /// Where the window of an utterance ends, as far as is known.
    fn end_of(&self, utterance: &Utterance) -> u64 {
        match utterance.edge {
            Some(edge) => self.last_sound(utterance.start, edge),
            None => utterance.end + MARGIN,
        }
    }

    /// The sample after the last of `from..to` that is not digital silence.
    fn last_sound(&self, from: u64, to: u64) -> u64 {
        let range = (from - self.start) as usize..(to - self.start) as usize;
        let sound = self.pending[range].iter().rposition(|&s| !is_digital_silence(s));
        sound.map_or(from, |n| from + n as u64 + 1)
    }

    /// An utterance up to `end`.
    fn window(&self, utterance: &Utterance, end: u64) -> Window {
        let start = utterance.start;
        let range = (start - self.start) as usize..(end - self.start) as usize;
        let samples = self.pending[range].to_vec();
        Window { start, samples, cut: None, reach: 0, pauses: utterance.pauses_before(end) }
    }

    /// The sample after the last one taken.
    fn end(&self) -> u64 {
        self.start + self.pending.len() as u64
    }

    fn drop_before(&mut self, sample: u64) {
        let n = sample.saturating_sub(self.start).min(self.pending.len() as u64);
        // Not at every frame, so that little is moved.
        if n >= RATE / 2 {
            self.pending.drain(..n as usize);
            self.start += n;
            let heard_from = self.heard_from.unwrap_or(self.start);
            self.detector.forget(self.start.saturating_sub(heard_from));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::{DecodeOptions, decode_path};
    use std::path::Path;
    use std::sync::LazyLock;

    fn clip(name: &str) -> Vec<f32> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/audio").join(name);
        decode_path(&path, &DecodeOptions::default()).expect("decodes").samples
    }

    static SWAHILI: LazyLock<Vec<f32>> = LazyLock::new(|| clip("swa.m4a"));
    static SPANISH: LazyLock<Vec<f32>> = LazyLock::new(|| clip("spa.wav"));

    fn windows(samples: &[f32], chunk: usize) -> Vec<Window> {
        let mut utterances = Utterances::new(640);
        let mut found: Vec<Window> =
            samples.chunks(chunk).flat_map(|chunk| utterances.push(chunk)).collect();
        found.extend(utterances.finish());
        found
    }

    fn joined(clips: &[&[f32]], gap: &[f32]) -> Vec<f32> {
        clips.iter().flat_map(|clip| [*clip, gap].concat()).collect()
    }

    #[test]
    fn utterances_do_not_depend_on_how_samples_arrive_and_do_not_overlap() {
        let mut noise = 1_u32;
        let gap: Vec<f32> = (0..RATE * 9 / 10)
            .map(|_| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                1e-3 * (noise as f32 / u32::MAX as f32 - 0.5)
            })
            .collect();
        let samples = joined(&[&SWAHILI, &SPANISH, &SWAHILI, &SPANISH], &gap);
        let whole = windows(&samples, samples.len());
        assert!(whole.len() >= 4);
        for chunk in [1, 255, 777, 20_000] {
            assert_eq!(whole, windows(&samples, chunk));
        }
        for window in &whole {
            let range = window.start as usize..window.end() as usize;
            assert_eq!(window.samples, samples[range]);
            assert!(window.samples.len() <= LONGEST);
        }
        assert!(whole.windows(2).all(|pair| pair[0].end() <= pair[1].start));
    }

    #[test]
    fn clips_between_digital_silence_are_heard_as_they_are_alone() {
        let alone: Vec<Vec<f32>> = [&SWAHILI, &SPANISH]
            .iter()
            .flat_map(|clip| windows(clip, 4_096))
            .map(|window| window.samples)
            .collect();
        for gap in [6_000, 8_000, 50_001] {
            let samples = joined(&[&SWAHILI, &SPANISH], &vec![0.0; gap]);
            let found = windows(&samples, 1_000).into_iter().map(|window| window.samples);
            assert_eq!(found.collect::<Vec<_>>(), alone, "gap of {gap}");
        }
    }

    #[test]
    fn long_speech_is_parted_and_nothing_of_it_is_lost() {
        let mut speech = Vec::new();
        while speech.len() < 3 * LONGEST {
            // Without the silence at its ends, so that no pause is long enough to end it.
            speech.extend_from_slice(&SPANISH[4_000..SPANISH.len() - 4_000]);
        }
        let found = windows(&speech, 5_000);
        assert!(found.len() >= 3);
        for pair in found.windows(2) {
            match pair[0].cut {
                Some(cut) => {
                    assert_eq!((pair[1].start - pair[0].start) % 640, 0);
                    assert!(pair[1].start + cut.min(RATE) <= cut);
                    assert!(cut < pair[0].end());
                }
                None => assert!(pair[1].start - pair[0].end() < PAUSE),
            }
        }
        assert!(found.iter().all(|window| window.samples.len() <= LONGEST));
        let end = found.last().expect("some").end() as usize;
        assert!(end + RATE as usize > speech.len(), "{end} of {}", speech.len());
    }

    #[test]
    fn silence_and_clicks_are_no_utterance_and_are_not_kept() {
        let mut samples = vec![0.0_f32; 16_000 * 60];
        for click in samples.iter_mut().step_by(7_000) {
            *click = 0.5;
        }
        let mut utterances = Utterances::new(640);
        assert_eq!(utterances.push(&[]), []);
        for chunk in samples.chunks(4_000) {
            assert_eq!(utterances.push(chunk), []);
            assert!(utterances.pending.len() < 3 * RATE as usize);
        }
        assert_eq!((utterances.speaking_since(), utterances.pending()), (None, None));
        assert_eq!(utterances.finish(), None);
    }

    #[test]
    fn what_goes_on_is_pending_from_the_beginning_of_the_voice() {
        let mut utterances = Utterances::new(640);
        utterances.push(&[0.0; 20_000]);
        utterances.push(&SWAHILI[..24_000]);
        let pending = utterances.pending().expect("somebody speaks");
        let since = utterances.speaking_since().expect("somebody speaks");
        assert!(pending.start >= 20_000 && pending.start <= since && since < pending.end());
        assert!(!is_digital_silence(pending.samples[0]));
        assert!(pending.end() <= 44_000);
    }
}
