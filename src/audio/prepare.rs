//! What to know and do about an input before the demultiplexer sees it.
//!
//! Symphonia recognises the formats by itself. Looking first is for what it leaves out:
//! padding in MP4 and Matroska, files that are cut off, pipes of formats that need seeking,
//! and WAV headers of the kinds it refuses.

use std::io::{Cursor, Read, Seek, SeekFrom};

use symphonia::core::errors::Error;
use symphonia::core::io::{MediaSource, ReadOnlySource};

use crate::audio::input::{Guarded, Watch};
use crate::audio::ogg::OggEnd;
use crate::audio::pcm::PcmLayout;
use crate::audio::track::check_channel_count;
use crate::audio::trim::Padding;
use crate::audio::wav_header::{WavContent, WavHeader, rejoin};
use crate::audio::{AudioError, matroska, mp4, ogg};

/// Bytes looked at to tell the formats apart.
const SNIFF_BYTES: u64 = 12;

/// An input ready to be decoded.
pub(super) enum Prepared {
    /// Uncompressed samples from here on.
    Pcm(PcmLayout, Box<dyn MediaSource>),
    /// Anything else.
    Container(Medium),
}

/// An input ready for the demultiplexer.
pub(super) struct Medium {
    pub(super) media: Box<dyn MediaSource>,
    pub(super) hints: Hints,
}

/// What the demultiplexer does not say.
#[derive(Debug, Default)]
pub(super) struct Hints {
    /// Per track, what it does not trim.
    paddings: Vec<Padding>,
    /// Where the only stream of an Ogg file ends.
    ogg_end: Option<OggEnd>,
    /// The file is known to be cut off.
    pub(super) truncated: bool,
}

impl Hints {
    pub(super) fn padding(&self, track_id: u32) -> Option<&Padding> {
        self.paddings.iter().find(|padding| padding.track_id == track_id)
    }

    /// Number of frames of an Ogg track; Ogg numbers its tracks by serial.
    pub(super) fn ogg_frames(&self, track_id: u32) -> Option<u64> {
        let end = self.ogg_end.filter(|end| end.serial == track_id)?;
        Some(end.granule)
    }
}

/// Families of formats that need different care.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Wav,
    Mp4,
    Matroska,
    Ogg,
    /// The demultiplexer looks at the end for the packet table.
    Caf,
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
        } else if start.starts_with(b"OggS") {
            Self::Ogg
        } else if start.starts_with(b"caff") {
            Self::Caf
        } else {
            Self::Streaming
        }
    }

    /// Whether a pipe has to be read into memory: MP4 may have its index after the data and
    /// CAF its packet table, while Ogg and Matroska only lose the declared length.
    fn needs_seeking(self) -> bool {
        matches!(self, Self::Mp4 | Self::Caf)
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
        Ok(()) => AudioError::Read { name: name.to_owned(), source },
    };
    let mut start = Vec::new();
    (&mut media).take(SNIFF_BYTES).read_to_end(&mut start).map_err(read_error)?;
    if start.is_empty() {
        return Err(AudioError::Empty { name: name.to_owned() });
    }
    let kind = Kind::of(&start);
    let mut media: Box<dyn MediaSource> = if media.is_seekable() {
        media.seek(SeekFrom::Start(0)).map_err(read_error)?;
        Box::new(media)
    } else if kind.needs_seeking() {
        Box::new(Cursor::new(read_whole(start, media, name, watch)?))
    } else {
        Box::new(ReadOnlySource::new(Cursor::new(start).chain(media)))
    };
    let mut hints = Hints::default();
    // Ogg too: the demultiplexer would look for the end and stumble over damage there.
    let mut streaming = matches!(kind, Kind::Ogg | Kind::Streaming);
    match (kind, media.byte_len().filter(|_| media.is_seekable())) {
        (Kind::Wav, len) => {
            let header = WavHeader::read(&mut media, len).map_err(read_error)?;
            let header = header.ok_or_else(|| AudioError::Headers {
                name: name.to_owned(),
                source: Error::DecodeError("wav: no data chunk"),
            })?;
            check_channel_count(name, header.n_channels())?;
            match header.content() {
                WavContent::Pcm(layout, n_bytes) => {
                    let samples = Box::new(ReadOnlySource::new(media.take(n_bytes)));
                    return Ok(Prepared::Pcm(layout, samples));
                }
                WavContent::Other(header, n_bytes) => {
                    media = Box::new(ReadOnlySource::new(rejoin(header, media, n_bytes)));
                }
            }
        }
        (Kind::Mp4, Some(len)) => {
            let layout = mp4::scan(&mut media, len).map_err(read_error)?;
            hints.paddings = layout.paddings;
            hints.truncated = layout.truncated;
        }
        (Kind::Matroska, Some(len)) => {
            let layout = matroska::scan(&mut media, len).map_err(read_error)?;
            hints.paddings = layout.paddings;
            hints.truncated = layout.truncated;
        }
        (Kind::Ogg, Some(len)) => {
            hints.ogg_end = ogg::scan(&mut media, len).map_err(read_error)?;
        }
        (Kind::Mp4 | Kind::Matroska | Kind::Ogg | Kind::Caf | Kind::Streaming, _) => {}
    }
    if matches!(kind, Kind::Mp4 | Kind::Matroska | Kind::Ogg) && media.is_seekable() {
        media.seek(SeekFrom::Start(0)).map_err(read_error)?;
    }
    // Only a cut file makes the boxes reach beyond its end.
    streaming |= hints.truncated;
    if streaming {
        // The demultiplexers refuse boxes that reach beyond a known end.
        media = Box::new(ReadOnlySource::new(media));
    }
    Ok(Prepared::Container(Medium { media, hints }))
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
    outcome.map_err(|source| AudioError::Read { name: name.to_owned(), source })?;
    if bytes.len() as u64 > limit_bytes {
        return Err(AudioError::TooManyBytes { name: name.to_owned(), limit_bytes });
    }
    Ok(bytes)
}
