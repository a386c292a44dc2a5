//! Requests that the gateway makes itself. It reads the whole response before it continues.

use std::future::poll_fn;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode, Uri, header};
use hyper::body::Incoming;

use super::connection::{Http1, poll_frame};
use super::peer::{Channel, Peer};
use crate::attempt_error::{AttemptError, AttemptErrorKind};
use crate::request_body::AttemptBody;

/// A response that was read to its end.
#[derive(Debug)]
pub(crate) struct WholeResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Sends a request whose URI is a path, and reads a response of at most `max_body` bytes, as
/// [`begin_call`] and [`CallResponse::read`] do.
///
/// # Errors
/// If there is no response, or it is too long. There is no time limit except for connecting.
pub(crate) async fn call(
    peer: &Peer,
    now: u64,
    request: Request<Bytes>,
    connect_timeout: Duration,
    max_body: usize,
) -> Result<WholeResponse, AttemptError> {
    let response = begin_call(peer, now, request, connect_timeout).await?;
    response.read(peer, now, max_body).await
}

/// Sends a request whose URI is a path. If the instance has closed an idle connection, another is
/// used. `now` is in milliseconds since the worker started.
///
/// # Errors
/// If there is no response. There is no time limit except for connecting.
pub(crate) async fn begin_call(
    peer: &Peer,
    now: u64,
    request: Request<Bytes>,
    connect_timeout: Duration,
) -> Result<CallResponse, AttemptError> {
    let (parts, body) = request.into_parts();
    loop {
        let mut channel = peer.channel(now, connect_timeout).await?;
        let is_http2 = matches!(channel, Channel::Http2 { .. });
        let mut request = Request::new(AttemptBody::whole(body.clone()));
        *request.method_mut() = parts.method.clone();
        let headers = request.headers_mut();
        *headers = parts.headers.clone();
        if is_http2 {
            headers.remove(header::CONNECTION);
        }
        if let Some(authority) = &peer.authority
            && !headers.contains_key(header::HOST)
        {
            headers.insert(header::HOST, authority.clone());
        }
        peer.set_target(&mut request, path(&parts.uri), is_http2)?;
        match channel.send(request).await {
            Ok(head) => {
                return Ok(CallResponse {
                    head,
                    connection: channel.into_http1(),
                });
            }
            Err(error) if error.unsent.is_some() && channel.is_reused() => {}
            Err(error) => return Err(error.error),
        }
    }
}

fn path(uri: &Uri) -> http::uri::PathAndQuery {
    let root = http::uri::PathAndQuery::from_static("/");
    uri.path_and_query().cloned().unwrap_or(root)
}

/// A response whose body has not been read yet.
pub(crate) struct CallResponse {
    head: http::Response<Incoming>,
    /// The connection that the body comes from, unless it has a task of its own.
    connection: Option<Http1>,
}

impl CallResponse {
    pub(crate) fn status(&self) -> StatusCode {
        self.head.status()
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        self.head.headers()
    }

    /// Reads a body of at most `max_body` bytes. After that, the connection can be used again.
    ///
    /// # Errors
    /// If it is incomplete or too long.
    pub(crate) async fn read(
        mut self,
        peer: &Peer,
        now: u64,
        max_body: usize,
    ) -> Result<WholeResponse, AttemptError> {
        let body = self.read_body(max_body).await?;
        if let Some(connection) = self.connection {
            peer.release(connection, now);
        }
        let (parts, _) = self.head.into_parts();
        Ok(WholeResponse {
            status: parts.status,
            headers: parts.headers,
            body,
        })
    }

    async fn read_body(&mut self, max_body: usize) -> Result<Bytes, AttemptError> {
        let mut body = BytesMut::new();
        while let Some(frame) =
            poll_fn(|cx| poll_frame(self.head.body_mut(), &mut self.connection, cx)).await
        {
            let frame = frame
                .map_err(|error| AttemptError::from_hyper(AttemptErrorKind::Broken, &error))?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            if body.len() + data.len() > max_body {
                return Err(AttemptError::new(
                    AttemptErrorKind::BadResponse,
                    format!("the response is longer than {max_body} bytes"),
                ));
            }
            body.extend_from_slice(&data);
        }
        Ok(body.freeze())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use waypost::{Host, Instance};

    use super::*;
    use crate::upstream::ClientTls;

    const LIMIT: Duration = Duration::from_secs(60);

    async fn read_head(stream: &mut TcpStream) {
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\n") {
            read.push(stream.read_u8().await.unwrap());
        }
    }

    async fn respond(stream: &mut TcpStream) {
        read_head(stream).await;
        let response = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        stream.write_all(response).await.unwrap();
    }

    async fn server() -> (TcpListener, Peer) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let instance =
            Instance::builder("a".parse().unwrap(), Host::Ip(address.ip()), address.port());
        let tls = Arc::new(ClientTls::new(None).unwrap());
        let peer = Peer::new(Arc::new(instance.build().unwrap()), tls, false);
        (listener, peer)
    }

    async fn get(peer: &Peer) -> Result<WholeResponse, AttemptError> {
        call(peer, 0, Request::new(Bytes::new()), LIMIT, 100).await
    }

    #[tokio::test]
    async fn an_idle_connection_that_was_closed_is_replaced() {
        let (listener, peer) = server().await;
        let first = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            respond(&mut stream).await;
            stream
        };
        let (answer, first) = tokio::join!(get(&peer), first);
        assert_eq!(answer.unwrap().body, "ok");
        drop(first);
        // The runtime notices the end.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let second = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            respond(&mut stream).await;
            std::future::pending().await
        };
        let answer = tokio::select! {
            answer = get(&peer) => answer,
            answer = second => answer,
        };
        assert_eq!(answer.unwrap().body, "ok");
    }

    #[tokio::test]
    async fn a_request_that_was_sent_is_not_sent_again() {
        for answered in [0, 1] {
            let (listener, peer) = server().await;
            let serving = async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                for _ in 0..answered {
                    respond(&mut stream).await;
                }
                read_head(&mut stream).await;
                // Nobody accepts another connection.
            };
            let calling = async {
                for _ in 0..answered {
                    assert_eq!(get(&peer).await.unwrap().body, "ok");
                }
                get(&peer).await
            };
            let (answer, ()) = tokio::join!(calling, serving);
            let kind = answer.unwrap_err().kind;
            assert!(kind.is_broken(), "after {answered}: {kind:?}");
        }
    }
}
