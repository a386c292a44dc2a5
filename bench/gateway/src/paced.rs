//! Generates load at a constant rate over 32 connections.
//!
//! Each latency is measured from the time at which the request was due, not from when it was sent. So if a
//! proxy stalls, the requests that it delays count too ("coordinated omission").

use std::io;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::proxies::{self, Proxy};

const CONNECTIONS: u32 = 32;

/// Sends requests for a number of seconds. Returns all latencies, sorted.
pub(crate) fn run(proxy: &Proxy, per_second: u32, seconds: u32) -> Result<Vec<Duration>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(|error| error.to_string())?;
    let each = seconds * per_second / CONNECTIONS;
    let interval = Duration::from_secs(1) * CONNECTIONS / per_second;
    runtime.block_on(async {
        let mut streams = Vec::new();
        for _ in 0..CONNECTIONS {
            streams.push(connect(proxy).await.map_err(|error| error.to_string())?);
        }
        let begin = Instant::now();
        let mut connections = JoinSet::new();
        for (number, stream) in (0..).zip(streams) {
            // One connection after the other, so that the rate is even.
            let first = begin + interval * number / CONNECTIONS;
            let request = proxies::request(proxy.path(), proxy.port());
            connections.spawn(send(stream, request, first, interval, each));
        }
        let mut latencies = Vec::new();
        while let Some(sent) = connections.join_next().await {
            let sent = sent.map_err(|error| error.to_string())?;
            latencies.extend(sent.map_err(|error| format!("{}: {error}", proxy.name()))?);
        }
        latencies.sort();
        Ok(latencies)
    })
}

async fn connect(proxy: &Proxy) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends `count` requests over one connection.
async fn send(
    mut stream: TcpStream,
    request: String,
    first: Instant,
    interval: Duration,
    count: u32,
) -> io::Result<Vec<Duration>> {
    let mut latencies = Vec::with_capacity(count as usize);
    let mut response = Vec::with_capacity(4096);
    for number in 0..count {
        let due = first + interval * number;
        // Timers are only accurate to a millisecond.
        while Instant::now() < due {
            tokio::task::yield_now().await;
        }
        stream.write_all(request.as_bytes()).await?;
        response.clear();
        while !response.ends_with(proxies::BODY.as_bytes()) {
            if stream.read_buf(&mut response).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        latencies.push(due.elapsed());
    }
    Ok(latencies)
}
