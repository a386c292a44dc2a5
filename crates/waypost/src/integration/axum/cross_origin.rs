//! Refuses requests that web pages of other sites send through a user's browser.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN, VIA};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};

/// Sent by browsers to secure and local addresses.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Suffixes of names that can't be registered publicly, so no web page is served from one. `.local`
/// includes the names within a Kubernetes cluster.
const PRIVATE_SUFFIXES: [&str; 4] = [".localhost", ".local", ".internal", ".svc"];

/// Protects a service without authentication from the web pages that its users visit.
///
/// A page can make the browser send requests to any address, even one that only the browser can reach.
/// This protection responds with 403 to
///
/// - a request with side effects (any method but `GET`, `HEAD` and `OPTIONS`) from a page of another
///   origin, according to `Sec-Fetch-Site`, or else to `Origin`;
/// - a request to a public host name, unless it is [allowed](Self::allow_host): a page can point its
///   own name at this service, and then its requests have the same origin (DNS rebinding). IP
///   addresses, names without a dot and private names such as `web.localhost` are always allowed. A
///   request with `Via` comes through a proxy and is not checked, because its host is the proxy's.
///
/// Clients that are not browsers are not affected, since they send no `Origin`.
///
/// ```
/// use axum::{Router, routing::post};
/// use waypost::integration::axum::CrossOriginProtection;
///
/// let app = Router::new().route("/orders", post(async || "ordered"));
/// let app = CrossOriginProtection::new().allow_host("shop.example").protect(app);
/// # let _: Router = app;
/// ```
#[derive(Clone, Debug, Default)]
pub struct CrossOriginProtection {
    allowed_hosts: Vec<String>,
}

impl CrossOriginProtection {
    /// Allows no public host names.
    pub fn new() -> Self {
        Self::default()
    }

    /// Allows requests to this host name, without a port.
    #[must_use]
    pub fn allow_host(mut self, name: impl Into<String>) -> Self {
        self.allowed_hosts.push(name.into());
        self
    }

    /// Protects all routes of `app`.
    pub fn protect(self, app: Router) -> Router {
        app.layer(from_fn_with_state(Arc::new(self), check))
    }

    /// Decides about a request; the error says why it is refused.
    fn refuse(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), String> {
        let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        let host = uri
            .authority()
            .map(Authority::as_str)
            .or_else(|| text(&HOST));
        // A page can't set `Via`.
        let is_proxied = headers.contains_key(VIA);
        if let Some(host) = host
            && !is_proxied
            && !self.allows_host(name_of(host))
        {
            return Err(format!(
                "The host {host:?} is not allowed, as protection against DNS rebinding."
            ));
        }
        if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
            return Ok(());
        }
        let from_elsewhere = |what: &str| Err(format!("The request comes from {what}."));
        match (text(&SEC_FETCH_SITE), text(&ORIGIN)) {
            (Some("same-origin" | "none"), _) | (None, None) => Ok(()),
            (Some(_), origin) => from_elsewhere(origin.unwrap_or("a page of another site")),
            (None, Some(origin)) => {
                let forwarded = text(&X_FORWARDED_HOST).filter(|_| is_proxied);
                let mut hosts = [host, forwarded].into_iter().flatten();
                if hosts.any(|host| is_origin_of(origin, host)) {
                    Ok(())
                } else {
                    from_elsewhere(origin)
                }
            }
        }
    }

    fn allows_host(&self, name: &str) -> bool {
        let address = name.trim_start_matches('[').trim_end_matches(']');
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        address.parse::<IpAddr>().is_ok()
            || !name.contains('.')
            || PRIVATE_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
            || self
                .allowed_hosts
                .iter()
                .any(|host| host.eq_ignore_ascii_case(&name))
    }
}

async fn check(
    State(protection): State<Arc<CrossOriginProtection>>,
    request: Request,
    next: Next,
) -> Response {
    match protection.refuse(request.method(), request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(reason) => {
            tracing::debug!(reason, "request of another site refused");
            (StatusCode::FORBIDDEN, reason + "\n").into_response()
        }
    }
}

/// Whether an origin, such as `http://web:8080`, is the one of a host with an optional port.
fn is_origin_of(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else {
        return false;
    };
    let default_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let bare = |authority: &str| {
        let authority = authority.to_ascii_lowercase();
        let bare = authority.strip_suffix(default_port);
        bare.map(str::to_owned).unwrap_or(authority)
    };
    bare(authority) == bare(host)
}

/// A host without its port.
fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::HeaderValue;
    use axum::routing::post;
    use tower::ServiceExt;

    use super::*;

    fn is_allowed(method: &Method, pairs: &[(&'static str, &'static str)]) -> bool {
        let headers = pairs.iter().map(|(name, value)| {
            let name = HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        });
        let protection = CrossOriginProtection::new().allow_host("shop.example");
        let uri = Uri::from_static("/");
        protection.refuse(method, &uri, &headers.collect()).is_ok()
    }

    #[test]
    fn a_host_name_that_a_web_page_can_have_is_refused() {
        for (host, allowed) in [
            ("127.0.0.1:8002", true),
            ("[::1]:8002", true),
            ("localhost:8002", true),
            ("ai-models", true),
            ("ai-models.localhost", true),
            ("ai-models.default.svc.cluster.local:8002", true),
            ("SHOP.example.:8002", true),
            ("evil.example:8002", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example:8002", false),
            ("ai-models:evil.example", false),
        ] {
            assert_eq!(
                is_allowed(&Method::GET, &[("host", host)]),
                allowed,
                "{host}"
            );
        }
        let proxied = [("host", "evil.example"), ("via", "1.1 gateway")];
        assert!(is_allowed(&Method::GET, &proxied));
    }

    #[test]
    fn requests_with_side_effects_of_other_origins_are_refused() {
        const HOST: (&str, &str) = ("host", "localhost:8002");
        for (headers, allowed) in [
            (&[HOST][..], true),
            (&[HOST, ("origin", "http://localhost:8002")], true),
            (&[HOST, ("origin", "https://evil.example")], false),
            (&[HOST, ("origin", "http://localhost:9999")], false),
            (&[HOST, ("origin", "http://localhost")], false),
            (&[HOST, ("origin", "null")], false),
            (&[HOST, ("sec-fetch-site", "same-origin")], true),
            (&[HOST, ("sec-fetch-site", "none")], true),
            (&[HOST, ("sec-fetch-site", "cross-site")], false),
            (
                &[
                    HOST,
                    ("sec-fetch-site", "same-site"),
                    ("origin", "http://localhost:9999"),
                ],
                false,
            ),
            (
                &[
                    ("host", "shop.example:80"),
                    ("origin", "http://shop.example"),
                ],
                true,
            ),
            (
                &[
                    HOST,
                    ("x-forwarded-host", "evil.example"),
                    ("origin", "http://evil.example"),
                ],
                false,
            ),
            (
                &[
                    ("host", "10.0.0.1:8002"),
                    ("via", "1.1 gateway"),
                    ("x-forwarded-host", "gw.example"),
                    ("origin", "https://gw.example"),
                ],
                true,
            ),
        ] {
            assert_eq!(is_allowed(&Method::POST, headers), allowed, "{headers:?}");
            assert!(is_allowed(&Method::GET, headers), "{headers:?}");
        }
    }

    #[tokio::test]
    async fn a_protected_route_answers_403_to_another_site() {
        let app = Router::new().route("/orders", post(async || "ordered"));
        let app = CrossOriginProtection::new().protect(app);
        for (origin, status) in [
            ("http://localhost:8002", StatusCode::OK),
            ("https://evil.example", StatusCode::FORBIDDEN),
        ] {
            let request = Request::post("/orders")
                .header(HOST, "localhost:8002")
                .header(ORIGIN, origin)
                .body(Body::empty());
            let response = app.clone().oneshot(request.unwrap()).await.unwrap();
            assert_eq!(response.status(), status, "{origin}");
        }
    }
}
