//! Small pickles, written by hand in the opcodes of protocols 0 to 4.

use super::*;
use crate::model::checkpoint::source::Source;
use std::sync::Arc;

fn read(bytes: &[u8]) -> Result<Value, PickleError> {
    let unpickled = unpickle(bytes)?;
    let region = |spec: &StorageSpec| Region {
        source: Arc::new(Source::Memory(vec![0; spec.elements * spec.element.size()])),
        start: 0,
        bytes: (spec.elements * spec.element.size()) as u64,
        checksum: None,
    };
    let regions: Vec<Region> = unpickled.storages().iter().map(region).collect();
    unpickled.value(&regions)
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

#[test]
fn plain_values_of_every_protocol() {
    let long = [b"\x8a\x09".as_slice(), &[0, 0, 0, 0, 0, 0, 0, 0, 1], b"."].concat();
    let cases: Vec<(&[u8], Value)> = vec![
        (b"N.", Value::None),
        (b"\x88.", Value::Bool(true)),
        (b"I01\n.", Value::Bool(true)),
        (b"I-7\n.", Value::Int(-7)),
        (b"L12L\n.", Value::Int(12)),
        (b"F0.5\n.", Value::Float(0.5)),
        (b"G\x3f\xe0\0\0\0\0\0\0.", Value::Float(0.5)),
        (b"K\xff.", Value::Int(255)),
        (b"M\x01\x02.", Value::Int(513)),
        (b"J\xff\xff\xff\xff.", Value::Int(-1)),
        (b"\x8a\x00.", Value::Int(0)),
        (b"\x8a\x01\xff.", Value::Int(-1)),
        (b"\x8a\x02\x00\x01.", Value::Int(256)),
        (
            &long,
            Value::Object {
                class: "builtins.int".to_owned(),
                state: Box::new(Value::Bytes(vec![0, 0, 0, 0, 0, 0, 0, 0, 1])),
            },
        ),
        (b"S'it'\n.", text("it")),
        (b"Vit\n.", text("it")),
        (b"U\x02it.", text("it")),
        (b"U\x01\xff.", Value::Bytes(vec![255])),
        (b"X\x02\0\0\0it.", text("it")),
        (b"\x80\x04\x95\x05\0\0\0\0\0\0\0\x8c\x02it.", text("it")),
        (b"C\x01\xff.", Value::Bytes(vec![255])),
        (b"(K\x01K\x02l.", Value::List(vec![Value::Int(1), Value::Int(2)])),
        (b"](K\x01K\x02e.", Value::List(vec![Value::Int(1), Value::Int(2)])),
        (b"K\x01K\x02\x86.", Value::List(vec![Value::Int(1), Value::Int(2)])),
        (b"\x8f(K\x01\x90.", Value::List(vec![Value::Int(1)])),
        (b"}U\x01aK\x01s.", Value::Dict(vec![(text("a"), Value::Int(1))])),
        (b"(U\x01aK\x01d.", Value::Dict(vec![(text("a"), Value::Int(1))])),
        (b"]q\x00h\x00a.", Value::List(vec![Value::None])),
        (b"K\x01\x94K\x020h\x00.", Value::Int(1)),
        (b"K\x01(K\x02K\x031.", Value::Int(1)),
    ];
    for (bytes, want) in cases {
        let got = read(bytes);
        assert_eq!(got.ok().as_ref(), Some(&want), "{}", bytes.escape_ascii());
    }
}

#[test]
fn known_constructors_are_data() {
    let ordered = b"ccollections\nOrderedDict\n(U\x01aK\x01\x86l\x85R.";
    assert_eq!(read(ordered).ok(), Some(Value::Dict(vec![(text("a"), Value::Int(1))])));
    let set = b"c__builtin__\nset\n(K\x01l\x85R.";
    assert_eq!(read(set).ok(), Some(Value::List(vec![Value::Int(1)])));
    let bytes = b"c_codecs\nencode\nX\x03\0\0\0a\xc3\xbfU\x06latin1\x86R.";
    assert_eq!(read(bytes).ok(), Some(Value::Bytes(vec![b'a', 255])));
    let scalar: &[u8] = b"cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nU\x02f8\x89\x88\x87R\
        (K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tbC\x08\0\0\0\0\0\0\xe0\x3f\x86R.";
    assert_eq!(read(scalar).ok(), Some(Value::Float(0.5)));
}

#[test]
fn unknown_classes_are_kept_as_data() -> Result<(), PickleError> {
    let want = Value::Object {
        class: "some.module.Class".to_owned(),
        state: Box::new(Value::Dict(vec![(text("a"), Value::Int(1))])),
    };
    assert_eq!(read(b"csome.module\nClass\n)\x81}U\x01aK\x01sb.")?, want);
    assert_eq!(read(b"\x8c\x0bsome.module\x8c\x05Class\x93)\x81}U\x01aK\x01sb.")?, want);
    let old = b"ccopy_reg\n_reconstructor\n(csome.module\nClass\nc__builtin__\nobject\nNtR\
        }U\x01aK\x01sb.";
    assert_eq!(read(old)?, want);
    // An object that is a dictionary too.
    assert_eq!(read(b"csome.module\nClass\n)\x81U\x01aK\x01s.")?, want);
    let choice = read(b"cfairseq.dataclass.constants\nChoices\nU\x03cos\x85R.")?;
    assert_eq!(choice.as_str(), Some("cos"));
    Ok(())
}

#[test]
fn calls_of_anything_else_name_it() {
    let cases: [(&[u8], &str); 10] = [
        (b"cos\nsystem\nU\x04true\x85R.", "os.system"),
        (b"cposix\nsystem\nU\x04true\x85R.", "posix.system"),
        (b"c__builtin__\neval\nU\x011\x85R.", "__builtin__.eval"),
        (b"cbuiltins\ngetattr\nU\x01aU\x01b\x86R.", "builtins.getattr"),
        (b"c_operator\ncall\n)R.", "_operator.call"),
        (b"\x8c\x02os\x8c\x06system\x93)R.", "os.system"),
        (b"(U\x04trueios\nsystem\n.", "os.system"),
        (b"(cos\nsystem\nU\x04trueo.", "os.system"),
        (b"ctorch.storage\n_load_from_bytes\nC\x00\x85R.", "torch.storage._load_from_bytes"),
        (b"ca\x1b[31m\nb\n)R.", "a\\u{1b}[31m.b"),
    ];
    for (bytes, want) in cases {
        match read(bytes) {
            Err(PickleError::Call { global }) => assert_eq!(global, want),
            other => panic!("{want}: {other:?}"),
        }
    }
    // What a call gives, or an object, cannot be called in turn.
    for bytes in [b"cx\ny\n)\x81)R.".as_slice(), b"ccollections\nOrderedDict\n)R)R."] {
        assert!(matches!(read(bytes), Err(PickleError::Call { .. })));
    }
}

#[test]
fn damage_is_an_error() {
    let cases: [&[u8]; 24] = [
        b"",
        b"\x80",
        b"\x80\x06N.",
        b"\xff.",
        b".",
        b"0.",
        b"a.",
        b"(.",
        b"N(0.",
        b"e.",
        b"1.",
        b"K\x01\x86.",
        b"}K\x01K\x02K\x03u.",
        b"}(K\x01u.",
        b"NK\x01a.",
        b"X\xff\xff\xff\x7fabc.",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc.",
        b"j\xff\xff\xff\x7f.",
        b"g-1\n.",
        b"X\x01\0\0\0\xff.",
        b"cno newline",
        b"\x82\x01.",
        b"Pid\n.",
        b"Nb.",
    ];
    for bytes in cases {
        assert!(read(bytes).is_err(), "{}", bytes.escape_ascii());
    }
}

/// `torch._utils._rebuild_tensor_v2` over a storage of 6 floats.
fn tensor(offset: &str, shape: &str, strides: &str) -> Vec<u8> {
    format!(
        "ctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x06tQ\
         {offset}{shape}{strides}I00\nccollections\nOrderedDict\n)RtR."
    )
    .into_bytes()
}

#[test]
fn tensors_lie_inside_their_storage() {
    for (offset, shape, strides, fits) in [
        ("K\x00", "(K\x02K\x03t", "(K\x03K\x01t", true),
        ("K\x00", "(K\x03K\x02t", "(K\x01K\x03t", true),
        ("K\x05", ")", ")", true),
        ("K\x06", ")", ")", false),
        ("K\x01", "(K\x02K\x03t", "(K\x03K\x01t", false),
        ("K\x00", "(K\x02K\x03t", "(K\x04K\x01t", false),
        ("K\x00", "(K\x00K\x03t", "(K\x03K\x01t", true),
        ("K\x00", "(I-1\nt", "(K\x01t", false),
        ("K\x00", "(K\x02t", ")", false),
        ("K\x00", "(L4294967296L\nL4294967296L\nt", "(K\x00K\x00t", false),
        ("K\x00", "(L1073741824L\nt", "(K\x00t", false),
        ("K\x00", "(K\x02t", "(L9223372036854775807L\nt", false),
    ] {
        let bytes = tensor(offset, shape, strides);
        let got = read(&bytes);
        assert_eq!(got.is_ok(), fits, "{offset:?} {shape:?} {strides:?}: {got:?}");
    }
}

#[test]
fn bombs_end_at_a_bound() {
    // 200,000 lists in each other: deep, but only as nodes.
    let mut deep = vec![b']'; 200_000];
    deep.extend(vec![b'a'; 199_999]);
    deep.push(b'.');
    assert!(matches!(read(&deep), Err(PickleError::TooMany { .. })));
    // Each list holds the one before twice: 2^60 values.
    let mut doubled = b"]".to_vec();
    for slot in 0..60 {
        doubled.extend([b'q', slot, b'0', b'(', b'h', slot, b'h', slot, b'l']);
    }
    doubled.push(b'.');
    assert!(matches!(read(&doubled), Err(PickleError::TooMany { .. })));
    // One text of 1 MiB, a hundred thousand times.
    let mut repeated = b"]X\x00\x00\x10\x00".to_vec();
    repeated.extend(vec![b'a'; 1 << 20]);
    repeated.extend(b"q\x00a(");
    repeated.extend(b"h\x00".repeat(100_000));
    repeated.extend(b"e.");
    assert!(matches!(read(&repeated), Err(PickleError::TooMany { .. })));
}
