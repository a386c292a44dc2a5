//! Routes whose requests another service allows or refuses.

use std::sync::{Arc, Mutex};

use http::{HeaderMap, Request, Response, StatusCode};

use crate::support::{Origin, RawOrigin, Routed, body, unused_address, wait_until, with_deadline};

/// A service that refuses requests to paths with "secret", and redirects those without a cookie.
struct Guard {
    origin: Origin,
    /// The headers of the last request.
    seen: Arc<Mutex<HeaderMap>>,
}

impl Guard {
    async fn start() -> Self {
        let seen = Arc::new(Mutex::new(HeaderMap::new()));
        let last = Arc::clone(&seen);
        let origin = Origin::start(move |request| {
            let headers = request.headers().clone();
            *last.lock().expect("no panic") = headers.clone();
            async move {
                let uri = headers["x-forwarded-uri"].to_str().expect("text");
                let answer = Response::builder();
                let answer = if request.uri() != "/verify?v=1" {
                    answer.status(500)
                } else if uri.contains("fail") {
                    answer.status(502)
                } else if uri.contains("secret") {
                    answer
                        .status(403)
                        .header("content-type", "text/plain")
                        .header("connection", "x-private")
                        .header("x-private", "1")
                        .header("x-reason", "secret")
                } else if !headers.contains_key("cookie") {
                    answer
                        .status(302)
                        .header("location", "https://login.example/")
                        .header("set-cookie", "state=1")
                } else {
                    answer
                        .status(204)
                        .header("x-user", "ann")
                        .header("x-other", "not copied")
                };
                let text = if uri.contains("secret") { "no" } else { "" };
                answer.body(body(text)).expect("a response")
            }
        })
        .await;
        Self { origin, seen }
    }

    fn seen(&self) -> HeaderMap {
        self.seen.lock().expect("no panic").clone()
    }
}

const ROUTES: &str = r#"
routes:
  - match: {path: /shop}
    service: shop
    external_auth:
      service: guard
      path: /verify?v=1
      copy_headers: [x-user, x-roles]
      timeout: 30s
"#;

async fn shop(routes: &str) -> (Routed, Origin) {
    let routed = Routed::start(routes).await;
    let origin = Origin::echo().await;
    routed.gateway.add("shop", "s", origin.address).await;
    (routed, origin)
}

async fn guarded() -> (Routed, Origin, Guard) {
    let (routed, origin) = shop(ROUTES).await;
    let guard = Guard::start().await;
    routed.gateway.add("guard", "g", guard.origin.address).await;
    (routed, origin, guard)
}

#[tokio::test]
async fn an_allowed_request_is_forwarded_with_headers_of_the_decision() {
    let (routed, _origin, guard) = guarded().await;
    let sent = [
        ("cookie", "session=1"),
        ("x-user", "root"),
        ("x-roles", "admin"),
        ("x_roles", "admin"),
        ("x-big", "not sent"),
        ("x-forwarded-uri", "/forged"),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
        ("tracestate", "vendor=1"),
    ];
    let answer = routed.get_with("/shop/cart?page=2", &sent).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let got = &answer.json()["headers"];
    assert_eq!(got["x-user"], "ann");
    assert!(
        got["x-roles"].is_null() && got["x_roles"].is_null(),
        "{got}"
    );
    assert!(got["x-other"].is_null(), "{got}");
    assert_eq!(got["cookie"], "session=1");
    let asked = guard.seen();
    assert_eq!(asked["x-forwarded-method"], "GET");
    assert_eq!(asked["x-forwarded-uri"], "/shop/cart?page=2");
    assert_eq!(asked["x-forwarded-proto"], "http");
    let host = routed.gateway.address.to_string();
    assert_eq!(asked["x-forwarded-host"], host);
    assert_eq!(asked["x-forwarded-for"], "127.0.0.1");
    assert_eq!(asked["x-request-id"], answer.header("x-request-id"));
    assert!(!asked.contains_key("x-big"));
    for name in ["traceparent", "tracestate"] {
        assert_eq!(asked[name], got[name].as_str().expect("text"), "{name}");
    }
}

#[tokio::test]
async fn the_body_is_not_needed_for_the_decision_and_arrives() {
    let (routed, _origin, _guard) = guarded().await;
    for n in 0..3 {
        let request = Request::post(routed.gateway.url("/shop")).header("cookie", "a=1");
        let answer = routed.gateway.send_body(request, format!("body {n}")).await;
        assert_eq!(answer.json()["body"], format!("body {n}"));
    }
}

#[tokio::test]
async fn a_refusal_or_a_redirect_is_the_answer_for_the_client() {
    let (routed, origin, _guard) = guarded().await;
    let refused = routed.get_with("/shop/secret", &[("cookie", "a=1")]).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(refused.text(), "no");
    assert_eq!(refused.header("x-reason"), "secret");
    assert!(!refused.headers.contains_key("x-private"));
    let redirect = routed.get("/shop").await;
    assert_eq!(redirect.status, StatusCode::FOUND);
    assert_eq!(redirect.header("location"), "https://login.example/");
    assert_eq!(redirect.header("set-cookie"), "state=1");
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn a_grpc_client_gets_a_status_and_the_headers_of_the_refusal() {
    let (routed, origin, _guard) = guarded().await;
    let call = async |path: &str| {
        let request = Request::post(routed.gateway.url(path));
        let request = request.header("content-type", "application/grpc");
        routed.gateway.send(request).await
    };
    let refused = call("/shop/secret").await;
    assert_eq!(refused.header("grpc-status"), "7");
    assert_eq!(refused.header("x-reason"), "secret");
    assert_eq!(refused.header("content-type"), "application/grpc");
    assert!(!refused.headers.contains_key("x-private"));
    assert!(refused.body.is_empty());
    // A redirect to a login page.
    let redirected = call("/shop").await;
    assert_eq!(redirected.header("grpc-status"), "16");
    assert_eq!(redirected.header("location"), "https://login.example/");
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn without_a_decision_requests_are_refused() {
    let (routed, _origin, _guard) = guarded().await;
    let answer = routed.get_with("/shop/fail", &[("cookie", "a=1")]).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.reason(), "external_auth_failed");
    assert!(answer.json()["detail"].to_string().contains("502"));
    // Another instance is asked if one can't be reached.
    routed.gateway.add("guard", "dead", unused_address()).await;
    for _ in 0..6 {
        let answer = routed.get_with("/shop", &[("cookie", "a=1")]).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    }
    routed.gateway.memory.remove(&waypost::InstanceId::new("g"));
    routed
        .gateway
        .memory
        .remove(&waypost::InstanceId::new("dead"));
    let failed = async || {
        let answer = routed.get_with("/shop", &[("cookie", "a=1")]).await;
        answer.status == StatusCode::SERVICE_UNAVAILABLE
    };
    with_deadline("a 503", async { while !failed().await {} }).await;
}

#[tokio::test]
async fn the_authorisation_service_is_asked_again_only_if_that_may_help_and_three_times_at_most() {
    for (response, connections) in [("", 3), ("nonsense\r\n\r\n", 1)] {
        let (routed, origin) = shop(ROUTES).await;
        let guard = RawOrigin::writes(response).await;
        for id in ["a", "b", "c", "d"] {
            routed.gateway.add("guard", id, guard.address).await;
        }
        let answer = routed.get("/shop").await;
        assert_eq!(answer.reason(), "external_auth_failed", "{response:?}");
        assert_eq!(guard.connections(), connections, "{response:?}");
        assert_eq!(origin.requests(), 0);
    }
}

#[tokio::test]
async fn a_decision_that_takes_too_long_is_a_failure_and_fail_open_allows() {
    let routes = |url: &str, fail_open: bool| {
        format!(
            "routes:\n  - match: {{path: /shop}}\n    service: shop\n    external_auth: \
             {{url: \"{url}\", timeout: 50ms, fail_open: {fail_open}, copy_headers: [x-user]}}\n"
        )
    };
    let silent = RawOrigin::start(|mut stream| async move {
        RawOrigin::read_head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let url = format!("http://{}/check", silent.address);
    let (closed, origin) = shop(&routes(&url, false)).await;
    let answer = closed.get("/shop").await;
    assert_eq!(answer.reason(), "external_auth_failed");
    assert!(answer.json()["detail"].to_string().contains("50ms"));
    assert_eq!(origin.requests(), 0);
    wait_until("the question", || silent.connections() == 1).await;

    let (open, _origin) = shop(&routes(&url, true)).await;
    let answer = open.get_with("/shop", &[("x-user", "root")]).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert!(answer.json()["headers"]["x-user"].is_null());
}

#[test]
fn a_wrong_section_is_an_error_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("routes.yaml");
    for (section, why) in [
        ("{}", "needs `service` or `url`"),
        ("{service: a, url: \"http://a/\"}", "exclude each other"),
        ("{url: \"http://a/\", path: /x}", "is for `service`"),
        ("{service: a, path: x}", "begin with a slash"),
        ("{service: a, timeout: 0s}", "must not be 0"),
        ("{service: a, copy_headers: [te xt]}", "not a header name"),
    ] {
        let text = format!("routes:\n  - service: a\n    external_auth: {section}\n");
        std::fs::write(&file, text).unwrap();
        let error = waypost_gateway::check_routes(&file)
            .unwrap_err()
            .to_string();
        let is_located = error.contains("routes.yaml:2:") || error.contains("routes.yaml:3:");
        assert!(is_located && error.contains(why), "{section}: {error}");
    }
}
