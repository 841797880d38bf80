//! A recording or a pipe as if it came from a microphone: no faster than it sounds.

use super::live::{LiveCounts, LiveInput, LiveReader, LiveState, live_ring};
use super::{AudioError, AudioStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Room for this much sound, as for a microphone.
const RING_S: usize = 30;
/// What is written to the ring at a time.
const BLOCK: Duration = Duration::from_millis(20);

/// Plays a recording in real time.
#[derive(Debug)]
pub struct Replay {
    name: String,
    sample_rate_hz: u32,
    reader: LiveReader,
    failure: Arc<Mutex<Option<AudioError>>>,
}

impl Replay {
    /// Plays `stream`, decoded to `sample_rate_hz`; `name` is what it is called.
    #[must_use]
    pub fn new(mut stream: AudioStream, name: &str, sample_rate_hz: u32) -> Self {
        let (mut writer, reader) = live_ring(RING_S * sample_rate_hz as usize, 1);
        let failure = Arc::new(Mutex::new(None));
        let told = Arc::clone(&failure);
        std::thread::spawn(move || {
            let n = (sample_rate_hz as usize * BLOCK.as_millis() as usize / 1000).max(1);
            let start = Instant::now();
            let mut played = 0_u64;
            loop {
                let block = match stream.next_block() {
                    Ok(Some(block)) => block,
                    Ok(None) => return,
                    Err(error) => {
                        *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                        return;
                    }
                };
                for part in block.chunks(n) {
                    played += part.len() as u64;
                    let due = Duration::from_secs_f64(played as f64 / f64::from(sample_rate_hz));
                    std::thread::sleep(due.saturating_sub(start.elapsed()));
                    writer.write(part, |sample| sample);
                    if writer.is_abandoned() {
                        return;
                    }
                }
            }
        });
        Self { name: name.to_owned(), sample_rate_hz, reader, failure }
    }
}

impl LiveInput for Replay {
    fn name(&self) -> &str {
        &self.name
    }

    fn sample_rate_hz(&self) -> u32 {
        self.sample_rate_hz
    }

    fn n_channels(&self) -> usize {
        1
    }

    fn read(&mut self, samples: &mut Vec<f32>) -> Result<LiveState, AudioError> {
        self.reader.read(samples);
        if !self.reader.is_ended() {
            return Ok(LiveState::Running);
        }
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        failure.map_or(Ok(LiveState::Ended), Err)
    }

    fn arrived(&self) -> Instant {
        self.reader.arrived()
    }

    fn counts(&self) -> LiveCounts {
        LiveCounts { dropped: self.reader.n_dropped(), overruns: 0 }
    }
}
