//! From live sound to what is shown of it.

use super::super::failure::AnyError;
use crate::audio::{LiveCounts, LiveInput, LiveState, Resampler, WavRecorder};
use crate::decode::{FrameModel, Live, LiveSegment};
use crate::text::Language;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Rate that models hear.
const MODEL_HZ: u32 = 16_000;
/// How often it is looked for new sound.
const TICK: Duration = Duration::from_millis(20);
/// Silence after a device is gone, so that what was said before ends.
const GONE_S: u32 = 1;

/// What is listened to.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) name: String,
    pub(super) sample_rate_hz: u32,
    pub(super) n_channels: usize,
}

/// How things stand.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Status {
    /// Seconds heard.
    pub(super) heard_s: f64,
    /// Loudness of the last tenth of a second or so, decibels of full scale.
    pub(super) level_db: f64,
    pub(super) counts: LiveCounts,
    /// Of the last segment.
    pub(super) latency_s: f64,
    pub(super) is_speaking: bool,
}

/// What happened all in all.
#[derive(Debug, Clone, Copy)]
pub(super) struct Summary {
    pub(super) heard_s: f64,
    pub(super) counts: LiveCounts,
    pub(super) latency: Delays,
    /// From the beginning of speech to the first language.
    pub(super) first_language: Delays,
    pub(super) n_lost: u32,
}

/// Something that happened to the input.
#[derive(Debug, Clone, Copy)]
pub(super) enum Notice<'a> {
    Lost { reason: &'a str },
    Back { source: &'a Source },
    Dropped { counts: LiveCounts },
}

/// Where results are shown.
pub(super) trait Display {
    fn start(&mut self, source: &Source) -> Result<(), AnyError>;
    fn segment(&mut self, segment: &LiveSegment, latency_s: f64) -> Result<(), AnyError>;
    fn notice(&mut self, at_s: f64, notice: Notice) -> Result<(), AnyError>;
    fn status(&mut self, status: &Status);
    fn end(&mut self, summary: &Summary) -> Result<(), AnyError>;
}

/// Delays by five milliseconds, those beyond ten seconds together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delays {
    counts: [u32; 2_001],
    longest_s: f64,
}

impl Default for Delays {
    fn default() -> Self {
        Self { counts: [0; 2_001], longest_s: 0.0 }
    }
}

impl Delays {
    /// Of a bucket, in seconds.
    const STEP_S: f64 = 0.005;

    fn add(&mut self, delay_s: f64) {
        let bucket = (delay_s.max(0.0) / Self::STEP_S) as usize;
        let bucket = bucket.min(self.counts.len() - 1);
        self.counts[bucket] = self.counts[bucket].saturating_add(1);
        self.longest_s = self.longest_s.max(delay_s);
    }

    /// The median, to five milliseconds, and the longest; none of nothing.
    pub(super) fn median_and_longest(&self) -> Option<(f64, f64)> {
        let n: u64 = self.counts.iter().map(|&count| u64::from(count)).sum();
        let mut before = 0;
        let middle = self.counts.iter().position(|&count| {
            before += u64::from(count);
            before > 0 && 2 * before >= n
        })?;
        Some(((middle as f64 + 0.5) * Self::STEP_S, self.longest_s))
    }
}

/// Listens to an input until it ends.
pub(super) struct Session<'a> {
    live: Live<'a>,
    record: Option<&'a Path>,
    recorder: Option<WavRecorder>,
    /// Seconds that came in.
    received_s: f64,
    /// Where the last voice with a language began.
    named_voice_s: Option<f64>,
    summary: Summary,
    status: Status,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        model: &'a dyn FrameModel,
        candidates: Option<&'a [Language]>,
        record: Option<&'a Path>,
    ) -> Self {
        Self {
            live: Live::new(model, candidates),
            record,
            recorder: None,
            received_s: 0.0,
            named_voice_s: None,
            summary: Summary {
                heard_s: 0.0,
                counts: LiveCounts::default(),
                latency: Delays::default(),
                first_language: Delays::default(),
                n_lost: 0,
            },
            status: Status { level_db: f64::NEG_INFINITY, ..Status::default() },
        }
    }

    /// Listens until the input ends or `stop` is set, and then to what is left.
    pub(super) fn run(
        mut self,
        input: &mut dyn LiveInput,
        display: &mut dyn Display,
        stop: &AtomicBool,
    ) -> Result<(), AnyError> {
        let mut source = source_of(input);
        let mut resampler = Resampler::new(source.sample_rate_hz, MODEL_HZ)?;
        if let Some(path) = self.record {
            self.recorder = Some(WavRecorder::create(path, source.sample_rate_hz)?);
        }
        display.start(&source)?;
        let (mut native, mut samples) = (Vec::new(), Vec::new());
        loop {
            // Before the read, so that what was said until then is heard.
            let stopped = stop.load(Ordering::Relaxed);
            native.clear();
            samples.clear();
            let mut failure = None;
            let state = input.read(&mut native).unwrap_or_else(|error| {
                failure = Some(error);
                LiveState::Ended
            });
            let is_gone = matches!(state, LiveState::Lost { .. });
            if is_gone {
                let silence = (GONE_S * source.sample_rate_hz) as usize;
                native.resize(native.len() + silence, 0.0);
            }
            self.received_s += native.len() as f64 / f64::from(source.sample_rate_hz);
            if let Some(recorder) = &mut self.recorder {
                recorder.write(&native, source.sample_rate_hz)?;
            }
            resampler.push_into(&native, &mut samples);
            let ended = stopped || state == LiveState::Ended;
            if ended || is_gone {
                samples.extend(resampler.finish());
            }
            let segments = self.live.push(&samples)?;
            self.show(&segments, input, display)?;
            self.tell(input, &native, display)?;
            match state {
                LiveState::Lost { reason } => {
                    self.summary.n_lost += 1;
                    display.notice(self.received_s, Notice::Lost { reason: &reason })?;
                }
                LiveState::Returned => {
                    source = source_of(input);
                    resampler = Resampler::new(source.sample_rate_hz, MODEL_HZ)?;
                    display.notice(self.received_s, Notice::Back { source: &source })?;
                }
                LiveState::Running | LiveState::Ended => {}
            }
            if ended {
                self.finish(input, display)?;
                return failure.map_or(Ok(()), |error| Err(error.into()));
            }
            std::thread::sleep(TICK);
        }
    }

    fn finish(mut self, input: &dyn LiveInput, display: &mut dyn Display) -> Result<(), AnyError> {
        let segments = self.live.finish()?;
        self.show(&segments, input, display)?;
        if let Some(recorder) = self.recorder.take() {
            recorder.finish()?;
        }
        self.summary.heard_s = self.received_s;
        self.summary.counts = input.counts();
        display.end(&self.summary)
    }

    fn show(
        &mut self,
        segments: &[LiveSegment],
        input: &dyn LiveInput,
        display: &mut dyn Display,
    ) -> Result<(), AnyError> {
        for segment in segments {
            let now_s = self.received_s + input.arrived().elapsed().as_secs_f64();
            let latency_s = (now_s - segment.end_s).max(0.0);
            display.segment(segment, latency_s)?;
            self.status.latency_s = latency_s;
            if !segment.is_final {
                self.summary.latency.add(latency_s);
            }
            let voice = Some(segment.voice_start_s);
            if !segment.understood.languages.is_empty() && self.named_voice_s != voice {
                self.named_voice_s = voice;
                self.summary.first_language.add(now_s - segment.voice_start_s);
            }
        }
        Ok(())
    }

    /// Tells how things stand, and of samples that were newly lost.
    fn tell(
        &mut self,
        input: &dyn LiveInput,
        native: &[f32],
        display: &mut dyn Display,
    ) -> Result<(), AnyError> {
        if !native.is_empty() {
            let energy: f64 = native.iter().map(|s| f64::from(*s).powi(2)).sum();
            let level_db = 10.0 * (energy / native.len() as f64).log10();
            // A meter falls slowly.
            self.status.level_db = level_db.max(self.status.level_db - 3.0);
        }
        let counts = input.counts();
        if counts != self.status.counts {
            self.status.counts = counts;
            display.notice(self.received_s, Notice::Dropped { counts })?;
        }
        self.status.heard_s = self.received_s;
        self.status.is_speaking = self.live.is_speaking();
        display.status(&self.status);
        Ok(())
    }
}

fn source_of(input: &dyn LiveInput) -> Source {
    Source {
        name: input.name().to_owned(),
        sample_rate_hz: input.sample_rate_hz(),
        n_channels: input.n_channels(),
    }
}
