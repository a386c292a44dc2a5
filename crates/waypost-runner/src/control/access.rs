//! Access control of the API for browsers.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};

use super::error::ApiError;

/// The header with the token of a session.
pub const TOKEN_HEADER: &str = "x-waypost-token";

/// The rules for browsers:
///
/// - The `Host` must be `localhost` or a loopback address, which prevents DNS rebinding: the name of
///   another site that resolves to this machine is refused.
/// - An `Origin` must have the same host and port.
/// - Requests that change something or read the environment of a service must have the token of this
///   session in the header `X-Waypost-Token`.
///
/// Any other request gets a 403.
#[derive(Clone, Debug)]
pub struct BrowserAccess(Arc<str>);

impl BrowserAccess {
    /// `token` is a secret of this session. It is part of the link to the dashboard that the user gets.
    pub fn new(token: &str) -> Self {
        Self(token.into())
    }

    pub(super) fn protect(self, router: axum::Router) -> axum::Router {
        router.layer(from_fn_with_state(self, check))
    }

    /// # Errors
    /// Why the request is refused.
    fn check(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<(), &'static str> {
        let host = authority(headers, header::HOST).ok_or("there is no valid Host header")?;
        if !is_local(&host) {
            return Err(
                "the Host header doesn't name this machine; open the dashboard at localhost",
            );
        }
        if let Some(origin) = headers.get(header::ORIGIN) {
            let origin = origin
                .to_str()
                .ok()
                .and_then(|origin| origin.split_once("://"));
            let is_same = origin.is_some_and(|(_, authority)| authority == host.as_str());
            if !is_same {
                return Err("the request comes from a page of another site");
            }
        }
        let is_harmless =
            matches!(*method, Method::GET | Method::HEAD) && !path.ends_with("/environment");
        let token = headers.get(TOKEN_HEADER).map(|token| token.as_bytes());
        if is_harmless || token.is_some_and(|token| is_equal(token, self.0.as_bytes())) {
            Ok(())
        } else {
            Err(
                "the token of this session is missing or wrong; open the link that `waypost up` printed",
            )
        }
    }
}

async fn check(State(access): State<BrowserAccess>, request: Request, next: Next) -> Response {
    match access.check(request.method(), request.uri().path(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(reason) => ApiError::new(StatusCode::FORBIDDEN, reason).into_response(),
    }
}

fn authority(headers: &HeaderMap, name: header::HeaderName) -> Option<Authority> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

fn is_local(authority: &Authority) -> bool {
    let host = authority.host().trim_matches(['[', ']']);
    let is_loopback = |ip: IpAddr| ip.is_loopback();
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(is_loopback)
}

/// Compares in constant time, so that the duration doesn't reveal how many bytes are equal.
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .fold(0, |differences, (a, b)| differences | (a ^ b))
            == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_and_the_same_origin_with_the_token_may_change_something() {
        let access = BrowserAccess::new("secret");
        let local = ("host", "localhost:3000");
        let token = ("x-waypost-token", "secret");
        for (method, path, headers, allowed) in [
            ("GET", "/api/stack", &[local][..], true),
            ("GET", "/api/stack", &[("host", "127.0.0.1:3000")], true),
            ("GET", "/api/stack", &[("host", "[::1]:3000")], true),
            ("GET", "/api/stack", &[("host", "evil.example:3000")], false),
            ("GET", "/api/stack", &[], false),
            ("GET", "/api/services/a/environment", &[local], false),
            ("GET", "/api/services/a/environment", &[local, token], true),
            ("POST", "/api/down", &[local], false),
            (
                "POST",
                "/api/down",
                &[local, ("x-waypost-token", "secreT")],
                false,
            ),
            ("POST", "/api/down", &[local, token], true),
            (
                "POST",
                "/api/down",
                &[local, token, ("origin", "http://localhost:3000")],
                true,
            ),
            (
                "POST",
                "/api/down",
                &[local, token, ("origin", "http://localhost:9999")],
                false,
            ),
            ("GET", "/api/stack", &[local, ("origin", "null")], false),
            ("HEAD", "/api/stack", &[local], true),
            ("PUT", "/api/stack", &[local], false),
            ("GET", "/api/stack", &[("host", "LOCALHOST")], true),
            ("GET", "/api/stack", &[("host", "127.8.9.1")], true),
            ("GET", "/api/stack", &[("host", "localhost.example")], false),
            ("GET", "/api/stack", &[("host", "10.0.0.1:3000")], false),
            ("GET", "/api/stack", &[("host", "a b")], false),
            (
                "POST",
                "/api/down",
                &[local, ("x-waypost-token", "")],
                false,
            ),
            (
                "POST",
                "/api/down",
                &[local, ("x-waypost-token", "secre")],
                false,
            ),
            (
                "POST",
                "/api/down",
                &[local, ("x-waypost-token", "secrets")],
                false,
            ),
        ] {
            let method = method.parse().unwrap();
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.insert(*name, value.parse().unwrap());
            }
            let result = access.check(&method, path, &map);
            assert_eq!(
                result.is_ok(),
                allowed,
                "{method} {path} {headers:?}: {result:?}"
            );
        }
    }
}
