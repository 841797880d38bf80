//! Where somebody speaks: a small recurrent network over 16 ms frames (the crate `earshot`).

use std::collections::VecDeque;

/// Samples of a frame, at 16 kHz.
pub const VOICE_FRAME_SAMPLES: usize = 256;

/// Frames of a voice that follow each other: a single one may be a click.
const SHORTEST_RUN: u64 = 4;

/// Mean square of a frame below which it holds no voice, whatever the network says: -80 dB of
/// full scale. Digital silence is unlike anything that the network was trained on.
const SILENCE: f32 = 1e-8;

/// Probability of a voice in each 16 ms of a stream at 16 kHz.
///
/// Keeps the probabilities of what [`forget`](Self::forget) has not dropped.
pub struct VoiceDetector {
    detector: Box<earshot::Detector>,
    partial: Vec<f32>,
    probabilities: VecDeque<f32>,
    /// Frames dropped from the front.
    forgotten: u64,
}

impl Default for VoiceDetector {
    fn default() -> Self {
        Self {
            detector: Box::default(),
            partial: Vec::with_capacity(VOICE_FRAME_SAMPLES),
            probabilities: VecDeque::new(),
            forgotten: 0,
        }
    }
}

impl std::fmt::Debug for VoiceDetector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VoiceDetector").field("forgotten", &self.forgotten).finish_non_exhaustive()
    }
}

impl VoiceDetector {
    /// Takes samples; how they are cut does not matter.
    pub fn push(&mut self, samples: &[f32]) {
        for &sample in samples {
            // The detector wants [-1, 1] and has no place for what is not a number.
            self.partial.push(if sample.is_nan() { 0.0 } else { sample.clamp(-1.0, 1.0) });
            if self.partial.len() == VOICE_FRAME_SAMPLES {
                let probability = self.detector.predict_f32(&self.partial);
                let energy: f32 = self.partial.iter().map(|s| s * s).sum();
                let silent = energy < SILENCE * VOICE_FRAME_SAMPLES as f32;
                self.probabilities.push_back(if silent { 0.0 } else { probability });
                self.partial.clear();
            }
        }
    }

    /// Probabilities of the frames that lie in samples `start..end` of the stream, as far as
    /// they are known and kept.
    pub fn probabilities(&self, start: u64, end: u64) -> impl Iterator<Item = f32> {
        let frame = |sample: u64| {
            let frame = (sample / VOICE_FRAME_SAMPLES as u64).saturating_sub(self.forgotten);
            (frame as usize).min(self.probabilities.len())
        };
        let (first, last) = (frame(start), frame(end));
        self.probabilities.range(first.min(last)..last).copied()
    }

    /// From where to where somebody speaks in samples `start..end`: from the first to the last
    /// frame of runs of at least 64 ms whose frames are as likely as `threshold` to hold a voice.
    #[must_use]
    pub fn voiced(&self, start: u64, end: u64, threshold: f32) -> Option<(u64, u64)> {
        let offset = (start / VOICE_FRAME_SAMPLES as u64).max(self.forgotten);
        let (mut run, mut found) = (0, None);
        for (frame, probability) in (offset..).zip(self.probabilities(start, end)) {
            run = if probability >= threshold { run + 1 } else { 0 };
            if run >= SHORTEST_RUN {
                let (first, _) = found.unwrap_or((frame + 1 - SHORTEST_RUN, 0));
                found = Some((first, frame + 1));
            }
        }
        let samples = |frame: u64| frame * VOICE_FRAME_SAMPLES as u64;
        found.map(|(first, last)| (samples(first), samples(last)))
    }

    /// Drops the frames before sample `before`.
    pub fn forget(&mut self, before: u64) {
        let frame = before / VOICE_FRAME_SAMPLES as u64;
        let n = frame.saturating_sub(self.forgotten).min(self.probabilities.len() as u64);
        self.probabilities.drain(..n as usize);
        self.forgotten += n;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_from_the_start_and_silence_has_no_voice() {
        let mut detector = VoiceDetector::default();
        for chunk in vec![0.0; 16_000].chunks(777) {
            detector.push(chunk);
        }
        assert_eq!(detector.probabilities(0, 16_000).count(), 62);
        assert!(detector.probabilities(0, 16_000).all(|p| (0.0..0.2).contains(&p)));
        detector.forget(8_000);
        assert_eq!(detector.probabilities(0, 8_000).count(), 0);
        assert_eq!(detector.probabilities(8_000, 12_800).count(), 19);
        assert_eq!(detector.voiced(0, 16_000, 0.0), Some((7_936, 15_872)));
        assert_eq!(detector.voiced(0, 16_000, 0.9), None);
        detector.push(&[f32::NAN, f32::INFINITY, -9.0]);
    }
}
