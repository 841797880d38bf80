//! Where somebody speaks: a small recurrent network over 16 ms frames (the crate `earshot`).

use std::collections::VecDeque;

/// Samples of a frame, at 16 kHz.
pub const VOICE_FRAME_SAMPLES: usize = 256;

/// Mean square of a frame below which it holds no voice, whatever the network says: -80 dB of
/// full scale. Digital silence is unlike anything that the network was trained on.
const SILENCE: f32 = 1e-8;

/// Whether a sample is digital silence: no more than the last of 16 bits, which may be dither.
#[must_use]
pub fn is_digital_silence(sample: f32) -> bool {
    sample.abs() <= 1.5 / 32_768.0
}

/// What is known of a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VoiceFrame {
    /// Probability that it holds a voice.
    pub probability: f32,
    /// Whether all of its samples are [digital silence](is_digital_silence).
    pub is_silent: bool,
}

/// Probability of a voice in each 16 ms of a stream at 16 kHz.
///
/// Keeps the frames that [`forget`](Self::forget) has not dropped.
pub struct VoiceDetector {
    detector: Box<earshot::Detector>,
    partial: Vec<f32>,
    frames: VecDeque<VoiceFrame>,
    /// Frames dropped from the front.
    forgotten: u64,
}

impl Default for VoiceDetector {
    fn default() -> Self {
        Self {
            detector: Box::default(),
            partial: Vec::with_capacity(VOICE_FRAME_SAMPLES),
            frames: VecDeque::new(),
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
                self.frames.push_back(VoiceFrame {
                    probability: if silent { 0.0 } else { probability },
                    is_silent: self.partial.iter().all(|&s| is_digital_silence(s)),
                });
                self.partial.clear();
            }
        }
    }

    /// A frame, counted from the beginning of the stream; none of what is not known yet or dropped.
    #[must_use]
    pub fn frame(&self, number: u64) -> Option<VoiceFrame> {
        self.frames.get(usize::try_from(number.checked_sub(self.forgotten)?).ok()?).copied()
    }

    /// Probabilities of the frames that lie in samples `start..end` of the stream, as far as
    /// they are known and kept.
    pub fn probabilities(&self, start: u64, end: u64) -> impl Iterator<Item = f32> {
        let frame = |sample: u64| {
            let frame = (sample / VOICE_FRAME_SAMPLES as u64).saturating_sub(self.forgotten);
            (frame as usize).min(self.frames.len())
        };
        let (first, last) = (frame(start), frame(end));
        self.frames.range(first.min(last)..last).map(|frame| frame.probability)
    }

    /// Drops the frames before sample `before`.
    pub fn forget(&mut self, before: u64) {
        let frame = before / VOICE_FRAME_SAMPLES as u64;
        let n = frame.saturating_sub(self.forgotten).min(self.frames.len() as u64);
        self.frames.drain(..n as usize);
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
        assert_eq!(detector.frame(30), None);
        assert!(detector.frame(31).is_some_and(|frame| frame.is_silent));
        assert_eq!(detector.frame(62), None);
        detector.push(&[f32::NAN, f32::INFINITY, -9.0]);
        detector.push(&[1.0 / 32_768.0; 253]);
        assert!(detector.frame(62).is_some_and(|frame| !frame.is_silent));
    }
}
