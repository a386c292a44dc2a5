//! The part of a routes file that configures authentication and authorisation.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderName, header};
use jsonwebtoken::{Algorithm, AlgorithmFamily};
use serde::{Deserialize, Deserializer};
use tokio::runtime::Handle;
use waypost::{Environment, ServiceName};

use super::values::{Checked, duration, one_or_more};
use crate::auth::{
    ApiKeyCheck, ApiKeySource, ApiKeys, Authentication, AuthorisationService, ExternalAuth, Jwt,
    JwtRules, KeyLocation, KeySource, read_api_keys,
};
use crate::service::Service;
use crate::upstream::{ClientTls, HttpUrl};

/// The default interval between requests for keys.
const REFRESH: Duration = Duration::from_secs(5 * 60);
const MIN_REFRESH: Duration = Duration::from_secs(1);
/// The default tolerance for differences between clocks, as in Envoy and Spring Security.
const LEEWAY: Duration = Duration::from_secs(60);
const MAX_LEEWAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The default time limit for the decision of another service.
const EXTERNAL_TIMEOUT: Duration = Duration::from_secs(1);
/// The algorithms that are allowed by default. The kind of a key determines which of them apply to it.
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

/// The authentication and authorisation of a route, as configured.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct AuthSpec {
    pub(crate) jwt: Option<JwtSpec>,
    pub(crate) api_keys: Option<ApiKeysSpec>,
    pub(crate) external: Option<ExternalAuthSpec>,
}

/// The authentication and authorisation of a route, ready to be checked.
#[derive(Debug, Default)]
pub(crate) struct Access {
    pub(crate) authentication: Option<Box<Authentication>>,
    pub(crate) external: Option<Box<ExternalAuth>>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApiKeysSpec {
    header: Option<Checked<HeaderName>>,
    query: Option<String>,
    file: Option<PathBuf>,
    env: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
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

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExternalAuthSpec {
    service: Option<ServiceName>,
    path: Option<String>,
    #[serde(default, deserialize_with = "url")]
    url: Option<HttpUrl>,
    #[serde(default, deserialize_with = "duration")]
    timeout: Option<Duration>,
    send_headers: Option<Vec<Checked<HeaderName>>>,
    #[serde(default)]
    copy_headers: Vec<Checked<HeaderName>>,
    #[serde(default)]
    fail_open: bool,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(transparent)]
struct OneOrMore(#[serde(deserialize_with = "one_or_more")] Vec<String>);

/// The folder and the environment in which a routes file's files and variables are looked up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surroundings<'a> {
    /// The folder of the routes file.
    pub(super) folder: &'a Path,
    pub(super) environment: &'a Environment,
}

/// The state that routes with authentication share, and that is kept when the routes file changes.
pub(crate) struct AuthResources {
    runtime: Handle,
    tls: Arc<ClientTls>,
    sources: Mutex<Vec<Weak<KeySource>>>,
}

impl AuthSpec {
    /// Checks what can be checked without the files that are named.
    ///
    /// # Errors
    /// The keys that contradict each other.
    pub(super) fn validate(&self) -> Result<(), String> {
        self.jwt.as_ref().map_or(Ok(()), JwtSpec::validate)?;
        self.api_keys
            .as_ref()
            .map_or(Ok(()), ApiKeysSpec::validate)?;
        let external = self.external.as_ref();
        external.map_or(Ok(()), ExternalAuthSpec::validate)
    }

    /// Reads the files and variables that are named.
    ///
    /// # Errors
    /// The file or variable, and what is wrong with it.
    pub(super) fn check_sources(&self, around: Surroundings<'_>) -> Result<(), String> {
        if let Some(keys) = &self.api_keys {
            let checked = match keys.path(around) {
                Some(path) => read_api_keys(&path).map(drop),
                None => keys.variable_keys(around).map(drop),
            };
            checked.map_err(|error| format!("`api_keys`: {error}"))?;
        }
        if let Some(jwt) = &self.jwt {
            let checked = jwt.location(around).check();
            checked.map_err(|error| format!("`jwt`: {error}"))?;
        }
        Ok(())
    }

    /// # Errors
    /// The same as for [`check_sources`](Self::check_sources).
    pub(super) fn build(
        self,
        around: Surroundings<'_>,
        resources: &AuthResources,
        service: impl FnOnce(&ServiceName) -> Arc<Service>,
    ) -> Result<Access, String> {
        let mut access = Access::default();
        if self.jwt.is_some() || self.api_keys.is_some() {
            let mut authentication = Authentication::default();
            if let Some(keys) = self.api_keys {
                let check = keys.build(around, resources);
                authentication.api_keys = Some(check.map_err(|e| format!("`api_keys`: {e}"))?);
            }
            if let Some(jwt) = self.jwt {
                let source = resources.source(jwt.location(around));
                let source = source.map_err(|error| format!("`jwt`: {error}"))?;
                authentication.jwt = Some(Jwt::new(jwt.rules(), source));
            }
            access.authentication = Some(Box::new(authentication));
        }
        if let Some(external) = self.external {
            access.external = Some(Box::new(external.build(service)?));
        }
        Ok(access)
    }
}

impl ExternalAuthSpec {
    fn validate(&self) -> Result<(), String> {
        match (&self.service, &self.url) {
            (None, None) => return Err("`external_auth` needs `service` or `url`".into()),
            (Some(_), Some(_)) => {
                return Err(
                    "`external_auth.service` and `external_auth.url` exclude each other".into(),
                );
            }
            (None, Some(_)) if self.path.is_some() => {
                return Err("`external_auth.path` is for `service`; a `url` has its own".into());
            }
            _ => {}
        }
        if self.timeout == Some(Duration::ZERO) {
            return Err("`external_auth.timeout` must not be 0".into());
        }
        self.target().map(drop)
    }

    fn target(&self) -> Result<PathAndQuery, String> {
        let path = self.path.as_deref().unwrap_or("/");
        let target: Option<PathAndQuery> = path.parse().ok();
        let target = target.filter(|_| path.starts_with('/'));
        target.ok_or_else(|| format!("`external_auth.path`: {path:?} must begin with a slash"))
    }

    fn build(
        self,
        service: impl FnOnce(&ServiceName) -> Arc<Service>,
    ) -> Result<ExternalAuth, String> {
        let target = self.target()?;
        let names =
            |names: Vec<Checked<HeaderName>>| names.into_iter().map(|name| name.0).collect();
        let service = match (&self.service, self.url) {
            (Some(name), _) => AuthorisationService::Service(service(name), target),
            (None, Some(url)) => AuthorisationService::Url(url),
            (None, None) => return Err("`external_auth` needs `service` or `url`".into()),
        };
        Ok(ExternalAuth {
            service,
            timeout: self.timeout.unwrap_or(EXTERNAL_TIMEOUT),
            send_headers: match self.send_headers {
                Some(sent) => names(sent),
                None => vec![header::AUTHORIZATION, header::COOKIE],
            },
            copy_headers: names(self.copy_headers),
            fail_open: self.fail_open,
            is_failing: AtomicBool::new(false),
        })
    }
}

impl ApiKeysSpec {
    fn validate(&self) -> Result<(), String> {
        match (&self.file, &self.env) {
            (None, None) => Err("`api_keys` needs `file` or `env`".into()),
            (Some(_), Some(_)) => {
                Err("`api_keys.file` and `api_keys.env` exclude each other".into())
            }
            _ if self.query.as_deref() == Some("") => Err("`api_keys.query` is empty".into()),
            _ => Ok(()),
        }
    }

    fn path(&self, around: Surroundings<'_>) -> Option<PathBuf> {
        self.file.as_ref().map(|file| around.folder.join(file))
    }

    fn variable_keys(&self, around: Surroundings<'_>) -> Result<ApiKeys, String> {
        let name = self.env.as_deref().unwrap_or_default();
        let value = around.environment.get(name);
        let value = value.ok_or_else(|| format!("the variable {name} is not set"))?;
        ApiKeys::parse(value).map_err(|error| format!("the variable {name}: {error}"))
    }

    fn build(
        self,
        around: Surroundings<'_>,
        resources: &AuthResources,
    ) -> Result<ApiKeyCheck, String> {
        let source = match self.path(around) {
            Some(path) => ApiKeySource::start(path, &resources.runtime)?,
            None => ApiKeySource::fixed(self.variable_keys(around)?),
        };
        Ok(ApiKeyCheck {
            header: self
                .header
                .map_or(HeaderName::from_static("x-api-key"), |name| name.0),
            query: self.query,
            source,
        })
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

    fn location(&self, around: Surroundings<'_>) -> KeyLocation {
        match (&self.jwks_url, &self.jwks_file) {
            (Some(url), _) => KeyLocation::Url(url.clone(), self.refresh.unwrap_or(REFRESH)),
            (None, file) => {
                KeyLocation::File(around.folder.join(file.as_deref().unwrap_or(around.folder)))
            }
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
                    "{name:?} is not an algorithm with public keys; use one of {}",
                    known.join(", ")
                )
            })
    });
    parsed
        .collect::<Result<_, _>>()
        .map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::routes::parse_routes;

    #[test]
    fn settings_at_a_limit_are_allowed_and_beyond_it_refused() {
        for (auth, error) in [
            (
                "jwt: {jwks_url: \"http://a/\", refresh: 1s, leeway: 24h}",
                None,
            ),
            (
                "jwt: {jwks_url: \"http://a/\", refresh: 999ms}",
                Some("at least 1s"),
            ),
            (
                "jwt: {jwks_url: \"http://a/\", leeway: 25h}",
                Some("at most 24h"),
            ),
            (
                "jwt: {jwks_file: a, refresh: 1h}",
                Some("is for `jwks_url`"),
            ),
            ("jwt: {}", Some("jwks_url")),
            ("api_keys: {file: a, query: key}", None),
            ("api_keys: {file: a, query: \"\"}", Some("is empty")),
            ("api_keys: {}", Some("needs `file` or `env`")),
            ("api_keys: {file: a, env: B}", Some("exclude each other")),
        ] {
            let text = format!("routes:\n  - {{service: a, {auth}}}\n");
            let parsed = parse_routes(Path::new("r.yaml"), &text);
            let found = parsed.err().map(|found| found.to_string());
            match (&found, error) {
                (None, None) => {}
                (Some(found), Some(error)) => assert!(found.contains(error), "{auth}: {found}"),
                _ => panic!("{auth}: {found:?}"),
            }
        }
    }
}
