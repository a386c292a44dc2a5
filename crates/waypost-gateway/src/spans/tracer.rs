//! Decides which requests get spans.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanContext, SpanKind, TraceContextExt, TraceFlags, TraceState};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    IdGenerator, RandomIdGenerator, Sampler, SamplingDecision, ShouldSample,
};
use waypost::ConfigError;

use super::SpanCounts;
use super::exporter::SpanQueue;
use super::request_span::RequestSpan;
use super::settings::Settings;
use crate::client::Client;
use crate::config::Config;
use crate::headers::TRACEPARENT;
use crate::pages::is_probe;
use crate::stream_info::StreamInfo;

/// How long the last spans may take at the end.
const LAST_EXPORT: Duration = Duration::from_secs(5);

/// Makes the spans of requests, if they are exported.
pub(crate) struct Tracer(Option<ActiveTracer>);

/// What all spans share.
struct ActiveTracer {
    sampler: Sampler,
    ids: RandomIdGenerator,
    queue: Arc<SpanQueue>,
}

impl Tracer {
    /// Must be called within the runtime that exports run on.
    ///
    /// # Errors
    /// If a variable of OpenTelemetry has an invalid value.
    pub(crate) fn new(config: &Config) -> Result<Self, ConfigError> {
        let Some(settings) = Settings::read(&config.environment, &config.service)? else {
            return Ok(Self(None));
        };
        let queue = SpanQueue::start(&settings, config)?;
        tracing::info!(collector = %settings.url, "spans are exported");
        Ok(Self(Some(ActiveTracer {
            sampler: settings.sampler,
            ids: RandomIdGenerator::default(),
            queue: Arc::new(queue),
        })))
    }

    /// The span of a request that begins now. `host` is the authority that the client requested.
    pub(crate) fn begin(
        &self,
        headers: &HeaderMap,
        host: Option<&HeaderValue>,
        client: &Client,
        info: &StreamInfo,
    ) -> RequestSpan {
        match &self.0 {
            Some(tracer) if !is_probe(info.uri.path()) => tracer.begin(headers, host, client, info),
            _ => RequestSpan::default(),
        }
    }

    /// `None` if no spans are exported.
    pub(crate) fn counts(&self) -> Option<SpanCounts> {
        self.0.as_ref().map(|tracer| tracer.queue.counts())
    }

    /// Exports the last spans, for a limited time.
    pub(crate) async fn shut_down(&self) {
        if let Some(tracer) = &self.0 {
            let queue = Arc::clone(&tracer.queue);
            let ending = move || queue.shut_down(LAST_EXPORT);
            let _ = tokio::task::spawn_blocking(ending).await;
        }
    }
}

impl ActiveTracer {
    fn begin(
        &self,
        headers: &HeaderMap,
        host: Option<&HeaderValue>,
        client: &Client,
        info: &StreamInfo,
    ) -> RequestSpan {
        let parent = parent(headers);
        let parent = parent.as_ref();
        let trace = match parent {
            Some(cx) => cx.span().span_context().trace_id(),
            None => self.ids.new_trace_id(),
        };
        let sampled = self.sampler.should_sample(
            parent,
            trace,
            info.method.as_str(),
            &SpanKind::Server,
            &[],
            &[],
        );
        let is_sampled = sampled.decision == SamplingDecision::RecordAndSample;
        let parent = parent.map(|cx| cx.span().span_context().clone());
        if !is_sampled && parent.as_ref().is_some_and(|parent| !parent.is_sampled()) {
            // The caller's headers say everything that the service needs to know.
            return RequestSpan::default();
        }
        let flags = TraceFlags::default().with_sampled(is_sampled);
        let context = SpanContext::new(
            trace,
            self.ids.new_span_id(),
            flags,
            false,
            parent
                .as_ref()
                .map_or_else(TraceState::default, |parent| parent.trace_state().clone()),
        );
        RequestSpan::begin(
            Arc::clone(&self.queue),
            context,
            parent,
            headers,
            host,
            client,
        )
    }
}

/// The caller's span, if `traceparent` is valid (W3C Trace Context, section 3.2).
fn parent(headers: &HeaderMap) -> Option<Context> {
    let mut lines = headers.get_all(TRACEPARENT).iter();
    if lines.next().is_none() || lines.next().is_some() {
        return None;
    }
    let extractor = HeaderExtractor(headers);
    let cx = TraceContextPropagator::new().extract_with_context(&Context::new(), &extractor);
    cx.has_active_span().then_some(cx)
}
