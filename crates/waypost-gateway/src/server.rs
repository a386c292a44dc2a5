//! Responds to a request: with one of the gateway's own pages, through a route, or with an error.

use std::path::Path;
use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use waypost::{ConfigError, ServiceDiscoveryClient};

use crate::auth::ClientRequest;
use crate::client::Client;
use crate::config::Config;
use crate::exchange::Exchange;
use crate::pages::Pages;
use crate::policy::{Admission, CompressionRules};
use crate::problem::{ErrorFormat, Problem};
use crate::proxy::Proxy;
use crate::response_body::ResponseBody;
use crate::routes::{Route, Routes, decode_unreserved};
use crate::server_tls::ServerTls;
use crate::spans::Tracer;
use crate::stream_info::{EndReason, StreamInfo};
use crate::traffic::Traffic;
use crate::upstream::ClientTls;
use crate::{headers, target, tunnel};

/// The state that all workers share.
pub(crate) struct Server {
    config: Config,
    routes: Arc<Routes>,
    pages: Pages,
    proxy: Proxy,
    traffic: Arc<Traffic>,
    tracer: Arc<Tracer>,
    client_tls: Arc<ClientTls>,
    tls: Option<ServerTls>,
}

impl Server {
    /// Must be called within the runtime that watches run on. `tunnels` tracks upgraded connections,
    /// which are closed when `closing` is cancelled.
    ///
    /// # Errors
    /// If a file that the configuration names can't be read.
    pub(crate) fn new(
        client: ServiceDiscoveryClient,
        config: Config,
        tunnels: TaskTracker,
        closing: CancellationToken,
    ) -> Result<Self, ConfigError> {
        let client_tls = Arc::new(ClientTls::new(config.ca_file.as_deref().map(Path::new))?);
        let routes = Arc::new(Routes::new(client.clone(), &config, &client_tls)?);
        let traffic = Arc::new(Traffic::new());
        let tracer = Arc::new(Tracer::new(&config)?);
        let pages = Pages::new(
            client,
            Arc::clone(&routes),
            Arc::clone(&traffic),
            Arc::clone(&tracer),
            &config,
        );
        Ok(Self {
            proxy: Proxy::new(config.min_upload_rate, tunnels, closing),
            routes,
            pages,
            traffic,
            tracer,
            client_tls,
            tls: ServerTls::new(config.tls.clone(), config.serves_tls_listeners())?,
            config,
        })
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn routes(&self) -> &Routes {
        &self.routes
    }

    pub(crate) fn pages(&self) -> &Pages {
        &self.pages
    }

    pub(crate) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    pub(crate) fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    pub(crate) fn client_tls(&self) -> &Arc<ClientTls> {
        &self.client_tls
    }

    /// The TLS of clients' connections; `None` if they have none.
    pub(crate) fn tls(&self) -> Option<&ServerTls> {
        self.tls.as_ref()
    }

    /// Answers a request of a client.
    pub(crate) async fn respond(
        &self,
        request: Request<Incoming>,
        client: Arc<Client>,
    ) -> Response<ResponseBody> {
        // Passed by reference from here on, since a request is large and each move would copy it.
        let (parts, body) = request.into_parts();
        let mut request = Request::from_parts(parts, ());
        if tunnel::is_websocket_connect(&request) {
            tunnel::into_handshake(&mut request);
        }
        let id = client.worker().request_ids().of(request.headers());
        let host = match client.framing_fault.get() {
            Some(fault) => Err(fault),
            None => target::check(&request),
        };
        let info = StreamInfo::new(
            request.method().clone(),
            normalized(std::mem::take(request.uri_mut())),
            request.version(),
            id.clone(),
        );
        let mut exchange = Exchange::begin(client, info);
        let authority = host.as_ref().map_or(None, Option::as_ref);
        exchange.span =
            self.tracer
                .begin(request.headers(), authority, &exchange.client, &exchange);
        exchange.caller = headers::find(request.headers(), &headers::CALLER).cloned();
        let format = ErrorFormat::of(request.method(), request.headers());
        let mut response = match host {
            Ok(host) => {
                self.dispatch(&mut request, body, host, exchange, format)
                    .await
            }
            Err(invalid) => self.problem_response(invalid.into(), format, exchange),
        };
        response.headers_mut().insert(headers::REQUEST_ID, id);
        response
    }

    async fn dispatch(
        &self,
        request: &mut Request<()>,
        body: Incoming,
        host: Option<HeaderValue>,
        mut exchange: Exchange,
        format: ErrorFormat,
    ) -> Response<ResponseBody> {
        let path = exchange.uri.path();
        if let Some(page) = self.pages.public(path).await {
            return local_response(page, "local", exchange);
        }
        let authority = host.as_ref().and_then(|host| host.to_str().ok());
        let (method, headers) = (request.method(), request.headers());
        let found = self.routes.find(authority, &exchange.uri, method, headers);
        let route = match found.await {
            Ok(route) => route,
            Err(problem) => {
                if *method == Method::OPTIONS && exchange.uri.path() == "*" {
                    // Asks about the gateway as a whole (RFC 9110, section 9.3.7).
                    let mut response = Response::new(ResponseBody::empty());
                    *response.status_mut() = StatusCode::NO_CONTENT;
                    return local_response(response, "local", exchange);
                }
                return match self.pages.front_page(method, &exchange.uri, headers) {
                    Some(page) => local_response(page, "local", exchange),
                    None => self.problem_response(problem, format, exchange),
                };
            }
        };
        exchange.route = Some(Arc::clone(route.name()));
        exchange.span.routed(route.path());
        let is_bare = route.redirects_bare_prefix && exchange.uri.path() == route.prefix();
        if is_bare && matches!(*request.method(), Method::GET | Method::HEAD) {
            let response = redirect_to_slash(&exchange, route.prefix());
            return local_response(response, "redirect", exchange);
        }
        let policies = &route.policies;
        if let Some(redirect) = &route.redirect {
            let target = route.rewritten(&exchange.uri);
            let scheme = exchange.client.forwarding.public_scheme(headers);
            let mut response = redirect.response(&target, scheme, host.as_ref());
            policies.edit_response(None, response.headers_mut());
            return local_response(response, "redirect", exchange);
        }
        let origin = policies
            .cors
            .as_ref()
            .and_then(|_| request.headers().get(header::ORIGIN));
        let origin = origin.cloned();
        let accepts_gzip = policies.compression.is_some()
            && CompressionRules::is_accepted(
                request.method(),
                request.version(),
                request.headers(),
            );
        let mut response = self
            .pass(request, body, &route, host.as_ref(), exchange, format)
            .await;
        if let Some(compression) = &policies.compression
            && matches!(response.body(), ResponseBody::Proxied(_))
            && compression.prepare(accepts_gzip, &mut response)
        {
            response = response.map(|body| body.compressed(compression.level));
        }
        let origin = origin.as_ref().and_then(|origin| origin.to_str().ok());
        policies.edit_response(origin, response.headers_mut());
        response
    }

    /// Forwards a request that the route's policies admit.
    async fn pass(
        &self,
        request: &mut Request<()>,
        body: Incoming,
        route: &Route,
        host: Option<&HeaderValue>,
        mut exchange: Exchange,
        format: ErrorFormat,
    ) -> Response<ResponseBody> {
        let client = Arc::clone(&exchange.client);
        let worker = client.worker();
        let client_request = ClientRequest {
            method: request.method(),
            headers: request.headers(),
            uri: &exchange.uri,
            host,
            id: &exchange.request_id,
            forwarding: &client.forwarding,
            span: &exchange.span,
        };
        let (upstream, now) = (worker.upstream(), worker.deadlines().now());
        let policies = &route.policies;
        let admission = policies.admit(&client_request, client.peer().ip(), upstream, now);
        let admission = admission.await;
        match admission {
            Ok(Admission::Forward(permit, identity)) => {
                exchange.permit = permit;
                if let Some(uri) = identity.as_ref().and_then(|identity| identity.uri.clone()) {
                    exchange.uri = uri;
                }
                exchange.api_key = identity.as_ref().and_then(|identity| identity.key.clone());
                exchange.identity = identity;
            }
            Ok(Admission::Respond(response, reason)) => {
                return local_response(response.map(ResponseBody::from), reason, exchange);
            }
            Err(problem) => return self.problem_response(problem, format, exchange),
        }
        let forwarded = self
            .proxy
            .forward(route, host, request, body, &mut exchange)
            .await;
        match forwarded {
            Ok(upstream) => self.proxy.respond(upstream, route, exchange),
            Err(problem) => self.problem_response(problem, format, exchange),
        }
    }

    #[cold]
    fn problem_response(
        &self,
        problem: Problem,
        format: ErrorFormat,
        mut exchange: Exchange,
    ) -> Response<ResponseBody> {
        (exchange.cause).get_or_insert_with(|| problem.full_detail().to_owned());
        let reason = problem.reason;
        let problem = if self.config.error_details {
            problem.with_internals()
        } else {
            problem
        };
        let response = problem.into_response(format).map(ResponseBody::from);
        local_response(response, reason, exchange)
    }
}

/// The URI with the path as routes and services agree on it.
fn normalized(uri: Uri) -> Uri {
    let Some(path) = decode_unreserved(uri.path()) else {
        return uri;
    };
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = target.parse().ok();
    Uri::from_parts(parts).unwrap_or(uri)
}

/// Without the slash, relative links on a page would resolve to another service.
#[cold]
fn redirect_to_slash(exchange: &Exchange, prefix: &str) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    let query = exchange.uri.query().map(|query| format!("?{query}"));
    let location = format!("{prefix}/{}", query.unwrap_or_default());
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

fn local_response(
    response: Response<ResponseBody>,
    end: &'static str,
    mut exchange: Exchange,
) -> Response<ResponseBody> {
    exchange.response_started(response.status());
    exchange.end = EndReason::Local(end);
    response
}
