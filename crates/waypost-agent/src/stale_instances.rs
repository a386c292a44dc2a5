//! Finds and deregisters stale instances: registered instances whose process was killed before it
//! could deregister them. Works with Consul agents as well.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::Duration;

use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::registry_client::{RegistryClient, RegistryRequestError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// An instance whose process no longer runs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StaleInstance {
    /// The id of the instance.
    pub id: String,
    /// The name of its service.
    pub service: String,
    /// `host:port`.
    pub address: String,
    /// Why it is considered stale, for display.
    pub why: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RegisteredService {
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
struct RegisteredCheck {
    #[serde(rename = "ServiceID", default)]
    service_id: String,
    status: String,
    #[serde(default)]
    output: String,
}

/// Lists the stale instances on this machine. An instance is stale if none of its checks is passing
/// or warning, and either its port is closed or its TTL check has expired. Ports of instances on
/// other machines aren't probed, because a dead process can't be distinguished from a network failure.
///
/// `url` is the URL of the registry, such as `http://127.0.0.1:8500`, and `token` its token if it
/// requires one.
///
/// # Errors
/// If there is no response, or if it is an error.
pub async fn stale_instances(
    url: &str,
    token: Option<&str>,
) -> Result<Vec<StaleInstance>, RegistryRequestError> {
    let client = RegistryClient::new(url, token)?;
    let services: BTreeMap<String, RegisteredService> = client.get("/v1/agent/services").await?;
    let checks: BTreeMap<String, RegisteredCheck> = client.get("/v1/agent/checks").await?;
    let mut stale = Vec::new();
    for service in services.into_values() {
        let checks: Vec<_> = checks
            .values()
            .filter(|check| check.service_id == service.id)
            .collect();
        if checks.iter().any(|check| check.status != "critical") {
            continue;
        }
        let is_expired = checks
            .iter()
            .any(|check| check.output.starts_with("TTL expired"));
        let host = match service.address.as_str() {
            "" => "127.0.0.1",
            address => address.trim_matches(['[', ']']),
        };
        let address = if host.contains(':') {
            format!("[{host}]:{}", service.port)
        } else {
            format!("{host}:{}", service.port)
        };
        let why = if is_expired {
            "its TTL check has expired".to_owned()
        } else if service.port != 0 && is_loopback(host) && is_closed(&address).await {
            format!("nothing listens on {address}")
        } else {
            continue;
        };
        stale.push(StaleInstance {
            id: service.id,
            service: service.service,
            address,
            why,
        });
    }
    Ok(stale)
}

/// Deregisters stale instances. An instance that is no longer registered is not an error.
///
/// # Errors
/// If there is no response, or if it is an error.
pub async fn deregister_stale_instances(
    url: &str,
    token: Option<&str>,
    instances: &[StaleInstance],
) -> Result<(), RegistryRequestError> {
    let client = RegistryClient::new(url, token)?;
    for instance in instances {
        let id = instance.id.as_bytes();
        let id: String = url::form_urlencoded::byte_serialize(id).collect();
        let id = id.replace('+', "%20");
        match client
            .put(&format!("/v1/agent/service/deregister/{id}"))
            .await
        {
            // Consul 1.11 and later respond with 404 if the instance isn't registered.
            Ok(()) | Err(RegistryRequestError::Refused { status: 404, .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_loopback(host: &str) -> bool {
    let address: Result<IpAddr, _> = host.parse();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

async fn is_closed(address: &str) -> bool {
    match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Err(error)) => error.kind() == ErrorKind::ConnectionRefused,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_this_machine_are_probed() {
        for (host, expected) in [
            ("localhost", true),
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::1", true),
            ("10.1.2.3", false),
            ("fd00::1", false),
            ("example.com", false),
            ("localhost.example.com", false),
        ] {
            assert_eq!(is_loopback(host), expected, "{host}");
        }
    }
}
