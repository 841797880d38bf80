//! What a model card says of the licence.

/// Licence of a model, as its card names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Licence(String);

impl Licence {
    /// A licence by the name the Hub uses, such as `cc-by-nc-4.0`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.trim().trim_matches(['"', '\'']).to_owned())
    }

    /// Reads the `license` of a README's front matter.
    #[must_use]
    pub fn of_readme(readme: &str) -> Option<Self> {
        let front = readme.strip_prefix("---")?.trim_start_matches(['\r', '\n']);
        let lines = front.lines().take_while(|line| line.trim_end() != "---");
        // A licence that is called `other` has its name beside it.
        let field = |name: &str| {
            lines.clone().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(Self::new)
        };
        let licence = field("license").filter(|licence| !licence.0.is_empty())?;
        if licence.0 == "other" { field("license_name").or(Some(licence)) } else { Some(licence) }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Whether it forbids commercial use.
    #[must_use]
    pub fn is_non_commercial(&self) -> bool {
        let name = self.0.to_ascii_lowercase();
        name.split(['-', '_', ' ', '.']).any(|part| part == "nc") || name.contains("non-commercial")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn front_matter_names_the_licence() {
        let of = |readme: &str| Licence::of_readme(readme).map(|l| l.name().to_owned());
        let card = "---\nlanguage: fr\nlicense: cc-by-nc-4.0\n---\n# Model\nlicense: no";
        assert_eq!(of(card).as_deref(), Some("cc-by-nc-4.0"));
        assert_eq!(of("---\nlicense: \"mit\"\n---\n").as_deref(), Some("mit"));
        assert_eq!(of("---\nlicense: other\nlicense_name: x\n---\n").as_deref(), Some("x"));
        assert_eq!(of("---\nlanguage: fr\n---\nlicense: mit"), None);
        assert_eq!(of("# Model"), None);
        assert!(Licence::new("cc-by-nc-sa-4.0").is_non_commercial());
        assert!(!Licence::new("apache-2.0").is_non_commercial());
    }
}
