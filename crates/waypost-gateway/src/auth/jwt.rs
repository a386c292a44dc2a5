//! Validates JSON Web Tokens (RFC 7519, RFC 8725).

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde_json::{Map, Value};

use super::key_set::KeySet;
use super::key_source::KeySource;
use super::ring_provider;
use crate::header_edits::HeaderEdits;
use crate::problem::Problem;

/// What a token needs to be accepted.
#[derive(Debug)]
pub(crate) struct JwtRules {
    /// The accepted issuers; empty for any.
    pub(crate) issuers: Vec<String>,
    /// The accepted audiences, at least one of which the token must name; empty for any.
    pub(crate) audiences: Vec<String>,
    pub(crate) algorithms: Vec<Algorithm>,
    /// The tolerance for differences between clocks, in seconds.
    pub(crate) leeway: u64,
    /// The header with the token. In `Authorization` it follows `Bearer`.
    pub(crate) header: HeaderName,
    /// Claims that a token must contain, each with its accepted values; empty for any value.
    pub(crate) require: BTreeMap<String, Vec<String>>,
    /// Claims that are sent to the service, each in a header.
    pub(crate) forward_claims: Vec<(String, HeaderName)>,
    /// Whether the service gets the token.
    pub(crate) forwards_token: bool,
}

/// The validation of a route's tokens.
#[derive(Debug)]
pub(crate) struct Jwt {
    rules: JwtRules,
    validation: Validation,
    keys: Arc<KeySource>,
}

type Claims = Map<String, Value>;

/// Why a signature was not verified.
enum Unverified {
    /// None of the known keys fits; a newer one may.
    NoKey,
    Refused(Problem),
}

impl Jwt {
    pub(crate) fn new(rules: JwtRules, keys: Arc<KeySource>) -> Self {
        ring_provider::install();
        let mut validation = Validation::default();
        let mut required = vec!["exp"];
        validation.leeway = rules.leeway;
        validation.validate_nbf = true;
        validation.validate_aud = !rules.audiences.is_empty();
        if !rules.audiences.is_empty() {
            validation.set_audience(&rules.audiences);
            required.push("aud");
        }
        if !rules.issuers.is_empty() {
            validation.set_issuer(&rules.issuers);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        Self {
            rules,
            validation,
            keys,
        }
    }

    /// Checks the token of a request, and returns the changes to the headers that the service gets.
    ///
    /// # Errors
    /// A 401 if there is no valid token, a 403 if a claim is not as required, or a 503 if there are no keys.
    pub(super) async fn check(&self, headers: &HeaderMap) -> Result<HeaderEdits, Problem> {
        let token = self.token(headers)?;
        let keys = self.keys.keys().await.map_err(|error| {
            let detail = "the keys for tokens are unknown at the moment";
            let status = StatusCode::SERVICE_UNAVAILABLE;
            Problem::new(status, "token_keys_unavailable", detail)
                .internal_detail(format!("the keys for tokens are unknown: {error}"))
        })?;
        let claims = match self.verify(token, &keys) {
            Err(Unverified::NoKey) => match self.keys.newer(&keys).await {
                Some(newer) => self.verify(token, &newer),
                None => Err(Unverified::NoKey),
            },
            verified => verified,
        };
        let claims = claims.map_err(|unverified| match unverified {
            Unverified::NoKey => refused("none of the issuer's keys fits the token"),
            Unverified::Refused(problem) => problem,
        })?;
        self.check_required(&claims)?;
        self.edits(&claims)
    }

    fn token<'a>(&self, headers: &'a HeaderMap) -> Result<&'a str, Problem> {
        let mut values = headers.get_all(&self.rules.header).iter();
        let value = match (values.next(), values.next()) {
            (None, _) => return Err(self.missing()),
            (Some(value), None) => value,
            (Some(_), Some(_)) => return Err(refused("the header with the token is repeated")),
        };
        let value = value.to_str().map_err(|_| refused("it is not text"))?;
        if self.rules.header != header::AUTHORIZATION {
            return Ok(value.trim());
        }
        match value.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim()),
            _ => Err(self.missing()),
        }
    }

    /// If there was no token, the challenge names no error (RFC 6750, section 3.1).
    fn missing(&self) -> Problem {
        let form = if self.rules.header == header::AUTHORIZATION {
            "Authorization: Bearer TOKEN".to_owned()
        } else {
            format!("{}: TOKEN", self.rules.header)
        };
        let detail = format!("the request needs a token: {form}");
        Problem::new(StatusCode::UNAUTHORIZED, "token_missing", detail).challenge("Bearer")
    }

    fn verify(&self, token: &str, keys: &KeySet) -> Result<Claims, Unverified> {
        let invalid = |why: &str| Unverified::Refused(refused(why));
        // The library doesn't support the algorithm "none".
        let head =
            decode_header(token).map_err(|_| invalid("it is not a signed JSON Web Token"))?;
        if !self.rules.algorithms.contains(&head.alg) {
            return Err(invalid(&format!(
                "its algorithm {:?} is not allowed",
                head.alg
            )));
        }
        if head.crit.is_some() {
            return Err(invalid("it uses critical extensions, which are not known"));
        }
        let mut validation = self.validation.clone();
        validation.algorithms = vec![head.alg];
        let mut problem = Unverified::NoKey;
        for key in keys.candidates(head.alg, head.kid.as_deref()) {
            match decode::<Claims>(token, key, &validation) {
                Ok(decoded) => return Ok(decoded.claims),
                Err(error) => match error.kind() {
                    // A token without a key id may have been signed with another key.
                    ErrorKind::InvalidSignature => problem = invalid("its signature is wrong"),
                    kind => return Err(invalid(&explain(kind))),
                },
            }
        }
        Err(problem)
    }

    fn check_required(&self, claims: &Claims) -> Result<(), Problem> {
        for (name, accepted) in &self.rules.require {
            let value = claims.get(name);
            let holds = match value {
                None | Some(Value::Null) => false,
                Some(_) if accepted.is_empty() => true,
                Some(value) => values(name, value).iter().any(|one| accepted.contains(one)),
            };
            if !holds {
                let detail = match accepted.as_slice() {
                    [] => format!("the token has no claim {name:?}"),
                    _ => format!("the token's claim {name:?} has none of the required values"),
                };
                let challenge = "Bearer error=\"insufficient_scope\"";
                return Err(Problem::new(StatusCode::FORBIDDEN, "claim_missing", detail)
                    .challenge(challenge));
            }
        }
        Ok(())
    }

    /// A client's own headers of these names are removed, even if the token lacks the claim.
    fn edits(&self, claims: &Claims) -> Result<HeaderEdits, Problem> {
        let rules = &self.rules;
        let mut edits = HeaderEdits::default();
        if !rules.forwards_token {
            edits.remove.push(rules.header.clone());
        }
        for (claim, name) in &rules.forward_claims {
            edits.remove.push(name.clone());
            let text = match claims.get(claim) {
                None | Some(Value::Null) => continue,
                Some(Value::String(text)) => text.clone(),
                Some(value @ Value::Array(_)) => values(claim, value).join(","),
                Some(value) => value.to_string(),
            };
            let value = HeaderValue::from_bytes(text.as_bytes()).map_err(|_| {
                refused(&format!(
                    "its claim {claim:?} can't be the value of a header"
                ))
            })?;
            edits.set.push((name.clone(), value));
        }
        Ok(edits)
    }
}

/// The values of a claim: the items of a list, and the words of a scope (RFC 8693, section 4.2).
fn values(name: &str, claim: &Value) -> Vec<String> {
    match claim {
        Value::String(text) if name == "scope" || name == "scp" => {
            text.split_whitespace().map(str::to_owned).collect()
        }
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items
            .iter()
            .map(|item| match item {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            })
            .collect(),
        other => vec![other.to_string()],
    }
}

fn refused(why: &str) -> Problem {
    let detail = format!("the token is not accepted: {why}");
    Problem::new(StatusCode::UNAUTHORIZED, "token_invalid", detail)
        .challenge("Bearer error=\"invalid_token\"")
}

/// The reason that the client is given. It doesn't reveal what would have been accepted.
fn explain(kind: &ErrorKind) -> String {
    match kind {
        ErrorKind::ExpiredSignature => "it has expired".to_owned(),
        ErrorKind::ImmatureSignature => "it is not valid yet".to_owned(),
        ErrorKind::InvalidIssuer => "its issuer is not accepted".to_owned(),
        ErrorKind::InvalidAudience => "it is for another audience".to_owned(),
        ErrorKind::MissingRequiredClaim(name) => format!("its claim {name:?} is missing"),
        ErrorKind::InvalidClaimFormat(name) => format!("its claim {name:?} has the wrong type"),
        _ => "it is malformed".to_owned(),
    }
}
