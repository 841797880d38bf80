//! The log-mel of one waveform written out in f64 with a plain DFT: the oracle for the fast path.

use super::log_mel::LOG_FLOOR;
use super::mel::{mel_of_hz, warp_hz};
use super::{Edges, LogMelConfig, SpectrumKind, WindowShape};

/// Rows of log-mel values; only whole windows (`Edges::Snip`), no energy.
pub(super) fn log_mel(config: &LogMelConfig, waveform: &[f32], warp: f64) -> Vec<Vec<f64>> {
    assert_eq!(config.edges, Edges::Snip);
    let (window, shift) = (config.window_samples(), config.shift_samples());
    let n_fft = window.next_power_of_two();
    let rate = f64::from(config.sample_rate_hz);
    let mut rows = Vec::new();
    let mut start = 0;
    while start + window <= waveform.len() {
        let raw: Vec<f64> = waveform[start..start + window]
            .iter()
            .map(|&x| f64::from(x) * f64::from(config.sample_scale))
            .collect();
        let mean = if config.remove_dc { raw.iter().sum::<f64>() / window as f64 } else { 0.0 };
        let frame: Vec<f64> = (0..window)
            .map(|n| {
                let previous = raw[n.max(1) - 1] - mean;
                let emphasised = raw[n] - mean - f64::from(config.preemphasis) * previous;
                emphasised * taper(config.window, n, window)
            })
            .collect();
        let spectrum: Vec<f64> = (0..n_fft / 2)
            .map(|k| {
                let (mut re, mut im) = (0.0, 0.0);
                for (n, x) in frame.iter().enumerate() {
                    let angle = std::f64::consts::TAU * (k * n % n_fft) as f64 / n_fft as f64;
                    re += x * angle.cos();
                    im -= x * angle.sin();
                }
                let power = re * re + im * im;
                if config.spectrum == SpectrumKind::Power { power } else { power.sqrt() }
            })
            .collect();
        let low = mel_of_hz(config.low_hz);
        let step = (mel_of_hz(config.effective_high_hz()) - low) / (config.n_mels + 1) as f64;
        let edge = |i: usize| {
            let hz = 700.0 * (((low + step * i as f64) / 1127.0).exp() - 1.0);
            mel_of_hz(warp_hz(hz, warp, rate / 2.0))
        };
        rows.push(
            (0..config.n_mels)
                .map(|m| {
                    let sum: f64 = spectrum
                        .iter()
                        .enumerate()
                        .map(|(k, p)| {
                            let mel = mel_of_hz(rate * k as f64 / n_fft as f64);
                            let rising = (mel - edge(m)) / (edge(m + 1) - edge(m));
                            let falling = (edge(m + 2) - mel) / (edge(m + 2) - edge(m + 1));
                            rising.min(falling).max(0.0) * p
                        })
                        .sum();
                    sum.max(f64::from(LOG_FLOOR)).ln()
                })
                .collect(),
        );
        start += shift;
    }
    rows
}

fn taper(window: WindowShape, n: usize, length: usize) -> f64 {
    let cosine = (std::f64::consts::TAU * n as f64 / (length - 1) as f64).cos();
    match window {
        WindowShape::Povey => (0.5 - 0.5 * cosine).max(0.0).powf(0.85),
        WindowShape::Hamming => 0.54 - 0.46 * cosine,
        WindowShape::Hann => 0.5 - 0.5 * cosine,
        WindowShape::Rectangular => 1.0,
    }
}
