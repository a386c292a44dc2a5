//! An instance of the service `origin`: registers with Consul and answers. On SIGTERM it ends gracefully,
//! as the library's `serve` does.
//!
//! Usage: `service PORT CONSUL_PORT`

use std::net::Ipv4Addr;

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use waypost::{ServiceDiscoveryClient, ServiceRegistration};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut ports = std::env::args().skip(1).map(|port| port.parse::<u16>());
    let (Some(Ok(port)), Some(Ok(consul))) = (ports.next(), ports.next()) else {
        panic!("usage: service PORT CONSUL_PORT");
    };
    let client = ServiceDiscoveryClient::builder().registry("127.0.0.1", consul);
    let client = client.build().expect("a client");
    let answer = async || "hello\n";
    let app = Router::new().route("/", get(answer).post(answer));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .expect("a free port");
    let registration = ServiceRegistration::new("origin", port).expect("a valid registration");
    waypost::integration::axum::serve(listener, app)
        .register(registration)
        .provider(client.provider().clone())
        .run()
        .await
        .expect("no error");
}
