//! Names of models on the Hub.

use std::fmt;
use std::str::FromStr;

/// Longest part of a name; the Hub allows 96 characters.
const MAX_PART: usize = 96;

/// `ORG/NAME`, if need be with a file of it (`ORG/NAME/FILE.pt`) and a revision (`@REVISION`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// `ORG/NAME`
    pub name: String,
    /// Branch, tag or commit.
    pub revision: String,
    /// The one file that is wanted, where a repository holds several models.
    pub file: Option<String>,
}

/// Text that names no model of the Hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a model of the Hub is written ORG/NAME or ORG/NAME/FILE, with @REVISION if need be")]
pub struct NotARepository;

impl FromStr for Repository {
    type Err = NotARepository;

    fn from_str(text: &str) -> Result<Self, NotARepository> {
        let (path, revision) = text.split_once('@').unwrap_or((text, "main"));
        let mut parts = path.splitn(3, '/');
        let (Some(organisation), Some(name)) = (parts.next(), parts.next()) else {
            return Err(NotARepository);
        };
        let file = parts.next();
        let sound = is_part(organisation)
            && is_part(name)
            && is_plain_path(revision)
            && file.is_none_or(is_plain_path);
        if !sound {
            return Err(NotARepository);
        }
        Ok(Self {
            name: format!("{organisation}/{name}"),
            revision: revision.to_owned(),
            file: file.map(str::to_owned),
        })
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(file) = &self.file {
            write!(f, "/{file}")?;
        }
        if self.revision != "main" {
            write!(f, "@{}", self.revision)?;
        }
        Ok(())
    }
}

fn is_part(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !text.is_empty()
        && text.len() <= MAX_PART
        && text.chars().all(allowed)
        && !text.starts_with(['.', '-'])
        && !text.contains("..")
}

/// Whether `path` names something inside a folder, with nothing that a file system or a URL
/// takes for more than a name.
pub(super) fn is_plain_path(path: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.+=,() ".contains(c);
    path.len() <= 4 * MAX_PART
        && path.split('/').all(|part| {
            !part.is_empty() && part != "." && part != ".." && part.chars().all(allowed)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        let parse = |text: &str| text.parse::<Repository>();
        let plain = parse("facebook/mms-1b-all").expect("a name");
        assert_eq!((plain.name.as_str(), plain.revision.as_str()), ("facebook/mms-1b-all", "main"));
        assert_eq!(plain.file, None);
        let file = parse("s3prl/mr_hubert/sub/base.pt@refs/pr/1").expect("a name");
        assert_eq!(file.name, "s3prl/mr_hubert");
        assert_eq!(file.file.as_deref(), Some("sub/base.pt"));
        assert_eq!(file.revision, "refs/pr/1");
        assert_eq!(file.to_string(), "s3prl/mr_hubert/sub/base.pt@refs/pr/1");
        for bad in
            ["", "a", "a/", "/b", "../b", "a/..", "a/b/../c", "a/b@", "a/b@../x", "a b/c", "a/b?c"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
