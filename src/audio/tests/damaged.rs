//! Inputs with something wrong that can still be decoded: the sound parts, in their place,
//! and a word about the rest.

use super::pcm::wav;
use super::*;
use crate::audio::Damage;

/// How much of the end of each format a cut may cost, in seconds: a packet, or an Ogg page.
const CUTS: &[(&str, f64)] = &[
    ("sentence.mp3", 0.08),
    ("sentence-stereo-44k.mp3", 0.08),
    ("sentence.aac", 0.13),
    ("sentence-faststart.m4a", 0.13),
    ("sentence-fragmented.m4a", 0.13),
    ("sentence.opus", 0.25),
    ("sentence.webm", 0.05),
    ("sentence-flac.mka", 0.30),
    ("sentence-u8.wav", 0.001),
    ("sentence-mulaw.aiff", 0.001),
];

#[test]
fn a_cut_file_gives_what_came_before_the_cut() {
    for &(name, cost_s) in CUTS {
        let whole = decode(name).samples;
        let bytes = fixture_bytes(name);
        let cut = bytes.len() * 7 / 10;
        let audio =
            decode_memory(bytes[..cut].to_vec()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let n = audio.samples.len();
        let got_s = n as f64 / 16_000.0;
        let expected_s = 0.7 * whole.len() as f64 / 16_000.0;
        // Bytes are not spread evenly over time; a third either way is still a check.
        assert!(
            got_s > 0.67 * expected_s - cost_s && n < whole.len(),
            "{name}: {got_s:.3} s of about {expected_s:.3} s"
        );
        // The last samples before the cut lack what would have followed.
        let sure = n.saturating_sub(1_600);
        let snr = snr_db(&audio.samples[..sure], &whole[..sure], 0);
        assert!(snr > 60.0, "{name}: {snr:.1} dB");
        match audio.damage.as_slice() {
            [.., Damage::Truncated { end_s, .. }] => {
                assert!((end_s - got_s).abs() < 0.1, "{name}: {end_s} {got_s}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

/// Overwrites a tenth of the bytes in the middle.
fn scar(mut bytes: Vec<u8>) -> Vec<u8> {
    let (start, n) = (bytes.len() / 2, bytes.len() / 10);
    bytes[start..start + n].fill(0x55);
    bytes
}

#[test]
fn a_scar_in_the_middle_leaves_the_rest_in_place() {
    // What is behind the scar comes back in its place where the format has time stamps or a
    // table of its packets, a little off where packets are only counted.
    let cases = [
        ("sentence.flac", 0),
        ("sentence-alac.m4a", 0),
        ("sentence.m4a", 0),
        ("sentence.mp3", 1_152),
        ("sentence.aac", 2_048),
    ];
    for (name, off) in cases {
        let whole = decode(name).samples;
        let audio = decode_memory(scar(fixture_bytes(name)))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let n = audio.samples.len();
        println!("{name}: {n} of {}, {:?}", whole.len(), audio.damage);
        assert!(n.abs_diff(whole.len()) <= off, "{name}: {n} of {}", whole.len());
        let quarter = whole.len() / 4;
        let snr = snr_db(&audio.samples[..quarter], &whole[..quarter], 0);
        assert!(snr > 60.0, "{name}: {snr:.1} dB before the scar");
        if off == 0 {
            let last = whole.len() * 7 / 8;
            let snr = snr_db(&audio.samples[last..], &whole[last..], 0);
            assert!(snr > 20.0, "{name}: {snr:.1} dB after the scar");
        }
    }
}

/// Where the last page follows the loss nothing tells how much it was but the total.
#[test]
fn an_ogg_file_without_its_second_half_is_short() {
    let audio = decode_memory(scar(fixture_bytes("sentence.opus"))).expect("decodes");
    match audio.damage.as_slice() {
        [Damage::Truncated { end_s, declared_s: Some(declared_s) }] => {
            assert!((declared_s - 11_111.0 / 16_000.0).abs() < 1e-3, "{declared_s}");
            assert!((end_s - audio.samples.len() as f64 / 16_000.0).abs() < 1e-3);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_scarred_matroska_file_gives_what_came_before() {
    for name in ["sentence-flac.mka", "sentence.webm"] {
        let whole = decode(name).samples;
        let audio = decode_memory(scar(fixture_bytes(name))).expect("decodes");
        let n = audio.samples.len();
        assert!(n > whole.len() / 3, "{name}: {n} samples");
        let snr = snr_db(&audio.samples[..n - 512], &whole, 0);
        assert!(snr > 60.0, "{name}: {snr:.1} dB");
        assert_ne!(audio.damage, [], "{name}");
    }
}

#[test]
fn joined_files_are_one() {
    let (mp3, flac) = (fixture_bytes("sentence.mp3"), decode("sentence.mp3").samples);
    // The second file begins with a frame of its own and ends with its padding.
    let twice = decode_memory([mp3.clone(), mp3].concat()).expect("decodes");
    let lag = best_lag(&twice.samples[flac.len() + 1_233..], &flac);
    assert!(twice.samples.len() > 2 * flac.len(), "{}", twice.samples.len());
    assert!(lag.abs() <= 100);
    assert!(snr_db(&twice.samples[..flac.len()], &flac, 0) > 60.0);
    assert_eq!(twice.damage, []);
}

#[test]
fn joined_mp3_files_may_differ_in_channels_and_rate() {
    let (mono, stereo) = (fixture_bytes("sentence.mp3"), fixture_bytes("sentence-stereo-44k.mp3"));
    let both = decode_memory([mono, stereo].concat()).expect("decodes");
    assert!(both.samples.len() > 2 * SENTENCE_SAMPLES, "{}", both.samples.len());
    assert_eq!(both.damage, []);
}

#[test]
fn chained_ogg_is_one() {
    for (name, n) in
        [("sentence.opus", 11_111), ("sentence.ogg", 11_111), ("sentence-flac.ogg", 11_111)]
    {
        let bytes = fixture_bytes(name);
        let once = decode(name).samples;
        assert_eq!(once.len(), n);
        let twice = decode_memory([bytes.clone(), bytes].concat()).expect("decodes");
        assert_eq!(twice.damage, [], "{name}");
        assert!(twice.samples.len().abs_diff(2 * n) <= 1, "{name}: {}", twice.samples.len());
        assert!(snr_db(&twice.samples[..n], &once, 0) > 30.0, "{name}");
        assert!(snr_db(&twice.samples[n..], &once, 0) > 15.0, "{name}");
    }
}

#[test]
fn chained_ogg_may_change_the_codec() {
    let bytes = [fixture_bytes("sentence-stereo.opus"), fixture_bytes("sentence.ogg")].concat();
    let audio = decode_memory(bytes).expect("decodes");
    assert_eq!(audio.samples.len(), 11_112 + 11_111);
    assert_eq!(audio.damage, []);
    assert!(snr_db(&audio.samples[11_112..], &decode("sentence.ogg").samples, 0) > 60.0);
}

#[test]
fn an_ogg_page_lost_is_a_gap() {
    let bytes = fixture_bytes("sentence.opus");
    let starts: Vec<usize> =
        (0..bytes.len() - 4).filter(|&at| &bytes[at..at + 4] == b"OggS").collect();
    assert!(starts.len() >= 6, "{} pages", starts.len());
    let without = [&bytes[..starts[3]], &bytes[starts[4]..]].concat();
    let audio = decode_memory(without).expect("decodes");
    assert!(audio.samples.len().abs_diff(SENTENCE_SAMPLES) < 1_600);
    match audio.damage.as_slice() {
        [Damage::Gap { duration_s, .. }] => assert!((duration_s - 0.2).abs() < 0.05),
        other => panic!("{other:?}"),
    }
}

fn float_wav(samples: &[f32]) -> Vec<u8> {
    let data: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    wav(3, 32, 1, 16_000, &data)
}

#[test]
fn samples_that_are_not_numbers_become_silence() {
    let bytes = float_wav(&[0.5, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.25]);
    let audio = decode_memory(bytes).expect("decodes");
    assert_eq!(audio.samples, [0.5, 0.0, 0.0, 0.0, -0.25]);
    let damage = Damage::NotFinite { start_s: 1.0 / 16_000.0, n_samples: 3 };
    assert_eq!(audio.damage, [damage]);
    let nothing = decode_memory(float_wav(&[f32::NAN, f32::INFINITY]));
    assert!(matches!(nothing, Err(AudioError::NotFinite { .. })));
}

#[test]
fn samples_beyond_full_scale_are_clipped() {
    let audio = decode_memory(float_wav(&[0.5, 1.25, -3.0, 1e38])).expect("decodes");
    assert_eq!(audio.samples, [0.5, 1.0, -1.0, 1.0]);
    let damage = Damage::Clipped { start_s: 2.0 / 16_000.0, n_samples: 2, peak: 1e38 };
    assert_eq!(audio.damage, [damage]);
    // Also where the resampler is in between.
    let loudest = [f32::MAX, -f32::MAX].map(f32::to_le_bytes).concat().repeat(1_000);
    let audio = decode_memory(wav(3, 32, 1, 48_000, &loudest)).expect("decodes");
    assert!(audio.samples.iter().all(|sample| sample.abs() <= 1.0));
}

#[test]
fn damage_reads_as_plain_words() {
    let cases = [
        (
            Damage::Truncated { end_s: 1.5, declared_s: Some(2.0) },
            "the audio ends at 1.500 s, the header promises 2.000 s",
        ),
        (Damage::Truncated { end_s: 1.5, declared_s: None }, "the file breaks off at 1.500 s"),
        (Damage::Gap { start_s: 1.0, duration_s: 0.2 }, "0.200 s are missing from 1.000 s on"),
        (
            Damage::Lost {
                start_s: 1.0,
                duration_s: 0.026,
                n_packets: 1,
                reason: "bad".to_owned(),
            },
            "1 packet (0.026 s) from 1.000 s on could not be decoded and became silence: bad",
        ),
        (
            Damage::NotFinite { start_s: 0.5, n_samples: 3 },
            "3 samples that are not numbers, the first at 0.500 s, became 0",
        ),
        (
            Damage::Clipped { start_s: 0.5, n_samples: 3, peak: 2.0 },
            "3 samples beyond full scale (peak 2.00), the first at 0.500 s, were clipped",
        ),
    ];
    for (damage, expected) in cases {
        assert_eq!(damage.to_string(), expected);
    }
}
