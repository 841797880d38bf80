//! How text is searched for: the best path, or a beam with language models and hotwords.

use super::align::align;
use super::beam::{BeamOptions, beam_search};
use super::greedy::{Token, best_path};
use super::lm::{Alphabet, Fusion, Hotwords, LanguageModel, LmWeights};
use super::tokens::Tokens;
use crate::text::Language;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// How text is searched for in log-probabilities.
///
/// The default is the best path: the likeliest token of each frame.
#[derive(Debug, Clone, Default)]
pub struct Decoding {
    /// Width of the search; `None` is the best path, for which the rest has no meaning.
    pub beam: Option<BeamOptions>,
    /// A language model for every language.
    pub model: Option<Arc<LanguageModel>>,
    /// Language models that replace it where their language is spoken.
    pub models: HashMap<Language, Arc<LanguageModel>>,
    /// What the language models have to say.
    pub weights: LmWeights,
    /// Words that are preferred.
    pub hotwords: Option<Arc<Hotwords>>,
}

impl Decoding {
    fn fusion(&self, alphabet: &Arc<Alphabet>, language: Option<Language>) -> Fusion {
        let mut fusion = Fusion::new(Arc::clone(alphabet));
        let own = language.and_then(|language| self.models.get(&language));
        if let Some(model) = own.or(self.model.as_ref()) {
            fusion = fusion.with_model(Arc::clone(model), self.weights);
        }
        match &self.hotwords {
            Some(hotwords) => fusion.with_hotwords(Arc::clone(hotwords)),
            None => fusion,
        }
    }

    /// The characters in frames `core` of `log_probs`, language tags left out, with frames
    /// counted from the beginning of `log_probs`.
    pub(super) fn characters(
        &self,
        log_probs: &[f32],
        core: &Range<usize>,
        tokens: &Tokens,
        alphabet: &Arc<Alphabet>,
        language: Option<Language>,
    ) -> Vec<Token> {
        let vocab = tokens.len();
        let Some(options) = &self.beam else {
            // A character that began before the core is part of the piece before.
            return best_path(log_probs, vocab, |_| true)
                .into_iter()
                .filter(|token| !tokens.tags().contains(&token.id) && core.contains(&token.start))
                .collect();
        };
        let mut rows = log_probs[core.start * vocab..core.end * vocab].to_vec();
        for row in rows.chunks_exact_mut(vocab) {
            tokens.tags_to_blank(row);
        }
        let fusion = self.fusion(alphabet, language);
        let found = beam_search(&rows, &fusion, options);
        let ids = found.into_iter().next().map(|best| best.tokens).unwrap_or_default();
        // What the search has found fits into the frames.
        let spans = align(&rows, vocab, &ids, 0).map(|found| found.spans).unwrap_or_default();
        ids.iter()
            .zip(&spans)
            .map(|(&id, span)| Token {
                id,
                start: core.start + span.start as usize,
                end: core.start + span.end as usize,
                log_prob: span.log_prob as f32,
            })
            .collect()
    }
}
