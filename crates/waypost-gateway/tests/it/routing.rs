//! Which instance a request goes to, and what is said when there is none.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::{Request, Response, StatusCode};
use waypost::{Health, InstanceId, ServiceName};

use crate::support::{FlakyRegistry, Origin, TestGateway, body, instance, until};

#[tokio::test]
async fn the_first_segment_names_the_service_and_the_rest_arrives_as_it_was_sent() {
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
        let answer = gateway.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert_eq!(answer.json()["uri"], arrives, "{path}");
    }
}

#[tokio::test]
async fn instances_take_turns_and_each_says_its_name() {
    let gateway = TestGateway::start().await;
    for id in ["a", "b", "c"] {
        gateway
            .add("auth", id, Origin::says("hello").await.address)
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
async fn a_service_without_its_slash_is_redirected_so_that_relative_links_work() {
    let gateway = TestGateway::start().await;
    gateway.add("ui", "u", Origin::echo().await.address).await;
    let answer = gateway.get("/ui?lang=en").await;
    assert_eq!(answer.status, StatusCode::PERMANENT_REDIRECT);
    assert_eq!(answer.header("location"), "/ui/?lang=en");
    // A form is not sent around.
    let answer = gateway
        .send_body(Request::post(gateway.url("/ui?x=1")), "form")
        .await;
    assert_eq!(answer.json()["uri"], "/?x=1");
    assert_eq!(answer.json()["body"], "form");
}

#[tokio::test]
async fn a_route_stays_when_its_last_instance_leaves() {
    let gateway = TestGateway::start().await;
    let origin = Origin::says("hello").await;
    gateway.add("auth", "a", origin.address).await;
    assert_eq!(gateway.get("/auth/").await.status, StatusCode::OK);

    let auth = ServiceName::new("auth").unwrap();
    for forget in [false, true] {
        // Consul forgets a name with its last instance; other registries don't.
        if forget {
            gateway.memory.forget(&auth);
        } else {
            gateway.memory.remove(&InstanceId::new("a"));
        }
        let mut instances = gateway.discovery.directory().subscribe(&auth);
        while instances.changed().await.usable().is_ok() {}
        let answer = gateway.get("/auth/").await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
        assert_eq!(answer.reason(), "no_instances");
        assert_eq!(answer.header("retry-after"), "2");
        assert_eq!(answer.json()["service"], "auth");

        gateway.add("auth", "a", origin.address).await;
        assert_eq!(gateway.get("/auth/").await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_service_whose_instances_are_all_critical_says_so() {
    let gateway = TestGateway::start().await;
    let origin = Origin::says("hello").await;
    gateway
        .insert(instance("auth", "a", origin.address).health(Health::Critical))
        .await;
    let answer = gateway.get("/auth/").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.reason(), "none_healthy");
    assert_eq!(answer.json()["retryable"], true);
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn an_unknown_name_gets_the_known_ones_and_is_never_asked_of_the_registry() {
    let registry = FlakyRegistry::new();
    let memory = registry.memory.clone();
    let gateway = TestGateway::start_on(Arc::new(registry.clone()), memory, |_| ()).await;
    gateway
        .add("auth", "a", Origin::says("hello").await.address)
        .await;
    gateway
        .add("billing", "b", Origin::says("hello").await.address)
        .await;
    let before = registry.watches();
    for n in 0..50 {
        let answer = gateway.get(&format!("/name-{n}/")).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
        assert_eq!(answer.reason(), "unknown_service");
        let known: Vec<_> = answer.json()["known_services"].as_array().unwrap().to_vec();
        assert_eq!(known, ["auth", "billing"]);
    }
    assert_eq!(registry.watches(), before);
}

#[tokio::test]
async fn names_that_are_the_gateways_own_are_no_routes() {
    let gateway = TestGateway::start().await;
    let origin = Origin::says("hello").await;
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
}

#[tokio::test]
async fn a_redirect_of_a_service_leads_back_through_the_gateway() {
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
    for (to, outside) in [
        ("/cart", "/shop/cart"),
        ("http://HOST/cart", "/shop/cart"),
        ("/shop/cart", "/shop/cart"),
        ("https://elsewhere.example/", "https://elsewhere.example/"),
    ] {
        assert_eq!(
            gateway
                .get(&format!("/shop/?{to}"))
                .await
                .header("location"),
            outside,
            "{to}"
        );
    }
}

#[tokio::test]
async fn while_the_registry_is_away_the_last_known_good_is_served() {
    let registry = FlakyRegistry::new();
    let memory = registry.memory.clone();
    let gateway = TestGateway::start_on(Arc::new(registry.clone()), memory, |_| ()).await;
    gateway
        .add("auth", "a", Origin::says("hello").await.address)
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
    assert_eq!(
        health.status,
        StatusCode::OK,
        "a gateway that serves is healthy"
    );
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

    // Whether a new name has come meanwhile nobody can know.
    let answer = gateway.get("/new/").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.reason(), "registry_unreachable");

    registry.set_down(false);
    until("the registry's return", || {
        !names.current().freshness().is_stale()
    })
    .await;
    assert_eq!(gateway.get("/new/").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_registry_that_was_never_there_is_named() {
    let registry = FlakyRegistry::new();
    registry.set_down(true);
    let memory = registry.memory.clone();
    let gateway = TestGateway::start_on(Arc::new(registry), memory, |_| ()).await;
    let answer = gateway.get("/auth/").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.reason(), "registry_unreachable");
    assert_eq!(answer.json()["provider"], "the test's registry");
}
