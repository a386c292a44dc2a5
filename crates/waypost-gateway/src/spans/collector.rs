//! Sends exports to the collector, with the gateway's own HTTP client.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, Uri};
use opentelemetry_http::{HttpClient, HttpError};
use tokio::runtime::Handle;
use tokio::time::Instant;
use waypost::ConfigError;

use super::settings::Settings;
use crate::config::Config;
use crate::upstream::{ClientTls, HttpUrl, Upstream, call};

/// The largest response, in bytes.
const MAX_RESPONSE: usize = 64 * 1024;

/// The HTTP client of the exporter. Its requests run on a runtime, no matter which thread waits for them.
#[derive(Debug)]
pub(super) struct Collector {
    connections: Arc<Connections>,
    runtime: Handle,
    /// Why the last request failed.
    error: Mutex<Option<String>>,
}

#[derive(Debug)]
struct Connections {
    url: HttpUrl,
    upstream: Upstream,
    timeout: Duration,
    started: Instant,
}

impl Collector {
    /// Must be called within the runtime that the requests run on.
    ///
    /// # Errors
    /// If the file of certificate authorities can't be read.
    pub(super) fn new(settings: &Settings, config: &Config) -> Result<Self, ConfigError> {
        let ca_file = settings.ca_file.as_deref();
        let tls = ClientTls::new(ca_file.or(config.ca_file.as_deref().map(Path::new)))?;
        Ok(Self {
            connections: Arc::new(Connections {
                url: settings.url.clone(),
                upstream: Upstream::new(config, Arc::new(tls)),
                timeout: settings.timeout,
                started: Instant::now(),
            }),
            runtime: Handle::current(),
            error: Mutex::default(),
        })
    }

    /// Why the last request failed.
    pub(super) fn take_error(&self) -> Option<String> {
        let mut error = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        error.take()
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let connections = Arc::clone(&self.connections);
        let sending = self
            .runtime
            .spawn(async move { connections.send(request).await });
        let sent = match sending.await {
            Ok(sent) => sent,
            Err(_) => Err("the gateway has ended".to_owned()),
        };
        let failure = match &sent {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(format!("the response was {}", response.status())),
            Err(error) => Some(error.clone()),
        };
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = failure;
        Ok(sent?)
    }
}

impl Connections {
    async fn send(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, String> {
        let now = self.started.elapsed().as_millis() as u64;
        // The collector may have closed connections that are still in the pool.
        self.upstream.close_idle(now);
        let peer = self.upstream.peer_of(&self.url);
        *request.uri_mut() = Uri::from(self.url.target.clone());
        let sending = call(&peer, now, request, self.timeout, MAX_RESPONSE);
        let response = match tokio::time::timeout(self.timeout, sending).await {
            Ok(response) => response.map_err(|error| error.cause)?,
            Err(_) => return Err(format!("no response within {:?}", self.timeout)),
        };
        let mut whole = Response::new(response.body);
        *whole.status_mut() = response.status;
        *whole.headers_mut() = response.headers;
        Ok(whole)
    }
}
