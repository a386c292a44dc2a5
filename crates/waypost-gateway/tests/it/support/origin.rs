//! Servers that the gateway forwards to.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::Stream;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use waypost_testkit::free_ports;

pub(crate) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// A body of known length.
pub(crate) fn body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A body without a known length, sent piece by piece.
pub(crate) fn streamed(pieces: impl Stream<Item = Bytes> + Send + 'static) -> Body {
    use futures_util::StreamExt;
    StreamBody::new(pieces.map(|piece| Ok(Frame::data(piece)))).boxed_unsync()
}

/// An HTTP server that responds with a function.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    requests: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl Origin {
    pub(crate) async fn start<F, T>(respond: F) -> Self
    where
        F: Fn(Request<Incoming>) -> T + Send + Sync + 'static,
        T: Future<Output = Response<Body>> + Send + 'static,
    {
        let listener = listener().await;
        let address = listener.local_addr().expect("an address");
        let requests = Arc::new(AtomicUsize::new(0));
        let (respond, counted) = (Arc::new(respond), Arc::clone(&requests));
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).expect("an option");
                let (respond, counted) = (Arc::clone(&respond), Arc::clone(&counted));
                let service = service_fn(move |request| {
                    counted.fetch_add(1, Ordering::SeqCst);
                    let response = respond(request);
                    async move { Ok::<_, Infallible>(response.await) }
                });
                connections
                    .spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self {
            address,
            requests,
            serving,
        }
    }

    /// Always responds with a text.
    pub(crate) async fn text(text: &'static str) -> Self {
        Self::start(move |_| async move { Response::new(body(text)) }).await
    }

    /// Responds with the request as JSON.
    pub(crate) async fn echo() -> Self {
        Self::start(|request| async move {
            let (parts, incoming) = request.into_parts();
            let collected = incoming.collect().await;
            let (sent, trailers) = match collected {
                Ok(whole) => (true, whole),
                Err(_) => return Response::new(body("broken")),
            };
            let trailer_fields = trailers.trailers().cloned().unwrap_or_default();
            let fields = |map: &http::HeaderMap| -> Value {
                let mut fields = serde_json::Map::new();
                for name in map.keys() {
                    let values: Vec<_> = map
                        .get_all(name)
                        .iter()
                        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
                        .collect();
                    fields.insert(name.as_str().to_owned(), json!(values.join(" | ")));
                }
                Value::Object(fields)
            };
            let seen = json!({
                "method": parts.method.as_str(),
                "uri": parts.uri.to_string(),
                "headers": fields(&parts.headers),
                "trailers": fields(&trailer_fields),
                "body": String::from_utf8_lossy(&trailers.to_bytes()),
                "whole": sent,
            });
            Response::new(body(seen.to_string()))
        })
        .await
    }

    /// The number of requests received so far.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// Closes the listener and all connections at once, like a killed process.
    pub(crate) async fn kill(&mut self) {
        self.serving.abort();
        let _ = (&mut self.serving).await;
    }
}

/// A server that handles each TCP connection with a function.
pub(crate) struct RawOrigin {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl RawOrigin {
    pub(crate) async fn start<F, T>(handle: F) -> Self
    where
        F: Fn(TcpStream) -> T + Send + 'static,
        T: Future<Output = ()> + Send + 'static,
    {
        let listener = listener().await;
        let address = listener.local_addr().expect("an address");
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(handle(stream));
            }
        });
        Self {
            address,
            connections,
        }
    }

    /// Reads the head of one request, responds with some bytes and closes the connection.
    pub(crate) async fn writes(response: &'static str) -> Self {
        Self::start(move |mut stream| async move {
            Self::read_head(&mut stream).await;
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, response.as_bytes()).await;
        })
        .await
    }

    pub(crate) async fn read_head(stream: &mut TcpStream) -> String {
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => read.push(byte),
                Err(_) => break,
            }
        }
        String::from_utf8_lossy(&read).into_owned()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// A listener whose port no other test uses, even after it is closed.
async fn listener() -> TcpListener {
    loop {
        match TcpListener::bind(unused_address()).await {
            Ok(listener) => return listener,
            // Another program has taken it since.
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
            Err(error) => panic!("no listener: {error}"),
        }
    }
}

/// An address that refuses connections.
pub(crate) fn unused_address() -> SocketAddr {
    let [port] = free_ports();
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
