//! Log-mel, MFCC and waveform normalisation against torchaudio, transformers and fairseq.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use asr::features::{
    Edges, FAIRSEQ_EPSILON, Features, LogMel, LogMelConfig, Mfcc, MfccConfig, SpectrumKind,
    TRANSFORMERS_EPSILON, WindowShape, zero_mean_unit_variance,
};
use safetensors::{Dtype, SafeTensors};

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn case_file(case: &str, file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(case).join(file)
}

/// All f32 tensors of a file; tensors of other types are skipped.
fn load(case: &str, file: &str) -> Tensors {
    let bytes = std::fs::read(case_file(case, file)).expect("golden file is in the repository");
    let tensors = SafeTensors::deserialize(&bytes).expect("golden file is valid");
    tensors
        .tensors()
        .into_iter()
        .filter(|(_, view)| view.dtype() == Dtype::F32)
        .map(|(name, view)| {
            let data = view
                .data()
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes(b.try_into().expect("chunks of four")))
                .collect();
            (name, (view.shape().to_vec(), data))
        })
        .collect()
}

/// Asserts `|got - want| <= absolute + relative * |want| + extra(index)`, prints and returns the largest difference.
fn compare(
    name: &str,
    got: &[f32],
    want: &[f32],
    (absolute, relative): (f32, f32),
    extra: impl Fn(usize) -> f32,
) -> f32 {
    assert_eq!(got.len(), want.len(), "{name}: number of values");
    let mut largest = (0.0f32, 0);
    for (index, (g, w)) in got.iter().zip(want).enumerate() {
        let difference = (g - w).abs();
        let allowed = absolute + relative * w.abs() + extra(index);
        assert!(difference <= allowed, "{name}[{index}]: got {g}, want {w} to {allowed}");
        if difference > largest.0 {
            largest = (difference, index);
        }
    }
    println!("{name}: largest difference {:e} at {}", largest.0, largest.1);
    largest.0
}

/// How far one f32 rounding of the strongest filter of a frame moves the logarithm of each filter's energy.
///
/// The reference transforms in f32, so it knows amplitudes only to this. Mostly the log floor hides it; with magnitudes
/// or samples scaled to 16-bit integers it does not: 100 dB below pure tones the reference is up to 0.025 from the
/// exact value, ten times its own tolerance.
fn rounding_of_reference(want: &[f32], n_bins: usize, spectrum: SpectrumKind) -> Vec<f32> {
    let exponent = if spectrum == SpectrumKind::Power { 0.5 } else { 1.0 };
    want.chunks_exact(n_bins)
        .flat_map(|row| {
            let peak = row.iter().copied().fold(f32::MIN, f32::max);
            row.iter().map(move |w| f32::EPSILON / 2.0 * ((peak - w) * exponent).exp())
        })
        .collect()
}

fn fbank80() -> LogMelConfig {
    LogMelConfig { edges: Edges::Snip, ..LogMelConfig::default() }
}

/// The configuration that the name of a golden tensor stands for; see the notes in `provenance.toml`.
fn fbank_config(option: &str) -> LogMelConfig {
    match option {
        "fbank80" => fbank80(),
        "fbank80_centred" => LogMelConfig { edges: Edges::Centred, ..fbank80() },
        "fbank80_hamming" => LogMelConfig { window: WindowShape::Hamming, ..fbank80() },
        "fbank80_magnitude" => LogMelConfig { spectrum: SpectrumKind::Magnitude, ..fbank80() },
        "fbank80_energy" => LogMelConfig { energy: true, ..fbank80() },
        "fbank80_highfreq_minus400" => LogMelConfig { high_hz: -400.0, ..fbank80() },
        "fbank80_int16_scale" => LogMelConfig { sample_scale: 32768.0, ..fbank80() },
        "fbank40_no_preemphasis" => LogMelConfig { n_mels: 40, preemphasis: 0.0, ..fbank80() },
        other => panic!("no configuration for golden option `{other}`"),
    }
}

#[test]
fn kaldi_features_agree_with_torchaudio() {
    let input = load("kaldi-features", "input.safetensors");
    let expected = load("kaldi-features", "expected.safetensors");
    assert_eq!(expected.len(), 72, "8 waveforms x 9 settings");
    for (name, (shape, want)) in &expected {
        let (clip, option) = name.split_once('.').expect("name is clip.option");
        let waveform = &input[&format!("{clip}.waveform")].1;
        let got: Features = if option == "mfcc39" {
            Mfcc::new(MfccConfig::default()).expect("valid").compute(waveform)
        } else {
            LogMel::new(fbank_config(option)).expect("valid").compute(waveform)
        };
        assert_eq!([got.n_frames, got.n_bins], shape[..], "{name}");
        let extra = match option {
            "fbank80_int16_scale" => rounding_of_reference(want, got.n_bins, SpectrumKind::Power),
            "fbank80_magnitude" => rounding_of_reference(want, got.n_bins, SpectrumKind::Magnitude),
            _ => vec![0.0; want.len()],
        };
        compare(name, &got.data, want, (2e-3, 1e-4), |index| extra[index]);
    }
}

#[test]
fn waveform_normalisation_agrees_with_transformers_and_fairseq() {
    let input = load("waveform-ops", "input.safetensors");
    let expected = load("waveform-ops", "expected.safetensors");
    let mut n_compared = 0;
    for (name, (_, waveform)) in input.iter().filter(|(name, _)| name.starts_with("norm_")) {
        for (tool, epsilon) in
            [("transformers", TRANSFORMERS_EPSILON), ("fairseq", FAIRSEQ_EPSILON)]
        {
            let mut got = waveform.clone();
            zero_mean_unit_variance(&mut got, epsilon);
            let key = format!("{name}.{tool}");
            compare(&key, &got, &expected[&key].1, (1e-5, 1e-4), |_| 0.0);
            n_compared += 1;
        }
    }
    assert_eq!(n_compared, 10);
}

/// Two tones and noise, 16640 samples: 0.3 sin 220 Hz + 0.1 sin 1333 Hz + 0.05 uniform, from splitmix64 seeded with
/// the FNV-1a hash of "wav".
fn tones_in_noise() -> Vec<f32> {
    let seed = b"wav".iter().fold(0xCBF2_9CE4_8422_2325u64, |hash, &b| {
        (hash ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01B3)
    });
    (0..16_640u64)
        .map(|n| {
            let mut z = seed.wrapping_add((n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            let uniform = ((z ^ (z >> 31)) >> 11) as f64 * 2f64.powi(-53);
            let turn = std::f64::consts::TAU * n as f64 / 16_000.0;
            (0.3 * (220.0 * turn).sin()
                + 0.1 * (1333.0 * turn + 0.5).sin()
                + 0.05 * (2.0 * uniform - 1.0)) as f32
        })
        .collect()
}

/// Numbers of `dump_mfcc_feature.py` (fairseq examples/hubert/simple_kmeans), printed to five decimals.
#[test]
fn mfcc_of_tones_in_noise_has_the_numbers_of_the_hubert_recipe() {
    let waveform = tones_in_noise();
    for (got, want) in waveform.iter().zip([0.04607335, 0.12657047, 0.11143795]) {
        assert!((got - want).abs() < 1e-7, "{got} {want}");
    }
    let features = Mfcc::new(MfccConfig::default()).expect("valid").compute(&waveform);
    assert_eq!((features.n_frames, features.n_bins), (102, 39));
    let printed: [(usize, usize, &[f32]); 5] = [
        (0, 0, &[1.09062, -17.9642, 1.13798, -0.19306, 23.25004]),
        (0, 13, &[-0.2286, 0.21515, 0.17434]),
        (0, 26, &[0.00698, -0.08344, -0.14423]),
        (50, 0, &[0.93494, -17.3581, -1.70642, 3.13468, 20.84159]),
        (50, 13, &[0.028, -0.08973, -0.58738]),
    ];
    for (frame, first, want) in printed {
        let row = features.frame(frame).expect("102 frames");
        let name = format!("frame {frame} from {first}");
        compare(&name, &row[first..first + want.len()], want, (1e-4, 0.0), |_| 0.0);
    }
    for (first, want) in [(0, 18.6237), (13, 0.83077), (26, 0.37834)] {
        let rows = features.data.chunks_exact(39);
        let sum: f64 =
            rows.flat_map(|row| &row[first..first + 13]).map(|x| f64::from(x.abs())).sum();
        compare(
            &format!("mean of |{first}..|"),
            &[(sum / (102.0 * 13.0)) as f32],
            &[want],
            (1e-4, 0.0),
            |_| 0.0,
        );
    }
}
