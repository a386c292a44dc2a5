//! Registering instances, as Consul's own API then shows them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use waypost_consul::ConsulProvider;
use waypost_core::provider::{HeartbeatResponse, InstanceReport, Provider, Registry};
use waypost_core::{Check, Health, Instance, InstanceId, ProviderErrorKind};
use waypost_testkit::{Consul, free_ports, http_client};

use crate::{Server, TIMEOUT, provider_at, register, until, until_ids, web, web_registration};

async fn get(consul: &Consul, path: &str) -> Value {
    let response = http_client().get(consul.url(path)).send().await.unwrap();
    serde_json::from_str(&response.text().await.unwrap()).unwrap()
}

#[tokio::test]
async fn a_script_check_on_an_agent_that_allows_none_is_rejected_in_its_words() {
    let consul = Consul::with(json!({ "enable_script_checks": false })).await;
    let [port] = free_ports();
    let check = Check::script(["/bin/true"]);
    let registration = web_registration("web-1", port).check(check);
    let provider = ConsulProvider::new(&consul.address()).unwrap();
    let registration = registration.resolve(provider.local_address()).unwrap();
    let report = InstanceReport::alive();
    let refused = provider.register(&registration, &report).await;
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), ProviderErrorKind::Rejected, "{error}");
    let words = "Scripts are disabled on this agent";
    assert!(error.message().contains(words), "{error}");
}

#[tokio::test]
async fn every_kind_of_check_is_registered_with_all_its_options() {
    let consul = Consul::start().await;
    let [port] = free_ports();
    let interval = Duration::from_secs(60);
    let registration = web_registration("web-1", port)
        .tagged_address("wan", "203.0.113.7".parse().unwrap(), 8443)
        .allow_tag_override()
        .deregister_critical_after(Some(Duration::from_secs(120)))
        .check(
            Check::http("/health")
                .method("POST")
                .header("x-probe", "one")
                .header("x-probe", "two")
                .body("{}")
                .with_tls_skip_verify()
                .every(interval)
                .timeout(Duration::from_secs(3))
                .with_name("by HTTP")
                .with_notes("requests /health")
                .with_initial_health(Health::Passing)
                .with_rise(2)
                .with_fall(3),
        )
        .check(
            Check::tcp()
                .every(interval)
                .with_initial_health(Health::Passing),
        )
        .check(
            Check::grpc("web.v1")
                .tls()
                .every(interval)
                .with_initial_health(Health::Warning),
        )
        .check(
            Check::script(["/bin/true"])
                .every(interval)
                .with_initial_health(Health::Passing),
        )
        .check(Check::ttl(Duration::from_secs(30)));
    let provider = ConsulProvider::new(&consul.address()).unwrap();
    let registration = register(&provider, registration).await;
    let heartbeat = provider.heartbeat(&registration, InstanceReport::alive());
    assert_eq!(heartbeat.await.unwrap(), HeartbeatResponse::Known);

    let service = get(&consul, "/v1/agent/service/web-1").await;
    assert_eq!(service["EnableTagOverride"], true);
    assert_eq!(service["TaggedAddresses"]["wan"]["Address"], "203.0.113.7");
    assert_eq!(service["TaggedAddresses"]["wan"]["Port"], 8443);
    // The instance has the address of the agent's node.
    assert_eq!(service["Address"], "");

    let checks = get(&consul, "/v1/agent/checks").await;
    let kinds = ["http", "tcp", "grpc", "script", "ttl"];
    for (position, kind) in kinds.iter().enumerate() {
        let check = &checks[format!("service:web-1:{}", position + 1)];
        assert_eq!(check["Type"], *kind, "{checks:#}");
    }
    assert_eq!(checks["service:web-1:1"]["Name"], "by HTTP");
    assert_eq!(checks["service:web-1:1"]["Notes"], "requests /health");
    assert_eq!(checks["service:web-1:5"]["Status"], "passing");

    let wan = provider_at(&consul, ConsulProvider::builder().tagged_address("wan"));
    // The worst status is that of the gRPC check.
    let has_warning = |found: &[Arc<Instance>]| found.iter().any(|i| i.health() == Health::Warning);
    let instances = until(&mut wan.watch(&web()), has_warning).await;
    assert_eq!(instances[0].url(), "http://203.0.113.7:8443");

    // Checks that only the earlier registration had are removed.
    let with_one_check = web_registration("web-1", port).check(Check::tcp());
    register(&provider, with_one_check).await;
    let checks = get(&consul, "/v1/agent/checks").await;
    assert_eq!(checks.as_object().unwrap().len(), 1, "{checks:#}");
}

/// A change of a registration by another program: a path of the agent's API, a body, and a part of the
/// difference that the next heartbeat reports.
type Change = (&'static str, &'static str, &'static str);

const CHANGES: [Change; 7] = [
    (
        "/v1/agent/check/deregister/service:web-1:1",
        "",
        "check service:web-1:1 is missing",
    ),
    (
        REGISTER,
        r#"{"ID":"web-1","Name":"web","Port":9,"Address":"10.0.0.1"}"#,
        "Port is 9",
    ),
    (
        REGISTER,
        r#"{"ID":"web-1","Name":"api","Port":80}"#,
        "Service is \"api\"",
    ),
    (
        REGISTER,
        r#"{"ID":"web-1","Name":"web","Port":80,"Address":"10.0.0.9"}"#,
        "Address is \"10.0.0.9\"",
    ),
    (
        REGISTER,
        r#"{"ID":"web-1","Name":"web","Port":80,"Address":"10.0.0.1","Tags":["b"]}"#,
        "Meta is",
    ),
    (
        REGISTER,
        r#"{"ID":"web-1","Name":"web","Port":80,"Address":"10.0.0.1","Tags":["b"],
            "Meta":{"team":"x"}}"#,
        "Tags is [\"b\"]",
    ),
    (
        "/v1/agent/check/register",
        r#"{"ID":"service:web-1:1","Name":"other","ServiceID":"web-1","TTL":"1h"}"#,
        "check service:web-1:1 is of the type ttl instead of tcp",
    ),
];

const REGISTER: &str = "/v1/agent/service/register";

#[tokio::test]
async fn a_heartbeat_reports_what_another_program_has_changed_until_it_is_registered_again() {
    for server in Server::start_each().await {
        let provider = server.provider();
        let registration = web_registration("web-1", 80)
            .host("10.0.0.1".parse().unwrap())
            .tag("a")
            .meta("team", "x")
            .check(Check::tcp().every(Duration::from_secs(60)));
        let registration = register(&provider, registration).await;
        let heartbeat = async || {
            let response = provider.heartbeat(&registration, InstanceReport::alive());
            response.await.unwrap()
        };
        assert_eq!(heartbeat().await, HeartbeatResponse::Known);
        for (path, body, difference) in CHANGES {
            let request = http_client().put(server.url(path)).body(body);
            let response = request.send().await.unwrap();
            assert!(response.status().is_success(), "{path} {body}");
            match heartbeat().await {
                HeartbeatResponse::Changed(found) => {
                    assert!(found.contains(difference), "{difference}: {found}");
                }
                other => panic!("{difference}: {other:?}"),
            }
            let report = InstanceReport::alive();
            provider.register(&registration, &report).await.unwrap();
            assert_eq!(heartbeat().await, HeartbeatResponse::Known, "{difference}");
        }
    }
}

#[tokio::test]
async fn metadata_that_consul_refuses_is_rejected_before_any_request() {
    let servers = Server::start_each().await;
    let long = |length: usize| "a".repeat(length);
    for (pairs, problem) in [
        (vec![("a.b".to_owned(), "c".to_owned())], "key \"a.b\""),
        (vec![(String::new(), "c".to_owned())], "key \"\""),
        (vec![("consul-x".to_owned(), "c".to_owned())], "reserved"),
        (vec![(long(129), "c".to_owned())], "at most 128"),
        (vec![("a".to_owned(), long(513))], "513 bytes"),
        (
            (0..65).map(|n| (format!("k{n}"), String::new())).collect(),
            "65 metadata entries",
        ),
    ] {
        let mut registration = web_registration("web-1", 80).host("10.0.0.1".parse().unwrap());
        for (key, value) in pairs {
            registration = registration.meta(key, value);
        }
        let registration = registration.resolve(None).unwrap();
        for server in &servers {
            let provider = server.provider();
            let error = provider.accepts(&registration).unwrap_err();
            assert_eq!(error.kind(), ProviderErrorKind::Rejected);
            assert!(error.message().contains(problem), "{error}");
            // The server agrees.
            let report = InstanceReport::alive();
            let refused = provider.register(&registration, &report).await.unwrap_err();
            assert_eq!(refused.kind(), ProviderErrorKind::Rejected, "{refused}");
        }
    }
    // The limits themselves are accepted.
    let mut registration = web_registration("web-1", 80).meta(long(128), long(512));
    for number in 1..64 {
        registration = registration.meta(format!("k_{number}-x"), String::new());
    }
    for server in &servers {
        let provider = server.provider();
        let registration = register(&provider, registration.clone()).await;
        provider.accepts(&registration).unwrap();
    }
}

#[tokio::test]
async fn deregistering_an_unknown_id_is_not_an_error() {
    for server in Server::start_each().await {
        let provider = server.provider();
        let registry = provider.registry().unwrap();
        let unknown = InstanceId::new("unknown");
        registry.deregister(&unknown).await.unwrap();
    }
}

#[tokio::test]
async fn an_instance_with_a_ttl_check_is_healthy_as_soon_as_it_is_registered() {
    for server in Server::start_each().await {
        let provider = server.provider();
        let check = Check::ttl(TIMEOUT);
        register(&provider, web_registration("web-1", 80).check(check)).await;
        let found = until_ids(&provider, &["web-1"]).await;
        assert_eq!(found[0].health(), Health::Passing);
    }
}

#[tokio::test]
async fn a_check_keeps_its_status_when_its_agent_was_wiped() {
    let mut consul = Consul::start().await;
    let provider = provider_at(&consul, ConsulProvider::builder());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let registration = |period| {
        let check = Check::tcp().every(period);
        let web = web_registration("web-1", port).check(check);
        web.host("127.0.0.1".parse().unwrap())
    };
    let registered = register(&provider, registration(Duration::from_secs(1))).await;
    let is_passing =
        |found: &[Arc<Instance>]| found.iter().any(|one| one.health() == Health::Passing);
    until(&mut provider.watch(&web()), is_passing).await;
    let alive = InstanceReport::alive();
    provider.heartbeat(&registered, alive).await.unwrap();

    consul.restart().await;
    // Consul runs a check for the first time at a random moment of this day.
    let registration = registration(Duration::from_secs(86_400));
    let registered = register(&provider, registration.clone()).await;
    let health = async || until_ids(&provider, &["web-1"]).await[0].health();
    assert_eq!(health().await, Health::Passing);
    provider
        .deregister(registered.instance().id())
        .await
        .unwrap();
    register(&provider, registration).await;
    assert_eq!(health().await, Health::Critical);
}
