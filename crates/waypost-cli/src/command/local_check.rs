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
