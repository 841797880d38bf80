//! Where the Hub and the cache are, from the variables that Python's client reads.

use super::error::HubError;
use std::env;
use std::path::{Path, PathBuf};

const ENDPOINT: &str = "https://huggingface.co";
/// Longest token file that is read.
const MAX_TOKEN_BYTES: usize = 4096;

/// How the Hub is reached and where downloads are kept.
#[derive(Clone, PartialEq, Eq)]
pub struct HubSettings {
    /// The Hub, without a slash at the end.
    pub endpoint: String,
    /// The folder that holds `models--ORG--NAME`.
    pub cache: PathBuf,
    /// What to show the Hub for models that are not for everyone.
    pub token: Option<String>,
    /// Whether the network is left alone.
    pub offline: bool,
}

impl std::fmt::Debug for HubSettings {
    /// Everything but the token.
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("HubSettings")
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .field("token", &self.token.as_ref().map(|_| "..."))
            .field("offline", &self.offline)
            .finish()
    }
}

impl HubSettings {
    /// Settings from the environment.
    ///
    /// # Errors
    /// [`HubError::NoHome`] if nothing says where the cache could be.
    pub fn from_environment() -> Result<Self, HubError> {
        Self::from_variables(|name| env::var(name).ok())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, HubError> {
        let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let home = || {
            let user = variable("HOME").or_else(|| variable("USERPROFILE"));
            let caches = variable("XDG_CACHE_HOME")
                .map(PathBuf::from)
                .or_else(|| Some(Path::new(&user?).join(".cache")))?;
            Some(caches.join("huggingface"))
        };
        let hub_home = variable("HF_HOME").map(PathBuf::from).or_else(home);
        let cache = variable("HF_HUB_CACHE")
            .or_else(|| variable("HUGGINGFACE_HUB_CACHE"))
            .map(PathBuf::from)
            .or_else(|| Some(hub_home.as_ref()?.join("hub")))
            .ok_or(HubError::NoHome)?;
        let token_file = variable("HF_TOKEN_PATH")
            .map(PathBuf::from)
            .or_else(|| Some(hub_home.as_ref()?.join("token")));
        let token = variable("HF_TOKEN")
            .or_else(|| variable("HUGGING_FACE_HUB_TOKEN"))
            .or_else(|| std::fs::read_to_string(token_file?).ok())
            .map(|token| token.trim().to_owned())
            .filter(|token| !token.is_empty() && token.len() <= MAX_TOKEN_BYTES);
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        let is_set = |value: String| {
            ["1", "true", "yes", "on"].contains(&value.trim().to_ascii_lowercase().as_str())
        };
        Ok(Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            cache,
            token,
            offline: variable("HF_HUB_OFFLINE").is_some_and(is_set),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_those_of_the_python_client() -> Result<(), HubError> {
        let settings = |pairs: &[(&str, &str)]| {
            HubSettings::from_variables(|name| {
                pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            })
        };
        let plain = settings(&[("HOME", "/nowhere/h")])?;
        assert_eq!(plain.cache, Path::new("/nowhere/h/.cache/huggingface/hub"));
        assert_eq!(plain.endpoint, ENDPOINT);
        assert!(!plain.offline && plain.token.is_none());
        assert_eq!(settings(&[("XDG_CACHE_HOME", "/c")])?.cache, Path::new("/c/huggingface/hub"));
        let own = settings(&[
            ("HF_HOME", "/hf"),
            ("HF_ENDPOINT", "http://127.0.0.1:1/"),
            ("HF_TOKEN", " secret\n"),
            ("HF_HUB_OFFLINE", "True"),
        ])?;
        assert_eq!(own.cache, Path::new("/hf/hub"));
        assert_eq!(own.endpoint, "http://127.0.0.1:1");
        assert_eq!(own.token.as_deref(), Some("secret"));
        assert!(own.offline);
        assert!(!format!("{own:?}").contains("secret"));
        assert_eq!(settings(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/k")])?.cache, Path::new("/k"));
        assert!(matches!(settings(&[]), Err(HubError::NoHome)));
        Ok(())
    }
}
