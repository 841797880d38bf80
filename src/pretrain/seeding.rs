//! Centroids to begin with.

use crate::data::Random;
use asr_kernels::nearest::squared_distance;
use rayon::prelude::*;

/// Most frames looked at for each centroid: every frame is compared with every centroid.
const FRAMES_PER_CENTROID: usize = 64;
/// Frames that one thread takes at a time.
const PIECE: usize = 1024;

/// `k` frames of `frames` `(frames, dim)` far from one another: each is drawn in proportion to
/// its squared distance from those before it (k-means++, Arthur and Vassilvitskii 2007).
///
/// There are at least `k` frames. The result does not depend on the number of threads.
pub(super) fn plus_plus(frames: &[f32], dim: usize, k: usize, random: &mut Random) -> Vec<f32> {
    // Some at random: any regular choice could follow a rhythm of the frames.
    let mut chosen: Vec<usize> = (0..frames.len() / dim).collect();
    random.shuffle(&mut chosen);
    chosen.truncate(k * FRAMES_PER_CENTROID);
    let n = chosen.len();
    let frame = |i: usize| &frames[chosen[i] * dim..][..dim];
    let mut seeds = Vec::with_capacity(k * dim);
    let mut away = vec![f32::INFINITY; n];
    let mut newest = random.below(n);
    seeds.extend_from_slice(frame(newest));
    while seeds.len() < k * dim {
        let centroid = frame(newest);
        let sums: Vec<f64> = away
            .par_chunks_mut(PIECE)
            .enumerate()
            .map(|(piece, away)| {
                for (i, away) in away.iter_mut().enumerate() {
                    *away = away.min(squared_distance(frame(piece * PIECE + i), centroid));
                }
                away.iter().map(|&away| f64::from(away)).sum()
            })
            .collect();
        newest = drawn(&away, &sums, random);
        seeds.extend_from_slice(frame(newest));
    }
    seeds
}

/// A number drawn in proportion to `weights`, whose pieces add up to `sums`.
fn drawn(weights: &[f32], sums: &[f64], random: &mut Random) -> usize {
    let total: f64 = sums.iter().sum();
    let mut left = random.unit() * total;
    for (piece, sum) in sums.iter().enumerate() {
        if left >= *sum {
            left -= sum;
            continue;
        }
        let start = piece * PIECE;
        for (i, weight) in weights[start..].iter().take(PIECE).enumerate() {
            left -= f64::from(*weight);
            if left < 0.0 {
                return start + i;
            }
        }
    }
    // Every frame lies on a centroid, or rounding went past the end.
    random.below(weights.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_fall_into_every_cluster() {
        // Eight clusters far apart, one of them small.
        let mut frames = Vec::new();
        for i in 0..4000 {
            let cluster = if i < 200 { 7 } else { i % 7 };
            frames.extend([100.0 * cluster as f32, (i % 10) as f32 / 10.0]);
        }
        let seeds = plus_plus(&frames, 2, 8, &mut Random::new(&[1]));
        let mut clusters: Vec<u32> =
            seeds.chunks(2).map(|seed| (seed[0] / 100.0).round() as u32).collect();
        clusters.sort_unstable();
        assert_eq!(clusters, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(seeds, plus_plus(&frames, 2, 8, &mut Random::new(&[1])));
    }

    #[test]
    fn frames_that_are_all_the_same_are_no_trap() {
        let seeds = plus_plus(&[2.0; 30], 3, 10, &mut Random::new(&[1]));
        assert_eq!(seeds, [2.0; 30]);
    }
}
