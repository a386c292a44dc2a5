//! Connections, and the requests on them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::auth::credentials::User;
use crate::cluster::Cluster;
use crate::freezable::FreezableStream;
use crate::http::request::ApiRequest;
use crate::http::response::{self, Response};
use crate::http::status::Status;

/// The pause after a failed accept, which is usually caused by a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Tokens that end the parts of a server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shutdown {
    /// Ends accepting connections. Open ones end after the request that they serve.
    pub listening: CancellationToken,
    /// Ends watches.
    pub watching: CancellationToken,
}

/// Serves until `shutdown.listening` is cancelled and all connections have ended. Dropping the future
/// cuts all connections.
pub(crate) async fn serve(
    cluster: Arc<Cluster>,
    listener: TcpListener,
    tls: TlsAcceptor,
    is_frozen: watch::Receiver<bool>,
    shutdown: Shutdown,
) {
    let mut connections = JoinSet::new();
    loop {
        let mut frozen = is_frozen.clone();
        // While a process is frozen, the kernel accepts connections and the process does not.
        let accept = async {
            let _ = frozen.wait_for(|it| !it).await;
            listener.accept().await
        };
        tokio::select! {
            accepted = accept => match accepted {
                Ok((stream, _)) => {
                    let stream = prepare(stream, is_frozen.clone());
                    let (cluster, tls) = (Arc::clone(&cluster), tls.clone());
                    connections.spawn(connection(cluster, stream, tls, shutdown.clone()));
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
            () = shutdown.listening.cancelled() => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

fn prepare(stream: TcpStream, is_frozen: watch::Receiver<bool>) -> FreezableStream {
    // If it fails, responses are only slower.
    let _ = stream.set_nodelay(true);
    FreezableStream::new(stream, is_frozen)
}

async fn connection(
    cluster: Arc<Cluster>,
    stream: FreezableStream,
    tls: TlsAcceptor,
    shutdown: Shutdown,
) {
    // TLS reports a failed handshake to the client.
    let Ok(stream) = tls.accept(stream).await else {
        return;
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let certificate = certificates.and_then(|it| it.first());
    let user = certificate.and_then(|it| cluster.credentials.user_of_certificate(it));
    let watching = shutdown.watching.clone();
    let service = service_fn(move |request| {
        answer(
            Arc::clone(&cluster),
            user.clone(),
            request,
            watching.clone(),
        )
    });
    // `pipeline_flush` stays off: it buffers without limit for a slow reader.
    let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    // An error means that the client went away.
    tokio::select! {
        _ = serving.as_mut() => return,
        () = shutdown.listening.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    let _ = serving.await;
}

async fn answer(
    cluster: Arc<Cluster>,
    user_of_certificate: Option<User>,
    request: Request<Incoming>,
    shutdown: CancellationToken,
) -> Result<Response, Infallible> {
    let (head, body) = request.into_parts();
    let user = authenticate(&cluster, user_of_certificate, &head.headers);
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            let status = Status::bad_request(format!("error reading the body: {error}"));
            return Ok(response::failure(&status));
        }
    };
    let header = |name| head.headers.get(name).and_then(|it| it.to_str().ok());
    let (accept, content_type) = (header(ACCEPT), header(CONTENT_TYPE));
    let request = ApiRequest {
        content_type: content_type.unwrap_or_default().to_owned(),
        accept: accept.unwrap_or_default().to_owned(),
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        body,
    };
    Ok(api::answer(cluster, user, request, shutdown).await)
}

/// The user by the token, otherwise by the certificate; None if the token is refused.
fn authenticate(
    cluster: &Cluster,
    user_of_certificate: Option<User>,
    headers: &HeaderMap,
) -> Option<User> {
    let Some(authorization) = headers.get(AUTHORIZATION) else {
        return Some(user_of_certificate.unwrap_or_else(User::anonymous));
    };
    let token = authorization.to_str().ok()?.strip_prefix("Bearer ")?;
    cluster.credentials.user_of_token(token)
}
