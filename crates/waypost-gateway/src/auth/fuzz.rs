//! API keys and tokens, as functions of bytes for [`crate::fuzz`].

use std::collections::BTreeMap;

use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use jsonwebtoken::Algorithm;

use super::api_keys::{ApiKeyCheck, ApiKeySource, ApiKeys};
use super::jwt::{Jwt, JwtRules};
use super::key_set::KeySet;
use super::key_source::KeySource;

/// 50 years, so that the token of RFC 7515, which expired in 2011, is accepted.
const LEEWAY: u64 = 50 * 365 * 24 * 60 * 60;

/// The key of RFC 7515, appendix A.3.
const KEYS: &[u8] = br#"{"keys": [{"kty": "EC", "crv": "P-256",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

/// Whether a key is accepted. The query that is passed on contains no key.
pub(crate) fn accepts_api_key(query: &str, file: &str) -> bool {
    let keys = match ApiKeys::parse(file) {
        Ok(keys) => keys,
        Err(error) => {
            assert!(error.starts_with("line ") || error.starts_with("it contains no key"));
            return false;
        }
    };
    let check = ApiKeyCheck {
        header: HeaderName::from_static("x-api-key"),
        query: Some("key".to_owned()),
        source: ApiKeySource::fixed(keys),
    };
    let Ok(uri) = format!("/a?{query}").parse::<Uri>() else {
        return false;
    };
    let Ok(accepted) = check.check(&HeaderMap::new(), &uri) else {
        return false;
    };
    let passed_on = accepted.uri.unwrap_or_default();
    assert_eq!(passed_on.path(), "/a");
    let again = check.check(&HeaderMap::new(), &passed_on);
    assert!(again.is_err(), "{passed_on}");
    true
}

/// Whether the token is accepted with the key of RFC 7515. Such a token must be that of the RFC.
pub(crate) fn accepts_token(token: &str, keys: &[u8]) -> bool {
    if let Ok(keys) = KeySet::parse(keys) {
        check_token(token, keys);
    }
    let Ok(keys) = KeySet::parse(KEYS) else {
        return false;
    };
    let issuer = check_token(token, keys);
    assert!(issuer.as_deref().is_none_or(|issuer| issuer == "joe"));
    issuer.is_some()
}

/// The issuer of a token, if it is accepted.
fn check_token(token: &str, keys: KeySet) -> Option<String> {
    let rules = JwtRules {
        issuers: Vec::new(),
        audiences: Vec::new(),
        algorithms: vec![Algorithm::ES256, Algorithm::EdDSA, Algorithm::RS256],
        leeway: LEEWAY,
        header: header::AUTHORIZATION,
        require: BTreeMap::new(),
        forward_claims: vec![("iss".to_owned(), HeaderName::from_static("x-issuer"))],
        forwards_token: false,
    };
    let mut headers = HeaderMap::new();
    let value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    headers.insert(header::AUTHORIZATION, value);
    let jwt = Jwt::new(rules, KeySource::fixed(keys));
    let edits = jwt.check(&headers).now_or_never()?.ok()?;
    let issuer = edits.set.first().and_then(|(_, value)| value.to_str().ok());
    Some(issuer.unwrap_or_default().to_owned())
}
