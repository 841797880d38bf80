//! The rules: each takes a source and returns what is wrong with it, `path:line: why`.

use super::source::{Source, Token};

/// A layer and the layers below that it may use.
pub(crate) type Layer = (&'static str, &'static [&'static str]);

/// What each layer of `src/` may use of ours, itself aside.
pub(crate) const LAYERS: &[Layer] = &[
    ("files", &[]),
    ("audio", &["files"]),
    ("text", &["files"]),
    ("hub", &[]),
    ("features", &["audio"]),
    // These two stand on the kernels crate; `model/checkpoint` writes files.
    ("model", &["files"]),
    ("objective", &[]),
    ("data", &["files", "audio", "text", "features"]),
    ("train", &["files", "data", "model", "objective"]),
    ("config", &["files", "features", "model", "text", "data", "train"]),
    (
        "pretrain",
        &["files", "audio", "text", "features", "model", "objective", "data", "train", "config"],
    ),
    ("decode", &["text", "features", "model", "config"]),
    (
        "bench",
        &["files", "data", "decode", "text", "config", "features", "model", "audio", "train"],
    ),
    (
        "cli",
        &[
            "files",
            "audio",
            "text",
            "features",
            "model",
            "objective",
            "data",
            "train",
            "config",
            "pretrain",
            "decode",
            "bench",
            "hub",
        ],
    ),
];

/// A crate of others and the one place (a path prefix) that may name it.
pub(crate) const SEAMS: &[(&str, &str)] = &[
    ("symphonia", "src/audio/"),
    ("ropus", "src/audio/"),
    ("rubato", "src/audio/"),
    ("rtrb", "src/audio/"),
    ("cpal", "src/audio/"),
    ("realfft", "src/features/stft.rs"),
    ("earshot", "src/features/voice.rs"),
    ("flate2", "src/decode/lm/arpa.rs"),
    ("clap", "src/cli/"),
    ("clap_complete", "src/cli/"),
    ("indicatif", "src/cli/"),
    ("console", "src/cli/listen/screen.rs"),
    ("ctrlc", "src/cli/"),
    ("ureq", "src/hub/"),
    ("crc32fast", "src/model/checkpoint/stored.rs"),
    ("parquet", "src/bench/ml_superb/hugging_face.rs"),
    ("faiss", "src/pretrain/cluster.rs"),
];

/// Layers that know nothing of files, and the places (path prefixes) of theirs that do.
pub(crate) const WITHOUT_FILES: &[(&str, &[&str])] = &[
    ("features", &[]),
    ("model", &["src/model/checkpoint/"]),
    ("objective", &[]),
    ("decode", &[]),
];

/// Lines past which a file holds two things.
pub(crate) const MAX_LINES: usize = 600;

/// Names that say nothing of what a module is.
const EMPTY_NAMES: [&str; 4] = ["utils", "helpers", "common", "misc"];

fn complaint(source: &Source, line: usize, why: &str) -> String {
    format!("{}:{line}: {why}", source.path)
}

/// Text of `tokens[i]`, empty past the end.
fn text(tokens: &[Token], i: usize) -> &str {
    tokens.get(i).map_or("", |token| token.text.as_str())
}

/// Imports point down only, and each names its layer: `use crate::layer::Item;`.
pub(crate) fn imports(source: &Source, layers: &[Layer]) -> Vec<String> {
    let Some(layer) = source.layer() else {
        return Vec::new();
    };
    let Some((_, allowed)) = layers.iter().find(|(name, _)| *name == layer) else {
        return vec![complaint(source, 1, &format!("layer `{layer}` is not in the table"))];
    };
    roots(source)
        .filter_map(|(line, root)| {
            let is_layer = layers.iter().any(|(name, _)| *name == root);
            let why = if !is_layer {
                format!("`crate::{root}` names no layer")
            } else if root != layer && !allowed.contains(&root) {
                format!("`{layer}` may not use `{root}`")
            } else {
                return None;
            };
            Some(complaint(source, line, &why))
        })
        .collect()
}

/// What follows each path to the crate root: `crate::` or enough `super::`.
fn roots(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    let code = &source.code;
    (0..code.len()).filter_map(move |i| {
        let mut next = i;
        if text(code, i) == "crate" && text(code, i + 1) == "::" {
            next += 2;
        } else if text(code, i) == "super" && !(i > 0 && text(code, i - 1) == "::") {
            while text(code, next) == "super" && text(code, next + 1) == "::" {
                next += 2;
            }
            if (next - i) / 2 < source.depth() {
                return None;
            }
        } else {
            return None;
        }
        Some((code[i].line, text(code, next)))
    })
}

/// Each crate of others is named in one place only.
pub(crate) fn seams(source: &Source, seams: &[(&str, &str)]) -> Vec<String> {
    let all = &source.all;
    let mut complaints = Vec::new();
    for (name, place) in seams {
        for (i, token) in all.iter().enumerate() {
            let before = i.checked_sub(1).map_or("", |i| text(all, i));
            let names_crate = text(all, i + 1) == "::" || matches!(before, "use" | "crate");
            let found = token.text == *name && names_crate && !continues_path(all, i);
            if found && !source.path.starts_with(place) {
                complaints.push(complaint(
                    source,
                    token.line,
                    &format!("`{name}` belongs in `{place}`"),
                ));
            }
        }
    }
    complaints
}

/// Whether `a::` or the like stands before `tokens[i]`; a leading `::` starts a path.
fn continues_path(tokens: &[Token], i: usize) -> bool {
    let [.., before, mark] = &tokens[..i] else {
        return false;
    };
    let is_word = before.text.starts_with(|c: char| c.is_alphabetic() || c == '_' || c == '>');
    mark.text == "::" && is_word && before.text != "use"
}

/// Only the command line prints.
pub(crate) fn printing(source: &Source) -> Vec<String> {
    if source.layer() == Some("cli") {
        return Vec::new();
    }
    let code = &source.code;
    code.iter()
        .enumerate()
        .filter(|(i, token)| match token.text.as_str() {
            "println" | "print" | "eprintln" | "eprint" | "dbg" => text(code, i + 1) == "!",
            "stdout" | "stderr" => text(code, i + 1) == "(",
            _ => false,
        })
        .map(|(_, token)| {
            complaint(source, token.line, &format!("`{}`: only `cli` prints", token.text))
        })
        .collect()
}

/// `unsafe` lives in the kernels; `src/main.rs` may have some with `#[expect(unsafe_code)]`.
pub(crate) fn unsafe_code(source: &Source) -> Vec<String> {
    let expected = source.path == "src/main.rs"
        && source
            .all
            .windows(3)
            .any(|w| w[0].text == "expect" && w[1].text == "(" && w[2].text == "unsafe_code");
    if source.path.starts_with("kernels/") || expected {
        return Vec::new();
    }
    let uses = source.all.iter().filter(|token| token.text == "unsafe");
    uses.map(|token| complaint(source, token.line, "`unsafe` belongs in `kernels/`")).collect()
}

/// Layers of tensors and numbers touch no file.
pub(crate) fn files(source: &Source, without: &[(&str, &[&str])]) -> Vec<String> {
    let exempt = without.iter().find(|(layer, _)| source.layer() == Some(layer));
    let is_exempt = |places: &[&str]| places.iter().any(|place| source.path.starts_with(place));
    if exempt.is_none_or(|(_, places)| is_exempt(places)) {
        return Vec::new();
    }
    let code = &source.code;
    (0..code.len())
        .filter(|&i| {
            text(code, i) == "std" && text(code, i + 1) == "::" && text(code, i + 2) == "fs"
        })
        .map(|i| complaint(source, code[i].line, "this layer knows nothing of files"))
        .collect()
}

/// No file holds two things, and its name says which one it holds.
pub(crate) fn size_and_name(source: &Source, max_lines: usize) -> Vec<String> {
    let mut complaints = Vec::new();
    if source.n_lines > max_lines {
        let why = format!("{} lines: look for two things inside", source.n_lines);
        complaints.push(complaint(source, source.n_lines, &why));
    }
    let parts = source.path.trim_end_matches(".rs").split('/');
    for name in parts.filter(|part| EMPTY_NAMES.contains(part)) {
        complaints.push(complaint(source, 1, &format!("`{name}` names no concept")));
    }
    complaints
}
