//! A model by its name: from the cache, else from the Hub.

use super::Progress;
use super::cache::{CachedModel, io, is_plain_name};
use super::card::Licence;
use super::client::Client;
use super::download::{Wanted, download};
use super::error::HubError;
use super::repository::{Repository, is_plain_path};
use super::selection::{PROBED, Selection, adapter_files, select};
use super::settings::HubSettings;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Folders inside a snapshot that are looked into.
const MAX_DEPTH: usize = 6;

/// A model on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The folder, or the checkpoint in it.
    pub path: PathBuf,
    /// What its card says of its licence.
    pub licence: Option<Licence>,
}

/// The Hub and the cache before it.
#[derive(Debug)]
pub struct Hub {
    settings: HubSettings,
    client: Client,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// What of a model's settings decides which files it needs.
#[derive(Deserialize)]
struct Needs {
    adapter_attn_dim: Option<usize>,
}

impl Hub {
    /// A Hub by its settings; nothing is reached yet.
    #[must_use]
    pub fn new(settings: HubSettings) -> Self {
        let client = Client::new(&settings);
        Self { settings, client }
    }

    /// Whether the network is left alone.
    #[must_use]
    pub fn is_offline(&self) -> bool {
        self.settings.offline
    }

    /// A model from the cache, if it is complete there, without a look at the network.
    /// `languages` are those whose adapters are wanted, each by the names it may go by.
    #[must_use]
    pub fn cached(&self, repository: &Repository, languages: &[Vec<String>]) -> Option<Fetched> {
        let snapshot = CachedModel::new(&self.settings.cache, repository).snapshot()?;
        let mut all = Vec::new();
        files_of(&snapshot, "", MAX_DEPTH, &mut all);
        let selection = select(repository, &all, languages).ok()?;
        if let Some(index) = &selection.index {
            let shards = shards(&snapshot.join(index)).ok()?;
            shards.iter().all(|shard| all.contains(shard)).then_some(())?;
        }
        let has_adapter =
            |names: &Vec<String>| adapter_files(names).any(|file| all.contains(&file));
        if needs_adapters(&snapshot) && !languages.iter().all(has_adapter) {
            return None;
        }
        Some(fetched(&snapshot, &selection, None))
    }

    /// Names of the models in the cache and their folders, in order.
    #[must_use]
    pub fn list(&self) -> Vec<(String, PathBuf)> {
        let entries = std::fs::read_dir(&self.settings.cache).into_iter().flatten().flatten();
        let mut models: Vec<(String, PathBuf)> = entries
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let name = name.strip_prefix("models--")?.replacen("--", "/", 1);
                let repository: Repository = name.parse().ok()?;
                let snapshot = CachedModel::new(&self.settings.cache, &repository).snapshot()?;
                Some((name, snapshot))
            })
            .collect();
        models.sort();
        models
    }

    /// Brings what the cache lacks of a model's current state; `languages` as in
    /// [`Hub::cached`].
    ///
    /// # Errors
    /// [`HubError`] naming the model or file.
    pub fn pull(
        &self,
        repository: &Repository,
        languages: &[Vec<String>],
        progress: &dyn Progress,
    ) -> Result<Fetched, HubError> {
        if self.settings.offline {
            return Err(HubError::Offline {
                repository: repository.to_string(),
                cache: self.settings.cache.clone(),
            });
        }
        let model = CachedModel::new(&self.settings.cache, repository);
        let (commit, all, licence) = match self.client.describe(repository)? {
            Some(description) => {
                let licence = description.licence().map(Licence::new);
                (description.commit.clone(), description.files(), licence)
            }
            None => self.probe(repository, languages)?,
        };
        let mut selection = select(repository, &all, languages)?;
        if let Some(index) = selection.index.clone() {
            self.bring(&model, repository, &commit, &index, progress)?;
            selection.files.extend(shards(&model.snapshot_of(&commit).join(index))?);
        }
        for file in &selection.files {
            self.bring(&model, repository, &commit, file, progress)?;
        }
        model.set_revision(&commit)?;
        Ok(fetched(&model.snapshot_of(&commit), &selection, licence))
    }

    /// Asks for each file a model may have: for copies of the Hub that cannot list them.
    fn probe(
        &self,
        repository: &Repository,
        languages: &[Vec<String>],
    ) -> Result<(String, Vec<String>, Option<Licence>), HubError> {
        let mut commit = None;
        let mut files = Vec::new();
        let named = PROBED.iter().copied().chain(repository.file.as_deref()).map(str::to_owned);
        let adapters = languages.iter().flat_map(|names| adapter_files(names));
        for file in named.chain(adapters.filter(|file| is_plain_path(file))) {
            if let Some(facts) = self.client.facts(repository, &repository.revision, &file)? {
                commit = commit.or(facts.commit);
                files.push(file);
            }
        }
        let revision = Some(repository.revision.clone()).filter(|name| is_plain_name(name));
        match commit.or(revision) {
            Some(commit) if !files.is_empty() => Ok((commit, files, None)),
            _ => Err(HubError::NotFound { repository: repository.to_string() }),
        }
    }

    /// One file into the snapshot of a commit, unless it is there.
    fn bring(
        &self,
        model: &CachedModel,
        repository: &Repository,
        commit: &str,
        file: &str,
        progress: &dyn Progress,
    ) -> Result<(), HubError> {
        let missing = || HubError::NoFile {
            repository: repository.name.clone(),
            file: file.escape_debug().to_string(),
        };
        if !is_plain_path(file) {
            return Err(missing());
        }
        if model.snapshot_of(commit).join(file).is_file() {
            return Ok(());
        }
        let facts = self.client.facts(repository, commit, file)?.ok_or_else(missing)?;
        let blob = model.blob(&facts.etag)?;
        let there = blob.metadata().ok().map(|blob| blob.len());
        if there.is_none() || facts.bytes.is_some_and(|bytes| there != Some(bytes)) {
            let wanted = Wanted { repository, revision: commit, file, facts: &facts };
            download(&self.client, &wanted, &blob, progress)?;
        }
        model.link(commit, file, &blob)
    }
}

fn fetched(snapshot: &Path, selection: &Selection, licence: Option<Licence>) -> Fetched {
    let readme = || std::fs::read_to_string(snapshot.join("README.md")).ok();
    Fetched {
        path: selection
            .checkpoint
            .as_ref()
            .map_or_else(|| snapshot.to_owned(), |file| snapshot.join(file)),
        licence: licence.or_else(|| Licence::of_readme(&readme()?)),
    }
}

/// Names of the shards of an index.
fn shards(index: &Path) -> Result<Vec<String>, HubError> {
    let json = std::fs::read(index).map_err(io(index))?;
    let index: Index = serde_json::from_slice(&json)
        .map_err(|_| HubError::Answer { url: index.display().to_string() })?;
    Ok(index.weight_map.into_values().collect::<BTreeSet<_>>().into_iter().collect())
}

fn needs_adapters(snapshot: &Path) -> bool {
    let json = std::fs::read(snapshot.join("config.json")).unwrap_or_default();
    serde_json::from_slice::<Needs>(&json).is_ok_and(|needs| needs.adapter_attn_dim.is_some())
}

/// Files below a folder whose bytes are there, by their path from it.
fn files_of(folder: &Path, prefix: &str, depth: usize, all: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(name) = entry.file_name().into_string() else { continue };
        let name = format!("{prefix}{name}");
        if path.is_file() {
            all.push(name);
        } else if path.is_dir() && depth > 0 {
            files_of(&path, &format!("{name}/"), depth - 1, all);
        }
    }
}
