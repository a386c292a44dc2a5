//! What dead processes have left behind: instances that nobody serves any more, because their
//! process was killed before it could deregister. The functions talk to a registry over its HTTP
//! API, so they work with a real Consul agent as well.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::time::Duration;

use reqwest::{Client, RequestBuilder};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
const CONNECTS_WITHIN: Duration = Duration::from_secs(1);

/// An instance whose process is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leftover {
    /// The id of the instance.
    pub id: String,
    /// The name of its service.
    pub service: String,
    /// `host:port`.
    pub address: String,
    /// How it shows, for people.
    pub why: String,
}

/// Why leftovers can't be listed or cleared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeftoversError {
    /// The registry doesn't answer.
    #[error("can't reach the registry at {url}: {source}")]
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// What went wrong.
        source: reqwest::Error,
    },
    /// The registry answers with an error.
    #[error("the registry at {url} refuses: {status}: {text}")]
    Refused {
        /// Where it is.
        url: String,
        /// The status of its answer, such as 403.
        status: u16,
        /// What it says.
        text: String,
    },
}

/// A registry to ask.
struct Registry<'a> {
    url: &'a str,
    token: Option<&'a str>,
    client: Client,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(rename = "ID")]
    id: String,
    service: String,
    #[serde(default)]
    address: String,
    #[serde(default)]
    port: u16,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    #[serde(rename = "ServiceID", default)]
    service_id: String,
    status: String,
    #[serde(default)]
    output: String,
}

/// The instances on this machine whose process is gone. An instance is one of them if nothing
/// listens on its port any more or its reports have stopped, and none of its checks passes. Those
/// on other machines are left out: from here, a process can't be told from its network.
///
/// `url` is the registry's, such as `http://127.0.0.1:8500`; `token` is the one that it wants, if
/// it wants one.
///
/// # Errors
/// If the registry doesn't answer, or refuses to.
pub async fn leftovers(url: &str, token: Option<&str>) -> Result<Vec<Leftover>, LeftoversError> {
    let registry = Registry::new(url, token)?;
    let services: BTreeMap<String, Service> = registry.list("/v1/agent/services").await?;
    let checks: BTreeMap<String, Check> = registry.list("/v1/agent/checks").await?;
    let mut found = Vec::new();
    for service in services.into_values() {
        let own: Vec<_> = checks
            .values()
            .filter(|check| check.service_id == service.id)
            .collect();
        if own.iter().any(|check| check.status != "critical") {
            continue;
        }
        let expired = own
            .iter()
            .any(|check| check.output.starts_with("TTL expired"));
        let host = match service.address.as_str() {
            "" => "127.0.0.1",
            address => address,
        };
        let address = format!("{host}:{}", service.port);
        let why = if expired {
            "its reports have stopped".to_owned()
        } else if service.port != 0 && is_here(host) && refuses(&address).await {
            format!("nothing listens on {address}")
        } else {
            continue;
        };
        found.push(Leftover {
            id: service.id,
            service: service.service,
            address,
            why,
        });
    }
    Ok(found)
}

/// Deregisters leftovers. One that is gone already is no error.
///
/// # Errors
/// If the registry doesn't answer, or refuses to.
pub async fn clear_leftovers(
    url: &str,
    token: Option<&str>,
    leftovers: &[Leftover],
) -> Result<(), LeftoversError> {
    let registry = Registry::new(url, token)?;
    for leftover in leftovers {
        registry.deregister(&leftover.id).await?;
    }
    Ok(())
}

/// Asks an agent to end (`/v1/agent/leave`): this one, whose owner then decides, or a Consul.
///
/// # Errors
/// If the registry doesn't answer, or refuses to.
pub async fn leave(url: &str, token: Option<&str>) -> Result<(), LeftoversError> {
    let registry = Registry::new(url, token)?;
    let path = format!("{}/v1/agent/leave", registry.url);
    registry.send(registry.client.put(path)).await.map(drop)
}

impl<'a> Registry<'a> {
    fn new(url: &'a str, token: Option<&'a str>) -> Result<Self, LeftoversError> {
        // Fails only if a provider is installed already, which then serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let url = url.trim_end_matches('/');
        let client = Client::builder().timeout(ANSWERS_WITHIN).build();
        match client {
            Ok(client) => Ok(Self { url, token, client }),
            Err(source) => Err(unreachable(url, source)),
        }
    }

    async fn list<T: for<'de> Deserialize<'de>>(&self, path: &str) -> Result<T, LeftoversError> {
        let request = self.client.get(format!("{}{path}", self.url));
        let answer = self.send(request).await?;
        answer
            .json()
            .await
            .map_err(|source| unreachable(self.url, source))
    }

    async fn deregister(&self, id: &str) -> Result<(), LeftoversError> {
        let id: String = url::form_urlencoded::byte_serialize(id.as_bytes()).collect();
        let id = id.replace('+', "%20");
        let path = format!("{}/v1/agent/service/deregister/{id}", self.url);
        match self.send(self.client.put(path)).await {
            // Consul since 1.11 says so of a service that is gone.
            Ok(_) | Err(LeftoversError::Refused { status: 404, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<reqwest::Response, LeftoversError> {
        let request = match self.token {
            Some(token) => request.header("x-consul-token", token),
            None => request,
        };
        let sent = request.send().await;
        let answer = sent.map_err(|source| unreachable(self.url, source))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        Err(LeftoversError::Refused {
            url: self.url.to_owned(),
            status: status.as_u16(),
            text: answer.text().await.unwrap_or_default(),
        })
    }
}

fn unreachable(url: &str, source: reqwest::Error) -> LeftoversError {
    LeftoversError::Unreachable {
        url: url.to_owned(),
        source,
    }
}

fn is_here(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    let address: Result<std::net::IpAddr, _> = host.parse();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

async fn refuses(address: &str) -> bool {
    match timeout(CONNECTS_WITHIN, TcpStream::connect(address)).await {
        Ok(Err(error)) => error.kind() == ErrorKind::ConnectionRefused,
        _ => false,
    }
}
