//! Text and languages of released checkpoints.

use super::decoding::Decoding;
use super::greedy::log_softmax;
use super::language::LanguageSource;
use super::reader::{FrameModel, Reader};
use super::times::FrameTimes;
use super::tokens::Tokens;
use super::transcriber::{
    DecodeError, Heard, ScoredLanguage, SegmentText, Transcriber, check_candidates,
};
use crate::config::{Calibration, Head, LanguageUnit, SpeechModel, Wanted};
use crate::text::Language;
use asr_kernels::Precision;
use std::ops::Range;
use std::sync::Arc;

/// What turns clips into text, languages or both.
pub trait Transcribe: Send + Sync {
    /// Decodes clips of 16 kHz samples as one batch; each result is what the clip alone would
    /// give. `candidates` restricts the languages.
    ///
    /// # Errors
    /// [`DecodeError`] if none of the candidates is known or the model cannot be run.
    fn transcribe(
        &self,
        clips: &[&[f32]],
        candidates: Option<&[Language]>,
    ) -> Result<Vec<SegmentText>, DecodeError>;

    /// Checks that the model knows one of the languages asked for, where it tells languages apart.
    ///
    /// # Errors
    /// [`DecodeError::UnknownLanguages`].
    fn check_languages(&self, candidates: Option<&[Language]>) -> Result<(), DecodeError>;

    /// Whether it writes down what is said.
    fn writes_text(&self) -> bool;

    /// Whether it names the language.
    fn names_languages(&self) -> bool;

    /// The calibration of its language scores, if it has one.
    fn calibration(&self) -> Option<Calibration> {
        None
    }

    /// The model frame by frame, where it is a CTC model with known tokens and one set of them:
    /// for streams and alignments.
    fn frames(&self) -> Option<&dyn FrameModel> {
        None
    }

    /// Searches for text in another way than by the best path; says nothing to a model that
    /// writes none.
    fn set_decoding(&mut self, decoding: Decoding);

    /// Takes the language from elsewhere.
    ///
    /// # Errors
    /// [`DecodeError::NoAuxiliary`] if the model has no choice of sources.
    fn set_language_source(&mut self, source: LanguageSource) -> Result<(), DecodeError> {
        if source == LanguageSource::Auto { Ok(()) } else { Err(DecodeError::NoAuxiliary) }
    }
}

impl Transcribe for Transcriber {
    fn transcribe(
        &self,
        clips: &[&[f32]],
        candidates: Option<&[Language]>,
    ) -> Result<Vec<SegmentText>, DecodeError> {
        self.transcribe(clips, candidates)
    }

    fn check_languages(&self, candidates: Option<&[Language]>) -> Result<(), DecodeError> {
        self.check_languages(candidates)
    }

    fn writes_text(&self) -> bool {
        true
    }

    fn names_languages(&self) -> bool {
        true
    }

    fn calibration(&self) -> Option<Calibration> {
        self.calibration()
    }

    fn frames(&self) -> Option<&dyn FrameModel> {
        Some(self)
    }

    fn set_decoding(&mut self, decoding: Decoding) {
        self.set_decoding(decoding);
    }

    fn set_language_source(&mut self, source: LanguageSource) -> Result<(), DecodeError> {
        Self::set_language_source(self, source)
    }
}

/// A released checkpoint ready to decode: frame by frame where it is a CTC model, by the
/// classes' probabilities where it is a classifier of languages.
///
/// A model with an adapter for each language writes in one language if it is told which; of
/// several that may be spoken, it takes for each clip the one whose output is surest.
#[derive(Debug)]
pub struct ReleasedTranscriber {
    model: Arc<SpeechModel>,
    /// The model with known tokens: once, or for each of the languages asked for.
    ctc: Vec<ReleasedCtc>,
    precision: Precision,
}

/// A checkpoint that writes text frame by frame.
#[derive(Debug)]
struct ReleasedCtc {
    model: Arc<SpeechModel>,
    /// Adapter and tokens in use, of a model that has them for each language.
    unit: Option<Arc<LanguageUnit>>,
    reader: Reader,
    precision: Precision,
}

impl ReleasedTranscriber {
    /// Prepares a checkpoint; `languages` pick the adapters of a model that has one for each,
    /// by their names in the model or by any code of the language. Without any it is the
    /// model's own.
    ///
    /// # Errors
    /// [`DecodeError`] if a language has no adapter.
    pub fn new(
        model: SpeechModel,
        languages: &[&str],
        precision: Precision,
    ) -> Result<Self, DecodeError> {
        let units: Vec<Arc<LanguageUnit>> = match model.head() {
            Head::Languages(units) if languages.is_empty() => vec![Arc::clone(units.own())],
            Head::Languages(units) => {
                languages.iter().map(|language| units.get(language)).collect::<Result<_, _>>()?
            }
            _ => Vec::new(),
        };
        let model = Arc::new(model);
        let ctc = |unit: Option<Arc<LanguageUnit>>, tokens: Tokens| ReleasedCtc {
            model: Arc::clone(&model),
            reader: Reader::new(tokens, times(&model)),
            unit,
            precision,
        };
        let ctc = match model.head() {
            Head::Ctc { tokens: Some(tokens), .. } => vec![ctc(None, tokens.into())],
            _ => {
                let of_unit = |unit: Arc<LanguageUnit>| {
                    let tokens = (&unit.tokens).into();
                    ctc(Some(unit), tokens)
                };
                units.into_iter().map(of_unit).collect()
            }
        };
        Ok(Self { model, ctc, precision })
    }

    /// The checkpoint.
    #[must_use]
    pub fn model(&self) -> &SpeechModel {
        &self.model
    }

    /// The languages whose adapters are in use, by their names in the model.
    pub fn languages(&self) -> impl Iterator<Item = &str> {
        self.ctc.iter().filter_map(ReleasedCtc::language)
    }

    fn classify(&self, mut logits: Vec<f32>, candidates: Option<&[Language]>) -> SegmentText {
        let Head::Classifier { labels, .. } = self.model.head() else {
            return SegmentText::default();
        };
        log_softmax(&mut logits, labels.len());
        let languages = ranked(labels, &logits, candidates);
        SegmentText { languages, ..SegmentText::default() }
    }
}

impl ReleasedCtc {
    fn language(&self) -> Option<&str> {
        self.unit.as_ref().map(|unit| unit.language.as_str())
    }

    /// Each clip as this language has it: its code, probability of the best path (the geometric
    /// mean over its frames) and text.
    fn attempts(&self, clips: &[&[f32]]) -> Result<Vec<Attempt>, DecodeError> {
        let code = self.language().and_then(|name| name.parse().ok());
        let vocab = self.reader.tokens().len();
        let attempt = |(heard, clip): (Heard, &&[f32])| {
            let rows = heard.log_probs.chunks_exact(vocab);
            let frames = rows.len();
            let highest = |row: &[f32]| row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let path: f64 = rows.map(|row| f64::from(highest(row))).sum();
            let text = self.read(&heard, 0..frames, 0.0, clip.len() as f64 / 16_000.0, None);
            Attempt { code, sureness: (path / frames.max(1) as f64).exp(), text }
        };
        Ok(self.hear(clips)?.into_iter().zip(clips).map(attempt).collect())
    }
}

/// A clip as one language has it.
struct Attempt {
    code: Option<Language>,
    sureness: f64,
    text: SegmentText,
}

/// What the adapter says whose best path is the most probable; the languages are ranked by that,
/// which is a comparison, no measured probability. Nobody speaks where it says nothing.
fn surest(mut heard: Vec<Attempt>) -> SegmentText {
    heard.sort_by(|a, b| b.sureness.total_cmp(&a.sureness));
    let total: f64 = heard.iter().map(|attempt| attempt.sureness).sum();
    let scored = |attempt: &Attempt| {
        let score = if total > 0.0 { attempt.sureness / total } else { 0.0 };
        Some(ScoredLanguage { code: attempt.code?, score })
    };
    let languages = heard.iter().filter_map(scored).collect();
    match heard.into_iter().next() {
        Some(Attempt { text, .. }) if !text.text.is_empty() => SegmentText { languages, ..text },
        _ => SegmentText::default(),
    }
}

/// Logits of each clip as the model computes them; none of a bare encoder.
fn logits(
    model: &SpeechModel,
    clips: &[&[f32]],
    language: Option<&str>,
    precision: Precision,
) -> Result<Vec<Vec<f32>>, DecodeError> {
    if clips.is_empty() {
        return Ok(Vec::new());
    }
    let wanted = Wanted { precision, hidden_states: false, parity: false };
    let outputs = model.run(clips, &vec![language; clips.len()], wanted)?;
    let logits = outputs.logits.unwrap_or_default();
    logits.iter().map(|logits| Ok(logits.flatten_all()?.to_vec1()?)).collect()
}

/// When the frames of a model are whose output has the frame rate of its convolutions.
fn times(model: &SpeechModel) -> FrameTimes {
    let encoder = model.encoder().config();
    FrameTimes {
        first_s: encoder.receptive_field() as f64 / 2.0 / 16_000.0,
        step_s: encoder.input_stride() as f64 / 16_000.0,
    }
}

impl FrameModel for ReleasedCtc {
    fn hear(&self, clips: &[&[f32]]) -> Result<Vec<Heard>, DecodeError> {
        let tokens = self.reader.tokens();
        let heard = |mut log_probs: Vec<f32>| {
            tokens.blank_first(&mut log_probs);
            log_softmax(&mut log_probs, tokens.len());
            Heard { log_probs, ..Heard::default() }
        };
        let logits = logits(&self.model, clips, self.language(), self.precision)?;
        Ok(logits.into_iter().map(heard).collect())
    }

    fn reader(&self) -> &Reader {
        &self.reader
    }

    fn languages(&self, _heard: &Heard, _candidates: Option<&[Language]>) -> Vec<ScoredLanguage> {
        Vec::new()
    }

    fn read(
        &self,
        heard: &Heard,
        core: Range<usize>,
        from_s: f64,
        end_s: f64,
        _candidates: Option<&[Language]>,
    ) -> SegmentText {
        let language = self.language().and_then(|name| name.parse().ok());
        let found = self.reader.text(&heard.log_probs, &core, from_s, end_s, language);
        SegmentText {
            languages: language
                .filter(|_| !found.text.is_empty())
                .map(|code| ScoredLanguage { code, score: 1.0 })
                .into_iter()
                .collect(),
            text: found.text,
            score: found.score,
            words: found.words,
            location: None,
        }
    }
}

impl Transcribe for ReleasedTranscriber {
    fn transcribe(
        &self,
        clips: &[&[f32]],
        candidates: Option<&[Language]>,
    ) -> Result<Vec<SegmentText>, DecodeError> {
        match self.ctc.as_slice() {
            [] => {
                let logits = logits(&self.model, clips, None, self.precision)?;
                Ok(logits.into_iter().map(|row| self.classify(row, candidates)).collect())
            }
            [ctc] => ctc.read_clips(clips, candidates),
            several => {
                let mut heard: Vec<Vec<Attempt>> = clips.iter().map(|_| Vec::new()).collect();
                for ctc in several {
                    for (clip, attempt) in heard.iter_mut().zip(ctc.attempts(clips)?) {
                        clip.push(attempt);
                    }
                }
                Ok(heard.into_iter().map(surest).collect())
            }
        }
    }

    fn check_languages(&self, candidates: Option<&[Language]>) -> Result<(), DecodeError> {
        match self.model.head() {
            Head::Classifier { labels, .. } => check_candidates(candidates, |language| {
                labels
                    .iter()
                    .any(|label| label.parse().is_ok_and(|code: Language| code == language))
            }),
            _ => Ok(()),
        }
    }

    fn writes_text(&self) -> bool {
        !self.ctc.is_empty()
    }

    fn names_languages(&self) -> bool {
        matches!(self.model.head(), Head::Classifier { .. })
    }

    fn frames(&self) -> Option<&dyn FrameModel> {
        match self.ctc.as_slice() {
            [ctc] => Some(ctc),
            _ => None,
        }
    }

    fn set_decoding(&mut self, decoding: Decoding) {
        for ctc in &mut self.ctc {
            ctc.reader.set_decoding(decoding.clone());
        }
    }
}

/// Languages by their probability among those allowed, the likeliest first. Classes whose
/// name is no language are left out.
fn ranked(
    labels: &[String],
    log_probs: &[f32],
    candidates: Option<&[Language]>,
) -> Vec<ScoredLanguage> {
    let mut ranked: Vec<ScoredLanguage> = labels
        .iter()
        .zip(log_probs)
        .filter_map(|(label, log_prob)| {
            let code = label.parse().ok()?;
            Some(ScoredLanguage { code, score: f64::from(*log_prob).exp() })
        })
        .filter(|language| candidates.is_none_or(|c| c.contains(&language.code)))
        .collect();
    let total: f64 = ranked.iter().map(|language| language.score).sum();
    for language in &mut ranked {
        language.score = if total > 0.0 { language.score / total } else { 0.0 };
    }
    ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
    ranked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_surest_language_is_taken_and_silence_is_none() {
        let heard = |code: &str, text: &str, sureness| {
            let text = SegmentText { text: text.to_owned(), score: 0.7, ..SegmentText::default() };
            Attempt { code: Some(code.parse().expect("a code")), sureness, text }
        };
        let best = surest(vec![heard("eng", "a", 0.3), heard("fra", "b", 0.5)]);
        assert_eq!((best.text.as_str(), best.score), ("b", 0.7));
        let codes: Vec<&str> = best.languages.iter().map(|l| l.code.code()).collect();
        assert_eq!(codes, ["fra", "eng"]);
        assert!((best.languages[0].score - 0.625).abs() < 1e-12);
        assert_eq!(surest(vec![heard("eng", "", 0.9), heard("fra", "b", 0.5)]).languages, []);
    }

    #[test]
    fn languages_are_ranked_among_the_candidates() {
        let labels = ["eng", "fra", "LABEL_2?", "swe"].map(str::to_owned);
        let log_probs = [0.2_f32, 0.5, 0.2, 0.1].map(f32::ln);
        let all = ranked(&labels, &log_probs, None);
        assert_eq!(all.len(), 3);
        assert_eq!(all[0].code.to_string(), "fra");
        assert!((all[0].score - 0.5 / 0.8).abs() < 1e-6);
        let (eng, swe) = ("eng".parse().expect("a code"), "swe".parse().expect("a code"));
        let some = ranked(&labels, &log_probs, Some(&[eng, swe]));
        assert_eq!(some[0].code, eng);
        assert!((some[0].score - 2.0 / 3.0).abs() < 1e-6);
    }
}
