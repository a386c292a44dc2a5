//! What is recorded about a request, and the spans made from it, with the attributes of OpenTelemetry's
//! semantic conventions for HTTP.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::uri::Authority;
use http::{HeaderValue, Method, StatusCode, Version};
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use waypost::{Host, Instance};

use crate::stream_info::{EndReason, StreamInfo};

/// The maximum length of a text from a client, in bytes.
const MAX_TEXT: usize = 1024;

/// What is recorded about a request until it has ended.
pub(super) struct Recording {
    pub(super) context: SpanContext,
    pub(super) parent: Option<SpanContext>,
    pub(super) started: SystemTime,
    pub(super) scheme: &'static str,
    pub(super) peer: String,
    pub(super) client: String,
    pub(super) host: Option<HeaderValue>,
    pub(super) user_agent: Option<HeaderValue>,
    /// The pattern of the route's path.
    pub(super) route: Option<String>,
    pub(super) attempts: Vec<Attempt>,
}

/// An attempt to get a response from an instance. Times are since the start of the request.
pub(super) struct Attempt {
    pub(super) id: SpanId,
    pub(super) instance: Arc<Instance>,
    pub(super) began: Duration,
    /// `None` for an attempt with a response, which ends with the request.
    pub(super) ended: Option<Duration>,
    pub(super) status: Option<StatusCode>,
    pub(super) error: Option<&'static str>,
}

impl Recording {
    /// The span of a request that has ended.
    pub(super) fn of_request(&self, info: &StreamInfo, scope: &InstrumentationScope) -> SpanData {
        let mut attributes = Attributes::default();
        attributes.method(&info.method);
        attributes.add("url.scheme", self.scheme);
        attributes.text("url.path", info.uri.path());
        attributes.optional("http.route", self.route.clone());
        let host = self.host.as_ref().and_then(|host| host.to_str().ok());
        if let Some(authority) = host.and_then(|host| host.parse::<Authority>().ok()) {
            attributes.text("server.address", authority.host());
            attributes.optional("server.port", authority.port_u16().map(i64::from));
        }
        attributes.text("client.address", &self.client);
        attributes.add("network.peer.address", self.peer.clone());
        attributes.add("network.protocol.version", version(info.version));
        if let Some(agent) = &self.user_agent {
            let agent = String::from_utf8_lossy(agent.as_bytes());
            attributes.text("user_agent.original", &agent);
        }
        attributes.status(info.status);
        let error = request_error(info);
        let status = match &error {
            Some(_) => Status::error(info.cause.clone().unwrap_or_default()),
            None => Status::Unset,
        };
        attributes.optional("error.type", error);
        attributes.optional(
            "waypost.route",
            info.route.as_ref().map(|name| name.to_string()),
        );
        let service = info.service.as_ref();
        attributes.optional(
            "waypost.service",
            service.map(|service| service.name().as_str().to_owned()),
        );
        let instance = info.instance.as_ref();
        attributes.optional(
            "waypost.instance",
            instance.map(|instance| instance.id().as_str().to_owned()),
        );
        attributes.add("waypost.attempts", i64::from(info.attempts));
        attributes.add("waypost.end", info.end.as_str());
        if let Ok(id) = info.request_id.to_str() {
            attributes.text("waypost.request_id", id);
        }
        let method = method_name(&info.method).unwrap_or("HTTP");
        let parent = self.parent.as_ref();
        SpanData {
            parent_span_id: parent.map_or(SpanId::INVALID, SpanContext::span_id),
            parent_span_is_remote: parent.is_some(),
            name: match &self.route {
                Some(route) => format!("{method} {route}").into(),
                None => Cow::Owned(method.to_owned()),
            },
            start_time: self.started,
            end_time: self.started + info.elapsed(),
            attributes: attributes.0,
            status,
            ..empty(self.context.clone(), SpanKind::Server, scope)
        }
    }

    /// The span of an attempt, whose number is 0 for the first.
    pub(super) fn of_attempt(
        &self,
        number: usize,
        attempt: &Attempt,
        info: &StreamInfo,
        scope: &InstrumentationScope,
    ) -> SpanData {
        let mut attributes = Attributes::default();
        attributes.method(&info.method);
        if number > 0 {
            attributes.add("http.request.resend_count", number as i64);
        }
        let instance = &attempt.instance;
        attributes.add("url.scheme", instance.scheme().to_owned());
        attributes.add(
            "server.address",
            match instance.host() {
                Host::Ip(ip) => ip.to_string(),
                Host::Name(name) => name.to_string(),
            },
        );
        attributes.add("server.port", i64::from(instance.port()));
        attributes.add("peer.service", instance.service().as_str().to_owned());
        attributes.add("waypost.instance", instance.id().as_str().to_owned());
        attributes.status(attempt.status);
        let error = attempt_error(attempt, info);
        let status = match &error {
            Some(_) => Status::error(""),
            None => Status::Unset,
        };
        attributes.optional("error.type", error);
        let context = &self.context;
        let own = SpanContext::new(
            context.trace_id(),
            attempt.id,
            context.trace_flags(),
            false,
            context.trace_state().clone(),
        );
        SpanData {
            parent_span_id: context.span_id(),
            name: method_name(&info.method)
                .unwrap_or("HTTP")
                .to_owned()
                .into(),
            start_time: self.started + attempt.began,
            end_time: self.started + attempt.ended.unwrap_or_else(|| info.elapsed()),
            attributes: attributes.0,
            status,
            ..empty(own, SpanKind::Client, scope)
        }
    }
}

/// A span without a name, a parent, times and attributes.
fn empty(context: SpanContext, kind: SpanKind, scope: &InstrumentationScope) -> SpanData {
    SpanData {
        span_context: context,
        parent_span_id: SpanId::INVALID,
        parent_span_is_remote: false,
        span_kind: kind,
        name: Cow::Borrowed(""),
        start_time: SystemTime::UNIX_EPOCH,
        end_time: SystemTime::UNIX_EPOCH,
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: scope.clone(),
    }
}

/// `error.type` of a request: only failures of the service or the gateway count.
fn request_error(info: &StreamInfo) -> Option<String> {
    if !info.has_failed() {
        return None;
    }
    match info.end {
        EndReason::Local(_) | EndReason::UpstreamBroken | EndReason::IdleTimeout => {
            Some(info.end.as_str().to_owned())
        }
        _ => info.status.map(|status| status.as_str().to_owned()),
    }
}

/// `error.type` of an attempt: for a client, a status from 400 on is an error too.
fn attempt_error(attempt: &Attempt, info: &StreamInfo) -> Option<String> {
    if let Some(error) = attempt.error {
        return Some(error.to_owned());
    }
    match (attempt.status, info.end) {
        (_, EndReason::UpstreamBroken | EndReason::IdleTimeout) => {
            Some(info.end.as_str().to_owned())
        }
        // The gateway didn't accept the response.
        (Some(_), EndReason::Local(reason)) => Some(reason.to_owned()),
        (Some(status), _) if status.is_client_error() || status.is_server_error() => {
            Some(status.as_str().to_owned())
        }
        (None, _) => Some(info.end.as_str().to_owned()),
        _ => None,
    }
}

#[derive(Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn add(&mut self, name: &'static str, value: impl Into<Value>) {
        self.0.push(KeyValue::new(name, value));
    }

    fn optional(&mut self, name: &'static str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }

    /// Adds a text from outside, cut to at most [`MAX_TEXT`] bytes.
    fn text(&mut self, name: &'static str, text: &str) {
        let mut end = text.len().min(MAX_TEXT);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.add(name, text[..end].to_owned());
    }

    fn method(&mut self, method: &Method) {
        match method_name(method) {
            Some(name) => self.add("http.request.method", name),
            None => {
                self.add("http.request.method", "_OTHER");
                self.text("http.request.method_original", method.as_str());
            }
        }
    }

    fn status(&mut self, status: Option<StatusCode>) {
        let status = status.map(|status| i64::from(status.as_u16()));
        self.optional("http.response.status_code", status);
    }
}

/// The methods of RFC 9110 and RFC 5789. Others would make the number of names unlimited.
fn method_name(method: &Method) -> Option<&'static str> {
    [
        "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
    ]
    .into_iter()
    .find(|name| *name == method.as_str())
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}

#[cfg(test)]
mod tests {
    use http::Uri;

    use super::*;

    #[test]
    fn an_attempt_has_the_error_that_ended_it_or_its_request() {
        let info = |end| {
            let (uri, id) = (Uri::from_static("/"), HeaderValue::from_static("1"));
            let mut info = StreamInfo::new(Method::GET, uri, Version::HTTP_11, id);
            info.end = end;
            info
        };
        let instance = Instance::builder("a".parse().unwrap(), Host::Ip([192, 0, 2, 1].into()), 80);
        let mut attempt = Attempt {
            id: SpanId::INVALID,
            instance: Arc::new(instance.build().unwrap()),
            began: Duration::ZERO,
            ended: None,
            status: None,
            error: None,
        };
        for (status, end, error) in [
            (Some(200), EndReason::Complete, None),
            (Some(404), EndReason::Complete, Some("404")),
            (Some(500), EndReason::ClientClosed, Some("500")),
            (Some(200), EndReason::ClientClosed, None),
            (
                Some(200),
                EndReason::UpstreamBroken,
                Some("upstream_broken"),
            ),
            (Some(500), EndReason::IdleTimeout, Some("idle_timeout")),
            (
                Some(101),
                EndReason::Local("bad_response"),
                Some("bad_response"),
            ),
            (None, EndReason::ClientClosed, Some("client_closed")),
            (
                None,
                EndReason::Local("response_timeout"),
                Some("response_timeout"),
            ),
        ] {
            attempt.status = status.map(|status| StatusCode::from_u16(status).unwrap());
            let found = attempt_error(&attempt, &info(end));
            assert_eq!(found.as_deref(), error, "{status:?} {end:?}");
        }
        attempt.error = Some("connect_failed");
        let found = attempt_error(&attempt, &info(EndReason::Complete));
        assert_eq!(found.as_deref(), Some("connect_failed"));
    }

    #[test]
    fn a_long_text_is_cut_between_two_characters() {
        let start = "x".repeat(MAX_TEXT - 1);
        for (text, kept) in [
            (format!("{start}y"), MAX_TEXT),
            (format!("{start}yz"), MAX_TEXT),
            (format!("{start}\u{e9}"), MAX_TEXT - 1),
            (format!("{}\u{1f600}z", &start[2..]), MAX_TEXT - 3),
        ] {
            let mut attributes = Attributes::default();
            attributes.text("url.path", &text);
            assert_eq!(attributes.0[0].value, text[..kept].to_owned().into());
        }
    }

    #[test]
    fn versions_are_named_as_opentelemetry_does() {
        for (of_request, name) in [
            (Version::HTTP_10, "1.0"),
            (Version::HTTP_11, "1.1"),
            (Version::HTTP_2, "2"),
        ] {
            assert_eq!(version(of_request), name);
        }
    }
}
