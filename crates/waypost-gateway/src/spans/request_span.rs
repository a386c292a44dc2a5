//! The span of a request, and those of its attempts.

use std::fmt::Display;
use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use opentelemetry::trace::{SpanContext, SpanId};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};
use waypost::Instance;

use super::exporter::SpanQueue;
use super::recording::{Attempt, Recording};
use crate::client::Client;
use crate::headers::{TRACEPARENT, TRACESTATE};
use crate::stream_info::StreamInfo;

/// The span of a request; empty if it has none. It is exported when the request has ended.
#[derive(Default)]
pub(crate) struct RequestSpan(Option<Box<Active>>);

struct Active {
    queue: Arc<SpanQueue>,
    recording: Recording,
}

/// The headers that tell an instance which span is the parent of its own.
pub(crate) struct TraceHeaders {
    traceparent: HeaderValue,
    /// Whether the trace begins here, so that the caller's `tracestate` is removed.
    is_new_trace: bool,
}

impl RequestSpan {
    pub(super) fn begin(
        queue: Arc<SpanQueue>,
        context: SpanContext,
        parent: Option<SpanContext>,
        headers: &HeaderMap,
        host: Option<&HeaderValue>,
        client: &Client,
    ) -> Self {
        let peer = client.peer().ip().to_canonical().to_string();
        let forwarding = &client.forwarding;
        let recording = Recording {
            context,
            parent,
            started: SystemTime::now(),
            scheme: forwarding.scheme(),
            client: forwarding
                .named_client(headers)
                .map_or_else(|| peer.clone(), str::to_owned),
            peer,
            host: host.cloned(),
            user_agent: headers.get(header::USER_AGENT).cloned(),
            route: None,
            attempts: Vec::new(),
        };
        Self(Some(Box::new(Active { queue, recording })))
    }

    /// Records the pattern of the route's path.
    pub(crate) fn routed(&mut self, pattern: impl Display) {
        if let Some(Active { recording, .. }) = self.0.as_deref_mut()
            && recording.context.is_sampled()
        {
            recording.route = Some(pattern.to_string());
        }
    }

    /// Records the beginning of an attempt. Returns the headers that its request needs.
    pub(crate) fn attempt_began(
        &mut self,
        info: &StreamInfo,
        instance: &Arc<Instance>,
    ) -> Option<TraceHeaders> {
        let recording = &mut self.0.as_mut()?.recording;
        let id = RandomIdGenerator::default().new_span_id();
        let context = &recording.context;
        if context.is_sampled() {
            recording.attempts.push(Attempt {
                id,
                instance: Arc::clone(instance),
                began: info.elapsed(),
                ended: None,
                status: None,
                error: None,
            });
        }
        TraceHeaders::of(recording, id)
    }

    /// The trace headers of a request that is sent as a part of this span, without its own span.
    pub(crate) fn trace_headers(&self) -> Option<TraceHeaders> {
        let recording = &self.0.as_ref()?.recording;
        TraceHeaders::of(recording, recording.context.span_id())
    }

    /// Records the head of the response to the last attempt, which ends with the request.
    pub(crate) fn attempt_responded(&mut self, status: StatusCode) {
        if let Some(attempt) = self.last_attempt() {
            attempt.status = Some(status);
        }
    }

    /// Records that the last attempt failed.
    pub(crate) fn attempt_failed(&mut self, info: &StreamInfo, error: &'static str) {
        if let Some(attempt) = self.last_attempt() {
            attempt.ended = Some(info.elapsed());
            attempt.error = Some(error);
        }
    }

    fn last_attempt(&mut self) -> Option<&mut Attempt> {
        self.0.as_mut()?.recording.attempts.last_mut()
    }

    /// Passes the spans on to be exported.
    pub(crate) fn end(&mut self, info: &StreamInfo) {
        let Some(active) = self.0.take() else {
            return;
        };
        let Active { queue, recording } = *active;
        let spans = 1 + recording.attempts.len();
        if !recording.context.is_sampled() || !queue.reserve(spans) {
            return;
        }
        for (number, attempt) in recording.attempts.iter().enumerate() {
            queue.push(recording.of_attempt(number, attempt, info, &queue.scope));
        }
        queue.push(recording.of_request(info, &queue.scope));
    }
}

impl TraceHeaders {
    /// The trace headers with the span `id` of a request's trace.
    fn of(recording: &Recording, id: SpanId) -> Option<Self> {
        let context = &recording.context;
        let (trace, flags) = (context.trace_id(), context.trace_flags());
        let traceparent = format!("00-{trace}-{id}-{flags:02x}");
        Some(Self {
            traceparent: HeaderValue::from_str(&traceparent).ok()?,
            is_new_trace: recording.parent.is_none(),
        })
    }

    /// Replaces the headers of the caller's span.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        headers.insert(TRACEPARENT, self.traceparent.clone());
        if self.is_new_trace {
            headers.remove(TRACESTATE);
        }
    }
}
