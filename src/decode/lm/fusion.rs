//! What is added to the acoustic score of a hypothesis: language model, length, hotwords.

use super::hotwords::{HotState, Hotwords};
use super::ngram::{LmState, NgramModel, WordId};
use crate::decode::tokens::Tokens;
use crate::text::spelling;
use std::collections::HashMap;
use std::sync::Arc;
use unicode_normalization::UnicodeNormalization;

/// The characters that tokens stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alphabet {
    /// Empty for the blank, language tags and the like.
    spelt: Vec<Box<[char]>>,
    /// Whether the case of words says nothing: they are compared in small letters.
    ignores_case: bool,
}

impl Alphabet {
    /// Of the tokens of a model; a space is `' '`.
    #[must_use]
    pub fn of(tokens: &Tokens) -> Self {
        let spell = |id| tokens.spelling_of(id).map(|text| spelling(&text).collect());
        Self {
            spelt: (0..tokens.len() as u32).map(|id| spell(id).unwrap_or_default()).collect(),
            ignores_case: tokens.has_capitals_only(),
        }
    }

    /// Character by token id; `None` for tokens that are no text.
    #[must_use]
    pub fn from_characters(characters: impl IntoIterator<Item = Option<char>>) -> Self {
        let spell = |c: Option<char>| {
            c.map_or_else(Box::default, |c| spelling(c.encode_utf8(&mut [0; 4])).collect())
        };
        Self { spelt: characters.into_iter().map(spell).collect(), ignores_case: false }
    }

    /// Number of tokens.
    #[must_use]
    pub fn n_tokens(&self) -> usize {
        self.spelt.len()
    }

    /// Whether `token` is text.
    #[must_use]
    pub fn is_text(&self, token: u32) -> bool {
        self.spelt.get(token as usize).is_some_and(|spelt| !spelt.is_empty())
    }

    pub(super) fn spells(&self, c: char) -> bool {
        self.spelt.iter().any(|spelt| spelt.contains(&c))
    }
}

/// What the words of an n-gram model are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LmUnit {
    /// Words between spaces.
    Word,
    /// Single characters, the space (written `|`, `<space>` or `▁`) among them.
    Character,
}

/// Spellings of words as a trie.
#[derive(Debug, Clone)]
struct Lexicon {
    children: HashMap<(u32, char), u32>,
    /// Of each node: the word that ends there, the best unigram below it.
    words: Vec<(Option<WordId>, f32)>,
    /// What a word that is not in it costs alone.
    unknown: f32,
}

/// Node before the first character of a word.
const START: u32 = 0;
/// No word of the lexicon begins like this.
const ASTRAY: u32 = u32::MAX;

impl Lexicon {
    fn new(ngrams: &NgramModel, ignores_case: bool) -> Self {
        let unknown = ngrams.unigram(None);
        let mut lexicon = Self { children: HashMap::new(), words: vec![(None, unknown)], unknown };
        for (word, id) in ngrams.words() {
            if matches!(word, "<s>" | "</s>" | "<unk>" | "<UNK>") {
                continue;
            }
            let log10 = ngrams.unigram(Some(id));
            let mut node = START;
            let small = if ignores_case { word.to_lowercase() } else { word.to_owned() };
            for c in spelling(&small) {
                let new = lexicon.words.len() as u32;
                node = *lexicon.children.entry((node, c)).or_insert(new);
                if node == new {
                    lexicon.words.push((None, unknown));
                }
                let best = &mut lexicon.words[node as usize].1;
                *best = best.max(log10);
            }
            lexicon.words[node as usize].0 = Some(id);
        }
        lexicon
    }

    fn step(&self, node: u32, c: char) -> u32 {
        self.children.get(&(node, c)).copied().unwrap_or(ASTRAY)
    }

    fn word(&self, node: u32) -> Option<WordId> {
        self.words.get(node as usize).and_then(|(word, _)| *word)
    }

    fn best(&self, node: u32) -> f32 {
        self.words.get(node as usize).map_or(self.unknown, |(_, best)| *best)
    }
}

#[derive(Debug, Clone)]
enum Units {
    Words(Lexicon),
    /// By token.
    Characters(Vec<Option<WordId>>),
}

/// An n-gram model that reads the tokens of an alphabet.
#[derive(Debug, Clone)]
pub struct LanguageModel {
    ngrams: NgramModel,
    units: Units,
}

impl LanguageModel {
    /// Fits a model to an alphabet. Without `unit`, a model all of whose words are single
    /// characters is one of characters.
    #[must_use]
    pub fn new(ngrams: NgramModel, unit: Option<LmUnit>, alphabet: &Alphabet) -> Self {
        let single = |word: &str| {
            matches!(word, "<s>" | "</s>" | "<unk>" | "<UNK>" | "<space>")
                || word.nfc().nth(1).is_none()
        };
        let unit = unit.unwrap_or_else(|| {
            if ngrams.words().all(|(word, _)| single(word)) {
                LmUnit::Character
            } else {
                LmUnit::Word
            }
        });
        let units = match unit {
            LmUnit::Word => Units::Words(Lexicon::new(&ngrams, alphabet.ignores_case)),
            LmUnit::Character => {
                let find = |spelt: &[char]| match spelt {
                    [' '] => ["|", "<space>", "▁"].iter().find_map(|word| ngrams.word(word)),
                    _ => {
                        let composed: String = spelt.iter().copied().nfc().collect();
                        let capital = || ngrams.word(&composed.to_uppercase());
                        let other = || alphabet.ignores_case.then(capital).flatten();
                        ngrams.word(&composed).or_else(other)
                    }
                };
                Units::Characters(alphabet.spelt.iter().map(|spelt| find(spelt)).collect())
            }
        };
        Self { ngrams, units }
    }

    /// What its words are.
    #[must_use]
    pub fn unit(&self) -> LmUnit {
        match self.units {
            Units::Words(_) => LmUnit::Word,
            Units::Characters(_) => LmUnit::Character,
        }
    }
}

/// How much a language model has to say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LmWeights {
    /// Factor of its natural-log probability.
    pub weight: f64,
    /// Nats for each word (each character of a character model).
    pub bonus: f64,
    /// Whether the probability of the end of the sentence counts.
    pub closed: bool,
}

impl Default for LmWeights {
    fn default() -> Self {
        Self { weight: 0.5, bonus: 0.5, closed: true }
    }
}

/// The scores that a search adds to the acoustic one:
/// `weight * ln P(text) + bonus * units + hotwords`.
#[derive(Debug, Clone)]
pub struct Fusion {
    alphabet: Arc<Alphabet>,
    model: Option<(Arc<LanguageModel>, LmWeights)>,
    hotwords: Option<Arc<Hotwords>>,
}

/// What a [`Fusion`] remembers of a hypothesis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FusionState {
    lm: LmState,
    spelt: u32,
    log10: f64,
    units: u32,
    hot: HotState,
}

impl Fusion {
    /// With nothing to add: see [`with_model`](Self::with_model) and
    /// [`with_hotwords`](Self::with_hotwords).
    #[must_use]
    pub fn new(alphabet: Arc<Alphabet>) -> Self {
        Self { alphabet, model: None, hotwords: None }
    }

    /// Adds a language model, made for the same alphabet.
    #[must_use]
    pub fn with_model(self, model: Arc<LanguageModel>, weights: LmWeights) -> Self {
        Self { model: Some((model, weights)), ..self }
    }

    /// Adds hotwords.
    #[must_use]
    pub fn with_hotwords(self, hotwords: Arc<Hotwords>) -> Self {
        Self { hotwords: Some(hotwords), ..self }
    }

    /// The tokens it reads.
    #[must_use]
    pub fn alphabet(&self) -> &Alphabet {
        &self.alphabet
    }

    /// The state before any token.
    #[must_use]
    pub fn start(&self) -> FusionState {
        FusionState {
            lm: self.model.as_ref().map_or_else(LmState::default, |(m, _)| m.ngrams.start()),
            spelt: START,
            log10: 0.0,
            units: 0,
            hot: HotState::default(),
        }
    }

    /// The state after one more token.
    #[must_use]
    pub fn advance(&self, mut state: FusionState, token: u32) -> FusionState {
        let spelt = self.alphabet.spelt.get(token as usize).map_or(&[][..], |s| s);
        if let Some((model, _)) = &self.model {
            match &model.units {
                Units::Characters(ids) => {
                    let id = ids.get(token as usize).copied().flatten();
                    let (log10, next) = model.ngrams.score(state.lm, id);
                    state.log10 += f64::from(log10);
                    state.lm = next;
                    state.units += 1;
                }
                Units::Words(lexicon) => {
                    for &c in spelt {
                        if c == ' ' {
                            close_word(&mut state, &model.ngrams, lexicon);
                        } else {
                            state.spelt = lexicon.step(state.spelt, c);
                        }
                    }
                }
            }
        }
        if let Some(hotwords) = &self.hotwords {
            for &c in spelt {
                state.hot = hotwords.advance(state.hot, c);
            }
        }
        state
    }

    /// Nats to rank an unfinished hypothesis by: a begun word counts as the likeliest word
    /// that begins so, a begun hotword as if it were finished.
    #[must_use]
    pub fn outlook(&self, state: FusionState) -> f64 {
        let mut nats = 0.0;
        if let Some((model, weights)) = &self.model {
            let (mut log10, mut units) = (state.log10, state.units);
            if let Units::Words(lexicon) = &model.units
                && state.spelt != START
            {
                log10 += f64::from(lexicon.best(state.spelt));
                units += 1;
            }
            nats += weighted(weights, log10, units);
        }
        nats + self.hotwords.as_ref().map_or(0.0, |hotwords| hotwords.outlook(state.hot))
    }

    /// Nats of a finished hypothesis, and the log10 probability of its text.
    #[must_use]
    pub fn total(&self, mut state: FusionState) -> (f64, f64) {
        let mut nats = 0.0;
        if let Some((model, weights)) = &self.model {
            if let Units::Words(lexicon) = &model.units {
                close_word(&mut state, &model.ngrams, lexicon);
            }
            if weights.closed {
                state.log10 += f64::from(model.ngrams.end(state.lm));
            }
            nats += weighted(weights, state.log10, state.units);
        }
        nats += self.hotwords.as_ref().map_or(0.0, |hotwords| hotwords.total(state.hot));
        (nats, state.log10)
    }
}

fn weighted(weights: &LmWeights, log10: f64, units: u32) -> f64 {
    weights.weight * std::f64::consts::LN_10 * log10 + weights.bonus * f64::from(units)
}

/// Scores the word begun, if one is.
fn close_word(state: &mut FusionState, ngrams: &NgramModel, lexicon: &Lexicon) {
    if state.spelt != START {
        let (log10, next) = ngrams.score(state.lm, lexicon.word(state.spelt));
        state.log10 += f64::from(log10);
        state.lm = next;
        state.units += 1;
        state.spelt = START;
    }
}
