//! CTC losses and their gradients.

use super::pointwise::launch_over;
use super::{Argument, Machine, Place, THREADS, count, lengths as words, narrow};
use crate::ctc::Term;
use candle_core::Result;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

/// Sizes of the logits, `(clips, frames, vocab)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) clips: usize,
    pub(crate) frames: usize,
    pub(crate) vocab: usize,
}

/// What the forward pass found.
pub(crate) struct Losses<B> {
    shape: Shape,
    lengths: B,
    /// In f64.
    log_sums: B,
    terms: Vec<Trellises<B>>,
    /// Whether the forward variables have become shares of states.
    turned: AtomicBool,
}

/// A term's states of all clips.
struct Trellises<B> {
    max_states: usize,
    labels: B,
    following: B,
    leading: B,
    states: B,
    open: B,
    weights: B,
    /// In f64: log-likelihoods, `(clips,)`; forward variables, `(clips, frames, max_states)`.
    likelihoods: B,
    forward: B,
    losses: B,
}

/// States of a term's clips as the kernels take them, row by row.
#[derive(Debug, Default, PartialEq)]
struct Tables {
    max_states: usize,
    labels: Vec<u32>,
    following: Vec<u32>,
    leading: Vec<u32>,
    states: Vec<u32>,
    open: Vec<u32>,
}

impl Tables {
    fn new(term: &Term, blank: u32) -> Result<Self> {
        let open = |target: &crate::ctc::Target| target.open_ended && !target.tokens.is_empty();
        let states_of =
            |target: &crate::ctc::Target| 2 * target.tokens.len() + 1 - usize::from(open(target));
        let max_states = term.targets.iter().map(states_of).max().unwrap_or(1);
        let mut tables = Self { max_states, ..Self::default() };
        for target in &term.targets {
            let row = tables.labels.len();
            tables.labels.resize(row + max_states, blank);
            tables.following.resize(row + max_states, u32::MAX);
            tables.leading.resize(row + max_states, 0);
            let mut last: HashMap<u32, usize> = HashMap::new();
            for (i, &token) in target.tokens.iter().enumerate() {
                let state = 2 * i + 1;
                tables.labels[row + state] = token;
                match last.insert(token, state) {
                    Some(before) => tables.following[row + before] = narrow(state)?,
                    None => tables.leading[row + state] = 1,
                }
            }
            tables.states.push(narrow(states_of(target))?);
            tables.open.push(u32::from(open(target)));
        }
        Ok(tables)
    }
}

impl<B> Losses<B> {
    /// Runs all terms forwards; the second buffer is the weighted sum of their losses by clip.
    pub(crate) fn new<M: Machine<Buffer = B>>(
        machine: &M,
        logits: Place<'_>,
        shape: Shape,
        (terms, lengths, blank): (&[Term], &[usize], u32),
    ) -> Result<(Self, B)> {
        let Shape { clips, frames, vocab } = shape;
        let log_sums = machine.buffer(2 * clips * frames)?;
        let arguments = [
            logits.holds(clips * frames * vocab)?.into(),
            count(vocab)?,
            machine.place(&log_sums).into(),
        ];
        // SAFETY: the kernel declares these; a block per row of the logits.
        unsafe { machine.launch("ctc_log_sums", [clips * frames, 1, 1], 128, &arguments)? };
        let lengths = words(machine, lengths)?;
        let sums = machine.buffer(clips)?;
        let mut losses =
            Self { shape, lengths, log_sums, terms: Vec::new(), turned: AtomicBool::new(false) };
        if terms.is_empty() {
            super::pointwise::fill(machine, machine.place(&sums), 0.0)?;
        }
        for (i, term) in terms.iter().enumerate() {
            let tables = Tables::new(term, blank)?;
            let trellises = Trellises {
                max_states: tables.max_states,
                labels: machine.words(&tables.labels)?,
                following: machine.words(&tables.following)?,
                leading: machine.words(&tables.leading)?,
                states: machine.words(&tables.states)?,
                open: machine.words(&tables.open)?,
                weights: machine.floats(&term.weights)?,
                likelihoods: machine.buffer(2 * clips)?,
                forward: machine.buffer(2 * clips * frames * tables.max_states)?,
                losses: machine.buffer(clips)?,
            };
            let outputs = [
                machine.place(&trellises.forward).into(),
                machine.place(&trellises.likelihoods).into(),
            ];
            let arguments = [&losses.inputs(machine, logits, &trellises)?[..], &outputs].concat();
            // SAFETY: the kernel declares these; a block per clip.
            unsafe { machine.launch("ctc_forward", [clips, 1, 1], THREADS, &arguments)? };
            let arguments = [
                machine.place(&trellises.likelihoods).into(),
                machine.place(&trellises.weights).into(),
                Argument::U32(u32::from(i > 0)),
                machine.place(&trellises.losses).into(),
                machine.place(&sums).into(),
            ];
            launch_over(machine, "ctc_losses", clips, &arguments)?;
            losses.terms.push(trellises);
        }
        Ok((losses, sums))
    }

    /// What both passes over the states begin with.
    fn inputs<'a, M: Machine<Buffer = B>>(
        &'a self,
        machine: &M,
        logits: Place<'a>,
        term: &'a Trellises<B>,
    ) -> Result<[Argument<'a>; 9]> {
        Ok([
            logits.into(),
            machine.place(&self.log_sums).into(),
            machine.place(&term.labels).into(),
            machine.place(&term.states).into(),
            machine.place(&term.open).into(),
            machine.place(&self.lengths).into(),
            count(self.shape.frames)?,
            count(self.shape.vocab)?,
            count(term.max_states)?,
        ])
    }

    /// The losses of each clip under term `i`, without their weights.
    pub(crate) fn of_term(&self, i: usize) -> &B {
        &self.terms[i].losses
    }

    /// The gradient of the weighted sums in the logits; `upstream` is theirs, by clip.
    pub(crate) fn gradient<M: Machine<Buffer = B>>(
        &self,
        machine: &M,
        logits: Place<'_>,
        upstream: Place<'_>,
    ) -> Result<B> {
        let Shape { clips, frames, vocab } = self.shape;
        let gradient = machine.buffer(clips * frames * vocab)?;
        let turned = self.turned.swap(true, Ordering::Relaxed);
        if self.terms.is_empty() {
            super::pointwise::fill(machine, machine.place(&gradient), 0.0)?;
        }
        for (i, term) in self.terms.iter().enumerate() {
            if !turned {
                let scratch = machine.buffer(2 * clips * 2 * term.max_states)?;
                let outputs = [
                    machine.place(&term.forward).into(),
                    machine.place(&term.likelihoods).into(),
                    machine.place(&scratch).into(),
                ];
                let arguments = [&self.inputs(machine, logits, term)?[..], &outputs].concat();
                // SAFETY: the kernel declares these; a block per clip.
                unsafe { machine.launch("ctc_backward", [clips, 1, 1], THREADS, &arguments)? };
            }
            let arguments = [
                logits.holds(clips * frames * vocab)?.into(),
                machine.place(&self.log_sums).into(),
                machine.place(&term.labels).into(),
                machine.place(&term.following).into(),
                machine.place(&term.leading).into(),
                machine.place(&term.states).into(),
                machine.place(&self.lengths).into(),
                machine.place(&term.weights).into(),
                upstream.holds(clips)?.into(),
                count(frames)?,
                count(vocab)?,
                count(term.max_states)?,
                Argument::U32(u32::from(i > 0)),
                machine.place(&term.forward).into(),
                machine.place(&gradient).into(),
            ];
            // SAFETY: the kernel declares these; a block per frame and clip.
            unsafe { machine.launch("ctc_gradient", [frames, clips, 1], 128, &arguments)? };
        }
        Ok(gradient)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctc::Target;

    #[test]
    fn states_of_the_same_token_are_chained() -> Result<()> {
        let target = |tokens: &[u32], open_ended| Target { tokens: tokens.to_vec(), open_ended };
        let targets = vec![target(&[5, 7, 5], false), target(&[7], true), target(&[], true)];
        let tables = Tables::new(&Term { targets, weights: vec![1.0; 3] }, 0)?;
        assert_eq!(tables.max_states, 7);
        assert_eq!(tables.states, [7, 2, 1]);
        assert_eq!(tables.open, [0, 1, 0]);
        assert_eq!(tables.labels[..9], [0, 5, 0, 7, 0, 5, 0, 0, 7]);
        let none = u32::MAX;
        assert_eq!(tables.following[..7], [none, 5, none, none, none, none, none]);
        assert_eq!(tables.leading[..9], [0, 1, 0, 1, 0, 0, 0, 0, 1]);
        Ok(())
    }
}
