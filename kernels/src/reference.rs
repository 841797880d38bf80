//! The plain twins: each operation as its formula reads, in loops, summed in f64.
//! They are the oracle of the tests and the place to read what an operation means.

/// Reproducible values in [-1, 1), for tests and benches (splitmix64).
#[must_use]
pub fn uniform(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (0..n)
        .map(|_| {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^= z >> 31;
            (z >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// The cases of a test; under miri, which takes a thousand steps for one, the first `few` alone.
#[cfg(test)]
pub(crate) fn cases<T, const N: usize>(all: [T; N], few: usize) -> impl Iterator<Item = T> {
    all.into_iter().take(if cfg!(miri) { few } else { N })
}

/// `a (m, k) · b (k, n)`, row-major.
#[must_use]
pub fn matmul(a: &[f32], b: &[f32], m: usize, k: usize, n: usize) -> Vec<f32> {
    let mut c = Vec::with_capacity(m * n);
    for i in 0..m {
        for j in 0..n {
            let sum: f64 = (0..k).map(|l| f64::from(a[i * k + l]) * f64::from(b[l * n + j])).sum();
            c.push(sum as f32);
        }
    }
    c
}

/// `x Φ(x)`, Φ the normal distribution function (Hendrycks and Gimpel 2016).
#[must_use]
pub fn gelu(x: f32) -> f32 {
    let x = f64::from(x);
    (0.5 * x * (1.0 + libm::erf(x / std::f64::consts::SQRT_2))) as f32
}

/// Normalises groups of values to mean 0 and biased variance 1, then scales and shifts.
///
/// `index(group, i)` names the `i`-th value of a group; `affine(i)` its weight and bias.
pub fn normalise(
    x: &[f32],
    eps: f64,
    group: &[usize],
    affine: impl Fn(usize) -> (f32, f32),
    out: &mut [f32],
) {
    let n = group.len() as f64;
    let mean = group.iter().map(|&i| f64::from(x[i])).sum::<f64>() / n;
    let variance = group.iter().map(|&i| (f64::from(x[i]) - mean).powi(2)).sum::<f64>() / n;
    for &i in group {
        let (weight, bias) = affine(i);
        let unit = (f64::from(x[i]) - mean) / (variance + eps).sqrt();
        out[i] = (unit * f64::from(weight) + f64::from(bias)) as f32;
    }
}

/// Softmax attention of one head: `q`, `k`, `v` `(frames, dim)`; keys from `valid` on are masked.
#[must_use]
pub fn attention(q: &[f32], k: &[f32], v: &[f32], dim: usize, valid: usize) -> Vec<f32> {
    let scale = (dim as f64).sqrt().recip();
    let mut out = Vec::with_capacity(q.len());
    for q in q.chunks(dim) {
        let scores: Vec<f64> = k
            .chunks(dim)
            .take(valid)
            .map(|k| {
                q.iter().zip(k).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>() * scale
            })
            .collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
        let total: f64 = weights.iter().sum();
        for d in 0..dim {
            let sum: f64 =
                weights.iter().zip(v.chunks(dim)).map(|(w, v)| w * f64::from(v[d])).sum();
            out.push((sum / total) as f32);
        }
    }
    out
}

/// Convolution over time, channels last: `x (frames, inputs)`, `w (outputs, inputs / groups, kernel)`.
#[must_use]
pub fn conv1d(
    x: &[f32],
    inputs: usize,
    w: &[f32],
    (outputs, kernel): (usize, usize),
    stride: usize,
    groups: usize,
) -> Vec<f32> {
    let frames = x.len() / inputs;
    if frames < kernel {
        return Vec::new();
    }
    let per_group = inputs / groups;
    let mut y = Vec::new();
    for t in 0..=(frames - kernel) / stride {
        for o in 0..outputs {
            let group = o / (outputs / groups);
            let mut sum = 0.0;
            for c in 0..per_group {
                for j in 0..kernel {
                    let value = x[(t * stride + j) * inputs + group * per_group + c];
                    sum += f64::from(value) * f64::from(w[(o * per_group + c) * kernel + j]);
                }
            }
            y.push(sum as f32);
        }
    }
    y
}

/// CTC probability of `targets` by enumerating every path: only for a handful of frames.
#[must_use]
pub fn ctc_probability(probs: &[f32], vocab: usize, targets: &[u32], blank: u32) -> f64 {
    let frames = probs.len() / vocab;
    let mut total = 0.0;
    for code in 0..vocab.pow(frames as u32) {
        let path: Vec<u32> =
            (0..frames).map(|t| (code / vocab.pow(t as u32) % vocab) as u32).collect();
        let mut collapsed = path.clone();
        collapsed.dedup();
        collapsed.retain(|&token| token != blank);
        if collapsed == targets {
            total += path
                .iter()
                .enumerate()
                .map(|(t, &token)| f64::from(probs[t * vocab + token as usize]))
                .product::<f64>();
        }
    }
    total
}

/// The nearest centroid to each frame: its number (the first of several as near), the squared
/// distance to it, and how much farther the second is.
#[must_use]
pub fn nearest(frames: &[f32], centroids: &[f32], dim: usize) -> Vec<(u32, f64, f64)> {
    let distance = |x: &[f32], c: &[f32]| -> f64 {
        x.iter().zip(c).map(|(x, c)| (f64::from(*x) - f64::from(*c)).powi(2)).sum()
    };
    let search = |x: &[f32]| {
        let (mut first, mut best, mut second) = (0, f64::INFINITY, f64::INFINITY);
        for (i, c) in centroids.chunks_exact(dim).enumerate() {
            let d = distance(x, c);
            if d < best {
                (first, second, best) = (i as u32, best, d);
            } else {
                second = second.min(d);
            }
        }
        (first, best, second - best)
    };
    frames.chunks_exact(dim).map(search).collect()
}
