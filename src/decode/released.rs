//! Text and languages of released checkpoints.

use super::greedy::log_softmax;
use super::transcriber::{DecodeError, ScoredLanguage, SegmentText, Transcriber, check_candidates};
use crate::config::{Calibration, Head, LanguageUnit, SpeechModel, Wanted};
use crate::text::{CtcTokens, Language};
use asr_kernels::Precision;
use candle_core::Tensor;
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
///
/// A model with an adapter for each language writes in one language if it is told which; of
/// several that may be spoken, it takes for each clip the one whose output is surest.
#[derive(Debug)]
pub struct ReleasedTranscriber {
    model: SpeechModel,
    /// Adapters and tokens in use, of a model that has them for each language.
    units: Vec<Arc<LanguageUnit>>,
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
        let units = match model.head() {
            Head::Languages(units) if languages.is_empty() => vec![Arc::clone(units.own())],
            Head::Languages(units) => {
                languages.iter().map(|language| units.get(language)).collect::<Result<_, _>>()?
            }
            _ => Vec::new(),
        };
        Ok(Self { model, units, precision })
    }

    /// The checkpoint.
    #[must_use]
    pub fn model(&self) -> &SpeechModel {
        &self.model
    }

    /// The languages whose adapters are in use, by their names in the model.
    pub fn languages(&self) -> impl Iterator<Item = &str> {
        self.units.iter().map(|unit| unit.language.as_str())
    }

    /// What a clip's logits say, one tensor for each adapter in use.
    fn read(
        &self,
        logits: &[Tensor],
        candidates: Option<&[Language]>,
    ) -> Result<SegmentText, DecodeError> {
        let values = |logits: &Tensor| logits.flatten_all()?.to_vec1::<f32>();
        match (self.model.head(), logits) {
            (Head::Classifier { labels, .. }, [logits, ..]) => {
                let mut log_probs = values(logits)?;
                log_softmax(&mut log_probs, labels.len());
                let languages = ranked(labels, &log_probs, candidates);
                Ok(SegmentText { languages, ..SegmentText::default() })
            }
            (Head::Ctc { tokens: Some(tokens), .. }, [logits, ..]) => {
                let Greedy { text, score, .. } = greedy(tokens, values(logits)?);
                Ok(SegmentText { text, score, ..SegmentText::default() })
            }
            (Head::Languages(_), logits) => {
                let heard = self.units.iter().zip(logits).map(|(unit, logits)| {
                    let code = unit.language.parse::<Language>().ok();
                    Ok((code, greedy(&unit.tokens, values(logits)?)))
                });
                Ok(surest(heard.collect::<Result<_, DecodeError>>()?))
            }
            _ => Ok(SegmentText::default()),
        }
    }
}

/// The likeliest tokens of a clip.
struct Greedy {
    text: String,
    /// Mean probability of the tokens that are not blank, 0 without text.
    score: f64,
    /// Probability of the best path, the geometric mean over its frames.
    sureness: f64,
}

fn greedy(tokens: &CtcTokens, mut logits: Vec<f32>) -> Greedy {
    log_softmax(&mut logits, tokens.len());
    let mut best = Vec::new();
    let (mut heard_total, mut heard, mut path) = (0.0, 0_usize, 0.0);
    for row in logits.chunks_exact(tokens.len()) {
        let first = (0, f32::NEG_INFINITY);
        let (id, score) = row
            .iter()
            .enumerate()
            .fold(first, |best, (id, &score)| if score > best.1 { (id, score) } else { best });
        path += f64::from(score);
        if id as u32 != tokens.blank() {
            heard_total += f64::from(score).exp();
            heard += 1;
        }
        best.push(id as u32);
    }
    let text = tokens.decode(&best);
    let score = if text.is_empty() { 0.0 } else { heard_total / heard as f64 };
    Greedy { text, score, sureness: (path / best.len().max(1) as f64).exp() }
}

/// What the adapter says whose best path is the most probable; the languages are ranked by that,
/// which is a comparison, no measured probability. Nobody speaks where it says nothing.
fn surest(mut heard: Vec<(Option<Language>, Greedy)>) -> SegmentText {
    heard.sort_by(|(_, a), (_, b)| b.sureness.total_cmp(&a.sureness));
    let total: f64 = heard.iter().map(|(_, greedy)| greedy.sureness).sum();
    let scored = |(code, greedy): &(Option<Language>, Greedy)| {
        let score = if total > 0.0 { greedy.sureness / total } else { 0.0 };
        Some(ScoredLanguage { code: (*code)?, score })
    };
    let languages = heard.iter().filter_map(scored).collect();
    match heard.into_iter().next() {
        Some((_, Greedy { text, score, .. })) if !text.is_empty() => {
            SegmentText { text, score, languages, ..SegmentText::default() }
        }
        _ => SegmentText::default(),
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
        // Each clip once for each language, all in one batch.
        let languages: Vec<Option<&str>> = match self.units.len() {
            0 => vec![None],
            _ => self.languages().map(Some).collect(),
        };
        let each = languages.len();
        let repeated: Vec<&[f32]> =
            clips.iter().flat_map(|clip| std::iter::repeat_n(*clip, each)).collect();
        let outputs = self.model.run(&repeated, &languages.repeat(clips.len()), wanted)?;
        let logits = outputs.logits.unwrap_or_default();
        logits.chunks(each).map(|logits| self.read(logits, candidates)).collect()
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
        match self.model.head() {
            Head::Ctc { tokens, .. } => tokens.is_some(),
            Head::Languages(_) => true,
            Head::None | Head::Classifier { .. } => false,
        }
    }

    fn names_languages(&self) -> bool {
        matches!(self.model.head(), Head::Classifier { .. })
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
            let code = Some(code.parse().expect("a code"));
            (code, Greedy { text: text.to_owned(), score: 0.7, sureness })
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
