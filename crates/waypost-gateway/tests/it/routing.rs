//! Which instance a request is forwarded to, and the responses if there is none.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::{Request, Response, StatusCode};
use waypost::{Health, InstanceId, ServiceName};

use crate::support::{FlakyRegistry, Origin, TestGateway, body, instance, wait_until};

#[tokio::test]
async fn the_first_segment_is_the_service_and_the_rest_arrives_unchanged() {
    let gateway = TestGateway::start().await;
    let origin = Origin::echo().await;
    gateway.add("plain", "p", origin.address).await;
    gateway
        .insert(instance("nested", "n", origin.address).path_prefix("/v2/"))
        .await;
    for (path, arrives) in [
        ("/plain/", "/"),
        (
            "/plain/api//models/a%2Fb/?q=%20&r=/x/",
            "/api//models/a%2Fb/?q=%20&r=/x/",
        ),
        ("/nested/", "/v2/"),
        ("/nested/models?x", "/v2/models?x"),
    ] {
        let response = gateway.get(path).await;
        assert_eq!(response.status, StatusCode::OK, "{path}");
        assert_eq!(response.json()["uri"], arrives, "{path}");
    }
}

#[tokio::test]
async fn instances_are_picked_round_robin_and_named_in_a_header() {
    let gateway = TestGateway::start().await;
    for id in ["a", "b", "c"] {
        gateway
            .add("auth", id, Origin::text("hello").await.address)
            .await;
    }
    let mut seen = Vec::new();
    for _ in 0..6 {
        seen.push(gateway.get("/auth/").await.instance().to_owned());
    }
    let first: BTreeSet<_> = seen.iter().take(3).collect();
    assert_eq!(first.len(), 3, "{seen:?}");
    assert_eq!(seen[..3], seen[3..], "round robin");
}

#[tokio::test]
async fn a_get_without_the_trailing_slash_is_redirected() {
    let gateway = TestGateway::start().await;
    gateway.add("ui", "u", Origin::echo().await.address).await;
    let response = gateway.get("/ui?lang=en").await;
    assert_eq!(response.status, StatusCode::PERMANENT_REDIRECT);
    assert_eq!(response.header("location"), "/ui/?lang=en");
    // Other methods are forwarded without a redirect.
    let response = gateway
        .send_body(Request::post(gateway.url("/ui?x=1")), "form")
        .await;
    assert_eq!(response.json()["uri"], "/?x=1");
    assert_eq!(response.json()["body"], "form");
}

#[tokio::test]
async fn a_route_remains_after_its_last_instance_deregisters() {
    let gateway = TestGateway::start().await;
    let origin = Origin::text("hello").await;
    gateway.add("auth", "a", origin.address).await;
    assert_eq!(gateway.get("/auth/").await.status, StatusCode::OK);

    let auth = ServiceName::new("auth").unwrap();
    for forget in [false, true] {
        // Consul drops a name with its last instance; other registries don't.
        if forget {
            gateway.memory.remove_service(&auth);
        } else {
            gateway.memory.remove(&InstanceId::new("a"));
        }
        let mut instances = gateway.discovery.directory().subscribe(&auth);
        while instances.changed().await.usable().is_ok() {}
        let response = gateway.get("/auth/").await;
        assert_eq!(
            response.status,
            StatusCode::SERVICE_UNAVAILABLE,
            "{response:?}"
        );
        assert_eq!(response.reason(), "no_instances");
        assert_eq!(response.header("retry-after"), "2");
        assert_eq!(response.json()["service"], "auth");

        gateway.add("auth", "a", origin.address).await;
        assert_eq!(gateway.get("/auth/").await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_service_without_healthy_instances_gets_a_503() {
    let gateway = TestGateway::start().await;
    let origin = Origin::text("hello").await;
    gateway
        .insert(instance("auth", "a", origin.address).health(Health::Critical))
        .await;
    let response = gateway.get("/auth/").await;
    assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.reason(), "none_healthy");
    assert_eq!(response.json()["retryable"], true);
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn an_unknown_service_gets_a_404_without_a_query_to_the_registry() {
    let registry = FlakyRegistry::new();
    let memory = registry.memory.clone();
    let gateway = TestGateway::start_on(Arc::new(registry.clone()), memory, |_| ()).await;
    gateway
        .add("auth", "a", Origin::text("hello").await.address)
        .await;
    gateway
        .add("billing", "b", Origin::text("hello").await.address)
        .await;
    let before = registry.watches();
    for n in 0..50 {
        let response = gateway.get(&format!("/name-{n}/")).await;
        assert_eq!(response.status, StatusCode::NOT_FOUND);
        assert_eq!(response.reason(), "unknown_service");
        assert_eq!(response.json()["similar_services"], serde_json::json!([]));
    }
    assert_eq!(registry.watches(), before);
    let mistyped = gateway.get("/biling/").await;
    assert_eq!(mistyped.reason(), "unknown_service");
    assert_eq!(
        mistyped.json()["similar_services"],
        serde_json::json!(["billing"])
    );
}

#[tokio::test]
async fn a_name_in_another_letter_case_is_redirected_to_the_registered_one() {
    let gateway = TestGateway::start().await;
    let origin = Origin::text("hello").await;
    gateway.add("UserService", "u", origin.address).await;
    gateway.add("twin", "a", origin.address).await;
    gateway.add("Twin", "b", origin.address).await;

    let redirect = gateway.get("/userservice/users/7?all=1").await;
    assert_eq!(redirect.status, StatusCode::PERMANENT_REDIRECT);
    assert_eq!(redirect.headers["location"], "/UserService/users/7?all=1");
    assert_eq!(redirect.reason(), "other_letter_case");
    assert_eq!(gateway.get("/UserService/").await.text(), "hello");

    // Which of the two is meant is unknown.
    let ambiguous = gateway.get("/TWIN/").await;
    assert_eq!(ambiguous.reason(), "unknown_service");
}

#[tokio::test]
async fn reserved_and_hidden_names_get_no_route() {
    let gateway = TestGateway::start().await;
    let origin = Origin::text("hello").await;
    for name in ["internal", "health", "consul", "api-gateway"] {
        gateway
            .insert(instance(name, &format!("{name}-1"), origin.address))
            .await;
    }
    for path in ["/internal/x", "/health/x", "/consul/x", "/api-gateway/x"] {
        assert_eq!(
            gateway.get(path).await.status,
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
    assert_eq!(origin.requests(), 0);
    let response = gateway.get("/health/x").await;
    assert_eq!(response.reason(), "reserved_name");
    assert_eq!(response.json()["service"], "health");
}

#[tokio::test]
async fn redirects_of_a_service_are_rewritten_to_its_prefix() {
    let gateway = TestGateway::start().await;
    let origin = Origin::start(|request: Request<_>| async move {
        let to = request.uri().query().unwrap_or_default().to_owned();
        let host = request.headers()["host"].to_str().unwrap().to_owned();
        let to = to.replace("HOST", &host);
        Response::builder()
            .status(303)
            .header("location", to)
            .body(body(""))
            .unwrap()
    })
    .await;
    gateway.add("shop", "s", origin.address).await;
    for (to, expected) in [
        ("/cart", "/shop/cart"),
        ("http://HOST/cart", "http://HOST/shop/cart"),
        ("/shop/cart", "/shop/cart"),
        ("https://elsewhere.example/", "https://elsewhere.example/"),
    ] {
        assert_eq!(
            gateway
                .get(&format!("/shop/?{to}"))
                .await
                .header("location"),
            expected.replace("HOST", &gateway.address.to_string()),
            "{to}"
        );
    }
}

#[tokio::test]
async fn the_last_known_instances_are_used_while_the_registry_is_down() {
    let registry = FlakyRegistry::new();
    let memory = registry.memory.clone();
    let gateway = TestGateway::start_on(Arc::new(registry.clone()), memory, |_| ()).await;
    gateway
        .add("auth", "a", Origin::text("hello").await.address)
        .await;
    assert_eq!(gateway.get("/auth/").await.status, StatusCode::OK);

    registry.set_down(true);
    let mut names = gateway.discovery.directory().subscribe_catalog();
    while !names.changed().await.freshness().is_stale() {}
    let auth = ServiceName::new("auth").unwrap();
    let mut instances = gateway.discovery.directory().subscribe(&auth);
    while !instances.changed().await.freshness().is_stale() {}
    assert_eq!(gateway.get("/auth/").await.status, StatusCode::OK);

    let health = gateway.get("/internal/health").await;
    assert_eq!(health.status, StatusCode::OK, "the registry is advisory");
    let health = health.json();
    assert_eq!(health["status"], "warning");
    assert_eq!(health["registry"]["stale"], true);
    assert!(health["registry"]["age_seconds"].as_f64().unwrap() > 0.0);
    assert!(
        health["registry"]["error"]
            .as_str()
            .unwrap()
            .contains("connection refused")
    );
    assert_eq!(gateway.service("auth").await["freshness"]["stale"], true);

    // An unknown service may have registered meanwhile, so this is not a 404.
    let response = gateway.get("/new/").await;
    assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.reason(), "registry_unreachable");

    registry.set_down(false);
    wait_until("the registry to be fresh", || {
        !names.current().freshness().is_stale()
    })
    .await;
    assert_eq!(gateway.get("/new/").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_registry_that_was_never_reachable_is_named_in_the_error() {
    let registry = FlakyRegistry::new();
    registry.set_down(true);
    let memory = registry.memory.clone();
    let gateway = TestGateway::start_on(Arc::new(registry), memory, |_| ()).await;
    let response = gateway.get("/auth/").await;
    assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.reason(), "registry_unreachable");
    assert_eq!(response.json()["provider"], "the test's registry");
}
