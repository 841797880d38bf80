//! Pickles read as data.
//!
//! A pickle is a program for a small stack machine. This one runs on nodes that only describe
//! things: a class is its name, a call of a known constructor is the data it would have made,
//! and a call of anything else is an error that names it. Nothing is imported, looked up or
//! called. Depths, counts and sizes are bounded, and a length is compared with the bytes that
//! are left before anything is made of it.
//!
//! The opcodes are those of `pickletools.py` of Python 3.13, protocols 0 to 5.

mod construct;
mod machine;
mod reader;
mod tree;

#[cfg(test)]
mod tests;

use super::stored::{ElementType, Region, View, ViewError};
use super::value::Value;
use machine::Machine;

/// Nodes that a pickle may make, and values that may come of them.
const MAX_NODES: usize = 4 << 20;
/// Bytes that a pickle may make by repeating what it holds.
const MAX_REPEATED_BYTES: usize = 64 << 20;
/// Depth of containers in containers.
const MAX_DEPTH: usize = 128;

/// A pickle that is damaged, or asks for more than data.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PickleError {
    /// The bytes end before the pickle does.
    #[error("the data ends inside the pickle")]
    Truncated,
    /// A byte that is no opcode.
    #[error("byte {opcode:#04x} at position {position} is no pickle opcode")]
    UnknownOpcode {
        /// The byte.
        opcode: u8,
        /// Where it is.
        position: usize,
    },
    /// An opcode that no checkpoint needs.
    #[error("pickle opcode `{opcode}` has no place in a checkpoint")]
    Opcode {
        /// Its name in `pickletools.py`.
        opcode: &'static str,
    },
    /// A newer protocol.
    #[error("pickle protocol {0} is not known")]
    Protocol(u8),
    /// A call of something that is no known constructor.
    #[error("the pickle calls `{global}`, which is no known tensor constructor; nothing was run")]
    Call {
        /// What it calls.
        global: String,
    },
    /// Arguments that do not fit their constructor.
    #[error("the arguments of `{global}` describe nothing that can be read")]
    Arguments {
        /// The constructor or opcode.
        global: String,
    },
    /// Fewer values on the stack than an opcode takes, or of another kind.
    #[error("opcode {opcode:#04x} at position {position} finds no operand")]
    Operand {
        /// The opcode.
        opcode: u8,
        /// Where it is.
        position: usize,
    },
    /// A memo slot that was never written.
    #[error("the pickle reads memo slot {0}, which was never written")]
    Memo(u64),
    /// Text that is not UTF-8 or not a number where one is due.
    #[error("text at position {position} is not sound")]
    Text {
        /// Where it ends.
        position: usize,
    },
    /// More than any checkpoint has.
    #[error("the pickle holds more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are read.
        limit: usize,
    },
    /// A reference that is no storage.
    #[error("a persistent id names no storage of a known type")]
    Storage,
    /// A tensor outside of its storage.
    #[error("tensor `{key}` cannot be read")]
    View {
        /// The name it is stored under.
        key: String,
        /// Why.
        source: ViewError,
    },
}

/// A storage that tensors of a pickle are views of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct StorageSpec {
    /// Its name in the container.
    pub(super) key: String,
    pub(super) element: ElementType,
    /// Number of elements.
    pub(super) elements: usize,
}

/// A pickle that ran to its end.
pub(super) struct Unpickled<'a> {
    machine: Machine<'a>,
    root: machine::Id,
    /// Bytes it takes.
    pub(super) bytes: usize,
}

/// Runs the pickle at the start of `bytes`.
pub(super) fn unpickle(bytes: &[u8]) -> Result<Unpickled<'_>, PickleError> {
    let mut machine = Machine::new(bytes);
    let root = machine.run()?;
    let bytes = machine.position();
    Ok(Unpickled { machine, root, bytes })
}

impl Unpickled<'_> {
    /// The storages it names, in the order of their first use.
    pub(super) fn storages(&self) -> &[StorageSpec] {
        &self.machine.storages
    }

    /// Its value, tensors as views of `regions`, one for each of [`Unpickled::storages`].
    pub(super) fn value(&self, regions: &[Region]) -> Result<Value, PickleError> {
        tree::value(&self.machine, self.root, regions)
    }
}
