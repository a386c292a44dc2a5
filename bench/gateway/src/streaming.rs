//! Chunks of a stream through the gateway, against the same stream without it: when the first arrives, and
//! the gaps between them. Also how soon the origin notices that a client has left, and whether a silent
//! stream survives.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::proxies::Proxy;

/// The chunks of a stream and the gap between them.
const CHUNKS: u64 = 50;
const GAP: Duration = Duration::from_millis(20);
/// The number of streams and of aborts in each way.
const STREAMS: u32 = 20;

/// `silence` is the length of the silent stream in seconds; none without it.
pub(crate) fn run(silence: Option<u32>, folder: &Path) -> Result<(), String> {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    let measured = runtime.block_on(measure(silence, folder));
    measured.map_err(|error| error.to_string())
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn measure(silence: Option<u32>, folder: &Path) -> Result<(), BoxError> {
    let (left, mut was_left) = mpsc::unbounded_channel();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let origin = listener.local_addr()?.port();
    tokio::spawn(serve(listener, left));
    let gateway = Proxy::start("waypost", origin, folder)?;
    let nginx = Proxy::start("nginx", origin, folder)?;
    let ways = [
        ("direct", origin, "/"),
        ("nginx", nginx.port(), nginx.path()),
        ("waypost", gateway.port(), gateway.path()),
    ];
    let mut measured: Vec<Measured> = ways.iter().map(|_| Measured::default()).collect();
    // In turn, so that a busy moment of the machine doesn't hit one way only.
    for _ in 0..STREAMS {
        for (way, measured) in ways.iter().zip(&mut measured) {
            let (_, port, path) = *way;
            measured.stream(port, &format!("{path}stream")).await?;
            measured
                .abort(port, &format!("{path}endless"), &mut was_left)
                .await?;
        }
    }
    println!(
        "| | first chunk, median | p99 | gap, median | p99 | the origin notices an abort, median | slowest |\n\
         |---|---|---|---|---|---|---|"
    );
    for ((name, ..), measured) in ways.iter().zip(&mut measured) {
        let Measured {
            first,
            gaps,
            aborts,
        } = measured;
        println!(
            "| {name} | {} | {} | {} | {} | {} | {} |",
            quantile(first, 0.5),
            quantile(first, 0.99),
            quantile(gaps, 0.5),
            quantile(gaps, 0.99),
            quantile(aborts, 0.5),
            quantile(aborts, 1.0),
        );
    }
    if let Some(seconds) = silence {
        let mut stream = send(
            gateway.port(),
            &format!("{}silent?{seconds}", gateway.path()),
        )
        .await?;
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await?;
        let text = String::from_utf8_lossy(&received);
        let is_whole =
            text.contains("before") && text.contains("after") && text.ends_with("0\r\n\r\n");
        println!("a stream silent for {seconds} s arrives whole: {is_whole}");
    }
    Ok(())
}

#[derive(Default)]
struct Measured {
    first: Vec<Duration>,
    gaps: Vec<Duration>,
    aborts: Vec<Duration>,
}

impl Measured {
    /// Reads one stream and records when each chunk arrives.
    async fn stream(&mut self, port: u16, path: &str) -> Result<(), BoxError> {
        let began = Instant::now();
        let mut stream = send(port, path).await?;
        let (mut received, mut last) = (Vec::new(), None);
        while !received.ends_with(b"0\r\n\r\n") {
            let before = chunks(&received);
            if stream.read_buf(&mut received).await? == 0 {
                return Err("the stream ended early".into());
            }
            if chunks(&received) > before {
                match last.replace(Instant::now()) {
                    None => self.first.push(began.elapsed()),
                    Some(last) => self.gaps.push(last.elapsed()),
                }
            }
        }
        Ok(())
    }

    /// Leaves after the first chunk and records when the origin notices.
    async fn abort(
        &mut self,
        port: u16,
        path: &str,
        was_left: &mut mpsc::UnboundedReceiver<Instant>,
    ) -> Result<(), BoxError> {
        let mut stream = send(port, path).await?;
        let mut received = Vec::new();
        while chunks(&received) == 0 {
            if stream.read_buf(&mut received).await? == 0 {
                return Err("the stream ended early".into());
            }
        }
        let left = Instant::now();
        drop(stream);
        let noticed = was_left.recv().await.ok_or("the origin has ended")?;
        self.aborts.push(noticed.saturating_duration_since(left));
        Ok(())
    }
}

/// The number of whole chunks.
fn chunks(received: &[u8]) -> usize {
    received
        .windows(7)
        .filter(|part| part == b"chunk \r")
        .count()
}

async fn send(port: u16, path: &str) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    Ok(stream)
}

fn quantile(times: &mut [Duration], share: f64) -> String {
    times.sort();
    let at = (times.len() as f64 * share) as usize;
    let time = times.get(at.min(times.len().saturating_sub(1)));
    time.map_or("-".to_owned(), |time| {
        format!("{:.2} ms", time.as_secs_f64() * 1000.0)
    })
}

/// Tells when it is dropped.
struct OnDrop(Option<mpsc::UnboundedSender<Instant>>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        if let Some(left) = &self.0 {
            let _ = left.send(Instant::now());
        }
    }
}

/// Serves streams: `/stream` with gaps, `/endless`, and `/silent?SECONDS`.
async fn serve(listener: TcpListener, left: mpsc::UnboundedSender<Instant>) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let left = left.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let (count, gap, text) = match request.uri().path() {
                "/stream" => (CHUNKS, GAP, "chunk "),
                "/endless" => (u64::MAX, GAP, "chunk "),
                _ => {
                    let seconds = request.uri().query().and_then(|text| text.parse().ok());
                    (2, Duration::from_secs(seconds.unwrap_or(60)), "")
                }
            };
            let left = OnDrop((count == u64::MAX).then(|| left.clone()));
            let chunks = stream::iter(0..count).then(move |number| {
                let _held = &left;
                async move {
                    if number > 0 {
                        tokio::time::sleep(gap).await;
                    }
                    let text = match text {
                        "" if number == 0 => "before",
                        "" => "after",
                        text => text,
                    };
                    Ok::<_, Infallible>(Frame::data(Bytes::from(text)))
                }
            });
            async move { Ok::<_, Infallible>(Response::new(StreamBody::new(chunks))) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}
