//! Colours of scores: five classes from blue (good) over grey to orange (bad), told apart by any colour vision.

/// Which score is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Score {
    /// Character error rate: less is better.
    Cer,
    /// Accuracy of language identification: more is better.
    Lid,
}

/// Number of classes.
pub(super) const CLASSES: usize = 5;

impl Score {
    /// Class of a rate, 0 the best; steps of 20 percent.
    pub(super) fn class(self, rate: f64) -> usize {
        let badness = match self {
            Self::Cer => rate,
            Self::Lid => 1.0 - rate,
        };
        // An exact fifth belongs to the better class; the small number absorbs rounding.
        ((badness * CLASSES as f64 - 1e-9).floor().max(0.0) as usize).min(CLASSES - 1)
    }

    /// What a class holds, for a legend.
    pub(super) fn label(self, class: usize) -> &'static str {
        const CER: [&str; CLASSES] = ["to 20 %", "20–40 %", "40–60 %", "60–80 %", "over 80 %"];
        const LID: [&str; CLASSES] = ["80–100 %", "60–80 %", "40–60 %", "20–40 %", "under 20 %"];
        match self {
            Self::Cer => CER[class],
            Self::Lid => LID[class],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_by_hand() {
        for (rate, cer, lid) in
            [(0.0, 0, 4), (0.2, 0, 3), (0.21, 1, 3), (0.5, 2, 2), (0.8, 3, 0), (1.0, 4, 0)]
        {
            assert_eq!((Score::Cer.class(rate), Score::Lid.class(rate)), (cer, lid), "{rate}");
        }
        assert_eq!(Score::Cer.class(3.5), 4);
        assert_eq!(Score::Cer.class(f64::NAN), 0);
    }
}
