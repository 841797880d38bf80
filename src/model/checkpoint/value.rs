//! What a pickle holds, as plain data.

use super::stored::StoredTensor;

/// A value of a pickle: data only, no behaviour.
///
/// Instances of classes are [`Value::Object`]s with the name of the class and their
/// attributes; [`Value::get`] and the `as_` functions look through the containers and nodes of
/// omegaconf, so that a setting reads the same from a `dict`, an `argparse.Namespace` and a
/// `DictConfig`.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `None`, and what refers back to something it is part of
    None,
    /// `bool`
    Bool(bool),
    /// `int` within 64 bits
    Int(i64),
    /// `float`
    Float(f64),
    /// `str`
    Text(String),
    /// `bytes`
    Bytes(Vec<u8>),
    /// Lists, tuples and sets
    List(Vec<Value>),
    /// Dictionaries in their order
    Dict(Vec<(Value, Value)>),
    /// A tensor in the file
    Tensor(StoredTensor),
    /// An instance of a class, or a class itself (with state `None`)
    Object {
        /// `module.name` of the class.
        class: String,
        /// Attributes as a dictionary, or what it was made from.
        state: Box<Value>,
    },
}

impl Value {
    /// The entry or attribute `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self.plain() {
            // Of equal keys the last one counts, as in Python.
            Self::Dict(entries) => entries
                .iter()
                .rev()
                .find(|(name, _)| matches!(name, Self::Text(name) if name == key))
                .map(|(_, value)| value),
            Self::Object { state, .. } => state.get(key),
            _ => None,
        }
    }

    /// Entries of a dictionary or attributes of an object.
    #[must_use]
    pub fn entries(&self) -> Option<&[(Value, Value)]> {
        match self.plain() {
            Self::Dict(entries) => Some(entries),
            Self::Object { state, .. } => state.entries(),
            _ => None,
        }
    }

    /// The integer, if it is one.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        match self.plain() {
            Self::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// The number, if it is an integer or a float.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        match self.plain() {
            Self::Float(value) => Some(*value),
            Self::Int(value) => Some(*value as f64),
            _ => None,
        }
    }

    /// The truth value, if it is one.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match self.plain() {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The text, if it is one.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self.plain() {
            Self::Text(value) => Some(value),
            _ => None,
        }
    }

    /// The elements, if it is a list, tuple or set.
    #[must_use]
    pub fn as_list(&self) -> Option<&[Value]> {
        match self.plain() {
            Self::List(values) => Some(values),
            _ => None,
        }
    }

    /// Whether it is `None`, or an omegaconf node that holds it.
    #[must_use]
    pub fn is_none(&self) -> bool {
        matches!(self.plain(), Self::None)
    }

    /// What an omegaconf node holds; the member's value of an enumeration; anything else itself.
    fn plain(&self) -> &Value {
        let Self::Object { class, state } = self else { return self };
        match state.as_ref() {
            Self::Dict(attributes) if class.starts_with("omegaconf.") => attributes
                .iter()
                .find(|(name, _)| {
                    matches!(name, Self::Text(name) if name == "_content" || name == "_val")
                })
                .map_or(self, |(_, value)| value.plain()),
            Self::Text(_) | Self::Int(_) | Self::Float(_) | Self::Bool(_) => state,
            _ => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dict(entries: Vec<(&str, Value)>) -> Value {
        let text = |(key, value): (&str, Value)| (Value::Text(key.to_owned()), value);
        Value::Dict(entries.into_iter().map(text).collect())
    }

    fn object(class: &str, state: Value) -> Value {
        Value::Object { class: class.to_owned(), state: Box::new(state) }
    }

    #[test]
    fn a_setting_reads_the_same_from_every_form() {
        let node = |value| object("omegaconf.nodes.AnyNode", dict(vec![("_val", value)]));
        let config =
            |content| object("omegaconf.dictconfig.DictConfig", dict(vec![("_content", content)]));
        let list = object(
            "omegaconf.listconfig.ListConfig",
            dict(vec![("_content", Value::List(vec![node(Value::Int(2))]))]),
        );
        let forms = [
            dict(vec![("layers", Value::Int(12)), ("list", Value::List(vec![Value::Int(2)]))]),
            object(
                "argparse.Namespace",
                dict(vec![("layers", Value::Int(12)), ("list", Value::List(vec![Value::Int(2)]))]),
            ),
            config(dict(vec![("layers", node(Value::Int(12))), ("list", list)])),
        ];
        for form in forms {
            let root = dict(vec![("model", form)]);
            let model = root.get("model").expect("it is there");
            assert_eq!(model.get("layers").and_then(Value::as_i64), Some(12));
            assert_eq!(model.get("layers").and_then(Value::as_f64), Some(12.0));
            assert_eq!(model.get("layers").and_then(Value::as_bool), None);
            let list = model.get("list").and_then(Value::as_list).expect("a list");
            assert_eq!(list[0].as_i64(), Some(2));
            assert_eq!(model.entries().map(<[_]>::len), Some(2));
            assert!(model.get("absent").is_none());
        }
    }

    #[test]
    fn of_equal_keys_the_last_counts() {
        let twice = dict(vec![("a", Value::Int(1)), ("a", Value::Int(2))]);
        assert_eq!(twice.get("a"), Some(&Value::Int(2)));
    }
}
