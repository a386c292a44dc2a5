//! Connections, from the first to the last request on them.

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

use super::answer::answer;
use super::door::{Door, Stream};
use super::patience::{Doing, Patient};
use crate::app::App;

/// So many connections are served at once; further ones wait to be accepted.
const MOST_CONNECTIONS: usize = 16_384;

/// The head of a request may be this long.
const LARGEST_HEAD: usize = 64 * 1024;

/// Pause after a failed accept, which is mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections until dropped; then they end too.
pub(crate) async fn serve(app: Arc<App>, door: Door) -> Infallible {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = door.accept(), if connections.len() < MOST_CONNECTIONS => match accepted {
                Ok(stream) if app.faults.refuses() || *app.left.borrow() => drop(stream),
                Ok(stream) => {
                    connections.spawn(connection(Arc::clone(&app), stream, door.is_local()));
                }
                Err(error) => pause_after(&error).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn pause_after(error: &io::Error) {
    tracing::warn!(%error, "can't accept a connection");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

async fn connection(app: Arc<App>, stream: Box<dyn Stream>, is_local: bool) {
    let doing = Doing::default();
    let stream = Patient::new(stream, doing.clone());
    let service = service_fn(move |mut request: Request<Incoming>| {
        doing.answering();
        if is_local {
            // Clients put there what they like, mostly the path of the socket.
            request.headers_mut().remove(header::HOST);
        }
        let (app, doing) = (Arc::clone(&app), doing.clone());
        async move {
            let answered = answer(app, request).await;
            // A stream of lines goes on until the client leaves.
            let streams = answered
                .as_ref()
                .is_ok_and(|answer| matches!(answer.body(), Either::Right(_)));
            if !streams {
                doing.answered();
            }
            answered
        }
    });
    let served = http1::Builder::new()
        .title_case_headers(true)
        .pipeline_flush(true)
        .max_buf_size(LARGEST_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended early");
    }
}
