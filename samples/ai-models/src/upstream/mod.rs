//! An OpenAI-compatible server whose models are offered beside the local ones.

mod chat;
mod failure;
mod listing;

use std::fmt;
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use tokio::sync::Mutex;
use url::Url;

pub(crate) use chat::Tokens;
use failure::root_cause;
pub(crate) use listing::Listing;

/// The longest text that is forwarded, in characters; what the server itself takes is its own matter.
pub(crate) const MAX_CHARACTERS: usize = 100_000;

/// A server is found dead after this long without a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// An OpenAI-compatible server (Ollama, llama.cpp, vLLM, a hosted one …).
///
/// ```
/// # fn main() -> Result<(), waypost_ai_models::UpstreamError> {
/// let ollama = waypost_ai_models::Upstream::new("http://localhost:11434/v1", None)?;
/// let app = waypost_ai_models::router("ai-models-1", Some(ollama));
/// # let _: axum::Router = app;
/// # Ok(())
/// # }
/// ```
pub struct Upstream {
    base: Url,
    http: reqwest::Client,
    listing: Mutex<Listing>,
}

/// What is wrong with the description of an upstream server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpstreamError {
    /// The address isn't a URL, or not one of a web server.
    #[error("AI_MODELS_UPSTREAM is {value:?}: {reason}; right would be http://localhost:11434/v1")]
    BadUrl {
        /// The address as given.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The key holds a character that can't be sent in a header.
    #[error("AI_MODELS_UPSTREAM_KEY holds a character that an HTTP header can't carry")]
    BadKey,
    /// The HTTP client can't be made, for instance as no certificates are installed.
    #[error("the HTTP client for AI_MODELS_UPSTREAM can't be made: {0}")]
    Client(String),
}

impl Upstream {
    /// Describes the server whose API begins at `base` (for Ollama `http://localhost:11434/v1`).
    /// `key` is sent as a bearer token. Nothing is asked of the server yet.
    pub fn new(base: &str, key: Option<&str>) -> Result<Self, UpstreamError> {
        let base = parse(base).map_err(|reason| UpstreamError::BadUrl {
            value: base.to_owned(),
            reason,
        })?;
        Ok(Self {
            base,
            http: client(key)?,
            listing: Mutex::default(),
        })
    }

    /// The server that `AI_MODELS_UPSTREAM` names, with the key in `AI_MODELS_UPSTREAM_KEY`;
    /// none if the first is unset or empty.
    pub fn from_env() -> Result<Option<Self>, UpstreamError> {
        let set = |name| {
            std::env::var(name)
                .ok()
                .filter(|value| !value.trim().is_empty())
        };
        set("AI_MODELS_UPSTREAM")
            .map(|base| Self::new(&base, set("AI_MODELS_UPSTREAM_KEY").as_deref()))
            .transpose()
    }

    /// The server's address without user name, password or query, fit to be shown.
    pub(crate) fn shown_url(&self) -> String {
        let mut url = self.base.clone();
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.set_query(None);
        url.as_str().trim_end_matches('/').to_owned()
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!(
            "{}/{path}",
            self.base.path().trim_end_matches('/')
        ));
        url
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream")
            .field("url", &self.shown_url())
            .finish_non_exhaustive()
    }
}

fn parse(base: &str) -> Result<Url, String> {
    let url = Url::parse(base.trim()).map_err(|error| error.to_string())?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        other => Err(format!("the scheme {other:?} is neither http nor https")),
    }
}

fn client(key: Option<&str>) -> Result<reqwest::Client, UpstreamError> {
    // Refused only if another part of the program chose a provider before: then that one serves.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut headers = HeaderMap::new();
    if let Some(key) = key {
        let mut value =
            HeaderValue::try_from(format!("Bearer {key}")).map_err(|_| UpstreamError::BadKey)?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .default_headers(headers)
        .build()
        .map_err(|error| UpstreamError::Client(root_cause(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_joined_whether_or_not_the_address_ends_with_a_slash() {
        for base in ["http://localhost:11434/v1", "http://localhost:11434/v1/"] {
            let upstream = Upstream::new(base, None).unwrap();
            assert_eq!(
                upstream.url("models").as_str(),
                "http://localhost:11434/v1/models"
            );
        }
    }

    #[test]
    fn a_bad_address_names_the_variable_and_what_would_be_right() {
        for bad in ["localhost:11434", "ftp://host/v1", "not a url"] {
            let error = Upstream::new(bad, None).unwrap_err().to_string();
            assert!(
                error.contains("AI_MODELS_UPSTREAM") && error.contains("http://localhost:11434/v1"),
                "{error}"
            );
        }
        assert!(matches!(
            Upstream::new("http://host", Some("a\nb")),
            Err(UpstreamError::BadKey)
        ));
    }

    #[test]
    fn secrets_are_not_shown() {
        let upstream =
            Upstream::new("http://me:secret@host/v1?key=secret", Some("secret")).unwrap();
        assert!(!format!("{upstream:?} {}", upstream.shown_url()).contains("secret"));
    }
}
