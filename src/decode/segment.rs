//! Cutting long audio where it is quiet.

/// A stretch of audio to be decoded in one piece.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// Seconds from the start of the input.
    pub start_s: f64,
    /// Samples at 16 kHz.
    pub samples: Vec<f32>,
}

impl Segment {
    /// Seconds from the start of the input.
    #[must_use]
    pub fn end_s(&self) -> f64 {
        self.start_s + self.samples.len() as f64 / RATE_HZ
    }
}

const RATE_HZ: f64 = 16_000.0;
/// Longest segment: what is not longer is never cut. Training clips reach 20 s.
const LONGEST: usize = 20 * 16_000;
/// A cut falls no earlier than this.
const EARLIEST_CUT: usize = 8 * 16_000;
/// Loudness is measured over windows this long, 0.1 s apart from each other's start by a quarter.
const WINDOW: usize = 1_600;

/// Collects samples and hands out segments; holds at most one segment and one push.
#[derive(Debug, Default)]
pub struct Segmenter {
    pending: Vec<f32>,
    done_samples: u64,
}

impl Segmenter {
    /// Takes samples at 16 kHz; returns the segments they complete.
    pub fn push(&mut self, samples: &[f32]) -> Vec<Segment> {
        self.pending.extend_from_slice(samples);
        let mut segments = Vec::new();
        while self.pending.len() > LONGEST {
            let cut = quietest_point(&self.pending[..LONGEST]);
            segments.push(self.take(cut));
        }
        segments
    }

    /// The rest, if any.
    pub fn finish(&mut self) -> Option<Segment> {
        (!self.pending.is_empty()).then(|| self.take(self.pending.len()))
    }

    fn take(&mut self, n: usize) -> Segment {
        let rest = self.pending.split_off(n);
        let samples = std::mem::replace(&mut self.pending, rest);
        let start_s = self.done_samples as f64 / RATE_HZ;
        self.done_samples += n as u64;
        Segment { start_s, samples }
    }
}

/// Middle of the quietest window past [`EARLIEST_CUT`]; the last one of equals.
fn quietest_point(samples: &[f32]) -> usize {
    let mut best = (f64::INFINITY, samples.len());
    let mut start = EARLIEST_CUT;
    while start + WINDOW <= samples.len() {
        let energy: f64 =
            samples[start..start + WINDOW].iter().map(|s| f64::from(*s).powi(2)).sum();
        if energy <= best.0 {
            best = (energy, start + WINDOW / 2);
        }
        start += WINDOW / 4;
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(samples: &[f32], step: usize) -> Vec<Segment> {
        let mut segmenter = Segmenter::default();
        let mut segments: Vec<Segment> =
            samples.chunks(step).flat_map(|c| segmenter.push(c)).collect();
        segments.extend(segmenter.finish());
        segments
    }

    #[test]
    fn nothing_is_lost_and_cuts_do_not_depend_on_how_samples_arrive() {
        let samples: Vec<f32> =
            (0..16_000 * 65).map(|i| (i as f32 * 0.01).sin() * (i as f32 * 1e-5).sin()).collect();
        let whole = cut(&samples, samples.len());
        assert_eq!(whole, cut(&samples, 777));
        let joined: Vec<f32> = whole.iter().flat_map(|s| s.samples.iter().copied()).collect();
        assert_eq!(joined, samples);
        assert!(whole.iter().all(|s| s.samples.len() <= LONGEST));
        assert!(whole.windows(2).all(|pair| (pair[0].end_s() - pair[1].start_s).abs() < 1e-9));
    }

    #[test]
    fn the_cut_falls_into_the_pause() {
        let mut samples = vec![0.5_f32; 16_000 * 25];
        samples[16_000 * 14..16_000 * 15].fill(0.0);
        let segments = cut(&samples, 4_096);
        assert_eq!(segments.len(), 2);
        assert!((14.0..15.0).contains(&segments[1].start_s), "{}", segments[1].start_s);
        assert_eq!(cut(&samples[..LONGEST], 1000).len(), 1);
        assert_eq!(cut(&[], 1).len(), 0);
    }
}
