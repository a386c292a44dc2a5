//! The client of a running stack's socket.

use std::io;
use std::path::Path;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

/// A connection to the control socket of a running stack.
#[derive(Debug)]
pub struct Client {
    sender: http1::SendRequest<Full<Bytes>>,
}

/// Why a request to a running stack failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No process listens on the socket.
    #[error("no stack is running")]
    NotRunning,
    /// The stack refused the request.
    #[error("{detail}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The reason.
        detail: String,
    },
    /// The connection failed.
    #[error("the connection to the stack failed: {0}")]
    Connection(String),
}

impl Client {
    /// Connects to a socket; see [`socket_of_file`](super::socket_of_file).
    ///
    /// # Errors
    /// No process listens on the socket, or it can't be opened.
    pub async fn connect(socket: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(socket)
            .await
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    ClientError::NotRunning
                }
                _ => ClientError::Connection(error.to_string()),
            })?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(failed)?;
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    /// Sends a GET request.
    ///
    /// # Errors
    /// The stack refuses it, or the connection fails.
    pub async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, ClientError> {
        json(self.send(Method::GET, path, None).await?).await
    }

    /// Sends a GET request whose response has one JSON value per line.
    ///
    /// # Errors
    /// The same as for [`get`](Self::get).
    pub async fn get_lines<T: DeserializeOwned>(
        &mut self,
        path: &str,
    ) -> Result<Vec<T>, ClientError> {
        let response = self.send(Method::GET, path, None).await?;
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(failed)?
            .to_bytes();
        let lines = body
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty());
        lines
            .map(|line| serde_json::from_slice(line).map_err(invalid))
            .collect()
    }

    /// Sends a POST request with a JSON body.
    ///
    /// # Errors
    /// The same as for [`get`](Self::get).
    pub async fn post(&mut self, path: &str, body: &serde_json::Value) -> Result<(), ClientError> {
        let response = self
            .send(Method::POST, path, Some(body.to_string()))
            .await?;
        response.into_body().collect().await.map_err(failed)?;
        Ok(())
    }

    /// Follows a stream of server-sent events.
    ///
    /// # Errors
    /// The same as for [`get`](Self::get).
    pub async fn events(mut self, path: &str) -> Result<EventStream, ClientError> {
        let response = self.send(Method::GET, path, None).await?;
        Ok(EventStream {
            body: response.into_body(),
            buffer: Vec::new(),
            _client: self,
        })
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<Response<Incoming>, ClientError> {
        self.sender.ready().await.map_err(failed)?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(body.unwrap_or_default()))
            .map_err(|error| ClientError::Connection(error.to_string()))?;
        let response = self.sender.send_request(request).await.map_err(failed)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let problem: serde_json::Value = json(response).await.unwrap_or_default();
        let detail = problem["detail"].as_str().map(str::to_owned);
        Err(ClientError::Refused {
            status: status.as_u16(),
            detail: detail.unwrap_or_else(|| status.to_string()),
        })
    }
}

/// A server-sent event.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// Its type, such as `service`.
    pub kind: String,
    /// Its data.
    pub data: String,
}

/// A stream of server-sent events.
#[derive(Debug)]
pub struct EventStream {
    body: Incoming,
    buffer: Vec<u8>,
    /// Kept because dropping it would end the connection.
    _client: Client,
}

impl EventStream {
    /// The next event; `None` at the end of the stream. Cancel safe.
    ///
    /// # Errors
    /// The connection fails.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        loop {
            while let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
                if let Some(event) = parse_event(&String::from_utf8_lossy(&block)) {
                    return Ok(Some(event));
                }
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(failed(error)),
                None => return Ok(None),
            }
        }
    }
}

/// An event of the runner, which has one line of data; `None` for a comment.
fn parse_event(block: &str) -> Option<Event> {
    let field = |name: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.strip_prefix(' ').unwrap_or(line).to_owned())
    };
    Some(Event {
        data: field("data:")?,
        kind: field("event:").unwrap_or_else(|| "message".to_owned()),
    })
}

async fn json<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T, ClientError> {
    let body = response.into_body().collect().await.map_err(failed)?;
    serde_json::from_slice(&body.to_bytes()).map_err(invalid)
}

fn failed(error: hyper::Error) -> ClientError {
    ClientError::Connection(error.to_string())
}

fn invalid(error: serde_json::Error) -> ClientError {
    ClientError::Connection(format!(
        "its response can't be parsed ({error}); is it another version of waypost?"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_data_and_perhaps_a_kind() {
        let event = |kind: &str, data: &str| {
            let (kind, data) = (kind.to_owned(), data.to_owned());
            Some(Event { kind, data })
        };
        for (block, expected) in [
            ("event: line\nid: 7\ndata: {}\n\n", event("line", "{}")),
            ("data:{}\n\n", event("message", "{}")),
            ("data:  a\n\n", event("message", " a")),
            (": a comment\n\n", None),
            ("event: line\n\n", None),
        ] {
            assert_eq!(parse_event(block), expected, "{block:?}");
        }
    }
}
