//! Frames of a model to text with words and their times.

use super::decoding::Decoding;
use super::lm::Alphabet;
use super::stream::Piece;
use super::times::{FrameTimes, words};
use super::tokens::Tokens;
use super::transcriber::{DecodeError, Heard, ScoredLanguage, SegmentText};
use crate::text::{Language, TimedWord, has_letter};
use std::ops::Range;
use std::sync::Arc;

/// A CTC model that hears frame by frame: what streams, word times and alignments need.
pub trait FrameModel: std::fmt::Debug + Send + Sync {
    /// What the model makes of each clip of 16 kHz samples, computed as one batch; each result
    /// is what the clip alone would give.
    ///
    /// # Errors
    /// [`DecodeError`] if the model cannot be run.
    fn hear(&self, clips: &[&[f32]]) -> Result<Vec<Heard>, DecodeError>;

    /// Languages of what was heard, the likeliest first; none where nobody speaks, or of a model
    /// that does not tell languages apart.
    fn languages(&self, heard: &Heard, candidates: Option<&[Language]>) -> Vec<ScoredLanguage>;

    /// Languages of what was heard, and text in its frames `core`; it begins at `from_s`, and no
    /// word ends after `end_s`. `candidates` restricts the languages.
    fn read(
        &self,
        heard: &Heard,
        core: Range<usize>,
        from_s: f64,
        end_s: f64,
        candidates: Option<&[Language]>,
    ) -> SegmentText;

    /// How its frames are read.
    fn reader(&self) -> &Reader;

    /// Decodes whole clips of 16 kHz samples as one batch.
    ///
    /// # Errors
    /// As [`hear`](Self::hear).
    fn read_clips(
        &self,
        clips: &[&[f32]],
        candidates: Option<&[Language]>,
    ) -> Result<Vec<SegmentText>, DecodeError> {
        let heard = self.hear(clips)?;
        let texts = heard.iter().zip(clips).map(|(heard, clip)| {
            let whole = 0..heard.log_probs.len() / self.reader().tokens().len();
            self.read(heard, whole, 0.0, clip.len() as f64 / 16_000.0, candidates)
        });
        Ok(texts.collect())
    }

    /// Decodes a piece of a stream.
    fn read_piece(&self, piece: &Piece, candidates: Option<&[Language]>) -> SegmentText {
        self.read(&piece.heard, piece.core.clone(), piece.window_start_s, piece.end_s, candidates)
    }
}

/// The tokens of a model, when its frames are, and how text is searched for in them.
#[derive(Debug)]
pub struct Reader {
    tokens: Tokens,
    times: FrameTimes,
    alphabet: Arc<Alphabet>,
    decoding: Decoding,
}

/// Text found in frames.
pub(super) struct Found {
    pub(super) text: String,
    /// Mean over the characters of the mean probability of each over its frames; 0 without text.
    pub(super) score: f64,
    pub(super) words: Vec<TimedWord>,
}

impl Reader {
    /// Reads by the best path.
    #[must_use]
    pub fn new(tokens: Tokens, times: FrameTimes) -> Self {
        let alphabet = Arc::new(Alphabet::of(&tokens));
        Self { tokens, times, alphabet, decoding: Decoding::default() }
    }

    /// The tokens of the model.
    #[must_use]
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// When the frames of the model are.
    #[must_use]
    pub fn frame_times(&self) -> FrameTimes {
        self.times
    }

    /// The characters of the tokens, for language models.
    #[must_use]
    pub fn alphabet(&self) -> &Alphabet {
        &self.alphabet
    }

    /// Searches for text in another way than by the best path.
    pub fn set_decoding(&mut self, decoding: Decoding) {
        self.decoding = decoding;
    }

    /// The frames of a piece with the probability of the language tags added to that of the
    /// blank, `(frames, vocab)`: what an alignment of the text listens to.
    #[must_use]
    pub fn text_log_probs(&self, piece: &Piece) -> Vec<f32> {
        let vocab = self.tokens.len();
        let core = piece.core.start * vocab..piece.core.end * vocab;
        let mut rows = piece.heard.log_probs[core].to_vec();
        for row in rows.chunks_exact_mut(vocab) {
            self.tokens.tags_to_blank(row);
        }
        rows
    }

    /// The text in frames `core` of `log_probs`, `(frames, vocab)`, as spoken in `language`.
    pub(super) fn text(
        &self,
        log_probs: &[f32],
        core: &Range<usize>,
        from_s: f64,
        end_s: f64,
        language: Option<Language>,
    ) -> Found {
        let characters =
            self.decoding.characters(log_probs, core, &self.tokens, &self.alphabet, language);
        let ids: Vec<u32> = characters.iter().map(|token| token.id).collect();
        let text = self.tokens.decode(&ids).trim().to_owned();
        // Noise can sound like a vowel sign: without a letter it is no text.
        if !has_letter(&text) {
            return Found { text: String::new(), score: 0.0, words: Vec::new() };
        }
        let total: f64 = characters.iter().map(|token| f64::from(token.log_prob).exp()).sum();
        let mut words = words(&characters, &self.tokens, self.times, from_s);
        for word in &mut words {
            word.start_s = word.start_s.min(end_s);
            word.end_s = word.end_s.min(end_s);
        }
        let score = total / characters.len() as f64;
        Found { text, score, words }
    }
}
