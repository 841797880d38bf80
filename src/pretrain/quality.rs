//! How much units say of phones or characters.

use super::PretrainError;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// How much longer one kind of labels of a clip may be than another, seconds.
const MAX_DIFFERENCE_S: f64 = 0.5;

/// How often each unit and each reference label fall on the same frame, for each group of clips
/// (language, say).
#[derive(Debug, Clone, Default)]
pub struct Contingency {
    groups: BTreeMap<u32, Counts>,
}

type Counts = HashMap<(u16, u16), u64>;

/// Agreement of units with reference labels, over frames.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Frames compared.
    pub frames: u64,
    /// Distinct units among them.
    pub units: usize,
    /// Distinct reference labels among them.
    pub references: usize,
    /// Share of the frames whose label is the most frequent one of their unit (phone purity,
    /// Hsu et al. 2021, equation 5).
    pub purity: f64,
    /// Share of the frames whose unit is the most frequent one of their label (cluster purity,
    /// equation 6).
    pub cluster_purity: f64,
    /// Mutual information over the entropy of the labels: how much of the uncertainty about
    /// the label its unit takes away (PNMI, equation 7).
    pub pnmi: f64,
    /// The same within groups: what a unit says of the label of a frame beyond what the group
    /// says, over what the group leaves open. With one group it is PNMI.
    pub pnmi_within: f64,
    /// Mutual information over the mean of both entropies.
    pub nmi: f64,
}

impl Contingency {
    /// Adds the labels of a clip of a group: frame `t` of `units`, at its middle, is compared
    /// with what `reference` says of that time, `None` where nothing is known.
    pub fn add(
        &mut self,
        group: u32,
        units: &[u16],
        rate_hz: f64,
        reference: impl Fn(f64) -> Option<u16>,
    ) {
        let counts = self.groups.entry(group).or_default();
        for (t, &unit) in units.iter().enumerate() {
            if let Some(label) = reference((t as f64 + 0.5) / rate_hz) {
                *counts.entry((unit, label)).or_default() += 1;
            }
        }
    }

    /// Adds the labels of a clip against those of another rate, one for each stretch of
    /// `1 / reference_rate_hz` seconds; both are taken to have the same middle.
    ///
    /// # Errors
    /// [`PretrainError::Lengths`] if their lengths differ by more than 0.5 s, more than the
    /// reach of any front end.
    pub fn add_labels(
        &mut self,
        group: u32,
        units: &[u16],
        rate_hz: f64,
        reference: &[u16],
        reference_rate_hz: f64,
    ) -> Result<(), PretrainError> {
        let seconds = units.len() as f64 / rate_hz;
        let reference_s = reference.len() as f64 / reference_rate_hz;
        if (seconds - reference_s).abs() > MAX_DIFFERENCE_S {
            return Err(PretrainError::Lengths { seconds, reference_s });
        }
        let shift_s = (reference_s - seconds) / 2.0;
        let at = |time: f64| {
            let frame = (time + shift_s) * reference_rate_hz;
            if frame < 0.0 { None } else { reference.get(frame as usize).copied() }
        };
        self.add(group, units, rate_hz, at);
        Ok(())
    }

    /// The agreement of what was added; `None` if nothing was.
    #[must_use]
    pub fn quality(&self) -> Option<Quality> {
        let mut all = Counts::new();
        let (mut shared_within, mut open_within) = (0.0, 0.0);
        for counts in self.groups.values() {
            let group = Information::of(counts);
            shared_within += group.shared() * group.frames as f64;
            open_within += group.labels * group.frames as f64;
            for (&pair, &count) in counts {
                *all.entry(pair).or_default() += count;
            }
        }
        let all = Information::of(&all);
        if all.frames == 0 {
            return None;
        }
        let total = all.frames as f64;
        let shared = all.shared();
        Some(Quality {
            frames: all.frames,
            units: all.n_units,
            references: all.n_labels,
            purity: all.most_of_units as f64 / total,
            cluster_purity: all.most_of_labels as f64 / total,
            pnmi: share(shared, all.labels),
            pnmi_within: share(shared_within, open_within),
            nmi: share(shared, (all.units + all.labels) / 2.0),
        })
    }
}

/// One label, or one unit and one label, leave nothing to be told.
fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { (part / whole).min(1.0) } else { 0.0 }
}

/// Entropies of a table in nats, and what falls on the most frequent cells.
struct Information {
    frames: u64,
    n_units: usize,
    n_labels: usize,
    /// Frames whose label is the most frequent one of their unit, and the reverse.
    most_of_units: u64,
    most_of_labels: u64,
    units: f64,
    labels: f64,
    both: f64,
}

impl Information {
    fn of(counts: &Counts) -> Self {
        let frames: u64 = counts.values().sum();
        let (mut units, mut labels) = (HashMap::new(), HashMap::new());
        for (&(unit, label), &count) in counts {
            let (sum, most) = units.entry(unit).or_insert((0_u64, 0_u64));
            (*sum, *most) = (*sum + count, (*most).max(count));
            let (sum, most) = labels.entry(label).or_insert((0_u64, 0_u64));
            (*sum, *most) = (*sum + count, (*most).max(count));
        }
        let most = |of: &HashMap<u16, (u64, u64)>| of.values().map(|&(_, most)| most).sum();
        let sums = |of: &HashMap<u16, (u64, u64)>| of.values().map(|&(sum, _)| sum).collect();
        Self {
            frames,
            n_units: units.len(),
            n_labels: labels.len(),
            most_of_units: most(&units),
            most_of_labels: most(&labels),
            units: entropy(sums(&units), frames),
            labels: entropy(sums(&labels), frames),
            both: entropy(counts.values().copied().collect(), frames),
        }
    }

    /// Mutual information, nats.
    fn shared(&self) -> f64 {
        (self.units + self.labels - self.both).max(0.0)
    }
}

/// Entropy of counts that sum to `total`, nats; sorted first, so that the sum does not depend
/// on the order of a hash table.
fn entropy(mut counts: Vec<u64>, total: u64) -> f64 {
    counts.sort_unstable();
    counts.iter().map(|&count| count as f64 / total as f64).map(|p| -p * p.ln()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quality(units: &[u16], labels: &[u16]) -> Quality {
        let mut counts = Contingency::default();
        counts.add_labels(0, units, 50.0, labels, 50.0).expect("of one length");
        counts.quality().expect("frames")
    }

    #[test]
    fn small_tables_by_hand() {
        let same = quality(&[0, 0, 1, 1, 2, 2], &[5, 5, 9, 9, 7, 7]);
        assert_eq!((same.purity, same.cluster_purity, same.units), (1.0, 1.0, 3));
        assert!((same.pnmi - 1.0).abs() < 1e-12 && (same.nmi - 1.0).abs() < 1e-12);
        // Units twice as fine as labels: all of the label is known, half of the unit.
        let fine = quality(&[0, 1, 2, 3], &[0, 0, 1, 1]);
        assert_eq!((fine.purity, fine.cluster_purity), (1.0, 0.5));
        assert!((fine.pnmi - 1.0).abs() < 1e-12 && (fine.nmi - 2.0 / 3.0).abs() < 1e-12);
        let unrelated = quality(&[0, 1, 0, 1], &[0, 0, 1, 1]);
        assert_eq!((unrelated.purity, unrelated.frames), (0.5, 4));
        assert!(unrelated.pnmi.abs() < 1e-12 && unrelated.nmi.abs() < 1e-12);
        let constant = quality(&[3, 3], &[1, 1]);
        assert_eq!((constant.purity, constant.pnmi, constant.nmi), (1.0, 0.0, 0.0));
    }

    #[test]
    fn what_the_group_says_is_not_counted_twice() {
        // Units that name the group and nothing else.
        let mut counts = Contingency::default();
        counts.add_labels(0, &[4, 4, 4, 4], 50.0, &[0, 0, 1, 1], 50.0).expect("of one length");
        counts.add_labels(1, &[5, 5, 5, 5], 50.0, &[2, 2, 3, 3], 50.0).expect("of one length");
        let quality = counts.quality().expect("frames");
        assert!((quality.pnmi - 0.5).abs() < 1e-12 && quality.pnmi_within.abs() < 1e-12);
        // In a third group, as long as both, the unit says all.
        let labels = [0, 0, 0, 0, 1, 1, 1, 1];
        counts.add_labels(2, &labels, 50.0, &labels, 50.0).expect("of one length");
        let quality = counts.quality().expect("frames");
        assert!((quality.pnmi_within - 0.5).abs() < 1e-12);
    }

    #[test]
    fn rates_may_differ_and_gaps_are_left_out() {
        let mut counts = Contingency::default();
        counts.add_labels(0, &[1, 1, 2, 2], 100.0, &[7, 8], 50.0).expect("0.04 s both");
        let error =
            counts.add_labels(0, &[1; 100], 100.0, &[7; 20], 50.0).expect_err("0.6 s apart");
        assert!(matches!(error, PretrainError::Lengths { .. }));
        // The middle two of four frames.
        counts.add_labels(0, &[1, 2], 50.0, &[9, 7, 8, 9], 50.0).expect("0.04 s apart");
        counts.add(0, &[1, 2], 50.0, |time| (time < 0.02).then_some(7));
        let quality = counts.quality().expect("frames");
        assert_eq!((quality.frames, quality.purity), (7, 1.0));
        assert!(Contingency::default().quality().is_none());
    }
}
