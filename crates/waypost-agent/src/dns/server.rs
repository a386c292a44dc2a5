//! The sockets: datagrams and streams on one port.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::fit::Limit;
use super::respond::respond;
use crate::app::App;

/// A question is hardly ever longer than 300 bytes; EDNS options can make it so.
const LONGEST_QUESTION: usize = 4096;

/// A stream without a question for this long is closed (RFC 7766 wants "a few seconds").
const IDLE: Duration = Duration::from_secs(8);

/// More streams than this at a time aren't accepted.
const MOST_STREAMS: usize = 256;

/// Pause after a failed receive or accept.
const PAUSE: Duration = Duration::from_millis(50);

/// With a port of 0, a port must be found that is free for both.
const ATTEMPTS: usize = 16;

/// Where questions come in.
#[derive(Debug)]
pub(crate) struct Sockets {
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
}

/// Takes the port for both datagrams and streams.
pub(crate) async fn bind(address: SocketAddr) -> io::Result<Sockets> {
    let mut attempts = if address.port() == 0 { ATTEMPTS } else { 1 };
    loop {
        let tcp = TcpListener::bind(address).await?;
        match UdpSocket::bind(tcp.local_addr()?).await {
            Ok(udp) => {
                let udp = Arc::new(udp);
                return Ok(Sockets { udp, tcp });
            }
            Err(error) if attempts <= 1 => return Err(error),
            Err(_) => attempts -= 1,
        }
    }
}

impl Sockets {
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// Answers until dropped.
pub(crate) async fn serve(app: Arc<App>, sockets: Sockets) -> Infallible {
    let Sockets { udp, tcp } = sockets;
    tokio::join!(datagrams(Arc::clone(&app), udp), streams(app, tcp)).0
}

async fn datagrams(app: Arc<App>, socket: Arc<UdpSocket>) -> Infallible {
    let mut delayed = JoinSet::new();
    let mut buffer = vec![0; LONGEST_QUESTION];
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
        if app.faults.refuses() {
            continue;
        }
        let Some(answer) = respond(&app, &buffer[..length], Limit::Datagram) else {
            continue;
        };
        match app.faults.delay_of_answers() {
            None => send(&socket, &answer, from).await,
            Some(delay) => {
                let socket = Arc::clone(&socket);
                delayed.spawn(async move {
                    sleep(delay).await;
                    send(&socket, &answer, from).await;
                });
            }
        }
    }
}

async fn send(socket: &UdpSocket, answer: &[u8], to: SocketAddr) {
    if let Err(error) = socket.send_to(answer, to).await {
        tracing::debug!(%error, %to, "can't send an answer");
    }
}

async fn streams(app: Arc<App>, listener: TcpListener) -> Infallible {
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if streams.len() < MOST_STREAMS => match accepted {
                Ok((stream, _)) if app.faults.refuses() => drop(stream),
                Ok((stream, _)) => {
                    streams.spawn(stream_of_questions(Arc::clone(&app), stream));
                }
                Err(error) => pause_after(&error).await,
            },
            Some(_) = streams.join_next() => {}
        }
    }
}

async fn stream_of_questions(app: Arc<App>, mut stream: TcpStream) {
    while let Ok(Ok(question)) = timeout(IDLE, receive(&mut stream)).await {
        if let Some(delay) = app.faults.delay_of_answers() {
            sleep(delay).await;
        }
        if app.faults.refuses() {
            return;
        }
        let Some(answer) = respond(&app, &question, Limit::Stream) else {
            return;
        };
        let Ok(length) = u16::try_from(answer.len()) else {
            return;
        };
        let message = [&length.to_be_bytes(), answer.as_slice()].concat();
        match timeout(IDLE, stream.write_all(&message)).await {
            Ok(Ok(())) => {}
            _ => return,
        }
    }
}

async fn receive(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut question = vec![0; usize::from(length)];
    stream.read_exact(&mut question).await?;
    Ok(question)
}

async fn pause_after(error: &io::Error) {
    tracing::debug!(%error, "DNS: can't receive");
    sleep(PAUSE).await;
}
