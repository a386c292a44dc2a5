//! Serves client connections, and dispatches requests to the gateway's own pages or to a route.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use waypost::{ConfigError, HealthChecks, ServiceDiscoveryClient};

use crate::access_log::{AccessLog, EndReason};
use crate::config::Config;
use crate::framing::{FramingConflict, MAX_HEAD};
use crate::pages::Pages;
use crate::problem::Problem;
use crate::proxy::Proxy;
use crate::response_body::ResponseBody;
use crate::routes::Routes;
use crate::target::{InvalidRequest, Target};
use crate::{framing, headers, target};

/// The time limit for receiving a request head, and for an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// The idle time after which TCP keep-alive probes are sent.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Responds to the requests of all connections.
pub(crate) struct Server {
    routes: Arc<Routes>,
    pages: Pages,
    proxy: Proxy,
}

impl Server {
    pub(crate) fn new(
        client: ServiceDiscoveryClient,
        config: Config,
        tunnels: TaskTracker,
        closing: CancellationToken,
    ) -> Result<Self, ConfigError> {
        let routes = Arc::new(Routes::new(client.clone(), &config));
        let pages = Pages::new(client, Arc::clone(&routes), &config);
        let proxy = Proxy::new(config, tunnels, closing)?;
        Ok(Self {
            routes,
            pages,
            proxy,
        })
    }

    pub(crate) fn routes(&self) -> &Routes {
        &self.routes
    }

    pub(crate) fn health(&self) -> &HealthChecks {
        self.pages.health()
    }

    async fn respond(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
        conflict: &FramingConflict,
    ) -> Response<ResponseBody> {
        let id = headers::request_id(request.headers());
        let path = request.uri().path().to_owned();
        let log = AccessLog::new(request.method().clone(), path, peer, id.clone());
        let target = if conflict.is_detected() {
            Err(InvalidRequest::AmbiguousLength)
        } else {
            target::read(&request)
        };
        let mut response = match target {
            Ok(target) => self.dispatch(request, &target, log).await,
            Err(invalid) => problem_response(invalid.into(), log),
        };
        response.headers_mut().insert(headers::REQUEST_ID, id);
        response
    }

    async fn dispatch(
        &self,
        request: Request<Incoming>,
        target: &Target,
        mut log: AccessLog,
    ) -> Response<ResponseBody> {
        if let Some(page) = self.pages.find(target, request.headers()).await {
            return local_response(page, "local", log);
        }
        let route = match self.routes.find(&target.service).await {
            Ok(route) => route,
            Err(problem) => return problem_response(problem, log),
        };
        log.route = Some(route.service().as_str().to_owned());
        if target.bare && matches!(*request.method(), Method::GET | Method::HEAD) {
            return local_response(redirect_to_slash(target), "redirect", log);
        }
        match self.proxy.forward(&route, target, request, &mut log).await {
            Ok(upstream) => self.proxy.respond(upstream, target, log),
            Err(problem) => problem_response(problem, log),
        }
    }
}

/// Serves one connection until the client closes it, an error occurs, or `draining` is cancelled.
pub(crate) async fn serve_connection(
    server: Arc<Server>,
    stream: TcpStream,
    peer: SocketAddr,
    draining: CancellationToken,
) {
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE);
    if let Err(error) = stream
        .set_nodelay(true)
        .and_then(|()| socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive))
    {
        tracing::debug!(%error, %peer, "setting socket options failed");
    }
    let (stream, conflict) = framing::inspect(stream);
    let service = service_fn(move |request| {
        let (server, conflict) = (Arc::clone(&server), conflict.clone());
        async move { Ok::<_, Infallible>(server.respond(request, peer, &conflict).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = draining.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, %peer, "connection failed");
    }
}

/// Without the slash, relative links on a page would resolve to another service.
fn redirect_to_slash(target: &Target) -> Response<ResponseBody> {
    let mut response = Response::new(Either::Left(Full::default()));
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    let location = format!("/{}{}", target.service, target.path);
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

fn problem_response(problem: Problem, mut log: AccessLog) -> Response<ResponseBody> {
    log.cause.get_or_insert_with(|| problem.detail.clone());
    let reason = problem.reason;
    local_response(problem.into_response(), reason, log)
}

fn local_response(
    response: Response<ResponseBody>,
    end: &'static str,
    mut log: AccessLog,
) -> Response<ResponseBody> {
    log.response_started(response.status());
    log.end = EndReason::Local(end);
    response
}
