//! The stack machine: opcodes to nodes.

use super::reader::Reader;
use super::{MAX_NODES, MAX_REPEATED_BYTES, PickleError, StorageSpec, View};
use std::collections::HashMap;

/// Index of a node.
pub(super) type Id = u32;

/// The newest protocol.
const PROTOCOL: u8 = 5;

/// What a value of the pickle is made of. Containers refer to others by index, so that
/// nothing here is deep however deep the pickle is.
#[derive(Debug)]
pub(super) enum Node<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// An integer past 64 bits, little-endian two's complement.
    LongInt(&'a [u8]),
    Float(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
    MadeBytes(Vec<u8>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A class or function, by name only.
    Global {
        module: &'a str,
        name: &'a str,
    },
    Object(Box<Object>),
    /// Index into the storages.
    Storage(usize),
    Tensor(Box<(usize, View)>),
}

/// An instance of a class that is not known.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) class: Id,
    /// What `BUILD` gave it, or the arguments it was made from.
    pub(super) state: Option<Id>,
    pub(super) entries: Vec<(Id, Id)>,
    pub(super) elements: Vec<Id>,
}

#[derive(Debug)]
pub(super) struct Machine<'a> {
    reader: Reader<'a>,
    pub(super) nodes: Vec<Node<'a>>,
    pub(super) storages: Vec<StorageSpec>,
    pub(super) storage_index: HashMap<StorageSpec, usize>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    repeated_bytes: usize,
    /// Where the current opcode is.
    position: usize,
    opcode: u8,
}

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            reader: Reader::new(bytes),
            nodes: Vec::new(),
            storages: Vec::new(),
            storage_index: HashMap::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            repeated_bytes: 0,
            position: 0,
            opcode: 0,
        }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> usize {
        self.reader.position
    }

    /// Runs to the end and returns the root.
    pub(super) fn run(&mut self) -> Result<Id, PickleError> {
        loop {
            self.position = self.reader.position;
            self.opcode = self.reader.u8()?;
            if self.opcode == b'.' {
                return self.pop();
            }
            self.step()?;
        }
    }

    pub(super) fn node(&self, id: Id) -> &Node<'a> {
        &self.nodes[id as usize]
    }

    pub(super) fn node_mut(&mut self, id: Id) -> &mut Node<'a> {
        &mut self.nodes[id as usize]
    }

    pub(super) fn add(&mut self, node: Node<'a>) -> Result<Id, PickleError> {
        if self.nodes.len() >= MAX_NODES {
            return Err(PickleError::TooMany { what: "values", limit: MAX_NODES });
        }
        self.nodes.push(node);
        Ok((self.nodes.len() - 1) as Id)
    }

    /// Counts bytes that are made rather than read.
    pub(super) fn repeat(&mut self, bytes: usize) -> Result<(), PickleError> {
        self.repeated_bytes = self.repeated_bytes.saturating_add(bytes);
        if self.repeated_bytes > MAX_REPEATED_BYTES {
            return Err(PickleError::TooMany { what: "bytes", limit: MAX_REPEATED_BYTES });
        }
        Ok(())
    }

    pub(super) fn no_operand(&self) -> PickleError {
        PickleError::Operand { opcode: self.opcode, position: self.position }
    }

    fn push(&mut self, node: Node<'a>) -> Result<(), PickleError> {
        let id = self.add(node)?;
        self.stack.push(id);
        Ok(())
    }

    /// Takes the top value, never one below the last mark.
    fn pop(&mut self) -> Result<Id, PickleError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(self.no_operand());
        }
        self.stack.pop().ok_or_else(|| self.no_operand())
    }

    fn top(&self) -> Result<Id, PickleError> {
        self.stack.last().copied().ok_or_else(|| self.no_operand())
    }

    /// Takes everything above the last mark.
    fn pop_to_mark(&mut self) -> Result<Vec<Id>, PickleError> {
        let mark = self.marks.pop().ok_or_else(|| self.no_operand())?;
        if mark > self.stack.len() {
            return Err(self.no_operand());
        }
        Ok(self.stack.split_off(mark))
    }

    fn push_tuple(&mut self, n: usize) -> Result<(), PickleError> {
        let mut elements = vec![0; n];
        for element in elements.iter_mut().rev() {
            *element = self.pop()?;
        }
        self.push(Node::List(elements))
    }

    fn push_text(&mut self, n: u64) -> Result<(), PickleError> {
        let text = self.reader.text(n)?;
        self.push(Node::Text(text))
    }

    fn push_bytes(&mut self, n: u64) -> Result<(), PickleError> {
        let bytes = self.reader.take(n)?;
        self.push(Node::Bytes(bytes))
    }

    /// A `str` of Python 2: text if it is UTF-8.
    fn push_old_text(&mut self, n: u64) -> Result<(), PickleError> {
        let bytes = self.reader.take(n)?;
        self.push(std::str::from_utf8(bytes).map_or(Node::Bytes(bytes), Node::Text))
    }

    fn push_long(&mut self, n: u64) -> Result<(), PickleError> {
        let bytes = self.reader.take(n)?;
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let fill = if negative { 0xff } else { 0 };
        if bytes.len() > 8 {
            return self.push(Node::LongInt(bytes));
        }
        let mut word = [fill; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        self.push(Node::Int(i64::from_le_bytes(word)))
    }

    fn get(&mut self, slot: u64) -> Result<(), PickleError> {
        let id = *self.memo.get(&slot).ok_or(PickleError::Memo(slot))?;
        self.stack.push(id);
        Ok(())
    }

    fn put(&mut self, slot: u64) -> Result<(), PickleError> {
        let id = self.top()?;
        self.memo.insert(slot, id);
        Ok(())
    }

    fn append(&mut self, elements: Vec<Id>) -> Result<(), PickleError> {
        let list = self.top()?;
        match self.node_mut(list) {
            Node::List(there) => there.extend(elements),
            Node::Object(object) => object.elements.extend(elements),
            _ => return Err(self.no_operand()),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Id]) -> Result<(), PickleError> {
        let dict = self.top()?;
        let (pairs, rest) = items.as_chunks::<2>();
        let there = match self.node_mut(dict) {
            Node::Dict(entries) => entries,
            Node::Object(object) => &mut object.entries,
            _ => return Err(self.no_operand()),
        };
        there.extend(pairs.iter().map(|[key, value]| (*key, *value)));
        if rest.is_empty() { Ok(()) } else { Err(self.no_operand()) }
    }

    fn global(&mut self) -> Result<Id, PickleError> {
        let module = self.reader.line()?;
        let name = self.reader.line()?;
        self.add(Node::Global { module, name })
    }

    fn step(&mut self) -> Result<(), PickleError> {
        match self.opcode {
            0x80 => {
                let protocol = self.reader.u8()?;
                if protocol > PROTOCOL {
                    return Err(PickleError::Protocol(protocol));
                }
            }
            // FRAME: frames only tell how much to read ahead.
            0x95 => {
                self.reader.u64()?;
            }
            b'(' => self.marks.push(self.stack.len()),
            b'0' => {
                self.pop()?;
            }
            b'1' => {
                self.pop_to_mark()?;
            }
            b'2' => {
                let id = self.top()?;
                self.stack.push(id);
            }
            b'N' => self.push(Node::None)?,
            0x88 => self.push(Node::Bool(true))?,
            0x89 => self.push(Node::Bool(false))?,
            b'I' => self.integer_line()?,
            b'L' => {
                let value = self.reader.number()?;
                self.push(Node::Int(value))?;
            }
            b'F' => {
                let value = self.reader.number()?;
                self.push(Node::Float(value))?;
            }
            b'J' => {
                let value = self.reader.i32()?;
                self.push(Node::Int(value.into()))?;
            }
            b'K' => {
                let value = self.reader.u8()?;
                self.push(Node::Int(value.into()))?;
            }
            b'M' => {
                let value = self.reader.u16()?;
                self.push(Node::Int(value.into()))?;
            }
            b'G' => {
                let value = self.reader.f64()?;
                self.push(Node::Float(value))?;
            }
            0x8a | 0x8b | b'S' | b'V' | b'U' | b'T' | b'X' | 0x8c | 0x8d | b'B' | b'C' | 0x8e
            | 0x96 => self.sized()?,
            b']' | 0x8f => self.push(Node::List(Vec::new()))?,
            b'}' => self.push(Node::Dict(Vec::new()))?,
            b')' => self.push(Node::List(Vec::new()))?,
            0x85 => self.push_tuple(1)?,
            0x86 => self.push_tuple(2)?,
            0x87 => self.push_tuple(3)?,
            b'l' | b't' | 0x91 => {
                let elements = self.pop_to_mark()?;
                self.push(Node::List(elements))?;
            }
            b'd' => {
                let items = self.pop_to_mark()?;
                self.push(Node::Dict(Vec::new()))?;
                self.set_items(&items)?;
            }
            b'a' => {
                let element = self.pop()?;
                self.append(vec![element])?;
            }
            b'e' | 0x90 => {
                let elements = self.pop_to_mark()?;
                self.append(elements)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set_items(&items)?;
            }
            b'g' | b'h' | b'j' | b'p' | b'q' | b'r' | 0x94 => self.remember()?,
            b'c' | 0x93 | b'R' | 0x81 | 0x92 | b'i' | b'o' | b'b' | b'Q' => self.construct()?,
            b'P' => return Err(PickleError::Opcode { opcode: "PERSID" }),
            0x82 => return Err(PickleError::Opcode { opcode: "EXT1" }),
            0x83 => return Err(PickleError::Opcode { opcode: "EXT2" }),
            0x84 => return Err(PickleError::Opcode { opcode: "EXT4" }),
            0x97 => return Err(PickleError::Opcode { opcode: "NEXT_BUFFER" }),
            0x98 => return Err(PickleError::Opcode { opcode: "READONLY_BUFFER" }),
            opcode => return Err(PickleError::UnknownOpcode { opcode, position: self.position }),
        }
        Ok(())
    }

    /// INT: `00` and `01` are truth values.
    fn integer_line(&mut self) -> Result<(), PickleError> {
        let line = self.reader.line()?;
        let node = match line {
            "00" => Node::Bool(false),
            "01" => Node::Bool(true),
            _ => {
                let position = self.reader.position;
                Node::Int(line.parse().map_err(|_| PickleError::Text { position })?)
            }
        };
        self.push(node)
    }

    /// Opcodes with a length before their bytes, and text lines.
    fn sized(&mut self) -> Result<(), PickleError> {
        match self.opcode {
            b'S' => {
                let text = self.reader.quoted()?;
                self.push(Node::Text(text))
            }
            b'V' => {
                let text = self.reader.line()?;
                if text.contains('\\') {
                    return Err(PickleError::Text { position: self.reader.position });
                }
                self.push(Node::Text(text))
            }
            0x8a | b'U' | 0x8c | b'C' => {
                let n = self.reader.u8()?.into();
                match self.opcode {
                    0x8a => self.push_long(n),
                    b'U' => self.push_old_text(n),
                    0x8c => self.push_text(n),
                    _ => self.push_bytes(n),
                }
            }
            0x8b | b'T' | b'X' | b'B' => {
                // LONG4 and BINSTRING have signed lengths: a negative one is past any end.
                let n = self.reader.u32()?.into();
                match self.opcode {
                    0x8b => self.push_long(n),
                    b'T' => self.push_old_text(n),
                    b'X' => self.push_text(n),
                    _ => self.push_bytes(n),
                }
            }
            _ => {
                let n = self.reader.u64()?;
                if self.opcode == 0x8d { self.push_text(n) } else { self.push_bytes(n) }
            }
        }
    }

    /// Opcodes of the memo.
    fn remember(&mut self) -> Result<(), PickleError> {
        match self.opcode {
            b'g' => {
                let slot = self.reader.number()?;
                self.get(slot)
            }
            b'h' => {
                let slot = self.reader.u8()?.into();
                self.get(slot)
            }
            b'j' => {
                let slot = self.reader.u32()?.into();
                self.get(slot)
            }
            b'p' => {
                let slot = self.reader.number()?;
                self.put(slot)
            }
            b'q' => {
                let slot = self.reader.u8()?.into();
                self.put(slot)
            }
            b'r' => {
                let slot = self.reader.u32()?.into();
                self.put(slot)
            }
            _ => self.put(self.memo.len() as u64),
        }
    }

    /// Opcodes that name, make or fill objects.
    fn construct(&mut self) -> Result<(), PickleError> {
        let made = match self.opcode {
            b'c' => self.global()?,
            0x93 => {
                let name = self.pop()?;
                let module = self.pop()?;
                let (Node::Text(module), Node::Text(name)) = (self.node(module), self.node(name))
                else {
                    return Err(self.no_operand());
                };
                let (module, name) = (*module, *name);
                self.add(Node::Global { module, name })?
            }
            b'R' => {
                let arguments = self.pop()?;
                let callable = self.pop()?;
                self.reduce(callable, arguments)?
            }
            0x81 => {
                let arguments = self.pop()?;
                let class = self.pop()?;
                self.new_object(class, arguments)?
            }
            0x92 => {
                let _keywords = self.pop()?;
                let arguments = self.pop()?;
                let class = self.pop()?;
                self.new_object(class, arguments)?
            }
            // INST and OBJ call what they name, whether it is a class or not.
            b'i' => {
                let callable = self.global()?;
                let arguments = self.pop_to_mark()?;
                let arguments = self.add(Node::List(arguments))?;
                self.reduce(callable, arguments)?
            }
            b'o' => {
                let mut arguments = self.pop_to_mark()?;
                if arguments.is_empty() {
                    return Err(self.no_operand());
                }
                let callable = arguments.remove(0);
                let arguments = self.add(Node::List(arguments))?;
                self.reduce(callable, arguments)?
            }
            b'b' => {
                let state = self.pop()?;
                let object = self.top()?;
                return self.build(object, state);
            }
            _ => {
                let id = self.pop()?;
                self.storage(id)?
            }
        };
        self.stack.push(made);
        Ok(())
    }
}
