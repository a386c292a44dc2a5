//! The gateway on a listener that a service manager hands over.

use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::*;

/// A gateway that gets `listener` as descriptor 3, as from systemd.
fn gateway(listener: &TcpListener, count: u32) -> Command {
    let listener = listener.try_clone().unwrap();
    let script =
        format!("exec 3<&0 4<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS={count} exec \"$0\" \"$@\"");
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", &script, env!("CARGO_BIN_EXE_waypost"), "gateway"])
        .args(["--internal", "off", "--register", "never"])
        .env_clear()
        .env("SERVICE_HELLO_URL", "http://127.0.0.1:9")
        .env("SERVICE_DISCOVERY_PROVIDER", "env")
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(listener)))
        .kill_on_drop(true);
    command
}

/// Sends a request for the gateway's health.
async fn ask(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = "GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn answer(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    let read = timeout(TIMEOUT, stream.read_to_string(&mut answer)).await;
    read.expect("an answer").unwrap();
    answer
}

#[tokio::test]
async fn clients_wait_while_a_gateway_on_a_handed_over_listener_is_replaced() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Before the first gateway, between two, and after the last.
    let early = ask(address).await;
    let mut first = Program::start(gateway(&listener, 1));
    first.wait_for_output(&format!("http://{address}")).await;
    assert!(answer(early).await.starts_with("HTTP/1.1 200"));
    signal(first.pid(), Signal::TERM);
    assert_eq!(first.wait_for_exit().await, Some(0), "{}", first.output());

    let waiting = ask(address).await;
    let mut second = Program::start(gateway(&listener, 1));
    assert!(answer(waiting).await.starts_with("HTTP/1.1 200"));
    signal(second.pid(), Signal::TERM);
    assert_eq!(second.wait_for_exit().await, Some(0), "{}", second.output());
}

#[tokio::test]
async fn several_handed_over_listeners_are_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut refused = Program::start(gateway(&listener, 2));
    assert_ne!(refused.wait_for_exit().await, Some(0));
    let output = refused.output();
    assert!(
        output.contains("LISTEN_FDS: 2 sockets were handed over"),
        "{output}"
    );
}
