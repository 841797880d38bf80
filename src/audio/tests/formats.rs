//! The same sentence out of every container and codec.

use super::*;

/// What a fixture of the sentence decodes to.
///
/// The SILK mode of Opus is two thirds of a sample early, in libopus too.
struct Case {
    file: &'static str,
    container: &'static str,
    codec: &'static str,
    /// Samples more than the sentence has: padding that the file does not declare.
    padding: usize,
    /// Samples that come before the sentence: a delay that the file does not declare.
    delay: isize,
    /// Least signal-to-noise ratio in dB; none for lossless.
    snr_db: Option<f64>,
}

const fn lossless(file: &'static str, container: &'static str, codec: &'static str) -> Case {
    Case { file, container, codec, padding: 0, delay: 0, snr_db: None }
}

const fn lossy(
    file: &'static str,
    container: &'static str,
    codec: &'static str,
    snr_db: f64,
) -> Case {
    Case { snr_db: Some(snr_db), ..lossless(file, container, codec) }
}

const CASES: &[Case] = &[
    lossless("sentence.flac", "flac", "flac"),
    lossless("sentence-flac.ogg", "ogg", "flac"),
    lossless("sentence-flac.mka", "matroska", "flac"),
    lossless("sentence-alac.m4a", "isomp4", "alac"),
    lossless("sentence-alac.caf", "caf", "alac"),
    lossy("sentence-u8.wav", "wave", "pcm_u8", 20.0),
    lossy("sentence-mulaw.wav", "wave", "pcm_mulaw", 25.0),
    lossy("sentence-alaw.wav", "wave", "pcm_alaw", 25.0),
    lossy("sentence-mulaw.aiff", "aiff", "pcm_mulaw", 25.0),
    lossy("sentence.mp3", "mp3", "mp3", 10.0),
    lossy("sentence.ogg", "ogg", "vorbis", 10.0),
    lossy("sentence.opus", "ogg", "opus", 5.0),
    lossy("sentence-hybrid.opus", "ogg", "opus", 5.0),
    lossy("sentence-celt.opus", "ogg", "opus", 10.0),
    lossy("sentence.webm", "matroska", "opus", 5.0),
    lossy("sentence-live.webm", "matroska", "opus", 5.0),
    Case {
        // The length in the edit list is in milliseconds, here rounded up.
        padding: 9,
        ..lossy("sentence.m4a", "isomp4", "aac", 10.0)
    },
    Case { padding: 9, ..lossy("sentence-faststart.m4a", "isomp4", "aac", 10.0) },
    Case { padding: 25, ..lossy("sentence-vorbis.webm", "matroska", "vorbis", 10.0) },
    // The rest have no place to declare the delay of the encoder, or did not use it.
    Case {
        padding: 1_177,
        delay: 1_024,
        ..lossy("sentence-fragmented.m4a", "isomp4", "aac", 10.0)
    },
    Case { padding: 1_177, delay: 1_024, ..lossy("sentence-aac.mka", "matroska", "aac", 10.0) },
    Case { padding: 1_177, delay: 1_024, ..lossy("sentence.aac", "aac", "aac", 10.0) },
    Case { padding: 1_561, delay: 1_105, ..lossy("sentence-no-xing.mp3", "mp3", "mp3", 10.0) },
    Case { padding: 409, delay: 481, ..lossy("sentence.mp2", "mp2", "mp2", 10.0) },
    Case { padding: 409, delay: 104, ..lossy("sentence-opus.caf", "caf", "opus", 5.0) },
    Case { padding: 1_105, ..lossy("sentence-adpcm-ms.wav", "wave", "adpcm_ms", 10.0) },
    Case { padding: 1_135, ..lossy("sentence-adpcm-ima.wav", "wave", "adpcm_ima_wav", 10.0) },
];

#[test]
fn every_format_gives_the_same_sentence() {
    let wanted = sentence();
    for case in CASES {
        let audio = decode(case.file);
        let name = case.file;
        assert_eq!(audio.source.container, case.container, "{name}");
        assert_eq!(audio.source.codec, case.codec, "{name}");
        assert_eq!(audio.source.n_channels, 1, "{name}");
        assert_eq!(audio.damage, [], "{name}");
        let n = wanted.len() + case.padding;
        assert_eq!(audio.samples.len(), n, "{name}: number of samples");
        assert_eq!(audio.source.duration_s, Some(n as f64 / 16_000.0), "{name}");
        let Some(least) = case.snr_db else {
            assert!(audio.samples == wanted, "{name}");
            continue;
        };
        let lag = best_lag(&audio.samples[case.delay as usize..], &wanted);
        assert!(lag.abs() <= 1, "{name}: {lag} samples late");
        let snr = snr_db(&audio.samples, &wanted, case.delay + lag);
        assert!(snr > least, "{name}: {snr:.1} dB");
    }
}

/// MP4 rounds lengths to milliseconds; these were rounded down.
#[test]
fn edit_lists_cut_both_ends() {
    let wanted = sentence();
    for (name, codec) in [("sentence-opus.mp4", "opus"), ("sentence-mp3.mp4", "mp3")] {
        let audio = decode(name);
        assert_eq!(audio.source.codec, codec);
        assert_eq!(audio.samples.len(), 11_104, "{name}");
        assert!(best_lag(&audio.samples, &wanted).abs() <= 1, "{name}");
    }
}

#[test]
fn every_fixture_is_covered_and_decodes() {
    let names = fixture_names();
    for case in CASES {
        assert!(names.iter().any(|name| name == case.file), "{}", case.file);
    }
    for name in names {
        let audio = decode(&name);
        assert_eq!(audio.sample_rate_hz, 16_000);
        assert_eq!(audio.damage, [], "{name}");
        assert!(audio.samples.iter().all(|sample| sample.abs() <= 1.0), "{name}");
        let power: f32 = audio.samples.iter().map(|sample| sample * sample).sum();
        assert!(power > 0.1, "{name} is silent");
    }
}

#[test]
fn stereo_is_mixed_or_taken_apart() {
    let wanted = sentence();
    // An Opus decoder with one channel mixes before the noise that CELT puts into collapsed
    // bands, so that what it gives is not quite the mean of two.
    for (name, least, least_mixed) in
        [("sentence-stereo-44k.mp3", 15.0, 100.0), ("sentence-stereo.opus", 10.0, 35.0)]
    {
        let channel = |channel| {
            let options = DecodeOptions { channel, ..DecodeOptions::default() };
            let audio = decode_path(&fixture(name), &options).expect("decodes");
            assert_eq!(audio.source.n_channels, 2, "{name}");
            audio.samples
        };
        let (left, right, mixed) = (channel(Some(0)), channel(Some(1)), channel(None));
        assert!(snr_db(&left, &wanted, 0) > least, "{name}: left");
        let soft: Vec<f32> = wanted.iter().map(|sample| 0.5 * sample).collect();
        assert!(snr_db(&right, &soft, 48) > least, "{name}: right, 3 ms later");
        let mean: Vec<f32> = left.iter().zip(&right).map(|(l, r)| (l + r) / 2.0).collect();
        let snr = snr_db(&mixed, &mean, 0);
        assert!(snr > least_mixed, "{name}: {snr:.1} dB from the mean");
        let missing = DecodeOptions { channel: Some(2), ..DecodeOptions::default() };
        assert!(
            matches!(
                decode_path(&fixture(name), &missing),
                Err(AudioError::Channel { asked: 2, found: 2, .. })
            ),
            "{name}"
        );
    }
}

#[test]
fn eight_channels_at_192_khz() {
    let name = "eight-channels-192k.flac";
    let mixed = decode(name);
    assert_eq!(mixed.source.n_channels, 8);
    assert_eq!(mixed.source.sample_rate_hz, 192_000);
    assert_eq!(mixed.samples.len(), 480);
    let first = DecodeOptions { channel: Some(0), ..DecodeOptions::default() };
    let first = decode_path(&fixture(name), &first).expect("decodes");
    // Each channel is half as loud as the one before, but for rounding to 16 bits.
    let mean: Vec<f32> =
        first.samples.iter().map(|sample| sample * (2.0 - 1.0 / 128.0) / 8.0).collect();
    assert!(snr_db(&mixed.samples, &mean, 0) > 30.0);
}

/// The first quarter second at 48 kHz, sample by sample. SILK is integer arithmetic and
/// agrees exactly; CELT here is the fixed-point build and the reference the floating-point
/// one, both rounded to 16 bits.
#[test]
fn opus_agrees_with_libopus() {
    let at_48k =
        |channel| DecodeOptions { sample_rate_hz: 48_000, channel, ..DecodeOptions::default() };
    let cases = [
        ("sentence", 0.0, 1),
        ("sentence-hybrid", 2.0, 1),
        ("sentence-celt", 8.0, 1),
        ("sentence-stereo", 8.0, 2),
    ];
    for (name, tolerance, n_channels) in cases {
        for channel in 0..n_channels {
            let options = at_48k(Some(channel));
            let decode =
                |file: String| decode_path(&fixture(&file), &options).expect("decodes").samples;
            let wanted = decode(format!("libopus-{name}.flac"));
            let got = decode(format!("{name}.opus"));
            assert_eq!(wanted.len(), 12_000);
            let worst =
                got.iter().zip(&wanted).map(|(g, w)| (g - w).abs() * 32_768.0).fold(0.0, f32::max);
            assert!(worst <= tolerance, "{name}, channel {channel}: off by {worst}");
        }
    }
}

#[test]
fn any_target_rate_gives_the_same_time() {
    for name in ["sentence.flac", "sentence.opus", "sentence-stereo.opus"] {
        for sample_rate_hz in [8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000] {
            let options = DecodeOptions { sample_rate_hz, ..DecodeOptions::default() };
            let audio = decode_path(&fixture(name), &options).expect("decodes");
            // The stereo sentence went through 44.1 kHz, which made it a little longer.
            let exact_s =
                if name.contains("stereo") { 33_334.0 / 48_000.0 } else { 11_111.0 / 16_000.0 };
            let expected = (exact_s * f64::from(sample_rate_hz) - 1e-6).ceil();
            assert_eq!(audio.samples.len() as f64, expected, "{name} {sample_rate_hz}");
        }
    }
}
