//! What a resampler owes: exact length, no dependence on how the stream is cut, a flat pass
//! band, silence where nothing was, and sound at the time it was.

use std::collections::BTreeMap;
use std::f64::consts::TAU;
use std::path::{Path, PathBuf};

use asr::audio::{Resampler, resample};
use proptest::prelude::*;
use safetensors::SafeTensors;

/// Seconds at either end that a filter may not get right.
const EDGE_S: f64 = 0.03;

fn tone(frequency_hz: f64, rate_hz: u32, n_samples: usize) -> Vec<f32> {
    (0..n_samples)
        .map(|n| (0.5 * (TAU * frequency_hz * n as f64 / f64::from(rate_hz)).sin()) as f32)
        .collect()
}

/// The samples that are not too close to an end.
fn inner(samples: &[f32], rate_hz: u32) -> &[f32] {
    let edge = (EDGE_S * f64::from(rate_hz)) as usize;
    &samples[edge..samples.len() - edge]
}

fn power(samples: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = samples.fold((0.0, 0), |(sum, n), x| (sum + x * x, n + 1));
    sum / f64::from(n)
}

fn db(ratio: f64) -> f64 {
    10.0 * (ratio + 1e-30).log10()
}

/// Power of `got - wanted` relative to `wanted`, in dB, edges left out.
fn error_db(got: &[f32], wanted: &[f32], rate_hz: u32) -> f64 {
    assert_eq!(got.len(), wanted.len());
    let (got, wanted) = (inner(got, rate_hz), inner(wanted, rate_hz));
    let difference = got.iter().zip(wanted);
    let error = power(difference.map(|(&g, &w)| f64::from(g) - f64::from(w)));
    db(error / power(wanted.iter().map(|&w| f64::from(w))))
}

/// Level of the component at `frequency_hz`, relative to a tone of amplitude 0.5, in dB.
fn gain_db(samples: &[f32], frequency_hz: f64, rate_hz: u32) -> f64 {
    let samples = inner(samples, rate_hz);
    let (mut re, mut im) = (0.0, 0.0);
    for (n, &sample) in samples.iter().enumerate() {
        // A Hann window keeps the other end of the spectrum out.
        let window = 1.0 - (TAU * (n as f64 + 0.5) / samples.len() as f64).cos();
        let phase = TAU * frequency_hz * n as f64 / f64::from(rate_hz);
        re += f64::from(sample) * window * phase.cos();
        im += f64::from(sample) * window * phase.sin();
    }
    let amplitude = 2.0 * re.hypot(im) / samples.len() as f64;
    2.0 * db(amplitude / 0.5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_length_is_the_ceiling_of_the_ratio(
        n in 0_usize..20_000,
        from_hz in 1_000_u32..200_000,
        to_hz in prop_oneof![Just(16_000_u32), 1_000_u32..50_000],
    ) {
        let expected = (n as u64 * u64::from(to_hz)).div_ceil(u64::from(from_hz));
        let resampled = resample(&vec![0.1; n], from_hz, to_hz).expect("rates in range");
        prop_assert_eq!(resampled.len() as u64, expected);
    }

    #[test]
    fn the_cut_of_the_stream_does_not_matter(
        samples in prop::collection::vec(-1.0_f32..1.0, 0..30_000),
        cuts in prop::collection::vec(0_usize..4_000, 1..40),
        from_hz in prop::sample::select(vec![8_000_u32, 16_000, 22_050, 44_100, 48_000, 11_111]),
    ) {
        let mut resampler = Resampler::new(from_hz, 16_000).expect("rates in range");
        let mut streamed = Vec::new();
        let mut rest = samples.as_slice();
        for &cut in cuts.iter().cycle() {
            let (piece, after) = rest.split_at(cut.max(1).min(rest.len()));
            streamed.extend(resampler.push(piece));
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        streamed.extend(resampler.finish());
        prop_assert_eq!(streamed, resample(&samples, from_hz, 16_000).expect("rates in range"));
    }
}

#[test]
fn extreme_rates_keep_their_length() {
    let cases = [
        (1_000, 768_000),
        (768_000, 1_000),
        (767_999, 16_000),
        (16_000, 767_999),
        (44_101, 44_100),
        (1_001, 1_000),
    ];
    for (from_hz, to_hz) in cases {
        for n in [1, 1_000, 50_001] {
            let expected = (n as u64 * u64::from(to_hz)).div_ceil(u64::from(from_hz));
            let resampled = resample(&vec![0.5; n], from_hz, to_hz).expect("rates in range");
            assert_eq!(resampled.len() as u64, expected, "{n} {from_hz} -> {to_hz}");
            assert!(resampled.iter().all(|sample| sample.is_finite()));
        }
    }
}

#[test]
fn the_pass_band_is_flat_and_in_time() {
    for from_hz in [8_000, 11_025, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000] {
        let top_hz = 0.96 * f64::from(from_hz.min(16_000)) / 2.0;
        for step in 1..=12 {
            let frequency_hz = top_hz * f64::from(step) / 12.0;
            let input = tone(frequency_hz, from_hz, from_hz as usize / 2);
            let output = resample(&input, from_hz, 16_000).expect("rates in range");
            let gain = gain_db(&output, frequency_hz, 16_000);
            let ideal = tone(frequency_hz, 16_000, output.len());
            let error = error_db(&output, &ideal, 16_000);
            // The last twelfth is where the filter begins to fall.
            let (gain_bound, error_bound) = if step < 12 { (0.001, -90.0) } else { (0.1, -38.0) };
            assert!(
                gain.abs() < gain_bound && error < error_bound,
                "{from_hz} Hz: {frequency_hz:.0} Hz off by {gain:.4} dB, error {error:.1} dB"
            );
        }
    }
}

#[test]
fn nothing_folds_down() {
    for from_hz in [24_000, 32_000, 44_100, 48_000, 96_000, 192_000] {
        let nyquist_hz = f64::from(from_hz) / 2.0;
        for step in 0..12 {
            let share = f64::from(step) / 12.0;
            let frequency_hz = 8_200.0 + (nyquist_hz - 8_400.0) * share;
            let input = tone(frequency_hz, from_hz, from_hz as usize / 2);
            let output = resample(&input, from_hz, 16_000).expect("rates in range");
            let residue = inner(&output, 16_000).iter().map(|&sample| f64::from(sample));
            let residue = db(power(residue) / 0.125);
            assert!(residue < -120.0, "{from_hz} Hz: {frequency_hz:.0} Hz leaves {residue:.1} dB");
        }
    }
}

#[test]
fn nothing_is_mirrored_up() {
    for from_hz in [8_000, 11_025, 12_000] {
        let nyquist_hz = f64::from(from_hz) / 2.0;
        for step in 1..=12 {
            let frequency_hz = 0.9 * nyquist_hz * f64::from(step) / 12.0;
            let input = tone(frequency_hz, from_hz, from_hz as usize / 2);
            let output = resample(&input, from_hz, 16_000).expect("rates in range");
            let image_hz = f64::from(from_hz) - frequency_hz;
            if image_hz < 8_000.0 {
                let image = gain_db(&output, image_hz, 16_000);
                assert!(
                    image < -110.0,
                    "{from_hz} Hz: image of {frequency_hz:.0} Hz at {image:.1} dB"
                );
            }
        }
    }
}

#[test]
fn a_chirp_stays_a_chirp() {
    // 100 Hz to 7 kHz in two seconds.
    let chirp = |rate_hz: u32| -> Vec<f32> {
        (0..2 * rate_hz)
            .map(|n| {
                let t = f64::from(n) / f64::from(rate_hz);
                (0.5 * (TAU * (100.0 * t + 1_725.0 * t * t)).sin()) as f32
            })
            .collect()
    };
    for from_hz in [22_050, 44_100, 48_000, 96_000] {
        let output = resample(&chirp(from_hz), from_hz, 16_000).expect("rates in range");
        let error = error_db(&output, &chirp(16_000), 16_000);
        assert!(error < -80.0, "{from_hz} Hz: {error:.1} dB");
    }
}

fn golden(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/resampling").join(file)
}

type Bounds = BTreeMap<String, serde_json::Value>;

fn bounds() -> Bounds {
    let text = std::fs::read_to_string(golden("bounds.json")).expect("golden file");
    serde_json::from_str(&text).expect("golden file is JSON")
}

/// The rates in a key such as `44100_16000.chirp`, and the rest.
fn split_key(key: &str) -> (u32, u32, &str) {
    let (rates, signal) = key.split_once('.').expect("rates and signal");
    let (from_hz, to_hz) = rates.split_once('_').expect("two rates");
    let hz = |text: &str| text.parse().expect("a rate");
    (hz(from_hz), hz(to_hz), signal)
}

#[test]
fn tones_are_within_the_bounds_of_torchaudio() {
    let mut n_tones = 0;
    for (key, bound) in bounds() {
        let (from_hz, to_hz, signal) = split_key(&key);
        let Some((kind, frequency)) = signal.split_once('_') else {
            continue;
        };
        let frequency_hz: f64 = frequency.parse().expect("a frequency");
        let n_out = bound["length"].as_u64().expect("a length") as usize;
        let n_in = n_out * from_hz as usize / to_hz as usize;
        let output =
            resample(&tone(frequency_hz, from_hz, n_in), from_hz, to_hz).expect("rates in range");
        assert_eq!(output.len(), n_out, "{key}");
        let error = if kind == "tone" {
            error_db(&output, &tone(frequency_hz, to_hz, n_out), to_hz)
        } else {
            let residue = inner(&output, to_hz).iter().map(|&sample| f64::from(sample));
            db(power(residue) / 0.125)
        };
        let bound_db = bound["bound_db"].as_f64().expect("a bound");
        assert!(error <= bound_db, "{key}: {error:.1} dB, bound {bound_db} dB");
        println!("{key}: {error:.1} dB, bound {bound_db} dB");
        n_tones += 1;
    }
    assert_eq!(n_tones, 22);
}

/// Mean power per band of 500 Hz in dB, as `scipy.signal.welch(y, 16000, nperseg=512)`.
fn band_powers(samples: &[f32]) -> Vec<f64> {
    const N: usize = 512;
    let window: Vec<f64> = (0..N).map(|n| 0.5 - 0.5 * (TAU * n as f64 / N as f64).cos()).collect();
    let norm = 16_000.0 * window.iter().map(|w| w * w).sum::<f64>();
    let twiddle: Vec<(f64, f64)> = (0..N).map(|n| (TAU * n as f64 / N as f64).sin_cos()).collect();
    let mut density = vec![0.0; N / 2 + 1];
    let starts: Vec<usize> = (0..=samples.len() - N).step_by(N / 2).collect();
    for &start in &starts {
        let segment = &samples[start..start + N];
        let mean = segment.iter().map(|&x| f64::from(x)).sum::<f64>() / N as f64;
        for (bin, density) in density.iter_mut().enumerate() {
            let (mut re, mut im) = (0.0, 0.0);
            for (n, (&x, w)) in segment.iter().zip(&window).enumerate() {
                let (sin, cos) = twiddle[bin * n % N];
                re += (f64::from(x) - mean) * w * cos;
                im -= (f64::from(x) - mean) * w * sin;
            }
            let one_sided = if bin == 0 || bin == N / 2 { 1.0 } else { 2.0 };
            *density += one_sided * (re * re + im * im) / norm / starts.len() as f64;
        }
    }
    density[..N / 2]
        .chunks(N / 32)
        .map(|band| 10.0 * (band.iter().sum::<f64>() / band.len() as f64 + 1e-14).log10())
        .collect()
}

#[test]
fn chirps_and_voices_keep_their_power_per_band() {
    let bytes = std::fs::read(golden("input.safetensors")).expect("golden file");
    let inputs = SafeTensors::deserialize(&bytes).expect("golden file is valid");
    let bounds = bounds();
    let mut n_bands = 0;
    for (key, input) in inputs.tensors() {
        let (from_hz, to_hz, _) = split_key(&key);
        let input: Vec<f32> = input
            .data()
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes(bytes.try_into().expect("four bytes")))
            .collect();
        let output = resample(&input, from_hz, to_hz).expect("rates in range");
        let bound = &bounds[&key];
        assert_eq!(output.len() as u64, bound["length"].as_u64().expect("a length"));
        let reference =
            |name: &str, band: usize| bound[name][band].as_f64().expect("a power per band");
        let n_checked = bound["bands_checked"].as_u64().expect("a number") as usize;
        let allowed = bound["bound_db_per_band"].as_f64().expect("a bound");
        for (band, got) in band_powers(&output).into_iter().enumerate().take(n_checked) {
            let torchaudio = reference("band_power_db_torchaudio", band);
            let soxr = reference("band_power_db_soxr_vhq", band);
            let wanted = (torchaudio + soxr) / 2.0;
            if wanted > -90.0 {
                assert!(
                    (got - wanted).abs() <= allowed,
                    "{key}, band {band}: {got:.2} dB, wanted {wanted:.2} dB"
                );
                n_bands += 1;
            }
        }
    }
    assert!(n_bands > 70, "only {n_bands} bands were loud enough to check");
}
