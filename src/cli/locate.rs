//! From what the user calls a model to where it is.

use super::Talk;
use super::failure::{AnyError, CliError};
use crate::config::DEFAULT_MODEL;
use crate::hub::{Fetched, Hub, HubSettings, Licence, Progress, Repository};
use crate::text::Language;
use indicatif::{ProgressBar, ProgressStyle};
use std::fmt::Display;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Longest model card that is read.
const MAX_CARD_BYTES: u64 = 1 << 20;

/// Where a model is.
pub(super) enum Located {
    /// Inside the binary.
    Embedded,
    /// A folder or a checkpoint.
    Path(PathBuf),
}

/// What a model may call each of the languages asked for: as they were written, or by their ISO
/// 639-3 code. Each may be a list such as `fr,swa`.
pub(super) fn adapter_names(languages: &[String]) -> Vec<Vec<String>> {
    let names = |language: &str| {
        let code = Language::lookup(language).map(|code| code.to_string());
        let mut names = vec![language.to_owned()];
        names.extend(code.filter(|code| code != language));
        names
    };
    let all = languages.iter().flat_map(|list| list.split(','));
    all.map(str::trim).filter(|language| !language.is_empty()).map(names).collect()
}

/// The licence that the README of a model's folder states.
pub(super) fn card_licence(folder: &Path) -> Option<Licence> {
    let card = folder.join("README.md");
    let is_small = card.metadata().is_ok_and(|card| card.len() <= MAX_CARD_BYTES);
    Licence::of_readme(&std::fs::read_to_string(card).ok().filter(|_| is_small)?)
}

/// Finds `default`, a path, or a model of the Hub, which is downloaded if the cache lacks it.
/// `languages` are those whose adapters are wanted.
pub(super) fn locate(
    model: &str,
    offline: bool,
    languages: &[String],
    talk: Talk,
) -> Result<Located, AnyError> {
    if model == DEFAULT_MODEL {
        return Ok(Located::Embedded);
    }
    let path = Path::new(model);
    if path.exists() {
        return Ok(Located::Path(path.to_owned()));
    }
    let Ok(repository) = model.parse::<Repository>() else {
        return Err(CliError::NoModel { name: model.to_owned() }.into());
    };
    let hub = hub(offline)?;
    if let Some(fetched) = hub.cached(&repository, &adapter_names(languages)) {
        talk.note(format_args!("`{repository}` from `{}`", fetched.path.display()));
        return Ok(Located::Path(fetched.path));
    }
    Ok(Located::Path(pull(&hub, &repository, languages, talk)?.path))
}

/// The Hub as the environment describes it.
pub(super) fn hub(offline: bool) -> Result<Hub, AnyError> {
    let mut settings = HubSettings::from_environment()?;
    settings.offline |= offline;
    Ok(Hub::new(settings))
}

/// Downloads a model, and says what its licence is.
pub(super) fn pull(
    hub: &Hub,
    repository: &Repository,
    languages: &[String],
    talk: Talk,
) -> Result<Fetched, AnyError> {
    let bar = DownloadBar { shown: !talk.quiet, bar: Mutex::new(ProgressBar::hidden()) };
    let fetched = hub.pull(repository, &adapter_names(languages), &bar)?;
    tell_licence(repository, fetched.licence.as_ref(), talk);
    Ok(fetched)
}

/// Says under which licence a model is: aloud where it restricts what may be done, or where
/// nobody knows.
pub(super) fn tell_licence(model: &dyn Display, licence: Option<&Licence>, talk: Talk) {
    match licence {
        Some(licence) if licence.is_non_commercial() => talk.warn(format_args!(
            "`{model}` is licensed `{}`: not for commercial use",
            licence.name().escape_debug()
        )),
        Some(licence) => {
            let name = licence.name().escape_debug();
            talk.progress(format_args!("`{model}` is licensed `{name}`"));
        }
        None => talk.warn(format_args!("`{model}` does not say what its licence is")),
    }
}

/// A bar per file on a terminal, nothing elsewhere.
struct DownloadBar {
    shown: bool,
    bar: Mutex<ProgressBar>,
}

impl DownloadBar {
    fn bar(&self) -> std::sync::MutexGuard<'_, ProgressBar> {
        self.bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Progress for DownloadBar {
    fn start(&self, file: &str, bytes: Option<u64>, there: u64) {
        let mut bar = self.bar();
        if self.shown && std::io::stderr().is_terminal() {
            let style = "{wide_msg} {bytes} of {total_bytes} {bytes_per_sec} {eta}";
            let style = ProgressStyle::with_template(style).expect("the template is sound");
            *bar = ProgressBar::new(bytes.unwrap_or(0)).with_style(style);
        }
        bar.set_message(file.to_owned());
        bar.set_position(there);
        // The speed is that of this download, not of what was there before it.
        bar.reset_eta();
    }

    fn advance(&self, bytes: u64) {
        self.bar().inc(bytes);
    }

    fn finish(&self) {
        self.bar().finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapters_go_by_what_was_written_or_by_the_code() {
        let asked = ["fr,swa".to_owned(), "kmr-script_latin".to_owned(), " ".to_owned()];
        let names = adapter_names(&asked);
        let want: [&[&str]; 3] = [&["fr", "fra"], &["swa"], &["kmr-script_latin", "kmr"]];
        assert_eq!(names, want);
    }
}
