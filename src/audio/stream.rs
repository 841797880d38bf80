//! Audio as a stream of mono blocks, in memory that does not grow with its length.

use std::cell::Cell;
use std::fs::File;
use std::io::{Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use symphonia::core::io::{MediaSource, ReadOnlySource};

use crate::audio::container::Container;
use crate::audio::damage::DamageLog;
use crate::audio::input::{Guarded, Watch};
use crate::audio::pcm::{PcmLayout, PcmSource};
use crate::audio::prepare::{Prepared, prepare};
use crate::audio::{AudioError, Damage, DecodeOptions, RawFormat, Resampler, SourceInfo};

/// Least samples in a block, but for the last.
const BLOCK_SAMPLES: usize = 8_192;

/// Something that yields mono samples at its own rate.
pub(super) trait BlockSource: Send {
    /// What is being decoded.
    fn info(&self) -> &SourceInfo;

    /// Appends the next samples to `mono` and returns their rate in Hz, or `None` at the
    /// end. What could not be decoded goes to `damage`.
    fn next_block(
        &mut self,
        mono: &mut Vec<f32>,
        damage: &mut DamageLog,
    ) -> Result<Option<u32>, AudioError>;
}

/// An input being decoded, mixed to one channel and resampled block by block.
///
/// # Example
/// ```no_run
/// use asr::audio::{AudioStream, DecodeOptions};
///
/// let mut stream = AudioStream::open("talk.mp3".as_ref(), &DecodeOptions::default())?;
/// let mut n_samples = 0;
/// while let Some(block) = stream.next_block()? {
///     n_samples += block.len();
/// }
/// println!("{:.1} s", n_samples as f64 / 16_000.0);
/// # Ok::<(), asr::audio::AudioError>(())
/// ```
pub struct AudioStream {
    name: String,
    source: Box<dyn BlockSource>,
    options: DecodeOptions,
    watch: Watch,
    /// Time spent reading and decoding so far.
    spent: Duration,
    resampler: Option<Resampler>,
    /// Rate of the blocks of `source`, which may change on the way.
    source_rate_hz: u32,
    /// Source samples of the current block, before resampling.
    mono: Vec<f32>,
    decoded_s: f64,
    n_decoded: u64,
    n_not_finite: u64,
    damage: DamageLog,
    done: bool,
}

impl AudioStream {
    /// Opens a file of any supported format, recognised by content first and extension
    /// second. A path that is not a regular file (a named pipe, `/dev/stdin`) is read once
    /// from front to back.
    ///
    /// # Errors
    /// [`AudioError::Open`], or what [`AudioStream::from_reader`] returns.
    pub fn open(path: &Path, options: &DecodeOptions) -> Result<Self, AudioError> {
        let open_error = |source| AudioError::Open { path: path.to_owned(), source };
        let file = File::open(path).map_err(open_error)?;
        let kind = file.metadata().map_err(open_error)?.file_type();
        if kind.is_dir() {
            return Err(open_error(std::io::ErrorKind::IsADirectory.into()));
        }
        let name = path.display().to_string();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if kind.is_file() {
            Self::from_media(Box::new(file), &name, extension, options)
        } else {
            Self::from_reader(file, &name, extension, options)
        }
    }

    /// Decodes a pipe: read once from front to back, of unknown length. `name` is for
    /// messages; `extension` (without the dot) helps where the content is ambiguous.
    ///
    /// # Errors
    /// Any [`AudioError`] about the headers: not audio, no decoder, more channels or a rate
    /// beyond what is supported, beyond the limits.
    pub fn from_reader(
        reader: impl Read + Send + Sync + 'static,
        name: &str,
        extension: Option<&str>,
        options: &DecodeOptions,
    ) -> Result<Self, AudioError> {
        let pipe = Box::new(ReadOnlySource::new(reader));
        Self::from_media(pipe, name, extension, options)
    }

    /// Decodes a file held in memory.
    ///
    /// # Errors
    /// As [`AudioStream::from_reader`].
    pub fn from_bytes(
        bytes: Vec<u8>,
        name: &str,
        extension: Option<&str>,
        options: &DecodeOptions,
    ) -> Result<Self, AudioError> {
        let media = Box::new(Cursor::new(bytes));
        Self::from_media(media, name, extension, options)
    }

    /// Reads headerless PCM with interleaved channels.
    ///
    /// # Errors
    /// [`AudioError::SampleRate`], [`AudioError::ChannelCount`] or [`AudioError::Channel`]
    /// if what is asked for makes no sense.
    pub fn from_raw(
        reader: impl Read + Send + Sync + 'static,
        format: RawFormat,
        sample_rate_hz: u32,
        n_channels: usize,
        options: &DecodeOptions,
    ) -> Result<Self, AudioError> {
        let name = "raw PCM";
        let watch = Watch::new(&options.limits);
        let pipe = Box::new(ReadOnlySource::new(reader));
        let reader = Guarded::new(pipe, &watch, name)?;
        let layout = PcmLayout {
            container: "raw",
            encoding: format.into(),
            sample_rate_hz,
            n_channels,
            n_frames: None,
        };
        let source = PcmSource::new(reader, layout, name, options.channel, &watch)?;
        Self::new(Box::new(source), name, options, watch, Duration::ZERO)
    }

    fn from_media(
        media: Box<dyn MediaSource>,
        name: &str,
        extension: Option<&str>,
        options: &DecodeOptions,
    ) -> Result<Self, AudioError> {
        let started = Instant::now();
        let watch = Watch::new(&options.limits);
        watch.start(Duration::ZERO);
        let media = Guarded::new(media, &watch, name)?;
        let source: Box<dyn BlockSource> = match prepare(media, name, &watch)? {
            Prepared::Pcm(layout, samples) => {
                let source = PcmSource::new(samples, layout, name, options.channel, &watch)?;
                Box::new(source)
            }
            Prepared::Container(medium) => Box::new(contain(name, || {
                Container::open(medium, name, extension, options, &watch)
            })?),
        };
        Self::new(source, name, options, watch, started.elapsed())
    }

    fn new(
        source: Box<dyn BlockSource>,
        name: &str,
        options: &DecodeOptions,
        watch: Watch,
        spent: Duration,
    ) -> Result<Self, AudioError> {
        let limit_s = options.limits.max_duration_s;
        if source.info().duration_s.is_some_and(|declared_s| declared_s > limit_s) {
            return Err(AudioError::TooLong { name: name.to_owned(), limit_s });
        }
        Ok(Self {
            name: name.to_owned(),
            resampler: None,
            source,
            options: options.clone(),
            watch,
            spent,
            source_rate_hz: 0,
            mono: Vec::new(),
            decoded_s: 0.0,
            n_decoded: 0,
            n_not_finite: 0,
            damage: DamageLog::default(),
            done: false,
        })
    }

    /// The next samples at [`DecodeOptions::sample_rate_hz`], in [-1, 1], never empty;
    /// `None` at the end. After an error the stream is at its end.
    ///
    /// # Errors
    /// [`AudioError::Empty`], [`AudioError::NothingDecoded`] and [`AudioError::NotFinite`]
    /// at the end of an input without a single good sample; the limits; a failed decoder.
    pub fn next_block(&mut self) -> Result<Option<Vec<f32>>, AudioError> {
        if self.done {
            return Ok(None);
        }
        let mut block = Vec::with_capacity(BLOCK_SAMPLES + BLOCK_SAMPLES / 2);
        let started = Instant::now();
        self.watch.start(self.spent);
        let outcome = self.fill(&mut block);
        self.spent += started.elapsed();
        if !matches!(outcome, Ok(true)) {
            self.done = true;
        }
        outcome?;
        for sample in &mut block {
            *sample = sample.clamp(-1.0, 1.0);
        }
        Ok((!block.is_empty()).then_some(block))
    }

    /// Fills `block`; false if the input has ended.
    fn fill(&mut self, block: &mut Vec<f32>) -> Result<bool, AudioError> {
        while block.len() < BLOCK_SAMPLES {
            self.mono.clear();
            let (source, mono, damage) = (&mut self.source, &mut self.mono, &mut self.damage);
            let rate = contain(&self.name, || source.next_block(mono, damage))?;
            self.watch.check(&self.name)?;
            let Some(rate) = rate else {
                self.end_resampler(block);
                self.check_substance()?;
                return Ok(false);
            };
            if rate != self.source_rate_hz {
                self.end_resampler(block);
                self.source_rate_hz = rate;
            }
            self.inspect()?;
            let resampler = match &mut self.resampler {
                Some(resampler) => resampler,
                none => none.insert(Resampler::new(rate, self.options.sample_rate_hz)?),
            };
            resampler.push_into(&self.mono, block);
        }
        Ok(true)
    }

    fn end_resampler(&mut self, block: &mut Vec<f32>) {
        if let Some(mut resampler) = self.resampler.take() {
            block.extend(resampler.finish());
        }
    }

    /// Checks the length, replaces what is not a number, notes what is too loud.
    fn inspect(&mut self) -> Result<(), AudioError> {
        let start_s = self.decoded_s;
        let rate = f64::from(self.source_rate_hz);
        self.n_decoded += self.mono.len() as u64;
        self.decoded_s += self.mono.len() as f64 / rate;
        let limit_s = self.options.limits.max_duration_s;
        if self.decoded_s > limit_s {
            return Err(AudioError::TooLong { name: self.name.clone(), limit_s });
        }
        let at_s = |index: usize| start_s + index as f64 / rate;
        // One pass that the compiler can vectorise. The bits of magnitudes order as the
        // magnitudes do, and those of infinity and NaN above all others.
        let magnitude = |sample: &f32| sample.to_bits() & (u32::MAX >> 1);
        let largest = self.mono.iter().map(magnitude).fold(0, u32::max);
        if largest <= LOUD.to_bits() {
            return Ok(());
        }
        let mut first_not_finite = None;
        let mut first_loud = None;
        let (mut n_not_finite, mut n_loud, mut peak) = (0, 0, 1.0_f32);
        for (index, sample) in self.mono.iter_mut().enumerate() {
            if !sample.is_finite() {
                first_not_finite.get_or_insert(index);
                n_not_finite += 1;
                *sample = 0.0;
            } else if sample.abs() > LOUD {
                first_loud.get_or_insert(index);
                n_loud += 1;
                peak = peak.max(sample.abs());
                // Now, because the resampler would overflow on the largest.
                *sample = sample.clamp(-1.0, 1.0);
            }
        }
        if let Some(index) = first_not_finite {
            self.n_not_finite += n_not_finite;
            self.damage.not_finite(at_s(index), n_not_finite);
        }
        if let Some(index) = first_loud {
            self.damage.clipped(at_s(index), n_loud, peak);
        }
        Ok(())
    }

    /// At the end: was there anything at all?
    fn check_substance(&self) -> Result<(), AudioError> {
        let name = || self.name.clone();
        match self.damage.entries().first() {
            Some(first) if self.damage.n_sound_samples() == 0 => {
                Err(AudioError::NothingDecoded { name: name(), first: first.clone() })
            }
            _ if self.n_decoded == 0 => Err(AudioError::Empty { name: name() }),
            _ if self.n_not_finite == self.n_decoded => Err(AudioError::NotFinite { name: name() }),
            _ => Ok(()),
        }
    }

    /// What was lost so far; complete once [`next_block`](Self::next_block) returned `None`.
    pub fn damage(&self) -> &[Damage] {
        self.damage.entries()
    }

    pub(super) fn into_parts(self) -> (SourceInfo, Vec<Damage>) {
        (self.source.info().clone(), self.damage.into_entries())
    }

    /// What is being decoded.
    pub fn source(&self) -> &SourceInfo {
        self.source.info()
    }
}

/// Lossy decoders overshoot full scale a little on loud material, which says nothing about
/// the input; beyond this magnitude clipping is reported.
const LOUD: f32 = 1.5;

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside a decoder whose panics become [`AudioError::DecoderPanic`].
/// A program's panic hook can ask, and stay silent about those.
pub fn panic_is_contained() -> bool {
    CONTAINED.get()
}

/// Runs a demultiplexer or decoder so that a panic in it becomes an error.
fn contain<T>(name: &str, decode: impl FnOnce() -> Result<T, AudioError>) -> Result<T, AudioError> {
    let outer = CONTAINED.replace(true);
    // Nothing that `decode` touched is used after a panic: the stream is then at its end.
    let outcome = catch_unwind(AssertUnwindSafe(decode));
    CONTAINED.set(outer);
    outcome.unwrap_or_else(|panic| {
        let message = panic
            .downcast_ref::<&str>()
            .map(|message| (*message).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "unknown failure".to_owned());
        Err(AudioError::DecoderPanic { name: name.to_owned(), message })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_can_be_decoded_on_another_thread() {
        fn assert_send<T: Send>() {}
        assert_send::<AudioStream>();
    }

    #[test]
    fn a_panic_becomes_an_error() {
        let outcome = contain("broken.xyz", || -> Result<(), AudioError> {
            assert!(panic_is_contained());
            panic!("index {} out of range", 7)
        });
        assert!(!panic_is_contained());
        match outcome {
            Err(error @ AudioError::DecoderPanic { .. }) => assert_eq!(
                error.to_string(),
                "the decoder failed on `broken.xyz`: index 7 out of range"
            ),
            other => panic!("{other:?}"),
        }
    }
}
