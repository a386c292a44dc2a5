//! The gateway's own pages.

use std::sync::Arc;

use http::{Request, StatusCode};
use serde_json::json;
use waypost::{Health, ServiceName};

use crate::support::{FlakyRegistry, Origin, TestGateway, instance, unused_address, with_deadline};

#[tokio::test]
async fn the_index_lists_the_routes_as_json() {
    let gateway = TestGateway::start().await;
    let origin = Origin::text("hello").await;
    gateway.add("ui", "u", origin.address).await;
    gateway.add("auth", "a", origin.address).await;
    let response = gateway.get("/").await;
    let route = |path: &str| json!({"hosts": [], "path": path, "source": "discovery"});
    assert_eq!(
        response.json()["routes"],
        json!([route("/auth/"), route("/ui/")])
    );
    assert_eq!(response.json()["service"], "api-gateway");
}

#[tokio::test]
async fn a_browser_gets_the_dashboard_at_the_root() {
    let gateway = TestGateway::start().await;
    let browser = Request::get(gateway.url("/")).header("accept", "text/html,*/*;q=0.8");
    let page = gateway.send(browser).await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(!page.text().contains("://"), "no external resources");
    assert!(
        page.text().contains("<base href=\".waypost/\">"),
        "{}",
        page.text()
    );
    let script = page.text().split("src=\"").nth(1).unwrap().to_owned();
    let script = script.split('"').next().unwrap();
    let script = gateway.get(&format!("/.waypost/{script}")).await;
    assert_eq!(
        script.header("content-type"),
        "text/javascript; charset=utf-8"
    );
    let missing = gateway.get("/.waypost/nothing").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_root_of_the_internal_listener_is_the_dashboard_for_browsers_and_json_for_programs() {
    let gateway = TestGateway::start().await;
    let origin = Origin::text("hello").await;
    gateway.add("ui", "u", origin.address).await;
    let root = format!("http://{}/", gateway.internal);
    let index = gateway.send(Request::get(&root)).await;
    assert_eq!(index.json()["routes"][0]["path"], "/ui/");
    let browser = Request::get(&root).header("accept", "text/html,*/*;q=0.8");
    let page = gateway.send(browser).await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(page.text().contains("<script"), "{}", page.text());
}

#[tokio::test]
async fn the_services_page_lists_instances() {
    let gateway = TestGateway::start().await;
    let origin = Origin::text("hello").await;
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
async fn the_routes_page_says_why_a_route_is_unavailable() {
    let gateway = TestGateway::start().await;
    let origin = Origin::text("hello").await;
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
        let response = gateway.get(path).await;
        assert_eq!(response.status, StatusCode::OK, "{path}");
        assert_eq!(response.json()["status"], "passing", "{path}");
    }
    let registered = gateway.discovery.wait_for("api-gateway").await.unwrap();
    let urls: Vec<_> = registered
        .instances()
        .map(|instance| instance.url().to_owned())
        .collect();
    assert_eq!(urls, [format!("http://{}", gateway.address)]);
}

#[tokio::test]
async fn the_gateway_is_ready_after_the_first_answer_of_the_registry_and_stays_ready() {
    let registry = FlakyRegistry::new();
    registry.set_down(true);
    let provider = Arc::new(registry.clone());
    let gateway = TestGateway::start_on(provider, registry.memory.clone(), |_| ()).await;
    let unready = gateway.get("/readyz").await;
    assert_eq!(unready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(gateway.get("/health").await.status, StatusCode::OK);

    registry.set_down(false);
    let ready = async || gateway.get("/readyz").await.status == StatusCode::OK;
    with_deadline("readiness", async { while !ready().await {} }).await;

    registry.set_down(true);
    let failing = async || gateway.get("/health").await.json()["status"] == "warning";
    with_deadline("the failure", async { while !failing().await {} }).await;
    assert!(ready().await);
}

#[tokio::test]
async fn an_unknown_internal_page_is_a_404_that_lists_the_pages() {
    let gateway = TestGateway::start().await;
    for path in ["/internal/", "/internal/secret"] {
        let response = gateway.get(path).await;
        assert_eq!(response.status, StatusCode::NOT_FOUND);
        assert!(
            response.json()["detail"]
                .as_str()
                .unwrap()
                .contains("/internal/routes")
        );
    }
}

#[tokio::test]
async fn a_page_of_services_with_20000_instances_stays_small() {
    const SERVICES: usize = 100;
    const INSTANCES: usize = 200;
    let gateway = TestGateway::start_with(|config| config.register = false).await;
    let address = unused_address();
    for number in 0..SERVICES {
        let name = format!("s{number:03}");
        for id in 0..INSTANCES {
            let instance = instance(&name, &format!("{name}-{id}"), address);
            gateway.memory.insert(instance.build().unwrap());
        }
    }
    // Each service is called, so its instances are known.
    let mut names = gateway.discovery.directory().subscribe_catalog();
    with_deadline("the services", async {
        while names.changed().await.names().len() < SERVICES {}
    })
    .await;
    for number in 0..SERVICES {
        let name = ServiceName::new(&format!("s{number:03}")).unwrap();
        let found = gateway.discovery.directory().lookup(&name).await;
        assert_eq!(found.unwrap().endpoints().len(), INSTANCES);
        gateway.get(&format!("/s{number:03}/")).await;
    }
    for (page, list) in [("services", "services"), ("routes", "routes")] {
        let path = format!("/internal/{page}");
        let pages = std::iter::repeat_with(|| gateway.get(&path)).take(6);
        for page in futures_util::future::join_all(pages).await {
            assert_eq!(page.status, StatusCode::OK);
            let size = page.body.len();
            assert!(size < 1024 * 1024, "{size} bytes");
            let shown = page.json();
            let shown = shown[list].as_array().unwrap();
            assert!(shown.iter().all(|entry| entry["total"] == INSTANCES));
            let listed = shown.iter().map(|entry| {
                let own = entry["instances"].as_array();
                let balanced = entry["balancing"]["instances"].as_array();
                let listed = own.or(balanced).map_or(0, Vec::len) as u64;
                let left_out = entry["left_out"].as_u64().unwrap_or_default();
                assert_eq!(listed + left_out, INSTANCES as u64);
                listed
            });
            assert_eq!(listed.sum::<u64>(), 1000);
        }
    }
}
