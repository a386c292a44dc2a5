//! The gateway's own pages.

use std::sync::Arc;

use http::{Request, StatusCode};
use waypost::Health;

use crate::support::{FlakyRegistry, Origin, TestGateway, instance, soon};

#[tokio::test]
async fn the_front_page_lists_the_routes_for_people_and_for_programs() {
    let gateway = TestGateway::start().await;
    let origin = Origin::says("hello").await;
    gateway.add("ui", "u", origin.address).await;
    gateway.add("auth", "a", origin.address).await;
    let answer = gateway.get("/").await;
    assert_eq!(
        answer.json()["routes"],
        serde_json::json!(["/auth/", "/ui/"])
    );
    assert_eq!(answer.json()["service"], "api-gateway");
    let browser = Request::get(gateway.url("/")).header("accept", "text/html,*/*;q=0.8");
    let page = gateway.send(browser).await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(
        page.text().contains(r#"<a href="/auth/">/auth/</a>"#),
        "{}",
        page.text()
    );
    assert!(!page.text().contains("://"), "nothing comes from elsewhere");
}

#[tokio::test]
async fn services_are_shown_with_their_instances() {
    let gateway = TestGateway::start().await;
    let origin = Origin::says("hello").await;
    gateway
        .insert(
            instance("auth", "a", origin.address)
                .version("2.0.0")
                .tag("api"),
        )
        .await;
    gateway
        .insert(instance("auth", "b", origin.address).health(Health::Critical))
        .await;
    let services = gateway.get("/internal/services").await.json();
    assert_eq!(services["registry"]["stale"], false);
    let auth = gateway.service("auth").await;
    assert_eq!(
        (&auth["state"], &auth["ready"], &auth["total"]),
        (&"ready".into(), &1.into(), &2.into())
    );
    assert_eq!(auth["instances"][0]["id"], "a");
    assert_eq!(auth["instances"][0]["version"], "2.0.0");
    assert_eq!(
        auth["instances"][0]["url"],
        format!("http://{}", origin.address)
    );
    assert_eq!(auth["instances"][1]["health"], "critical");
}

#[tokio::test]
async fn a_route_that_does_not_work_says_why() {
    let gateway = TestGateway::start().await;
    let origin = Origin::says("hello").await;
    gateway
        .insert(instance("auth", "a", origin.address).health(Health::Critical))
        .await;
    gateway.add("ui", "u", origin.address).await;
    let routes = gateway.get("/internal/routes").await.json();
    assert_eq!(routes["routes"][0]["path"], "/auth/");
    assert_eq!(routes["routes"][0]["state"], "none_healthy");
    assert!(
        routes["routes"][0]["detail"]
            .as_str()
            .unwrap()
            .contains("healthy")
    );
    assert_eq!(routes["routes"][1]["state"], "ready");
}

#[tokio::test]
async fn the_gateway_is_healthy_and_registered() {
    let gateway = TestGateway::start().await;
    for path in ["/health", "/livez", "/internal/health"] {
        let answer = gateway.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert_eq!(answer.json()["status"], "passing", "{path}");
    }
    let itself = gateway.discovery.wait_for("api-gateway").await.unwrap();
    let urls: Vec<_> = itself
        .instances()
        .map(|instance| instance.url().to_owned())
        .collect();
    assert_eq!(urls, [format!("http://{}", gateway.address)]);
}

#[tokio::test]
async fn the_gateway_is_ready_once_it_has_heard_of_the_services_and_stays_so() {
    let registry = FlakyRegistry::new();
    registry.set_down(true);
    let provider = Arc::new(registry.clone());
    let gateway = TestGateway::start_on(provider, registry.memory.clone(), |_| ()).await;
    let unready = gateway.get("/readyz").await;
    assert_eq!(unready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(gateway.get("/health").await.status, StatusCode::OK);

    registry.set_down(false);
    let ready = async || gateway.get("/readyz").await.status == StatusCode::OK;
    soon("readiness", async { while !ready().await {} }).await;

    registry.set_down(true);
    let failing = async || gateway.get("/health").await.json()["status"] == "warning";
    soon("the failure", async { while !failing().await {} }).await;
    assert!(ready().await);
}

#[tokio::test]
async fn an_unknown_page_names_the_known_ones() {
    let gateway = TestGateway::start().await;
    for path in ["/internal", "/internal/secret"] {
        let answer = gateway.get(path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
        assert!(
            answer.json()["detail"]
                .as_str()
                .unwrap()
                .contains("/internal/routes")
        );
    }
}
