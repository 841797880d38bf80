//! Writing WAV files.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::audio::{AudioError, Resampler};
use crate::files;

/// Sample format of a written WAV file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WavFormat {
    /// Signed 16-bit integers; samples are rounded and clipped.
    S16,
    /// 32-bit floats, exactly the samples given.
    F32,
}

/// Bytes of the header before the samples: RIFF, fmt (16 bytes) and data chunk headers.
const HEADER_BYTES: u32 = 44;
/// WAVE_FORMAT_PCM and WAVE_FORMAT_IEEE_FLOAT (mmreg.h).
const FORMAT_PCM: u16 = 1;
/// See `FORMAT_PCM`.
const FORMAT_IEEE_FLOAT: u16 = 3;

/// Writes a mono WAV file. The file appears under its name only once it is complete.
///
/// # Errors
/// [`AudioError::Write`]; [`AudioError::WavTooLong`] beyond 4 GiB of samples.
pub fn write_wav(
    path: &Path,
    samples: &[f32],
    sample_rate_hz: u32,
    format: WavFormat,
) -> Result<(), AudioError> {
    let sample_bytes = match format {
        WavFormat::S16 => 2,
        WavFormat::F32 => 4,
    };
    let data_bytes = samples
        .len()
        .checked_mul(sample_bytes)
        .and_then(|bytes| u32::try_from(bytes).ok())
        .filter(|bytes| bytes.checked_add(HEADER_BYTES).is_some())
        .ok_or_else(|| AudioError::WavTooLong {
            path: path.to_owned(),
            n_samples: samples.len(),
        })?;
    write_file(&files::partial(path), samples, sample_rate_hz, format, data_bytes)
        .and_then(|()| files::put_in_place(path))
        .map_err(|source| AudioError::Write { path: path.to_owned(), source })
}

fn write_file(
    path: &Path,
    samples: &[f32],
    sample_rate_hz: u32,
    format: WavFormat,
    data_bytes: u32,
) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(&header(sample_rate_hz, format, data_bytes))?;
    write_samples(&mut file, samples, format)?;
    file.flush()
}

/// Everything before the samples.
fn header(sample_rate_hz: u32, format: WavFormat, data_bytes: u32) -> Vec<u8> {
    let (tag, sample_bytes) = match format {
        WavFormat::S16 => (FORMAT_PCM, 2_u16),
        WavFormat::F32 => (FORMAT_IEEE_FLOAT, 4),
    };
    let mut bytes = Vec::with_capacity(HEADER_BYTES as usize);
    bytes.extend(b"RIFF");
    bytes.extend((HEADER_BYTES - 8 + data_bytes).to_le_bytes());
    bytes.extend(b"WAVEfmt ");
    bytes.extend(16_u32.to_le_bytes());
    bytes.extend(tag.to_le_bytes());
    bytes.extend(1_u16.to_le_bytes());
    bytes.extend(sample_rate_hz.to_le_bytes());
    bytes.extend(sample_rate_hz.wrapping_mul(u32::from(sample_bytes)).to_le_bytes());
    bytes.extend(sample_bytes.to_le_bytes());
    bytes.extend((8 * sample_bytes).to_le_bytes());
    bytes.extend(b"data");
    bytes.extend(data_bytes.to_le_bytes());
    bytes
}

fn write_samples(file: &mut impl Write, samples: &[f32], format: WavFormat) -> io::Result<()> {
    for &sample in samples {
        match format {
            WavFormat::S16 => file.write_all(&to_i16(sample).to_le_bytes())?,
            WavFormat::F32 => file.write_all(&sample.to_le_bytes())?,
        }
    }
    Ok(())
}

/// A mono 16-bit WAV file that grows while sound comes in.
///
/// The file is complete after every [`write`](Self::write), whatever becomes of the program:
/// samples first, then the header that counts them.
pub struct WavRecorder {
    path: PathBuf,
    file: File,
    sample_rate_hz: u32,
    n_samples: usize,
    /// To the rate of the file, where sound comes in at another.
    resampler: Option<(u32, Resampler)>,
}

impl WavRecorder {
    /// Starts a file at the rate of the sound that comes first.
    ///
    /// # Errors
    /// [`AudioError::Write`].
    pub fn create(path: &Path, sample_rate_hz: u32) -> Result<Self, AudioError> {
        let write = |source| AudioError::Write { path: path.to_owned(), source };
        let mut file = File::create(path).map_err(write)?;
        file.write_all(&header(sample_rate_hz, WavFormat::S16, 0)).map_err(write)?;
        let path = path.to_owned();
        Ok(Self { path, file, sample_rate_hz, n_samples: 0, resampler: None })
    }

    /// Appends samples of a rate, which may change from call to call.
    ///
    /// # Errors
    /// [`AudioError::Write`]; [`AudioError::WavTooLong`] beyond 4 GiB; [`AudioError::SampleRate`].
    pub fn write(&mut self, samples: &[f32], sample_rate_hz: u32) -> Result<(), AudioError> {
        if self.resampler.as_ref().is_some_and(|(rate, _)| *rate != sample_rate_hz) {
            self.end_resampler()?;
        }
        if sample_rate_hz == self.sample_rate_hz {
            return self.append(samples);
        }
        let (_, resampler) = match &mut self.resampler {
            Some(resampler) => resampler,
            none => {
                none.insert((sample_rate_hz, Resampler::new(sample_rate_hz, self.sample_rate_hz)?))
            }
        };
        let resampled = resampler.push(samples);
        self.append(&resampled)
    }

    /// Writes what is left in the resampler.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn finish(mut self) -> Result<(), AudioError> {
        self.end_resampler()
    }

    fn end_resampler(&mut self) -> Result<(), AudioError> {
        match self.resampler.take() {
            Some((_, mut resampler)) => self.append(&resampler.finish()),
            None => Ok(()),
        }
    }

    fn append(&mut self, samples: &[f32]) -> Result<(), AudioError> {
        if samples.is_empty() {
            return Ok(());
        }
        let n_samples = self.n_samples + samples.len();
        let data_bytes = u32::try_from(2 * n_samples)
            .ok()
            .filter(|bytes| bytes.checked_add(HEADER_BYTES).is_some())
            .ok_or_else(|| AudioError::WavTooLong { path: self.path.clone(), n_samples })?;
        let mut bytes = Vec::with_capacity(2 * samples.len());
        let written = write_samples(&mut bytes, samples, WavFormat::S16)
            .and_then(|()| self.file.write_all(&bytes))
            .and_then(|()| self.file.rewind())
            .and_then(|()| {
                self.file.write_all(&header(self.sample_rate_hz, WavFormat::S16, data_bytes))
            })
            .and_then(|()| self.file.seek(SeekFrom::End(0)));
        written.map_err(|source| AudioError::Write { path: self.path.clone(), source })?;
        self.n_samples = n_samples;
        Ok(())
    }
}

/// Full scale is 32768, as decoding has it; 1.0 itself clips to 32767.
fn to_i16(sample: f32) -> i16 {
    (sample * 32_768.0).round() as i16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::{DecodeOptions, decode_path};

    #[test]
    fn what_is_written_is_read_back() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("written.wav");
        let samples = [0.0, 0.25, -1.0, 1.0, 1e-7];
        write_wav(&path, &samples, 16_000, WavFormat::F32).expect("write");
        let audio = decode_path(&path, &DecodeOptions::default()).expect("decode");
        assert_eq!(audio.samples, samples);
        write_wav(&path, &samples, 16_000, WavFormat::S16).expect("write");
        let audio = decode_path(&path, &DecodeOptions::default()).expect("decode");
        assert_eq!(audio.samples, [0.0, 0.25, -1.0, 32_767.0 / 32_768.0, 0.0]);
        let names: Vec<_> = std::fs::read_dir(dir.path()).expect("list").collect();
        assert_eq!(names.len(), 1, "no temporary file is left: {names:?}");
    }

    #[test]
    fn a_recording_is_whole_after_every_block_and_keeps_its_rate() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("recorded.wav");
        let options = DecodeOptions { sample_rate_hz: 48_000, ..DecodeOptions::default() };
        let mut recorder = WavRecorder::create(&path, 48_000).expect("created");
        recorder.write(&[0.25; 480], 48_000).expect("written");
        let audio = decode_path(&path, &options).expect("decodes");
        assert_eq!(audio.samples, [0.25; 480]);
        assert!(audio.damage.is_empty());
        recorder.write(&[0.25; 16_000], 16_000).expect("written");
        recorder.write(&[-0.5; 10], 48_000).expect("written");
        recorder.write(&[0.0; 441], 44_100).expect("written");
        recorder.finish().expect("written");
        let audio = decode_path(&path, &options).expect("decodes");
        assert_eq!(audio.samples.len(), 480 + 48_000 + 10 + 480);
        assert_eq!(audio.samples[48_480..48_490], [-0.5; 10]);
        assert!(audio.damage.is_empty());
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        let path = Path::new("no/such/directory/x.wav");
        assert!(matches!(
            write_wav(path, &[0.0], 16_000, WavFormat::S16),
            Err(AudioError::Write { .. })
        ));
    }
}
