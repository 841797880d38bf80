//! Text and languages of released checkpoints.

use super::greedy::log_softmax;
use super::transcriber::{DecodeError, ScoredLanguage, SegmentText, Transcriber, check_candidates};
use crate::config::{Calibration, Head, LanguageUnit, LanguageUnits, SpeechModel, Wanted};
use crate::text::{CtcTokens, Language};
use asr_kernels::Precision;
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

    /// The recogniser, where it is one of ours: with log-probabilities frame by frame, and so
    /// with times of words, seamless pieces and alignments.
    fn recogniser(&self) -> Option<&Transcriber> {
        None
    }

    /// The recogniser to be changed.
    fn recogniser_mut(&mut self) -> Option<&mut Transcriber> {
        None
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

    fn recogniser(&self) -> Option<&Transcriber> {
        Some(self)
    }

    fn recogniser_mut(&mut self) -> Option<&mut Transcriber> {
        Some(self)
    }
}

/// A released checkpoint ready to decode: greedily where it is a CTC model, by the classes'
/// probabilities where it is a classifier of languages.
#[derive(Debug)]
pub struct ReleasedTranscriber {
    model: SpeechModel,
    /// Adapters and tokens in use, of a model that has them for each language.
    unit: Option<Arc<LanguageUnit>>,
    precision: Precision,
}

impl ReleasedTranscriber {
    /// Prepares a checkpoint; `language` picks the adapter of a model that has one for each,
    /// by its name in the model or by any code of the language.
    ///
    /// # Errors
    /// [`DecodeError`] if the language has no adapter.
    pub fn new(
        model: SpeechModel,
        language: Option<&str>,
        precision: Precision,
    ) -> Result<Self, DecodeError> {
        let unit = match (model.head(), language) {
            (Head::Languages(units), Some(language)) => Some(unit(units, language)?),
            (Head::Languages(units), None) => Some(Arc::clone(units.own())),
            _ => None,
        };
        Ok(Self { model, unit, precision })
    }

    /// The checkpoint.
    #[must_use]
    pub fn model(&self) -> &SpeechModel {
        &self.model
    }

    /// The language whose adapter is in use, by its name in the model.
    #[must_use]
    pub fn language(&self) -> Option<&str> {
        self.unit.as_ref().map(|unit| unit.language.as_str())
    }

    fn tokens(&self) -> Option<&CtcTokens> {
        match (&self.unit, self.model.head()) {
            (Some(unit), _) => Some(&unit.tokens),
            (None, Head::Ctc { tokens, .. }) => tokens.as_ref(),
            _ => None,
        }
    }

    fn read(&self, mut logits: Vec<f32>, candidates: Option<&[Language]>) -> SegmentText {
        let nothing = SegmentText::default();
        if let Head::Classifier { labels, .. } = self.model.head() {
            log_softmax(&mut logits, labels.len());
            return SegmentText { languages: ranked(labels, &logits, candidates), ..nothing };
        }
        let Some(tokens) = self.tokens() else { return nothing };
        log_softmax(&mut logits, tokens.len());
        let mut best = Vec::new();
        let (mut total, mut heard) = (0.0, 0_usize);
        for row in logits.chunks_exact(tokens.len()) {
            let first = (0, f32::NEG_INFINITY);
            let (id, score) = row
                .iter()
                .enumerate()
                .fold(first, |best, (id, &score)| if score > best.1 { (id, score) } else { best });
            if id as u32 != tokens.blank() {
                total += f64::from(score).exp();
                heard += 1;
            }
            best.push(id as u32);
        }
        let text = tokens.decode(&best);
        let language = self.language().and_then(|name| name.parse().ok());
        SegmentText {
            score: if text.is_empty() { 0.0 } else { total / heard as f64 },
            languages: language
                .filter(|_| !text.is_empty())
                .map(|code| ScoredLanguage { code, score: 1.0 })
                .into_iter()
                .collect(),
            text,
            words: Vec::new(),
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
        if clips.is_empty() {
            return Ok(Vec::new());
        }
        let wanted = Wanted { precision: self.precision, hidden_states: false, parity: false };
        let outputs = self.model.run(clips, &vec![self.language(); clips.len()], wanted)?;
        outputs
            .logits
            .unwrap_or_default()
            .iter()
            .map(|logits| Ok(self.read(logits.flatten_all()?.to_vec1()?, candidates)))
            .collect()
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
        self.tokens().is_some()
    }

    fn names_languages(&self) -> bool {
        matches!(self.model.head(), Head::Classifier { .. })
    }
}

/// The unit of a language by its name in the model, or by a code that means the same.
fn unit(units: &LanguageUnits, language: &str) -> Result<Arc<LanguageUnit>, DecodeError> {
    let known = units.languages()?;
    let has = |name: &str| known.iter().any(|known| known == name);
    let code = language.parse::<Language>().map(|language| language.to_string());
    match code {
        Ok(code) if !has(language) && has(&code) => Ok(units.get(&code)?),
        _ => Ok(units.get(language)?),
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
