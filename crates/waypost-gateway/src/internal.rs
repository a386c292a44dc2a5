//! The internal listener: pages for operators, which clients can't reach.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use waypost_dashboard::{Dashboard, Sources};

use crate::pages::Pages;
use crate::problem::{ErrorFormat, Problem};
use crate::response_body::ResponseBody;
use crate::server::Server;

/// The pause after a failed `accept`.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The time limit for receiving a request head, and for an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Serves the internal pages until `stop` is cancelled, which also ends open event streams.
pub(crate) async fn serve(listener: TcpListener, server: Arc<Server>, stop: CancellationToken) {
    let is_loopback = listener
        .local_addr()
        .is_ok_and(|address| address.ip().is_loopback());
    let connections = TaskTracker::new();
    let accept = async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let connection = serve_connection(stream, Arc::clone(&server), is_loopback);
                    connections.spawn(stop.clone().run_until_cancelled_owned(connection));
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    let _: Option<Infallible> = stop.run_until_cancelled(accept).await;
}

async fn serve_connection(stream: TcpStream, server: Arc<Server>, is_loopback: bool) {
    let service = service_fn(move |request: Request<Incoming>| {
        let server = Arc::clone(&server);
        async move {
            let response = respond(&request, server.pages(), is_loopback).await;
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "connection to the internal listener failed");
    }
}

async fn respond(
    request: &Request<Incoming>,
    pages: &Pages,
    is_loopback: bool,
) -> Response<ResponseBody> {
    let format = ErrorFormat::of(request.method(), request.headers());
    if is_loopback && !is_local_name(request.headers()) {
        // A page of another site could have its name resolve to this address ("DNS rebinding").
        let detail = "the internal listener answers to localhost and addresses only";
        let problem = Problem::new(StatusCode::FORBIDDEN, "foreign_host", detail);
        return problem.into_response(format).map(ResponseBody::from);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let detail = "the internal pages can only be read";
        let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", detail);
        return problem.into_response(format).map(ResponseBody::from);
    }
    let uri = request.uri();
    // A browser gets the dashboard; its files and views have paths of their own.
    let path = uri.path().trim_start_matches('/');
    if (!path.is_empty() || format == ErrorFormat::Html)
        && let Some(response) = dashboard().respond(path, request.headers())
    {
        return response.map(ResponseBody::from);
    }
    pages.internal(uri.path(), uri.query(), format).await
}

/// The dashboard, with the traffic of this gateway.
fn dashboard() -> &'static Dashboard {
    static DASHBOARD: OnceLock<Dashboard> = OnceLock::new();
    DASHBOARD.get_or_init(|| {
        Dashboard::new(&Sources {
            traffic: Some("internal/traffic".to_owned()),
            ..Sources::default()
        })
    })
}

/// Whether the request's `Host` is an address or `localhost`.
fn is_local_name(headers: &HeaderMap) -> bool {
    let Some(host) = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
    else {
        // Only a program sends none.
        return true;
    };
    let name = host.rsplit_once(':').map_or(
        host,
        |(name, port)| {
            if port.ends_with(']') { host } else { name }
        },
    );
    name.eq_ignore_ascii_case("localhost")
        || host.parse::<SocketAddr>().is_ok()
        || name
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok()
}
