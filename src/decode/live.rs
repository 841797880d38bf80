//! Live speech: what is said so far twice a second, and what was said at every pause.

use super::reader::FrameModel;
use super::stream::{Piece, Stream, StreamOptions};
use super::transcriber::{DecodeError, SegmentText};
use crate::text::Language;

/// Speech is first looked at this long after it has begun, in seconds.
const FIRST_LOOK_S: f64 = 0.5;
/// From one look to the next, in seconds.
const REFRESH_S: f64 = 0.5;

/// What is understood of live speech.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveSegment {
    /// Beginning in seconds of the stream.
    pub start_s: f64,
    /// End in seconds of the stream; of speech that goes on, what was heard last.
    pub end_s: f64,
    /// When the voice began, in seconds of the stream.
    pub voice_start_s: f64,
    /// Whether the speaker has paused; else it is the beginning of what will be said.
    pub is_final: bool,
    /// Text and languages.
    pub understood: SegmentText,
}

/// Understands speech while it is spoken.
///
/// Speech ends at a pause of 0.6 s, or after about 20 s without one. Final segments are those of a
/// [`Stream`] of the same samples, however they arrive.
#[derive(Debug)]
pub struct Live<'a> {
    stream: Stream<'a>,
    model: &'a dyn FrameModel,
    candidates: Option<&'a [Language]>,
    /// When the voice began that is not final yet.
    voice_start_s: Option<f64>,
    last_look_s: f64,
    /// Whether a beginning of what is not final yet was handed out.
    is_shown: bool,
}

impl<'a> Live<'a> {
    /// Listens with `model`; `candidates` restricts the languages.
    #[must_use]
    pub fn new(model: &'a dyn FrameModel, candidates: Option<&'a [Language]>) -> Self {
        Self {
            stream: Stream::new(model, StreamOptions::default()).among(candidates),
            model,
            candidates,
            voice_start_s: None,
            last_look_s: 0.0,
            is_shown: false,
        }
    }

    /// Seconds heard so far.
    #[must_use]
    pub fn duration_s(&self) -> f64 {
        self.stream.duration_s()
    }

    /// Whether somebody speaks.
    #[must_use]
    pub fn is_speaking(&self) -> bool {
        self.voice_start_s.is_some()
    }

    /// Takes samples at 16 kHz; returns the segments that have ended, then the beginning of the
    /// one that goes on if it was not looked at for half a second.
    ///
    /// # Errors
    /// [`DecodeError`] if the model cannot be run.
    pub fn push(&mut self, samples: &[f32]) -> Result<Vec<LiveSegment>, DecodeError> {
        let mut segments = Vec::new();
        // By the tenth of a second, so that no voice begins and ends unseen.
        for samples in samples.chunks(1_600) {
            let pieces = self.stream.push(samples)?;
            segments.extend(pieces.iter().filter_map(|piece| self.ended(piece)));
            self.voice_start_s = self.voice_start_s.or_else(|| self.stream.speaking_since_s());
        }
        segments.extend(self.look()?);
        Ok(segments)
    }

    /// What is not final yet. The stream begins anew.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn finish(&mut self) -> Result<Vec<LiveSegment>, DecodeError> {
        let next = Stream::new(self.model, StreamOptions::default()).among(self.candidates);
        let pieces = std::mem::replace(&mut self.stream, next).finish()?;
        Ok(pieces.iter().filter_map(|piece| self.ended(piece)).collect())
    }

    fn ended(&mut self, piece: &Piece) -> Option<LiveSegment> {
        let voice_start_s = self.voice_start_s.take();
        let was_shown = std::mem::take(&mut self.is_shown);
        let understood = self.model.read_piece(piece, self.candidates);
        // What was shown is taken back by an end without text.
        let is_told = was_shown || !understood.languages.is_empty() || !understood.text.is_empty();
        is_told.then(|| LiveSegment {
            start_s: piece.start_s,
            end_s: piece.end_s,
            voice_start_s: voice_start_s.unwrap_or(piece.start_s),
            is_final: true,
            understood,
        })
    }

    fn look(&mut self) -> Result<Option<LiveSegment>, DecodeError> {
        let Some(voice_start_s) = self.voice_start_s else { return Ok(None) };
        let now_s = self.duration_s();
        if now_s < voice_start_s + FIRST_LOOK_S || now_s < self.last_look_s + REFRESH_S {
            return Ok(None);
        }
        self.last_look_s = now_s;
        let Some(piece) = self.stream.pending()? else { return Ok(None) };
        let understood = self.model.read_piece(&piece, self.candidates);
        if understood.languages.is_empty() && understood.text.is_empty() && !self.is_shown {
            return Ok(None);
        }
        self.is_shown = true;
        let Piece { start_s, end_s, .. } = piece;
        Ok(Some(LiveSegment { start_s, end_s, voice_start_s, is_final: false, understood }))
    }
}
