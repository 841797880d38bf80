//! Leaving out what an encoder added at the ends of a track.

/// What to leave out of a track, in seconds, as containers say it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Padding {
    /// The track it belongs to.
    pub(super) track_id: u32,
    /// At its start.
    pub(super) skip_s: f64,
    /// At its end.
    pub(super) end: PaddingEnd,
}

/// How a container says where the sound of a track ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum PaddingEnd {
    /// It does not.
    Unknown,
    /// So much is to be kept, rounded to `unit_s`.
    Keep { keep_s: f64, unit_s: f64 },
    /// So much is to be dropped.
    Drop { drop_s: f64 },
}

/// Cuts a stream of samples to the part that is to be heard.
#[derive(Debug)]
pub(super) struct Trim {
    skip_left: u64,
    end: End,
    /// Samples beyond the end, or maybe beyond it.
    held: Vec<f32>,
}

#[derive(Clone, Copy, Debug)]
enum End {
    /// Everything is kept.
    Open,
    /// `left` more samples are kept, and an excess shorter than `rounding`.
    Keep { left: u64, rounding: u64 },
    /// `left` more samples are kept; but once the excess is longer than the padding there
    /// should be, the declared length was wrong and everything is kept, as for MP3 files
    /// that were joined end to end.
    KeepUnless { left: u64, padding: u64 },
    /// The last so many samples are dropped.
    Drop { n: u64 },
}

impl Padding {
    /// How long a track of `whole_s` is without the padding, in seconds.
    pub(super) fn heard_s(&self, whole_s: f64) -> f64 {
        let rest_s = (whole_s - self.skip_s).max(0.0);
        match self.end {
            PaddingEnd::Unknown => rest_s,
            PaddingEnd::Keep { keep_s, .. } => rest_s.min(keep_s),
            PaddingEnd::Drop { drop_s } => (rest_s - drop_s).max(0.0),
        }
    }
}

impl Trim {
    /// Keeps everything.
    pub(super) fn none() -> Self {
        Self::new(0, End::Open)
    }

    /// Trims what `padding` says from a track at `sample_rate_hz`, where the decoder already
    /// drops `dropped_s` at the start by itself.
    pub(super) fn padding(padding: &Padding, sample_rate_hz: u32, dropped_s: f64) -> Self {
        let samples = |seconds: f64| (seconds * f64::from(sample_rate_hz)).round() as u64;
        let end = match padding.end {
            PaddingEnd::Unknown => End::Open,
            PaddingEnd::Keep { keep_s, unit_s } => {
                End::Keep { left: samples(keep_s), rounding: samples(unit_s) }
            }
            PaddingEnd::Drop { drop_s } => End::Drop { n: samples(drop_s) },
        };
        Self::new(samples((padding.skip_s - dropped_s).max(0.0)), end)
    }

    /// Drops `delay` samples, then keeps `n_samples` if `padding` follow them.
    pub(super) fn gapless(delay: u32, n_samples: Option<u64>, padding: Option<u32>) -> Self {
        let end = match (n_samples, padding) {
            (Some(left), Some(padding)) => End::KeepUnless { left, padding: u64::from(padding) },
            _ => End::Open,
        };
        Self::new(u64::from(delay), end)
    }

    fn new(skip_left: u64, end: End) -> Self {
        Self { skip_left, end, held: Vec::new() }
    }

    /// Trims what was appended to `samples` from `start` on.
    pub(super) fn apply(&mut self, samples: &mut Vec<f32>, start: usize) {
        let n_skipped = self.skip_left.min((samples.len() - start) as u64);
        self.skip_left -= n_skipped;
        samples.drain(start..start + n_skipped as usize);
        match &mut self.end {
            End::Open => {}
            End::Keep { left, rounding } => {
                let kept = take_up_to(left, samples, start);
                // Only whether the excess reaches the rounding matters: no more is held.
                let room = (*rounding as usize).saturating_sub(self.held.len());
                self.held.extend(samples.drain(kept..).take(room));
            }
            End::KeepUnless { left, padding } => {
                let kept = take_up_to(left, samples, start);
                self.held.extend(samples.drain(kept..));
                if self.held.len() as u64 > *padding {
                    self.end = End::Open;
                    samples.append(&mut self.held);
                }
            }
            End::Drop { n } => {
                let n_held = self.held.len() + samples.len() - start;
                let n_ready = n_held.saturating_sub(*n as usize);
                self.held.extend(samples.drain(start..));
                samples.extend(self.held.drain(..n_ready));
            }
        }
    }

    /// Appends what was held back and turns out to belong to the sound.
    pub(super) fn finish(&mut self, samples: &mut Vec<f32>) {
        if let End::Keep { rounding, .. } = self.end
            && (self.held.len() as u64) < rounding
        {
            samples.append(&mut self.held);
        }
        self.held.clear();
    }
}

/// Counts the samples from `start` on against `left`; returns where it is used up.
fn take_up_to(left: &mut u64, samples: &[f32], start: usize) -> usize {
    let n_kept = (*left).min((samples.len() - start) as u64);
    *left -= n_kept;
    start + n_kept as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds 0, 1, 2, ... in pieces of 3 and returns what passes.
    fn trimmed(n: usize, mut trim: Trim) -> Vec<usize> {
        let samples: Vec<f32> = (0..n).map(|i| i as f32).collect();
        let mut passed = vec![-1.0];
        for piece in samples.chunks(3) {
            let start = passed.len();
            passed.extend_from_slice(piece);
            trim.apply(&mut passed, start);
        }
        trim.finish(&mut passed);
        passed[1..].iter().map(|&sample| sample as usize).collect()
    }

    fn padded(skip_s: f64, end: PaddingEnd) -> Trim {
        let padding = Padding { track_id: 1, skip_s, end };
        Trim::padding(&padding, 1_000, 0.0)
    }

    #[test]
    fn both_ends_are_cut() {
        let keep = |n: usize| PaddingEnd::Keep { keep_s: n as f64 / 1e3, unit_s: 0.0 };
        let drop = |n: usize| PaddingEnd::Drop { drop_s: n as f64 / 1e3 };
        let cases = [
            (Trim::none(), 0..10),
            (padded(0.004, PaddingEnd::Unknown), 4..10),
            (padded(0.004, keep(2)), 4..6),
            (padded(0.0, keep(6)), 0..6),
            (padded(0.012, keep(6)), 0..0),
            (padded(0.0, drop(0)), 0..10),
            (padded(0.002, drop(5)), 2..5),
            (padded(0.0, drop(11)), 0..0),
            (Trim::gapless(2, Some(5), Some(3)), 2..7),
            (Trim::gapless(2, Some(5), None), 2..10),
            (Trim::gapless(2, None, Some(3)), 2..10),
        ];
        for (trim, expected) in cases {
            let description = format!("{trim:?}");
            assert_eq!(trimmed(10, trim), expected.collect::<Vec<_>>(), "{description}");
        }
    }

    #[test]
    fn an_excess_within_rounding_is_kept() {
        let keep =
            |n: usize| padded(0.0, PaddingEnd::Keep { keep_s: n as f64 / 1e3, unit_s: 0.003 });
        assert_eq!(trimmed(10, keep(8)).len(), 10);
        assert_eq!(trimmed(10, keep(7)).len(), 7);
        assert_eq!(trimmed(10, keep(2)).len(), 2);
    }

    #[test]
    fn a_long_excess_disproves_the_header() {
        let joined = trimmed(20, Trim::gapless(1, Some(5), Some(4)));
        assert_eq!(joined, (1..20).collect::<Vec<_>>());
    }

    #[test]
    fn a_decoder_that_drops_by_itself_is_counted() {
        let padding = Padding { track_id: 1, skip_s: 0.004, end: PaddingEnd::Unknown };
        assert_eq!(trimmed(6, Trim::padding(&padding, 1_000, 0.004)).len(), 6);
        assert_eq!(trimmed(6, Trim::padding(&padding, 1_000, 0.001)).len(), 3);
    }
}
