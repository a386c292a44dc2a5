//! Serves connections, and tells the gateway's own pages from the routes.

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

use crate::access_log::{AccessLog, End};
use crate::config::Config;
use crate::framing::{Ambiguous, Inspected, MAX_HEAD};
use crate::pages::Pages;
use crate::problem::Problem;
use crate::proxy::Proxy;
use crate::response_body::ResponseBody;
use crate::routes::Routes;
use crate::target::{Refused, Target};
use crate::{headers, target};

/// How long a client may take for the head of a request, and keep an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// After this much silence TCP itself asks whether the client is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Answers requests, whichever connection they come on.
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

    async fn answer(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
        ambiguous: &Ambiguous,
    ) -> Response<ResponseBody> {
        let id = headers::request_id(request.headers());
        let path = request.uri().path().to_owned();
        let log = AccessLog::new(request.method().clone(), path, peer, id.clone());
        let refused = ambiguous.was_seen().then_some(Refused::AmbiguousLength);
        let mut response = match refused.map_or_else(|| target::read(&request), Err) {
            Ok(target) => self.dispatch(request, &target, log).await,
            Err(refused) => fail(refused.into(), log),
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
            return finish(page, "local", log);
        }
        let route = match self.routes.find(&target.service).await {
            Ok(route) => route,
            Err(problem) => return fail(problem, log),
        };
        log.route = Some(route.service().as_str().to_owned());
        if target.bare && matches!(*request.method(), Method::GET | Method::HEAD) {
            return finish(to_slash(target), "redirect", log);
        }
        match self.proxy.forward(&route, target, request, &mut log).await {
            Ok(answer) => self.proxy.hand_on(answer, target, log),
            Err(problem) => fail(problem, log),
        }
    }
}

/// Serves one connection until its client, `draining` or an error ends it.
pub(crate) async fn connection(
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
        tracing::debug!(%error, %peer, "can't set the options of a connection");
    }
    let (stream, ambiguous) = Inspected::new(stream);
    let service = service_fn(move |request| {
        let (server, ambiguous) = (Arc::clone(&server), ambiguous.clone());
        async move { Ok::<_, Infallible>(server.answer(request, peer, &ambiguous).await) }
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
        tracing::debug!(%error, %peer, "a connection broke");
    }
}

/// Without the slash, a page's relative links would leave the service.
fn to_slash(target: &Target) -> Response<ResponseBody> {
    let mut response = Response::new(Either::Left(Full::default()));
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    let location = format!("/{}{}", target.service, target.path);
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

fn fail(problem: Problem, mut log: AccessLog) -> Response<ResponseBody> {
    log.cause.get_or_insert_with(|| problem.detail.clone());
    let reason = problem.reason;
    finish(problem.into_response(), reason, log)
}

fn finish(
    response: Response<ResponseBody>,
    end: &'static str,
    mut log: AccessLog,
) -> Response<ResponseBody> {
    log.began_to_answer(response.status());
    log.end = End::Local(end);
    response
}
