//! An OpenAI-compatible server whose models are offered in addition to the local ones.

mod problems;
mod tokens;
mod wire;

use std::fmt;
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use url::Url;

use self::problems::{Problems, root_cause};
pub(crate) use self::tokens::TokenStream;
use self::wire::{Completion, ModelList};
use crate::models::Parameters;
use crate::problem::Problem;

/// The longest text that is forwarded, in characters. The server may have a lower limit.
pub(crate) const MAX_CHARACTERS: usize = 100_000;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The timeout of a request for the list of models.
const LIST_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a list of models is served before the server is queried again.
const LIST_LIFETIME: Duration = Duration::from_secs(5);

/// The timeout of a response that is not streamed. Long, since large models are slow on small
/// machines.
const COMPLETION_TIMEOUT: Duration = Duration::from_secs(300);

/// The longest pause in a streamed response. Before the first token the server may have to load
/// the model.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// An OpenAI-compatible server, such as Ollama, llama.cpp, vLLM or a hosted one.
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
    cache: Mutex<Cache>,
}

/// Why the configuration of an upstream server is not valid.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpstreamError {
    /// The address is not an HTTP or HTTPS URL.
    #[error(
        "AI_MODELS_UPSTREAM is {value:?}: {reason}; use a URL such as http://localhost:11434/v1"
    )]
    BadUrl {
        /// The address as given.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The key contains a character that can't be sent in a header.
    #[error("AI_MODELS_UPSTREAM_KEY contains a character that is not allowed in an HTTP header")]
    BadKey,
    /// The HTTP client can't be created, for example because no root certificates are installed.
    #[error("can't create the HTTP client for AI_MODELS_UPSTREAM: {0}")]
    Client(String),
}

/// The models of the server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listing {
    /// The last known model IDs, in the server's order. Kept when the server fails.
    pub(crate) models: Vec<String>,
    /// Why the last attempt to list the models failed, if it did.
    pub(crate) failure: Option<Problem>,
}

#[derive(Default)]
struct Cache {
    listing: Listing,
    updated_at: Option<Instant>,
}

impl Upstream {
    /// Configures the server with the API at `base`, such as `http://localhost:11434/v1` for
    /// Ollama. `key` is sent as a bearer token. Sends no request yet.
    pub fn new(base: &str, key: Option<&str>) -> Result<Self, UpstreamError> {
        let base = parse(base).map_err(|reason| UpstreamError::BadUrl {
            value: base.to_owned(),
            reason,
        })?;
        Ok(Self {
            base,
            http: client(key)?,
            cache: Mutex::default(),
        })
    }

    /// Configures the server named by `AI_MODELS_UPSTREAM`, with the key in
    /// `AI_MODELS_UPSTREAM_KEY`. Returns `None` if the first is unset or empty.
    pub fn from_env() -> Result<Option<Self>, UpstreamError> {
        let variable = |name| {
            std::env::var(name)
                .ok()
                .filter(|value| !value.trim().is_empty())
        };
        variable("AI_MODELS_UPSTREAM")
            .map(|base| Self::new(&base, variable("AI_MODELS_UPSTREAM_KEY").as_deref()))
            .transpose()
    }

    /// The server's address without user name, password and query, which may be secret.
    pub(crate) fn display_url(&self) -> String {
        let mut url = self.base.clone();
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.set_query(None);
        url.as_str().trim_end_matches('/').to_owned()
    }

    /// The server's models, at most [`LIST_LIFETIME`] old. Concurrent callers share one request.
    /// A failed request is part of the result.
    pub(crate) async fn listing(&self) -> Listing {
        let mut cache = self.cache.lock().await;
        let is_fresh = |at: Instant| at.elapsed() < LIST_LIFETIME;
        if !cache.updated_at.is_some_and(is_fresh) {
            let result = timeout(LIST_TIMEOUT, self.list())
                .await
                .unwrap_or_else(|_| Err(self.problems().timed_out()));
            match result {
                Ok(models) => {
                    cache.listing = Listing {
                        models,
                        failure: None,
                    }
                }
                Err(problem) => cache.listing.failure = Some(problem),
            }
            cache.updated_at = Some(Instant::now());
        }
        cache.listing.clone()
    }

    /// The model's response to one text.
    pub(crate) async fn complete(
        &self,
        model: &str,
        input: &str,
        parameters: &Parameters,
    ) -> Result<String, Problem> {
        let completion = async {
            let response = self.send_chat(model, input, parameters, false).await?;
            let body = response
                .bytes()
                .await
                .map_err(|error| self.problems().interrupted(&root_cause(&error)))?;
            let completion: Completion = serde_json::from_slice(&body)
                .map_err(|error| self.problems().invalid_response(&error))?;
            completion
                .text()
                .ok_or_else(|| self.problems().invalid_response(&"it has no choices"))
        };
        timeout(COMPLETION_TIMEOUT, completion)
            .await
            .unwrap_or_else(|_| Err(self.problems().timed_out()))
    }

    /// The model's response to one text, token by token. Dropping the stream cancels the request.
    pub(crate) async fn complete_streaming(
        &self,
        model: &str,
        input: &str,
        parameters: &Parameters,
    ) -> Result<TokenStream, Problem> {
        let response = timeout(IDLE_TIMEOUT, self.send_chat(model, input, parameters, true))
            .await
            .unwrap_or_else(|_| Err(self.problems().timed_out()))?;
        Ok(tokens::read(response, IDLE_TIMEOUT, self.problems()))
    }

    async fn list(&self) -> Result<Vec<String>, Problem> {
        let response = self.send(self.http.get(self.url("models"))).await?;
        let body = response
            .bytes()
            .await
            .map_err(|error| self.problems().no_response(&error))?;
        let list: ModelList = serde_json::from_slice(&body)
            .map_err(|error| self.problems().invalid_response(&error))?;
        Ok(list.ids())
    }

    async fn send_chat(
        &self,
        model: &str,
        input: &str,
        parameters: &Parameters,
        stream: bool,
    ) -> Result<reqwest::Response, Problem> {
        let mut body = parameters.clone();
        for (name, value) in [
            ("model", json!(model)),
            ("messages", json!([{"role": "user", "content": input}])),
            ("stream", json!(stream)),
        ] {
            if body.insert(name.to_owned(), value).is_some() {
                return Err(Problem::reserved_parameter(name));
            }
        }
        let accept = if stream {
            "text/event-stream"
        } else {
            "application/json"
        };
        let request = self.http.post(self.url("chat/completions"));
        self.send(request.header(ACCEPT, accept).json(&body)).await
    }

    /// Sends a request; a response with an error status is an error.
    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, Problem> {
        let response = request
            .send()
            .await
            .map_err(|error| self.problems().no_response(&error))?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(self.problems().error_status(response).await)
        }
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!(
            "{}/{path}",
            self.base.path().trim_end_matches('/')
        ));
        url
    }

    fn problems(&self) -> Problems {
        Problems {
            server: self.display_url(),
        }
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream")
            .field("url", &self.display_url())
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
    // This fails only if the process has a crypto provider already; that one is used then.
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
    fn paths_are_joined_with_or_without_a_trailing_slash() {
        for base in ["http://localhost:11434/v1", "http://localhost:11434/v1/"] {
            let upstream = Upstream::new(base, None).unwrap();
            assert_eq!(
                upstream.url("models").as_str(),
                "http://localhost:11434/v1/models"
            );
        }
    }

    #[test]
    fn the_error_for_a_bad_address_names_the_variable_and_a_valid_url() {
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
    fn secrets_are_not_displayed() {
        let upstream =
            Upstream::new("http://me:secret@host/v1?key=secret", Some("secret")).unwrap();
        assert!(!format!("{upstream:?} {}", upstream.display_url()).contains("secret"));
    }
}
