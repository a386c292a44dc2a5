//! An OpenAI-compatible server whose models are offered in addition to the local ones.

mod body;
mod events;
mod problems;
mod tokens;
mod wire;

use std::fmt;
use std::time::Duration;

use futures_util::stream;
use futures_util::stream::{StreamExt, TryStreamExt};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::redirect;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use url::{Host, Url};
use waypost::mask_secrets;

use self::body::BodyError;
use self::body::root_cause;
use self::problems::Problems;
pub(crate) use self::tokens::TokenStream;
use self::wire::{Completion, Finish, ModelList, error_in};
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

/// The largest list of models, in bytes.
const MAX_LIST: usize = 1024 * 1024;

/// The largest response that is not streamed, in bytes.
const MAX_COMPLETION: usize = 8 * 1024 * 1024;

/// The maximum number of consecutive redirects.
const MAX_REDIRECTS: usize = 5;

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
        /// The address as given, with secrets masked.
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
    ///
    /// # Errors
    /// If the URL or the key is not valid.
    pub fn new(base: &str, key: Option<&str>) -> Result<Self, UpstreamError> {
        let base = parse(base).map_err(|reason| UpstreamError::BadUrl {
            value: mask_secrets(base).into_owned(),
            reason,
        })?;
        Ok(Self {
            http: client(&base, key)?,
            base,
            cache: Mutex::default(),
        })
    }

    /// Configures the server named by `AI_MODELS_UPSTREAM`, with the key in
    /// `AI_MODELS_UPSTREAM_KEY`. Returns `None` if the first is unset or empty.
    ///
    /// # Errors
    /// The same as for [`new`](Self::new).
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
            if has_type(&response, "text/event-stream") {
                // The server streams although it was not asked to.
                let tokens = tokens::read(response, IDLE_TIMEOUT, self.problems());
                return tokens.try_collect().await;
            }
            self.read_completion(response).await
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
        if has_type(&response, "application/json") {
            // The server does not stream this answer, or it failed.
            let text = timeout(COMPLETION_TIMEOUT, self.read_completion(response))
                .await
                .unwrap_or_else(|_| Err(self.problems().timed_out()))?;
            return Ok(stream::once(std::future::ready(Ok(text))).boxed());
        }
        Ok(tokens::read(response, IDLE_TIMEOUT, self.problems()))
    }

    async fn list(&self) -> Result<Vec<String>, Problem> {
        let response = self.send(self.http.get(self.url("models"))).await?;
        let list: ModelList = self.read_json(response, MAX_LIST).await?;
        Ok(list.ids())
    }

    /// The text of a response that is not streamed.
    async fn read_completion(&self, response: reqwest::Response) -> Result<String, Problem> {
        let completion: Completion = self.read_json(response, MAX_COMPLETION).await?;
        let choice = completion
            .into_first_choice()
            .ok_or_else(|| self.problems().invalid_response(&"it has no choices"))?;
        if choice.finish() == Some(Finish::Failed) {
            return Err(self.problems().failed_finish(choice.finish_reason()));
        }
        Ok(choice.text())
    }

    /// Reads a body of at most `limit` bytes. An error that it reports is an error.
    async fn read_json<T: DeserializeOwned>(
        &self,
        response: reqwest::Response,
        limit: usize,
    ) -> Result<T, Problem> {
        let problems = self.problems();
        let body = body::read(response, limit)
            .await
            .map_err(|error| match error {
                BodyError::TooLarge => problems.too_large(limit),
                BodyError::Interrupted(reason) => problems.interrupted(&reason),
            })?;
        let json: Value =
            serde_json::from_slice(&body).map_err(|error| problems.invalid_response(&error))?;
        if let Some(error) = error_in(&json) {
            return Err(problems.reported(error));
        }
        serde_json::from_value(json).map_err(|error| problems.invalid_response(&error))
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

fn client(base: &Url, key: Option<&str>) -> Result<reqwest::Client, UpstreamError> {
    // This fails only if the process has a crypto provider already; that one is used then.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut headers = HeaderMap::new();
    if let Some(key) = key {
        let mut value =
            HeaderValue::try_from(format!("Bearer {key}")).map_err(|_| UpstreamError::BadKey)?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    let mut builder = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .default_headers(headers)
        .redirect(same_origin_redirects());
    // A hosted server may only be reachable through the proxy in the environment, but a server on
    // this machine is not reachable through it.
    if is_loopback(base) {
        builder = builder.no_proxy();
    }
    builder
        .build()
        .map_err(|error| UpstreamError::Client(root_cause(&error)))
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            name == "localhost" || name.ends_with(".localhost")
        }
        Some(Host::Ipv4(ip)) => ip.is_loopback() || ip.is_unspecified(),
        Some(Host::Ipv6(ip)) => {
            let mapped = ip.to_ipv4_mapped();
            ip.is_loopback() || ip.is_unspecified() || mapped.is_some_and(|ip| ip.is_loopback())
        }
        None => false,
    }
}

/// Follows redirects within the configured server only. Another host must not receive the texts and
/// the key.
fn same_origin_redirects() -> redirect::Policy {
    redirect::Policy::custom(|attempt| {
        let is_same = attempt
            .previous()
            .first()
            .is_some_and(|first| first.origin() == attempt.url().origin());
        if !is_same {
            let target = attempt.url().origin().ascii_serialization();
            return attempt.error(format!(
                "it redirects to another server, {target}, which is not followed; if that is the \
                 right one, set AI_MODELS_UPSTREAM to it"
            ));
        }
        if attempt.previous().len() > MAX_REDIRECTS {
            return attempt.error("it redirects too often");
        }
        attempt.follow()
    })
}

/// Whether a response has this media type.
fn has_type(response: &reqwest::Response, media_type: &str) -> bool {
    let value = response.headers().get(CONTENT_TYPE);
    let value = value
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case(media_type)
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
    fn addresses_of_this_machine_are_recognized() {
        for (url, expected) in [
            ("http://localhost:11434/v1", true),
            ("http://127.0.0.1:11434/v1", true),
            ("http://127.8.0.1/v1", true),
            ("http://[::1]:8080/v1", true),
            ("http://[::ffff:127.0.0.1]:8080/v1", true),
            ("http://ollama.localhost/v1", true),
            ("http://ollama:11434/v1", false),
            ("https://api.example.com/v1", false),
            ("https://localhost.example.com/v1", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).unwrap()), expected, "{url}");
        }
    }

    #[test]
    fn secrets_are_not_displayed() {
        let upstream =
            Upstream::new("http://me:secret@host/v1?key=secret", Some("secret")).unwrap();
        assert!(!format!("{upstream:?} {}", upstream.display_url()).contains("secret"));
    }
}
