//! Keys, locks and sessions.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use waypost_agent::Agent;

use crate::raw_http::{Request, Response};

const SOON: Duration = Duration::from_secs(50);
const A_WHILE: Duration = Duration::from_millis(300);

async fn put(agent: &Agent, target: &str, body: &str) -> String {
    let request = Request::new("PUT", target, body);
    let response = request.send(agent.http_addr()).await.unwrap();
    assert_eq!(response.status, "200 OK", "{target}: {}", response.text());
    response.text()
}

async fn get(address: SocketAddr, target: &str) -> Response {
    Request::new("GET", target, "").send(address).await.unwrap()
}

async fn session(agent: &Agent, body: &str) -> String {
    let created = put(agent, "/v1/session/create", body).await;
    let created: serde_json::Value = serde_json::from_str(&created).unwrap();
    created["ID"].as_str().unwrap().to_owned()
}

/// Starts a blocking query with the current index.
async fn watch(agent: &Agent, target: &str) -> JoinHandle<Response> {
    let address = agent.http_addr();
    let now = get(address, target).await;
    let index = now.header("X-Consul-Index").unwrap();
    let separator = if target.contains('?') { '&' } else { '?' };
    let target = format!("{target}{separator}index={index}&wait=10m");
    tokio::spawn(async move { get(address, &target).await })
}

#[tokio::test]
async fn a_key_wakes_only_the_watchers_of_it_and_of_its_prefixes() {
    let agent = Agent::start().await.unwrap();
    put(&agent, "/v1/kv/a/b", "1").await;
    put(&agent, "/v1/kv/z", "1").await;
    let mut woken = Vec::new();
    for target in [
        "/v1/kv/a/b",
        "/v1/kv/a/?recurse",
        "/v1/kv/a?keys",
        "/v1/kv/?keys",
    ] {
        woken.push((target, watch(&agent, target).await));
    }
    let mut waiting = Vec::new();
    for target in ["/v1/kv/z", "/v1/kv/z?keys", "/v1/kv/z?recurse"] {
        waiting.push((target, watch(&agent, target).await));
    }
    put(&agent, "/v1/kv/a/b", "2").await;
    for (target, watcher) in woken {
        let response = timeout(SOON, watcher).await;
        assert!(response.is_ok(), "{target} wasn't woken");
    }
    for (target, watcher) in &mut waiting {
        let response = timeout(A_WHILE, watcher).await;
        assert!(response.is_err(), "{target} was woken without a change");
    }
}

#[tokio::test]
async fn a_watcher_of_a_lock_wakes_when_a_check_of_the_holder_fails() {
    let agent = Agent::start().await.unwrap();
    let service = r#"{"Name":"web","Check":{"TTL":"1h","Status":"passing"}}"#;
    put(&agent, "/v1/agent/service/register", service).await;
    let body = r#"{"Checks":["serfHealth","service:web"],"LockDelay":"0s"}"#;
    let holder = session(&agent, body).await;
    let target = format!("/v1/kv/leader?acquire={holder}");
    assert_eq!(put(&agent, &target, "me").await, "true");
    let waiting = watch(&agent, "/v1/kv/leader").await;
    put(&agent, "/v1/agent/check/fail/service:web", "").await;
    let response = timeout(SOON, waiting).await.unwrap().unwrap().text();
    assert!(!response.contains("Session"), "{response}");
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_after_twice_its_ttl_unless_it_is_renewed() {
    let agent = Agent::start().await.unwrap();
    let start = Instant::now();
    let body = r#"{"TTL":"10s","LockDelay":"0s"}"#;
    let (renewed, expiring) = (session(&agent, body).await, session(&agent, body).await);
    let mut ended = None;
    while start.elapsed() < Duration::from_secs(60) {
        sleep(Duration::from_secs(1)).await;
        put(&agent, &format!("/v1/session/renew/{renewed}"), "").await;
        let list = get(agent.http_addr(), "/v1/session/list").await.text();
        assert!(list.contains(&renewed), "the renewed session ended");
        if ended.is_none() && !list.contains(&expiring) {
            ended = Some(start.elapsed());
        }
    }
    let ended = ended.expect("the session never ended");
    assert!((20.0..22.5).contains(&ended.as_secs_f64()), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lock_cannot_be_acquired_during_its_delay() {
    let agent = Agent::start().await.unwrap();
    let first = session(&agent, r#"{"LockDelay":"5s"}"#).await;
    assert_eq!(
        put(&agent, &format!("/v1/kv/lock?acquire={first}"), "").await,
        "true"
    );
    put(&agent, &format!("/v1/session/destroy/{first}"), "").await;
    let end = Instant::now();
    let second = session(&agent, "").await;
    let acquire = format!("/v1/kv/lock?acquire={second}");
    while put(&agent, &acquire, "").await == "false" {
        assert!(
            end.elapsed() < Duration::from_secs(30),
            "the lock delay never ends"
        );
        sleep(Duration::from_millis(100)).await;
    }
    let delay = end.elapsed().as_secs_f64();
    assert!((4.9..6.0).contains(&delay), "{delay} s");
}

#[tokio::test]
async fn the_largest_value_has_512_kib() {
    let agent = Agent::start().await.unwrap();
    let largest = "x".repeat(512 * 1024);
    assert_eq!(put(&agent, "/v1/kv/large", &largest).await, "true");
    let kept = get(agent.http_addr(), "/v1/kv/large?raw").await;
    assert_eq!(kept.text(), largest);
    let larger = Request::new("PUT", "/v1/kv/large", &format!("{largest}x"));
    let response = larger.send(agent.http_addr()).await.unwrap();
    assert_eq!(response.status, "413 Payload Too Large");
    assert_eq!(
        response.text(),
        "Request body(524289 bytes) too large, max size: 524288 bytes. See \
         https://www.consul.io/docs/agent/options.html#kv_max_value_size."
    );
}

/// The list with values is so long that the server still holds it, for others who request it.
#[tokio::test]
async fn a_list_of_keys_has_no_values_while_a_list_with_values_is_being_sent() {
    let agent = Agent::start().await.unwrap();
    let value = "v".repeat(512 * 1024);
    for number in 10..40 {
        put(&agent, &format!("/v1/kv/big/{number}"), &value).await;
    }
    let mut slow = TcpStream::connect(agent.http_addr()).await.unwrap();
    let request = "GET /v1/kv/big/?recurse HTTP/1.1\r\nHost: localhost\r\n\r\n";
    slow.write_all(request.as_bytes()).await.unwrap();
    slow.readable().await.unwrap();
    let keys = get(agent.http_addr(), "/v1/kv/big/?keys").await.text();
    assert!(keys.starts_with(r#"["big/10","big/11","#), "{keys:.100}");
}

#[tokio::test]
async fn the_index_of_a_list_never_goes_back() {
    let agent = Agent::start().await.unwrap();
    let index = async |target: &str| -> u64 {
        let response = get(agent.http_addr(), target).await;
        response.header("X-Consul-Index").unwrap().parse().unwrap()
    };
    let mut random = fastrand::Rng::with_seed(3);
    let mut last = 0;
    for _ in 0..400 {
        let key = format!("/v1/kv/dir/{}", random.u8(..4));
        let (method, target) = match random.u8(..4) {
            0 => ("DELETE", key),
            1 => ("DELETE", "/v1/kv/dir/?recurse".to_owned()),
            _ => ("PUT", key),
        };
        let value = random.u8(..3).to_string();
        Request::new(method, &target, &value)
            .send(agent.http_addr())
            .await
            .unwrap();
        let now = index("/v1/kv/dir/?keys").await;
        assert!(now >= last, "{now} after {last}");
        last = now;
    }
}

#[tokio::test]
async fn malformed_paths_and_bodies_get_a_response() {
    let agent = Agent::start().await.unwrap();
    let mut random = fastrand::Rng::with_seed(11);
    let seeds = [
        r#"[{"KV":{"Verb":"set","Key":"t","Value":"YQ==","Flags":1}},{"KV":{"Verb":"get","Key":"t"}}]"#,
        r#"{"Name":"n","TTL":"10s","LockDelay":"5s","Checks":["serfHealth"],"ServiceChecks":[{"ID":"x"}]}"#,
        r#"{"ID":"i","Name":"n","Port":1,"Tags":["a"],"Check":{"TTL":"10s"},"Weights":{"Passing":1}}"#,
    ];
    let targets = [
        "/v1/txn",
        "/v1/session/create",
        "/v1/agent/service/register",
    ];
    let bytes = b"%/?&=;+.{}[]\"'\\,:0123456789aeZ\x7f~!@#$^*()<>|-_";
    for _ in 0..2_000 {
        let letter = |random: &mut fastrand::Rng| char::from(bytes[random.usize(..bytes.len())]);
        let which = random.usize(..seeds.len());
        let mut body: Vec<char> = seeds[which].chars().collect();
        for _ in 0..random.usize(..4) {
            let at = random.usize(..body.len());
            body[at] = letter(&mut random);
        }
        body.truncate(random.usize(..=body.len()));
        let body: String = body.into_iter().collect();
        let path: String = (0..random.usize(..12))
            .map(|_| letter(&mut random))
            // hyper rejects requests with other characters in the request line.
            .filter(|c| !"#\x7f\"<>{}[]\\^|".contains(*c))
            .collect();
        let path = format!("/v1/kv/{path}");
        let methods = ["GET", "PUT", "DELETE"];
        let method = methods[random.usize(..methods.len())];
        for (method, target) in [("PUT", targets[which]), (method, path.as_str())] {
            let request = Request::new(method, target, &body);
            let response = request.send(agent.http_addr()).await;
            let response =
                response.unwrap_or_else(|error| panic!("{method} {target} {body}: {error}"));
            assert!(!response.status.is_empty());
        }
    }
}
