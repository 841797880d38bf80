//! HE-AAC, of which only the core is decoded.

use std::borrow::Cow;

/// MPEG-4 audio object types (ISO 14496-3, table 1.17).
const LOW_COMPLEXITY: u64 = 2;
/// Spectral band replication.
const SBR: u64 = 5;
/// Parametric stereo.
const PARAMETRIC_STEREO: u64 = 29;
/// Index that says that the sample rate follows in 24 bits.
const EXPLICIT_RATE: u64 = 15;

/// Rewrites an AudioSpecificConfig (ISO 14496-3, section 1.6.2.1) of HE-AAC to that of the
/// low-complexity AAC inside it; any other is returned as it is.
///
/// The decoder refuses HE-AAC. Its core is plain AAC at half the rate, which holds all sound
/// up to a quarter of the full rate: 11 kHz for the usual 44.1 kHz.
pub(super) fn low_complexity_core(config: &[u8]) -> Cow<'_, [u8]> {
    match parse_he_aac(config) {
        Some((rate_bits, n_rate_bits, channels)) => {
            let mut bits = BitWriter::default();
            bits.put(LOW_COMPLEXITY, 5);
            bits.put(rate_bits, n_rate_bits);
            bits.put(channels, 4);
            // GASpecificConfig: 1024-sample frames, no core coder, no extension.
            bits.put(0, 3);
            Cow::Owned(bits.bytes)
        }
        None => Cow::Borrowed(config),
    }
}

/// The core's rate field, its width in bits, and the channel configuration.
fn parse_he_aac(config: &[u8]) -> Option<(u64, u32, u64)> {
    let mut bits = BitReader { bytes: config, at: 0 };
    let object_type = bits.take(5)?;
    if object_type != SBR && object_type != PARAMETRIC_STEREO {
        return None;
    }
    let (rate_bits, n_rate_bits) = bits.take_rate()?;
    let channels = bits.take(4)?;
    bits.take_rate()?;
    (bits.take(5)? == LOW_COMPLEXITY).then_some((rate_bits, n_rate_bits, channels))
}

struct BitReader<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl BitReader<'_> {
    fn take(&mut self, n_bits: u32) -> Option<u64> {
        let mut value = 0;
        for _ in 0..n_bits {
            let byte = *self.bytes.get(self.at / 8)?;
            value = value << 1 | u64::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Some(value)
    }

    /// A sample rate: an index of 4 bits, or 15 and the rate itself in 24.
    fn take_rate(&mut self) -> Option<(u64, u32)> {
        match self.take(4)? {
            EXPLICIT_RATE => Some((EXPLICIT_RATE << 24 | self.take(24)?, 28)),
            index => Some((index, 4)),
        }
    }
}

#[derive(Default)]
struct BitWriter {
    bytes: Vec<u8>,
    n_bits: usize,
}

impl BitWriter {
    fn put(&mut self, value: u64, n_bits: u32) {
        for bit in (0..n_bits).rev() {
            if self.n_bits.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= ((value >> bit & 1) as u8) << (7 - self.n_bits % 8);
            }
            self.n_bits += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_he_aac_is_rewritten() {
        let cases: [(&[u8], &[u8]); 4] = [
            // Plain AAC, 44.1 kHz, stereo.
            (&[0x12, 0x10], &[0x12, 0x10]),
            // SBR over 22.05 kHz (index 7) stereo, extended to 44.1 kHz (index 4).
            (&[0x2B, 0x92, 0x08, 0x00], &[0x13, 0x90]),
            // Parametric stereo over 24 kHz (index 6) mono, extended to 48 kHz (index 3).
            (&[0xEB, 0x09, 0x88, 0x00], &[0x13, 0x08]),
            // Cut off.
            (&[0x2B, 0x92], &[0x2B, 0x92]),
        ];
        for (config, expected) in cases {
            assert_eq!(&*low_complexity_core(config), expected, "{config:02x?}");
        }
    }
}
