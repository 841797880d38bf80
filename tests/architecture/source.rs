//! Rust source as tokens: strings, comments and test-only items taken out.

use std::fs;
use std::path::{Path, PathBuf};

/// A word or a punctuation mark (`::` counts as one) and the line it stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// One file of the tree.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// Relative to the repository, with `/` between parts.
    pub(crate) path: String,
    /// Lines of the whole file.
    pub(crate) n_lines: usize,
    /// Tokens outside `#[cfg(test)]` items; none in a file that is itself such a module.
    pub(crate) code: Vec<Token>,
    /// All tokens, those of tests too.
    pub(crate) all: Vec<Token>,
    /// Path prefixes (without `.rs`) of the test modules this file declares.
    test_modules: Vec<String>,
}

impl Source {
    /// Tokens of `text`, as if it stood in `path`.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let all = tokens(text);
        let mut test_modules = Vec::new();
        let code = without_tests(&all, |module| {
            test_modules.push(format!("{}/{module}", module_folder(path)));
        });
        Self { path: path.to_owned(), n_lines: text.lines().count(), code, all, test_modules }
    }

    /// Layer of a file in `src/LAYER/`; `None` for `src/lib.rs` and the like.
    pub(crate) fn layer(&self) -> Option<&str> {
        let (layer, _) = self.path.strip_prefix("src/")?.split_once('/')?;
        Some(layer)
    }

    /// How many `super` lead from this file's module to the crate root.
    pub(crate) fn depth(&self) -> usize {
        module_folder(&self.path).matches('/').count()
    }
}

/// Folder that the children of a module in `path` lie in.
fn module_folder(path: &str) -> &str {
    let stem = path.strip_suffix(".rs").unwrap_or(path);
    ["/mod", "/lib", "/main"].iter().find_map(|name| stem.strip_suffix(name)).unwrap_or(stem)
}

/// Every Rust file below `folder` of the repository, modules that only tests see emptied.
pub(crate) fn read_tree(repository: &Path, folder: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut folders = vec![repository.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("folder is readable") {
            let path = entry.expect("entry is readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("source is UTF-8");
                sources.push(Source::new(&relative(&path, repository), &text));
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    empty_test_modules(&mut sources);
    sources
}

fn relative(path: &Path, repository: &Path) -> String {
    let path: PathBuf = path.strip_prefix(repository).expect("below the repository").into();
    path.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// Leaves no code in the files of `#[cfg(test)] mod name;`.
pub(crate) fn empty_test_modules(sources: &mut [Source]) {
    let modules: Vec<String> = sources.iter().flat_map(|s| s.test_modules.clone()).collect();
    for source in sources {
        let is_test = |module: &String| {
            source
                .path
                .strip_prefix(module)
                .is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        };
        if modules.iter().any(is_test) {
            source.code.clear();
        }
    }
}

/// Splits source into words and marks, skipping comments, literals and lifetimes.
fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut tokens = Vec::new();
    let (mut i, mut line) = (0, 1);
    while i < chars.len() {
        let start = i;
        match at(i) {
            '/' if at(i + 1) == '/' => {
                while i < chars.len() && at(i) != '\n' {
                    i += 1;
                }
            }
            '/' if at(i + 1) == '*' => i = end_of_comment(&chars, i),
            '"' => i = end_of_string(&chars, i),
            '\'' if at(i + 1) == '\\' || at(i + 2) == '\'' => {
                // The escaped character may itself be a quote.
                i += if at(i + 1) == '\\' { 3 } else { 2 };
                while i < chars.len() && at(i) != '\'' {
                    i += 1;
                }
                i += 1;
            }
            c if c.is_alphabetic() || c == '_' => {
                while at(i).is_alphanumeric() || at(i) == '_' {
                    i += 1;
                }
                let word: String = chars[start..i].iter().collect();
                let is_prefix = matches!(word.as_str(), "r" | "b" | "br" | "c" | "cr");
                let raw_string = chars[i..].iter().find(|c| **c != '#') == Some(&'"');
                if is_prefix && word.contains('r') && raw_string {
                    i = end_of_raw_string(&chars, i);
                } else if is_prefix && at(i) == '"' {
                    i = end_of_string(&chars, i);
                } else {
                    tokens.push(Token { text: word, line });
                }
            }
            ':' if at(i + 1) == ':' => {
                tokens.push(Token { text: "::".to_owned(), line });
                i += 2;
            }
            c => {
                if !c.is_whitespace() && !c.is_ascii_digit() && c != '\'' {
                    tokens.push(Token { text: c.to_string(), line });
                }
                i += 1;
            }
        }
        line += chars[start..i.min(chars.len())].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

/// End of a comment that may hold others.
fn end_of_comment(chars: &[char], start: usize) -> usize {
    let (mut i, mut depth) = (start, 0);
    while i + 1 < chars.len() {
        match (chars[i], chars[i + 1]) {
            ('/', '*') => (i, depth) = (i + 2, depth + 1),
            ('*', '/') => (i, depth) = (i + 2, depth - 1),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    chars.len()
}

fn end_of_string(chars: &[char], start: usize) -> usize {
    let mut i = start + 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

/// `start` is past the `r`.
fn end_of_raw_string(chars: &[char], start: usize) -> usize {
    let n_hashes = chars[start..].iter().take_while(|c| **c == '#').count();
    let mut i = start + n_hashes + 1;
    while i < chars.len() {
        let hashes = chars[i + 1..].iter().take(n_hashes).filter(|c| **c == '#').count();
        if chars[i] == '"' && hashes == n_hashes {
            return i + 1 + n_hashes;
        }
        i += 1;
    }
    i
}

/// Tokens outside items under `#[cfg(test)]`; tells `on_module` each `mod name;` among them.
fn without_tests(tokens: &[Token], mut on_module: impl FnMut(&str)) -> Vec<Token> {
    let mut kept = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        if !starts_test_item(&tokens[i..]) {
            kept.push(tokens[i].clone());
            i += 1;
            continue;
        }
        let end = i + end_of_item(&tokens[i..]);
        let last_three = tokens[..end].rchunks(3).next().unwrap_or_default();
        if let [keyword, name, mark] = last_three
            && keyword.text == "mod"
            && mark.text == ";"
        {
            on_module(&name.text);
        }
        i = end;
    }
    kept
}

/// Whether an attribute such as `#[cfg(test)]` or `#[cfg(all(test, unix))]` comes first.
fn starts_test_item(tokens: &[Token]) -> bool {
    let texts = tokens.iter().map(|token| token.text.as_str());
    if !texts.clone().take(4).eq(["#", "[", "cfg", "("]) {
        return false;
    }
    let mut condition = texts.skip(4).take_while(|text| *text != "]");
    condition.clone().all(|text| text != "not") && condition.any(|text| text == "test")
}

/// Number of tokens up to the end of an item: its `;`, or the brace that closes its body.
fn end_of_item(tokens: &[Token]) -> usize {
    let mut depth = 0_usize;
    for (i, token) in tokens.iter().enumerate() {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" => depth = depth.saturating_sub(1),
            "}" => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return i + 1;
                }
            }
            ";" if depth == 0 => return i + 1,
            _ => {}
        }
    }
    tokens.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(tokens: &[Token]) -> Vec<&str> {
        tokens.iter().map(|token| token.text.as_str()).collect()
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        let text = "//! use crate::a\n/* b /* c */ d */ let x = \"e \\\" f\";\n\
                    r#\"g \" h\"# b\"i\" '\\'' 'j' '\"' &'k l \"m";
        let source = Source::new("src/x.rs", text);
        assert_eq!(words(&source.code), ["let", "x", "=", ";", "&", "k", "l"]);
        assert_eq!(source.code[0].line, 2);
        assert_eq!(source.code[4].line, 3);
    }

    #[test]
    fn test_items_are_no_code_and_what_follows_is() {
        let text = "a; #[cfg(test)] #[allow(x)] mod tests { fn b() { {} } } c;\n\
                    #[cfg(test)] mod more; #[cfg(not(test))] mod d; #[cfg(all(test, unix))] fn e() {} f";
        let source = Source::new("src/model/mod.rs", text);
        let not_test = ["#", "[", "cfg", "(", "not", "(", "test", ")", ")", "]", "mod", "d", ";"];
        assert_eq!(words(&source.code), [&["a", ";", "c", ";"], &not_test[..], &["f"]].concat());
        assert_eq!(source.test_modules, ["src/model/more"]);
    }

    #[test]
    fn files_of_test_modules_hold_no_code() {
        let mut sources = vec![
            Source::new("src/model/encoder.rs", "#[cfg(test)] mod tests;"),
            Source::new("src/model/encoder/tests.rs", "use crate::text::Language;"),
            Source::new("src/model/encoder/tests/case.rs", "a"),
            Source::new("src/model/encoder/tests_of_fire.rs", "a"),
        ];
        empty_test_modules(&mut sources);
        let n_tokens: Vec<usize> = sources.iter().map(|source| source.code.len()).collect();
        assert_eq!(n_tokens, [0, 0, 0, 1]);
    }

    #[test]
    fn layer_and_depth_come_from_the_path() {
        for (path, layer, depth) in [
            ("src/lib.rs", None, 0),
            ("src/model/mod.rs", Some("model"), 1),
            ("src/model/encoder.rs", Some("model"), 2),
            ("src/model/encoder/stage.rs", Some("model"), 3),
            ("kernels/src/ctc.rs", None, 2),
        ] {
            let source = Source::new(path, "");
            assert_eq!((source.layer(), source.depth()), (layer, depth), "{path}");
        }
    }
}
