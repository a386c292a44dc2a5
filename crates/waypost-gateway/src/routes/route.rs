//! One route: which requests it takes, where they go, and under which limits.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use crate::config::Config;
use crate::service::Service;

/// A route to a service.
pub(crate) struct Route {
    name: Arc<str>,
    service: Arc<Service>,
    /// The beginning of the path that the service doesn't see, such as `/auth`.
    prefix: Arc<str>,
    prefix_value: Option<HeaderValue>,
    pub(crate) limits: Limits,
}

/// The limits of a route's requests.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Limits {
    /// How long an instance may take to begin its response.
    pub(crate) first_byte: Duration,
    /// How long an instance may send nothing in the middle of its response.
    pub(crate) idle: Duration,
    /// How long a client may send nothing in the middle of its body.
    pub(crate) upload_idle: Duration,
    /// The attempts per request, the first included.
    pub(crate) max_attempts: u32,
    /// The largest body that is buffered for a retry, in bytes.
    pub(crate) replay: usize,
    /// The largest request body, in bytes.
    pub(crate) body: u64,
}

impl Limits {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            first_byte: config.first_byte_timeout,
            idle: config.idle_timeout,
            upload_idle: config.upload_idle_timeout,
            max_attempts: config.max_attempts,
            replay: config.bounded_replay_limit(),
            body: config.max_body.unwrap_or(u64::MAX),
        }
    }
}

impl Route {
    /// The route of a discovered service: `/{service}/…`.
    pub(crate) fn discovered(service: Arc<Service>, limits: Limits) -> Self {
        let name: Arc<str> = service.name().as_str().into();
        let prefix: Arc<str> = format!("/{name}").into();
        Self {
            name,
            prefix_value: HeaderValue::from_str(&prefix).ok(),
            prefix,
            service,
            limits,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// The beginning of the path that the service doesn't see; empty if it sees the whole path.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The prefix as the value of `X-Forwarded-Prefix`.
    pub(crate) fn prefix_value(&self) -> Option<&HeaderValue> {
        self.prefix_value.as_ref()
    }
}
