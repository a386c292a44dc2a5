//! A long response that many clients request at once is in memory only once.

use std::net::SocketAddr;
use std::time::Duration;

use allocation_counter::measure;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;
use waypost_agent::Agent;

use crate::raw_http::Request;

const CLIENTS: usize = 40;

/// A runtime on this thread alone, so that all allocations of the agent are counted.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

async fn put(address: SocketAddr, target: &str, body: &str) {
    let response = Request::new("PUT", target, body)
        .send(address)
        .await
        .unwrap();
    assert_eq!(response.status, "200 OK", "{target}: {}", response.text());
}

async fn get(address: SocketAddr, target: &str) -> (u64, usize) {
    let response = Request::new("GET", target, "").send(address).await.unwrap();
    let index = response.header("X-Consul-Index").unwrap().parse().unwrap();
    (index, response.text().len())
}

/// Sends a request whose response is not read.
async fn ask(address: SocketAddr, target: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[test]
fn all_watchers_of_the_list_of_services_share_one_response() {
    let runtime = runtime();
    let (agent, watchers, length) = runtime.block_on(async {
        let agent = Agent::start().await.unwrap();
        let address = agent.http_addr();
        for batch in 0..20 {
            let operations: Vec<_> = (0..60)
                .map(|n| {
                    let name = format!("a-service-with-a-long-name-{batch}-{n}");
                    format!(
                        r#"{{"Service":{{"Verb":"set","Node":"{}","Service":{{"Service":"{name}"}}}}}}"#,
                        "node"
                    )
                })
                .collect();
            let node = r#"{"Node":"node","Address":"10.0.0.1"}"#;
            put(address, "/v1/catalog/register", node).await;
            put(address, "/v1/txn", &format!("[{}]", operations.join(","))).await;
        }
        let (index, length) = get(address, "/v1/catalog/services").await;
        let target = format!("/v1/catalog/services?index={index}&wait=10m");
        let mut watchers = Vec::new();
        for _ in 0..CLIENTS {
            watchers.push(ask(address, &target).await);
        }
        // Until all of them wait.
        sleep(Duration::from_millis(300)).await;
        (agent, watchers, length)
    });
    assert!(length > 30_000, "{length}");
    let woken = measure(|| {
        runtime.block_on(async {
            let service = r#"{"Name":"one-more"}"#;
            put(agent.http_addr(), "/v1/agent/service/register", service).await;
            for watcher in &watchers {
                watcher.readable().await.unwrap();
            }
        });
    });
    // The list is serialized once, in a growing buffer. Without sharing, it would take 40 times as much.
    let bytes = woken.bytes_total as usize;
    assert!(
        bytes < CLIENTS * length / 3,
        "{bytes} bytes for a response of {length}"
    );
    drop(watchers);
}

#[test]
fn requests_for_the_same_keys_share_one_response_while_it_is_sent() {
    let runtime = runtime();
    let (agent, length) = runtime.block_on(async {
        let agent = Agent::start().await.unwrap();
        let value = "v".repeat(100_000);
        for n in 0..10 {
            put(agent.http_addr(), &format!("/v1/kv/files/{n}"), &value).await;
        }
        let (_, length) = get(agent.http_addr(), "/v1/kv/files?recurse").await;
        (agent, length)
    });
    let sent = measure(|| {
        runtime.block_on(async {
            let mut clients = Vec::new();
            for _ in 0..CLIENTS {
                clients.push(ask(agent.http_addr(), "/v1/kv/files?recurse").await);
            }
            for client in &clients {
                client.readable().await.unwrap();
            }
        });
    });
    // Serialized once, in a growing buffer.
    let most = sent.bytes_max as usize;
    assert!(
        most < CLIENTS * length / 4,
        "{most} bytes for a response of {length}"
    );
}
