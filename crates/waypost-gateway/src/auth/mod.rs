//! Who may use a route: tokens.

mod jwt;
mod key_set;
mod key_source;
mod ring_provider;

use http::HeaderMap;

pub(crate) use jwt::{Jwt, JwtRules};
pub(crate) use key_source::{KeyLocation, KeySource};

use crate::header_edits::HeaderEdits;
use crate::problem::Problem;

/// What the requests of a route need to be accepted.
#[derive(Debug, Default)]
pub(crate) struct Authentication {
    pub(crate) jwt: Option<Jwt>,
}

/// What is known about the sender of an accepted request.
#[derive(Debug, Default)]
pub(crate) struct Identity {
    /// The changes to the headers that the service gets.
    pub(crate) edits: HeaderEdits,
}

impl Authentication {
    /// Checks the credentials of a request.
    ///
    /// # Errors
    /// If they are missing or not accepted, or that is unknown.
    pub(crate) async fn check(&self, headers: &HeaderMap) -> Result<Identity, Problem> {
        let mut identity = Identity::default();
        if let Some(jwt) = &self.jwt {
            identity.edits.extend(jwt.check(headers).await?);
        }
        Ok(identity)
    }
}
