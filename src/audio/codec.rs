//! What a telephone or a chat does to speech: encoded and decoded again.

use super::{AudioError, resample};

/// Rate of telephone audio.
const TELEPHONE_HZ: u32 = 8_000;
/// Rate of the samples that come and go.
const RATE_HZ: u32 = 16_000;
/// Samples per Opus packet: 20 ms.
const PACKET: usize = 320;
/// Largest Opus packet of that length (RFC 6716, section 3.2.1), with room to spare.
const MAX_PACKET_BYTES: usize = 1_500;

/// µ-law code (ITU-T G.711) of a sample in [-1, 1].
fn mu_law_encoded(sample: f32) -> u8 {
    const BIAS: i32 = 33;
    // 14-bit magnitude, as the standard counts.
    let value = (sample * 8_192.0).round().clamp(-8_159.0, 8_159.0) as i32;
    let biased = value.abs() + BIAS;
    // The segment is the place of the highest bit above the fifth.
    let segment = (biased.ilog2() as i32 - 5).clamp(0, 7);
    let step = (biased >> (segment + 1)) & 0xf;
    let sign = if value < 0 { 0x80 } else { 0 };
    !(sign | (segment << 4 | step) as u8)
}

/// The sample of a µ-law code.
fn mu_law_decoded(code: u8) -> f32 {
    let code = !code;
    let (segment, step) = (i32::from(code >> 4 & 7), i32::from(code & 0xf));
    let magnitude = ((2 * step + 33) << segment) - 33;
    let value = if code & 0x80 == 0 { magnitude } else { -magnitude };
    value as f32 / 8_192.0
}

/// 16 kHz samples after a telephone line: 8 kHz, eight bits of µ-law (G.711). As many samples
/// come back.
///
/// # Errors
/// If the rate cannot be changed.
pub fn mu_law_round_trip(samples: &[f32]) -> Result<Vec<f32>, AudioError> {
    let mut line = resample(samples, RATE_HZ, TELEPHONE_HZ)?;
    for sample in &mut line {
        *sample = mu_law_decoded(mu_law_encoded(*sample));
    }
    let mut heard = resample(&line, TELEPHONE_HZ, RATE_HZ)?;
    heard.resize(samples.len(), 0.0);
    Ok(heard)
}

/// 16 kHz samples after Opus (RFC 6716) at `bits_per_s`, in packets of 20 ms, for speech; the
/// delay of the codec is taken out. As many samples come back. The high-pass filter that Opus puts
/// before voices turns the phase of low tones.
///
/// # Errors
/// [`AudioError::OpusRoundTrip`] if the bit rate has more than 31 bits; one that Opus does not
/// have is taken for the nearest that it has, 500 to 512 000.
pub fn opus_round_trip(samples: &[f32], bits_per_s: u32) -> Result<Vec<f32>, AudioError> {
    use ropus::{Application, Bitrate, Channels, DecodeMode, Decoder, Encoder, Signal};
    let failed = |source| AudioError::OpusRoundTrip { source };
    let bitrate = Bitrate::try_bits(bits_per_s).map_err(|e| failed(e.into()))?;
    let mut encoder = Encoder::builder(RATE_HZ, Channels::Mono, Application::Voip)
        .bitrate(bitrate)
        .signal(Signal::Voice)
        .build()
        .map_err(|e| failed(e.into()))?;
    let mut decoder = Decoder::new(RATE_HZ, Channels::Mono).map_err(|e| failed(e.into()))?;
    let delay = encoder.lookahead() as usize;
    let mut pcm: Vec<i16> =
        samples.iter().map(|s| (s * 32_768.0).clamp(-32_768.0, 32_767.0) as i16).collect();
    pcm.resize((samples.len() + delay).next_multiple_of(PACKET), 0);
    let mut packet = [0; MAX_PACKET_BYTES];
    let mut heard = Vec::with_capacity(pcm.len());
    for block in pcm.chunks_exact(PACKET) {
        let bytes = encoder.encode(block, &mut packet).map_err(|e| failed(e.into()))?;
        let mut out = [0; PACKET];
        let n = decoder
            .decode(&packet[..bytes], &mut out, DecodeMode::Normal)
            .map_err(|e| failed(e.into()))?;
        heard.extend(out[..n].iter().map(|&s| f32::from(s) / 32_768.0));
    }
    heard.drain(..delay.min(heard.len()));
    heard.resize(samples.len(), 0.0);
    Ok(heard)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hz: f64, n: usize) -> Vec<f32> {
        let angle = std::f64::consts::TAU * hz / 16_000.0;
        (0..n).map(|i| (0.5 * (angle * i as f64).sin()) as f32).collect()
    }

    /// Power of what differs below that of `clean`, dB, away from the ends.
    fn snr_db(clean: &[f32], heard: &[f32]) -> f64 {
        let middle = 2_000..clean.len() - 2_000;
        let power = |x: &mut dyn Iterator<Item = f32>| x.map(|s| f64::from(s).powi(2)).sum::<f64>();
        let signal = power(&mut clean[middle.clone()].iter().copied());
        let pairs = clean[middle.clone()].iter().zip(&heard[middle]);
        10.0 * (signal / power(&mut pairs.map(|(a, b)| a - b))).log10()
    }

    #[test]
    fn mu_law_codes_are_those_of_the_standard() {
        // G.711, table 2a: the ends of the range and both zeros.
        for (value, code) in
            [(0.0, 0xff), (8_031.0, 0x80), (-8_031.0, 0x00), (1.0, 0xfe), (31.0, 0xef)]
        {
            assert_eq!(mu_law_encoded(value / 8_192.0), code, "{value}");
        }
        for code in 0..=255_u8 {
            let decoded = mu_law_decoded(code);
            let again = mu_law_encoded(decoded);
            assert!(again == code || decoded == 0.0, "{code} comes back as {again}");
        }
    }

    #[test]
    fn a_telephone_keeps_low_tones_and_loses_high_ones() -> Result<(), AudioError> {
        let low = tone(1_000.0, 16_000);
        let heard = mu_law_round_trip(&low)?;
        assert_eq!(heard.len(), low.len());
        let snr = snr_db(&low, &heard);
        // Eight bits of µ-law keep 38 dB at any level; rounding must be there, too.
        assert!((33.0..45.0).contains(&snr), "{snr} dB");
        let high = tone(6_000.0, 16_000);
        let left: f64 =
            mu_law_round_trip(&high)?[2_000..14_000].iter().map(|s| f64::from(*s).powi(2)).sum();
        let before: f64 = high[2_000..14_000].iter().map(|s| f64::from(*s).powi(2)).sum();
        assert!(left < 1e-4 * before, "6 kHz come through");
        Ok(())
    }

    #[test]
    fn opus_is_nearer_with_more_bits_and_stays_in_time() -> Result<(), AudioError> {
        // A tone that swells, so that a delay would be seen, high above the cut-off of the filter
        // that Opus puts before voices.
        let voice: Vec<f32> = tone(2_500.0, 32_000)
            .iter()
            .enumerate()
            .map(|(i, s)| s * (0.5 + 0.5 * (i as f32 * 1e-3).sin()))
            .collect();
        let few = snr_db(&voice, &opus_round_trip(&voice, 6_000)?);
        let many = snr_db(&voice, &opus_round_trip(&voice, 32_000)?);
        assert!(many > 20.0 && many > few + 5.0, "{few} dB at 6 kb/s, {many} dB at 32");
        assert_eq!(opus_round_trip(&voice[..777], 16_000)?.len(), 777);
        assert_eq!(opus_round_trip(&[], 16_000)?.len(), 0);
        assert!(opus_round_trip(&voice, u32::MAX).is_err());
        Ok(())
    }
}
