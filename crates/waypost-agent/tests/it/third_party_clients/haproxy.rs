//! HAProxy with servers from SRV records.

use std::net::{Ipv4Addr, SocketAddr};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use waypost_agent::Agent;
use waypost_testkit::free_ports;

use super::{program, put, start, until};
use crate::raw_http::Request;

/// A server that responds to every request with its name.
struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    /// Servers need different addresses: HAProxy 2.6 assigns no address to a server if another one
    /// already has it.
    async fn start(name: &'static str, host: u8) -> Self {
        let host = Ipv4Addr::new(127, 0, 0, host);
        let listener = TcpListener::bind((host, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut request = [0; 4096];
                if client.read(&mut request).await.is_ok_and(|read| read > 0) {
                    let length = name.len();
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n");
                    let response = format!("{head}Connection: close\r\n\r\n{name}");
                    let _ = client.write_all(response.as_bytes()).await;
                }
            }
        });
        Self { address, task }
    }

    async fn register(&self, agent: &Agent, id: &str) {
        let body = format!(
            r#"{{"ID":"{id}","Name":"web","Address":"{}","Port":{},
                "Check":{{"TTL":"1h","Status":"passing"}}}}"#,
            self.address.ip(),
            self.address.port()
        );
        put(agent.http_addr(), "", "/v1/agent/service/register", &body).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct HaProxy {
    front: SocketAddr,
    _process: Child,
    _folder: TempDir,
}

impl HaProxy {
    fn start(dns: SocketAddr) -> Self {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("haproxy.cfg");
        let [port] = free_ports();
        let front = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        std::fs::write(&file, configuration(dns, front)).unwrap();
        let mut command = Command::new(program("WAYPOST_HAPROXY", "haproxy"));
        command.arg("-db").arg("-f").arg(&file);
        Self {
            front,
            _process: start(&mut command),
            _folder: folder,
        }
    }

    async fn ask(&self) -> String {
        let response = Request::new("GET", "/", "").send(self.front).await;
        response.map(|response| response.text()).unwrap_or_default()
    }

    /// Waits until consecutive requests go to exactly these servers.
    async fn until_all_go_to(&self, expected: &[&str]) {
        until(&format!("{expected:?}"), async || {
            let mut answers = Vec::new();
            for _ in 0..2 * expected.len() {
                answers.push(self.ask().await);
            }
            answers.sort();
            answers.dedup();
            (answers == expected).then_some(())
        })
        .await;
    }
}

fn configuration(dns: SocketAddr, front: SocketAddr) -> String {
    format!(
        "defaults\n  mode http\n  timeout connect 2s\n  timeout client 5s\n  timeout server 5s\n\
         resolvers consul\n  nameserver consul {dns}\n  accepted_payload_size 8192\n  \
         timeout resolve 200ms\n  timeout retry 200ms\n  hold valid 200ms\n  hold obsolete 1s\n\
         frontend front\n  bind {front}\n  default_backend web\n\
         backend web\n  balance roundrobin\n  server-template web 5 _web._tcp.service.consul \
         resolvers consul resolve-prefer ipv4 init-addr none\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_sends_requests_to_the_healthy_instances() {
    let dns = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let agent = Agent::builder().dns(dns).start().await.unwrap();
    let (one, two) = (Server::start("one", 1).await, Server::start("two", 2).await);
    one.register(&agent, "w1").await;
    two.register(&agent, "w2").await;
    let haproxy = HaProxy::start(agent.dns_addr().unwrap());
    haproxy.until_all_go_to(&["one", "two"]).await;

    let http = agent.http_addr();
    put(http, "", "/v1/agent/check/fail/service:w1", "").await;
    haproxy.until_all_go_to(&["two"]).await;
    put(http, "", "/v1/agent/check/pass/service:w1", "").await;
    haproxy.until_all_go_to(&["one", "two"]).await;
    let three = Server::start("three", 3).await;
    three.register(&agent, "w3").await;
    haproxy.until_all_go_to(&["one", "three", "two"]).await;
    put(http, "", "/v1/agent/service/deregister/w2", "").await;
    haproxy.until_all_go_to(&["one", "three"]).await;
}
