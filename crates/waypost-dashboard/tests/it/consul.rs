//! The page in front of a real Consul.

use serde_json::json;
use waypost_dashboard::server::{Config, TOKEN_HEADER, router};
use waypost_testkit::Consul;
use waypost_testkit::browser::Page;

use crate::server::Server;

const TOKEN: &str = "secret-of-the-session";

async fn server_of(consul: &Consul) -> Server {
    let mut config = Config::new(&format!("http://{}", consul.address()), TOKEN);
    config.registry_kind = Some("Consul".to_owned());
    Server::start(router(config).unwrap()).await
}

async fn register(consul: &Consul, id: &str) {
    let body = json!({"Name": "orders", "ID": id, "Port": 4100, "Tags": ["v1"], "Meta": {"version": "1.4.2"},
        "Check": {"TTL": "60s", "Status": "passing"}});
    consul.put("/v1/agent/service/register", &body).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_view_with_data_from_consul_shows_it_and_is_kept_up_to_date() {
    let consul = Consul::start().await;
    register(&consul, "orders-1").await;
    let server = server_of(&consul).await;
    Page::test(&format!("{}#token={TOKEN}", server.url), async |page| {
        page.wait_for("tr[data-name='orders']", "Ready").await;
        let views = page
            .js("[...document.querySelectorAll('#views a')].map((it) => it.textContent)")
            .await;
        assert_eq!(
            views,
            json!(["Services", "Registry"]),
            "no logs and no map without their sources"
        );

        register(&consul, "orders-2").await;
        page.wait_for("tr[data-name='orders']", "2/2").await;
        consul
            .put(
                "/v1/agent/check/fail/service:orders-2?note=no+disk",
                &json!(null),
            )
            .await;
        page.wait_for(".need", "orders-2 fails its check").await;
        page.wait_for(".need", "no disk").await;
        page.click("tr[data-name='orders'] a").await;
        page.wait_for(".side .why", "no disk").await;
        page.wait_for(".tabs", "Checks 2").await;
        page.click(".tabs a:nth-child(2)").await;
        page.wait_for(".transitions", "critical").await;

        page.open(&format!("{}registry", server.url)).await;
        page.wait_for("table", "version=1.4.2").await;
        page.wait_until(
            "document.querySelector('table [title^=curl][title$=\"/v1/health/service/orders\"]')",
        )
        .await;
        page.wait_for(".bar .end", "Consul").await;
        page.open(&format!("{}registry/dns", server.url)).await;
        page.wait_for("table", "orders.service.consul").await;
        page.open(&format!("{}registry/nodes", server.url)).await;
        page.wait_for("table", "127.0.0.1").await;
        page.open(&format!("{}registry/keys/shop/flags", server.url))
            .await;
        page.wait_for(".entry", "new").await;
        page.write("#kv", "{\"new-checkout\": true}").await;
        page.click(".entry .btn.go").await;
        page.wait_for("#toasts", "Saved shop/flags").await;
        page.wait_for(".keys-list", "shop/flags").await;
        page.wait_until(
            "document.querySelector('.entry [title^=curl][title$=\"/v1/kv/shop/flags?raw\"]')",
        )
        .await;

        // A value that somebody else has changed meanwhile isn't overwritten.
        page.write("#kv", "mine").await;
        consul.put("/v1/kv/shop/flags", &json!("theirs")).await;
        page.click(".entry .btn.go").await;
        page.wait_for("dialog", "was changed meanwhile").await;
        page.click("dialog .btn.go").await;
        page.wait_until("document.querySelector('#kv')?.value === '\"theirs\"'")
            .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_consul_is_shown_with_its_age_until_consul_is_back() {
    let mut consul = Consul::start().await;
    register(&consul, "orders-1").await;
    let server = server_of(&consul).await;
    Page::test(&server.url, async |page| {
        page.wait_for("tr[data-name='orders']", "Ready").await;
        consul.kill().await;
        page.wait_for(".outage", "The registry can’t be reached")
            .await;
        page.wait_for(".outage .age", "Shown as it was").await;
        page.wait_until("document.title.startsWith('registry down')")
            .await;
        page.wait_for("tr[data-name='orders']", "Ready").await;
        consul.restart().await;
        register(&consul, "orders-1").await;
        page.wait_until("!document.querySelector('.outage')").await;
        page.wait_for("#live", "Live").await;
    })
    .await;
}

#[tokio::test]
async fn a_change_needs_the_token_of_the_session() {
    let agent = waypost_agent::Agent::start().await.unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = Server::start(router(Config::new(&agent.url(), TOKEN)).unwrap()).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let put = async |token: Option<&str>| {
        let mut request = client.put(format!("{}v1/kv/a", server.url)).body("1");
        if let Some(token) = token {
            request = request.header(TOKEN_HEADER, token);
        }
        request.send().await.unwrap()
    };
    for wrong in [None, Some(""), Some("secret-of-the-sessioX")] {
        let response = put(wrong).await;
        assert_eq!(response.status(), 403, "{wrong:?}");
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
    }
    assert_eq!(put(Some(TOKEN)).await.status(), 200);
    let read = client
        .get(format!("{}v1/kv/a?raw", server.url))
        .send()
        .await
        .unwrap();
    assert_eq!(read.text().await.unwrap(), "1");

    drop(agent);
    let gone = client
        .get(format!("{}v1/kv/a?raw", server.url))
        .send()
        .await
        .unwrap();
    assert_eq!(gone.status(), 502);
    let problem = gone.text().await.unwrap();
    assert!(
        problem.contains("the registry can't be reached"),
        "{problem}"
    );
}
