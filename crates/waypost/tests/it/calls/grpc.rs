//! A gRPC channel while instances are added, removed and killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::stream;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use waypost::balance::{BalancerOptions, Selection};
use waypost::integration::tonic::BalancedChannel;
use waypost::provider::MemoryProvider;
use waypost::{Instance, ServiceDiscoveryClient};
use waypost_testkit::free_ports;

use super::{Server, selection};
use crate::scripted::auth;

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_channel_follows_registry_changes_and_survives_a_killed_server() {
    let memory = MemoryProvider::new();
    let instance = |port: u16| {
        let builder = Instance::builder(auth(), "127.0.0.1".parse().unwrap(), port);
        builder.id(port.to_string()).scheme("grpc").build().unwrap()
    };
    let ports = free_ports::<3>();
    let mut servers = Vec::new();
    for port in ports {
        servers.push(Server::run("grpc_server_process", port).await);
    }
    memory.replace(&auth(), ports[..2].iter().map(|port| instance(*port)));
    let discovery = ServiceDiscoveryClient::builder().provider(memory.clone());
    let channel = BalancedChannel::new(&discovery.build().unwrap(), "auth").unwrap();
    let connections = async |count: usize| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while channel.connections() != count {
            assert!(
                Instant::now() < deadline,
                "{} connections",
                channel.connections()
            );
            sleep(Duration::from_millis(10)).await;
        }
    };
    // Connections follow the registry without any call.
    connections(2).await;
    memory.insert(instance(ports[2]));
    connections(3).await;
    memory.remove(&ports[0].to_string().into());
    connections(2).await;

    let mut client = HealthClient::new(channel.clone());
    let mut failed = 0;
    for call in 0..300 {
        if call == 100 {
            servers[1].process.kill().unwrap();
            servers[1].process.wait().unwrap();
        }
        let answer = client.check(HealthCheckRequest::default()).await;
        failed += usize::from(answer.is_err());
    }
    // At most the call that was sent over the connection that broke.
    assert!(failed <= 1, "{failed} calls failed");
    let deadline = Instant::now() + Duration::from_secs(60);
    while selection(channel.balancer(), &ports[1].to_string()) != Selection::Ejected {
        assert!(Instant::now() < deadline, "it isn't ejected");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_channel_connects_only_to_its_subset() {
    let [port] = free_ports();
    let _server = Server::run("grpc_server_process", port).await;
    let memory = MemoryProvider::new();
    let instance = |number: usize| {
        let builder = Instance::builder(auth(), "127.0.0.1".parse().unwrap(), port);
        builder.id(format!("i{number:03}")).build().unwrap()
    };
    memory.replace(&auth(), (0..150).map(instance));
    let discovery = ServiceDiscoveryClient::builder()
        .provider(memory.clone())
        .balancing(BalancerOptions::default().subset(10, "client-1"));
    let channel = BalancedChannel::new(&discovery.build().unwrap(), "auth").unwrap();
    let mut client = HealthClient::new(channel.clone());
    for _ in 0..100 {
        let answer = client.check(HealthCheckRequest::default()).await;
        assert!(answer.is_ok(), "{answer:?}");
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while channel.connections() < 10 {
        assert!(Instant::now() < deadline, "{}", channel.connections());
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(channel.connections(), 10);
}

#[tokio::test]
async fn calls_to_one_instance_share_a_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let accepted = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&accepted);
    let connections = stream::try_unfold(listener, move |listener| {
        let counted = Arc::clone(&counted);
        async move {
            let (connection, _) = listener.accept().await?;
            counted.fetch_add(1, Ordering::SeqCst);
            Ok::<_, std::io::Error>(Some((connection, listener)))
        }
    });
    let (_reporter, health) = tonic_health::server::health_reporter();
    let server = tonic::transport::Server::builder().add_service(health);
    let server = tokio::spawn(server.serve_with_incoming(connections));

    let memory = MemoryProvider::new();
    let builder = Instance::builder(auth(), "127.0.0.1".parse().unwrap(), port);
    memory.insert(builder.build().unwrap());
    let discovery = ServiceDiscoveryClient::new(Arc::new(memory));
    let channel = BalancedChannel::new(&discovery, "auth").unwrap();
    // Opened before the first call.
    let deadline = Instant::now() + Duration::from_secs(60);
    while channel.connections() < 1 {
        assert!(Instant::now() < deadline, "no connection");
        sleep(Duration::from_millis(10)).await;
    }
    let mut client = HealthClient::new(channel);
    for _ in 0..5 {
        client.check(HealthCheckRequest::default()).await.unwrap();
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
    server.abort();
}
