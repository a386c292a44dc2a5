//! The policies of a route. Each policy is a separate type; [`Policies::admit`] applies all of them to a
//! request.

mod concurrency;
mod cors;
mod rate_limit;
mod sticky;

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, Method, Response, Uri};
use tokio::sync::OwnedSemaphorePermit;

pub(crate) use concurrency::Concurrency;
pub(crate) use cors::Cors;
pub(crate) use rate_limit::{RateKey, RateLimit};
pub(crate) use sticky::{Sticky, StickyKey};

use crate::auth::{Authentication, Identity};
use crate::header_edits::HeaderEdits;
use crate::problem::Problem;
use crate::response_body::ResponseBody;

/// The policies of one route.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    pub(crate) authentication: Option<Box<Authentication>>,
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
    Forward(Option<OwnedSemaphorePermit>, Option<Arc<Identity>>),
    /// The gateway itself responds.
    Respond(Response<ResponseBody>),
}

impl Policies {
    /// Checks a request from `client`. Waits if requests may wait for others to end.
    ///
    /// # Errors
    /// If the request is not authenticated, or exceeds a limit.
    pub(crate) async fn admit(
        &self,
        method: &Method,
        headers: &HeaderMap,
        uri: &Uri,
        client: IpAddr,
    ) -> Result<Admission, Problem> {
        // Preflights have no credentials, so none must be required, and they don't count for limits.
        if let Some(cors) = &self.cors
            && let Some(response) = cors.preflight(method, headers)
        {
            return Ok(Admission::Respond(response));
        }
        let identity = match &self.authentication {
            Some(authentication) => Some(Box::pin(authentication.check(headers, uri)).await?),
            None => None,
        };
        if let Some(limit) = &self.rate_limit {
            let key = identity
                .as_ref()
                .and_then(|identity| identity.key.as_deref());
            limit.check(headers, client, key)?;
        }
        let permit = match &self.concurrency {
            Some(concurrency) => Some(Box::pin(concurrency.enter()).await?),
            None => None,
        };
        Ok(Admission::Forward(permit, identity.map(Arc::new)))
    }

    /// Changes the headers of a response, including errors, so that web pages can read them.
    pub(crate) fn edit_response(&self, request_origin: Option<&str>, headers: &mut HeaderMap) {
        if let (Some(cors), Some(origin)) = (&self.cors, request_origin) {
            cors.allow(origin, headers);
        }
        self.response_headers.apply(headers);
    }
}
