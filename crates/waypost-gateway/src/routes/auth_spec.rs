//! The part of a routes file that says who may use a route.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use http::{HeaderName, header};
use jsonwebtoken::{Algorithm, AlgorithmFamily};
use serde::{Deserialize, Deserializer};
use tokio::runtime::Handle;

use super::values::{Checked, duration, one_or_more};
use crate::auth::{Authentication, Jwt, JwtRules, KeyLocation, KeySource};
use crate::upstream::{ClientTls, HttpUrl};

/// How often keys are requested, by default.
const REFRESH: Duration = Duration::from_secs(5 * 60);
const MIN_REFRESH: Duration = Duration::from_secs(1);
/// The tolerance for other clocks, by default (as Envoy's and Spring Security's).
const LEEWAY: Duration = Duration::from_secs(60);
const MAX_LEEWAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The algorithms that are allowed by default. The key decides which of them it fits.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// Who may use a route.
#[derive(Debug, Default)]
pub(crate) struct AuthSpec {
    pub(crate) jwt: Option<JwtSpec>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JwtSpec {
    #[serde(default, deserialize_with = "one_or_more")]
    issuer: Vec<String>,
    #[serde(default)]
    audiences: Vec<String>,
    jwks_file: Option<PathBuf>,
    #[serde(default, deserialize_with = "url")]
    jwks_url: Option<HttpUrl>,
    #[serde(default, deserialize_with = "duration")]
    refresh: Option<Duration>,
    #[serde(default, deserialize_with = "algorithms")]
    algorithms: Vec<Algorithm>,
    #[serde(default, deserialize_with = "duration")]
    leeway: Option<Duration>,
    header: Option<Checked<HeaderName>>,
    #[serde(default)]
    require: BTreeMap<String, OneOrMore>,
    #[serde(default)]
    forward_claims: BTreeMap<String, Checked<HeaderName>>,
    #[serde(default = "yes")]
    forward_token: bool,
}

#[derive(Debug, Deserialize)]
#[serde(transparent)]
struct OneOrMore(#[serde(deserialize_with = "one_or_more")] Vec<String>);

/// What routes with authentication share, and keep when the routes file changes.
pub(crate) struct AuthResources {
    runtime: Handle,
    tls: Arc<ClientTls>,
    sources: Mutex<Vec<Weak<KeySource>>>,
}

impl AuthSpec {
    /// Checks what can be checked without the files that are named.
    ///
    /// # Errors
    /// Which keys contradict each other.
    pub(super) fn validate(&self) -> Result<(), String> {
        self.jwt.as_ref().map_or(Ok(()), JwtSpec::validate)
    }

    /// Reads the files that are named, relative to `folder`.
    ///
    /// # Errors
    /// What is wrong with which file.
    pub(super) fn check_files(&self, folder: &Path) -> Result<(), String> {
        match &self.jwt {
            Some(jwt) => jwt
                .location(folder)
                .check()
                .map_err(|e| format!("`jwt`: {e}")),
            None => Ok(()),
        }
    }

    /// # Errors
    /// As [`check_files`](Self::check_files).
    pub(super) fn build(
        self,
        folder: &Path,
        resources: &AuthResources,
    ) -> Result<Option<Box<Authentication>>, String> {
        let Some(jwt) = self.jwt else {
            return Ok(None);
        };
        let source = resources.source(jwt.location(folder));
        let jwt = Jwt::new(jwt.rules(), source.map_err(|e| format!("`jwt`: {e}"))?);
        Ok(Some(Box::new(Authentication { jwt: Some(jwt) })))
    }
}

impl JwtSpec {
    fn validate(&self) -> Result<(), String> {
        match (&self.jwks_file, &self.jwks_url) {
            (None, None) => return Err("`jwt` needs `jwks_url` or `jwks_file`".into()),
            (Some(_), Some(_)) => {
                return Err("`jwt.jwks_url` and `jwt.jwks_file` exclude each other".into());
            }
            (Some(_), None) if self.refresh.is_some() => {
                return Err("`jwt.refresh` is for `jwks_url`; a file is read every second".into());
            }
            _ => {}
        }
        if self.refresh.is_some_and(|refresh| refresh < MIN_REFRESH) {
            return Err(format!("`jwt.refresh` must be at least {MIN_REFRESH:?}"));
        }
        if self.leeway.is_some_and(|leeway| leeway > MAX_LEEWAY) {
            return Err("`jwt.leeway` must be at most 24h".into());
        }
        Ok(())
    }

    fn location(&self, folder: &Path) -> KeyLocation {
        match (&self.jwks_url, &self.jwks_file) {
            (Some(url), _) => KeyLocation::Url(url.clone(), self.refresh.unwrap_or(REFRESH)),
            (None, file) => KeyLocation::File(folder.join(file.as_deref().unwrap_or(folder))),
        }
    }

    fn rules(self) -> JwtRules {
        let algorithms = if self.algorithms.is_empty() {
            ALGORITHMS.to_vec()
        } else {
            self.algorithms
        };
        JwtRules {
            issuers: self.issuer,
            audiences: self.audiences,
            algorithms,
            leeway: self.leeway.unwrap_or(LEEWAY).as_secs(),
            header: self.header.map_or(header::AUTHORIZATION, |name| name.0),
            require: self
                .require
                .into_iter()
                .map(|(claim, values)| (claim, values.0))
                .collect(),
            forward_claims: self
                .forward_claims
                .into_iter()
                .map(|(claim, name)| (claim, name.0))
                .collect(),
            forwards_token: self.forward_token,
        }
    }
}

impl AuthResources {
    pub(super) fn new(runtime: Handle, tls: Arc<ClientTls>) -> Self {
        Self {
            runtime,
            tls,
            sources: Mutex::default(),
        }
    }

    /// The keys of a location, which routes share.
    fn source(&self, location: KeyLocation) -> Result<Arc<KeySource>, String> {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.retain(|source| source.strong_count() > 0);
        let mut known = sources.iter().filter_map(Weak::upgrade);
        if let Some(source) = known.find(|source| *source.location() == location) {
            return Ok(source);
        }
        let source = KeySource::start(location, &self.runtime, &self.tls)?;
        sources.push(Arc::downgrade(&source));
        Ok(source)
    }
}

fn yes() -> bool {
    true
}

fn url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<HttpUrl>, D::Error> {
    let text = String::deserialize(deserializer)?;
    HttpUrl::parse(&text)
        .map(Some)
        .map_err(serde::de::Error::custom)
}

fn algorithms<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Algorithm>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    let parsed = names.iter().map(|name| {
        let algorithm: Option<Algorithm> = name.parse().ok();
        algorithm
            .filter(|algorithm| algorithm.family() != AlgorithmFamily::Hmac)
            .ok_or_else(|| {
                let known = ALGORITHMS.map(|algorithm| format!("{algorithm:?}"));
                format!(
                    "{name:?} is not an algorithm with public keys; there are {}",
                    known.join(", ")
                )
            })
    });
    parsed
        .collect::<Result<_, _>>()
        .map_err(serde::de::Error::custom)
}
