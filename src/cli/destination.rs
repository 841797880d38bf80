//! Where results go: standard output, one file, or a file per input in a tree like theirs.

use super::failure::{AnyError, CliError};
use super::input::Input;
use super::output::Output;
use crate::files;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// One place for all results, or one for each.
pub(super) enum Destination {
    One(Output),
    Folder(Folder),
}

impl Destination {
    /// Whether results stay in files.
    pub(super) fn is_kept(&self) -> bool {
        !matches!(self, Self::One(Output::Stdout))
    }
}

/// A folder with a file per input.
pub(super) struct Folder {
    names: HashMap<Input, PathBuf>,
}

/// Whether `-o` names a folder: one that exists, or a name with a slash at its end.
pub(super) fn is_folder(path: &Path) -> bool {
    path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/")
}

impl Folder {
    /// Names the result of each input after its place in the folder it was found in:
    /// `talks/a.mp3` becomes `a.srt`. Where two inputs would share a name, theirs keep the
    /// extension of the audio, and a number if that is not enough.
    pub(super) fn new(root: &Path, inputs: &[Input], extension: &str) -> Self {
        let short = |input: &Input| input.relative().with_extension(extension);
        let mut uses: HashMap<PathBuf, usize> = HashMap::new();
        for input in inputs {
            *uses.entry(short(input)).or_default() += 1;
        }
        let mut taken = HashSet::new();
        let mut names = HashMap::new();
        for input in inputs {
            if names.contains_key(input) {
                continue;
            }
            let mut name = short(input);
            if uses[&name] > 1 {
                name = with_suffix(&input.relative(), extension);
            }
            let mut number = 2;
            while !taken.insert(name.clone()) {
                name = with_suffix(&input.relative(), &format!("{number}.{extension}"));
                number += 1;
            }
            names.insert(input.clone(), root.join(name));
        }
        Self { names }
    }

    pub(super) fn path(&self, input: &Input) -> Option<&Path> {
        self.names.get(input).map(PathBuf::as_path)
    }

    /// Writes the whole result of an input.
    pub(super) fn write(&self, input: &Input, text: &str) -> Result<(), AnyError> {
        let Some(path) = self.path(input) else { return Ok(()) };
        let mut output = Output::create(Some(path))?;
        output.write(text)?;
        Ok(output.finish()?)
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

/// The lines of an earlier run's `jsonl` file, whole or cut short, that hold results, and
/// the inputs they are of.
pub(super) fn earlier_results(path: &Path) -> Result<(Vec<String>, HashSet<String>), CliError> {
    let partial = files::partial(path);
    let (mut lines, mut done) = (Vec::new(), HashSet::new());
    for file in [path, &partial] {
        let text = match std::fs::read(file) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(source) => return Err(CliError::Read { path: file.to_owned(), source }),
        };
        for line in text.lines() {
            // The last line of a run that was killed may be no JSON; failed inputs are tried again.
            let Ok(value) = serde_json::from_str::<serde_json::Value>(line) else { continue };
            let name = value.get("file").and_then(|name| name.as_str());
            let is_result = value.get("schema").is_some() && value.get("partial").is_none();
            if let Some(name) = name.filter(|_| is_result)
                && done.insert(name.to_owned())
            {
                lines.push(line.to_owned());
            }
        }
    }
    Ok((lines, done))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_tree_and_never_collide() {
        let file = |path: &str, relative: &str| Input::File {
            path: path.into(),
            relative: relative.into(),
        };
        let inputs = [
            file("in/a.wav", "a.wav"),
            file("in/sub/a.wav", "sub/a.wav"),
            file("in/b.mp3", "b.mp3"),
            file("in/b.wav", "b.wav"),
            file("x/c.wav", "c.wav"),
            file("y/c.wav", "c.wav"),
            Input::Stdin,
        ];
        let folder = Folder::new(Path::new("out"), &inputs, "srt");
        let names: Vec<String> = inputs
            .iter()
            .map(|input| folder.path(input).expect("has a name").display().to_string())
            .collect();
        let want = [
            "a.srt",
            "sub/a.srt",
            "b.mp3.srt",
            "b.wav.srt",
            "c.wav.srt",
            "c.wav.2.srt",
            "stdin.srt",
        ];
        assert_eq!(names, want.map(|name| format!("out/{name}")));
        assert!(
            is_folder(Path::new("new/"))
                && is_folder(Path::new("src"))
                && !is_folder(Path::new("new.srt"))
        );
    }

    #[test]
    fn a_run_that_was_killed_is_read_as_far_as_it_came() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("out.jsonl");
        let partial =
            "{\"schema\":1,\"file\":\"b\"}\n{\"file\":\"c\",\"error\":\"x\"}\n{\"schema\":1,\"fi";
        std::fs::write(&path, "{\"schema\":1,\"file\":\"a\"}\n").expect("written");
        std::fs::write(folder.path().join("out.jsonl.partial"), partial).expect("written");
        let (lines, done) = earlier_results(&path).expect("readable");
        assert_eq!(lines.len(), 2);
        assert!(done.contains("a") && done.contains("b") && done.len() == 2);
        assert!(earlier_results(&folder.path().join("none")).expect("nothing there").0.is_empty());
    }
}
