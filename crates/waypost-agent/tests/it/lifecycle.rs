//! Starting and stopping the agent.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};
use waypost_agent::{Agent, Error};
use waypost_testkit::free_ports;

use crate::raw_http::{Request, read_response};

const SOON: Duration = Duration::from_secs(30);

/// The clock is paused: it advances only if something waits for a time.
#[tokio::test(start_paused = true)]
async fn the_agent_starts_and_answers_without_waiting_for_anything() {
    let start = Instant::now();
    let agent = Agent::start().await.unwrap();
    let leader = Request::new("GET", "/v1/status/leader", "");
    let leader = leader.send(agent.http_addr()).await.unwrap();
    assert_eq!(leader.status, "200 OK");
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn the_port_is_free_after_shutdown() {
    let [port] = free_ports();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let agent = Agent::builder().http(address).start().await.unwrap();
    let idle = TcpStream::connect(address).await.unwrap();
    agent.shutdown().await;
    let again = Agent::builder().http(address).start().await.unwrap();
    assert_eq!(again.http_addr(), address);
    drop(idle);
}

#[tokio::test]
async fn dropping_the_agent_stops_it() {
    let [port] = free_ports();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let agent = Agent::builder().http(address).start().await.unwrap();
    drop(agent);
    let gone = async {
        while TcpStream::connect(address).await.is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, gone).await.unwrap();
}

#[tokio::test]
async fn the_error_for_a_port_in_use_names_the_address() {
    let holder = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = holder.local_addr().unwrap();
    let error = Agent::builder().http(address).start().await.unwrap_err();
    assert!(matches!(error, Error::Bind { .. }));
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[cfg(unix)]
#[tokio::test]
async fn a_unix_socket_is_served_and_removed_at_shutdown() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("consul.sock");
    let builder = || Agent::builder().http_socket(&path);
    // Leave a socket file behind, as a killed process does.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());

    let agent = builder().start().await.unwrap();
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    let request = "GET /v1/agent/services HTTP/1.1\r\nHost: /tmp/consul.sock\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let response = timeout(SOON, read_response(&mut stream)).await.unwrap();
    assert_eq!(response.unwrap().status, "200 OK");

    let error = builder().start().await.unwrap_err();
    assert!(error.to_string().contains("consul.sock"), "{error}");
    agent.shutdown().await;
    assert!(!path.exists());
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_agents_own_unix_socket_is_removed() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("consul.sock");
    let builder = || Agent::builder().http_socket(&path);
    std::fs::write(&path, "data").unwrap();
    let error = builder().start().await.unwrap_err();
    assert!(error.to_string().contains("not a socket"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "data");

    std::fs::remove_file(&path).unwrap();
    let agent = builder().start().await.unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "of another program").unwrap();
    agent.shutdown().await;
    assert!(path.exists());
}

#[tokio::test]
async fn the_node_has_the_configured_id() {
    let id = "7b6a1a4c-3a52-4f0e-9d6f-0c5d6a1f2b3e";
    let agent = Agent::builder().node_id(id).start().await.unwrap();
    let nodes = Request::new("GET", "/v1/catalog/nodes", "");
    let nodes = nodes.send(agent.http_addr()).await.unwrap().text();
    assert!(nodes.contains(&format!("\"ID\":\"{id}\"")), "{nodes}");
    for wrong in ["", "n1", "7b6a1a4c-3a52-4f0e-9d6f-0c5d6a1f2b3x"] {
        let error = Agent::builder().node_id(wrong).start().await.unwrap_err();
        assert!(matches!(error, Error::NodeId { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_healthy_service_is_passing_right_after_its_registration() {
    let agent = Agent::start().await.unwrap();
    let body = format!(
        r#"{{"Name":"web","Check":{{"HTTP":"{}/v1/status/leader","Interval":"1h"}}}}"#,
        agent.url()
    );
    let register = Request::new("PUT", "/v1/agent/service/register", &body);
    register.send(agent.http_addr()).await.unwrap();
    let passing = Request::new("GET", "/v1/health/service/web?passing", "");
    let seen = async {
        while passing.send(agent.http_addr()).await.unwrap().text() == "[]" {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, seen).await.unwrap();
}

#[tokio::test]
async fn the_web_page_and_its_files_are_served() {
    let agent = Agent::start().await.unwrap();
    let get = async |target: &str| {
        let request = Request::new("GET", target, "");
        request.send(agent.http_addr()).await.unwrap()
    };
    let page = get("/ui/").await;
    for (target, root) in [
        ("/ui/services", "./"),
        ("/ui/services/web", "../"),
        ("/ui/registry/keys/a/b", "../../../"),
        ("/ui/dc1/services", "../"),
    ] {
        let response = get(target).await;
        let base = format!("<base href=\"{root}\"");
        assert!(response.text().contains(&base), "{target}");
        assert_eq!(response.status, "200 OK", "{target}");
        let kind = response.header("Content-Type");
        assert_eq!(kind, Some("text/html; charset=utf-8"), "{target}");
    }
    let text = page.text();
    let (_, rest) = text.split_once("src=\"assets/").unwrap();
    let (hash, _) = rest.split_once('/').unwrap();
    for (name, kind) in [
        ("app.js", "text/javascript; charset=utf-8"),
        ("style.css", "text/css; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
    ] {
        let response = get(&format!("/ui/assets/{hash}/{name}")).await;
        assert_eq!(response.status, "200 OK", "{name}");
        assert_eq!(response.header("Content-Type"), Some(kind), "{name}");
        assert!(response.header("ETag").is_some(), "{name}");
        assert!(!response.body.is_empty());
    }
    let missing = get("/ui/assets/0000000000000000/app.js").await;
    assert_eq!(missing.status, "404 Not Found");
}
