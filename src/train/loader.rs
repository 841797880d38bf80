//! Batches made ahead on another thread.

use super::TrainError;
use super::task::Source;
use std::sync::mpsc::SyncSender;

/// Position of a step: its epoch and the first of its batches there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Position {
    epoch: u64,
    first: usize,
}

/// Makes the batches of steps `from..=to`, `per_step` each, until the receiver hangs up.
///
/// Step `s` gets the same batches whatever `from` is.
pub(super) fn run<S: Source>(
    source: &S,
    per_step: usize,
    (from, to): (u64, u64),
    sender: &SyncSender<Result<Vec<S::Batch>, TrainError>>,
) {
    let mut position = Position { epoch: 0, first: 0 };
    let mut plan = source.plan(0);
    for step in 1..=to {
        if position.first + per_step > plan.batches.len() {
            position = Position { epoch: position.epoch + 1, first: 0 };
            plan = source.plan(position.epoch);
            if plan.batches.len() < per_step {
                // The receiver sees the channel close and reports an empty corpus.
                return;
            }
        }
        if step >= from {
            let made = (0..per_step)
                .map(|i| {
                    let number = position.first + i;
                    let key = (position.epoch << 32) | number as u64;
                    source.make(&plan.batches[number], key)
                })
                .collect();
            if sender.send(made).is_err() {
                return;
            }
        }
        position.first += per_step;
    }
}
