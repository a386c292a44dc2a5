//! A minimal client of the agent API, which works with Consul agents as well.

use std::time::Duration;

use reqwest::{Client, RequestBuilder};
use serde::Deserialize;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a request to a registry failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryRequestError {
    /// There was no response, or an invalid one.
    #[error("can't reach the registry at {url}: {source}")]
    Unreachable {
        /// The URL of the registry.
        url: String,
        /// The error of the HTTP client.
        source: reqwest::Error,
    },
    /// The response was an error.
    #[error("the registry at {url} responded with {status}: {text}")]
    Refused {
        /// The URL of the registry.
        url: String,
        /// The status code, such as 403.
        status: u16,
        /// The response body.
        text: String,
    },
}

pub(crate) struct RegistryClient<'a> {
    url: &'a str,
    token: Option<&'a str>,
    client: Client,
}

/// Makes an agent leave (`/v1/agent/leave`). A Consul agent stops. An [`Agent`](crate::Agent)
/// stops accepting connections and completes [`left`](crate::Agent::left).
///
/// # Errors
/// If there is no response, or if it is an error.
pub async fn leave(url: &str, token: Option<&str>) -> Result<(), RegistryRequestError> {
    let client = RegistryClient::new(url, token)?;
    client.put("/v1/agent/leave").await
}

impl<'a> RegistryClient<'a> {
    pub(crate) fn new(url: &'a str, token: Option<&'a str>) -> Result<Self, RegistryRequestError> {
        // Fails only if a crypto provider is already installed, which is then used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let url = url.trim_end_matches('/');
        // The registry is on this machine or network and is reached directly, without a proxy.
        let client = Client::builder().timeout(REQUEST_TIMEOUT).no_proxy();
        match client.build() {
            Ok(client) => Ok(Self { url, token, client }),
            Err(source) => Err(unreachable(url, source)),
        }
    }

    pub(crate) async fn get<T: for<'de> Deserialize<'de>>(
        &self,
        path: &str,
    ) -> Result<T, RegistryRequestError> {
        let request = self.client.get(format!("{}{path}", self.url));
        let response = self.send(request).await?;
        response
            .json()
            .await
            .map_err(|source| unreachable(self.url, source))
    }

    pub(crate) async fn put(&self, path: &str) -> Result<(), RegistryRequestError> {
        let request = self.client.put(format!("{}{path}", self.url));
        self.send(request).await.map(drop)
    }

    async fn send(
        &self,
        request: RequestBuilder,
    ) -> Result<reqwest::Response, RegistryRequestError> {
        let request = match self.token {
            Some(token) => request.header("x-consul-token", token),
            None => request,
        };
        let sent = request.send().await;
        let response = sent.map_err(|source| unreachable(self.url, source))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        Err(RegistryRequestError::Refused {
            url: self.url.to_owned(),
            status: status.as_u16(),
            text: response.text().await.unwrap_or_default(),
        })
    }
}

fn unreachable(url: &str, source: reqwest::Error) -> RegistryRequestError {
    RegistryRequestError::Unreachable {
        url: url.to_owned(),
        source,
    }
}
