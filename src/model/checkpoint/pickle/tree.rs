//! Nodes to a tree of values.

use super::machine::{Id, Machine, Node, Object};
use super::{MAX_DEPTH, MAX_NODES, MAX_REPEATED_BYTES, PickleError, Region};
use crate::model::checkpoint::stored::StoredTensor;
use crate::model::checkpoint::value::Value;
use std::collections::HashMap;

/// Copies what is shared, cuts what refers back to itself, and stops at the bounds.
pub(super) fn value(
    machine: &Machine<'_>,
    root: Id,
    regions: &[Region],
) -> Result<Value, PickleError> {
    let mut tree = Tree {
        machine,
        regions,
        tensors: HashMap::new(),
        on_path: vec![false; machine.nodes.len()],
        depth: 0,
        n_values: 0,
        n_bytes: 0,
        key: "",
    };
    tree.value(root)
}

struct Tree<'m, 'a> {
    machine: &'m Machine<'a>,
    regions: &'m [Region],
    tensors: HashMap<Id, StoredTensor>,
    /// Whether a node is being copied right now.
    on_path: Vec<bool>,
    depth: usize,
    n_values: usize,
    n_bytes: usize,
    /// The last name seen, for messages.
    key: &'a str,
}

impl<'a> Tree<'_, 'a> {
    fn value(&mut self, id: Id) -> Result<Value, PickleError> {
        self.n_values += 1;
        if self.n_values > MAX_NODES {
            return Err(PickleError::TooMany { what: "values", limit: MAX_NODES });
        }
        Ok(match self.machine.node(id) {
            Node::None => Value::None,
            Node::Bool(value) => Value::Bool(*value),
            Node::Int(value) => Value::Int(*value),
            Node::LongInt(bytes) => Value::Object {
                class: "builtins.int".to_owned(),
                state: Box::new(Value::Bytes(self.copied(bytes)?)),
            },
            Node::Float(value) => Value::Float(*value),
            Node::Text(text) => Value::Text(self.text(text)?),
            Node::Bytes(bytes) => Value::Bytes(self.copied(bytes)?),
            Node::MadeBytes(bytes) => Value::Bytes(self.copied(bytes)?),
            Node::Global { module, name } => Value::Object {
                class: self.text(module)? + "." + name,
                state: Box::new(Value::None),
            },
            Node::Storage(_) => {
                Value::Object { class: "torch.storage".to_owned(), state: Box::new(Value::None) }
            }
            Node::Tensor(_) => Value::Tensor(self.tensor(id)?),
            Node::List(_) | Node::Dict(_) | Node::Object(_) => return self.container(id),
        })
    }

    fn container(&mut self, id: Id) -> Result<Value, PickleError> {
        if std::mem::replace(&mut self.on_path[id as usize], true) {
            return Ok(Value::None);
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(PickleError::TooMany {
                what: "containers in each other",
                limit: MAX_DEPTH,
            });
        }
        let value = match self.machine.node(id) {
            Node::List(elements) => Value::List(self.list(elements)?),
            Node::Dict(entries) => Value::Dict(self.dict(entries)?),
            Node::Object(object) => self.object(object)?,
            _ => Value::None,
        };
        self.depth -= 1;
        self.on_path[id as usize] = false;
        Ok(value)
    }

    fn list(&mut self, elements: &[Id]) -> Result<Vec<Value>, PickleError> {
        elements.iter().map(|id| self.value(*id)).collect()
    }

    fn dict(&mut self, entries: &[(Id, Id)]) -> Result<Vec<(Value, Value)>, PickleError> {
        entries
            .iter()
            .map(|(key, value)| {
                if let Node::Text(key) = self.machine.node(*key) {
                    self.key = key;
                }
                Ok((self.value(*key)?, self.value(*value)?))
            })
            .collect()
    }

    /// The state of an object; what was put into it as into a container comes first.
    fn object(&mut self, object: &Object) -> Result<Value, PickleError> {
        let Node::Global { module, name } = self.machine.node(object.class) else {
            return Ok(Value::None);
        };
        let class = self.text(module)? + "." + name;
        let mut entries = self.dict(&object.entries)?;
        let state = match object.state.map(|state| (state, self.machine.node(state))) {
            // The parent of a setting is what it was found in.
            Some((_, Node::Dict(attributes))) if class.starts_with("omegaconf.") => {
                let is_parent = |key: Id| matches!(self.machine.node(key), Node::Text("_parent"));
                let kept: Vec<_> =
                    attributes.iter().filter(|(key, _)| !is_parent(*key)).copied().collect();
                Value::Dict(self.dict(&kept)?)
            }
            Some((state, _)) => self.value(state)?,
            None => Value::None,
        };
        let state = match state {
            state if entries.is_empty() && object.elements.is_empty() => state,
            Value::Dict(attributes) => {
                entries.extend(attributes);
                Value::Dict(entries)
            }
            _ if entries.is_empty() => Value::List(self.list(&object.elements)?),
            _ => Value::Dict(entries),
        };
        Ok(Value::Object { class, state: Box::new(state) })
    }

    fn tensor(&mut self, id: Id) -> Result<StoredTensor, PickleError> {
        if let Some(tensor) = self.tensors.get(&id) {
            return Ok(tensor.clone());
        }
        let Node::Tensor(tensor) = self.machine.node(id) else { return Err(PickleError::Storage) };
        let (storage, view) = tensor.as_ref();
        let region = self.regions.get(*storage).ok_or(PickleError::Storage)?;
        let spec = &self.machine.storages[*storage];
        let tensor = StoredTensor::new(region, spec.element, spec.elements, view.clone()).map_err(
            |source| PickleError::View { key: self.key.escape_debug().to_string(), source },
        )?;
        self.tensors.insert(id, tensor.clone());
        Ok(tensor)
    }

    fn text(&mut self, text: &str) -> Result<String, PickleError> {
        self.count_bytes(text.len())?;
        Ok(text.to_owned())
    }

    fn copied(&mut self, bytes: &[u8]) -> Result<Vec<u8>, PickleError> {
        self.count_bytes(bytes.len())?;
        Ok(bytes.to_vec())
    }

    fn count_bytes(&mut self, n: usize) -> Result<(), PickleError> {
        self.n_bytes = self.n_bytes.saturating_add(n);
        if self.n_bytes > MAX_REPEATED_BYTES {
            return Err(PickleError::TooMany { what: "bytes", limit: MAX_REPEATED_BYTES });
        }
        Ok(())
    }
}
