//! Which files of a model are needed.

use super::error::HubError;
use super::repository::Repository;
use std::path::Path;

/// Descriptions that are taken where they exist.
const DESCRIPTIONS: [&str; 7] = [
    "README.md",
    "config.json",
    "preprocessor_config.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
    "vocab.json",
    "config.yaml",
];
const SAFETENSORS: &str = "model.safetensors";
const SAFETENSORS_INDEX: &str = "model.safetensors.index.json";
const TORCH: &str = "pytorch_model.bin";
const TORCH_INDEX: &str = "pytorch_model.bin.index.json";
/// Files of training runs that are no models.
const TRAINING_FILES: [&str; 5] =
    ["optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state.pth", "training_args.bin"];

/// Similar names listed for a language without an adapter.
const NEAR: usize = 5;

/// Names that are asked for where the Hub cannot list its files.
pub(super) const PROBED: [&str; 11] = [
    "README.md",
    "config.json",
    "preprocessor_config.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
    "vocab.json",
    "config.yaml",
    SAFETENSORS,
    SAFETENSORS_INDEX,
    TORCH,
    TORCH_INDEX,
];

/// Files to take, small ones first, and what is handed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Selection {
    pub(super) files: Vec<String>,
    /// An index among them, which names more.
    pub(super) index: Option<String>,
    /// A checkpoint that is the model; else the folder is.
    pub(super) checkpoint: Option<String>,
}

/// Files that the adapter of a language may be in; `names` are those the language may go by.
pub(super) fn adapter_files(names: &[String]) -> impl Iterator<Item = String> {
    names
        .iter()
        .flat_map(|name| ["safetensors", "bin"].map(|ending| format!("adapter.{name}.{ending}")))
}

/// Chooses among `all` files of a repository. `languages` are those whose adapters are wanted,
/// each by the names it may go by, of which the first that is there counts.
pub(super) fn select(
    repository: &Repository,
    all: &[String],
    languages: &[Vec<String>],
) -> Result<Selection, HubError> {
    let has = |name: &str| all.iter().any(|file| file == name);
    let taken = |names: &[&str]| {
        names.iter().filter(|name| has(name)).map(|name| (*name).to_owned()).collect::<Vec<_>>()
    };
    let mut files = taken(&DESCRIPTIONS);
    let mut index = None;
    let mut checkpoint = None;
    if let Some(file) = &repository.file {
        if !has(file) {
            let (repository, file) = (repository.name.clone(), file.clone());
            return Err(HubError::NoFile { repository, file });
        }
        checkpoint = Some(file.clone());
    } else if has("config.json") && has(SAFETENSORS) {
        files.push(SAFETENSORS.to_owned());
    } else if has("config.json") && has(SAFETENSORS_INDEX) {
        index = Some(SAFETENSORS_INDEX.to_owned());
    } else if has("config.json") && has(TORCH) {
        files.push(TORCH.to_owned());
    } else if has("config.json") && has(TORCH_INDEX) {
        index = Some(TORCH_INDEX.to_owned());
    } else {
        let candidates: Vec<&String> = all.iter().filter(|file| is_checkpoint(file)).collect();
        checkpoint = match candidates.as_slice() {
            [] => return Err(HubError::NoWeights { repository: repository.to_string() }),
            [only] => Some((*only).clone()),
            several => {
                return Err(HubError::Several {
                    repository: repository.to_string(),
                    files: several.iter().map(|file| (*file).clone()).collect(),
                });
            }
        };
    }
    if let Some(file) = &checkpoint {
        let beside = Path::new(file).with_file_name("config.yaml");
        let beside = beside.to_string_lossy().replace('\\', "/");
        if has(&beside) && !files.contains(&beside) {
            files.push(beside);
        }
        files.push(file.clone());
    }
    files.extend(index.clone());
    let mut adapters: Vec<&str> = all.iter().filter_map(|file| language_of(file)).collect();
    adapters.sort_unstable();
    adapters.dedup();
    for names in languages {
        match adapter_files(names).find(|name| has(name)) {
            Some(file) if files.contains(&file) => {}
            Some(file) => files.push(file),
            None if adapters.is_empty() => {}
            None => {
                return Err(HubError::NoAdapter {
                    repository: repository.to_string(),
                    language: names.first().cloned().unwrap_or_default(),
                    near: near(names, &adapters),
                });
            }
        }
    }
    Ok(Selection { files, index, checkpoint })
}

/// The language that an adapter's file is named after.
fn language_of(file: &str) -> Option<&str> {
    let rest = file.strip_prefix("adapter.")?;
    rest.strip_suffix(".safetensors").or(rest.strip_suffix(".bin"))
}

/// The languages that begin like one of `names`, by as many of three letters as find any.
fn near(names: &[String], adapters: &[&str]) -> Vec<String> {
    let alike = |letters: usize| {
        let begins = |name: &String| name.get(..letters).map(str::to_lowercase);
        let starts: Vec<String> = names.iter().filter_map(begins).collect();
        let like = |adapter: &&&str| starts.iter().any(|start| adapter.starts_with(start.as_str()));
        adapters.iter().filter(like).take(NEAR).map(|near| (*near).to_owned()).collect::<Vec<_>>()
    };
    [3, 2, 1].into_iter().map(alike).find(|near| !near.is_empty()).unwrap_or_default()
}

fn is_checkpoint(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    let ending = name.rsplit('.').next().unwrap_or_default();
    matches!(ending, "pt" | "pth") && !TRAINING_FILES.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `languages` are names parted by `|`.
    fn chosen(name: &str, all: &[&str], languages: &[&str]) -> Result<Selection, HubError> {
        let all: Vec<String> = all.iter().map(|file| (*file).to_owned()).collect();
        let names = |names: &&str| names.split('|').map(str::to_owned).collect();
        let languages: Vec<Vec<String>> = languages.iter().map(names).collect();
        select(&name.parse().expect("a name"), &all, &languages)
    }

    #[test]
    fn one_form_of_the_weights_is_taken() -> Result<(), HubError> {
        let all =
            ["config.json", "vocab.json", "model.safetensors", "pytorch_model.bin", "flax.msgpack"];
        let files = chosen("a/b", &all, &[])?.files;
        assert_eq!(files, ["config.json", "vocab.json", "model.safetensors"]);
        let files = chosen("a/b", &["config.json", "pytorch_model.bin"], &[])?.files;
        assert_eq!(files, ["config.json", "pytorch_model.bin"]);
        let shards = chosen("a/b", &["config.json", "model.safetensors.index.json"], &[])?;
        assert_eq!(shards.index.as_deref(), Some("model.safetensors.index.json"));
        Ok(())
    }

    #[test]
    fn adapters_are_taken_for_the_languages_asked() -> Result<(), HubError> {
        let all = [
            "config.json",
            "model.safetensors",
            "adapter.eng.safetensors",
            "adapter.fra.bin",
            "adapter.fra.safetensors",
        ];
        let files = chosen("a/b", &all, &["fra"])?.files;
        assert_eq!(files, ["config.json", "model.safetensors", "adapter.fra.safetensors"]);
        let files = chosen("a/b", &all, &["fr|fra", "French|fra", "en|eng"])?.files;
        assert_eq!(files[2..], ["adapter.fra.safetensors", "adapter.eng.safetensors"]);
        for (asked, near) in [("frp", "near it are fra"), ("xxx", "none is near it")] {
            let error = chosen("a/b", &all, &["eng", asked]).expect_err("there is none");
            let said = error.to_string();
            assert_eq!(said, format!("`a/b` has no adapter for `{asked}`; {near}"));
        }
        // Without any adapters there is nothing to ask for one of.
        assert!(chosen("a/b", &["config.json", "model.safetensors"], &["xxx"]).is_ok());
        Ok(())
    }

    #[test]
    fn single_checkpoints_are_models() -> Result<(), HubError> {
        let all = ["exp/5epoch.pth", "exp/config.yaml", "optimizer.pt", "README.md"];
        let one = chosen("a/b", &all, &[])?;
        assert_eq!(one.checkpoint.as_deref(), Some("exp/5epoch.pth"));
        assert_eq!(one.files, ["README.md", "exp/config.yaml", "exp/5epoch.pth"]);
        let several = ["a.pt", "b.pt"];
        assert!(matches!(chosen("a/b", &several, &[]), Err(HubError::Several { .. })));
        assert_eq!(chosen("a/b/b.pt", &several, &[])?.files, ["b.pt"]);
        assert!(matches!(chosen("a/b/c.pt", &several, &[]), Err(HubError::NoFile { .. })));
        assert!(matches!(chosen("a/b", &["README.md"], &[]), Err(HubError::NoWeights { .. })));
        Ok(())
    }
}
