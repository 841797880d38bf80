//! Sound that comes in while it is listened to: a ring between a device and its listener.

use crate::audio::AudioError;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Sound that comes in while it is listened to.
pub trait LiveInput {
    /// What it is called.
    fn name(&self) -> &str;

    /// Samples per second of what [`read`](Self::read) gives; may change where a device returns.
    fn sample_rate_hz(&self) -> u32;

    /// Channels, whose mean is heard.
    fn n_channels(&self) -> usize;

    /// Appends what has come in to `samples` (mono) without waiting.
    ///
    /// # Errors
    /// [`AudioError`] if nothing will come any more, though more was expected.
    fn read(&mut self, samples: &mut Vec<f32>) -> Result<LiveState, AudioError>;

    /// When the newest sample that was read came in.
    fn arrived(&self) -> Instant;

    /// What went wrong so far.
    fn counts(&self) -> LiveCounts;
}

/// What became of an input.
#[derive(Debug, Clone, PartialEq)]
pub enum LiveState {
    /// More will come.
    Running,
    /// It has ended.
    Ended,
    /// The device is gone just now; it is looked for again at every read.
    Lost {
        /// Why, as the system says it.
        reason: String,
    },
    /// The device is back.
    Returned,
}

/// What went wrong with an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LiveCounts {
    /// Samples that came in and found no room in the ring.
    pub dropped: u64,
    /// Times that the system did not fetch sound from the device in time.
    pub overruns: u64,
}

/// What writer and reader of a ring share beside the samples.
#[derive(Debug)]
struct Shared {
    dropped: AtomicU64,
    /// When the last samples were written, in nanoseconds since `epoch`.
    written_ns: AtomicU64,
    epoch: Instant,
}

/// The end of a ring that a device's thread writes to: it never waits and never allocates.
#[derive(Debug)]
pub struct LiveWriter {
    ring: rtrb::Producer<f32>,
    shared: Arc<Shared>,
    n_channels: usize,
}

/// The end of a ring that is read from.
#[derive(Debug)]
pub struct LiveReader {
    ring: rtrb::Consumer<f32>,
    shared: Arc<Shared>,
}

/// A lock-free ring for `capacity` mono samples, made of frames of `n_channels`.
#[must_use]
pub fn live_ring(capacity: usize, n_channels: usize) -> (LiveWriter, LiveReader) {
    let (producer, consumer) = rtrb::RingBuffer::new(capacity);
    let shared = Arc::new(Shared {
        dropped: AtomicU64::new(0),
        written_ns: AtomicU64::new(0),
        epoch: Instant::now(),
    });
    let n_channels = n_channels.max(1);
    let writer = LiveWriter { ring: producer, shared: Arc::clone(&shared), n_channels };
    (writer, LiveReader { ring: consumer, shared })
}

impl LiveWriter {
    /// Writes the mean of each frame of interleaved samples, as read by `value`. What finds no
    /// room is dropped and counted; what is not a number is silence.
    pub fn write<T: Copy>(&mut self, interleaved: &[T], value: impl Fn(T) -> f32) {
        let frames = interleaved.chunks_exact(self.n_channels);
        let n = frames.len();
        let scale = 1.0 / self.n_channels as f32;
        let mono = frames.map(|frame| {
            let mean = frame.iter().map(|&sample| value(sample)).sum::<f32>() * scale;
            if mean.is_finite() { mean.clamp(-1.0, 1.0) } else { 0.0 }
        });
        let room = self.ring.slots().min(n);
        // As many slots as there are, so that the chunk is there.
        let written =
            self.ring.write_chunk_uninit(room).map_or(0, |chunk| chunk.fill_from_iter(mono));
        self.shared.dropped.fetch_add((n - written) as u64, Ordering::Relaxed);
        let now = self.shared.epoch.elapsed().as_nanos() as u64;
        self.shared.written_ns.store(now, Ordering::Release);
    }

    /// Whether nobody reads any more.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.ring.is_abandoned()
    }
}

impl LiveReader {
    /// Appends all that has come in; returns how much that is.
    pub fn read(&mut self, samples: &mut Vec<f32>) -> usize {
        let n = self.ring.slots();
        let read = self.ring.read_chunk(n).map_or(0, |chunk| {
            samples.extend(chunk);
            n
        });
        debug_assert_eq!(read, n, "the slots were there");
        read
    }

    /// When the newest samples came in.
    #[must_use]
    pub fn arrived(&self) -> Instant {
        let written = self.shared.written_ns.load(Ordering::Acquire);
        self.shared.epoch + std::time::Duration::from_nanos(written)
    }

    /// Samples that found no room so far.
    #[must_use]
    pub fn n_dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Whether nobody writes any more and everything is read.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        // In this order: what was written before the writer went is seen.
        self.ring.is_abandoned() && self.ring.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_mixed_and_what_finds_no_room_is_counted() {
        let (mut writer, mut reader) = live_ring(4, 2);
        writer.write(&[100_i16, 300, -2, 2, 5], |s| f32::from(s) / 1000.0);
        let mut samples = Vec::new();
        assert_eq!(reader.read(&mut samples), 2);
        assert_eq!(samples, [0.2, 0.0]);
        assert_eq!(reader.n_dropped(), 0);
        writer.write(&[f32::NAN, 1.0, 9.0, 9.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5], |s| s);
        assert_eq!(reader.read(&mut samples), 4);
        assert_eq!(samples[2..], [0.0, 1.0, 0.5, 0.5]);
        assert_eq!(reader.n_dropped(), 1);
        assert!(!reader.is_ended() && !writer.is_abandoned());
        writer.write(&[0.25, 0.25], |s| s);
        drop(writer);
        assert!(!reader.is_ended(), "a sample is left");
        assert_eq!(reader.read(&mut samples), 1);
        assert!(reader.is_ended());
        assert!(reader.arrived() <= Instant::now());
    }

    #[test]
    fn no_sample_is_lost_between_threads() {
        const N: u32 = 200_000;
        let (mut writer, mut reader) = live_ring(1_000, 1);
        let thread = std::thread::spawn(move || {
            let mut next = 0;
            while next < N {
                // Only what has room, as a device that waits would.
                let n = (writer.ring.slots() as u32).min(N - next).min(333);
                let block: Vec<u32> = (next..next + n).collect();
                writer.write(&block, |i| i as f32 / N as f32);
                next += n;
            }
        });
        let mut samples = Vec::new();
        while !reader.is_ended() {
            reader.read(&mut samples);
        }
        thread.join().expect("no panic");
        assert_eq!(samples.len(), N as usize);
        assert!(samples.iter().zip(0..).all(|(s, i)| *s == i as f32 / N as f32));
        assert_eq!(reader.n_dropped(), 0);
    }
}
