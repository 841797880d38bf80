//! A fair sample of any number of frames, in memory that does not grow.

use super::{Frames, PretrainError};
use crate::data::Random;

/// Frames of which each of the stream had the same chance to be kept (Vitter 1985, algorithm R).
#[derive(Debug)]
pub(super) struct Reservoir {
    /// `(frames, dim)`, row-major.
    pub(super) values: Vec<f32>,
    pub(super) dim: usize,
    /// Frames of the whole stream.
    pub(super) seen: u64,
}

impl Reservoir {
    /// Keeps at most `capacity` frames of a stream, the same ones for the same seed.
    ///
    /// `capacity` values are reserved when the first frame tells how wide frames are.
    pub(super) fn gather(
        capacity: impl Fn(usize) -> usize,
        seed: u64,
        stream: impl Iterator<Item = Result<Frames, PretrainError>>,
    ) -> Result<Self, PretrainError> {
        let mut random = Random::new(&[seed, 0x7265_7365_7276_6f69]);
        let mut sample = Self { values: Vec::new(), dim: 0, seen: 0 };
        let mut most = 0;
        for frames in stream {
            let frames = frames?;
            if frames.n_frames == 0 {
                continue;
            }
            if sample.dim == 0 {
                sample.dim = frames.dim;
                most = capacity(frames.dim);
                // Growing by doubling would need up to three times the memory.
                sample.values.reserve_exact(most * frames.dim);
            }
            if frames.dim != sample.dim {
                return Err(PretrainError::Width { found: frames.dim, expected: sample.dim });
            }
            if !frames.data.iter().all(|value| value.is_finite()) {
                return Err(PretrainError::NotFinite);
            }
            for frame in frames.data.chunks_exact(frames.dim) {
                let seen = usize::try_from(sample.seen).unwrap_or(usize::MAX);
                sample.seen += 1;
                if seen < most {
                    sample.values.extend_from_slice(frame);
                    continue;
                }
                let place = random.below(seen.saturating_add(1));
                if place < most {
                    let start = place * frames.dim;
                    sample.values[start..start + frames.dim].copy_from_slice(frame);
                }
            }
        }
        Ok(sample)
    }

    /// Number of frames kept.
    pub(super) fn len(&self) -> usize {
        self.values.len().checked_div(self.dim).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(n: usize) -> impl Iterator<Item = Result<Frames, PretrainError>> {
        (0..n).map(|clip| {
            let data = (0..100).map(|frame| (clip * 100 + frame) as f32).collect();
            Ok(Frames { clip, data, n_frames: 100, dim: 1 })
        })
    }

    #[test]
    fn every_part_of_the_stream_has_its_share() {
        let sample = Reservoir::gather(|_| 2000, 3, stream(100)).expect("finite");
        assert_eq!((sample.len(), sample.seen), (2000, 10_000));
        for tenth in 0..10 {
            let range = (tenth * 1000) as f32..((tenth + 1) * 1000) as f32;
            let share = sample.values.iter().filter(|value| range.contains(value)).count();
            // 200 expected, standard deviation 12.
            assert!((140..=260).contains(&share), "tenth {tenth}: {share}");
        }
        let mut distinct: Vec<u32> = sample.values.iter().map(|&value| value as u32).collect();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 2000, "no frame is kept twice");
        let again = Reservoir::gather(|_| 2000, 3, stream(100)).expect("finite");
        assert_eq!(again.values, sample.values);
        let other = Reservoir::gather(|_| 2000, 4, stream(100)).expect("finite");
        assert_ne!(other.values, sample.values);
    }

    #[test]
    fn a_short_stream_is_kept_whole_and_memory_is_what_was_promised() {
        let sample = Reservoir::gather(|_| 2000, 3, stream(3)).expect("finite");
        assert_eq!((sample.len(), sample.seen), (300, 300));
        assert_eq!(sample.values.capacity(), 2000);
        let wrong = [Frames { clip: 0, data: vec![f32::NAN], n_frames: 1, dim: 1 }];
        let error = Reservoir::gather(|_| 2, 3, wrong.into_iter().map(Ok)).expect_err("no number");
        assert!(matches!(error, PretrainError::NotFinite));
    }
}
