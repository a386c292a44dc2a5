//! The API for programs without async. Only one of these tests runs within a runtime.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use waypost::blocking::{Registrar, ServiceDiscoveryClient};
use waypost::provider::MemoryProvider;
use waypost::{Check, Error, Instance, RegistrationState, ServiceRegistration, blocking};

use crate::scripted::{ScriptedProvider, auth};

const DEADLINE: Duration = Duration::from_secs(60);

fn memory(ids: &[&str]) -> MemoryProvider {
    let memory = MemoryProvider::new();
    for id in ids {
        let builder = Instance::builder(auth(), "10.0.0.1".parse().unwrap(), 80).id(*id);
        memory.insert(builder.build().unwrap());
    }
    memory
}

/// The number of background threads in this process.
fn threads() -> usize {
    let named = |task: std::fs::DirEntry| {
        let name = std::fs::read_to_string(task.path().join("comm"));
        name.is_ok_and(|name| name.trim() == "waypost")
    };
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks.flatten().map(named).filter(|named| *named).count()
}

#[test]
fn lookups_picks_and_leases_work_without_a_runtime() {
    let memory = memory(&["a", "b"]);
    let client = ServiceDiscoveryClient::new(Arc::new(memory.clone())).unwrap();
    assert_eq!(client.discover_service("auth").unwrap().len(), 2);
    assert_eq!(
        client.service_url("auth", "/users").unwrap(),
        "http://10.0.0.1:80/users"
    );
    let lease = client.pick("auth").unwrap().lease();
    assert_eq!(lease.endpoint().in_flight(), 1);
    client.set_strategy_named("least_connections").unwrap();
    let unknown = client.set_strategy_named("fastest").unwrap_err();
    assert!(unknown.to_string().contains("fastest"), "{unknown}");
    assert_ne!(client.pick("auth").unwrap().id(), lease.id());
    // Failed requests eject the instance.
    (0..5).for_each(|_| lease.failed());
    let explanation = client.explain("auth").unwrap();
    assert_eq!(explanation.counters.ejected_consecutive_failures, 1);
    assert_eq!(client.services().unwrap().names().len(), 1);

    // The background thread receives changes between calls.
    let balancer = client.balancer("auth").unwrap();
    memory.remove(&"a".into());
    memory.remove(&"b".into());
    let error = client
        .wait_for("unknown", Duration::from_millis(20))
        .unwrap_err();
    assert!(matches!(error, Error::UnknownService { .. }), "{error}");
    let host = "10.0.0.9".parse().unwrap();
    memory.insert(Instance::builder(auth(), host, 80).id("c").build().unwrap());
    let began = tokio::time::Instant::now();
    while client.wait_for("auth", DEADLINE).unwrap().ready().len() != 1 {
        assert!(began.elapsed() < DEADLINE, "a and b are never removed");
    }
    drop(client);
    // The balancer keeps the background thread alive.
    assert!(balancer.pick().is_ok());
}

#[test]
fn dropping_a_registrar_deregisters_before_it_returns() {
    // An embedded registry, in a separate runtime.
    let (started, agent) = mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let registry = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async move {
            let agent = waypost_agent::Agent::builder().start().await.unwrap();
            started.send(agent.url()).unwrap();
            let _ = stopped.await;
            agent.shutdown().await;
        });
    });
    let address: String = agent.recv().unwrap();
    let environment = waypost::Environment::from_iter([("CONSUL_HTTP_ADDR", address.as_str())]);
    let registration = |id: &str| {
        let host = "127.0.0.1".parse().unwrap();
        let of = ServiceRegistration::new("billing", 8080)
            .unwrap()
            .host(host)
            .id(id);
        of.check(Check::ttl(Duration::from_secs(30)))
    };
    let client = || {
        let builder = ServiceDiscoveryClient::builder().environment(environment.clone());
        builder
            .register(registration("with-client"))
            .build_blocking()
            .unwrap()
    };
    let registered = client();
    let watcher = ServiceDiscoveryClient::builder().environment(environment.clone());
    let watcher = watcher.build_blocking().unwrap();
    let own = registered.registrar().unwrap();
    assert!(own.registered(DEADLINE).unwrap());
    let more = watcher.register(registration("alone")).unwrap();
    assert!(more.registered(DEADLINE).unwrap());
    assert!(matches!(more.state(), RegistrationState::Registered));
    let ids = || -> Vec<String> {
        // A new client, which has nothing cached.
        let fresh = ServiceDiscoveryClient::builder().environment(environment.clone());
        let found = fresh.build_blocking().unwrap().discover_service("billing");
        let found = found.unwrap_or_default();
        found
            .iter()
            .map(|instance| instance.id().to_string())
            .collect()
    };
    assert_eq!(ids(), ["alone", "with-client"]);
    more.deregister().unwrap();
    assert_eq!(ids(), ["with-client"]);
    let clone = registered.clone();
    drop(registered);
    assert_eq!(ids(), ["with-client"], "a clone still exists");
    drop(clone);
    assert_eq!(ids(), Vec::<String>::new());
    drop(stop);
    registry.join().unwrap();
}

#[test]
fn the_background_thread_ends_with_its_last_user() {
    // Other tests have threads with this name too, but fewer than 20.
    let clients: Vec<_> = (0..20)
        .map(|_| ServiceDiscoveryClient::new(Arc::new(memory(&["a"]))).unwrap())
        .collect();
    // A thread gets its name shortly after it has started, so the count is polled.
    let wait_for = |condition: &dyn Fn(usize) -> bool| {
        let began = tokio::time::Instant::now();
        while !condition(threads()) {
            assert!(began.elapsed() < DEADLINE, "{} threads", threads());
            std::thread::yield_now();
        }
    };
    wait_for(&|count| count >= 20);
    drop(clients);
    wait_for(&|count| count < 20);
}

#[tokio::test]
async fn blocking_calls_within_a_runtime_are_errors() {
    let provider: Arc<dyn waypost::provider::Provider> = Arc::new(memory(&["a"]));
    let error = ServiceDiscoveryClient::new(Arc::clone(&provider)).unwrap_err();
    assert!(error.to_string().contains("async functions"), "{error}");
    assert!(matches!(
        blocking::get_service_url("auth", None),
        Err(Error::WithinRuntime)
    ));
    assert!(matches!(
        Registrar::start(provider, ServiceRegistration::new("x", 1).unwrap()),
        Err(Error::WithinRuntime)
    ));
    // The same for a client that was made outside of the runtime. Dropping it there doesn't panic.
    let (client, registrar) = std::thread::spawn(|| {
        let client = ServiceDiscoveryClient::new(Arc::new(memory(&["a"]))).unwrap();
        let registration = ServiceRegistration::new("x", 1).unwrap();
        let host = "127.0.0.1".parse().unwrap();
        let registrar = client.register(registration.host(host)).unwrap();
        (client, registrar)
    })
    .join()
    .unwrap();
    assert!(matches!(client.pick("auth"), Err(Error::WithinRuntime)));
    drop(registrar);
    drop(client);
}

#[test]
fn a_blocking_lookup_times_out_if_the_provider_does_not_answer() {
    let mut options = waypost::directory::DirectoryOptions::default();
    options.lookup_timeout = Duration::from_millis(50);
    let client = ServiceDiscoveryClient::builder()
        .provider(ScriptedProvider::default())
        .directory_options(options)
        .build_blocking()
        .unwrap();
    let error = client.pick("auth").unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
}
