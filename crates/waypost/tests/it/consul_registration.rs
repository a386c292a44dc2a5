//! What is written to a real Consul is what its own API then says.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{sleep, timeout};
use waypost::directory::Directory;
use waypost::provider::Provider;
use waypost::provider::consul::{Consistency, ConsulProvider};
use waypost::{Check, Health, Registrar, ServiceRegistration};
use waypost_testkit::{Consul, free_ports, http_client};

use crate::consul::{until, web};

async fn get(consul: &Consul, path: &str) -> Value {
    let reply = http_client().get(consul.url(path)).send().await.unwrap();
    serde_json::from_str(&reply.text().await.unwrap()).unwrap()
}

#[tokio::test]
async fn every_kind_of_check_arrives_with_all_its_options() {
    let consul = Consul::start().await;
    let [port] = free_ports();
    let every = Duration::from_secs(60);
    let registration = ServiceRegistration::new("web", port)
        .unwrap()
        .id("web-1")
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
                .every(every)
                .timeout(Duration::from_secs(3))
                .with_name("by HTTP")
                .with_notes("asks /health")
                .with_initial_health(Health::Passing)
                .with_rise(2)
                .with_fall(3),
        )
        .check(
            Check::tcp()
                .every(every)
                .with_initial_health(Health::Passing),
        )
        .check(
            Check::grpc("web.v1")
                .tls()
                .every(every)
                .with_initial_health(Health::Warning),
        )
        .check(
            Check::script(["/bin/true"])
                .every(every)
                .with_initial_health(Health::Passing),
        )
        .check(Check::ttl(Duration::from_secs(30)));
    let provider: Arc<dyn Provider> = Arc::new(ConsulProvider::new(&consul.address()).unwrap());
    let registrar = Registrar::start(Arc::clone(&provider), registration).unwrap();
    registrar.registered().await;

    let service = get(&consul, "/v1/agent/service/web-1").await;
    assert_eq!(service["EnableTagOverride"], true);
    assert_eq!(service["TaggedAddresses"]["wan"]["Address"], "203.0.113.7");
    assert_eq!(service["TaggedAddresses"]["wan"]["Port"], 8443);
    // The agent's node is where the service is.
    assert_eq!(service["Address"], "");

    let checks = get(&consul, "/v1/agent/checks").await;
    let kinds = ["http", "tcp", "grpc", "script", "ttl"];
    for (position, kind) in kinds.iter().enumerate() {
        let check = &checks[format!("service:web-1:{}", position + 1)];
        assert_eq!(check["Type"], *kind, "{checks:#}");
    }
    assert_eq!(checks["service:web-1:1"]["Name"], "by HTTP");
    assert_eq!(checks["service:web-1:1"]["Notes"], "asks /health");
    assert_eq!(checks["service:web-1:5"]["Status"], "passing");

    let wan = ConsulProvider::builder()
        .address(&consul.address())
        .tagged_address("wan");
    let found = Directory::new(Arc::new(wan.build().unwrap()))
        .lookup(&web())
        .await
        .unwrap();
    let instance = found.instances().next().unwrap();
    assert_eq!(instance.url(), "http://203.0.113.7:8443");
    assert_eq!(instance.health(), Health::Warning);

    // Fewer checks the next time: the others are gone.
    registrar.abandon();
    let fewer = ServiceRegistration::new("web", port)
        .unwrap()
        .id("web-1")
        .check(Check::tcp());
    let registrar = Registrar::start(provider, fewer).unwrap();
    registrar.registered().await;
    let checks = get(&consul, "/v1/agent/checks").await;
    assert_eq!(checks.as_object().unwrap().len(), 1, "{checks:#}");
}

#[tokio::test]
async fn reads_say_what_they_were_told_to() {
    let consul = Consul::start().await;
    let provider: Arc<dyn Provider> = Arc::new(ConsulProvider::new(&consul.address()).unwrap());
    let mut held = Vec::new();
    for (id, tag, team) in [
        ("a", "blue", "se&arch"),
        ("b", "green", "se&arch"),
        ("c", "blue", "x"),
    ] {
        let registration = ServiceRegistration::new("web", 80).unwrap().id(id).tag(tag);
        let registration = registration.meta("team", team);
        let registrar = Registrar::start(Arc::clone(&provider), registration).unwrap();
        registrar.registered().await;
        held.push(registrar);
    }
    let ids = async |builder: waypost::provider::consul::ConsulBuilder| {
        let provider = builder.address(&consul.address()).build().unwrap();
        let found = Directory::new(Arc::new(provider))
            .lookup(&web())
            .await
            .unwrap();
        let ids: Vec<_> = found.instances().map(|i| i.id().to_string()).collect();
        ids.join(" ")
    };
    let builder = ConsulProvider::builder;
    assert_eq!(ids(builder().tag("blue")).await, "a c");
    assert_eq!(
        ids(builder().filter("Service.Meta.team == \"se&arch\"")).await,
        "a b"
    );
    let all = [
        Consistency::Default,
        Consistency::Stale,
        Consistency::Consistent,
    ];
    for consistency in all {
        assert_eq!(
            ids(builder().consistency(consistency).near("_agent")).await,
            "a b c"
        );
    }
    assert_eq!(ids(builder().node_meta("no", "such")).await, "");
    let error = builder()
        .datacenter("nowhere")
        .address(&consul.address())
        .build()
        .unwrap();
    let error = Directory::new(Arc::new(error))
        .lookup(&web())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("No path to datacenter"),
        "{error}"
    );
}

#[tokio::test]
async fn maintenance_takes_an_instance_out_and_survives_a_wiped_agent() {
    let mut consul = Consul::start().await;
    let provider: Arc<dyn Provider> = Arc::new(ConsulProvider::new(&consul.address()).unwrap());
    let registration = ServiceRegistration::new("web", 80).unwrap().id("web-1");
    let registrar = Registrar::start(Arc::clone(&provider), registration).unwrap();
    registrar.registered().await;
    let directory = Directory::new(provider);
    let mut subscription = directory.subscribe(&web());
    until(&mut subscription, |found| found.usable().is_ok()).await;

    registrar.enter_maintenance("being moved");
    until(&mut subscription, |found| found.usable().is_err()).await;
    let checks = get(&consul, "/v1/agent/checks").await;
    assert_eq!(checks["_service_maintenance:web-1"]["Notes"], "being moved");

    consul.restart().await;
    let put_back = async {
        while get(&consul, "/v1/agent/checks").await["_service_maintenance:web-1"].is_null() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(60), put_back).await.unwrap();
    registrar.leave_maintenance();
    until(&mut subscription, |found| found.usable().is_ok()).await;
}

#[tokio::test]
async fn fifty_instances_are_back_within_a_heartbeat_of_a_wiped_agent() {
    let mut consul = Consul::start().await;
    let provider: Arc<dyn Provider> = Arc::new(ConsulProvider::new(&consul.address()).unwrap());
    let registrars: Vec<_> = (0..50)
        .map(|n| {
            let registration = ServiceRegistration::new("web", 1000 + n)
                .unwrap()
                .meta("number", n.to_string())
                .check(Check::ttl(Duration::from_secs(30)));
            Registrar::start(Arc::clone(&provider), registration).unwrap()
        })
        .collect();
    for registrar in &registrars {
        registrar.registered().await;
    }
    let listed = async |consul: &Consul| {
        let all = get(consul, "/v1/health/service/web?passing").await;
        let all = all.as_array().unwrap().iter();
        let mut all: Vec<_> = all
            .map(|entry| {
                let service = &entry["Service"];
                format!("{} {} {}", service["ID"], service["Port"], service["Meta"])
            })
            .collect();
        all.sort();
        all
    };
    let before = listed(&consul).await;
    assert_eq!(before.len(), 50);

    consul.restart().await;
    // A heartbeat comes each third of the TTL, and fifty have to be written. The second would come
    // at 20 s.
    let back = async {
        while listed(&consul).await.len() < 50 {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(Duration::from_secs(19), back).await.unwrap();
    assert_eq!(listed(&consul).await, before);
}

#[tokio::test]
async fn more_services_than_connections_still_learn_of_changes() {
    let consul = Consul::start().await;
    let few = ConsulProvider::builder()
        .address(&consul.address())
        .connections(4);
    let directory = Directory::new(Arc::new(few.build().unwrap()));
    let names = (0..40).map(|n| format!("web-{n}").parse().unwrap());
    let mut watched: Vec<_> = names.map(|name| directory.subscribe(&name)).collect();
    for subscription in &mut watched {
        until(subscription, |found| found.freshness().is_known()).await;
    }
    let provider: Arc<dyn Provider> = Arc::new(ConsulProvider::new(&consul.address()).unwrap());
    let late = ServiceRegistration::new("web-39", 80).unwrap();
    let registrar = Registrar::start(provider, late).unwrap();
    registrar.registered().await;
    until(&mut watched[39], |found| found.usable().is_ok()).await;
    assert_eq!(directory.status()[0].failures(), 0);
}
