//! What the constructors of checkpoints would have made, as data.

use super::machine::{Id, Machine, Node, Object};
use super::{ElementType, PickleError, StorageSpec, View};

/// Longest name of a storage.
const MAX_KEY_BYTES: usize = 256;
/// Most axes of a tensor.
const MAX_AXES: usize = 64;

/// Packages whose classes may be called: they become objects that hold their arguments.
/// Enumerations, paths, times and settings are written that way.
const DATA_PACKAGES: [&str; 9] = [
    "argparse",
    "datetime",
    "espnet",
    "espnet2",
    "fairseq",
    "hydra",
    "omegaconf",
    "pathlib",
    "s3prl",
];

/// Classes of other packages that become objects that hold their arguments.
const DATA_CLASSES: [(&str, &str); 6] = [
    ("numpy", "dtype"),
    ("torch", "device"),
    ("torch.serialization", "_get_layout"),
    ("decimal", "Decimal"),
    ("uuid", "UUID"),
    ("fractions", "Fraction"),
];

/// `torch.FloatStorage` and its like.
fn element_type(storage: &str) -> Option<ElementType> {
    Some(match storage {
        "DoubleStorage" => ElementType::F64,
        "FloatStorage" => ElementType::F32,
        "HalfStorage" => ElementType::F16,
        "BFloat16Storage" => ElementType::Bf16,
        "LongStorage" => ElementType::I64,
        "IntStorage" => ElementType::I32,
        "ShortStorage" => ElementType::I16,
        "CharStorage" => ElementType::I8,
        "ByteStorage" | "UntypedStorage" => ElementType::U8,
        "BoolStorage" => ElementType::Bool,
        _ => return None,
    })
}

/// Whether `module` belongs to one of [`DATA_PACKAGES`].
fn is_data_package(module: &str) -> bool {
    let package = module.split('.').next().unwrap_or(module);
    DATA_PACKAGES.contains(&package)
}

impl<'a> Machine<'a> {
    /// What calling `callable` would have made, if that is only data.
    pub(super) fn reduce(&mut self, callable: Id, arguments: Id) -> Result<Id, PickleError> {
        let Node::Global { module, name } = *self.node(callable) else {
            return Err(PickleError::Call { global: "a value of the pickle".to_owned() });
        };
        let Node::List(given) = self.node(arguments) else {
            return Err(bad_arguments(module, name));
        };
        let (n, first) = (given.len(), given.first().copied());
        match (module, name) {
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => {
                let tensor = self.tensor(arguments);
                let tensor = tensor.ok_or_else(|| bad_arguments(module, name))?;
                self.add(tensor)
            }
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => first
                .filter(|id| matches!(self.node(*id), Node::Tensor(_)))
                .ok_or_else(|| bad_arguments(module, name)),
            ("collections", "defaultdict") => self.add(Node::Dict(Vec::new())),
            ("collections", "OrderedDict" | "Counter") | ("builtins" | "__builtin__", "dict") => {
                self.dictionary(first)
            }
            ("collections", "deque")
            | ("torch", "Size")
            | ("builtins" | "__builtin__", "set" | "frozenset" | "list" | "tuple") => match first {
                None => self.add(Node::List(Vec::new())),
                // The same list: copies of copies would grow without bound.
                Some(id) if matches!(self.node(id), Node::List(_)) => Ok(id),
                Some(_) => Err(bad_arguments(module, name)),
            },
            ("_codecs", "encode") | ("builtins" | "__builtin__", "bytes" | "bytearray") => {
                self.bytes(first).and_then(|made| made.ok_or_else(|| bad_arguments(module, name)))
            }
            ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => {
                self.numpy_scalar(callable, arguments)
            }
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => {
                let class = first.ok_or_else(|| bad_arguments(module, name))?;
                self.object(class, None)
            }
            // (class, base, state of the base)
            ("copyreg" | "copy_reg", "_reconstructor") => {
                let class = first.filter(|_| n == 3).ok_or_else(|| bad_arguments(module, name))?;
                self.object(class, None)
            }
            ("copyreg" | "copy_reg", "__newobj__") => {
                let class = first.ok_or_else(|| bad_arguments(module, name))?;
                self.object(class, None)
            }
            _ if is_data_package(module) || DATA_CLASSES.contains(&(module, name)) => {
                self.object(callable, if n == 1 { first } else { Some(arguments) })
            }
            _ => Err(PickleError::Call { global: full_name(module, name) }),
        }
    }

    /// An instance of `class`, whatever it is: NEWOBJ makes an empty object and runs no code
    /// of the pickle's choosing.
    pub(super) fn new_object(&mut self, class: Id, arguments: Id) -> Result<Id, PickleError> {
        let Node::List(given) = self.node(arguments) else { return Err(self.no_operand()) };
        let state = (!given.is_empty()).then_some(arguments);
        match self.node(class) {
            Node::Global { module: "collections", name: "OrderedDict" | "defaultdict" } => {
                self.add(Node::Dict(Vec::new()))
            }
            _ => self.object(class, state),
        }
    }

    fn object(&mut self, class: Id, state: Option<Id>) -> Result<Id, PickleError> {
        if !matches!(self.node(class), Node::Global { .. }) {
            return Err(self.no_operand());
        }
        let object = Object { class, state, entries: Vec::new(), elements: Vec::new() };
        self.add(Node::Object(Box::new(object)))
    }

    /// Gives `target` its attributes. Those of containers and tensors are not looked at.
    pub(super) fn build(&mut self, target: Id, state: Id) -> Result<(), PickleError> {
        let is_dtype = match self.node(target) {
            Node::Object(object) => {
                matches!(self.node(object.class), Node::Global { module: "numpy", name: "dtype" })
            }
            Node::Dict(_) | Node::List(_) | Node::Tensor(_) => return Ok(()),
            _ => return Err(self.no_operand()),
        };
        // (version, byte order, ...): the name of the type, its state, says all the rest.
        let little_endian = match self.node(state) {
            Node::List(parts) => {
                parts.get(1).is_some_and(|order| matches!(self.node(*order), Node::Text("<" | "|")))
            }
            _ => false,
        };
        if let Node::Object(object) = self.node_mut(target) {
            if !is_dtype {
                object.state = Some(state);
            } else if !little_endian {
                object.state = None;
            }
        }
        Ok(())
    }

    /// A dictionary from nothing, from another or from pairs.
    fn dictionary(&mut self, from: Option<Id>) -> Result<Id, PickleError> {
        let Some(from) = from else { return self.add(Node::Dict(Vec::new())) };
        let pairs = match self.node(from) {
            Node::Dict(_) => return Ok(from),
            Node::List(pairs) => pairs.iter().map(|pair| match self.node(*pair) {
                Node::List(pair) => match pair.as_slice() {
                    [key, value] => Some((*key, *value)),
                    _ => None,
                },
                _ => None,
            }),
            _ => return Err(self.no_operand()),
        };
        let entries: Vec<(Id, Id)> =
            pairs.collect::<Option<_>>().ok_or_else(|| self.no_operand())?;
        self.repeat(size_of_val(entries.as_slice()))?;
        self.add(Node::Dict(entries))
    }

    /// Bytes from bytes, or from text with one character for each.
    fn bytes(&mut self, from: Option<Id>) -> Result<Option<Id>, PickleError> {
        let Some(from) = from else { return self.add(Node::Bytes(&[])).map(Some) };
        let text = match self.node(from) {
            Node::Bytes(_) | Node::MadeBytes(_) => return Ok(Some(from)),
            Node::Text(text) => *text,
            _ => return Ok(None),
        };
        self.repeat(text.len())?;
        let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(c).ok()).collect();
        bytes.map(|bytes| self.add(Node::MadeBytes(bytes))).transpose()
    }

    /// A number, if it is of a type that has a plain one; else an object.
    fn numpy_scalar(&mut self, callable: Id, arguments: Id) -> Result<Id, PickleError> {
        let number = self.numpy_number(arguments);
        match number {
            Some(number) => self.add(number),
            None => self.object(callable, Some(arguments)),
        }
    }

    /// `(dtype('f8'), bytes)` as a number.
    fn numpy_number(&self, arguments: Id) -> Option<Node<'a>> {
        let [dtype, bytes] = self.list(arguments)? else { return None };
        let Node::Object(dtype) = self.node(*dtype) else { return None };
        let Node::Text(code) = self.node(*self.list(dtype.state?)?.first()?) else { return None };
        let bytes = match self.node(*bytes) {
            Node::Bytes(bytes) => *bytes,
            Node::MadeBytes(bytes) => bytes.as_slice(),
            _ => return None,
        };
        Some(match (*code, bytes.len()) {
            ("f8", 8) => Node::Float(f64::from_le_bytes(bytes.try_into().ok()?)),
            ("f4", 4) => Node::Float(f32::from_le_bytes(bytes.try_into().ok()?).into()),
            ("i8", 8) => Node::Int(i64::from_le_bytes(bytes.try_into().ok()?)),
            ("i4", 4) => Node::Int(i32::from_le_bytes(bytes.try_into().ok()?).into()),
            ("b1", 1) => Node::Bool(bytes[0] != 0),
            _ => return None,
        })
    }

    /// `('storage', class, key, location, elements)`, with a sixth for views of old versions.
    pub(super) fn storage(&mut self, id: Id) -> Result<Id, PickleError> {
        let spec = self.storage_spec(id).ok_or(PickleError::Storage)?;
        let next = self.storages.len();
        let index = *self.storage_index.entry(spec.clone()).or_insert(next);
        if index == next {
            self.storages.push(spec);
        }
        self.add(Node::Storage(index))
    }

    fn storage_spec(&self, id: Id) -> Option<StorageSpec> {
        let (parts, view) = match self.list(id)? {
            [parts @ .., view] if parts.len() == 5 => (parts, Some(*view)),
            parts => (parts, None),
        };
        let [kind, class, key, _location, elements] = parts else { return None };
        let whole = view.is_none_or(|view| matches!(self.node(view), Node::None));
        let is_storage = matches!(self.node(*kind), Node::Text("storage"));
        let Node::Global { module: "torch" | "torch.storage" | "torch.cuda", name } =
            self.node(*class)
        else {
            return None;
        };
        let Node::Text(key) = self.node(*key) else { return None };
        (whole && is_storage && key.len() <= MAX_KEY_BYTES).then_some(StorageSpec {
            key: (*key).to_owned(),
            element: element_type(name)?,
            elements: self.size(*elements)?,
        })
    }

    /// `(storage, offset, sizes, strides, ...)`
    fn tensor(&self, arguments: Id) -> Option<Node<'a>> {
        let [storage, offset, shape, strides, ..] = self.list(arguments)? else { return None };
        let Node::Storage(storage) = *self.node(*storage) else { return None };
        let sizes = |id: Id| {
            let sizes = self.list(id).filter(|sizes| sizes.len() <= MAX_AXES)?;
            sizes.iter().map(|size| self.size(*size)).collect::<Option<Vec<usize>>>()
        };
        let view =
            View { offset: self.size(*offset)?, shape: sizes(*shape)?, strides: sizes(*strides)? };
        Some(Node::Tensor(Box::new((storage, view))))
    }

    fn list(&self, id: Id) -> Option<&[Id]> {
        match self.node(id) {
            Node::List(elements) => Some(elements),
            _ => None,
        }
    }

    fn size(&self, id: Id) -> Option<usize> {
        match self.node(id) {
            Node::Int(size) => usize::try_from(*size).ok(),
            _ => None,
        }
    }
}

fn bad_arguments(module: &str, name: &str) -> PickleError {
    PickleError::Arguments { global: full_name(module, name) }
}

/// The name of a global for a message: it comes from the file, so nothing in it may steer a
/// terminal or fill it.
fn full_name(module: &str, name: &str) -> String {
    let whole = module.chars().chain(['.']).chain(name.chars());
    whole.take(MAX_KEY_BYTES).flat_map(char::escape_debug).collect()
}
