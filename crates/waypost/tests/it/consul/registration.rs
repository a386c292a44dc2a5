//! The registrar with a Consul agent that loses its data.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{sleep, timeout};
use waypost::directory::Directory;
use waypost::provider::Provider;
use waypost::provider::consul::ConsulProvider;
use waypost::{Check, Registrar, ServiceRegistration};
use waypost_agent::Agent;
use waypost_testkit::{Consul, Logs, free_ports, http_client};

use super::{TIMEOUT, until, web};

async fn get(consul: &Consul, path: &str) -> Value {
    let response = http_client().get(consul.url(path)).send().await.unwrap();
    serde_json::from_str(&response.text().await.unwrap()).unwrap()
}

#[tokio::test]
async fn maintenance_mode_is_restored_after_a_wipe_of_the_agent() {
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
    let restored = async {
        while get(&consul, "/v1/agent/checks").await["_service_maintenance:web-1"].is_null() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(TIMEOUT, restored).await.unwrap();
    registrar.leave_maintenance();
    until(&mut subscription, |found| found.usable().is_ok()).await;
}

#[tokio::test]
async fn fifty_instances_are_registered_again_after_a_wipe() {
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
    // Each notices it by its next heartbeat, which comes within a third of the TTL, 10 s.
    let registered_again = async {
        while listed(&consul).await.len() < 50 {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(TIMEOUT, registered_again).await.unwrap();
    assert_eq!(listed(&consul).await, before);
}

#[tokio::test]
async fn a_refused_registration_is_not_logged_as_an_outage() {
    let (logs, _guard) = Logs::take();
    let agent = Agent::builder().token("secret").start().await.unwrap();
    let provider = ConsulProvider::new(&agent.http_addr().to_string()).unwrap();
    let registration = ServiceRegistration::new("web", 80).unwrap();
    let _registrar = Registrar::start(Arc::new(provider), registration).unwrap();
    let refused = async {
        while logs
            .lines(&["WARN", "registry refused the registration"])
            .is_empty()
        {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(TIMEOUT, refused).await.unwrap();
    let outages = logs.lines(&["unavailable"]);
    assert!(outages.is_empty(), "{outages:#?}");
}

#[tokio::test]
async fn a_program_that_never_registered_does_not_log_that_it_was_deregistered() {
    let (logs, _guard) = Logs::take();
    let [unused] = free_ports();
    let address = format!("127.0.0.1:{unused}");
    let provider: Arc<dyn Provider> = Arc::new(ConsulProvider::new(&address).unwrap());
    let registration = ServiceRegistration::new("web", 80).unwrap();
    let registrar = Registrar::start(provider, registration).unwrap();
    let refused = async {
        while logs.lines(&["registry unavailable, retrying"]).is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(TIMEOUT, refused).await.unwrap();
    registrar.deregister().await.unwrap_err();
    let lines = logs.lines(&["deregister"]);
    let claims = lines
        .iter()
        .filter(|line| line.contains("INFO") || line.contains("WARN"));
    assert_eq!(claims.count(), 0, "{lines:#?}");
}
