//! Levenshtein distance with its substitutions, insertions and deletions.

use serde::Serialize;

/// Errors of a hypothesis against a reference, along one cheapest alignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct EditCounts {
    /// Tokens replaced by another.
    pub substitutions: usize,
    /// Tokens in the hypothesis that the reference lacks.
    pub insertions: usize,
    /// Tokens of the reference that the hypothesis lacks.
    pub deletions: usize,
    /// Length of the reference in tokens.
    pub reference: usize,
}

impl EditCounts {
    /// Substitutions, insertions and deletions together: the edit distance.
    pub fn errors(&self) -> usize {
        self.substitutions + self.insertions + self.deletions
    }

    /// Errors over reference tokens, not clipped; `None` for an empty reference.
    pub fn rate(&self) -> Option<f64> {
        (self.reference > 0).then(|| self.errors() as f64 / self.reference as f64)
    }
}

impl std::ops::AddAssign for EditCounts {
    fn add_assign(&mut self, other: Self) {
        self.substitutions += other.substitutions;
        self.insertions += other.insertions;
        self.deletions += other.deletions;
        self.reference += other.reference;
    }
}

impl std::iter::Sum for EditCounts {
    fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
        items.fold(Self::default(), |mut total, item| {
            total += item;
            total
        })
    }
}

/// Counts the errors of `hypothesis` against `reference` with unit costs.
///
/// Of equally cheap alignments the one with the most substitutions counts; the distance does not depend on that.
/// Time O(reference x hypothesis) after the common start and end are set aside, memory O(the shorter of the two).
///
/// # Example
/// ```
/// let reference: Vec<char> = "kitten".chars().collect();
/// let hypothesis: Vec<char> = "sitting".chars().collect();
/// let counts = asr::text::edit_counts(&reference, &hypothesis);
/// assert_eq!((counts.substitutions, counts.insertions, counts.deletions), (2, 1, 0));
/// ```
pub fn edit_counts<T: PartialEq>(reference: &[T], hypothesis: &[T]) -> EditCounts {
    let start = reference.iter().zip(hypothesis).take_while(|(r, h)| r == h).count();
    let (r, h) = (&reference[start..], &hypothesis[start..]);
    let end = r.iter().rev().zip(h.iter().rev()).take_while(|(r, h)| r == h).count();
    let (r, h) = (&r[..r.len() - end], &h[..h.len() - end]);
    let (long, short) = if r.len() >= h.len() { (r, h) } else { (h, r) };
    let (distance, substitutions) = align(long, short);
    // The rest are gaps, and they make up the difference in length.
    let surplus = long.len() - short.len();
    let missing_in_short = (distance - substitutions + surplus) / 2;
    let missing_in_long = missing_in_short - surplus;
    let (deletions, insertions) = if r.len() >= h.len() {
        (missing_in_short, missing_in_long)
    } else {
        (missing_in_long, missing_in_short)
    };
    EditCounts { substitutions, insertions, deletions, reference: reference.len() }
}

/// The edit distance and the largest number of substitutions among the alignments that reach it.
///
/// A cell of the dynamic programme holds `distance * 2^32 - substitutions`, so that the smallest cell is the one
/// wanted and one row of integers is all the memory.
fn align<T: PartialEq>(long: &[T], short: &[T]) -> (usize, usize) {
    const GAP: u64 = 1 << 32;
    const SUBSTITUTION: u64 = GAP - 1;
    let mut row: Vec<u64> = (0..=short.len() as u64).map(|gaps| gaps * GAP).collect();
    for a in long {
        let mut diagonal = row[0];
        let mut left = row[0] + GAP;
        row[0] = left;
        for (cell, b) in row[1..].iter_mut().zip(short) {
            let straight = diagonal + if a == b { 0 } else { SUBSTITUTION };
            diagonal = *cell;
            left = straight.min(diagonal.min(left) + GAP);
            *cell = left;
        }
    }
    let last = row[short.len()];
    let distance = last.div_ceil(GAP);
    (distance as usize, (distance * GAP - last) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counts(reference: &str, hypothesis: &str) -> EditCounts {
        let reference: Vec<char> = reference.chars().collect();
        let hypothesis: Vec<char> = hypothesis.chars().collect();
        edit_counts(&reference, &hypothesis)
    }

    #[test]
    fn distances_by_hand() {
        struct Case(&'static str, &'static str, [usize; 3]);
        let cases = [
            Case("", "", [0, 0, 0]),
            Case("abc", "abc", [0, 0, 0]),
            Case("", "ab", [0, 2, 0]),
            Case("ab", "", [0, 0, 2]),
            Case("kitten", "sitting", [2, 1, 0]),
            Case("sitting", "kitten", [2, 0, 1]),
            Case("abcd", "bcd", [0, 0, 1]),
            Case("ab", "ba", [2, 0, 0]),
            Case("PQRAB", "ABXYZ", [5, 0, 0]),
            Case("saturday", "sunday", [1, 0, 2]),
            Case("aXbc", "abcY", [0, 1, 1]),
        ];
        for Case(reference, hypothesis, [substitutions, insertions, deletions]) in cases {
            let want =
                EditCounts { substitutions, insertions, deletions, reference: reference.len() };
            assert_eq!(counts(reference, hypothesis), want, "{reference} {hypothesis}");
        }
    }

    #[test]
    fn rates_and_sums() {
        assert_eq!(counts("ab", "xyz").rate(), Some(1.5));
        assert_eq!(counts("", "xyz").rate(), None);
        let total: EditCounts = [counts("ab", "xb"), counts("cd", "cde")].into_iter().sum();
        assert_eq!((total.errors(), total.reference, total.rate()), (2, 4, Some(0.5)));
    }

    /// The definition, by recursion over the first tokens.
    fn plain_distance(a: &[u8], b: &[u8]) -> usize {
        match (a, b) {
            (rest, []) | ([], rest) => rest.len(),
            ([x, a_rest @ ..], [y, b_rest @ ..]) => {
                let straight = plain_distance(a_rest, b_rest) + usize::from(x != y);
                straight.min(plain_distance(a_rest, b) + 1).min(plain_distance(a, b_rest) + 1)
            }
        }
    }

    fn word() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(0u8..3, 0..7)
    }

    proptest! {
        #[test]
        fn laws_of_a_distance(a in word(), b in word(), c in word()) {
            let distance = |x: &[u8], y: &[u8]| edit_counts(x, y).errors();
            prop_assert_eq!(distance(&a, &b), plain_distance(&a, &b));
            prop_assert_eq!(distance(&a, &a), 0);
            prop_assert!(distance(&a, &c) <= distance(&a, &b) + distance(&b, &c));
            let (forth, back) = (edit_counts(&a, &b), edit_counts(&b, &a));
            prop_assert_eq!(forth.substitutions, back.substitutions);
            prop_assert_eq!(forth.insertions, back.deletions);
            prop_assert_eq!(forth.deletions, back.insertions);
            prop_assert_eq!(a.len() + forth.insertions, b.len() + forth.deletions);
        }
    }
}
