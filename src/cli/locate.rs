//! From what the user calls a model to where it is.

use super::Talk;
use super::failure::{AnyError, CliError};
use crate::config::DEFAULT_MODEL;
use crate::hub::{Fetched, Hub, HubSettings, Progress, Repository};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Where a model is.
pub(super) enum Located {
    /// Inside the binary.
    Embedded,
    /// A folder or a checkpoint.
    Path(PathBuf),
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
    if let Some(fetched) = hub.cached(&repository, languages) {
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
    let fetched = hub.pull(repository, languages, &bar)?;
    match &fetched.licence {
        Some(licence) if licence.is_non_commercial() => talk.warn(format_args!(
            "`{repository}` is licensed `{}`: not for commercial use",
            licence.name().escape_debug()
        )),
        Some(licence) => talk.progress(format_args!(
            "`{repository}` is licensed `{}`",
            licence.name().escape_debug()
        )),
        None => talk.warn(format_args!("`{repository}` does not say what its licence is")),
    }
    Ok(fetched)
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
