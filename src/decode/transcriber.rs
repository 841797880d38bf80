//! Samples to text with a recogniser.

use super::greedy::{best_path, log_softmax};
use super::language::{LanguageScores, calibrated, score_classes, score_languages};
use crate::config::{Calibration, ImportError, ModelFiles};
use crate::features::{FeatureError, FeatureNorm, Features, LogMel, normalise_utterance};
use crate::model::{GeoPoint, Pass, Recogniser, Sequence, mean_place, place_of};
use crate::text::{Language, Vocabulary};
use asr_kernels::Precision;
use candle_core::{Device, Tensor};

/// Below this probability of any language tag a segment is taken to hold no speech.
const SPEECH_THRESHOLD: f64 = 0.5;

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

/// What was understood of one segment.
#[derive(Debug, Clone, PartialEq)]
pub struct SegmentText {
    /// Text in normal form; empty where nobody speaks.
    pub text: String,
    /// Mean probability of the characters, 0 to 1; 0 without text.
    pub score: f64,
    /// Languages, most likely first; empty where nobody speaks.
    pub languages: Vec<ScoredLanguage>,
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
    /// The text of all segments.
    #[must_use]
    pub fn text(&self) -> String {
        let texts: Vec<&str> = self
            .segments
            .iter()
            .map(|(_, _, s)| s.text.as_str())
            .filter(|t| !t.is_empty())
            .collect();
        texts.join(" ")
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

/// A model ready to decode.
#[derive(Debug)]
pub struct Transcriber {
    model: Recogniser,
    vocabulary: Vocabulary,
    log_mel: LogMel,
    norm: FeatureNorm,
    calibration: Option<Calibration>,
    precision: Precision,
}

impl Transcriber {
    /// Builds the model of `files`.
    ///
    /// # Errors
    /// [`DecodeError`] if its parts do not fit each other.
    pub fn new(files: &ModelFiles, precision: Precision) -> Result<Self, DecodeError> {
        Ok(Self {
            model: Recogniser::new(&files.recogniser_config(), &files.parameters)?,
            vocabulary: files.vocabulary.clone(),
            log_mel: LogMel::new(files.config.features.clone())?,
            norm: files.config.feature_norm,
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

    /// Decodes segments as one batch; each result is what the segment alone would give.
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
        if let Some(asked) = candidates
            && !asked.iter().any(|&l| self.vocabulary.id_of_language(l).is_some())
        {
            let asked: Vec<String> = asked.iter().map(ToString::to_string).collect();
            return Err(DecodeError::UnknownLanguages { asked: asked.join(", ") });
        }
        if clips.is_empty() {
            return Ok(Vec::new());
        }
        let features: Vec<Features> = clips
            .iter()
            .map(|clip| {
                let mut features = self.log_mel.compute(clip);
                normalise_utterance(&mut features, self.norm);
                features
            })
            .collect();
        let output = self.model.forward(&batch(&features)?, &Pass::inference(self.precision))?;
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
                let mut text = self.read(&log_probs, cosines.as_deref(), candidates);
                if !text.languages.is_empty() {
                    text.location = place.and_then(|vector| place_of(&vector));
                }
                Ok(text)
            })
            .collect()
    }

    /// Text and languages from log-probabilities and, of a model with a language head, cosines.
    fn read(
        &self,
        log_probs: &[f32],
        cosines: Option<&[f32]>,
        candidates: Option<&[Language]>,
    ) -> SegmentText {
        let LanguageScores { mut ranked, mass } =
            score_languages(log_probs, &self.vocabulary, candidates);
        if mass < SPEECH_THRESHOLD {
            let text = String::new();
            return SegmentText { text, score: 0.0, languages: Vec::new(), location: None };
        }
        if let Some(cosines) = cosines {
            ranked = score_classes(cosines, &self.vocabulary, candidates);
        }
        if let Some(calibration) = self.calibration {
            calibrated(&mut ranked, calibration.temperature);
        }
        let characters: Vec<_> = best_path(log_probs, self.vocabulary.len(), |_| true)
            .into_iter()
            .filter(|token| !self.vocabulary.is_language(token.id))
            .collect();
        let ids: Vec<u32> = characters.iter().map(|token| token.id).collect();
        let text = self.vocabulary.decode(&ids).trim().to_owned();
        let total: f64 = characters.iter().map(|token| f64::from(token.log_prob).exp()).sum();
        SegmentText {
            score: if text.is_empty() { 0.0 } else { total / characters.len() as f64 },
            text,
            languages: ranked
                .into_iter()
                .map(|(code, score)| ScoredLanguage { code, score })
                .collect(),
            location: None,
        }
    }
}

/// Pads features to a batch.
fn batch(features: &[Features]) -> candle_core::Result<Sequence> {
    let frames = features.iter().map(|f| f.n_frames).max().unwrap_or(0);
    let bins = features.first().map_or(0, |f| f.n_bins);
    let mut values = vec![0.0; features.len() * frames * bins];
    for (row, clip) in values.chunks_exact_mut((frames * bins).max(1)).zip(features) {
        row[..clip.data.len()].copy_from_slice(&clip.data);
    }
    Ok(Sequence {
        hidden: Tensor::from_vec(values, (features.len(), frames, bins), &Device::Cpu)?,
        lengths: features.iter().map(|f| f.n_frames).collect(),
    })
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
            location: Some(GeoPoint { latitude: 0.0, longitude: 10.0 }),
        };
        let mut all = Transcription::default();
        all.push(0.0, 10.0, said(vec![language("eng", 0.9), language("deu", 0.1)]));
        let silence =
            SegmentText { text: String::new(), score: 0.0, languages: vec![], location: None };
        all.push(10.0, 40.0, silence);
        all.push(40.0, 70.0, said(vec![language("deu", 1.0)]));
        assert_eq!(all.text(), "x x");
        assert_eq!(all.languages[0].code, "deu".parse().expect("a code"));
        assert!((all.languages[0].score - 0.775).abs() < 1e-9);
        assert!((all.languages[1].score - 0.225).abs() < 1e-9);
        assert_eq!(all.language(0.7), all.languages.first().copied());
        assert_eq!(all.language(0.8), None);
        let place = all.location().expect("two segments point somewhere");
        assert!((place.longitude - 10.0).abs() < 1e-9 && place.latitude.abs() < 1e-9);
    }
}
