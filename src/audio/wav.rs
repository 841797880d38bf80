//! Writing WAV files.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::audio::AudioError;

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
    let temporary = temporary_path(path);
    let written = write_file(&temporary, samples, sample_rate_hz, format, data_bytes)
        .and_then(|()| std::fs::rename(&temporary, path));
    written.map_err(|source| {
        // The write error is the one worth reporting, whether or not this works.
        let _ = std::fs::remove_file(&temporary);
        AudioError::Write { path: path.to_owned(), source }
    })
}

/// A hidden neighbour of `path`, on the same file system, unique to this process.
fn temporary_path(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.part", std::process::id()));
    path.with_file_name(name)
}

fn write_file(
    path: &Path,
    samples: &[f32],
    sample_rate_hz: u32,
    format: WavFormat,
    data_bytes: u32,
) -> io::Result<()> {
    let (tag, sample_bytes) = match format {
        WavFormat::S16 => (FORMAT_PCM, 2_u16),
        WavFormat::F32 => (FORMAT_IEEE_FLOAT, 4),
    };
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(b"RIFF")?;
    file.write_all(&(HEADER_BYTES - 8 + data_bytes).to_le_bytes())?;
    file.write_all(b"WAVEfmt ")?;
    file.write_all(&16_u32.to_le_bytes())?;
    file.write_all(&tag.to_le_bytes())?;
    file.write_all(&1_u16.to_le_bytes())?;
    file.write_all(&sample_rate_hz.to_le_bytes())?;
    file.write_all(&sample_rate_hz.wrapping_mul(u32::from(sample_bytes)).to_le_bytes())?;
    file.write_all(&sample_bytes.to_le_bytes())?;
    file.write_all(&(8 * sample_bytes).to_le_bytes())?;
    file.write_all(b"data")?;
    file.write_all(&data_bytes.to_le_bytes())?;
    for &sample in samples {
        match format {
            WavFormat::S16 => file.write_all(&to_i16(sample).to_le_bytes())?,
            WavFormat::F32 => file.write_all(&sample.to_le_bytes())?,
        }
    }
    file.into_inner()?.sync_all()
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
    fn a_missing_directory_is_an_error() {
        let path = Path::new("no/such/directory/x.wav");
        assert!(matches!(
            write_wav(path, &[0.0], 16_000, WavFormat::S16),
            Err(AudioError::Write { .. })
        ));
    }
}
