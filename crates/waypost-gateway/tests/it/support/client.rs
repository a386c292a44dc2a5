//! Clients of the gateway.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::with_deadline;

/// A response with its whole body.
#[derive(Debug)]
pub(crate) struct FullResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl FullResponse {
    pub(crate) async fn read(response: Response<Incoming>) -> Self {
        let (parts, body) = response.into_parts();
        let body = with_deadline("the end of the response", body.collect()).await;
        let body = body.expect("a complete response").to_bytes();
        Self {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// The value of a header that occurs exactly once.
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut values = self.headers.get_all(name).iter();
        let value = values
            .next()
            .unwrap_or_else(|| panic!("no {name} in {self:?}"));
        assert!(values.next().is_none(), "{name} twice in {self:?}");
        value.to_str().expect("text")
    }

    pub(crate) fn instance(&self) -> &str {
        self.header("x-waypost-instance")
    }

    /// The `reason` of a problem document.
    pub(crate) fn reason(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            "application/problem+json",
            "{self:?}"
        );
        let problem = self.json();
        assert_eq!(problem["status"], self.status.as_u16());
        problem["reason"].as_str().expect("a reason").to_owned()
    }
}

/// A client that sends exactly the bytes it is given.
pub(crate) struct RawClient(pub(crate) TcpStream);

impl RawClient {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.expect("a connection"))
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0
            .write_all(bytes.as_ref())
            .await
            .expect("a successful write");
    }

    /// Sends a request whose body `hi` is chunked, with the trailer `X-Sum: 7`.
    pub(crate) async fn send_with_trailer(&mut self, method: &str, path: &str) {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n");
        self.send(head + "Trailer: X-Sum\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 7\r\n\r\n")
            .await;
    }

    /// Reads until the bytes received contain `end`.
    pub(crate) async fn read_until(&mut self, end: &str) -> String {
        let mut read = Vec::new();
        with_deadline(&format!("{end:?} in the response"), async {
            while !String::from_utf8_lossy(&read).contains(end) {
                let more = self.0.read_buf(&mut read).await.expect("a successful read");
                assert_ne!(more, 0, "closed after {:?}", String::from_utf8_lossy(&read));
            }
        })
        .await;
        String::from_utf8_lossy(&read).into_owned()
    }

    /// Reads until the gateway closes the connection.
    pub(crate) async fn read_to_end(&mut self) -> String {
        let mut read = Vec::new();
        let end = with_deadline("the end of the connection", self.0.read_to_end(&mut read)).await;
        // Closing a socket with unread input resets the connection.
        if let Err(error) = end {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
        String::from_utf8_lossy(&read).into_owned()
    }
}
