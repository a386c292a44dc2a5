//! Accepts connections and serves HTTP/1.1 on them.

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
use tokio::task::JoinSet;

use super::idle_timeout::{ConnectionState, TimeoutStream};
use super::listener::{Listener, Stream};
use super::middleware;
use crate::app::App;

/// Connections per listener. Further ones wait in the backlog of the operating system.
const MAX_CONNECTIONS: usize = 16_384;

/// The largest request line and headers.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Pause after a failed accept, which usually means that file descriptors have run out.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// Accepts connections until dropped. Dropping it also closes the connections.
pub(crate) async fn serve(app: Arc<App>, listener: Listener) -> Infallible {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok(stream) if app.faults.is_refusing() || *app.leave_requested.borrow() => {
                    drop(stream);
                }
                Ok(stream) => {
                    let is_unix_socket = listener.is_unix_socket();
                    connections.spawn(serve_connection(Arc::clone(&app), stream, is_unix_socket));
                }
                Err(error) => pause_after(&error).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn pause_after(error: &io::Error) {
    tracing::warn!(%error, "failed to accept a connection");
    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
}

async fn serve_connection(app: Arc<App>, stream: Box<dyn Stream>, is_unix_socket: bool) {
    let state = ConnectionState::default();
    let stream = TimeoutStream::new(stream, state.clone());
    let service = service_fn(move |mut request: Request<Incoming>| {
        state.request_received();
        if is_unix_socket {
            // Clients send an arbitrary Host over a Unix socket, usually the path of the socket.
            request.headers_mut().remove(header::HOST);
        }
        let (app, state) = (Arc::clone(&app), state.clone());
        async move {
            let result = middleware::handle(app, request).await;
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
        .pipeline_flush(true)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection closed early");
    }
}
