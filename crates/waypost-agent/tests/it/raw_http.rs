//! A minimal HTTP client that shows responses unchanged: it keeps the case of header names, doesn't
//! follow redirects and doesn't decompress bodies.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than the longest blocking query, 10 minutes and a sixteenth.
const TIMEOUT: Duration = Duration::from_secs(11 * 60);

#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub status: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub(crate) fn new(method: &str, target: &str, body: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            body: body.to_owned(),
            headers: Vec::new(),
        }
    }

    pub(crate) async fn send(&self, to: SocketAddr) -> io::Result<Response> {
        timeout(TIMEOUT, self.exchange(to)).await?
    }

    async fn exchange(&self, to: SocketAddr) -> io::Result<Response> {
        let mut stream = TcpStream::connect(to).await?;
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if !self.headers.iter().any(|(name, _)| name == "Host") {
            head.push_str(&format!("Host: {to}\r\n"));
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!(
            "Content-Length: {}\r\nConnection: close\r\n\r\n{}",
            self.body.len(),
            self.body
        ));
        stream.write_all(head.as_bytes()).await?;
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await?;
        parse(&received).ok_or_else(|| {
            let text = String::from_utf8_lossy(&received).into_owned();
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("not an HTTP response: {text:?}"),
            )
        })
    }
}

/// Reads one response with a `Content-Length`, or the head of one without, from a connection that stays
/// open. It may arrive in any number of pieces.
pub(crate) async fn read_response(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Response> {
    let mut received = Vec::new();
    while !received.ends_with(b"\r\n\r\n") {
        received.push(stream.read_u8().await?);
    }
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "not an HTTP response");
    let mut response = parse_head(&received).ok_or_else(invalid)?;
    if let Some(length) = response.header("Content-Length") {
        let mut body = vec![0; length.parse().map_err(|_| invalid())?];
        stream.read_exact(&mut body).await?;
        response.body = body;
    }
    Ok(response)
}

impl Response {
    /// The value of a header. The name isn't case-sensitive.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let (_, value) = headers.find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(value)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

fn parse(received: &[u8]) -> Option<Response> {
    let end = received
        .windows(4)
        .position(|window| window == b"\r\n\r\n")?;
    let (head, body) = received.split_at(end + 4);
    let mut response = parse_head(head)?;
    response.body = body.to_vec();
    if response.header("transfer-encoding") == Some("chunked") {
        response.body = join_chunks(&response.body)?;
    }
    Some(response)
}

/// A response without its body. `head` ends with an empty line.
fn parse_head(head: &[u8]) -> Option<Response> {
    let head = std::str::from_utf8(head).ok()?.strip_suffix("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.to_owned();
    let headers = lines
        .map(|line| {
            let (name, value) = line.split_once(": ")?;
            Some((name.to_owned(), value.to_owned()))
        })
        .collect::<Option<Vec<_>>>()?;
    Some(Response {
        status,
        headers,
        body: Vec::new(),
    })
}

fn join_chunks(mut chunked: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = chunked.windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&chunked[..end]).ok()?, 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(chunked.get(end + 2..end + 2 + size)?);
        chunked = chunked.get(end + 2 + size + 2..)?;
    }
}
