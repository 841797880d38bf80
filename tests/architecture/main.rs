//! The architecture holds: imports point down, seams to other crates are single, only the
//! command line prints, `unsafe` stays in the kernels, files stay small.
//!
//! Each rule is run over the tree and, to see that it can fail, over made-up sources.

mod rules;
mod source;

use rules::{LAYERS, MAX_LINES, SEAMS, WITHOUT_FILES};
use source::{Source, read_tree};
use std::collections::BTreeSet;
use std::path::Path;

fn tree() -> Vec<Source> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = read_tree(repository, "src");
    sources.extend(read_tree(repository, "kernels/src"));
    sources
}

/// Runs a rule over the tree and shows all it finds.
fn assert_holds(rule: impl Fn(&Source) -> Vec<String>) {
    let complaints: Vec<String> = tree().iter().flat_map(rule).collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// What a rule says of one made-up file, without the path.
fn said(path: &str, text: &str, rule: impl Fn(&Source) -> Vec<String>) -> Vec<String> {
    let strip = |complaint: &String| complaint.replacen(&format!("{path}:"), "", 1);
    rule(&Source::new(path, text)).iter().map(strip).collect()
}

#[test]
fn every_layer_of_the_table_is_read() {
    let sources = tree();
    let read: BTreeSet<&str> =
        sources.iter().filter(|s| !s.code.is_empty()).filter_map(Source::layer).collect();
    let table: BTreeSet<&str> = LAYERS.iter().map(|(name, _)| *name).collect();
    assert_eq!(read, table);
    assert!(sources.iter().any(|s| s.path.starts_with("kernels/src/") && !s.code.is_empty()));
}

#[test]
fn the_table_itself_points_down() {
    for (i, (name, allowed)) in LAYERS.iter().enumerate() {
        let below: Vec<&str> = LAYERS[..i].iter().map(|(name, _)| *name).collect();
        assert!(allowed.iter().all(|layer| below.contains(layer)), "`{name}` points up");
    }
}

#[test]
fn imports_point_down() {
    assert_holds(|source| rules::imports(source, LAYERS));
}

#[test]
fn an_import_that_points_up_is_found() {
    let rule = |source: &Source| rules::imports(source, LAYERS);
    for (path, text, want) in [
        ("src/text/mod.rs", "use crate::cli::Cli;", "1: `text` may not use `cli`"),
        ("src/model/mod.rs", "\nfn f() { crate::text::f() }", "2: `model` may not use `text`"),
        ("src/model/mod.rs", "use super::audio::Audio;", "1: `model` may not use `audio`"),
        ("src/model/a/b.rs", "use super::super::super::data;", "1: `model` may not use `data`"),
        ("src/data/mod.rs", "use crate::{text::Language};", "1: `crate::{` names no layer"),
        ("src/data/mod.rs", "use crate::Thing;", "1: `crate::Thing` names no layer"),
        (
            "src/decode/mod.rs",
            "macro_rules! m { () => { $crate::train::f() } }",
            "1: `decode` may not use `train`",
        ),
        ("src/gossip/mod.rs", "", "1: layer `gossip` is not in the table"),
    ] {
        assert_eq!(said(path, text, rule), [want], "{text}");
    }
    for (path, text) in [
        ("src/data/mod.rs", "use crate::audio::Audio; use crate::data::Clip;"),
        ("src/model/mr_hubert.rs", "use super::config::EncoderConfig;"),
        ("src/model/a/b.rs", "use super::super::config;"),
        ("src/model/mod.rs", "#[cfg(test)] mod tests { use crate::text::Language; }"),
        ("src/model/mod.rs", "/// See [`crate::text`].\nfn f() {}"),
        ("src/lib.rs", "pub use crate::cli::main;"),
    ] {
        assert_eq!(said(path, text, rule), [""; 0], "{text}");
    }
}

#[test]
fn seams_are_single() {
    assert_holds(|source| rules::seams(source, SEAMS));
    let named = |name: &str| tree().iter().any(|s| s.all.iter().any(|token| token.text == name));
    for name in ["symphonia", "rubato", "ropus", "realfft", "clap", "ureq"] {
        assert!(named(name), "nothing names `{name}`: does its row still mean anything?");
    }
}

#[test]
fn a_second_seam_is_found() {
    let rule = |source: &Source| rules::seams(source, SEAMS);
    for (path, text, want) in [
        ("src/features/stft.rs", "use rubato::Fft;", "1: `rubato` belongs in `src/audio/`"),
        (
            "src/features/mel.rs",
            "use realfft::RealFftPlanner;",
            "1: `realfft` belongs in `src/features/stft.rs`",
        ),
        ("src/data/mod.rs", "#[derive(clap::Args)] struct A;", "1: `clap` belongs in `src/cli/`"),
        ("src/main.rs", "use clap as c;", "1: `clap` belongs in `src/cli/`"),
        ("src/text/mod.rs", "extern crate symphonia;", "1: `symphonia` belongs in `src/audio/`"),
        ("src/text/mod.rs", "use ::ropus::Decoder;", "1: `ropus` belongs in `src/audio/`"),
        (
            "src/text/mod.rs",
            "#[cfg(test)] mod t { fn f() { ::ropus::f(); } }",
            "1: `ropus` belongs in `src/audio/`",
        ),
    ] {
        assert_eq!(said(path, text, rule), [want], "{text}");
    }
    for (path, text) in [
        ("src/audio/opus.rs", "use ropus::Decoder;"),
        ("src/features/stft.rs", "use realfft::RealFftPlanner;"),
        ("src/text/mod.rs", "fn f(clap: u8) { g(clap) } use crate::text::clap::Hands;"),
    ] {
        assert_eq!(said(path, text, rule), [""; 0], "{text}");
    }
}

#[test]
fn only_the_command_line_prints() {
    assert_holds(rules::printing);
}

#[test]
fn printing_elsewhere_is_found() {
    for (path, text, want) in [
        ("src/train/mod.rs", "fn f() { println!(); }", "1: `println`: only `cli` prints"),
        ("kernels/src/isa.rs", "fn f() { eprint!(); }", "1: `eprint`: only `cli` prints"),
        (
            "src/bench/mod.rs",
            "fn f() { std::io::stderr().lock(); }",
            "1: `stderr`: only `cli` prints",
        ),
    ] {
        assert_eq!(said(path, text, rules::printing), [want], "{text}");
    }
    for (path, text) in [
        ("src/cli/mod.rs", "fn f() { println!(); }"),
        ("src/text/mod.rs", "#[cfg(test)] mod tests { fn f() { println!(); } }"),
        ("src/text/mod.rs", "/// `println!()` shows it.\nfn print() { print(); }"),
    ] {
        assert_eq!(said(path, text, rules::printing), [""; 0], "{text}");
    }
}

#[test]
fn unsafe_code_lives_in_the_kernels() {
    assert_holds(rules::unsafe_code);
}

#[test]
fn unsafe_code_elsewhere_is_found() {
    let want = "1: `unsafe` belongs in `kernels/`";
    for (path, text) in [
        ("src/model/mod.rs", "#[expect(unsafe_code)] fn f() { unsafe { g() } }"),
        ("src/main.rs", "unsafe fn f() {}"),
        ("src/text/mod.rs", "#[cfg(test)] mod tests { fn f() { unsafe { g() } } }"),
    ] {
        assert_eq!(said(path, text, rules::unsafe_code), [want], "{text}");
    }
    for (path, text) in [
        ("kernels/src/isa.rs", "unsafe fn f() {}"),
        ("src/main.rs", "#[expect(unsafe_code, reason = \"why\")] fn f() { unsafe { g() } }"),
        ("src/text/mod.rs", "/// Not unsafe.\nfn f() -> &'static str { \"unsafe\" }"),
    ] {
        assert_eq!(said(path, text, rules::unsafe_code), [""; 0], "{text}");
    }
}

#[test]
fn layers_of_tensors_touch_no_files() {
    assert_holds(|source| rules::files(source, WITHOUT_FILES));
}

#[test]
fn a_file_in_a_layer_of_tensors_is_found() {
    let rule = |source: &Source| rules::files(source, WITHOUT_FILES);
    for path in ["src/model/mr_hubert.rs", "src/decode/segment.rs", "src/features/mel.rs"] {
        let said = said(path, "use std::fs::File;", rule);
        assert_eq!(said, ["1: this layer knows nothing of files"], "{path}");
    }
    for path in ["src/model/checkpoint/source.rs", "src/data/manifest.rs", "src/lib.rs"] {
        assert_eq!(said(path, "use std::fs::File;", rule), [""; 0], "{path}");
    }
}

#[test]
fn files_are_small_and_named_for_what_they_hold() {
    assert_holds(|source| rules::size_and_name(source, MAX_LINES));
}

#[test]
fn a_long_or_nameless_file_is_found() {
    let rule = |source: &Source| rules::size_and_name(source, 2);
    assert_eq!(
        said("src/text/a.rs", "a\nb\nc\n", rule),
        ["3: 3 lines: look for two things inside"]
    );
    assert_eq!(said("src/text/utils.rs", "a\nb\n", rule), ["1: `utils` names no concept"]);
    assert_eq!(said("src/misc/a.rs", "", rule), ["1: `misc` names no concept"]);
    assert_eq!(said("src/text/miscount.rs", "a\nb\n", rule), [""; 0]);
}
