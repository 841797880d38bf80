//! The Hub over HTTP.

use super::cache::is_plain_name;
use super::error::HubError;
use super::repository::Repository;
use super::settings::HubSettings;
use serde::Deserialize;
use std::io::Read;
use std::time::Duration;
use ureq::http::Response;
use ureq::{Agent, Body};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest description of a model that is read.
const MAX_DESCRIPTION_BYTES: u64 = 32 << 20;
const MAX_REDIRECTS: usize = 8;

/// What the Hub says of a model.
#[derive(Debug, Deserialize)]
pub(super) struct Description {
    #[serde(rename = "sha")]
    pub(super) commit: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
    #[serde(default, rename = "cardData")]
    card: Option<Card>,
}

#[derive(Debug, Deserialize)]
struct Sibling {
    rfilename: String,
}

#[derive(Debug, Deserialize)]
struct Card {
    #[serde(default)]
    license: Option<serde_json::Value>,
}

impl Description {
    pub(super) fn files(&self) -> Vec<String> {
        self.siblings.iter().map(|sibling| sibling.rfilename.clone()).collect()
    }

    /// The licence, or the first of several.
    pub(super) fn licence(&self) -> Option<&str> {
        let licence = self.card.as_ref()?.license.as_ref()?;
        licence.as_str().or_else(|| licence.get(0)?.as_str())
    }
}

/// What the Hub says of a file before it sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileFacts {
    pub(super) commit: Option<String>,
    /// SHA-256 of large files, Git's object id of others.
    pub(super) etag: String,
    pub(super) bytes: Option<u64>,
}

/// A file on its way, from `start` on.
pub(super) struct Incoming {
    pub(super) start: u64,
    pub(super) bytes: Option<u64>,
    pub(super) body: Box<dyn Read>,
}

#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

impl Client {
    pub(super) fn new(settings: &HubSettings) -> Self {
        let config = Agent::config_builder()
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(ANSWER_TIMEOUT))
            .timeout_per_read(Some(ANSWER_TIMEOUT))
            .user_agent(concat!("asr/", env!("CARGO_PKG_VERSION")))
            .build();
        Self {
            agent: config.into(),
            endpoint: settings.endpoint.clone(),
            token: settings.token.clone(),
        }
    }

    /// Address of a file at a revision.
    fn file_url(&self, repository: &Repository, revision: &str, file: &str) -> String {
        let (revision, file) = (encoded(revision, false), encoded(file, true));
        format!("{}/{}/resolve/{revision}/{file}", self.endpoint, repository.name)
    }

    /// What the Hub says of a model; `None` if it does not know it.
    pub(super) fn describe(
        &self,
        repository: &Repository,
    ) -> Result<Option<Description>, HubError> {
        let revision = encoded(&repository.revision, false);
        let url = format!("{}/api/models/{}/revision/{revision}", self.endpoint, repository.name);
        let (response, url) = self.get(url, 0)?;
        if response.status().as_u16() == 404 {
            return Ok(None);
        }
        check_status(repository, &url, response.status().as_u16())?;
        let answer = || HubError::Answer { url: url.clone() };
        let body = response.into_body().into_reader().take(MAX_DESCRIPTION_BYTES);
        let description: Description =
            serde_json::from_reader(std::io::BufReader::new(body)).map_err(|_| answer())?;
        if !is_plain_name(&description.commit) {
            return Err(answer());
        }
        Ok(Some(description))
    }

    /// What the Hub says of a file; `None` if there is none.
    pub(super) fn facts(
        &self,
        repository: &Repository,
        revision: &str,
        file: &str,
    ) -> Result<Option<FileFacts>, HubError> {
        let mut url = self.file_url(repository, revision, file);
        let mut response = self.head(&url)?;
        // A model that was renamed: the facts are with the new name. Other addresses are those
        // of stores, which know nothing of the Hub's names.
        for _ in 0..MAX_REDIRECTS {
            let status = response.status().as_u16();
            match header(&response, "location") {
                Some(place) if (300..400).contains(&status) && place.starts_with('/') => {
                    url = redirected(&url, &place);
                    response = self.head(&url)?;
                }
                _ => break,
            }
        }
        let status = response.status().as_u16();
        if status == 404 {
            return Ok(None);
        }
        if !(300..400).contains(&status) {
            check_status(repository, &url, status)?;
        }
        let etag = header(&response, "x-linked-etag").or_else(|| header(&response, "etag"));
        let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_owned());
        let etag =
            etag.filter(|etag| is_plain_name(etag)).ok_or(HubError::Answer { url: url.clone() })?;
        let linked = header(&response, "x-linked-size");
        // Of an answer that points elsewhere, the length is that of the pointer.
        let own = header(&response, "content-length").filter(|_| status < 300);
        Ok(Some(FileFacts {
            commit: header(&response, "x-repo-commit").filter(|commit| is_plain_name(commit)),
            etag,
            bytes: linked.or(own).and_then(|bytes| bytes.parse().ok()),
        }))
    }

    /// Asks for a file from byte `from` on.
    pub(super) fn open(
        &self,
        repository: &Repository,
        revision: &str,
        file: &str,
        from: u64,
    ) -> Result<Incoming, HubError> {
        let (response, url) = self.get(self.file_url(repository, revision, file), from)?;
        let status = response.status().as_u16();
        check_status(repository, &url, status)?;
        let length = header(&response, "content-length").and_then(|n| n.parse::<u64>().ok());
        let start = if status == 206 { from } else { 0 };
        let bytes = length.and_then(|length| length.checked_add(start));
        Ok(Incoming { start, bytes, body: Box::new(response.into_body().into_reader()) })
    }

    /// GET with redirects followed; the token goes to the Hub alone.
    fn get(&self, mut url: String, from: u64) -> Result<(Response<Body>, String), HubError> {
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.agent.get(&url);
            if let Some(authorization) = self.authorization(&url) {
                request = request.header("authorization", authorization);
            }
            if from > 0 {
                request = request.header("range", format!("bytes={from}-"));
            }
            let response = request.call().map_err(|source| failed(&url, source))?;
            match header(&response, "location") {
                Some(place) if (300..400).contains(&response.status().as_u16()) => {
                    url = redirected(&url, &place);
                }
                _ => return Ok((response, url)),
            }
        }
        Err(HubError::Answer { url })
    }

    fn head(&self, url: &str) -> Result<Response<Body>, HubError> {
        let mut request = self.agent.head(url);
        if let Some(authorization) = self.authorization(url) {
            request = request.header("authorization", authorization);
        }
        request.call().map_err(|source| failed(url, source))
    }

    fn authorization(&self, url: &str) -> Option<String> {
        let of_hub = url.strip_prefix(&self.endpoint).is_some_and(|rest| rest.starts_with('/'));
        self.token.as_ref().filter(|_| of_hub).map(|token| format!("Bearer {token}"))
    }
}

fn failed(url: &str, source: ureq::Error) -> HubError {
    HubError::Connection { url: url.to_owned(), source: Box::new(source) }
}

fn check_status(repository: &Repository, url: &str, status: u16) -> Result<(), HubError> {
    match status {
        200..300 => Ok(()),
        404 => Err(HubError::NotFound { repository: repository.to_string() }),
        401 | 403 => Err(HubError::Refused { repository: repository.to_string(), status }),
        _ => Err(HubError::Status { url: url.to_owned(), status }),
    }
}

fn header(response: &Response<Body>, name: &str) -> Option<String> {
    response.headers().get(name)?.to_str().ok().map(str::to_owned)
}

/// Where `place` leads from `url`.
fn redirected(url: &str, place: &str) -> String {
    if !place.starts_with('/') {
        return place.to_owned();
    }
    let scheme = url.find("://").map_or(0, |at| at + 3);
    if let Some(host) = place.strip_prefix("//") {
        return url[..scheme].to_owned() + host;
    }
    let host = url[scheme..].find('/').map_or(url.len(), |at| scheme + at);
    url[..host].to_owned() + place
}

/// `text` in a URL; slashes stay where they divide a path.
fn encoded(text: &str, is_path: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
        if plain || (is_path && byte == b'/') {
            encoded.push(byte.into());
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_followed_and_written() {
        let url = "https://hub.example/a/b?c";
        assert_eq!(redirected(url, "/d"), "https://hub.example/d");
        assert_eq!(redirected(url, "//store.example/d"), "https://store.example/d");
        assert_eq!(redirected(url, "http://store.example/d"), "http://store.example/d");
        assert_eq!(encoded("a b/c+1.pt", true), "a%20b/c%2B1.pt");
        assert_eq!(encoded("refs/pr/1", false), "refs%2Fpr%2F1");
    }

    #[test]
    fn the_token_goes_to_the_hub_alone() {
        let client = Client::new(&HubSettings {
            endpoint: "https://hub.example".to_owned(),
            cache: "/nowhere".into(),
            token: Some("secret".to_owned()),
            offline: false,
        });
        assert_eq!(client.authorization("https://hub.example/x").as_deref(), Some("Bearer secret"));
        for other in
            ["https://hub.example.org/x", "http://hub.example/x", "https://store.example/x"]
        {
            assert_eq!(client.authorization(other), None, "{other}");
        }
    }
}
