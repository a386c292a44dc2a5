//! The policies of a route. Each policy is a separate type; [`Policies::admit`] applies all of them to a
//! request.

mod concurrency;
mod cors;
mod header_edits;
mod rate_limit;
mod sticky;

use std::net::IpAddr;

use http::{HeaderMap, Method, Response};
use tokio::sync::OwnedSemaphorePermit;

pub(crate) use concurrency::Concurrency;
pub(crate) use cors::Cors;
pub(crate) use header_edits::HeaderEdits;
pub(crate) use rate_limit::{RateKey, RateLimit};
pub(crate) use sticky::{Sticky, StickyKey};

use crate::problem::Problem;
use crate::response_body::ResponseBody;

/// The policies of one route.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    pub(crate) rate_limit: Option<RateLimit>,
    pub(crate) concurrency: Option<Concurrency>,
    pub(crate) cors: Option<Cors>,
    pub(crate) request_headers: HeaderEdits,
    pub(crate) response_headers: HeaderEdits,
    pub(crate) sticky: Option<Sticky>,
}

/// The result of applying the policies to a request.
pub(crate) enum Admission {
    /// The request may be forwarded. The permit is held until it ends.
    Forward(Option<OwnedSemaphorePermit>),
    /// The gateway itself responds.
    Respond(Response<ResponseBody>),
}

impl Policies {
    /// Checks a request from `client`. Waits if requests may wait for others to end.
    ///
    /// # Errors
    /// If the request exceeds a limit.
    pub(crate) async fn admit(
        &self,
        method: &Method,
        headers: &HeaderMap,
        client: IpAddr,
    ) -> Result<Admission, Problem> {
        // Preflights have no credentials, so none must be required, and they don't count for limits.
        if let Some(cors) = &self.cors
            && let Some(response) = cors.preflight(method, headers)
        {
            return Ok(Admission::Respond(response));
        }
        if let Some(limit) = &self.rate_limit {
            limit.check(headers, client)?;
        }
        match &self.concurrency {
            Some(concurrency) => Box::pin(concurrency.enter()).await.map(Some),
            None => Ok(None),
        }
        .map(Admission::Forward)
    }

    /// Changes the headers of a response, including errors, so that web pages can read them.
    pub(crate) fn edit_response(&self, request_origin: Option<&str>, headers: &mut HeaderMap) {
        if let (Some(cors), Some(origin)) = (&self.cors, request_origin) {
            cors.allow(origin, headers);
        }
        self.response_headers.apply(headers);
    }
}
