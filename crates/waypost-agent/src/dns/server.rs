//! The UDP and TCP servers, on one port.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::handler::respond;
use super::size_limit::SizeLimit;
use crate::app::App;

/// The largest UDP query. Only EDNS options make a query longer than 300 bytes.
const MAX_UDP_QUERY_BYTES: usize = 4096;

/// A TCP connection is closed after this long without a query (RFC 7766: "a few seconds").
const IDLE_TIMEOUT: Duration = Duration::from_secs(8);

/// The number of concurrent TCP connections. Further ones wait in the backlog.
const MAX_TCP_CONNECTIONS: usize = 256;

/// Pause after a failed receive or accept.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// Attempts to find a port that is free for both protocols, if the port is 0.
const BIND_ATTEMPTS: usize = 16;

/// A UDP and a TCP socket with the same port.
#[derive(Debug)]
pub(crate) struct DnsSockets {
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
}

/// Binds the port for UDP and TCP.
pub(crate) async fn bind(address: SocketAddr) -> io::Result<DnsSockets> {
    let mut attempts = if address.port() == 0 {
        BIND_ATTEMPTS
    } else {
        1
    };
    loop {
        let tcp = TcpListener::bind(address).await?;
        match UdpSocket::bind(tcp.local_addr()?).await {
            Ok(udp) => {
                let udp = Arc::new(udp);
                return Ok(DnsSockets { udp, tcp });
            }
            Err(error) if attempts <= 1 => return Err(error),
            Err(_) => attempts -= 1,
        }
    }
}

impl DnsSockets {
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// Answers queries until dropped.
pub(crate) async fn serve(app: Arc<App>, sockets: DnsSockets) -> Infallible {
    let DnsSockets { udp, tcp } = sockets;
    tokio::join!(serve_udp(Arc::clone(&app), udp), serve_tcp(app, tcp)).0
}

async fn serve_udp(app: Arc<App>, socket: Arc<UdpSocket>) -> Infallible {
    let mut delayed = JoinSet::new();
    let mut buffer = vec![0; MAX_UDP_QUERY_BYTES];
    loop {
        let (length, from) = tokio::select! {
            received = socket.recv_from(&mut buffer) => match received {
                Ok(received) => received,
                Err(error) => {
                    pause_after(&error).await;
                    continue;
                }
            },
            Some(_) = delayed.join_next() => continue,
        };
        if app.faults.is_refusing() {
            continue;
        }
        let Some(response) = respond(&app, &buffer[..length], SizeLimit::Datagram) else {
            continue;
        };
        match app.faults.response_delay() {
            None => send(&socket, &response, from).await,
            Some(delay) => {
                let socket = Arc::clone(&socket);
                delayed.spawn(async move {
                    sleep(delay).await;
                    send(&socket, &response, from).await;
                });
            }
        }
    }
}

async fn send(socket: &UdpSocket, response: &[u8], to: SocketAddr) {
    if let Err(error) = socket.send_to(response, to).await {
        tracing::debug!(%error, client = %to, "DNS: failed to send a response");
    }
}

async fn serve_tcp(app: Arc<App>, listener: TcpListener) -> Infallible {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MAX_TCP_CONNECTIONS => match accepted {
                Ok((stream, _)) if app.faults.is_refusing() => drop(stream),
                Ok((stream, _)) => {
                    connections.spawn(serve_connection(Arc::clone(&app), stream));
                }
                Err(error) => pause_after(&error).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve_connection(app: Arc<App>, mut stream: TcpStream) {
    while let Ok(Ok(query)) = timeout(IDLE_TIMEOUT, receive(&mut stream)).await {
        if let Some(delay) = app.faults.response_delay() {
            sleep(delay).await;
        }
        if app.faults.is_refusing() {
            return;
        }
        let Some(response) = respond(&app, &query, SizeLimit::Stream) else {
            return;
        };
        let Ok(length) = u16::try_from(response.len()) else {
            return;
        };
        let message = [&length.to_be_bytes(), response.as_slice()].concat();
        match timeout(IDLE_TIMEOUT, stream.write_all(&message)).await {
            Ok(Ok(())) => {}
            _ => return,
        }
    }
}

async fn receive(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut query = vec![0; usize::from(length)];
    stream.read_exact(&mut query).await?;
    Ok(query)
}

async fn pause_after(error: &io::Error) {
    tracing::debug!(%error, "DNS: failed to receive a query");
    sleep(RETRY_DELAY).await;
}
