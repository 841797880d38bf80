//! Mel-frequency cepstral coefficients with deltas, Kaldi-compatible.

use serde::{Deserialize, Serialize};

use super::frames::Edges;
use super::{FeatureError, Features, LogMel, LogMelConfig};

/// Half the width of the delta regression window, in frames (torchaudio's `win_length = 5`).
const DELTA_REACH: usize = 2;

/// Settings of [`Mfcc`]; the defaults are the MFCC-39 that the first HuBERT iteration clusters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MfccConfig {
    /// Number of cepstral coefficients, C0 included, 1 to the number of filters.
    pub n_ceps: usize,
    /// Lifter L: coefficient i is multiplied by `1 + L/2 sin(pi i / L)`; 0 switches it off.
    pub cepstral_lifter: f64,
    /// Append first and second differences over time, tripling the bins.
    pub deltas: bool,
    /// The filter bank underneath; its `energy` must be off.
    pub mel: LogMelConfig,
}

impl Default for MfccConfig {
    fn default() -> Self {
        // fairseq examples/hubert/simple_kmeans/dump_mfcc_feature.py: torchaudio's defaults, use_energy = false
        Self {
            n_ceps: 13,
            cepstral_lifter: 22.0,
            deltas: true,
            mel: LogMelConfig { n_mels: 23, edges: Edges::Snip, ..LogMelConfig::default() },
        }
    }
}

impl MfccConfig {
    /// Checks every setting.
    ///
    /// # Errors
    /// [`FeatureError::Setting`] for the first one out of range.
    pub fn validate(&self) -> Result<(), FeatureError> {
        self.mel.validate()?;
        let fail = |field, found, expected| Err(FeatureError::Setting { field, found, expected });
        if self.n_ceps < 1 || self.n_ceps > self.mel.n_mels {
            return fail("n_ceps", self.n_ceps as f64, "1 to mel.n_mels");
        }
        if !(0.0..=1000.0).contains(&self.cepstral_lifter) {
            return fail("cepstral_lifter", self.cepstral_lifter, "0 to 1000");
        }
        if self.mel.energy {
            return fail("mel.energy", 1.0, "false: C0 is kept instead");
        }
        Ok(())
    }

    /// Values per frame.
    pub fn n_bins(&self) -> usize {
        if self.deltas { 3 * self.n_ceps } else { self.n_ceps }
    }
}

/// Computes MFCC; plan once, then use from any number of threads.
#[derive(Debug)]
pub struct Mfcc {
    config: MfccConfig,
    log_mel: LogMel,
    /// Liftered orthonormal DCT-II, `(n_ceps, n_mels)`.
    transform: Vec<f32>,
}

impl Mfcc {
    /// Plans the transform for `config`.
    ///
    /// # Errors
    /// As [`MfccConfig::validate`].
    pub fn new(config: MfccConfig) -> Result<Self, FeatureError> {
        config.validate()?;
        let log_mel = LogMel::new(config.mel.clone())?;
        let n_mels = config.mel.n_mels;
        let transform = (0..config.n_ceps)
            .flat_map(|i| {
                let lifter = lifter(i, config.cepstral_lifter);
                (0..n_mels).map(move |j| (dct(i, j, n_mels) * lifter) as f32)
            })
            .collect();
        Ok(Self { config, log_mel, transform })
    }

    /// The settings this was planned for.
    pub fn config(&self) -> &MfccConfig {
        &self.config
    }

    /// MFCC of one waveform.
    ///
    /// # Shapes
    /// - `waveform`: `(samples,)`, f32 at the configured rate
    /// - returns `(frames, bins)`, bins ordered coefficients, deltas, deltas of deltas
    ///
    /// No mean or variance normalisation. Deltas are the regression over five frames with the end frames repeated,
    /// `(x[t+1] - x[t-1] + 2 (x[t+2] - x[t-2])) / 10`. Agrees with `torchaudio.compliance.kaldi.mfcc` to 2e-3.
    ///
    /// # Example
    /// ```
    /// use asr::features::{Mfcc, MfccConfig};
    ///
    /// let mfcc = Mfcc::new(MfccConfig::default())?;
    /// let features = mfcc.compute(&[0.0; 16_640]);
    /// assert_eq!((features.n_frames, features.n_bins), (102, 39));
    /// # Ok::<(), asr::features::FeatureError>(())
    /// ```
    pub fn compute(&self, waveform: &[f32]) -> Features {
        let mel = self.log_mel.compute(waveform);
        let (n_ceps, n_mels, n_bins) = (self.config.n_ceps, mel.n_bins, self.config.n_bins());
        let mut data = vec![0.0; mel.n_frames * n_bins];
        for (row, mels) in data.chunks_exact_mut(n_bins).zip(mel.data.chunks_exact(n_mels)) {
            for (cepstrum, basis) in
                row[..n_ceps].iter_mut().zip(self.transform.chunks_exact(n_mels))
            {
                *cepstrum = basis.iter().zip(mels).map(|(a, b)| a * b).sum();
            }
        }
        let mut features = Features { data, n_frames: mel.n_frames, n_bins };
        if self.config.deltas {
            write_deltas(&mut features, 0, n_ceps, n_ceps);
            write_deltas(&mut features, n_ceps, 2 * n_ceps, n_ceps);
        }
        features
    }
}

/// Fills `width` bins from `to` with the deltas of the bins from `from`.
fn write_deltas(features: &mut Features, from: usize, to: usize, width: usize) {
    let Some(last) = features.n_frames.checked_sub(1) else {
        return;
    };
    // sum of 2 k^2 for k = 1..=reach: 10 for two frames either side
    let norm = (1..=DELTA_REACH).map(|k| 2 * k * k).sum::<usize>() as f32;
    for t in 0..features.n_frames {
        for bin in 0..width {
            let at = |frame: usize| features.data[frame.min(last) * features.n_bins + from + bin];
            let slope: f32 =
                (1..=DELTA_REACH).map(|k| k as f32 * (at(t + k) - at(t.saturating_sub(k)))).sum();
            features.data[t * features.n_bins + to + bin] = slope / norm;
        }
    }
}

/// Element `(i, j)` of the orthonormal DCT-II over `n` points.
fn dct(i: usize, j: usize, n: usize) -> f64 {
    let scale = if i == 0 { 1.0 / n as f64 } else { 2.0 / n as f64 };
    scale.sqrt() * (std::f64::consts::PI / n as f64 * (j as f64 + 0.5) * i as f64).cos()
}

fn lifter(i: usize, length: f64) -> f64 {
    if length == 0.0 {
        1.0
    } else {
        1.0 + length / 2.0 * (std::f64::consts::PI * i as f64 / length).sin()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dct_is_orthonormal() {
        for a in 0..23 {
            for b in 0..23 {
                let dot: f64 = (0..23).map(|j| dct(a, j, 23) * dct(b, j, 23)).sum();
                assert!((dot - if a == b { 1.0 } else { 0.0 }).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn lifter_by_hand() {
        assert_eq!(lifter(0, 22.0), 1.0);
        assert!((lifter(11, 22.0) - 12.0).abs() < 1e-12);
        assert_eq!(lifter(5, 0.0), 1.0);
    }

    #[test]
    fn deltas_by_hand() {
        // squares 0 1 4 9 16; at t = 2: (9 - 1 + 2 (16 - 0)) / 10 = 4; at t = 0: (1 - 0 + 2 (4 - 0)) / 10
        let mut features = Features { data: vec![0.0; 10], n_frames: 5, n_bins: 2 };
        for t in 0..5 {
            features.data[2 * t] = (t * t) as f32;
        }
        write_deltas(&mut features, 0, 1, 1);
        let deltas: Vec<f32> = (0..5).map(|t| features.data[2 * t + 1]).collect();
        assert_eq!(deltas, [0.9, 2.2, 4.0, 4.2, 3.1]);
        write_deltas(&mut Features { n_bins: 2, ..Features::default() }, 0, 1, 1);
    }

    #[test]
    fn settings_are_checked() {
        let reject = |change: fn(&mut MfccConfig)| {
            let mut config = MfccConfig::default();
            change(&mut config);
            Mfcc::new(config).is_err()
        };
        assert!(reject(|c| c.n_ceps = 0));
        assert!(reject(|c| c.n_ceps = 24));
        assert!(reject(|c| c.cepstral_lifter = f64::NAN));
        assert!(reject(|c| c.mel.energy = true));
        assert!(reject(|c| c.mel.n_mels = 0));
    }
}
