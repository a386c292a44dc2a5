//! The headers of a request to an instance.

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::auth::Identity;
use crate::client::Client;
use crate::routes::Route;
use crate::{forwarded, headers};

/// The headers of one request, for each attempt to send it.
pub(crate) struct OutgoingHeaders<'a> {
    pub(crate) route: &'a Route,
    pub(crate) client: &'a Client,
    /// The authority that the client requested.
    pub(crate) host: Option<&'a HeaderValue>,
    pub(crate) via: &'a HeaderValue,
    pub(crate) request_id: HeaderValue,
    /// The protocol to which the client wants to switch.
    pub(crate) upgrade: Option<HeaderValue>,
    pub(crate) accepts_trailers: bool,
    /// What is known about the sender.
    pub(crate) identity: Option<Arc<Identity>>,
    /// The headers for the next attempt.
    next: Option<HeaderMap>,
    /// The client's headers, if the request may be sent again. For a retry, which is rare, a map is made of them
    /// and the gateway's headers are added again; copying the whole map in advance would cost each request CPU
    /// time.
    original: Option<Vec<(HeaderName, HeaderValue)>>,
}

impl<'a> OutgoingHeaders<'a> {
    pub(crate) fn new(
        route: &'a Route,
        client: &'a Client,
        host: Option<&'a HeaderValue>,
        via: &'a HeaderValue,
        request_id: HeaderValue,
    ) -> Self {
        Self {
            route,
            client,
            host,
            via,
            request_id,
            upgrade: None,
            accepts_trailers: false,
            identity: None,
            next: None,
            original: None,
        }
    }

    /// Takes the client's headers, and replaces those for its connection by those for the connection to
    /// the instance. `may_repeat` determines whether the request may be sent again after it was sent.
    pub(crate) fn prepare(&mut self, mut headers: HeaderMap, may_repeat: bool) {
        self.accepts_trailers = headers::has_token(&headers, &header::TE, "trailers");
        headers::strip_hop_by_hop(&mut headers);
        // hyper sends the client `100 Continue` when the body is first polled.
        if headers::has(&headers, &header::EXPECT) {
            headers.remove(header::EXPECT);
        }
        if may_repeat {
            let all = headers.iter();
            self.original = Some(
                all.map(|(name, value)| (name.clone(), value.clone()))
                    .collect(),
            );
        }
        self.next = Some(self.complete(headers));
    }

    /// The headers for one attempt. Empty if the request must not be sent again.
    pub(crate) fn take(&mut self) -> HeaderMap {
        if let Some(headers) = self.next.take() {
            return headers;
        }
        let mut headers = HeaderMap::new();
        let Some(original) = &self.original else {
            return headers;
        };
        for (name, value) in original {
            headers.append(name, value.clone());
        }
        self.complete(headers)
    }

    /// A copy of the headers for the first attempt.
    pub(crate) fn copy(&self) -> HeaderMap {
        self.next.clone().unwrap_or_default()
    }

    /// Keeps the headers of an attempt that was not sent.
    pub(crate) fn put_back(&mut self, headers: HeaderMap) {
        self.next = Some(headers);
    }

    /// Adds the gateway's headers and the route's.
    fn complete(&self, mut headers: HeaderMap) -> HeaderMap {
        headers.reserve(forwarded::ADDED);
        let forwarding = &self.client.forwarding;
        forwarding.write(&mut headers, self.host, self.route.prefix_value());
        headers::append_via(&mut headers, self.via);
        headers.insert(headers::REQUEST_ID, self.request_id.clone());
        if let Some(identity) = &self.identity {
            identity.edits.remove_lookalikes(&mut headers);
            identity.edits.apply(&mut headers);
        }
        self.route.policies.request_headers.apply(&mut headers);
        if let Some(protocol) = &self.upgrade {
            headers::write_upgrade(&mut headers, protocol.clone());
        } else if self.accepts_trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
            headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
        }
        headers
    }
}
