//! Common problems of a Consul agent on a laptop, which the agent must not have.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, advance, sleep, timeout};
use waypost_agent::Agent;

use crate::raw_http::{Request, Response, read_response};

const SOON: Duration = Duration::from_secs(30);
const REGISTER: &str = "/v1/agent/service/register";

async fn put(agent: &Agent, target: &str, body: &str) -> String {
    let request = Request::new("PUT", target, body);
    let response = request.send(agent.http_addr()).await.unwrap();
    assert_eq!(response.status, "200 OK", "{target}: {}", response.text());
    response.text()
}

async fn get(agent: &Agent, target: &str) -> Response {
    let request = Request::new("GET", target, "");
    request.send(agent.http_addr()).await.unwrap()
}

#[tokio::test]
async fn the_agent_works_without_waiting_for_a_leader() {
    let agent = Agent::start().await.unwrap();
    let body = r#"{"Name":"web","Check":{"TTL":"1h","Status":"passing"}}"#;
    put(&agent, REGISTER, body).await;
    let seen = get(&agent, "/v1/health/service/web?passing").await;
    assert!(seen.text().contains("service:web"), "{}", seen.text());
    let leader = get(&agent, "/v1/status/leader").await;
    assert_eq!(leader.text(), r#""127.0.0.1:8300""#);
}

/// Suspends the machine for a night: to every timer, twelve hours pass at once.
#[tokio::test(start_paused = true)]
async fn the_agent_works_after_the_machine_was_suspended() {
    let agent = Agent::start().await.unwrap();
    let probe = agent.url();
    let probed = format!(
        r#"{{"Name":"probed","Check":{{"HTTP":"{probe}/v1/status/leader","Interval":"10s"}}}}"#
    );
    put(&agent, REGISTER, &probed).await;
    let reporting = r#"{"Name":"reporting","Check":{"TTL":"30s","Status":"passing"}}"#;
    put(&agent, REGISTER, reporting).await;
    put(&agent, "/v1/session/create", r#"{"TTL":"30s"}"#).await;
    let passing = "/v1/health/state/passing";
    until(&agent, passing, "service:probed").await;

    let index = get(&agent, "/v1/health/service/reporting").await;
    let index = index.header("X-Consul-Index").unwrap().to_owned();
    let address = agent.http_addr();
    let watcher = tokio::spawn(async move {
        let target = format!("/v1/health/service/reporting?index={index}&wait=10m");
        Request::new("GET", &target, "").send(address).await
    });
    // The query must be waiting before the clock is advanced.
    sleep(Duration::from_secs(1)).await;
    advance(Duration::from_secs(12 * 60 * 60)).await;

    // The test client may have timed out. Only the agent matters here.
    let _ = watcher.await.unwrap();
    until(&agent, "/v1/health/state/critical", "service:reporting").await;
    put(&agent, "/v1/agent/check/pass/service:reporting", "").await;
    until(&agent, passing, "service:reporting").await;
    until(&agent, passing, "service:probed").await;
    assert_eq!(get(&agent, "/v1/session/list").await.text(), "[]");
    put(&agent, REGISTER, r#"{"Name":"new"}"#).await;
    let names = get(&agent, "/v1/catalog/services").await.text();
    assert_eq!(
        names,
        r#"{"consul":[],"new":[],"probed":[],"reporting":[]}"#
    );
}

async fn until(agent: &Agent, target: &str, text: &str) {
    let seen = async {
        while !get(agent, target).await.text().contains(text) {
            sleep(Duration::from_millis(100)).await;
        }
    };
    let seen = timeout(Duration::from_secs(60), seen).await;
    assert!(seen.is_ok(), "{target} never had {text}");
}

#[tokio::test]
async fn the_agent_starts_with_any_number_of_network_interfaces() {
    for (bound, advertised, shown) in [
        (Ipv4Addr::LOCALHOST, None, "127.0.0.1"),
        (Ipv4Addr::UNSPECIFIED, None, "127.0.0.1"),
        (Ipv4Addr::UNSPECIFIED, Some([192, 168, 7, 7]), "192.168.7.7"),
    ] {
        let mut builder = Agent::builder()
            .http(SocketAddr::from((bound, 0)))
            .token("secret");
        if let Some(address) = advertised {
            builder = builder.advertise(IpAddr::from(address));
        }
        let agent = builder.start().await.unwrap();
        let nodes = get(&agent, "/v1/catalog/nodes?token=secret").await.text();
        let expected = format!("\"Address\":\"{shown}\"");
        assert!(nodes.contains(&expected), "{nodes}");
        agent.shutdown().await;
    }
}

#[tokio::test]
async fn the_time_of_a_registration_does_not_depend_on_the_number_of_instances() {
    const SAMPLE: usize = 200;
    const MANY: usize = 4_000;
    let (empty, full) = (Agent::start().await.unwrap(), Agent::start().await.unwrap());
    let (mut few, mut many) = (Client::of(&empty).await, Client::of(&full).await);
    for n in 0..MANY {
        many.register(n).await;
    }
    // Alternate, so that other load on the machine affects both equally.
    let (mut of_few, mut of_many) = (Vec::new(), Vec::new());
    for n in 0..SAMPLE {
        of_few.push(few.register(n).await);
        of_many.push(many.register(MANY + n).await);
    }
    // The fastest of each, because the others depend on what else the machine is doing.
    let (few, many) = (of_few.iter().min().unwrap(), of_many.iter().min().unwrap());
    // In Consul the factor is twenty.
    assert!(*many < *few * 4, "{few:?} of few, {many:?} of many");
}

/// A connection that registers instances one after the other.
struct Client(TcpStream);

impl Client {
    async fn of(agent: &Agent) -> Self {
        let stream = TcpStream::connect(agent.http_addr()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// Returns the duration of the request.
    async fn register(&mut self, n: usize) -> Duration {
        let body = format!(
            r#"{{"ID":"s-{n}","Name":"s-{}","Check":{{"TTL":"1h","Status":"passing"}}}}"#,
            n % 50
        );
        let request = format!(
            "PUT {REGISTER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let start = Instant::now();
        self.0.write_all(request.as_bytes()).await.unwrap();
        let response = timeout(SOON, read_response(&mut self.0)).await.unwrap();
        let took = start.elapsed();
        assert_eq!(response.unwrap().status, "200 OK");
        took
    }
}
