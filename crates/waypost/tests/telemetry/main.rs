//! Metrics and spans. A program of its own, since a recorder of metrics is global.

#![allow(clippy::unwrap_used)] // a panic fails the test

#[path = "../../examples/metrics/recorder.rs"]
mod recorder;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../it/scripted.rs"]
mod scripted;

use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use recorder::TextRecorder;
use tokio::time::{Instant as Time, sleep};
use tonic::Code;
use tonic::transport::server::{Server, TcpIncoming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use waypost::balance::RoundRobin;
use waypost::directory::Directory;
use waypost::integration::reqwest::{Client, RequestError};
use waypost::integration::retry::RetryPolicy;
use waypost::integration::tonic::BalancedChannel;
use waypost::provider::{MemoryProvider, ServiceAnswer};
use waypost::{
    Balancer, Check, Error, Instance, ProviderError, Registrar, Selector, ServiceDiscoveryClient,
    ServiceName, ServiceRegistration,
};
use waypost_testkit::free_ports;

use scripted::ScriptedProvider;

/// The recorder is global, so each test uses a service of its own.
static RECORDER: LazyLock<TextRecorder> = LazyLock::new(|| {
    let recorder = TextRecorder::default();
    metrics::set_global_recorder(recorder.clone())
        .map_err(|_| ())
        .unwrap();
    recorder
});

fn name(service: &str) -> ServiceName {
    LazyLock::force(&RECORDER);
    ServiceName::new(service).unwrap()
}

fn instance(service: &ServiceName, port: u16) -> Instance {
    let builder = Instance::builder(service.clone(), "127.0.0.1".parse().unwrap(), port);
    builder.id(format!("{service}-{port}")).build().unwrap()
}

/// Lets the tasks of the library run; with the clock paused that takes no time.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

/// The values of all metrics of a service, such as `picks_total{} 3`, without the prefix that all have.
fn metrics_of(service: &str) -> Vec<String> {
    let text = RECORDER.render();
    let label = format!("service=\"{service}\"");
    let lines = text.lines().filter(|line| line.contains(&label));
    let short = |line: &str| {
        let line = line.strip_prefix("waypost_client_").unwrap();
        let line = line.replace(&format!("{label},"), "");
        line.replace(&format!("{{{label}}}"), "").replace('"', "")
    };
    lines.map(short).collect()
}

/// The values of the metrics with this prefix.
fn some(service: &str, prefix: &str) -> Vec<String> {
    let all = metrics_of(service).into_iter();
    all.filter(|line| line.starts_with(prefix)).collect()
}

#[tokio::test(start_paused = true)]
async fn requests_are_counted_by_outcome_and_never_by_instance() {
    let service = name("telemetry-requests");
    let memory = MemoryProvider::new();
    memory.replace(&service, [instance(&service, 1), instance(&service, 2)]);
    let client = ServiceDiscoveryClient::new(Arc::new(memory));
    let mut leases = Vec::new();
    for _ in 0..5 {
        leases.push(client.pick(service.as_str()).await.unwrap().lease());
    }
    assert_eq!(
        some(service.as_str(), "requests_in_flight"),
        ["requests_in_flight 5"]
    );
    leases[0].succeeded();
    leases[1].succeeded();
    leases[2].failed();
    leases[3].rejected(None);
    drop(leases);
    assert_eq!(some(service.as_str(), "picks_total"), ["picks_total 5"]);
    assert_eq!(
        some(service.as_str(), "requests_in_flight"),
        ["requests_in_flight 0"]
    );
    assert_eq!(
        some(service.as_str(), "requests_total"),
        [
            "requests_total{outcome=abandoned} 1",
            "requests_total{outcome=failed} 1",
            "requests_total{outcome=rejected} 1",
            "requests_total{outcome=succeeded} 2",
        ]
    );
    let counts = some(service.as_str(), "request_duration_seconds_count");
    assert!(
        counts.contains(&"request_duration_seconds_count{outcome=succeeded} 2".into()),
        "{counts:?}"
    );
    let text = metrics_of(service.as_str()).join("\n");
    assert!(
        !text.contains("telemetry-requests-1") && !text.contains("127.0.0.1"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn picks_without_a_usable_instance_are_counted_by_reason() {
    let service = name("telemetry-errors");
    let memory = MemoryProvider::new();
    memory.replace(&service, [instance(&service, 1)]);
    let client = ServiceDiscoveryClient::new(Arc::new(memory.clone()));
    let canary = client.with_selector(Selector::new().tag("canary"));
    assert!(canary.pick(service.as_str()).await.is_err());
    // The first look-up waits for the provider, which is no error.
    assert!(client.pick(service.as_str()).await.is_ok());
    memory.replace(&service, []);
    settle().await;
    assert!(client.pick(service.as_str()).await.is_err());
    let errors = some(service.as_str(), "pick_errors_total");
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(
        errors[0].starts_with("pick_errors_total{reason=no_instances} "),
        "{errors:?}"
    );
    assert!(
        errors[1].starts_with("pick_errors_total{reason=no_match} "),
        "{errors:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_outage_and_ejections_show_in_the_metrics() {
    let service = name("telemetry-outage");
    let script = ScriptedProvider::default();
    let instances = (1..=4).map(|port| Arc::new(instance(&service, port)));
    script.set_first_item(Ok(ServiceAnswer::Instances(instances.collect())));
    let directory = Directory::new(Arc::new(script.clone()));
    let balancer = Balancer::new(&directory, &service, Box::new(RoundRobin::new()));
    balancer.ready().await.unwrap();
    assert_eq!(some(service.as_str(), "stale"), ["stale 0"]);
    assert_eq!(some(service.as_str(), "instances"), ["instances 4"]);
    let first = balancer.pick().unwrap().id().clone();
    let mut failures = 0;
    while failures < 5 {
        let lease = balancer.pick().unwrap().lease();
        if *lease.id() == first {
            lease.failed();
            failures += 1;
        } else {
            lease.succeeded();
        }
    }
    assert_eq!(
        some(service.as_str(), "ejected_instances"),
        ["ejected_instances 1"]
    );
    let ejections = ["ejections_total{cause=consecutive_failures} 1"];
    assert_eq!(some(service.as_str(), "ejections_total"), ejections);
    let down = ProviderError::unreachable("test", "down");
    script.set_first_item(Err(down.clone()));
    script.send(Err(down));
    for _ in 0..60 {
        if some(service.as_str(), "stale") == ["stale 1"] {
            break;
        }
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(some(service.as_str(), "stale"), ["stale 1"]);
    assert_eq!(
        some(service.as_str(), "ready_instances"),
        ["ready_instances 4"]
    );
    let failures = some(service.as_str(), "watch_failures_total");
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert!(
        failures[0].starts_with("watch_failures_total{reason=unreachable} "),
        "{failures:?}"
    );
    let confirmed = some(service.as_str(), "confirmed_timestamp_seconds");
    let seconds: f64 = confirmed[0].split(' ').nth(1).unwrap().parse().unwrap();
    assert!(seconds > 1.7e9, "{seconds}");
}

#[tokio::test(start_paused = true)]
async fn a_registration_shows_in_the_metrics() {
    let service = name("telemetry-registration");
    let registration = ServiceRegistration::new(service.as_str(), 80).unwrap();
    let registration = registration
        .host("127.0.0.1".parse().unwrap())
        .check(Check::tcp());
    let registrar = Registrar::start(Arc::new(MemoryProvider::new()), registration).unwrap();
    registrar.registered().await;
    assert_eq!(some(service.as_str(), "registered"), ["registered 1"]);
    let attempts = ["registration_attempts_total{result=succeeded} 1"];
    assert_eq!(
        some(service.as_str(), "registration_attempts_total"),
        attempts
    );
    registrar.deregister().await.unwrap();
    assert_eq!(some(service.as_str(), "registered"), ["registered 0"]);
}

#[tokio::test]
async fn metrics_have_a_type_and_a_description() {
    requests_for("telemetry-described").await;
    let text = RECORDER.render();
    for line in text
        .lines()
        .filter(|line| line.starts_with("waypost_client_picks_total"))
    {
        assert!(line.contains("service="), "{line}");
    }
    assert!(
        text.contains("# TYPE waypost_client_picks_total counter"),
        "{text}"
    );
    assert!(
        text.contains("# TYPE waypost_client_request_duration_seconds histogram"),
        "{text}"
    );
}

async fn requests_for(service: &str) {
    let service = name(service);
    let memory = MemoryProvider::new();
    memory.insert(instance(&service, 1));
    let client = ServiceDiscoveryClient::new(Arc::new(memory));
    client
        .pick(service.as_str())
        .await
        .unwrap()
        .lease()
        .succeeded();
}

/// The fields of the spans that have ended or are open, in order of their creation.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<Span>>>);

/// The id and the fields of a span.
type Span = (Id, Vec<String>);

struct Fields<'a>(&'a mut Vec<String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0
            .push(format!("{}={value:?}", field.name()).replace('"', ""));
    }
}

impl<S: Subscriber> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        if attributes.metadata().target().starts_with("waypost::") {
            let mut fields = Vec::new();
            attributes.record(&mut Fields(&mut fields));
            self.0.lock().unwrap().push((id.clone(), fields));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        // Ids are used again, so the last span with this id is meant.
        let mut spans = self.0.lock().unwrap();
        if let Some((_, fields)) = spans.iter_mut().rev().find(|(of, _)| of == id) {
            values.record(&mut Fields(fields));
        }
    }
}

fn plain_reqwest() -> reqwest::Client {
    let provider = rustls::crypto::ring::default_provider();
    let tls = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let builder = reqwest::Client::builder().tls_backend_preconfigured(tls);
    builder.no_proxy().build().unwrap()
}

#[tokio::test]
async fn hedges_are_counted_apart_from_retries() {
    let service = name("telemetry-hedges");
    // Both accept connections and never respond.
    let mut listeners = Vec::new();
    let memory = MemoryProvider::new();
    for _ in 0..2 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        memory.insert(instance(&service, listener.local_addr().unwrap().port()));
        listeners.push(listener);
    }
    let discovery = ServiceDiscoveryClient::new(Arc::new(memory));
    let policy = RetryPolicy::new().hedge_after(Duration::from_millis(1));
    let client = Client::new(discovery, plain_reqwest()).policy(policy.attempt_timeout(None));
    let url = format!("http://{service}/");
    let hedged = async {
        while some(service.as_str(), "hedges_total") != ["hedges_total 1"] {
            settle().await;
        }
    };
    tokio::select! {
        response = client.get(&url).send() => panic!("{response:?}"),
        () = hedged => {}
    }
    let retried = some(service.as_str(), "retries_total").join(" ");
    assert!(["", "retries_total 0"].contains(&&*retried), "{retried}");
}

#[tokio::test]
async fn each_attempt_is_a_span_with_the_attributes_of_opentelemetry() {
    let service = name("telemetry-spans");
    // Nothing listens on the first port; the second responds with 404.
    let [refusing] = free_ports::<1>();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let responding = listener.local_addr().unwrap().port();
    tokio::spawn(axum::serve(listener, axum::Router::new()).into_future());
    let memory = MemoryProvider::new();
    memory.replace(&service, [instance(&service, refusing)]);
    let discovery = ServiceDiscoveryClient::new(Arc::new(memory.clone()));
    let client = Client::new(discovery, plain_reqwest());

    let spans = Spans::default();
    let subscriber = tracing_subscriber::registry().with(spans.clone());
    let _guard = tracing::subscriber::set_default(subscriber);
    let url = format!("http://{service}/secret?token=secret");
    let error = client.get(&url).send().await.unwrap_err();
    assert!(matches!(error, RequestError::Http(_)), "{error}");
    memory.replace(&service, [instance(&service, responding)]);
    let deadline = Time::now() + Duration::from_secs(60);
    loop {
        match client.get(&url).send().await {
            Ok(response) => break assert_eq!(response.status(), 404),
            Err(RequestError::Discovery(Error::NoInstances { .. }) | RequestError::Http(_)) => {}
            Err(error) => panic!("{error}"),
        }
        assert!(Time::now() < deadline);
    }
    let spans = spans.0.lock().unwrap();
    let first = &spans[0].1;
    for field in [
        "otel.kind=client",
        "http.request.method=GET",
        "server.address=127.0.0.1",
        "url.scheme=http",
        "peer.service=telemetry-spans",
        "error.type=connect",
        "otel.status_code=ERROR",
    ] {
        assert!(first.iter().any(|it| it == field), "{field} in {first:?}");
    }
    assert!(
        first.contains(&format!("server.port={refusing}")),
        "{first:?}"
    );
    assert!(
        !first
            .iter()
            .any(|it| it.starts_with("http.request.resend_count")),
        "{first:?}"
    );
    let second = &spans[1].1;
    assert!(
        second.contains(&"http.request.resend_count=1".to_owned()),
        "{second:?}"
    );
    let last = &spans.last().unwrap().1;
    for field in ["http.response.status_code=404", "error.type=404"] {
        assert!(last.iter().any(|it| it == field), "{field} in {last:?}");
    }
    for (_, fields) in spans.iter() {
        assert!(!fields.join(" ").contains("secret"), "{fields:?}");
    }
}

#[tokio::test]
async fn a_grpc_call_is_a_span_with_its_status_and_counts_in_the_metrics() {
    let service = name("telemetry-grpc");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (_reporter, health) = tonic_health::server::health_reporter();
    let server = Server::builder().add_service(health);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    let memory = MemoryProvider::new();
    memory.insert(instance(&service, port));
    let discovery = ServiceDiscoveryClient::new(Arc::new(memory.clone()));

    let spans = Spans::default();
    let subscriber = tracing_subscriber::registry().with(spans.clone());
    let _guard = tracing::subscriber::set_default(subscriber);
    let mut client = HealthClient::new(BalancedChannel::new(&discovery, service.as_str()).unwrap());
    client.check(HealthCheckRequest::default()).await.unwrap();
    let unknown = HealthCheckRequest {
        service: "secret".to_owned(),
    };
    let status = client.check(unknown).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);

    let spans: Vec<_> = spans
        .0
        .lock()
        .unwrap()
        .iter()
        .map(|it| it.1.join(" "))
        .collect();
    assert_eq!(spans.len(), 2, "{spans:?}");
    for span in &spans {
        for field in [
            "otel.name=grpc.health.v1.Health/Check",
            "otel.kind=client",
            "rpc.system=grpc",
            "rpc.service=grpc.health.v1.Health",
            "rpc.method=Check",
            "server.address=127.0.0.1",
            &format!("server.port={port}"),
            "peer.service=telemetry-grpc",
        ] {
            assert!(span.contains(field), "{field} in {span}");
        }
        assert!(!span.contains("secret"), "{span}");
    }
    assert!(spans[0].ends_with("rpc.grpc.status_code=0"), "{spans:?}");
    let not_found = "rpc.grpc.status_code=5 error.type=5 otel.status_code=ERROR";
    assert!(spans[1].ends_with(not_found), "{spans:?}");
    assert_eq!(some(service.as_str(), "picks_total"), ["picks_total 2"]);
    let succeeded = "requests_total{outcome=succeeded}";
    assert_eq!(
        some(service.as_str(), succeeded),
        [format!("{succeeded} 2")]
    );
}

#[tokio::test]
async fn a_grpc_call_that_cannot_connect_is_a_span_for_each_attempt() {
    let service = name("telemetry-grpc-refused");
    let ports = free_ports::<2>();
    let memory = MemoryProvider::new();
    memory.replace(&service, ports.map(|port| instance(&service, port)));
    let discovery = ServiceDiscoveryClient::new(Arc::new(memory.clone()));

    let spans = Spans::default();
    let subscriber = tracing_subscriber::registry().with(spans.clone());
    let _guard = tracing::subscriber::set_default(subscriber);
    let mut client = HealthClient::new(BalancedChannel::new(&discovery, service.as_str()).unwrap());
    let status = client
        .check(HealthCheckRequest::default())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);

    let spans = spans.0.lock().unwrap();
    let errors = spans.iter().map(|(_, fields)| fields.join(" "));
    let errors: Vec<_> = errors
        .filter(|it| it.contains("error.type=connect"))
        .collect();
    assert_eq!((spans.len(), errors.len()), (3, 3), "{errors:?}");
    assert_eq!(some(service.as_str(), "retries_total"), ["retries_total 2"]);
    let failed = "requests_total{outcome=failed}";
    assert_eq!(some(service.as_str(), failed), [format!("{failed} 3")]);
}
