//! Registrars: conflicts between processes, and deregistration when a program ends.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::sleep;
use waypost::provider::{MemoryProvider, Provider, ServiceAnswer};
use waypost::{Registrar, RegistrationState, ServiceDiscoveryClient, ServiceRegistration};

use crate::logs::Logs;
use crate::scripted::auth;

fn registration(port: u16) -> ServiceRegistration {
    let registration = ServiceRegistration::new("auth", port).unwrap();
    registration.host("127.0.0.1".parse().unwrap()).id("auth-1")
}

async fn is_registered(registry: &MemoryProvider) -> bool {
    let answer = registry.watch(&auth()).next().await.unwrap().unwrap();
    matches!(answer, ServiceAnswer::Instances(all) if !all.is_empty())
}

/// Two programs that were started with the same id.
#[tokio::test(start_paused = true)]
async fn two_registrations_with_one_id_are_both_reported_once() {
    let (logs, _guard) = Logs::take();
    let registry = MemoryProvider::new();
    let start = |port| Registrar::start(Arc::new(registry.clone()), registration(port)).unwrap();
    let (_first, _second) = (start(8081), start(8082));
    // A heartbeat every 5 s at most.
    sleep(Duration::from_secs(120)).await;
    let conflicts = logs.lines(&["ERROR", "another process registers the same id", "auth-1"]);
    assert_eq!(conflicts.len(), 2, "{}", logs.text());
    // Before the conflict is noticed, each has registered and then replaced the other's registration.
    let registered = logs.lines(&["INFO", "registered", "auth-1"]);
    assert!(registered.len() <= 6, "{}", logs.text());
    for port in ["8081", "8082"] {
        let is_kept = async || {
            let answer = registry.watch(&auth()).next().await.unwrap().unwrap();
            format!("{answer:?}").contains(port)
        };
        while !is_kept().await {
            sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_closed_has_deregistered_and_still_looks_up() {
    let registry = MemoryProvider::new();
    let builder = ServiceDiscoveryClient::builder().provider(registry.clone());
    let client = builder.register(registration(80)).build().unwrap();
    client.registrar().unwrap().registered().await;
    assert!(is_registered(&registry).await);
    client.close().await.unwrap();
    assert!(!is_registered(&registry).await);
    let state = client.registrar().unwrap().state();
    assert!(matches!(state, RegistrationState::Deregistered(Ok(()))));
    assert!(client.service_url("auth", "/").await.is_err());
    registry.insert(
        registration(80)
            .resolve(None)
            .unwrap()
            .instance()
            .as_ref()
            .clone(),
    );
    assert_eq!(
        client.wait_for("auth").await.unwrap().instances().count(),
        1
    );
    client.close().await.unwrap();
    assert!(is_registered(&registry).await, "only its own registration");
}

/// The client is dropped as `main` returns, and its runtime with it.
#[test]
fn a_registration_made_with_the_client_does_not_outlive_the_program() {
    let registry = MemoryProvider::new();
    let runtime = || {
        let builder = tokio::runtime::Builder::new_multi_thread();
        { builder }.worker_threads(2).enable_all().build().unwrap()
    };
    for _ in 0..20 {
        let main = runtime();
        main.block_on(async {
            let builder = ServiceDiscoveryClient::builder().provider(registry.clone());
            let client = builder.register(registration(80)).build().unwrap();
            client.registrar().unwrap().registered().await;
        });
        drop(main);
        assert!(!runtime().block_on(is_registered(&registry)));
    }
}
