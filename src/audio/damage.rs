//! What was lost or repaired while decoding.

use std::fmt;

/// Something that was not right in an input that could still be decoded.
///
/// Times are in seconds from the start of the decoded audio. `Display` says it in one line
/// of plain words.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Damage {
    /// Parts of the stream could not be decoded; silence of the same length (where the
    /// length is known) stands in their place.
    Lost {
        /// Where the first of them was.
        start_s: f64,
        /// Length of what was lost, as far as it is known.
        duration_s: f64,
        /// How many packets.
        n_packets: u64,
        /// What the decoder said about the first one.
        reason: String,
    },
    /// The time stamps leap: something between two packets is missing. Silence stands in its
    /// place, up to a minute more of it than there is sound.
    Gap {
        /// Where it is.
        start_s: f64,
        /// Its length.
        duration_s: f64,
    },
    /// The stream ends before its header says it should, or in the middle of a packet.
    Truncated {
        /// Where it ends.
        end_s: f64,
        /// Where it should have ended, if the header says so.
        declared_s: Option<f64>,
    },
    /// NaN or infinite samples, replaced by 0.
    NotFinite {
        /// Where the first one was.
        start_s: f64,
        /// How many.
        n_samples: u64,
    },
    /// Samples far beyond full scale, clipped to -1 or 1. Up to 1.5 nothing is said: lossy
    /// decoders overshoot that much on loud material.
    Clipped {
        /// Where the first one was.
        start_s: f64,
        /// How many.
        n_samples: u64,
        /// The largest magnitude, where full scale is 1.
        peak: f32,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { start_s, duration_s, n_packets, reason } => {
                let packets = if *n_packets == 1 { "packet" } else { "packets" };
                write!(
                    f,
                    "{n_packets} {packets} ({duration_s:.3} s) from {start_s:.3} s on could not \
                     be decoded and became silence: {reason}"
                )
            }
            Self::Gap { start_s, duration_s } => {
                write!(f, "{duration_s:.3} s are missing from {start_s:.3} s on")
            }
            Self::Truncated { end_s, declared_s: Some(declared_s) } => {
                write!(f, "the audio ends at {end_s:.3} s, the header promises {declared_s:.3} s")
            }
            Self::Truncated { end_s, declared_s: None } => {
                write!(f, "the file breaks off at {end_s:.3} s")
            }
            Self::NotFinite { start_s, n_samples } => write!(
                f,
                "{n_samples} samples that are not numbers, the first at {start_s:.3} s, became 0"
            ),
            Self::Clipped { start_s, n_samples, peak } => write!(
                f,
                "{n_samples} samples beyond full scale (peak {peak:.2}), the first at \
                 {start_s:.3} s, were clipped"
            ),
        }
    }
}

/// Entries kept; what comes later is added to the last of its kind.
const MAX_ENTRIES: usize = 64;

/// The damage found so far, with neighbours joined so that it stays short.
#[derive(Debug, Default)]
pub(super) struct DamageLog {
    entries: Vec<Damage>,
    n_sound_samples: u64,
}

impl DamageLog {
    /// Samples that were decoded, as opposed to the silence in place of lost ones.
    pub(super) fn n_sound_samples(&self) -> u64 {
        self.n_sound_samples
    }

    /// `n_samples` more were decoded.
    pub(super) fn sound(&mut self, n_samples: usize) {
        self.n_sound_samples += n_samples as u64;
    }

    pub(super) fn entries(&self) -> &[Damage] {
        &self.entries
    }

    pub(super) fn into_entries(self) -> Vec<Damage> {
        self.entries
    }

    /// One packet lost at `at_s`, replaced by silence for `lost_s`.
    pub(super) fn lost(&mut self, at_s: f64, lost_s: f64, reason: &dyn fmt::Display) {
        let full = self.entries.len() >= MAX_ENTRIES;
        let previous = self.entries.iter_mut().rev().find_map(|entry| match entry {
            Damage::Lost { start_s, duration_s, n_packets, .. }
                if full || (*start_s + *duration_s - at_s).abs() < 1e-6 =>
            {
                Some((duration_s, n_packets))
            }
            _ => None,
        });
        if let Some((duration_s, n_packets)) = previous {
            *duration_s += lost_s;
            *n_packets += 1;
        } else if !full {
            self.entries.push(Damage::Lost {
                start_s: at_s,
                duration_s: lost_s,
                n_packets: 1,
                reason: reason.to_string(),
            });
        }
    }

    /// The time stamps leap by `gap_s`.
    pub(super) fn gap(&mut self, at_s: f64, gap_s: f64) {
        if self.entries.len() < MAX_ENTRIES {
            self.entries.push(Damage::Gap { start_s: at_s, duration_s: gap_s });
        }
    }

    pub(super) fn truncated(&mut self, end_s: f64, declared_s: Option<f64>) {
        if self.entries.len() < MAX_ENTRIES {
            self.entries.push(Damage::Truncated { end_s, declared_s });
        }
    }

    pub(super) fn not_finite(&mut self, at_s: f64, n: u64) {
        for entry in &mut self.entries {
            if let Damage::NotFinite { n_samples, .. } = entry {
                *n_samples += n;
                return;
            }
        }
        self.entries.push(Damage::NotFinite { start_s: at_s, n_samples: n });
    }

    pub(super) fn clipped(&mut self, at_s: f64, n: u64, loudest: f32) {
        for entry in &mut self.entries {
            if let Damage::Clipped { n_samples, peak, .. } = entry {
                *n_samples += n;
                *peak = peak.max(loudest);
                return;
            }
        }
        self.entries.push(Damage::Clipped { start_s: at_s, n_samples: n, peak: loudest });
    }
}
