//! Waypost's gateway with everything on: discovery, balancing, ejection, metrics, the route table,
//! and the access log to a file unless it is switched off.
//!
//! The service is `origin`: one instance at `ORIGIN_PORT`, or with `consul:PORT` those that the Consul
//! there knows. Clients use TLS if there is a certificate.
//!
//! Usage: `ours PORT ORIGIN_PORT|consul:PORT WORKERS LOG_FILE|off [CERTIFICATE KEY]`

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpListener;
use waypost::provider::MemoryProvider;
use waypost::{Host, Instance, ServiceDiscoveryClient, ServiceName};
use waypost_gateway::{AccessLog, AccessLogFormat, Config, Gateway, TlsCertificate};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, origin, workers, log, tls @ ..] = arguments.as_slice() else {
        panic!("usage: ours PORT ORIGIN_PORT|consul:PORT WORKERS LOG_FILE|off [CERTIFICATE KEY]");
    };
    let client = match origin.strip_prefix("consul:") {
        Some(consul) => ServiceDiscoveryClient::builder()
            .registry("127.0.0.1", consul.parse().expect("a port"))
            .build()
            .expect("a client"),
        None => ServiceDiscoveryClient::new(Arc::new(one_instance(origin))),
    };
    let mut config = Config::default();
    config.worker_threads = workers.parse().expect("a number of workers");
    config.access_log = (log != "off").then(|| {
        AccessLog::to_file(Path::new(log), AccessLogFormat::Text).expect("a file for the log")
    });
    if let [certificate, key] = tls {
        config.tls.push(TlsCertificate {
            certificate: certificate.into(),
            key: key.into(),
        });
    }
    let port: u16 = port.parse().expect("a port");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .expect("a free port");
    let internal = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a free port");
    let served = Gateway::new(client, config)
        .with_internal(internal)
        .serve(listener, std::future::pending())
        .await;
    served.expect("a gateway");
}

/// A registry that knows one instance.
fn one_instance(port: &str) -> MemoryProvider {
    let registry = MemoryProvider::new();
    let name = ServiceName::new("origin").expect("a valid name");
    let host = Host::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let instance = Instance::builder(name, host, port.parse().expect("a port"));
    registry.insert(instance.id("origin-1").build().expect("a valid instance"));
    registry
}
