//! TCP checks, which are passing if a connection can be established.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::result::{critical, passing, timeout_of};
use crate::store::{CheckDefinition, CheckResult};

pub(super) async fn probe(check: &CheckDefinition) -> CheckResult {
    let target = check.tcp.as_str();
    match timeout(timeout_of(check), connect(target)).await {
        Ok(Ok(())) => passing(format!("TCP connect {target}: Success")),
        Ok(Err(error)) => critical(error),
        Err(_) => critical(format!("dial tcp {target}: i/o timeout")),
    }
}

/// Tries each address of the target. The error is that of the first one, as Go shows it.
async fn connect(target: &str) -> Result<(), String> {
    let Some((host, _)) = target.rsplit_once(':') else {
        return Err(format!(
            "dial tcp: address {target}: missing port in address"
        ));
    };
    let addresses: Vec<SocketAddr> = match lookup_host(target).await {
        Ok(addresses) => addresses.collect(),
        Err(error) => return Err(format!("dial tcp: lookup {host}: {error}")),
    };
    let mut first_error = None;
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(_) => return Ok(()),
            Err(error) => {
                first_error.get_or_insert_with(|| dial_error(&address.to_string(), &error));
            }
        }
    }
    Err(first_error.unwrap_or_else(|| format!("dial tcp: lookup {host}: no such host")))
}

/// A failed connection as Go shows it, without the error number that Rust adds.
pub(super) fn dial_error(address: &str, error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    format!("dial tcp {address}: connect: {}", text.to_lowercase())
}
