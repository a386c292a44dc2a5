//! Keeps the keys of an issuer up to date, from a file or a URL.
//!
//! While the source fails, the last keys that were read stay in use.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::followed_file::{self, FILE_INTERVAL, read};
use super::key_set::KeySet;
use crate::upstream::{ClientTls, HttpUrl, Peer, call};

/// The time limit of a request for keys.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause after a request that failed.
const RETRY: Duration = Duration::from_secs(5);
/// The minimum time after a request before a token with an unknown key may cause another.
const EARLY_INTERVAL: Duration = Duration::from_secs(5);
/// How long a client's request waits for keys.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// The largest key set, in bytes.
const MAX_BYTES: usize = 1024 * 1024;

/// The source of keys.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum KeyLocation {
    /// A file.
    File(PathBuf),
    /// A URL, requested again after this time.
    Url(HttpUrl, Duration),
}

impl KeyLocation {
    /// # Errors
    /// If it is a file without usable keys.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Self::File(path) => read_keys(path).map(drop),
            Self::Url(..) => Ok(()),
        }
    }
}

/// The keys of one location. Shared by the routes that name it, and kept when the routes change.
#[derive(Debug)]
pub(crate) struct KeySource {
    location: KeyLocation,
    state: watch::Sender<State>,
    early: Notify,
}

#[derive(Clone, Debug, Default)]
struct State {
    keys: Option<Arc<KeySet>>,
    /// The error of the last attempt, if it failed.
    error: Option<String>,
    /// The number of attempts so far.
    attempts: u64,
    /// When the last regular or early attempt began.
    attempted_at: Option<Instant>,
}

impl KeySource {
    /// Reads the keys of a file, or begins to request those of a URL, and follows their changes until the
    /// source is dropped.
    ///
    /// # Errors
    /// If the file has no usable keys.
    pub(crate) fn start(
        location: KeyLocation,
        runtime: &Handle,
        tls: &Arc<ClientTls>,
    ) -> Result<Arc<Self>, String> {
        let (mut state, mut content) = (State::default(), Vec::new());
        if let KeyLocation::File(path) = &location {
            let keys;
            (content, keys) = read_keys(path)?;
            state.keys = Some(Arc::new(keys));
        }
        let source = Arc::new(Self {
            location: location.clone(),
            state: watch::Sender::new(state),
            early: Notify::new(),
        });
        let followed = Arc::downgrade(&source);
        match location {
            KeyLocation::File(path) => {
                let change = |source: &Self, content: Result<Vec<u8>, String>| {
                    source.update(content.and_then(|json| KeySet::parse(&json)));
                };
                runtime.spawn(followed_file::follow(followed, path, content, change))
            }
            KeyLocation::Url(url, refresh) => {
                let tls = Arc::clone(tls);
                runtime.spawn(follow_url(followed, url, refresh, tls))
            }
        };
        Ok(source)
    }

    /// Keys that never change.
    #[cfg(any(test, feature = "fuzz"))]
    pub(super) fn fixed(keys: KeySet) -> Arc<Self> {
        let state = State {
            keys: Some(Arc::new(keys)),
            ..State::default()
        };
        Arc::new(Self {
            location: KeyLocation::File(PathBuf::new()),
            state: watch::Sender::new(state),
            early: Notify::new(),
        })
    }

    pub(crate) fn location(&self) -> &KeyLocation {
        &self.location
    }

    /// The current keys. Waits for the first ones.
    ///
    /// # Errors
    /// Why there are none.
    pub(super) async fn keys(&self) -> Result<Arc<KeySet>, String> {
        if let Some(keys) = &self.state.borrow().keys {
            return Ok(Arc::clone(keys));
        }
        let mut state = self.state.subscribe();
        let known = state.wait_for(|state| state.keys.is_some() || state.error.is_some());
        match timeout(MAX_WAIT, known).await {
            Ok(Ok(state)) => match (&state.keys, &state.error) {
                (Some(keys), _) => Ok(Arc::clone(keys)),
                (None, error) => Err(error.clone().unwrap_or_default()),
            },
            _ => Err(format!("{} does not answer", self.location)),
        }
    }

    /// Keys newer than `known`, for a token that was signed with an unknown key. `None` if there are none,
    /// or if the source was queried recently.
    pub(super) async fn newer(&self, known: &Arc<KeySet>) -> Option<Arc<KeySet>> {
        let mut state = self.state.subscribe();
        let attempts = {
            let state = state.borrow_and_update();
            let keys = state.keys.as_ref()?;
            if !Arc::ptr_eq(keys, known) {
                return Some(Arc::clone(keys));
            }
            let is_recent = state
                .attempted_at
                .is_none_or(|at| at.elapsed() < EARLY_INTERVAL);
            if is_recent {
                return None;
            }
            state.attempts
        };
        self.early.notify_one();
        let attempted = state.wait_for(|state| state.attempts > attempts);
        let state = timeout(MAX_WAIT, attempted).await.ok()?.ok()?;
        let keys = state.keys.as_ref()?;
        (!Arc::ptr_eq(keys, known)).then(|| Arc::clone(keys))
    }

    /// Takes the result of an attempt. An error leaves the keys as they are, and is logged once.
    fn update(&self, result: Result<KeySet, String>) {
        let location = &self.location;
        self.state.send_modify(|state| {
            state.attempts += 1;
            match result {
                Ok(keys) => {
                    if state.error.take().is_some() {
                        tracing::info!("{location}: the keys for tokens can be read again");
                    }
                    state.keys = Some(Arc::new(keys));
                }
                Err(error) => {
                    if state.error.is_none() && state.keys.is_some() {
                        tracing::warn!("{location}: {error}; keeping the previous keys");
                    } else if state.error.is_none() {
                        tracing::warn!("{location}: {error}; tokens can't be verified");
                    }
                    state.error = Some(error);
                }
            }
        });
    }
}

impl fmt::Display for KeyLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Url(url, _) => url.fmt(f),
        }
    }
}

async fn follow_url(source: Weak<KeySource>, url: HttpUrl, refresh: Duration, tls: Arc<ClientTls>) {
    loop {
        let began = Instant::now();
        match source.upgrade() {
            Some(source) => source
                .state
                .send_modify(|state| state.attempted_at = Some(began)),
            None => return,
        }
        let result = fetch(&url, &tls).await;
        let Some(current) = source.upgrade() else {
            return;
        };
        let pause = match result {
            Ok(_) => refresh,
            Err(_) => RETRY.min(refresh),
        };
        current.update(result);
        // Holding the source while waiting would keep it forever, so the wait is cut into pieces.
        let next = began + pause;
        drop(current);
        while Instant::now() < next {
            let Some(current) = source.upgrade() else {
                return;
            };
            let piece = next.min(Instant::now() + FILE_INTERVAL);
            if timeout_at(piece, current.early.notified()).await.is_ok() {
                break;
            }
        }
    }
}

/// The content of a file, and its keys.
fn read_keys(path: &Path) -> Result<(Vec<u8>, KeySet), String> {
    let read = read(path).and_then(|json| {
        let keys = KeySet::parse(&json)?;
        Ok((json, keys))
    });
    read.map_err(|error| format!("{}: {error}", path.display()))
}

async fn fetch(url: &HttpUrl, tls: &Arc<ClientTls>) -> Result<KeySet, String> {
    let instance = Arc::clone(&url.instance);
    let peer = Peer::new(instance, Arc::clone(tls), false);
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = Uri::from(url.target.clone());
    let json = HeaderValue::from_static("application/json");
    request.headers_mut().insert(header::ACCEPT, json);
    let response = match timeout(
        FETCH_TIMEOUT,
        call(&peer, 0, request, FETCH_TIMEOUT, MAX_BYTES),
    )
    .await
    {
        Ok(response) => response.map_err(|error| error.cause)?,
        Err(_) => return Err(format!("no response within {FETCH_TIMEOUT:?}")),
    };
    if response.status != StatusCode::OK {
        return Err(format!("the response was {}", response.status));
    }
    KeySet::parse(&response.body)
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;
    use waypost_testkit::Logs;

    use super::*;

    const KEYS: &str = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

    #[tokio::test(start_paused = true)]
    async fn a_file_that_becomes_invalid_leaves_the_keys_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        std::fs::write(&path, KEYS).unwrap();
        let tls = Arc::new(ClientTls::new(None).unwrap());
        let location = KeyLocation::File(path.clone());
        let source = KeySource::start(location, &Handle::current(), &tls).unwrap();
        let first = source.keys().await.unwrap();

        let mut state = source.state.subscribe();
        for content in ["{", "{\"keys\": []}"] {
            std::fs::write(&path, content).unwrap();
            state.changed().await.unwrap();
            assert!(state.borrow_and_update().error.is_some());
            assert!(Arc::ptr_eq(&source.keys().await.unwrap(), &first));
        }
        std::fs::write(&path, KEYS).unwrap();
        state.changed().await.unwrap();
        assert!(state.borrow_and_update().error.is_none());
        assert!(!Arc::ptr_eq(&source.keys().await.unwrap(), &first));
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_does_not_answer_is_named() {
        let url = HttpUrl::parse("http://login.example:8080/keys?v=1").unwrap();
        for (location, name) in [
            (
                KeyLocation::Url(url, RETRY),
                "http://login.example:8080/keys?v=1",
            ),
            (KeyLocation::File("/etc/keys.json".into()), "/etc/keys.json"),
        ] {
            let source = KeySource {
                location,
                state: watch::Sender::default(),
                early: Notify::new(),
            };
            let error = source.keys().await.unwrap_err();
            assert_eq!(error, format!("{name} does not answer"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_nobody_uses_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        std::fs::write(&path, KEYS).unwrap();
        let tls = Arc::new(ClientTls::new(None).unwrap());
        let location = KeyLocation::File(path);
        let source = KeySource::start(location, &Handle::current(), &tls).unwrap();
        let tasks = || Handle::current().metrics().num_alive_tasks();
        assert_eq!(tasks(), 1);
        drop(source);
        sleep(FILE_INTERVAL * 2).await;
        assert_eq!(tasks(), 0);
    }

    fn source() -> KeySource {
        KeySource {
            location: KeyLocation::File("keys.json".into()),
            state: watch::Sender::default(),
            early: Notify::new(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_keys_or_the_first_error_are_waited_for() {
        let source = source();
        let keys = || KeySet::parse(KEYS.as_bytes());
        let started = Instant::now();
        let (failed, ()) = tokio::join!(source.keys(), async {
            source.update(Err("the cause".to_owned()));
        });
        assert_eq!(failed.unwrap_err(), "the cause");
        assert_eq!(source.keys().await.unwrap_err(), "the cause");
        source.update(keys());
        assert!(source.keys().await.is_ok());
        let fresh = self::source();
        let (found, ()) = tokio::join!(fresh.keys(), async { fresh.update(keys()) });
        assert!(found.is_ok());
        assert_eq!(started.elapsed(), Duration::ZERO);
    }

    #[test]
    fn a_source_that_fails_and_one_that_works_again_are_logged_once() {
        let (logs, _guard) = Logs::take();
        let source = source();
        let count = |text| logs.lines(&["keys.json", text]).len();
        for _ in 0..2 {
            source.update(Err("the cause".to_owned()));
        }
        assert_eq!(count("the cause; tokens can't be verified"), 1);
        for _ in 0..2 {
            source.update(KeySet::parse(KEYS.as_bytes()));
        }
        assert_eq!(count("can be read again"), 1);
        for _ in 0..2 {
            source.update(Err("the cause".to_owned()));
        }
        assert_eq!(count("the cause; keeping the previous keys"), 1);
        assert_eq!(logs.lines(&["keys.json"]).len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn newer_keys_are_waited_for_but_not_asked_for_too_often() {
        let source = source();
        let keys = || KeySet::parse(KEYS.as_bytes());
        let attempt = |result| {
            let now = Some(Instant::now());
            source.state.send_modify(|state| state.attempted_at = now);
            source.update(result);
        };
        attempt(keys());
        let first = source.keys().await.unwrap();
        assert!(source.newer(&first).await.is_none(), "asked just now");
        tokio::time::advance(EARLY_INTERVAL).await;
        let answer = async |result| {
            source.early.notified().await;
            attempt(result);
        };
        let (newer, ()) = tokio::join!(source.newer(&first), answer(keys()));
        let newer = newer.unwrap();
        assert!(!Arc::ptr_eq(&newer, &first));
        assert!(source.newer(&first).await.is_some(), "known already");
        tokio::time::advance(EARLY_INTERVAL).await;
        let failure = Err("the cause".to_owned());
        let (none, ()) = tokio::join!(source.newer(&newer), answer(failure));
        assert!(none.is_none());
    }
}
