//! The policies of a route. Each policy is a separate type; [`Policies::admit`] applies all of them to a
//! request.

mod compression;
mod concurrency;
mod cors;
mod rate_limit;
mod sticky;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Response};
use tokio::sync::OwnedSemaphorePermit;

pub(crate) use compression::{COMPRESSED_TYPES, CompressionRules};
pub(crate) use concurrency::Concurrency;
pub(crate) use cors::Cors;
pub(crate) use rate_limit::{RateKey, RateLimit};
pub(crate) use sticky::{Sticky, StickyKey};

use crate::auth::{Authentication, ClientRequest, Decision, ExternalAuth, Identity};
use crate::header_edits::HeaderEdits;
use crate::problem::Problem;
use crate::upstream::Upstream;

/// The policies of one route.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    pub(crate) authentication: Option<Box<Authentication>>,
    pub(crate) external_auth: Option<Box<ExternalAuth>>,
    pub(crate) rate_limit: Option<RateLimit>,
    pub(crate) concurrency: Option<Concurrency>,
    pub(crate) cors: Option<Cors>,
    pub(crate) compression: Option<CompressionRules>,
    pub(crate) request_headers: HeaderEdits,
    pub(crate) response_headers: HeaderEdits,
    pub(crate) sticky: Option<Sticky>,
}

/// The result of applying the policies to a request.
pub(crate) enum Admission {
    /// The request may be forwarded. The permit is held until it ends.
    Forward(Option<OwnedSemaphorePermit>, Option<Arc<Identity>>),
    /// The client gets this response, for this reason.
    Respond(Response<Bytes>, &'static str),
}

impl Policies {
    /// Checks a request from `client`. `now` is in milliseconds since the worker started, whose
    /// connections are `upstream`. Waits if requests may wait for others to end.
    ///
    /// # Errors
    /// If the request is not authenticated, or exceeds a limit.
    pub(crate) async fn admit(
        &self,
        request: &ClientRequest<'_>,
        client: IpAddr,
        upstream: &Upstream,
        now: u64,
    ) -> Result<Admission, Problem> {
        let headers = request.headers;
        // Preflights have no credentials, so none must be required, and they don't count for limits.
        if let Some(cors) = &self.cors
            && let Some(response) = cors.preflight(request.method, headers)
        {
            return Ok(Admission::Respond(response, "preflight"));
        }
        let mut identity = match &self.authentication {
            Some(authentication) => {
                Some(Box::pin(authentication.check(headers, request.uri)).await?)
            }
            None => None,
        };
        if let Some(limit) = &self.rate_limit {
            let key = identity
                .as_ref()
                .and_then(|identity| identity.key.as_deref());
            limit.check(headers, client, key)?;
        }
        if let Some(external) = &self.external_auth {
            let uri = identity.as_ref().and_then(|identity| identity.uri.as_ref());
            let request = ClientRequest {
                uri: uri.unwrap_or(request.uri),
                ..*request
            };
            match Box::pin(external.ask(&request, upstream, now)).await? {
                Decision::Allowed(edits) => {
                    identity.get_or_insert_default().edits.extend(edits);
                }
                Decision::Refused(response) => {
                    return Ok(Admission::Respond(response, "external_auth_refused"));
                }
            }
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
