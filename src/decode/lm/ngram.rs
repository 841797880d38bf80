//! A back-off n-gram model as a trie.

use std::collections::HashMap;

/// A word of an [`NgramModel`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WordId(pub(super) u32);

/// What an [`NgramModel`] remembers of the words so far: the longest history it has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct LmState(u32);

/// log10 probability of a word that the model has no `<unk>` for, as in KenLM.
const NO_UNKNOWN_LOG10: f32 = -100.0;
const ROOT: u32 = 0;

/// One n-gram. The children of a node are consecutive, sorted by word.
#[derive(Debug, Clone, Copy)]
struct Node {
    word: u32,
    log10: f32,
    backoff: f32,
    /// The longest shorter history that the model has.
    suffix: u32,
    first_child: u32,
    n_children: u32,
}

/// An n-gram language model with back-off weights, as ARPA files hold.
///
/// All probabilities are log10. Reading one is [`NgramModel::read`].
#[derive(Debug, Clone)]
pub struct NgramModel {
    order: usize,
    words: HashMap<Box<str>, u32>,
    nodes: Vec<Node>,
    /// First node of each order, and one past the last; `levels[0]` is the root.
    levels: Vec<usize>,
    unknown: Option<u32>,
    begin: Option<u32>,
    end: Option<u32>,
}

/// An n-gram as read: the node of its first words, its last word, its two numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) parent: u32,
    pub(super) word: u32,
    pub(super) log10: f32,
    pub(super) backoff: f32,
}

/// Why entries are no level of a trie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Duplicate;

impl NgramModel {
    pub(super) fn empty() -> Self {
        let root =
            Node { word: 0, log10: 0.0, backoff: 0.0, suffix: ROOT, first_child: 1, n_children: 0 };
        Self {
            order: 0,
            words: HashMap::new(),
            nodes: vec![root],
            levels: vec![0, 1],
            unknown: None,
            begin: None,
            end: None,
        }
    }

    /// The id of a word while unigrams are read; `None` if it has one already.
    pub(super) fn add_word(&mut self, word: &str) -> Option<u32> {
        let id = self.words.len() as u32;
        if self.words.contains_key(word) {
            return None;
        }
        self.words.insert(word.into(), id);
        match word {
            "<unk>" | "<UNK>" => self.unknown = Some(id),
            "<s>" => self.begin = Some(id),
            "</s>" => self.end = Some(id),
            _ => {}
        }
        Some(id)
    }

    /// The node of an n-gram of which all words are known.
    pub(super) fn find(&self, words: &[u32]) -> Option<u32> {
        words.iter().try_fold(ROOT, |node, &word| self.child(node, word))
    }

    /// Adds the n-grams of the next order.
    pub(super) fn add_level(&mut self, mut entries: Vec<Entry>) -> Result<(), Duplicate> {
        entries.sort_unstable_by_key(|entry| (entry.parent, entry.word));
        let twice =
            |pair: &[Entry]| (pair[0].parent, pair[0].word) == (pair[1].parent, pair[1].word);
        if entries.windows(2).any(twice) {
            return Err(Duplicate);
        }
        for entry in &entries {
            let id = self.nodes.len() as u32;
            let mut suffix = ROOT;
            if self.order > 0 {
                let mut history = self.nodes[entry.parent as usize].suffix;
                // The suffix of a node is of a lower order, so it is in place already.
                suffix = loop {
                    match self.child(history, entry.word) {
                        Some(node) => break node,
                        None if history == ROOT => break ROOT,
                        None => history = self.nodes[history as usize].suffix,
                    }
                };
            }
            let parent = &mut self.nodes[entry.parent as usize];
            if parent.n_children == 0 {
                parent.first_child = id;
            }
            parent.n_children += 1;
            self.nodes.push(Node {
                word: entry.word,
                log10: entry.log10,
                backoff: entry.backoff,
                suffix,
                first_child: 0,
                n_children: 0,
            });
        }
        self.order += 1;
        self.levels.push(self.nodes.len());
        Ok(())
    }

    fn child(&self, node: u32, word: u32) -> Option<u32> {
        let Node { first_child, n_children, .. } = self.nodes[node as usize];
        let first = first_child as usize;
        let children = &self.nodes[first..first + n_children as usize];
        children.binary_search_by_key(&word, |child| child.word).ok().map(|i| (first + i) as u32)
    }

    /// Words in the longest n-gram.
    #[must_use]
    pub fn order(&self) -> usize {
        self.order
    }

    /// Number of n-grams of each order, from 1.
    #[must_use]
    pub fn counts(&self) -> Vec<usize> {
        self.levels.windows(2).skip(1).map(|pair| pair[1] - pair[0]).collect()
    }

    /// The id of a word of the vocabulary.
    #[must_use]
    pub fn word(&self, word: &str) -> Option<WordId> {
        self.words.get(word).copied().map(WordId)
    }

    /// The words of the vocabulary, `<s>` and the like among them, in no particular order.
    pub fn words(&self) -> impl Iterator<Item = (&str, WordId)> {
        self.words.iter().map(|(word, &id)| (&**word, WordId(id)))
    }

    /// The beginning of a sentence: `<s>` if the model has it.
    #[must_use]
    pub fn start(&self) -> LmState {
        let node = self.begin.filter(|_| self.order > 1).and_then(|b| self.child(ROOT, b));
        LmState(node.unwrap_or(ROOT))
    }

    /// log10 probability of `word` after `state`, and the state after it; `None` is a word
    /// that the model does not know: `<unk>`, or -100 if there is none.
    #[must_use]
    pub fn score(&self, state: LmState, word: Option<WordId>) -> (f32, LmState) {
        let mut node = state.0;
        let mut backoff = 0.0;
        let word = word.map(|word| word.0).or(self.unknown);
        loop {
            if let Some(child) = word.and_then(|word| self.child(node, word)) {
                let longest = (child as usize) >= self.levels[self.order];
                let found = self.nodes[child as usize];
                let next = if longest { found.suffix } else { child };
                return (backoff + found.log10, LmState(next));
            }
            backoff += self.nodes[node as usize].backoff;
            if node == ROOT {
                return (backoff + NO_UNKNOWN_LOG10, LmState(ROOT));
            }
            node = self.nodes[node as usize].suffix;
        }
    }

    /// log10 probability that the sentence ends after `state`.
    #[must_use]
    pub fn end(&self, state: LmState) -> f32 {
        self.score(state, self.end.map(WordId)).0
    }

    /// log10 probability of a word alone.
    #[must_use]
    pub fn unigram(&self, word: Option<WordId>) -> f32 {
        self.score(LmState(ROOT), word).0
    }

    /// log10 probability of a sentence, `</s>` included if `closed`.
    ///
    /// # Example
    /// ```
    /// use asr::decode::lm::NgramModel;
    ///
    /// let arpa = "\\data\\\nngram 1=3\n\n\\1-grams:\n-99\t<s>\n-0.3\ta\n-0.6\t</s>\n\n\\end\\\n";
    /// let model = NgramModel::read(arpa.as_bytes())?;
    /// assert!((model.sentence(["a", "a"], true) + 1.2).abs() < 1e-6);
    /// # Ok::<(), asr::decode::lm::ArpaError>(())
    /// ```
    pub fn sentence<'a>(&self, words: impl IntoIterator<Item = &'a str>, closed: bool) -> f64 {
        let mut state = self.start();
        let mut total = 0.0;
        for word in words {
            let (log10, next) = self.score(state, self.word(word));
            total += f64::from(log10);
            state = next;
        }
        if closed { total + f64::from(self.end(state)) } else { total }
    }
}
