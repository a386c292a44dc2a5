//! A health check that this process runs on behalf of an instance.

use std::net::SocketAddr;

use reqwest::StatusCode;
use tokio::net::TcpStream;
use waypost::provider::CheckKind;
use waypost::{Check, Host, Instance};

use crate::error::CommandError;

/// The kind and target of a check.
#[derive(Clone)]
pub(super) enum LocalCheck {
    /// A request is answered with status 2xx, or with 429, which is only a warning for Consul.
    Http {
        client: reqwest::Client,
        url: String,
    },
    /// The port accepts a connection.
    Tcp { host: Host, port: u16 },
}

impl LocalCheck {
    /// The HTTP check, or a TCP check of the instance's port if there is none.
    pub(super) fn new(check: Option<&Check>, instance: &Instance) -> Result<Self, CommandError> {
        let Some(CheckKind::Http(http)) = check.map(Check::kind) else {
            return Ok(Self::Tcp {
                host: instance.host().clone(),
                port: instance.port(),
            });
        };
        // reqwest needs a crypto provider even for plain HTTP. This fails only if one is installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            // A pooled connection would not show whether a new one can be made.
            .pool_max_idle_per_host(0)
            .build()
            .map_err(CommandError::other)?;
        Ok(Self::Http {
            client,
            url: http.url(instance),
        })
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Http { .. } => "http",
            Self::Tcp { .. } => "tcp",
        }
    }

    /// # Errors
    /// What is wrong with the instance.
    pub(super) async fn run(&self) -> Result<(), String> {
        match self {
            Self::Http { client, url } => {
                let response = client.get(url).send().await;
                let status = response.map_err(|error| innermost(&error))?.status();
                if status.is_success() || status == StatusCode::TOO_MANY_REQUESTS {
                    Ok(())
                } else {
                    Err(format!("status {status}"))
                }
            }
            Self::Tcp { host, port } => {
                let connected = match host {
                    Host::Ip(ip) => TcpStream::connect(SocketAddr::new(*ip, *port)).await,
                    Host::Name(name) => TcpStream::connect((&**name, *port)).await,
                };
                connected
                    .map(drop)
                    .map_err(|error| format!("port {port}: {error}"))
            }
        }
    }
}

/// The innermost error names the cause, such as "connection refused".
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use waypost::ServiceName;

    use super::*;

    fn instance(port: u16) -> Instance {
        let service = ServiceName::new("web").unwrap();
        let host = "127.0.0.1".parse().unwrap();
        Instance::builder(service, host, port).build().unwrap()
    }

    #[tokio::test]
    async fn a_response_with_success_or_a_limit_passes() {
        for (status, expected) in [
            ("200 OK", Ok(())),
            ("204 No Content", Ok(())),
            // Only a warning for Consul.
            ("429 Too Many Requests", Ok(())),
            ("302 Found", Err("status 302 Found")),
            ("404 Not Found", Err("status 404 Not Found")),
            (
                "500 Internal Server Error",
                Err("status 500 Internal Server Error"),
            ),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let check = LocalCheck::new(Some(&Check::http("/health")), &instance(port)).unwrap();
            assert_eq!(check.name(), "http");
            let respond = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let count = stream.read(&mut request).await.unwrap();
                let head = "location: /elsewhere\r\ncontent-length: 0\r\nconnection: close";
                let response = format!("HTTP/1.1 {status}\r\n{head}\r\n\r\n");
                stream.write_all(response.as_bytes()).await.unwrap();
                String::from_utf8_lossy(&request[..count]).into_owned()
            };
            let (result, request) = tokio::join!(check.run(), respond);
            assert_eq!(result, expected.map_err(str::to_owned));
            assert!(request.starts_with("GET /health HTTP/1.1\r\n"), "{request}");
            drop(listener);
            let refused = check.run().await.unwrap_err();
            assert!(refused.contains("refused"), "{refused}");
        }
    }

    #[tokio::test]
    async fn without_an_http_check_the_port_has_to_accept_a_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for check in [None, Some(Check::tcp())] {
            let check = LocalCheck::new(check.as_ref(), &instance(port)).unwrap();
            assert_eq!((check.name(), check.run().await), ("tcp", Ok(())));
        }
        drop(listener);
        let check = LocalCheck::new(None, &instance(port)).unwrap();
        let refused = check.run().await.unwrap_err();
        assert!(refused.starts_with(&format!("port {port}: ")), "{refused}");
    }
}
