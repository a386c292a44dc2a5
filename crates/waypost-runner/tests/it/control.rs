//! The control API on its socket.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use waypost_runner::control::{
    About, Client, ClientError, Control, Event, EventStream, LineStream, LineView, ServiceState,
    ServiceView, Socket, StackView, VariableView, router,
};
use waypost_runner::{Probe, ServiceSpec, Supervisor, VariableSource};

use crate::support::*;

/// A running stack with its socket.
struct Running {
    supervisor: Supervisor,
    control: Control,
    socket: Socket,
    _dir: tempfile::TempDir,
}

impl Running {
    fn start(services: impl IntoIterator<Item = ServiceSpec>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (supervisor, _) = start(stack(services));
        let about = About {
            name: "shop".to_owned(),
            file: None,
            directory: dir.path().to_owned(),
            registry: "http://localhost:8500".to_owned(),
            gateway: None,
            dashboard: None,
        };
        let control = Control::start(supervisor.clone(), about);
        let mut socket = Socket::open(&dir.path().join("run").join("stack.sock")).unwrap();
        socket.serve(router(control.clone()));
        Self {
            supervisor,
            control,
            socket,
            _dir: dir,
        }
    }

    async fn client(&self) -> Client {
        Client::connect(self.socket.path()).await.unwrap()
    }

    async fn service(&self, name: &str) -> ServiceView {
        let stack: StackView = self.client().await.get("/api/stack").await.unwrap();
        let found = stack.services.into_iter().find(|it| it.name == name);
        found.unwrap()
    }

    async fn until(
        &self,
        name: &str,
        what: &str,
        is_so: impl Fn(&ServiceView) -> bool,
    ) -> ServiceView {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        loop {
            let service = self.service(name).await;
            if is_so(&service) {
                return service;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "{what}: {service:#?}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn post(&self, path: &str, body: Value) -> Result<(), ClientError> {
        self.client().await.post(path, &body).await
    }

    async fn lines(&self, query: &str) -> Vec<LineView> {
        let path = format!("/api/logs?{query}");
        self.client().await.get_lines(&path).await.unwrap()
    }
}

fn is(state: ServiceState) -> impl Fn(&ServiceView) -> bool {
    move |service| service.state == state
}

async fn next(events: &mut EventStream) -> Event {
    let event = tokio::time::timeout(Duration::from_secs(60), events.next()).await;
    event.expect("an event").unwrap().expect("no end")
}

#[tokio::test]
async fn a_stack_reports_the_state_of_each_service_and_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let closed = waypost_runner::free_port("127.0.0.1".parse().unwrap()).unwrap();
    let running = Running::start([
        service("web", dir.path()).replicas(2),
        shell("migrate", "echo migrated").ready(Probe::completed()),
        shell("worker", "exec sleep 600"),
        ServiceSpec::external("postgres", "localhost", port),
        ServiceSpec::external("search", "127.0.0.1", closed)
            .start_timeout(Duration::from_millis(50)),
        shell("late", "exec sleep 600").after("search"),
        shell("optional", "exec sleep 600").disabled(),
        shell("payments", "true").blocked("STRIPE_KEY is not set", "add it to .env.local"),
    ]);
    for (name, state) in [
        ("web", ServiceState::Ready),
        ("migrate", ServiceState::Completed),
        ("worker", ServiceState::Running),
        ("postgres", ServiceState::Ready),
        ("search", ServiceState::Unreachable),
        ("late", ServiceState::Waiting),
        ("optional", ServiceState::Disabled),
        ("payments", ServiceState::Failed),
    ] {
        running.until(name, "its state", is(state)).await;
    }
    let web = running.service("web").await;
    assert_eq!((web.ready, web.wanted, web.instances.len()), (2, 2, 2));
    assert_eq!(
        web.address,
        Some(format!("localhost:{}", web.instances[0].port.unwrap()))
    );
    assert!(web.instances.iter().all(|instance| instance.pid.is_some()));
    running
        .until("search", "its reason", |search| {
            let why = search.why.as_deref().unwrap_or_default();
            why.contains("onnection refused")
        })
        .await;
    let late = running.service("late").await.why.unwrap();
    assert_eq!(late, "waits for search, which is unhealthy");
    let payments = running.service("payments").await;
    assert_eq!(payments.why.as_deref(), Some("STRIPE_KEY is not set"));
    assert_eq!(payments.advice.as_deref(), Some("add it to .env.local"));
    running.supervisor.shutdown().await;
}

#[tokio::test]
async fn a_crash_is_reported_with_its_exit_code_the_last_error_and_the_next_start() {
    let script = "echo fine; echo 'Error: STRIPE_KEY is not set' >&2; echo '    at config.ts:14' >&2; exit 3";
    let running = Running::start([shell("payments", script).port(0)]);
    let payments = running
        .until("payments", "it crash-loops", is(ServiceState::CrashLooping))
        .await;
    assert!(
        payments
            .why
            .unwrap()
            .starts_with("exited with code 3 after ")
    );
    assert_eq!(
        payments.last_error.as_deref(),
        Some("Error: STRIPE_KEY is not set")
    );
    assert_eq!(
        payments.advice.as_deref(),
        Some("see its output: waypost logs payments")
    );
    let instance = &payments.instances[0];
    assert_eq!(instance.exit.as_ref().unwrap().code, Some(3));
    assert!(instance.next_start_at.is_some());
    running.supervisor.shutdown().await;
}

#[tokio::test]
async fn a_service_is_stopped_started_restarted_and_scaled() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start([service("web", dir.path())]);
    let before = running
        .until("web", "it is ready", is(ServiceState::Ready))
        .await;
    running
        .post("/api/services/web/stop", json!({}))
        .await
        .unwrap();
    let stopped = running
        .until("web", "it is stopped", is(ServiceState::Stopped))
        .await;
    assert_eq!((stopped.ready, stopped.wanted), (0, 0));
    assert!(!alive(before.instances[0].pid.unwrap()));

    running
        .post("/api/services/web/start", json!({}))
        .await
        .unwrap();
    let started = running
        .until("web", "it is ready", is(ServiceState::Ready))
        .await;
    assert_eq!(started.instances[0].port, before.instances[0].port);
    running
        .post("/api/services/web/scale", json!({"replicas": 3}))
        .await
        .unwrap();
    running
        .until("web", "there are three", |web| web.ready == 3)
        .await;

    // Concurrent restarts run one after the other, and none starts a program twice.
    for _ in 0..3 {
        running
            .post("/api/services/web/restart", json!({}))
            .await
            .unwrap();
    }
    let pid = |service: &ServiceView| service.instances[0].pid;
    let old = pid(&started);
    running
        .until("web", "it is another process", |web| {
            web.ready == 3 && pid(web) != old
        })
        .await;
    running
        .post("/api/services/web/scale", json!({"replicas": 1}))
        .await
        .unwrap();
    running
        .until("web", "there is one", |web| web.instances.len() == 1)
        .await;
    running.supervisor.shutdown().await;
}

#[tokio::test]
async fn a_restart_affects_only_its_service_unless_it_cascades() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start([
        service("database", dir.path()),
        service("orders", dir.path()).after("database"),
        service("web", dir.path()).after("orders"),
        service("other", dir.path()),
    ]);
    running.supervisor.ready().await.unwrap();
    let restarts = async || {
        let stack = running.control.stack();
        let all = stack.services.iter().map(|it| it.restarts);
        all.collect::<Vec<_>>()
    };
    running
        .post("/api/services/orders/restart", json!({}))
        .await
        .unwrap();
    running
        .until("orders", "restarted", |it| {
            it.restarts == 1 && it.ready == 1
        })
        .await;
    assert_eq!(restarts().await, [0, 1, 0, 0]);
    running
        .post("/api/services/orders/restart", json!({"cascade": true}))
        .await
        .unwrap();
    running
        .until("web", "restarted", |it| it.restarts == 1 && it.ready == 1)
        .await;
    assert_eq!(restarts().await, [0, 2, 1, 0]);
    running.supervisor.shutdown().await;
}

#[tokio::test]
async fn a_service_can_be_restarted_while_it_waits_or_fails() {
    let dir = tempfile::tempdir().unwrap();
    let flag = dir.path().join("flag");
    let script = format!("test -e {}", flag.display());
    let running = Running::start([
        shell("migrate", &script).ready(Probe::completed()),
        shell("web", "exec sleep 600").after("migrate"),
    ]);
    running
        .until("migrate", "it fails", is(ServiceState::Failed))
        .await;
    let web = running
        .until("web", "it waits", is(ServiceState::Waiting))
        .await;
    assert_eq!(
        web.why.as_deref(),
        Some("waits for migrate, which is failed")
    );
    assert_eq!(
        web.advice.as_deref(),
        Some("start it: waypost restart migrate")
    );
    running
        .post("/api/services/web/restart", json!({}))
        .await
        .unwrap();
    std::fs::write(&flag, "").unwrap();
    running
        .post("/api/services/migrate/restart", json!({}))
        .await
        .unwrap();
    running
        .until("web", "it runs", is(ServiceState::Running))
        .await;
    running.supervisor.shutdown().await;
}

#[tokio::test]
async fn wrong_requests_are_refused_with_a_reason() {
    let running = Running::start([
        shell("web", "exec sleep 600"),
        shell("migrate", "true").ready(Probe::completed()),
    ]);
    for (path, body, status, detail) in [
        ("services/wbe/stop", json!({}), 404, "unknown service `wbe`"),
        (
            "services/web/scale",
            json!({"replicas": "two"}),
            400,
            "invalid type",
        ),
        (
            "services/web/scale",
            json!({"replicas": 2, "x": 1}),
            400,
            "unknown field `x`",
        ),
        (
            "services/web/scale",
            json!({"replicas": 100_000}),
            400,
            "more than 200",
        ),
        (
            "services/migrate/scale",
            json!({"replicas": 2}),
            409,
            "a one-time task",
        ),
        (
            "services/web/restart",
            json!({"cascade": 1}),
            400,
            "body: invalid type",
        ),
    ] {
        let result = running.post(&format!("/api/{path}"), body).await;
        let Err(ClientError::Refused {
            status: got,
            detail: text,
        }) = result
        else {
            panic!("{path}: {result:?}");
        };
        assert_eq!(got, status, "{path}: {text}");
        assert!(text.contains(detail), "{path}: {text}");
    }
    let error = running
        .client()
        .await
        .get_lines::<LineView>("/api/logs?service=wbe")
        .await;
    let error = error.unwrap_err().to_string();
    assert_eq!(error, "there is no service `wbe`; did you mean `web`?");
    running.supervisor.shutdown().await;
}

#[tokio::test]
async fn lines_are_filtered_and_followed_across_a_restart() {
    let script = "echo 'INFO hello'; echo 'ERROR no database' >&2; echo plain; exec sleep 600";
    let running = Running::start([
        shell("web", script),
        shell("other", "echo other; exec sleep 600"),
    ]);
    eventually("all is written", || {
        let web = running.supervisor.recent_lines("web", 9).unwrap().len();
        let other = running.supervisor.recent_lines("other", 9).unwrap().len();
        (web == 3 && other == 1).then_some(())
    })
    .await;
    let errors = running.lines("level=warn").await;
    let errors: Vec<_> = errors
        .iter()
        .map(|line| (line.stream, line.text.as_str()))
        .collect();
    assert_eq!(errors, [(LineStream::Stderr, "ERROR no database")]);
    let found = running.lines("service=web,other&q=OTHER&since=1m").await;
    let texts: Vec<_> = found.iter().map(|line| line.text.as_str()).collect();
    assert!(texts.contains(&"other"), "{texts:?}");
    let ids: Vec<u64> = running
        .lines("n=1000")
        .await
        .iter()
        .map(|line| line.id)
        .collect();
    assert!(ids.is_sorted(), "{ids:?}");

    let client = running.client().await;
    let mut followed = client
        .events("/api/logs?follow=true&service=web&n=0")
        .await
        .unwrap();
    running
        .post("/api/services/web/restart", json!({}))
        .await
        .unwrap();
    let mut texts = Vec::new();
    while texts.iter().filter(|text| *text == "plain").count() < 1 {
        let event = next(&mut followed).await;
        let line: LineView = serde_json::from_str(&event.data).unwrap();
        texts.push(line.text);
    }
    // The restart is reported by a line between the output of the two runs.
    let end = texts
        .iter()
        .position(|text| text.starts_with("starting"))
        .unwrap();
    let begin = texts.iter().position(|text| text == "INFO hello").unwrap();
    assert!(end < begin, "{texts:?}");
    running.supervisor.shutdown().await;
}

#[tokio::test]
async fn events_begin_with_a_snapshot_and_then_report_each_change_once() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start([service("web", dir.path())]);
    running
        .until("web", "it is ready", is(ServiceState::Ready))
        .await;
    let mut events = running.client().await.events("/api/events").await.unwrap();
    let first = next(&mut events).await;
    assert_eq!(first.kind, "snapshot");
    let snapshot: StackView = serde_json::from_str(&first.data).unwrap();
    assert_eq!(snapshot.services[0].state, ServiceState::Ready);

    kill_9(snapshot.services[0].instances[0].pid.unwrap());
    let mut states = Vec::new();
    while states.last() != Some(&ServiceState::Ready) {
        let event = next(&mut events).await;
        assert_eq!(event.kind, "service");
        let service: ServiceView = serde_json::from_str(&event.data).unwrap();
        if service.state == ServiceState::Failed {
            let signal = service.instances[0]
                .exit
                .as_ref()
                .unwrap()
                .signal
                .as_deref();
            assert_eq!(signal, Some("KILL"));
            assert!(service.instances[0].next_start_at.is_some());
        }
        states.push(service.state);
    }
    assert!(states.contains(&ServiceState::Failed), "{states:?}");
    running.supervisor.shutdown().await;
}

/// What a client that reconnects receives, up to a text.
async fn after(running: &Running, path: &str, last_event_id: u64, text: &str) -> String {
    let mut stream = UnixStream::connect(running.socket.path()).await.unwrap();
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nlast-event-id: {last_event_id}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut received = Vec::new();
    loop {
        let read = stream.read_buf(&mut received);
        let count = tokio::time::timeout(Duration::from_secs(60), read).await;
        let so_far = String::from_utf8_lossy(&received);
        assert!(matches!(count, Ok(Ok(1..))), "no {text:?} in {so_far}");
        if so_far.contains(text) {
            return so_far.into_owned();
        }
    }
}

#[tokio::test]
async fn a_client_that_reconnects_receives_what_it_has_missed() {
    let script = "echo one; echo two; exec sleep 600";
    let running = Running::start([shell("web", script)]);
    eventually("all is written", || {
        let written = running.supervisor.recent_lines("web", 9).unwrap();
        (written.len() == 2).then_some(())
    })
    .await;
    let lines = running.lines("service=web").await;
    let one = lines.iter().find(|line| line.text == "one").unwrap();
    let path = "/api/logs?follow=true&service=web";
    let received = after(&running, path, one.id, "\"two\"").await;
    assert!(!received.contains("\"one\""), "{received}");

    let running_then = running.until("web", "it runs", is(ServiceState::Running));
    let pid = running_then.await.instances[0].pid.unwrap();
    let stack: StackView = running.client().await.get("/api/stack").await.unwrap();
    kill_9(pid);
    running
        .until("web", "it runs again", |web| web.restarts == 1)
        .await;
    let received = after(&running, "/api/events", stack.event_id, "\"restarts\":1").await;
    assert!(received.contains("\"failed\""), "{received}");
    assert!(!received.contains("snapshot"), "{received}");
    running.supervisor.shutdown().await;
}

#[tokio::test]
async fn the_environment_shows_the_source_of_each_variable_and_hides_secrets() {
    let web = shell("web", "exec sleep 600")
        .port(0)
        .variable(
            "FROM_FILE",
            "{port}",
            VariableSource::File(".env".to_owned()),
        )
        .variable("CONSUL_HOST", "", VariableSource::Waypost)
        .variable("REGISTRY", "localhost", VariableSource::Waypost)
        .env("STRIPE_KEY", "sk_live_1");
    let running = Running::start([web]);
    let path = "/api/services/web/environment";
    let variables: Vec<VariableView> = running.client().await.get(path).await.unwrap();
    let find = |name: &str| {
        let found = variables.iter().find(|it| it.name == name);
        found.map(|it| (it.value.as_str(), it.masked, it.source.as_str()))
    };
    assert_eq!(find("FROM_FILE"), Some(("{port}", false, "env-file .env")));
    assert_eq!(find("REGISTRY"), Some(("localhost", false, "waypost")));
    assert_eq!(find("STRIPE_KEY"), Some(("***", true, "env")));
    assert_eq!(find("CONSUL_HOST"), None);
    assert_eq!(find("PATH").unwrap().2, "shell");
    running.supervisor.shutdown().await;
}

#[tokio::test]
async fn a_request_for_down_reaches_the_process_that_runs_the_stack() {
    let running = Running::start([shell("web", "exec sleep 600")]);
    running.post("/api/down", json!({})).await.unwrap();
    running.control.down_requested().await;
    running.supervisor.shutdown().await;
}

#[tokio::test]
async fn the_client_reports_that_no_stack_is_running() {
    let error = Client::connect(Path::new("/nonexistent/stack.sock"))
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "no stack is running");
}
