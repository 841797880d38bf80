//! Initial weights from a seed: candle's CPU generator cannot be seeded.

use std::f64::consts::TAU;

/// Distribution a parameter starts from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Start {
    Constant(f64),
    Normal { deviation: f64 },
    Uniform { low: f64, high: f64 },
}

/// `n` values of `start` for the parameter `name`: a function of seed and name alone, so
/// that adding a parameter leaves the others as they were.
pub(super) fn values(start: Start, name: &str, seed: u64, n: usize) -> Vec<f32> {
    let mut random =
        SplitMix { state: fnv1a(name.as_bytes()) ^ seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) };
    match start {
        Start::Constant(value) => vec![value as f32; n],
        Start::Uniform { low, high } => {
            (0..n).map(|_| (low + (high - low) * random.unit()) as f32).collect()
        }
        Start::Normal { deviation } => (0..n)
            .map(|_| {
                // Box and Muller; 1 - u lies in (0, 1].
                let radius = (-2.0 * (1.0 - random.unit()).ln()).sqrt();
                (deviation * radius * (TAU * random.unit()).cos()) as f32
            })
            .collect(),
    }
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

/// The generator of Steele, Lea and Flood 2014.
struct SplitMix {
    state: u64,
}

impl SplitMix {
    fn unit(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_as_asked_and_names_differ() {
        let normal = values(Start::Normal { deviation: 0.02 }, "w", 1, 20_000);
        let variance = normal.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / 20_000.0;
        assert!((variance.sqrt() - 0.02).abs() < 5e-4);
        let uniform = values(Start::Uniform { low: -1.0, high: 3.0 }, "w", 1, 20_000);
        let mean = uniform.iter().map(|v| f64::from(*v)).sum::<f64>() / 20_000.0;
        assert!((mean - 1.0).abs() < 0.03);
        assert_ne!(normal, values(Start::Normal { deviation: 0.02 }, "v", 1, 20_000));
        assert_ne!(normal, values(Start::Normal { deviation: 0.02 }, "w", 2, 20_000));
    }
}
