//! Microphones, at their own rate and with their own channels, through whatever the system has
//! (ALSA, WASAPI, CoreAudio; the crate `cpal`).

use super::AudioError;
use super::live::{LiveCounts, LiveInput, LiveReader, LiveState, LiveWriter, live_ring};
use cpal::traits::{DeviceTrait, HostTrait, StreamTrait};
use cpal::{ErrorKind, SampleFormat, StreamConfig};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Room for this much sound between the device and its listener.
const RING_S: usize = 30;
/// A device that gives no sound for this long is taken to be gone.
const SILENT_DEVICE: Duration = Duration::from_secs(3);
/// How often a device that is gone is looked for.
const RETRY: Duration = Duration::from_millis(500);

/// A microphone of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MicrophoneInfo {
    /// Name to ask for it by.
    pub name: String,
    /// What it is, in the words of the system.
    pub description: String,
    /// Its own rate, if it says.
    pub sample_rate_hz: Option<u32>,
    /// Its own channels, if it says.
    pub n_channels: Option<usize>,
    /// Whether it is the one listened to if none is named.
    pub is_default: bool,
}

fn device_error(name: Option<&str>) -> impl Fn(cpal::Error) -> AudioError {
    let name = name.unwrap_or("default").to_owned();
    move |source| AudioError::Device { name: name.clone(), source: Box::new(source) }
}

/// The microphones of this machine, the default first.
///
/// # Errors
/// [`AudioError::Device`] if the system does not tell.
pub fn microphones() -> Result<Vec<MicrophoneInfo>, AudioError> {
    let host = cpal::default_host();
    let default = host.default_input_device().and_then(|device| device.id().ok());
    let devices = host.input_devices().map_err(device_error(None))?;
    let mut found: Vec<MicrophoneInfo> = devices
        .filter_map(|device| {
            let id = device.id().ok()?;
            let config = device.default_input_config().ok();
            Some(MicrophoneInfo {
                is_default: default.as_ref() == Some(&id),
                name: id.id().to_owned(),
                description: device
                    .description()
                    .map(|about| about.name().to_owned())
                    .unwrap_or_default(),
                sample_rate_hz: config.as_ref().map(cpal::SupportedStreamConfig::sample_rate),
                n_channels: config.map(|config| usize::from(config.channels())),
            })
        })
        .collect();
    found.sort_by_key(|device| !device.is_default);
    Ok(found)
}

/// What the device's thread tells of itself.
#[derive(Debug, Default)]
struct Faults {
    overruns: AtomicU64,
    /// Why the device is gone.
    lost: Mutex<Option<String>>,
}

/// A device that is listened to.
struct Open {
    /// Dropping it stops the device.
    stream: cpal::Stream,
    reader: LiveReader,
    sample_rate_hz: u32,
    n_channels: usize,
    heard: Instant,
}

/// A microphone that is opened again after it was gone.
pub struct Microphone {
    wanted: Option<String>,
    name: String,
    faults: Arc<Faults>,
    open: Option<Open>,
    sample_rate_hz: u32,
    n_channels: usize,
    /// Dropped by rings that are no more.
    dropped_before: u64,
    arrived: Instant,
    tried: Instant,
}

impl Drop for Microphone {
    fn drop(&mut self) {
        self.close();
    }
}

impl std::fmt::Debug for Microphone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Microphone").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Microphone {
    /// Starts to listen to the microphone called `name`, by the name or a part of the
    /// description that [`microphones`] gives, or to the default one.
    ///
    /// # Errors
    /// [`AudioError::NoDevice`], or [`AudioError::Device`] if it cannot be opened.
    pub fn open(name: Option<&str>) -> Result<Self, AudioError> {
        let faults = Arc::new(Faults::default());
        let (open, name_found) = open(name, &faults)?;
        let now = Instant::now();
        Ok(Self {
            wanted: name.map(str::to_owned),
            name: name_found,
            faults,
            sample_rate_hz: open.sample_rate_hz,
            n_channels: open.n_channels,
            open: Some(open),
            dropped_before: 0,
            arrived: now,
            tried: now,
        })
    }

    /// Stops the device. One that is gone may keep whoever stops it waiting for ever, so nobody
    /// waits for that.
    fn close(&mut self) {
        let Some(Open { stream, reader, .. }) = self.open.take() else { return };
        self.dropped_before += reader.n_dropped();
        std::thread::spawn(move || drop(stream));
    }

    fn try_again(&mut self) -> LiveState {
        if self.tried.elapsed() < RETRY {
            return LiveState::Running;
        }
        self.tried = Instant::now();
        // Of a stream that is gone for good.
        self.faults = Arc::new(Faults {
            overruns: AtomicU64::new(self.faults.overruns.load(Ordering::Relaxed)),
            lost: Mutex::default(),
        });
        // Why it is not there yet is no news.
        let Ok((open, name)) = open(self.wanted.as_deref(), &self.faults) else {
            return LiveState::Running;
        };
        (self.sample_rate_hz, self.n_channels) = (open.sample_rate_hz, open.n_channels);
        self.name = name;
        self.open = Some(open);
        LiveState::Returned
    }
}

impl LiveInput for Microphone {
    fn name(&self) -> &str {
        &self.name
    }

    fn sample_rate_hz(&self) -> u32 {
        self.sample_rate_hz
    }

    fn n_channels(&self) -> usize {
        self.n_channels
    }

    fn read(&mut self, samples: &mut Vec<f32>) -> Result<LiveState, AudioError> {
        let Some(open) = &mut self.open else { return Ok(self.try_again()) };
        if open.reader.read(samples) > 0 {
            open.heard = Instant::now();
            self.arrived = open.reader.arrived();
        }
        let told = self.faults.lost.lock().unwrap_or_else(PoisonError::into_inner).take();
        let silent = || {
            let silent = open.heard.elapsed() >= SILENT_DEVICE;
            silent.then(|| format!("no sound for {} s", SILENT_DEVICE.as_secs()))
        };
        let Some(reason) = told.or_else(silent) else { return Ok(LiveState::Running) };
        self.close();
        self.tried = Instant::now();
        Ok(LiveState::Lost { reason })
    }

    fn arrived(&self) -> Instant {
        self.arrived
    }

    fn counts(&self) -> LiveCounts {
        let now = self.open.as_ref().map_or(0, |open| open.reader.n_dropped());
        LiveCounts {
            dropped: self.dropped_before + now,
            overruns: self.faults.overruns.load(Ordering::Relaxed),
        }
    }
}

/// The device of a name, or the default one.
fn find(name: Option<&str>) -> Result<cpal::Device, AudioError> {
    let host = cpal::default_host();
    let Some(name) = name else {
        return host
            .default_input_device()
            .ok_or_else(|| AudioError::NoDevice { name: "default".to_owned() });
    };
    let devices = || host.input_devices().map_err(device_error(Some(name)));
    let exact = devices()?.find(|device| device.id().is_ok_and(|id| id.id() == name));
    if let Some(device) = exact {
        return Ok(device);
    }
    let wanted = name.to_lowercase();
    let described = |device: &cpal::Device| {
        device.description().is_ok_and(|about| about.name().to_lowercase().contains(&wanted))
    };
    if let Some(device) = devices()?.find(described) {
        return Ok(device);
    }
    // Names that are not listed, such as `plughw:1`.
    let direct = host.device_by_id(&cpal::DeviceId::new(host.id(), name));
    direct.ok_or_else(|| AudioError::NoDevice { name: name.to_owned() })
}

fn open(name: Option<&str>, faults: &Arc<Faults>) -> Result<(Open, String), AudioError> {
    let error = device_error(name);
    let device = find(name)?;
    let supported = device.default_input_config().map_err(&error)?;
    let config = supported.config();
    let (sample_rate_hz, n_channels) = (config.sample_rate, usize::from(config.channels));
    let (writer, reader) = live_ring(RING_S * sample_rate_hz as usize, n_channels);
    let stream = build(&device, config, supported.sample_format(), writer, Arc::clone(faults))
        .map_err(&error)?;
    stream.play().map_err(&error)?;
    let name = device.id().map_or_else(|_| "microphone".to_owned(), |id| id.id().to_owned());
    let heard = Instant::now();
    Ok((Open { stream, reader, sample_rate_hz, n_channels, heard }, name))
}

fn build(
    device: &cpal::Device,
    config: StreamConfig,
    format: SampleFormat,
    writer: LiveWriter,
    faults: Arc<Faults>,
) -> Result<cpal::Stream, cpal::Error> {
    fn typed<T: cpal::SizedSample>(
        device: &cpal::Device,
        config: StreamConfig,
        mut writer: LiveWriter,
        faults: Arc<Faults>,
    ) -> Result<cpal::Stream, cpal::Error>
    where
        f32: cpal::FromSample<T>,
    {
        let failed = move |error: cpal::Error| match error.kind() {
            ErrorKind::Xrun => {
                faults.overruns.fetch_add(1, Ordering::Relaxed);
            }
            ErrorKind::DeviceChanged | ErrorKind::RealtimeDenied => {}
            _ => {
                let mut lost = faults.lost.lock().unwrap_or_else(PoisonError::into_inner);
                lost.get_or_insert_with(|| error.to_string());
            }
        };
        let heard = move |samples: &[T], _: &cpal::InputCallbackInfo| {
            writer.write(samples, <f32 as cpal::FromSample<T>>::from_sample_);
        };
        device.build_input_stream(config, heard, failed, None)
    }
    match format {
        SampleFormat::I8 => typed::<i8>(device, config, writer, faults),
        SampleFormat::I16 => typed::<i16>(device, config, writer, faults),
        SampleFormat::I24 => typed::<cpal::I24>(device, config, writer, faults),
        SampleFormat::I32 => typed::<i32>(device, config, writer, faults),
        SampleFormat::I64 => typed::<i64>(device, config, writer, faults),
        SampleFormat::U8 => typed::<u8>(device, config, writer, faults),
        SampleFormat::U16 => typed::<u16>(device, config, writer, faults),
        SampleFormat::U24 => typed::<cpal::U24>(device, config, writer, faults),
        SampleFormat::U32 => typed::<u32>(device, config, writer, faults),
        SampleFormat::U64 => typed::<u64>(device, config, writer, faults),
        SampleFormat::F32 => typed::<f32>(device, config, writer, faults),
        SampleFormat::F64 => typed::<f64>(device, config, writer, faults),
        _ => Err(cpal::Error::new(ErrorKind::UnsupportedConfig)),
    }
}
