//! What to know and do about an input before the demultiplexer sees it.
//!
//! Symphonia recognises the formats by itself. Looking first is for what it leaves out:
//! padding in MP4 and Matroska, WAV headers with broken lengths, files that are cut off,
//! pipes of formats that need seeking.

use std::io::{Cursor, Read, Seek, SeekFrom};

use symphonia::core::io::{MediaSource, ReadOnlySource};

use crate::audio::input::{Guarded, Watch};
use crate::audio::trim::Padding;
use crate::audio::wav_header::WavHeader;
use crate::audio::{AudioError, matroska, mp4};

/// Bytes looked at to tell the formats apart.
const SNIFF_BYTES: u64 = 12;

/// An input ready for the demultiplexer.
pub(super) struct Prepared {
    pub(super) media: Box<dyn MediaSource>,
    /// Per track, what the demultiplexer does not trim.
    pub(super) paddings: Vec<Padding>,
    /// The file is known to be cut off.
    pub(super) truncated: bool,
}

/// Families of formats that need different care.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Wav,
    Mp4,
    Matroska,
    /// The demultiplexer looks at the end for the length or the packet table.
    Seeking,
    /// Read from front to back. MP3 among them: with the length of the file at hand the
    /// demultiplexer estimates the number of samples and cuts off what exceeds it.
    Streaming,
}

impl Kind {
    fn of(start: &[u8]) -> Self {
        if WavHeader::matches(start) {
            Self::Wav
        } else if start.get(4..8) == Some(b"ftyp") {
            Self::Mp4
        } else if start.starts_with(&[0x1A, 0x45, 0xDF, 0xA3]) {
            Self::Matroska
        } else if start.starts_with(b"OggS") || start.starts_with(b"caff") {
            Self::Seeking
        } else {
            Self::Streaming
        }
    }

    /// Whether a pipe has to be read into memory: MP4 may have its index after the data and
    /// CAF its packet table, while Ogg and Matroska only lose the declared length.
    fn needs_seeking(self, start: &[u8]) -> bool {
        self == Self::Mp4 || start.starts_with(b"caff")
    }
}

/// Looks at the start of `media`, and at its structure where that is worthwhile.
///
/// # Errors
/// [`AudioError::Empty`] without a single byte; [`AudioError::Read`]; the limits.
pub(super) fn prepare(
    mut media: Guarded,
    name: &str,
    watch: &Watch,
) -> Result<Prepared, AudioError> {
    let read_error = |source| match watch.check(name) {
        Err(limit) => limit,
        Ok(()) => AudioError::Read {
            name: name.to_owned(),
            source,
        },
    };
    let mut start = Vec::new();
    (&mut media)
        .take(SNIFF_BYTES)
        .read_to_end(&mut start)
        .map_err(read_error)?;
    if start.is_empty() {
        return Err(AudioError::Empty {
            name: name.to_owned(),
        });
    }
    let kind = Kind::of(&start);
    let mut media: Box<dyn MediaSource> = if media.is_seekable() {
        media.seek(SeekFrom::Start(0)).map_err(read_error)?;
        Box::new(media)
    } else if kind.needs_seeking(&start) {
        Box::new(Cursor::new(read_whole(start, media, name, watch)?))
    } else {
        Box::new(ReadOnlySource::new(Cursor::new(start).chain(media)))
    };
    let mut paddings = Vec::new();
    let mut streaming = kind == Kind::Streaming;
    let mut truncated = false;
    match (kind, media.byte_len().filter(|_| media.is_seekable())) {
        (Kind::Wav, len) => {
            let header = WavHeader::read(&mut media, len).map_err(read_error)?;
            media = Box::new(ReadOnlySource::new(header.before(media)));
        }
        (Kind::Mp4, Some(len)) => {
            let layout = mp4::scan(&mut media, len).map_err(read_error)?;
            paddings = layout.paddings;
            truncated = layout.truncated;
        }
        (Kind::Matroska, Some(len)) => {
            let layout = matroska::scan(&mut media, len).map_err(read_error)?;
            paddings = layout.paddings;
            truncated = layout.truncated;
        }
        (Kind::Mp4 | Kind::Matroska | Kind::Seeking | Kind::Streaming, _) => {}
    }
    if matches!(kind, Kind::Mp4 | Kind::Matroska) && media.is_seekable() {
        media.seek(SeekFrom::Start(0)).map_err(read_error)?;
    }
    // Only a cut file makes the boxes reach beyond its end.
    streaming |= truncated;
    if streaming {
        // The demultiplexers refuse boxes that reach beyond a known end.
        media = Box::new(ReadOnlySource::new(media));
    }
    Ok(Prepared {
        media,
        paddings,
        truncated,
    })
}

/// Reads a pipe into memory, within the limits.
fn read_whole(
    mut bytes: Vec<u8>,
    pipe: Guarded,
    name: &str,
    watch: &Watch,
) -> Result<Vec<u8>, AudioError> {
    let limit_bytes = watch.limits().max_buffered_bytes;
    let room = (limit_bytes + 1).saturating_sub(bytes.len() as u64);
    let outcome = pipe.take(room).read_to_end(&mut bytes);
    watch.check(name)?;
    outcome.map_err(|source| AudioError::Read {
        name: name.to_owned(),
        source,
    })?;
    if bytes.len() as u64 > limit_bytes {
        return Err(AudioError::TooManyBytes {
            name: name.to_owned(),
            limit_bytes,
        });
    }
    Ok(bytes)
}
