//! Connections, and the way of a request through them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::Status;
use super::gate::Gated;
use super::reply::Sent;
use super::request::{Call, Query};
use crate::access::User;
use crate::api;
use crate::app::App;

/// As in the API server.
const LARGEST_BODY: usize = 3 * 1024 * 1024;

/// Pause after a failed accept, which is mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What ends which part of a server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Endings {
    /// No more connections; those that there are end after the request they serve.
    pub listening: CancellationToken,
    /// Watches end.
    pub watching: CancellationToken,
}

/// Serves until told to end, and all connections are at their end. When dropped, it cuts them.
pub(crate) async fn serve(
    app: Arc<App>,
    listener: TcpListener,
    tls: TlsAcceptor,
    shut: watch::Receiver<bool>,
    endings: Endings,
) {
    let mut connections = JoinSet::new();
    loop {
        let mut gate = shut.clone();
        // A process that was stopped accepts nothing; the kernel does, for a while.
        let accept = async {
            let _ = gate.wait_for(|shut| !shut).await;
            listener.accept().await
        };
        tokio::select! {
            accepted = accept => match accepted {
                Ok((stream, _)) => {
                    let stream = prepare(stream, shut.clone());
                    let (app, tls) = (Arc::clone(&app), tls.clone());
                    connections.spawn(connection(app, stream, tls, endings.clone()));
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
            () = endings.listening.cancelled() => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

fn prepare(stream: TcpStream, shut: watch::Receiver<bool>) -> Gated {
    // Without it answers are only slower.
    let _ = stream.set_nodelay(true);
    Gated::new(stream, shut)
}

async fn connection(app: Arc<App>, stream: Gated, tls: TlsAcceptor, endings: Endings) {
    // Whoever fails at TLS is told by TLS.
    let Ok(stream) = tls.accept(stream).await else {
        return;
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let certificate = certificates.and_then(|it| it.first());
    let user = certificate.and_then(|it| app.credentials.of_certificate(it));
    let watching = endings.watching.clone();
    let service = service_fn(move |request| {
        answer(Arc::clone(&app), user.clone(), request, watching.clone())
    });
    // Without `pipeline_flush`: that buffers without end what a slow reader doesn't take.
    let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    // An error is a client that went away.
    tokio::select! {
        _ = serving.as_mut() => return,
        () = endings.listening.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    let _ = serving.await;
}

async fn answer(
    app: Arc<App>,
    by_certificate: Option<User>,
    request: Request<Incoming>,
    end: CancellationToken,
) -> Result<Response<Sent>, Infallible> {
    let (head, body) = request.into_parts();
    let user = match head.headers.get(header::AUTHORIZATION) {
        None => Some(by_certificate.unwrap_or_else(User::anonymous)),
        Some(value) => value
            .to_str()
            .ok()
            .and_then(|it| it.strip_prefix("Bearer "))
            .and_then(|token| app.credentials.of_token(token)),
    };
    let reply = match Limited::new(body, LARGEST_BODY).collect().await {
        Ok(body) => {
            let call = Call {
                method: head.method,
                path: head.uri.path().to_owned(),
                query: Query::parse(head.uri.query().unwrap_or_default()),
                headers: head.headers,
                body: body.to_bytes(),
            };
            api::answer(app, user, call, end).await
        }
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Status::too_large(LARGEST_BODY).into()
        }
        Err(error) => Status::bad_request(format!("error reading the body: {error}")).into(),
    };
    Ok(reply.into_response())
}
