//! Registrars: conflicts between processes, and deregistration when a program ends.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use tokio::time::sleep;
use waypost::provider::{
    HeartbeatResponse, InstanceReport, MemoryProvider, NamesWatch, Provider, Registration,
    Registry, ServiceAnswer, Watch,
};
use waypost::{
    InstanceId, ProviderError, Registrar, RegistrationState, ServiceDiscoveryClient, ServiceName,
    ServiceRegistration,
};
use waypost_testkit::Logs;

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

/// A platform that registers instances itself, or stores each registration in another form.
#[derive(Debug, Default)]
struct Platform {
    memory: MemoryProvider,
    accepts: bool,
    registrations: AtomicUsize,
}

impl Provider for Platform {
    fn describe(&self) -> Arc<str> {
        "a platform".into()
    }

    fn watch(&self, service: &ServiceName) -> Watch {
        self.memory.watch(service)
    }

    fn watch_names(&self) -> NamesWatch {
        self.memory.watch_names()
    }

    fn registry(&self) -> Result<&dyn Registry, ProviderError> {
        Ok(self)
    }
}

impl Registry for Platform {
    fn accepts(&self, _: &Registration) -> Result<(), ProviderError> {
        if self.accepts {
            return Ok(());
        }
        let reason = "the platform registers the instance\nAdvice: select the pod";
        Err(ProviderError::unsupported(self.describe(), reason))
    }

    fn register<'a>(
        &'a self,
        registration: &'a Registration,
        report: &'a InstanceReport,
    ) -> BoxFuture<'a, Result<(), ProviderError>> {
        let earlier = self.registrations.fetch_add(1, Ordering::Relaxed);
        assert!(earlier < 1000, "a busy loop");
        self.memory.register(registration, report)
    }

    fn deregister<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<(), ProviderError>> {
        self.memory.deregister(id)
    }

    fn heartbeat<'a>(
        &'a self,
        _: &'a Registration,
        _: InstanceReport,
    ) -> BoxFuture<'a, Result<HeartbeatResponse, ProviderError>> {
        Box::pin(async { Ok(HeartbeatResponse::Changed("the form differs".into())) })
    }

    fn local_address(&self) -> Option<IpAddr> {
        Some([10, 0, 0, 7].into())
    }
}

#[tokio::test(start_paused = true)]
async fn a_platform_has_two_minutes_to_register_the_instance_before_advice_is_logged() {
    for (host, is_logged) in [("10.0.0.7", false), ("10.0.0.8", true)] {
        let (logs, _guard) = Logs::take();
        let advice = || logs.lines(&["WARN", "no instance at this address", "select the pod"]);
        let memory = MemoryProvider::new();
        let platform = Arc::new(Platform {
            memory: memory.clone(),
            ..Platform::default()
        });
        let none = Registrar::start_if_supported(platform, registration(80)).unwrap();
        assert!(none.is_none());
        let listed = registration(80).host(host.parse().unwrap());
        let listed = listed.resolve(None).unwrap();
        memory.insert(listed.instance().as_ref().clone());
        sleep(Duration::from_secs(119)).await;
        assert_eq!(advice().len(), 0, "{}", logs.text());
        sleep(Duration::from_secs(2)).await;
        assert_eq!(advice().len(), usize::from(is_logged), "{}", logs.text());
    }
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_is_stored_in_another_form_is_repeated_at_each_heartbeat() {
    let platform = Arc::new(Platform {
        accepts: true,
        ..Platform::default()
    });
    let registry: Arc<dyn Provider> = platform.clone();
    let _registrar = Registrar::start(registry, registration(80)).unwrap();
    sleep(Duration::from_secs(60)).await;
    let count = platform.registrations.load(Ordering::Relaxed);
    assert!((10..=20).contains(&count), "{count}");
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
