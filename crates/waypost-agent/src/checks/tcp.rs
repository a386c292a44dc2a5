//! TCP checks: passing if a connection can be made.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::{critical, passing, timeout_of};
use crate::store::{CheckDefinition, CheckResult};

pub(super) async fn probe(check: &CheckDefinition) -> CheckResult {
    let target = check.tcp.as_str();
    match timeout(timeout_of(check), connect(target)).await {
        Ok(Ok(())) => passing(format!("TCP connect {target}: Success")),
        Ok(Err(fault)) => critical(fault),
        Err(_) => critical(format!("dial tcp {target}: i/o timeout")),
    }
}

/// Tries each address of the target. The error is the first one's, in Go's words.
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
    let mut fault = None;
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(_) => return Ok(()),
            Err(error) => {
                fault.get_or_insert_with(|| dial_error(&address.to_string(), &error));
            }
        }
    }
    Err(fault.unwrap_or_else(|| format!("dial tcp: lookup {host}: no such host")))
}

/// A failed connection in Go's words, without the error number that Rust adds.
pub(super) fn dial_error(address: &str, error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    format!("dial tcp {address}: connect: {}", text.to_lowercase())
}
