//! The access log.

use std::io;
use std::sync::{Arc, Mutex};

use http::Request;
use tracing::subscriber::NoSubscriber;
use tracing_subscriber::fmt::MakeWriter;

use crate::support::{Origin, RawClient, RawOrigin, TestGateway, unused_address, wait_until};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("not poisoned")).into_owned()
    }

    /// Waits for the access log line of a path.
    async fn of(&self, path: &str) -> String {
        let matches =
            |line: &&str| line.contains("access") && line.contains(&format!("path=\"{path}\""));
        wait_until(path, || self.text().lines().any(|line| matches(&line))).await;
        self.text()
            .lines()
            .find(matches)
            .expect("the line")
            .to_owned()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .expect("not poisoned")
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn every_request_is_logged_with_its_outcome() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(lines.clone())
        .finish();
    // tracing caches whether a callsite is enabled. With only one subscriber it would cache the
    // answer of the other tests' threads, which have none, so a global one is registered as well.
    let _ = tracing::subscriber::set_global_default(NoSubscriber::default());
    let _guard = tracing::subscriber::set_default(subscriber);
    let gateway = TestGateway::start().await;
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
    let (zero, one) = (lines.of("/auth/0").await, lines.of("/auth/1").await);
    for line in [&zero, &one] {
        for part in [
            "method=POST",
            "status=200",
            "route=\"auth\"",
            "instance=\"live\"",
            "request_bytes=5",
            "end=\"complete\"",
            "request_id=\"my-id\"",
            "duration_ms=",
            "first_byte_ms=",
            "peer=127.0.0.1:",
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
    }
    let retried = [&zero, &one]
        .into_iter()
        .find(|line| line.contains("attempts=2"))
        .unwrap();
    assert!(retried.contains("cause=\"connect_failed: "), "{retried}");

    gateway.get("/unknown/").await;
    let line = lines.of("/unknown/").await;
    assert!(
        line.contains("status=404") && line.contains("end=\"unknown_service\""),
        "{line}"
    );

    let mut client = RawClient::connect(gateway.address).await;
    client
        .send("GET /broken/ HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    client.read_to_end().await;
    let line = lines.of("/broken/").await;
    assert!(
        line.contains("end=\"upstream_broken\"") && line.contains("response_bytes=4"),
        "{line}"
    );

    let mut client = RawClient::connect(gateway.address).await;
    client
        .send("GET /silent/ HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    wait_until("the request", || silent.requests() == 1).await;
    drop(client);
    let line = lines.of("/silent/").await;
    assert!(
        line.contains("end=\"client_closed\"") && line.contains("instance=\"s\""),
        "{line}"
    );
    assert!(!line.contains("status="), "{line}");
}
