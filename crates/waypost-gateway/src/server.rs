//! Takes connections, tells the gateway's own pages from the routes, and ends in order.

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
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use waypost::{
    Check, ConfigError, Error, Host, Registrar, ServiceDiscoveryClient, ServiceRegistration,
};

use crate::access_log::{AccessLog, End};
use crate::config::Config;
use crate::framing::{Ambiguous, Inspected, MAX_HEAD};
use crate::headers;
use crate::pages::Pages;
use crate::problem::Problem;
use crate::proxy::Proxy;
use crate::response_body::ResponseBody;
use crate::routes::Routes;
use crate::target::{self, Refused, Target};

/// How long a client may take for the head of a request, and keep an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// How long to wait when no connection can be taken, as when there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// After this much silence TCP itself asks whether the client is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// How often the registry asks for the gateway's health.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// An API gateway; see the [crate's documentation](crate).
pub struct Gateway {
    shared: Arc<Shared>,
    connections: TaskTracker,
    /// Ends what is still open when the time for draining is over.
    closing: CancellationToken,
}

struct Shared {
    config: Config,
    client: ServiceDiscoveryClient,
    routes: Arc<Routes>,
    proxy: Proxy,
    pages: Pages,
}

impl Gateway {
    /// A gateway to the services that the client discovers.
    ///
    /// # Errors
    /// If the file with the certificates can't be used.
    pub fn new(client: ServiceDiscoveryClient, config: Config) -> Result<Self, ConfigError> {
        let (connections, closing) = (TaskTracker::new(), CancellationToken::new());
        let routes = Arc::new(Routes::new(client.clone(), &config));
        let proxy = Proxy::new(config.clone(), connections.clone(), closing.clone())?;
        let pages = Pages::new(client.clone(), Arc::clone(&routes), &config);
        let shared = Arc::new(Shared {
            config,
            client,
            routes,
            proxy,
            pages,
        });
        Ok(Self {
            shared,
            connections,
            closing,
        })
    }

    /// Registers the gateway and serves until `stop` completes. Then it ends in this order: its
    /// health turns to 503, it is deregistered, the news gets time to spread, no connection is
    /// taken any more, and requests under way go on until they are done or the drain timeout is
    /// over.
    ///
    /// A provider that can't register, such as a file, is no error; a registry that can't be
    /// reached is neither, it will have the gateway when it comes back.
    ///
    /// # Errors
    /// If the registration is not valid.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let registrar = self.register(&listener)?;
        let draining = CancellationToken::new();
        let leave = async {
            stop.await;
            tracing::info!("stopping");
            self.shared.pages.health().set_ready(false);
            if let Some(registrar) = registrar {
                if let Err(error) = registrar.deregister().await {
                    tracing::warn!(%error, "could not deregister");
                }
                tokio::time::sleep(self.shared.config.spread).await;
            }
        };
        tokio::select! {
            () = self.accept(&listener, &draining) => {}
            () = self.shared.routes.follow() => {}
            () = leave => {}
        }
        drop(listener);
        draining.cancel();
        self.drain().await;
        Ok(())
    }

    fn register(&self, listener: &TcpListener) -> Result<Option<Registrar>, Error> {
        let Ok(address) = listener.local_addr() else {
            return Ok(None);
        };
        let mut registration =
            ServiceRegistration::new(&self.shared.config.service, address.port())?
                .tag("gateway")
                .version(env!("CARGO_PKG_VERSION"))
                .check(Check::http("/health").every(CHECK_INTERVAL))
                .health(self.shared.pages.health().clone());
        if !address.ip().is_unspecified() {
            registration = registration.host(Host::Ip(address.ip()));
        }
        match Registrar::start(Arc::clone(self.shared.client.provider()), registration) {
            Ok(registrar) => Ok(Some(registrar)),
            Err(Error::Unsupported(reason)) => {
                tracing::info!(%reason, "the gateway itself is not registered");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn accept(&self, listener: &TcpListener, draining: &CancellationToken) {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let shared = Arc::clone(&self.shared);
                    let connection = connection(shared, stream, peer, draining.clone());
                    let closing = self.closing.clone();
                    self.connections.spawn(async move {
                        let _ = closing.run_until_cancelled_owned(connection).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "can't take a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn drain(&self) {
        self.connections.close();
        let timeout = self.shared.config.drain_timeout;
        if tokio::time::timeout(timeout, self.connections.wait())
            .await
            .is_err()
        {
            let open = self.connections.len();
            tracing::warn!(open, "ending connections that were not done in {timeout:?}");
            self.closing.cancel();
            self.connections.wait().await;
        }
    }
}

impl Drop for Gateway {
    /// Also when nobody waits for the end of [`serve`](Self::serve), no connection outlives it.
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

async fn connection(
    shared: Arc<Shared>,
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
        let (shared, ambiguous) = (Arc::clone(&shared), ambiguous.clone());
        async move { Ok::<_, Infallible>(shared.answer(request, peer, &ambiguous).await) }
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

impl Shared {
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
