//! The Hub against a server of its shape on this machine.

use super::*;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Files of one model, and how the server misbehaves.
#[derive(Default)]
struct Tree {
    files: HashMap<String, Vec<u8>>,
    /// Bytes of a large file after which each connection is closed.
    cut_after: AtomicU64,
    /// Whether `Range` is ignored.
    no_ranges: AtomicBool,
    /// Whether large files are other than announced.
    corrupt: AtomicBool,
    /// Whether the API is absent.
    no_api: AtomicBool,
    requests: Mutex<Vec<String>>,
}

/// A server that lives as long as the test.
struct Server {
    tree: Arc<Tree>,
    endpoint: String,
}

impl Server {
    fn start(files: &[(&str, &[u8])]) -> Self {
        let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec()));
        let tree = Arc::new(Tree {
            files: files.collect(),
            cut_after: AtomicU64::new(u64::MAX),
            ..Tree::default()
        });
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let served = Arc::clone(&tree);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let tree = Arc::clone(&served);
                std::thread::spawn(move || tree.answer(stream));
            }
        });
        Self { tree, endpoint }
    }

    fn hub(&self, cache: &Path) -> Hub {
        Hub::new(HubSettings {
            endpoint: self.endpoint.clone(),
            cache: cache.to_owned(),
            token: Some("secret".to_owned()),
            offline: false,
        })
    }

    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.tree.requests.lock().expect("no panic while locked"))
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Tree {
    /// One request per connection. Large files lie in a store to which the Hub redirects.
    fn answer(&self, mut stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if line.trim().is_empty() {
                break;
            }
            lines.push(line.trim().to_owned());
        }
        let header = |name: &str| {
            lines.iter().find_map(|line| {
                let (key, value) = line.split_once(": ")?;
                key.eq_ignore_ascii_case(name).then(|| value.to_owned())
            })
        };
        let mut words = lines[0].split(' ');
        let (method, path) =
            (words.next().unwrap_or_default(), words.next().unwrap_or_default().to_owned());
        self.requests.lock().expect("no panic while locked").push(format!("{method} {path}"));
        let from = header("range")
            .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok())
            .filter(|_| !self.no_ranges.load(Ordering::Relaxed))
            .unwrap_or(0_usize);
        let head = method == "HEAD";
        let resolve = format!("/org/model/resolve/{COMMIT}/");
        let by_branch = "/org/model/resolve/main/";
        let reply = if path == "/api/models/org/model/revision/main" {
            if self.no_api.load(Ordering::Relaxed) {
                None
            } else {
                let siblings: Vec<String> =
                    self.files.keys().map(|name| format!("{{\"rfilename\":\"{name}\"}}")).collect();
                let json = format!(
                    "{{\"sha\":\"{COMMIT}\",\"siblings\":[{}],\"cardData\":{{\"license\":\"cc-by-nc-4.0\"}}}}",
                    siblings.join(",")
                );
                Some((200, String::new(), json.into_bytes()))
            }
        } else if let Some(name) = path.strip_prefix("/store/") {
            assert_eq!(header("authorization"), None, "the token is not for the store");
            self.files.get(name).map(|bytes| {
                let mut bytes = bytes.clone();
                if self.corrupt.load(Ordering::Relaxed) {
                    bytes[0] ^= 1;
                }
                let status = if from > 0 { 206 } else { 200 };
                (status, String::new(), bytes[from.min(bytes.len())..].to_vec())
            })
        } else {
            let name = path.strip_prefix(&resolve).or_else(|| path.strip_prefix(by_branch));
            assert_eq!(header("authorization").as_deref(), Some("Bearer secret"));
            name.and_then(|name| Some((name, self.files.get(name)?))).map(|(name, bytes)| {
                let facts = format!("X-Repo-Commit: {COMMIT}\r\n");
                if bytes.len() < 1000 {
                    let etag = &sha256(bytes)[..40];
                    return (200, format!("{facts}ETag: \"{etag}\"\r\n"), bytes.clone());
                }
                let port = stream.local_addr().expect("an address").port();
                let place = format!(
                    "{facts}X-Linked-Etag: \"{}\"\r\nX-Linked-Size: {}\r\nETag: \"other\"\r\nLocation: http://localhost:{port}/store/{name}\r\n",
                    sha256(bytes),
                    bytes.len()
                );
                (302, place, b"moved".to_vec())
            })
        };
        let (status, headers, body) = reply.unwrap_or((404, String::new(), Vec::new()));
        let start = format!(
            "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n",
            body.len()
        );
        let cut = if path.starts_with("/store/") {
            usize::try_from(self.cut_after.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
        } else {
            usize::MAX
        };
        let sent = if head { &[] } else { &body[..body.len().min(cut)] };
        // The other side may have gone: that is what some tests are about.
        let _ = stream.write_all(start.as_bytes()).and_then(|()| stream.write_all(sent));
    }
}

/// Counts what it is told.
#[derive(Default)]
struct Count {
    bytes: AtomicU64,
    there: AtomicU64,
}

impl Progress for Count {
    fn start(&self, _file: &str, _bytes: Option<u64>, there: u64) {
        self.there.fetch_max(there, Ordering::Relaxed);
    }

    fn advance(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn finish(&self) {}
}

fn weights() -> Vec<u8> {
    (0..200_000_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

fn repository() -> Repository {
    "org/model".parse().expect("a name")
}

#[test]
fn a_model_is_downloaded_once_and_laid_out_as_python_does() {
    let weights = weights();
    let files: [(&str, &[u8]); 6] = [
        ("config.json", b"{\"adapter_attn_dim\": 16}"),
        ("vocab.json", b"{}"),
        ("model.safetensors", &weights),
        ("adapter.fra.safetensors", b"french"),
        ("adapter.eng.safetensors", b"english"),
        ("flax_model.msgpack", b"not this"),
    ];
    let server = Server::start(&files);
    let cache = tempfile::tempdir().expect("a folder");
    let hub = server.hub(cache.path());
    // Asked for by its two-letter code, and by a name that the model does not use.
    let french = [["fr", "fra"].map(str::to_owned).to_vec()];
    assert!(hub.cached(&repository(), &french).is_none());
    let count = Count::default();
    let fetched = hub.pull(&repository(), &french, &count).expect("the server has it");
    assert_eq!(fetched.licence.as_ref().map(Licence::name), Some("cc-by-nc-4.0"));
    let model = cache.path().join("models--org--model");
    assert_eq!(fetched.path, model.join("snapshots").join(COMMIT));
    assert_eq!(std::fs::read(fetched.path.join("model.safetensors")).ok(), Some(weights.clone()));
    assert_eq!(
        std::fs::read(model.join("blobs").join(sha256(&weights))).ok().as_ref(),
        Some(&weights)
    );
    assert_eq!(std::fs::read_to_string(model.join("refs/main")).ok().as_deref(), Some(COMMIT));
    assert!(fetched.path.join("adapter.fra.safetensors").is_file());
    for absent in ["adapter.eng.safetensors", "flax_model.msgpack"] {
        assert!(!fetched.path.join(absent).exists(), "{absent}");
    }
    assert!(count.bytes.load(Ordering::Relaxed) >= weights.len() as u64);
    // What is there is found without asking anybody.
    server.requests();
    assert_eq!(hub.cached(&repository(), &french).expect("cached").path, fetched.path);
    assert_eq!(server.requests(), [""; 0]);
    // Another language brings its adapter only.
    let english = [vec!["eng".to_owned()]];
    assert!(hub.cached(&repository(), &english).is_none());
    hub.pull(&repository(), &english, &count).expect("the server has it");
    assert!(fetched.path.join("adapter.eng.safetensors").is_file());
    let asked = server.requests();
    assert!(!asked.iter().any(|request| request.contains("model.safetensors")), "{asked:?}");
    assert_eq!(hub.list().len(), 1);
}

#[test]
fn without_a_network_only_the_cache_counts() {
    let cache = tempfile::tempdir().expect("a folder");
    let hub = Hub::new(HubSettings {
        endpoint: "http://127.0.0.1:9".to_owned(),
        cache: cache.path().to_owned(),
        token: None,
        offline: true,
    });
    let error = hub.pull(&repository(), &[], &Count::default()).expect_err("nothing is cached");
    assert!(matches!(error, HubError::Offline { .. }), "{error}");
}

#[test]
fn an_interrupted_download_goes_on_where_it_stopped() {
    let weights = weights();
    let files: [(&str, &[u8]); 2] = [("config.json", b"{}"), ("model.safetensors", &weights)];
    let server = Server::start(&files);
    let cache = tempfile::tempdir().expect("a folder");
    let hub = server.hub(cache.path());
    // Half of it is there from before.
    let blobs = cache.path().join("models--org--model/blobs");
    std::fs::create_dir_all(&blobs).expect("space is left");
    let partial = blobs.join(sha256(&weights) + ".incomplete");
    std::fs::write(&partial, &weights[..400_000]).expect("space is left");
    // And connections break after 150,000 bytes.
    server.tree.cut_after.store(150_000, Ordering::Relaxed);
    let count = Count::default();
    let fetched = hub.pull(&repository(), &[], &count).expect("it arrives in pieces");
    assert_eq!(std::fs::read(fetched.path.join("model.safetensors")).ok(), Some(weights.clone()));
    assert_eq!(count.there.load(Ordering::Relaxed), 400_000);
    assert_eq!(count.bytes.load(Ordering::Relaxed), weights.len() as u64 - 400_000 + 2);
    assert!(!partial.exists());
}

#[test]
fn a_truncated_or_changed_file_is_never_taken() {
    let weights = weights();
    let files: [(&str, &[u8]); 2] = [("config.json", b"{}"), ("model.safetensors", &weights)];
    let server = Server::start(&files);
    let cache = tempfile::tempdir().expect("a folder");
    let hub = server.hub(cache.path());
    server.tree.no_ranges.store(true, Ordering::Relaxed);
    server.tree.cut_after.store(150_000, Ordering::Relaxed);
    let error = hub.pull(&repository(), &[], &Count::default()).expect_err("it never ends");
    assert!(
        matches!(error, HubError::Truncated { got: 150_000, expected: 800_000, .. }),
        "{error}"
    );
    assert!(hub.cached(&repository(), &[]).is_none());
    server.tree.no_ranges.store(false, Ordering::Relaxed);
    server.tree.cut_after.store(u64::MAX, Ordering::Relaxed);
    server.tree.corrupt.store(true, Ordering::Relaxed);
    let blob = cache.path().join("models--org--model/blobs").join(sha256(&weights));
    std::fs::remove_file(blob.with_extension("incomplete")).expect("what was there is kept");
    let error = hub.pull(&repository(), &[], &Count::default()).expect_err("other bytes");
    assert!(matches!(error, HubError::Checksum { .. }), "{error}");
    assert!(!blob.exists() && !blob.with_extension("incomplete").exists());
    server.tree.corrupt.store(false, Ordering::Relaxed);
    hub.pull(&repository(), &[], &Count::default()).expect("a sound download");
    assert!(blob.exists());
}

#[test]
fn a_hub_without_an_index_is_asked_file_by_file() {
    let weights = weights();
    let files: [(&str, &[u8]); 4] = [
        ("config.json", b"{}"),
        ("model.safetensors", &weights),
        ("adapter.fra.bin", b"french"),
        ("README.md", b"---\nlicense: mit\n---\n"),
    ];
    let server = Server::start(&files);
    server.tree.no_api.store(true, Ordering::Relaxed);
    let cache = tempfile::tempdir().expect("a folder");
    // A name that is no plain file name is not asked for.
    let french = [["fr/../..", "fra"].map(str::to_owned).to_vec()];
    let fetched = server.hub(cache.path()).pull(&repository(), &french, &Count::default());
    let fetched = fetched.expect("it is there");
    assert_eq!(fetched.licence.as_ref().map(Licence::name), Some("mit"));
    assert!(fetched.path.join("adapter.fra.bin").is_file());
    let other: Repository = "org/other".parse().expect("a name");
    let error = server.hub(cache.path()).pull(&other, &[], &Count::default());
    assert!(matches!(error, Err(HubError::NotFound { .. })), "{error:?}");
}

#[test]
fn shards_and_their_names_are_followed_inside_the_model_only() {
    let index = br#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#;
    let files: [(&str, &[u8]); 4] = [
        ("config.json", b"{}"),
        ("model.safetensors.index.json", index),
        ("model-1.safetensors", b"one"),
        ("model-2.safetensors", b"two"),
    ];
    let server = Server::start(&files);
    let cache = tempfile::tempdir().expect("a folder");
    let fetched =
        server.hub(cache.path()).pull(&repository(), &[], &Count::default()).expect("it is there");
    assert_eq!(
        std::fs::read(fetched.path.join("model-2.safetensors")).ok().as_deref(),
        Some(b"two".as_slice())
    );
    let files: [(&str, &[u8]); 2] = [
        ("config.json", b"{}"),
        ("model.safetensors.index.json", br#"{"weight_map": {"a": "../../../PWNED"}}"#),
    ];
    let server = Server::start(&files);
    let cache = tempfile::tempdir().expect("a folder");
    let error = server.hub(cache.path()).pull(&repository(), &[], &Count::default());
    assert!(matches!(error, Err(HubError::NoFile { .. })), "{error:?}");
}
