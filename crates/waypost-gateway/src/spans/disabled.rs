//! The types of this module without the feature `otlp`.

use http::{HeaderMap, HeaderValue, StatusCode};
use waypost::{ConfigError, Instance};

use super::SpanCounts;
use crate::client::Client;
use crate::config::Config;
use crate::stream_info::StreamInfo;

/// The variables that ask for spans.
const ENDPOINTS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
];

pub(crate) struct Tracer;

/// The span of a request.
#[derive(Default)]
pub(crate) struct RequestSpan {}

/// There are no such headers without the feature.
pub(crate) enum TraceHeaders {}

impl Tracer {
    pub(crate) fn new(config: &Config) -> Result<Self, ConfigError> {
        for name in ENDPOINTS {
            if config.environment.get(name).is_some() {
                tracing::warn!(
                    "{name} is set, but this program can't export spans: it was built without the feature \"otlp\""
                );
                break;
            }
        }
        Ok(Self)
    }

    pub(crate) fn begin(
        &self,
        _headers: &HeaderMap,
        _host: Option<&HeaderValue>,
        _client: &Client,
        _info: &StreamInfo,
    ) -> RequestSpan {
        RequestSpan {}
    }

    pub(crate) fn counts(&self) -> Option<SpanCounts> {
        None
    }

    pub(crate) async fn shut_down(&self) {}
}

impl RequestSpan {
    pub(crate) fn routed(&mut self, _pattern: impl std::fmt::Display) {}

    pub(crate) fn attempt_began(
        &mut self,
        _info: &StreamInfo,
        _instance: &std::sync::Arc<Instance>,
    ) -> Option<TraceHeaders> {
        None
    }

    pub(crate) fn trace_headers(&self) -> Option<TraceHeaders> {
        None
    }

    pub(crate) fn attempt_responded(&mut self, _status: StatusCode) {}

    pub(crate) fn attempt_failed(&mut self, _info: &StreamInfo, _error: &'static str) {}

    pub(crate) fn end(&mut self, _info: &StreamInfo) {}
}

impl TraceHeaders {
    pub(crate) fn write(&self, _headers: &mut HeaderMap) {
        match *self {}
    }
}
