//! Accepts connections and serves HTTP/1.1 on them.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, header};
use http_body_util::Either;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::task::{AbortHandle, JoinSet};

use super::idle_timeout::{ConnectionState, TimeoutStream};
use super::listener::{Listener, Stream};
use super::middleware;
use crate::app::App;

/// The default number of connections per listener. Further ones wait in the backlog of the
/// operating system.
const MAX_CONNECTIONS: usize = 16_384;

/// File descriptors that connections leave free, for checks, the journal and the caller.
const RESERVED_FILES: usize = 256;

/// The largest request line and headers.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Pause after a failed accept, which usually means that file descriptors have run out.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// The connections whose client hasn't made an allowed request yet, oldest first.
struct UnknownClients {
    connections: VecDeque<(ConnectionState, AbortHandle)>,
    /// The maximum number of these connections. The rest is reserved for known clients.
    limit: usize,
}

/// [`MAX_CONNECTIONS`], or fewer if the process may not open as many files.
pub(crate) fn default_max_connections() -> usize {
    #[cfg(unix)]
    {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let limit = limit.and_then(|limit| usize::try_from(limit).ok());
        let limit = limit.unwrap_or(usize::MAX);
        MAX_CONNECTIONS.min(limit - RESERVED_FILES.min(limit / 2))
    }
    #[cfg(not(unix))]
    MAX_CONNECTIONS
}

/// Accepts connections until dropped. Dropping it also closes the connections.
pub(crate) async fn serve(app: Arc<App>, listener: Listener) -> Infallible {
    let mut connections = JoinSet::new();
    let mut unknown = UnknownClients::new(app.max_connections);
    loop {
        let has_room = connections.len() < app.max_connections || unknown.close_oldest();
        tokio::select! {
            accepted = listener.accept(), if has_room => match accepted {
                Ok(stream) if app.faults.is_refusing() || *app.leave_requested.borrow() => {
                    drop(stream);
                }
                Ok(stream) => {
                    let is_unix_socket = listener.is_unix_socket();
                    let state = ConnectionState::new(&app);
                    let task = serve_connection(Arc::clone(&app), stream, is_unix_socket, state.clone());
                    unknown.add(state, connections.spawn(task));
                }
                Err(error) => {
                    unknown.close_oldest();
                    pause_after(&error).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

impl UnknownClients {
    fn new(max_connections: usize) -> Self {
        Self {
            connections: VecDeque::new(),
            limit: max_connections - max_connections / 4,
        }
    }

    /// Adds a new connection. If there are too many, closes the oldest one.
    fn add(&mut self, state: ConnectionState, task: AbortHandle) {
        if self.connections.len() >= self.limit {
            self.forget_known();
        }
        if self.connections.len() >= self.limit {
            self.close_oldest();
        }
        self.connections.push_back((state, task));
    }

    /// Closes the oldest connection. Returns whether there was one.
    fn close_oldest(&mut self) -> bool {
        self.forget_known();
        let oldest = self.connections.pop_front();
        if let Some((_, task)) = &oldest {
            task.abort();
        }
        oldest.is_some()
    }

    /// Removes connections that are closed, or whose client has become known.
    fn forget_known(&mut self) {
        self.connections
            .retain(|(state, task)| !state.is_authenticated() && !task.is_finished());
    }
}

async fn pause_after(error: &io::Error) {
    tracing::warn!(%error, "failed to accept a connection");
    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
}

async fn serve_connection(
    app: Arc<App>,
    stream: Box<dyn Stream>,
    is_unix_socket: bool,
    state: ConnectionState,
) {
    let stream = TimeoutStream::new(stream, state.clone());
    let service = service_fn(move |mut request: Request<Incoming>| {
        state.request_received();
        if is_unix_socket {
            // Clients send an arbitrary Host over a Unix socket, usually the path of the socket.
            request.headers_mut().remove(header::HOST);
        }
        let (app, state) = (Arc::clone(&app), state.clone());
        async move {
            let result = middleware::handle(app, request, &state).await;
            // A line stream lasts until the client disconnects, so that the connection isn't idle.
            let is_stream = result
                .as_ref()
                .is_ok_and(|response| matches!(response.body(), Either::Right(_)));
            if !is_stream {
                state.response_ready();
            }
            result
        }
    });
    let served = http1::Builder::new()
        .title_case_headers(true)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection closed early");
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn the_oldest_connection_of_an_unknown_client_makes_room() {
        let mut unknown = UnknownClients::new(4);
        let mut tasks = JoinSet::new();
        let mut add = |unknown: &mut UnknownClients| {
            let state = ConnectionState::default();
            unknown.add(state.clone(), tasks.spawn(pending::<()>()));
            state
        };
        assert!(!unknown.close_oldest());
        let first = add(&mut unknown);
        let [_second, _third] = [add(&mut unknown), add(&mut unknown)];
        assert_eq!(
            unknown.connections.len(),
            3,
            "a quarter is kept for known clients"
        );
        first.authenticated();
        add(&mut unknown);
        assert_eq!(unknown.connections.len(), 3, "a known client doesn't count");
        add(&mut unknown);
        assert_eq!(unknown.connections.len(), 3);
        let closed = tasks.join_next().await.unwrap();
        assert!(closed.unwrap_err().is_cancelled());
        assert_eq!(tasks.len(), 4, "the known client's connection stays");
        assert!(unknown.close_oldest());
        assert_eq!(unknown.connections.len(), 2);
    }
}
