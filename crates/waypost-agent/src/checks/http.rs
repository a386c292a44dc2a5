//! HTTP checks: passing on 2xx, warning on 429, critical otherwise.

use std::io;
use std::sync::OnceLock;

use reqwest::redirect::Policy;
use reqwest::{Client, Method, Response, StatusCode};

use super::result::{DEFAULT_OUTPUT_MAX_SIZE, critical, output_max_size, passing, timeout_of};
use super::tcp::dial_error;
use crate::check_targets::CheckTargets;
use crate::store::{CheckDefinition, CheckResult, CheckStatus};
use crate::text::mask_password;

/// The limit of Go's HTTP client.
const MAX_REDIRECTS: usize = 10;

/// How much of a body is read, in bytes.
const MAX_BODY: usize = 1024 * 1024;

/// The two clients. Each is created when it is first needed, because reading the system's certificates
/// takes a while.
#[derive(Debug, Default)]
pub(super) struct Clients {
    verifying: OnceLock<Result<Client, String>>,
    trusting: OnceLock<Result<Client, String>>,
    /// The allowed targets of redirects.
    targets: CheckTargets,
}

impl Clients {
    pub(super) fn new(targets: CheckTargets) -> Self {
        Self {
            targets,
            ..Self::default()
        }
    }

    fn get(&self, skip_verify: bool) -> Result<&Client, String> {
        let client = if skip_verify {
            &self.trusting
        } else {
            &self.verifying
        };
        let client = client.get_or_init(|| {
            new_client(skip_verify, &self.targets).map_err(|error| error.to_string())
        });
        client.as_ref().map_err(String::clone)
    }
}

/// A client that opens a new connection for every request, so that connecting is checked too. It uses
/// no proxy, because targets are on the agent's machine or network.
fn new_client(skip_verify: bool, targets: &CheckTargets) -> reqwest::Result<Client> {
    // Fails only if a crypto provider is already installed, which is then used.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let targets = targets.clone();
    let redirects = Policy::custom(move |attempt| {
        let allowed = attempt
            .url()
            .host_str()
            .is_some_and(|host| targets.allow(host));
        if !allowed {
            attempt.error("redirected to a host that this agent may not check")
        } else if attempt.previous().len() > MAX_REDIRECTS {
            attempt.error("stopped after 10 redirects")
        } else {
            attempt.follow()
        }
    });
    Client::builder()
        .no_proxy()
        .redirect(redirects)
        .pool_max_idle_per_host(0)
        .danger_accept_invalid_certs(skip_verify)
        .build()
}

pub(super) async fn probe(check: &CheckDefinition, clients: &Clients) -> CheckResult {
    let method = match check.method.as_str() {
        "" => "GET",
        method => method,
    };
    match send(check, method, clients).await {
        Ok((status, line, body)) => {
            let url = mask_password(&check.http);
            let output = format!("HTTP {method} {url}: {line} Output: {body}");
            match status {
                status if status.is_success() => passing(output),
                StatusCode::TOO_MANY_REQUESTS => CheckResult {
                    status: CheckStatus::Warning,
                    output,
                },
                _ => critical(output),
            }
        }
        Err(error) => critical(error),
    }
}

async fn send(
    check: &CheckDefinition,
    method: &str,
    clients: &Clients,
) -> Result<(StatusCode, String, String), String> {
    let verb = Method::from_bytes(method.as_bytes())
        .map_err(|_| format!("net/http: invalid method {method:?}"))?;
    let describe = |error| describe(check, method, &error);
    let mut request = clients
        .get(check.tls_skip_verify)?
        .request(verb, &check.http)
        .timeout(timeout_of(check))
        .header("connection", "close");
    let has_header = |name: &str| {
        let mut names = check.header.keys();
        names.any(|key| key.eq_ignore_ascii_case(name))
    };
    if !has_header("user-agent") {
        request = request.header("user-agent", "Consul Health Check");
    }
    if !has_header("accept") {
        request = request.header("accept", "text/plain, text/*, */*");
    }
    for (name, values) in &check.header {
        for value in values {
            request = request.header(name, value);
        }
    }
    if !check.body.is_empty() {
        request = request.body(check.body.clone());
    }
    let response = request.send().await.map_err(describe)?;
    let status = response.status();
    let line = status.to_string();
    let body = tail(response, output_max_size(check))
        .await
        .map_err(describe)?;
    Ok((status, line, body))
}

/// The last `limit` bytes of a body, which are those that Consul keeps.
async fn tail(mut response: Response, limit: usize) -> reqwest::Result<String> {
    let mut kept: Vec<u8> = Vec::new();
    let mut read = 0;
    while let Some(chunk) = response.chunk().await? {
        read += chunk.len();
        kept.extend_from_slice(&chunk);
        if kept.len() > limit + DEFAULT_OUTPUT_MAX_SIZE {
            kept.drain(..kept.len() - limit);
        }
        if read > MAX_BODY {
            break;
        }
    }
    let start = kept.len().saturating_sub(limit);
    Ok(String::from_utf8_lossy(&kept[start..]).into_owned())
}

/// The error text of Go for a failed request.
fn describe(check: &CheckDefinition, method: &str, error: &reqwest::Error) -> String {
    if error.is_builder() {
        return format!("parse {:?}: {}", mask_password(&check.http), cause(error));
    }
    let mut operation = method.to_lowercase();
    if let Some(first) = operation.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    let what = if error.is_timeout() {
        "context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned()
    } else {
        cause(error)
    };
    format!("{operation} {:?}: {what}", mask_password(&check.http))
}

/// The innermost cause; for a failed connection, with the address.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let address = error.url().and_then(|url| {
        let host = url.host_str()?;
        Some(format!("{host}:{}", url.port_or_known_default()?))
    });
    match (cause.downcast_ref::<io::Error>(), address) {
        (Some(io), Some(address)) if error.is_connect() => dial_error(&address, io),
        _ => cause.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// The result of a check of a server with this response.
    async fn result_of(status: &str, body: &str) -> CheckResult {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let check = CheckDefinition {
            http: format!("http://{}", listener.local_addr().unwrap()),
            output_max_size: 4,
            ..CheckDefinition::default()
        };
        let length = body.len();
        let response = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
        let serve = async {
            let (mut connection, _) = listener.accept().await.unwrap();
            let _ = connection.read(&mut [0; 4096]).await.unwrap();
            connection.write_all(response.as_bytes()).await.unwrap();
        };
        let clients = Clients::default();
        tokio::join!(probe(&check, &clients), serve).0
    }

    #[tokio::test]
    async fn the_status_of_a_check_follows_from_the_http_status() {
        for (status, expected) in [
            ("200 OK", CheckStatus::Passing),
            ("204 No Content", CheckStatus::Passing),
            ("429 Too Many Requests", CheckStatus::Warning),
            ("404 Not Found", CheckStatus::Critical),
            ("503 Service Unavailable", CheckStatus::Critical),
        ] {
            assert_eq!(result_of(status, "").await.status, expected, "{status}");
        }
    }

    #[tokio::test]
    async fn the_end_of_a_long_body_is_kept() {
        for padding in [0, 3, 10_000] {
            let body = "a".repeat(padding) + "wxyz";
            let output = result_of("200 OK", &body).await.output;
            assert!(output.ends_with(" Output: wxyz"), "{output}");
        }
    }
}
