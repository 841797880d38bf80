//! Samples to text with a recogniser.

use super::decoding::Decoding;
use super::greedy::log_softmax;
use super::language::{
    LanguageScores, LanguageSource, calibrated, first_tokens, fused, ranked, score_classes,
    score_languages,
};
use super::reader::{FrameModel, Reader};
use super::times::FrameTimes;
use super::tokens::Tokens;
use crate::config::{Calibration, ImportError, ModelFiles, input_batch};
use crate::features::{FeatureError, InputFeatures};
use crate::model::{
    GeoPoint, IntermediateCtcConfig, Logits, Pass, Predicts, Recogniser, mean_place, place_of,
};
use crate::text::{Language, TimedWord, Vocabulary, is_unspaced};
use asr_kernels::Precision;
use std::ops::Range;

/// Below this probability of any language tag a segment is taken to hold no speech. Speech whose
/// language is in doubt leaves the tags 0.4 or more; silence, noise and hum mostly under a
/// thousandth, music at times more.
const SPEECH_THRESHOLD: f64 = 0.3;

/// A model or input that cannot be decoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The feature settings of the model.
    #[error("cannot compute the features of the model")]
    Features(#[from] FeatureError),
    /// Weights and configuration that do not fit, or a failed computation.
    #[error("cannot run the model")]
    Model(#[from] candle_core::Error),
    /// A released checkpoint that cannot be run, or has no adapter for a language.
    #[error(transparent)]
    Released(Box<ImportError>),
    /// The language asked of what the model does not have.
    #[error("the model has no choice of where the language is taken from")]
    NoAuxiliary,
    /// Languages asked for of which the model knows none.
    #[error("the model knows none of the languages asked for: {asked}")]
    UnknownLanguages {
        /// Their codes.
        asked: String,
    },
}

/// A language with its probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoredLanguage {
    /// The language.
    pub code: Language,
    /// Its probability, 0 to 1, among the languages allowed.
    pub score: f64,
}

/// A pause that is not part of what was said before, in seconds.
const LONG_PAUSE_S: f64 = 1.0;

/// What was understood of one segment; the default is nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SegmentText {
    /// Text in normal form; empty where nobody speaks.
    pub text: String,
    /// Mean probability of the characters, 0 to 1; 0 without text.
    pub score: f64,
    /// Languages, most likely first; empty where nobody speaks.
    pub languages: Vec<ScoredLanguage>,
    /// The words of the text with times from the beginning of the input.
    pub words: Vec<TimedWord>,
    /// Where on the map the voice points; only models with a head for it know.
    pub location: Option<GeoPoint>,
}

/// What was understood of an input.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Transcription {
    /// Languages over all segments, most likely first; empty where nobody speaks.
    pub languages: Vec<ScoredLanguage>,
    /// Segments with start and end in seconds.
    pub segments: Vec<(f64, f64, SegmentText)>,
}

impl Transcription {
    /// The text of all segments, with a space in between where their scripts have spaces.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (_, _, segment) in &self.segments {
            let unspaced = |c: Option<char>| c.is_none_or(is_unspaced);
            let (before, after) = (text.chars().last(), segment.text.chars().next());
            if before.is_some() && after.is_some() && !(unspaced(before) && unspaced(after)) {
                text.push(' ');
            }
            text.push_str(&segment.text);
        }
        text
    }

    /// The words of all segments.
    pub fn words(&self) -> impl Iterator<Item = &TimedWord> {
        self.segments.iter().flat_map(|(_, _, segment)| &segment.words)
    }

    /// Stretches of one language each, in seconds, which cover all of `duration_s`; `None` where
    /// for a second or more nobody speaks. The score is the mean over the time that is spoken.
    #[must_use]
    pub fn language_changes(&self, duration_s: f64) -> Vec<(f64, f64, Option<ScoredLanguage>)> {
        let mut stretches: Vec<(f64, f64, Option<ScoredLanguage>)> = Vec::new();
        // Seconds that are spoken in the last stretch.
        let mut spoken_s = 0.0;
        let mut add = |start_s: f64, end_s: f64, heard: Option<ScoredLanguage>| {
            let length_s = end_s - start_s;
            match (stretches.last_mut(), heard) {
                (Some((_, end, None)), None) => *end = end_s,
                (Some((_, end, Some(last))), Some(heard)) if last.code == heard.code => {
                    *end = end_s;
                    let total_s: f64 = spoken_s + length_s;
                    last.score += (heard.score - last.score) * length_s / total_s.max(1e-9);
                    spoken_s = total_s;
                }
                (before, heard) => {
                    // A short pause belongs to what was said before.
                    let start_s = before.map_or(0.0, |last| {
                        last.1 = start_s;
                        start_s
                    });
                    stretches.push((start_s, end_s, heard));
                    spoken_s = length_s;
                }
            }
        };
        let mut last_s = 0.0;
        for (start_s, end_s, segment) in &self.segments {
            if start_s - last_s >= LONG_PAUSE_S {
                add(last_s, *start_s, None);
            }
            add(*start_s, *end_s, segment.languages.first().copied());
            last_s = *end_s;
        }
        if duration_s - last_s >= LONG_PAUSE_S || self.segments.is_empty() {
            add(last_s, duration_s, None);
        } else if let Some(last) = stretches.last_mut() {
            last.1 = duration_s;
        }
        stretches
    }

    /// The language that is spoken, if its score reaches `threshold`.
    #[must_use]
    pub fn language(&self, threshold: f64) -> Option<ScoredLanguage> {
        self.languages.first().copied().filter(|language| language.score >= threshold)
    }

    /// The middle of where the segments point, weighed by their length.
    #[must_use]
    pub fn location(&self) -> Option<GeoPoint> {
        let pointing = self.segments.iter();
        mean_place(pointing.filter_map(|(start, end, s)| Some((s.location?, end - start))))
    }

    /// Adds the next segment and weighs its languages by its length.
    pub fn push(&mut self, start_s: f64, end_s: f64, segment: SegmentText) {
        let spoken: f64 = self
            .segments
            .iter()
            .filter(|(_, _, s)| !s.languages.is_empty())
            .map(|(a, b, _)| b - a)
            .sum();
        if !segment.languages.is_empty() {
            let weight = (end_s - start_s) / (spoken + end_s - start_s).max(1e-9);
            for language in &mut self.languages {
                language.score *= 1.0 - weight;
            }
            for new in &segment.languages {
                match self.languages.iter_mut().find(|l| l.code == new.code) {
                    Some(language) => language.score += weight * new.score,
                    None => self
                        .languages
                        .push(ScoredLanguage { code: new.code, score: weight * new.score }),
                }
            }
            self.languages.sort_by(|a, b| b.score.total_cmp(&a.score));
        }
        self.segments.push((start_s, end_s, segment));
    }
}

/// What the model makes of a clip, before it is read.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Heard {
    /// Natural-log probabilities of the tokens in each frame, `(frames, vocab)`.
    pub log_probs: Vec<f32>,
    /// Cosine to each language, of a model with a head for it.
    pub cosines: Option<Vec<f32>>,
    /// Probability that a CTC output inside the encoder begins with each language, of a model
    /// with one that names languages.
    pub inside: Option<Vec<f64>>,
    /// Where on the map the voice points; only models that know places say.
    pub place: Option<GeoPoint>,
}

/// A model ready to decode.
#[derive(Debug)]
pub struct Transcriber {
    model: Recogniser,
    vocabulary: Vocabulary,
    input: InputFeatures,
    calibration: Option<Calibration>,
    source: LanguageSource,
    has_auxiliary: bool,
    precision: Precision,
    reader: Reader,
}

impl Transcriber {
    /// Builds the model of `files`.
    ///
    /// # Errors
    /// [`DecodeError`] if its parts do not fit each other.
    pub fn new(files: &ModelFiles, precision: Precision) -> Result<Self, DecodeError> {
        let (input, encoder) = (files.config.input(), &files.config.encoder);
        let (step_ms, window_ms) = input.step_ms();
        // A frame sees `seen` windows of the input, each a step after the other.
        let (per_frame, sees) = files.config.downstream.frame();
        let stride = encoder.input_stride();
        let seen = encoder.receptive_field() + (sees - 1) * stride;
        let seen_ms = seen.saturating_sub(1) as f64 * step_ms + window_ms;
        let times = FrameTimes {
            first_s: seen_ms / 2000.0,
            step_s: (stride * per_frame) as f64 * step_ms / 1000.0,
        };
        let joint = &files.config.joint;
        let inside =
            joint.intermediate_ctc.as_ref().is_some_and(IntermediateCtcConfig::names_languages);
        Ok(Self {
            model: Recogniser::new(&files.recogniser_config(), &files.parameters)?,
            vocabulary: files.vocabulary.clone(),
            reader: Reader::new(Tokens::from(&files.vocabulary), times),
            input: InputFeatures::new(&input)?,
            source: LanguageSource::Auto,
            has_auxiliary: joint.language.is_some() || inside,
            calibration: files.config.calibration,
            precision,
        })
    }

    /// The tokens of the model.
    #[must_use]
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// The calibration of the model's language scores, if it has one.
    #[must_use]
    pub fn calibration(&self) -> Option<Calibration> {
        self.calibration
    }

    /// Searches for text in another way than by the best path.
    pub fn set_decoding(&mut self, decoding: Decoding) {
        self.reader.set_decoding(decoding);
    }

    /// Takes the language from elsewhere. Scores are calibrated for [`LanguageSource::Auto`] only.
    ///
    /// # Errors
    /// [`DecodeError::NoAuxiliary`] if the model has nothing but the tag and more is asked for.
    pub fn set_language_source(&mut self, source: LanguageSource) -> Result<(), DecodeError> {
        if matches!(source, LanguageSource::Aux | LanguageSource::Both) && !self.has_auxiliary {
            return Err(DecodeError::NoAuxiliary);
        }
        if source != LanguageSource::Auto {
            self.calibration = None;
        }
        self.source = source;
        Ok(())
    }

    /// Checks that the model knows one of the languages asked for.
    ///
    /// # Errors
    /// [`DecodeError::UnknownLanguages`].
    pub fn check_languages(&self, candidates: Option<&[Language]>) -> Result<(), DecodeError> {
        check_candidates(candidates, |language| self.vocabulary.id_of_language(language).is_some())
    }

    /// Decodes clips as one batch; each result is what the clip alone would give.
    ///
    /// `clips` are samples at 16 kHz; `candidates` restricts the languages.
    ///
    /// # Errors
    /// [`DecodeError`] if none of the candidates is known or the model cannot be run.
    pub fn transcribe(
        &self,
        clips: &[&[f32]],
        candidates: Option<&[Language]>,
    ) -> Result<Vec<SegmentText>, DecodeError> {
        self.check_languages(candidates)?;
        self.read_clips(clips, candidates)
    }

    /// Probability of each language's tag being the first token of clip `clip`.
    fn first_tags(&self, logits: &Logits, clip: usize) -> candle_core::Result<Vec<f64>> {
        let valid = logits.values.get(clip)?.narrow(0, 0, logits.lengths[clip])?;
        let width = valid.dim(1)?;
        let mut log_probs = valid.flatten_all()?.to_vec1()?;
        log_softmax(&mut log_probs, width);
        Ok(first_tokens(&log_probs, width, self.vocabulary.language_ids()))
    }
}

impl FrameModel for Transcriber {
    fn hear(&self, clips: &[&[f32]]) -> Result<Vec<Heard>, DecodeError> {
        if clips.is_empty() {
            return Ok(Vec::new());
        }
        let input = input_batch(&self.input, clips)?;
        let output = self.model.forward(&input, &Pass::inference(self.precision))?;
        let tap = output.intermediate.iter().rev().find(|tap| tap.0 != Predicts::Text);
        let (logits, language) = (output.high, output.language.as_ref());
        // The head's place where there is one, else the last that was predicted on the way.
        let places = language.and_then(|l| l.location.as_ref()).or(output.places.last());
        let vocab = self.vocabulary.len();
        logits
            .lengths
            .iter()
            .enumerate()
            .map(|(i, &frames)| {
                let mut log_probs =
                    logits.values.get(i)?.narrow(0, 0, frames)?.flatten_all()?.to_vec1()?;
                log_softmax(&mut log_probs, vocab);
                let cosines = language.map(|l| l.cosines.get(i)?.to_vec1::<f32>()).transpose()?;
                let place = places.map(|p| p.get(i)?.to_vec1::<f32>()).transpose()?;
                let inside = tap.map(|(_, logits)| self.first_tags(logits, i)).transpose()?;
                let place = place.and_then(|vector| place_of(&vector));
                Ok(Heard { log_probs, cosines, inside, place })
            })
            .collect()
    }

    fn reader(&self) -> &Reader {
        &self.reader
    }

    fn languages(&self, heard: &Heard, candidates: Option<&[Language]>) -> Vec<ScoredLanguage> {
        let LanguageScores { ranked: tags, mass } =
            score_languages(&heard.log_probs, &self.vocabulary, candidates);
        if mass < SPEECH_THRESHOLD {
            return Vec::new();
        }
        let head = || {
            let cosines = heard.cosines.as_ref()?;
            Some(score_classes(cosines, &self.vocabulary, candidates))
        };
        let auxiliary = || {
            let inside = || Some(ranked(heard.inside.as_ref()?, &self.vocabulary, candidates));
            head().or_else(inside)
        };
        let mut ranked = match self.source {
            LanguageSource::Auto => head().unwrap_or(tags),
            LanguageSource::Tag => tags,
            LanguageSource::Aux => auxiliary().unwrap_or(tags),
            LanguageSource::Both => match auxiliary() {
                Some(auxiliary) => fused(&tags, &auxiliary),
                None => tags,
            },
        };
        if let Some(calibration) = self.calibration {
            calibrated(&mut ranked, calibration.temperature);
        }
        ranked.into_iter().map(|(code, score)| ScoredLanguage { code, score }).collect()
    }

    fn read(
        &self,
        heard: &Heard,
        core: Range<usize>,
        from_s: f64,
        end_s: f64,
        candidates: Option<&[Language]>,
    ) -> SegmentText {
        let languages = self.languages(heard, candidates);
        let Some(best) = languages.first() else { return SegmentText::default() };
        let found = self.reader.text(&heard.log_probs, &core, from_s, end_s, Some(best.code));
        SegmentText {
            text: found.text,
            score: found.score,
            languages,
            words: found.words,
            location: heard.place,
        }
    }
}

/// Checks that one of the `candidates`, if there are any, is `known`.
pub(super) fn check_candidates(
    candidates: Option<&[Language]>,
    known: impl Fn(Language) -> bool,
) -> Result<(), DecodeError> {
    match candidates {
        Some(asked) if !asked.iter().any(|&language| known(language)) => {
            let asked: Vec<String> = asked.iter().map(ToString::to_string).collect();
            Err(DecodeError::UnknownLanguages { asked: asked.join(", ") })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_weighed_by_length_and_silence_has_no_say() {
        let language =
            |code: &str, score| ScoredLanguage { code: code.parse().expect("a code"), score };
        let said = |languages| SegmentText {
            text: "x".into(),
            score: 1.0,
            languages,
            words: vec![],
            location: Some(GeoPoint { latitude: 0.0, longitude: 10.0 }),
        };
        let mut all = Transcription::default();
        all.push(0.0, 10.0, said(vec![language("eng", 0.9), language("deu", 0.1)]));
        all.push(10.5, 12.0, SegmentText::default());
        all.push(40.0, 70.0, said(vec![language("deu", 1.0)]));
        assert_eq!(all.text(), "x x");
        assert_eq!(all.languages[0].code, "deu".parse().expect("a code"));
        assert!((all.languages[0].score - 0.775).abs() < 1e-9);
        assert!((all.languages[1].score - 0.225).abs() < 1e-9);
        assert_eq!(all.language(0.7), all.languages.first().copied());
        assert_eq!(all.language(0.8), None);
        let place = all.location().expect("two segments point somewhere");
        assert!((place.longitude - 10.0).abs() < 1e-9 && place.latitude.abs() < 1e-9);
        all.push(70.5, 80.5, said(vec![language("deu", 0.6)]));
        let found = all.language_changes(81.0);
        let changes: Vec<(f64, f64, bool)> =
            found.iter().map(|c| (c.0, c.1, c.2.is_some())).collect();
        assert_eq!(changes, [(0.0, 10.5, true), (10.5, 40.0, false), (40.0, 81.0, true)]);
        assert!(found[2].2.is_some_and(|deu| (deu.score - 0.9).abs() < 1e-9));
        assert_eq!(Transcription::default().language_changes(3.0), [(0.0, 3.0, None)]);
        assert_eq!(all.language_changes(90.0)[3], (80.5, 90.0, None));
    }
}
