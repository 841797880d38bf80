//! Changing the sample rate, in one go or as a stream.
//!
//! The work is done by rubato's synchronous FFT resampler (overlap-add with a
//! Blackman-Harris windowed sinc). This wrapper adds what that leaves to its caller: the
//! filter delay is removed, the tail is flushed and the length is exact.

use rubato::audioadapter_buffers::direct::SequentialSlice;
use rubato::{Fft, FixedSync, Resampler as _, WindowFunction};

use crate::audio::AudioError;

/// Lowest sample rate that can be read or asked for, in Hz.
pub const MIN_SAMPLE_RATE_HZ: u32 = 1_000;
/// Highest sample rate that can be read or asked for, in Hz.
pub const MAX_SAMPLE_RATE_HZ: u32 = 768_000;

/// Filter length wanted at the lower of the two rates, in samples: the anti-alias filter
/// is then flat to 0.96 of the lower Nyquist frequency and 32 ms long at 16 kHz.
const FILTER_SAMPLES: usize = 512;

/// Converts a mono stream from one sample rate to another.
///
/// For `n` samples pushed in all, [`push`](Self::push) and [`finish`](Self::finish) return
/// exactly `ceil(n * to_hz / from_hz)` samples in all, and output sample `k` is the sound
/// at time `k / to_hz`, however the input was cut into pushes. Equal rates pass through
/// unchanged.
pub struct Resampler {
    from_hz: u32,
    to_hz: u32,
    filter: Option<Filter>,
    n_pushed: u64,
    n_returned: u64,
}

/// The rubato resampler with the buffers around it.
struct Filter {
    fft: Fft<f32>,
    chunk_in: usize,
    /// Input not yet filtered, always shorter than `chunk_in` between calls.
    pending: Vec<f32>,
    /// One output chunk.
    scratch: Vec<f32>,
    /// Output samples of filter delay still to be dropped.
    delay_left: usize,
}

impl Resampler {
    /// Prepares a conversion from `from_hz` to `to_hz`.
    ///
    /// # Errors
    /// [`AudioError::SampleRate`] if either is outside
    /// [`MIN_SAMPLE_RATE_HZ`]..=[`MAX_SAMPLE_RATE_HZ`].
    pub fn new(from_hz: u32, to_hz: u32) -> Result<Self, AudioError> {
        for rate in [from_hz, to_hz] {
            if !(MIN_SAMPLE_RATE_HZ..=MAX_SAMPLE_RATE_HZ).contains(&rate) {
                return Err(AudioError::SampleRate { found_hz: rate });
            }
        }
        let filter = if from_hz == to_hz { None } else { Some(Filter::new(from_hz, to_hz)?) };
        Ok(Self { from_hz, to_hz, filter, n_pushed: 0, n_returned: 0 })
    }

    /// Takes the next samples in and returns those that are ready, which may be none.
    pub fn push(&mut self, samples: &[f32]) -> Vec<f32> {
        let mut ready = Vec::new();
        self.push_into(samples, &mut ready);
        ready
    }

    /// As [`push`](Self::push), appending to `ready`.
    pub fn push_into(&mut self, samples: &[f32], ready: &mut Vec<f32>) {
        self.n_pushed += samples.len() as u64;
        let start = ready.len();
        match &mut self.filter {
            None => ready.extend_from_slice(samples),
            Some(filter) => filter.push(samples, ready),
        }
        self.n_returned += (ready.len() - start) as u64;
    }

    /// Flushes the tail: the samples still owed. The resampler is then as new.
    pub fn finish(&mut self) -> Vec<f32> {
        let owed = resampled_len(self.n_pushed, self.from_hz, self.to_hz) - self.n_returned;
        let owed = usize::try_from(owed).expect("less than one filter length is ever owed");
        let mut ready = Vec::with_capacity(owed);
        if let Some(filter) = &mut self.filter {
            filter.flush(owed, &mut ready);
        }
        self.n_pushed = 0;
        self.n_returned = 0;
        ready
    }
}

impl Filter {
    fn new(from_hz: u32, to_hz: u32) -> Result<Self, AudioError> {
        let common = gcd(from_hz, to_hz);
        let (step_in, step_out) = ((from_hz / common) as usize, (to_hz / common) as usize);
        // An even number of steps makes the delay a whole number of samples on both sides.
        let n_steps = FILTER_SAMPLES.div_ceil(step_in.min(step_out)).next_multiple_of(2);
        let fft = Fft::<f32>::new_custom(
            from_hz as usize,
            to_hz as usize,
            n_steps * step_in,
            1,
            1,
            WindowFunction::BlackmanHarris2,
            FixedSync::Both,
        )
        .map_err(|source| AudioError::Resampler { from_hz, to_hz, source })?;
        let delay_left = fft.output_delay();
        Ok(Self {
            chunk_in: fft.input_frames_next(),
            scratch: vec![0.0; fft.output_frames_next()],
            pending: Vec::new(),
            fft,
            delay_left,
        })
    }

    fn push(&mut self, mut samples: &[f32], ready: &mut Vec<f32>) {
        if !self.pending.is_empty() {
            let wanted = (self.chunk_in - self.pending.len()).min(samples.len());
            self.pending.extend_from_slice(&samples[..wanted]);
            samples = &samples[wanted..];
            if self.pending.len() < self.chunk_in {
                return;
            }
            let chunk = std::mem::take(&mut self.pending);
            self.filter_chunk(&chunk, ready);
            self.pending = chunk;
            self.pending.clear();
        }
        let mut chunks = samples.chunks_exact(self.chunk_in);
        for chunk in &mut chunks {
            self.filter_chunk(chunk, ready);
        }
        self.pending.extend_from_slice(chunks.remainder());
    }

    /// Feeds silence until `owed` samples have come out, then forgets everything.
    fn flush(&mut self, owed: usize, ready: &mut Vec<f32>) {
        while ready.len() < owed {
            let mut chunk = std::mem::take(&mut self.pending);
            chunk.resize(self.chunk_in, 0.0);
            self.filter_chunk(&chunk, ready);
        }
        ready.truncate(owed);
        self.pending.clear();
        self.fft.reset();
        self.delay_left = self.fft.output_delay();
    }

    fn filter_chunk(&mut self, chunk: &[f32], ready: &mut Vec<f32>) {
        let frames_out = self.scratch.len();
        let input = SequentialSlice::new(chunk, 1, self.chunk_in)
            .expect("a chunk holds exactly chunk_in samples");
        let mut output = SequentialSlice::new_mut(&mut self.scratch, 1, frames_out)
            .expect("the scratch buffer holds exactly one output chunk");
        self.fft
            .process_into_buffer(&input, &mut output, None)
            .expect("both buffers have the sizes the resampler asked for");
        let dropped = self.delay_left.min(frames_out);
        self.delay_left -= dropped;
        ready.extend_from_slice(&self.scratch[dropped..]);
    }
}

/// Resamples a whole mono signal.
///
/// Returns `ceil(samples.len() * to_hz / from_hz)` samples, aligned with the input in time.
/// Tones below 0.96 of the lower Nyquist frequency keep their level to 0.1 dB (7.68 kHz for
/// 16 kHz), images and aliases are below -120 dB; `tests/property/resampling.rs` measures it.
///
/// # Errors
/// [`AudioError::SampleRate`] if a rate is outside
/// [`MIN_SAMPLE_RATE_HZ`]..=[`MAX_SAMPLE_RATE_HZ`].
///
/// # Example
/// ```
/// let one_second = vec![0.0; 44_100];
/// let resampled = asr::audio::resample(&one_second, 44_100, 16_000)?;
/// assert_eq!(resampled.len(), 16_000);
/// # Ok::<(), asr::audio::AudioError>(())
/// ```
pub fn resample(samples: &[f32], from_hz: u32, to_hz: u32) -> Result<Vec<f32>, AudioError> {
    let mut resampler = Resampler::new(from_hz, to_hz)?;
    let mut resampled = resampler.push(samples);
    resampled.extend(resampler.finish());
    Ok(resampled)
}

/// `ceil(n * to_hz / from_hz)`.
pub(crate) fn resampled_len(n: u64, from_hz: u32, to_hz: u32) -> u64 {
    let len = (u128::from(n) * u128::from(to_hz)).div_ceil(u128::from(from_hz));
    u64::try_from(len).unwrap_or(u64::MAX)
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_rounded_up() {
        let cases = [
            (0, 44_100, 16_000, 0),
            (1, 44_100, 16_000, 1),
            (441, 44_100, 16_000, 160),
            (442, 44_100, 16_000, 161),
            (1, 8_000, 16_000, 2),
            (3, 16_000, 16_000, 3),
            (7, 48_000, 16_000, 3),
        ];
        for (n, from_hz, to_hz, expected) in cases {
            assert_eq!(resampled_len(n as u64, from_hz, to_hz), expected as u64);
            let resampled = resample(&vec![0.25; n], from_hz, to_hz).expect("rates in range");
            assert_eq!(resampled.len(), expected, "{n} samples {from_hz} -> {to_hz}");
        }
    }

    #[test]
    fn rates_out_of_range_are_refused() {
        for (from_hz, to_hz) in [(0, 16_000), (16_000, 0), (999, 16_000), (16_000, 768_001)] {
            assert!(matches!(Resampler::new(from_hz, to_hz), Err(AudioError::SampleRate { .. })));
        }
    }

    #[test]
    fn a_resampler_can_be_used_again_after_finish() {
        let ramp: Vec<f32> = (0..5_000).map(|i| (i as f32 * 0.01).sin()).collect();
        let mut resampler = Resampler::new(48_000, 16_000).expect("rates in range");
        let mut first = resampler.push(&ramp);
        first.extend(resampler.finish());
        let mut second = resampler.push(&ramp);
        second.extend(resampler.finish());
        assert_eq!(first, second);
    }
}
