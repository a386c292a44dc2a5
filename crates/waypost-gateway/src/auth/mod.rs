//! Authentication and authorisation of requests, by API keys, tokens, or another service.

mod api_keys;
mod external;
mod followed_file;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
mod jwt;
mod key_set;
mod key_source;
mod ring_provider;

use std::sync::Arc;

use http::{HeaderMap, Uri};

pub(crate) use api_keys::{ApiKeyCheck, ApiKeySource, ApiKeys, read as read_api_keys};
pub(crate) use external::{AuthorisationService, ClientRequest, Decision, ExternalAuth};
pub(crate) use jwt::{Jwt, JwtRules};
pub(crate) use key_source::{KeyLocation, KeySource};

use crate::header_edits::HeaderEdits;
use crate::problem::Problem;

/// The checks that a request of a route must pass, all of them, to be accepted.
#[derive(Debug, Default)]
pub(crate) struct Authentication {
    pub(crate) api_keys: Option<ApiKeyCheck>,
    pub(crate) jwt: Option<Jwt>,
}

/// What is known about the sender of an accepted request.
#[derive(Debug, Default)]
pub(crate) struct Identity {
    /// The name of the API key.
    pub(crate) key: Option<Arc<str>>,
    /// The changes to the headers that the service gets.
    pub(crate) edits: HeaderEdits,
    /// The target of the request, if it held a key that the service must not get.
    pub(crate) uri: Option<Uri>,
}

impl Authentication {
    /// Checks the credentials of a request.
    ///
    /// # Errors
    /// If they are missing or not accepted, or can't be checked.
    pub(crate) async fn check(&self, headers: &HeaderMap, uri: &Uri) -> Result<Identity, Problem> {
        let mut identity = Identity::default();
        if let Some(keys) = &self.api_keys {
            let accepted = keys.check(headers, uri)?;
            identity.key = Some(accepted.name);
            identity.uri = accepted.uri;
            identity.edits.remove.push(keys.header.clone());
        }
        if let Some(jwt) = &self.jwt {
            identity.edits.extend(jwt.check(headers).await?);
        }
        Ok(identity)
    }
}
