//! The access log.

use std::path::PathBuf;
use std::sync::Arc;

use http::Request;
use serde_json::Value;
use waypost_gateway::{AccessLog, AccessLogFormat};

use crate::support::{
    FlakyRegistry, Origin, RawClient, RawOrigin, TestGateway, unused_address, wait_until,
};

/// A log file in a folder of its own.
struct LogFile {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl LogFile {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("access.log");
        Self {
            _folder: folder,
            path,
        }
    }

    fn open(&self, format: AccessLogFormat) -> AccessLog {
        AccessLog::to_file(&self.path, format).expect("a file")
    }

    /// Waits for the line that contains a text.
    async fn line_with(&self, text: &str) -> String {
        let find = || {
            let read = std::fs::read_to_string(&self.path).unwrap_or_default();
            // The last line may not be complete yet.
            let mut lines = read
                .split_inclusive('\n')
                .filter(|line| line.ends_with('\n'));
            let found = lines.find(|line| line.contains(text));
            found.map(|line| line.trim_end().to_owned())
        };
        wait_until(text, || find().is_some()).await;
        find().expect("the line")
    }

    /// Waits for the JSON line of a path.
    async fn of(&self, path: &str) -> Value {
        let line = self.line_with(&format!("\"path\":\"{path}\"")).await;
        serde_json::from_str(&line).expect("JSON")
    }
}

#[tokio::test]
async fn every_request_is_logged_with_its_outcome() {
    let log = LogFile::new();
    let gateway = TestGateway::start_with(|config| {
        config.access_log = Some(log.open(AccessLogFormat::Json));
    })
    .await;
    gateway.add("auth", "dead", unused_address()).await;
    gateway
        .add("auth", "live", Origin::echo().await.address)
        .await;
    let breaking = RawOrigin::writes("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").await;
    gateway.add("broken", "b", breaking.address).await;
    let silent = Origin::start(|_| std::future::pending::<http::Response<_>>()).await;
    gateway.add("silent", "s", silent.address).await;

    for n in 0..2 {
        let request =
            Request::post(gateway.url(&format!("/auth/{n}"))).header("x-request-id", "my-id");
        gateway.send_body(request, "12345").await;
    }
    let lines = [log.of("/auth/0").await, log.of("/auth/1").await];
    for line in &lines {
        for (member, value) in [
            ("method", Value::from("POST")),
            ("status", 200.into()),
            ("route", "auth".into()),
            ("service", "auth".into()),
            ("instance", "live".into()),
            ("request_bytes", 5.into()),
            ("end", "complete".into()),
            ("request_id", "my-id".into()),
        ] {
            assert_eq!(line[member], value, "{line}");
        }
        let (first, whole) = (&line["first_byte_ms"], &line["duration_ms"]);
        assert!(first.as_f64() <= whole.as_f64(), "{line}");
        assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
    }
    let retried = lines.iter().find(|line| line["attempts"] == 2).unwrap();
    let cause = retried["cause"].as_str().unwrap();
    assert!(cause.starts_with("connect_failed: "), "{retried}");

    gateway.get("/unknown/").await;
    let line = log.of("/unknown/").await;
    assert_eq!(
        (&line["status"], &line["end"]),
        (&404.into(), &"unknown_service".into())
    );

    let mut client = RawClient::connect(gateway.address).await;
    client
        .send("GET /broken/ HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    client.read_to_end().await;
    let line = log.of("/broken/").await;
    assert_eq!(line["end"], "upstream_broken");
    assert_eq!(line["response_bytes"], 4);

    let mut client = RawClient::connect(gateway.address).await;
    client
        .send("GET /silent/ HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    wait_until("the request", || silent.requests() == 1).await;
    drop(client);
    let line = log.of("/silent/").await;
    assert_eq!(
        (&line["end"], &line["instance"]),
        (&"client_closed".into(), &"s".into())
    );
    assert!(line["status"].is_null(), "{line}");
}

#[tokio::test]
async fn a_line_of_text_names_route_instance_and_end() {
    let log = LogFile::new();
    let gateway = TestGateway::start_with(|config| {
        config.access_log = Some(log.open(AccessLogFormat::Text));
    })
    .await;
    let origin = Origin::text("hello").await;
    gateway.add("auth", "a\u{1b}[2J", origin.address).await;
    gateway.get("/auth/x").await;
    let line = log.line_with("path=\"/auth/x\"").await;
    for part in [
        "method=GET",
        "status=200",
        "route=\"auth\"",
        r#"instance="a\u001b[2J""#,
        "attempts=1",
        "response_bytes=5",
        "end=\"complete\"",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
}

#[tokio::test]
async fn clients_of_a_public_gateway_learn_no_internals_and_the_log_has_them() {
    let log = LogFile::new();
    let registry = FlakyRegistry::new();
    let memory = registry.memory.clone();
    let gateway = TestGateway::start_on(Arc::new(registry.clone()), memory, |config| {
        config.error_details = false;
        config.max_attempts = 1;
        config.access_log = Some(log.open(AccessLogFormat::Json));
    })
    .await;
    let dead = unused_address();
    gateway.add("billing", "billing-7", dead).await;
    let says_nothing = async |path: &str, reason: &str| {
        for accept in ["*/*", "text/html"] {
            let request = Request::get(gateway.url(path)).header("accept", accept);
            let answer = gateway.send(request).await;
            let port = dead.port().to_string();
            for internal in ["the test's", "billing", &port, "refused"] {
                assert!(!answer.text().contains(internal), "{}", answer.text());
            }
            assert!(answer.text().contains(reason), "{}", answer.text());
        }
    };
    says_nothing("/biling/x", "unknown_service").await;
    says_nothing("/billing/", "connect_failed").await;
    registry.set_down(true);
    let failing = async || gateway.get("/health").await.json()["status"] == "warning";
    crate::support::with_deadline("the failure", async { while !failing().await {} }).await;
    says_nothing("/missing", "registry_unreachable").await;
    says_nothing("/health", "warning").await;
    says_nothing("/readyz", "warning").await;

    assert_eq!(
        log.of("/biling/x").await["cause"],
        "the test's registry has no service \"biling\""
    );
    let cause = log.of("/billing/").await["cause"].to_string();
    assert!(cause.contains("refused"), "{cause}");
    let cause = log.of("/missing").await["cause"].to_string();
    assert!(cause.contains("the test's registry"), "{cause}");
    let health = gateway.get("/internal/health").await.json();
    assert!(health["registry"]["error"].is_string(), "{health}");
}

#[tokio::test]
async fn lines_that_could_not_be_written_are_counted_in_the_metrics() {
    /// A full disk.
    struct Full;

    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let gateway = TestGateway::start_with(|config| {
        config.access_log = Some(AccessLog::to_writer(Full, AccessLogFormat::Text));
    })
    .await;
    for _ in 0..3 {
        gateway.get("/unknown/").await;
    }
    let metric = "waypost_gateway_access_log_lines_lost_total";
    let counted = async || {
        let page = gateway.get("/metrics").await;
        let text = page.text();
        text.contains(&format!("{metric}{{reason=\"queue_full\"}} 0\n"))
            && text.contains(&format!("{metric}{{reason=\"write_failed\"}} 3\n"))
    };
    crate::support::with_deadline("the count", async { while !counted().await {} }).await;
}
