//! The gateway's own pages: the public ones, and those of the internal listener.

mod ignored;
mod index;
mod listing;
mod metrics;
mod query;
mod response;
mod traffic;

use std::sync::{Arc, OnceLock};

use http::{HeaderMap, Method, Response, StatusCode, Uri};
use serde_json::{Value, json};
use waypost::health::CheckFunction;
use waypost::snapshot::Freshness;
use waypost::{HealthChecks, ServiceDiscoveryClient};
use waypost_dashboard::{Dashboard, Sources};

use self::listing::Listing;
use self::response::json_response;
use self::traffic::Audience;
use crate::access_log::AccessLog;
use crate::config::Config;
use crate::problem::{ErrorFormat, Problem};
use crate::response_body::ResponseBody;
use crate::routes::Routes;
use crate::spans::Tracer;
use crate::traffic::Traffic;

/// Where the files of the front page are. No service has such a name, so no route of a service is hidden.
const FRONT_ROOT: &str = ".waypost/";
/// The stream of the front page, below its root.
const TRAFFIC: &str = "traffic";

/// Responds to requests that are not for a service.
pub(crate) struct Pages {
    routes: Arc<Routes>,
    health: HealthChecks,
    listing: Listing,
    traffic: Arc<Traffic>,
    tracer: Arc<Tracer>,
    access_log: Option<AccessLog>,
    lists_routes: bool,
    /// Whether public pages show details, as [`Config::error_details`].
    shows_details: bool,
}

/// Whether the public page at this path is for probes. A route can't have the path.
pub(crate) fn is_probe(path: &str) -> bool {
    matches!(path, "/health" | "/livez" | "/readyz")
}

impl Pages {
    pub(crate) fn new(
        client: ServiceDiscoveryClient,
        routes: Arc<Routes>,
        traffic: Arc<Traffic>,
        tracer: Arc<Tracer>,
        config: &Config,
    ) -> Self {
        let checked = Arc::clone(&routes);
        let health = HealthChecks::new(config.service.as_str()).with(
            // Advisory: while the registry is unavailable, the last known instances are used, so the
            // gateway should keep its traffic.
            CheckFunction::new("registry", move || {
                std::future::ready(check_registry(checked.freshness()))
            })
            .advisory(),
        );
        Self {
            listing: Listing::new(client, Arc::clone(&routes)),
            routes,
            health,
            traffic,
            tracer,
            access_log: config.access_log.clone(),
            lists_routes: config.list_routes,
            shows_details: config.error_details,
        }
    }

    pub(crate) fn health(&self) -> &HealthChecks {
        &self.health
    }

    /// The public page at this path, or `None` if there is none.
    pub(crate) async fn public(&self, path: &str) -> Option<Response<ResponseBody>> {
        if !is_probe(path) {
            return None;
        }
        // Boxed, so that the future of a request to a service is small.
        Box::pin(self.probe(path, self.shows_details)).await
    }

    async fn probe(&self, path: &str, details: bool) -> Option<Response<ResponseBody>> {
        Some(match path {
            "/livez" => json_response(StatusCode::OK, &json!({"status": "passing"})),
            "/health" => self.own_health(details, false).await,
            "/readyz" => self.readiness(details).await,
            _ => return None,
        })
    }

    /// The page at `/` and its files, if they are public and no route matches. A browser gets the dashboard.
    pub(crate) fn front_page(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Option<Response<ResponseBody>> {
        if !self.lists_routes || !matches!(*method, Method::GET | Method::HEAD) {
            return None;
        }
        let format = ErrorFormat::of(method, headers);
        if uri.path() == "/" {
            let page = || {
                front_dashboard()
                    .start_page(FRONT_ROOT, headers)
                    .map(ResponseBody::from)
            };
            return Some(match format {
                ErrorFormat::Html => page(),
                _ => index::page(self.health.service(), &self.routes),
            });
        }
        let path = uri.path().strip_prefix('/')?.strip_prefix(FRONT_ROOT)?;
        if path != TRAFFIC {
            return front_dashboard()
                .respond(path, headers)
                .map(|response| response.map(ResponseBody::from));
        }
        let (routes, traffic) = (&self.routes, &self.traffic);
        let stream = traffic::stream(routes, traffic, uri.query(), Audience::Public);
        Some(stream.unwrap_or_else(|problem| problem.into_response(format).map(ResponseBody::from)))
    }

    /// The page at a path of the internal listener.
    pub(crate) async fn internal(
        &self,
        path: &str,
        query: Option<&str>,
        format: ErrorFormat,
    ) -> Response<ResponseBody> {
        let page = match path {
            "/" => Ok(index::page(self.health.service(), &self.routes)),
            "/internal/health" => Ok(self.own_health(true, true).await),
            "/internal/services" => self.listing.services(query).await,
            "/internal/routes" => self.listing.routes(query).await,
            "/internal/traffic" => {
                traffic::stream(&self.routes, &self.traffic, query, Audience::Internal)
            }
            "/metrics" => Ok(metrics::page(
                &self.routes,
                &self.traffic,
                self.tracer.counts(),
                self.access_log.as_ref().map(AccessLog::lost),
            )),
            _ => match self.probe(path, true).await {
                Some(page) => Ok(page),
                None => Err(Problem::new(
                    StatusCode::NOT_FOUND,
                    "unknown_page",
                    "the internal pages are /internal/health, /internal/services, \
                     /internal/routes, /internal/traffic and /metrics",
                )),
            },
        };
        page.unwrap_or_else(|problem| {
            let response = problem.with_internals().into_response(format);
            response.map(ResponseBody::from)
        })
    }

    /// The health of the gateway itself. Without `details`, the errors of checks and the state of the registry
    /// are left out.
    async fn own_health(&self, details: bool, with_registry: bool) -> Response<ResponseBody> {
        let report = self.health.report().await;
        let status = if report.is_serving() {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        let mut body = json!(report);
        if !details && let Some(Value::Array(checks)) = body.get_mut("checks") {
            for check in checks.iter_mut().filter_map(Value::as_object_mut) {
                check.remove("error");
            }
        }
        if details
            && with_registry
            && let Value::Object(members) = &mut body
        {
            members.insert("registry".into(), self.listing.registry());
        }
        json_response(status, &body)
    }

    /// Responds with 503 until the registry has listed its services once and, if HTTPRoutes are used, they
    /// are known. A registry that fails later does not make the gateway unready, since the routes are known.
    async fn readiness(&self, details: bool) -> Response<ResponseBody> {
        let freshness = self.routes.freshness();
        let is_listed = freshness.is_some_and(|freshness| freshness.is_known());
        if is_listed && self.routes.are_objects_known() {
            return self.own_health(details, false).await;
        }
        let mut response = self.own_health(details, true).await;
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response
    }
}

/// The dashboard at `/` of the public listener.
fn front_dashboard() -> &'static Dashboard {
    static DASHBOARD: OnceLock<Dashboard> = OnceLock::new();
    DASHBOARD.get_or_init(|| {
        Dashboard::new(&Sources {
            traffic: Some(TRAFFIC.to_owned()),
            ..Sources::default()
        })
    })
}

fn check_registry(freshness: Option<Freshness>) -> Result<(), String> {
    let Some(freshness) = freshness else {
        return Err("the registry has not answered yet".into());
    };
    match (freshness.failure(), freshness.age()) {
        (None, _) => Ok(()),
        (Some(failure), Some(age)) => Err(format!(
            "{}; the last answer is {} s old",
            failure.error(),
            age.as_secs()
        )),
        (Some(failure), None) => Err(failure.error().to_string()),
    }
}
