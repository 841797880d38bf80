//! The tokens of a model, ours or of others, as decoding sees them.

use crate::text::{CtcTokens, Vocabulary, is_unspaced};
use std::collections::HashMap;
use std::ops::Range;

/// Tokens of a CTC model: the blank is 0, the tags of languages follow if it has any, the rest
/// is text.
#[derive(Debug, Clone)]
pub struct Tokens(Kind);

#[derive(Debug, Clone)]
enum Kind {
    /// One Unicode scalar value each.
    Ours(Vocabulary),
    Released(Spelt),
}

/// Any strings.
#[derive(Debug, Clone)]
struct Spelt {
    /// By id; a space between words.
    texts: Vec<String>,
    /// Where the blank was before it became 0.
    blank: usize,
    /// Ids of tokens that are one character.
    ids: HashMap<char, u32>,
    /// Whether its letters are capitals only.
    capitals: bool,
}

impl From<&Vocabulary> for Tokens {
    fn from(vocabulary: &Vocabulary) -> Self {
        Self(Kind::Ours(vocabulary.clone()))
    }
}

impl From<&CtcTokens> for Tokens {
    /// The blank and the token 0 change places: see [`Tokens::blank_first`].
    fn from(tokens: &CtcTokens) -> Self {
        let text = |id: u32| match tokens.token(id) {
            Some(_) if tokens.delimiter() == Some(id) => " ".to_owned(),
            Some(token) => token.to_owned(),
            None => String::new(),
        };
        let mut texts: Vec<String> = (0..tokens.len() as u32).map(text).collect();
        let blank = tokens.blank() as usize;
        texts.swap(0, blank);
        let mut ids = HashMap::new();
        for (id, text) in (0..).zip(&texts).skip(1) {
            let mut characters = text.chars();
            if let (Some(c), None) = (characters.next(), characters.next()) {
                ids.entry(c).or_insert(id);
            }
        }
        let mut letters = ids.keys().filter(|c| c.is_lowercase() || c.is_uppercase()).peekable();
        let capitals = letters.peek().is_some() && letters.all(|c| c.is_uppercase());
        Self(Kind::Released(Spelt { texts, blank, ids, capitals }))
    }
}

impl Tokens {
    /// Number of tokens, the blank included.
    #[expect(clippy::len_without_is_empty, reason = "the blank is always there")]
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Kind::Ours(vocabulary) => vocabulary.len(),
            Kind::Released(spelt) => spelt.texts.len(),
        }
    }

    /// Ids of language tags.
    #[must_use]
    pub fn tags(&self) -> Range<u32> {
        match &self.0 {
            Kind::Ours(vocabulary) => vocabulary.language_ids(),
            Kind::Released(_) => 1..1,
        }
    }

    /// The token of a character in normal form. A model of capitals has those for small letters.
    #[must_use]
    pub fn id_of_character(&self, character: char) -> Option<u32> {
        let spelt = match &self.0 {
            Kind::Ours(vocabulary) => return vocabulary.id_of_character(character),
            Kind::Released(spelt) => spelt,
        };
        let other = || {
            let mut capitals = character.to_uppercase();
            spelt.ids.get(&capitals.next().filter(|_| capitals.next().is_none())?)
        };
        spelt.ids.get(&character).or_else(|| spelt.capitals.then(other).flatten()).copied()
    }

    /// What a token says to a language model, in small letters where the model has capitals
    /// only; `None` for the blank, language tags and signs such as `<unk>`.
    #[must_use]
    pub fn spelling_of(&self, id: u32) -> Option<String> {
        match &self.0 {
            Kind::Ours(vocabulary) => vocabulary.character_of(id).map(String::from),
            Kind::Released(spelt) => {
                let text = spelt.texts.get(id as usize).filter(|_| id != 0)?;
                let inside = text.strip_prefix(['<', '[']).and_then(|t| t.strip_suffix(['>', ']']));
                let sign = inside.is_some_and(|name| name.len() > 1 || text.starts_with('<'));
                let small = || if spelt.capitals { text.to_lowercase() } else { text.clone() };
                (!sign).then(small)
            }
        }
    }

    /// Whether letters are capitals only, so that case says nothing.
    #[must_use]
    pub fn has_capitals_only(&self) -> bool {
        matches!(&self.0, Kind::Released(spelt) if spelt.capitals)
    }

    /// The first character of a token's text; a space for what has none.
    pub(super) fn letter(&self, id: u32) -> char {
        let letter = match &self.0 {
            Kind::Ours(vocabulary) => vocabulary.character_of(id),
            Kind::Released(spelt) => {
                spelt.texts.get(id as usize).filter(|_| id != 0).and_then(|t| t.chars().next())
            }
        };
        letter.unwrap_or(' ')
    }

    /// Text of tokens, repeats kept; signs such as `<unk>` stay, as in transformers.
    #[must_use]
    pub fn decode(&self, ids: &[u32]) -> String {
        match &self.0 {
            Kind::Ours(vocabulary) => vocabulary.decode(ids),
            Kind::Released(spelt) => ids
                .iter()
                .filter(|id| **id != 0)
                .filter_map(|&id| spelt.texts.get(id as usize).map(String::as_str))
                .collect(),
        }
    }

    /// Moves the blank of logits as the model computes them, `(frames, vocab)`, to column 0.
    pub fn blank_first(&self, logits: &mut [f32]) {
        if let Kind::Released(spelt) = &self.0 {
            for row in logits.chunks_exact_mut(spelt.texts.len()) {
                row.swap(0, spelt.blank);
            }
        }
    }

    /// Probability that a frame of natural-log probabilities is no letter.
    pub(super) fn quiet(&self, row: &[f32]) -> f64 {
        let tags = &row[..self.tags().end as usize];
        let gap = self.id_of_character(' ').map_or(0.0, |id| row[id as usize].exp());
        f64::from(tags.iter().map(|x| x.exp()).sum::<f32>() + gap).min(1.0)
    }

    /// Adds the probability of the language tags to that of the blank: a tag is no text.
    pub(super) fn tags_to_blank(&self, row: &mut [f32]) {
        let tags = self.tags();
        if tags.is_empty() {
            return;
        }
        let blank: f32 = row[..tags.end as usize].iter().map(|x| x.exp()).sum();
        row[0] = blank.ln();
        for id in tags {
            row[id as usize] = f32::NEG_INFINITY;
        }
    }

    /// Whether two tokens, one after the other, are in one word.
    pub(super) fn joins(&self, before: u32, after: u32) -> bool {
        let (before, after) = (self.letter(before), self.letter(after));
        after != ' '
            && before != ' '
            && (unicode_normalization::char::is_combining_mark(after)
                || !(is_unspaced(after) || is_unspaced(before)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_blank_comes_first_and_capitals_are_letters() {
        let json = br#"{"A": 0, "|": 1, "<pad>": 2, "<unk>": 3, "CH": 4, "'": 5}"#;
        let released = CtcTokens::from_json(json, None, "<pad>", "|").expect("sound");
        let tokens = Tokens::from(&released);
        assert_eq!((tokens.len(), tokens.tags().len()), (6, 0));
        assert_eq!(tokens.id_of_character('a'), Some(2));
        assert_eq!(tokens.id_of_character('A'), Some(2));
        assert_eq!(tokens.id_of_character(' '), Some(1));
        assert_eq!(tokens.id_of_character('b'), None);
        let spelt: Vec<Option<String>> = (0..7).map(|id| tokens.spelling_of(id)).collect();
        let want = [None, Some(" "), Some("a"), None, Some("ch"), Some("'"), None];
        assert_eq!(spelt, want.map(|text| text.map(str::to_owned)));
        assert_eq!(tokens.decode(&[2, 0, 4, 1, 3, 99]), "ACH <unk>");
        let mut logits = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
        tokens.blank_first(&mut logits);
        assert_eq!(logits, [2.0, 1.0, 0.0, 3.0, 4.0, 5.0]);
        assert!(tokens.joins(2, 4) && !tokens.joins(2, 1));
    }

    #[test]
    fn tags_are_no_text() {
        let vocabulary = Vocabulary::build(["eng".parse().expect("a code")], ["a"], 1);
        let tokens = Tokens::from(&vocabulary.expect("small"));
        // Tokens: blank, [eng], |, a.
        let mut row = [0.2_f32, 0.3, 0.1, 0.4].map(f32::ln);
        assert!((tokens.quiet(&row) - 0.6).abs() < 1e-6);
        tokens.tags_to_blank(&mut row);
        assert!((row[0].exp() - 0.5).abs() < 1e-6 && row[1] == f32::NEG_INFINITY);
    }
}
