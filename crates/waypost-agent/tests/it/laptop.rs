//! What people complain about in a Consul on a laptop, and what happens here instead.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, advance, sleep, timeout};
use waypost_agent::Agent;

use crate::raw_http::{Request, Response};

const SOON: Duration = Duration::from_secs(30);
const REGISTER: &str = "/v1/agent/service/register";

async fn put(agent: &Agent, target: &str, body: &str) -> String {
    let request = Request::new("PUT", target, body);
    let answer = request.send(agent.http_addr()).await.unwrap();
    assert_eq!(answer.status, "200 OK", "{target}: {}", answer.text());
    answer.text()
}

async fn get(agent: &Agent, target: &str) -> Response {
    let request = Request::new("GET", target, "");
    request.send(agent.http_addr()).await.unwrap()
}

#[tokio::test]
async fn there_is_no_leader_to_wait_for() {
    let agent = Agent::start().await.unwrap();
    let body = r#"{"Name":"web","Check":{"TTL":"1h","Status":"passing"}}"#;
    put(&agent, REGISTER, body).await;
    let seen = get(&agent, "/v1/health/service/web?passing").await;
    assert!(seen.text().contains("service:web"), "{}", seen.text());
    let leader = get(&agent, "/v1/status/leader").await;
    assert_eq!(leader.text(), r#""127.0.0.1:8300""#);
}

/// A laptop that was closed for a night: to all that wait by the clock, twelve hours pass at once.
#[tokio::test(start_paused = true)]
async fn it_goes_on_after_a_night_of_sleep() {
    let agent = Agent::start().await.unwrap();
    let probe = agent.url();
    let looks = format!(
        r#"{{"Name":"looks","Check":{{"HTTP":"{probe}/v1/status/leader","Interval":"10s"}}}}"#
    );
    put(&agent, REGISTER, &looks).await;
    let reports = r#"{"Name":"reports","Check":{"TTL":"30s","Status":"passing"}}"#;
    put(&agent, REGISTER, reports).await;
    put(&agent, "/v1/session/create", r#"{"TTL":"30s"}"#).await;
    let passing = "/v1/health/state/passing";
    until(&agent, passing, "service:looks").await;

    let index = get(&agent, "/v1/health/service/reports").await;
    let index = index.header("X-Consul-Index").unwrap().to_owned();
    let address = agent.http_addr();
    let watcher = tokio::spawn(async move {
        let target = format!("/v1/health/service/reports?index={index}&wait=10m");
        Request::new("GET", &target, "").send(address).await
    });
    // It must be waiting before the lid is closed.
    sleep(Duration::from_secs(1)).await;
    advance(Duration::from_secs(12 * 60 * 60)).await;

    // The client of these tests may have given up meanwhile; the agent must not have.
    let _ = watcher.await.unwrap();
    until(&agent, "/v1/health/state/critical", "service:reports").await;
    put(&agent, "/v1/agent/check/pass/service:reports", "").await;
    until(&agent, passing, "service:reports").await;
    until(&agent, passing, "service:looks").await;
    assert_eq!(get(&agent, "/v1/session/list").await.text(), "[]");
    put(&agent, REGISTER, r#"{"Name":"new"}"#).await;
    let names = get(&agent, "/v1/catalog/services").await.text();
    assert_eq!(names, r#"{"consul":[],"looks":[],"new":[],"reports":[]}"#);
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
async fn the_number_of_interfaces_doesnt_matter() {
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
        let wanted = format!("\"Address\":\"{shown}\"");
        assert!(nodes.contains(&wanted), "{nodes}");
        agent.shutdown().await;
    }
}

#[tokio::test]
async fn a_registration_costs_the_same_however_many_there_are() {
    const SAMPLE: usize = 200;
    const MANY: usize = 4_000;
    let (empty, full) = (Agent::start().await.unwrap(), Agent::start().await.unwrap());
    let (mut few, mut many) = (Client::of(&empty).await, Client::of(&full).await);
    for n in 0..MANY {
        many.register(n).await;
    }
    // In turns, so that whatever else the machine does slows down both.
    let (mut of_few, mut of_many) = (Vec::new(), Vec::new());
    for n in 0..SAMPLE {
        of_few.push(few.register(n).await);
        of_many.push(many.register(MANY + n).await);
    }
    let median = |times: &mut [Duration]| {
        times.sort_unstable();
        times[times.len() / 2]
    };
    let (few, many) = (median(&mut of_few), median(&mut of_many));
    // With a Consul it is twenty times as much.
    assert!(many < few * 4, "{few:?} of few, {many:?} of many");
}

/// A connection that registers one instance after the other.
struct Client(TcpStream);

impl Client {
    async fn of(agent: &Agent) -> Self {
        let stream = TcpStream::connect(agent.http_addr()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// Gives how long it took.
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
        let mut answer = [0; 1024];
        let read = timeout(SOON, self.0.read(&mut answer)).await;
        let length = read.unwrap().unwrap();
        let took = start.elapsed();
        assert!(answer[..length].starts_with(b"HTTP/1.1 200 OK"));
        took
    }
}
