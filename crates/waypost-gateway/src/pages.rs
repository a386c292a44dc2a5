//! The gateway's own pages: index, health, services and routes.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::{Either, Full};
use serde_json::{Value, json};
use waypost::health::CheckFunction;
use waypost::snapshot::{Endpoint, Freshness, Snapshot};
use waypost::{Error, HealthChecks, ServiceDiscoveryClient};

use crate::config::Config;
use crate::problem::Problem;
use crate::response_body::ResponseBody;
use crate::routes::{Route, Routes};
use crate::target::Target;

/// The number of services that are looked up concurrently.
const CONCURRENT_LOOKUPS: usize = 16;

/// Responds to requests that are not for a service.
pub(crate) struct Pages {
    client: ServiceDiscoveryClient,
    routes: Arc<Routes>,
    health: HealthChecks,
}

impl Pages {
    pub(crate) fn new(
        client: ServiceDiscoveryClient,
        routes: Arc<Routes>,
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
            client,
            routes,
            health,
        }
    }

    pub(crate) fn health(&self) -> &HealthChecks {
        &self.health
    }

    /// The page at a target, or `None` if the target is not one of the gateway's own paths.
    pub(crate) async fn find(
        &self,
        target: &Target,
        headers: &HeaderMap,
    ) -> Option<Response<ResponseBody>> {
        let path = target.path.split('?').next().unwrap_or_default();
        Some(match (target.service.as_str(), path, target.bare) {
            ("", _, true) => self.index(headers),
            ("livez", _, true) => json(StatusCode::OK, &json!({"status": "passing"})),
            ("health", _, true) => self.own_health(false).await,
            ("readyz", _, true) => self.readiness().await,
            ("internal", "/health", _) => self.own_health(true).await,
            ("internal", "/services", _) => self.services().await,
            ("internal", "/routes", _) => self.all_routes().await,
            ("internal", ..) => Problem::new(
                StatusCode::NOT_FOUND,
                "unknown_page",
                "the internal pages are /internal/health, /internal/services and /internal/routes",
            )
            .into_response(),
            _ => return None,
        })
    }

    async fn own_health(&self, with_registry: bool) -> Response<ResponseBody> {
        let report = self.health.report().await;
        let status = if report.is_serving() {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        let mut body = json!(report);
        if with_registry && let Value::Object(members) = &mut body {
            members.insert("registry".into(), self.registry());
        }
        json(status, &body)
    }

    /// 503 until the registry has listed its services once. A registry that fails later does not
    /// make the gateway unready, since the routes are known.
    async fn readiness(&self) -> Response<ResponseBody> {
        let freshness = self.routes.freshness();
        if freshness.is_some_and(|freshness| freshness.is_known()) {
            return self.own_health(false).await;
        }
        let mut response = self.own_health(true).await;
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response
    }

    async fn services(&self) -> Response<ResponseBody> {
        let catalog = match self.client.services().await {
            Ok(catalog) => catalog,
            Err(error) => return Problem::from_discovery(&error).into_response(),
        };
        let services = stream::iter(catalog.names().clone())
            .map(|name| async move {
                let found = self.client.directory().lookup(&name).await;
                let mut service = describe(&found);
                service["name"] = json!(name);
                if let Ok(snapshot) = &found {
                    let instances = snapshot.endpoints().iter();
                    service["instances"] = instances.map(|endpoint| instance(endpoint)).collect();
                }
                service
            })
            .buffered(CONCURRENT_LOOKUPS)
            .collect::<Vec<_>>()
            .await;
        let registry = freshness(catalog.freshness());
        json(
            StatusCode::OK,
            &json!({"registry": registry, "services": services}),
        )
    }

    async fn all_routes(&self) -> Response<ResponseBody> {
        let routes = stream::iter(self.routes.all())
            .map(|route| async move {
                let found = self.client.directory().lookup(route.service()).await;
                let mut described = describe(&found);
                described["path"] = json!(path(&route));
                described["service"] = json!(route.service());
                described["listed"] = json!(route.is_listed());
                described["balancing"] = json!(route.explain());
                described["avoided"] = route
                    .recently_refused()
                    .iter()
                    .map(|id| json!(id.as_str()))
                    .collect();
                described
            })
            .buffered(CONCURRENT_LOOKUPS)
            .collect::<Vec<_>>()
            .await;
        json(
            StatusCode::OK,
            &json!({"registry": self.registry(), "routes": routes}),
        )
    }

    fn registry(&self) -> Value {
        self.routes
            .freshness()
            .as_ref()
            .map_or(Value::Null, freshness)
    }

    fn index(&self, headers: &HeaderMap) -> Response<ResponseBody> {
        let routes = self.routes.all();
        let wants_html = headers
            .get(header::ACCEPT)
            .and_then(|accept| accept.to_str().ok())
            .is_some_and(|accept| accept.contains("text/html"));
        if !wants_html {
            let paths: Vec<_> = routes.iter().map(|route| path(route)).collect();
            let body = json!({
                "service": self.health.service(),
                "routes": paths,
                "internal": ["/internal/health", "/internal/services", "/internal/routes"],
            });
            return json(StatusCode::OK, &body);
        }
        // Service names contain no character that needs escaping in HTML.
        let mut items = String::new();
        for route in &routes {
            let note = if route.is_listed() {
                ""
            } else {
                " (no instances)"
            };
            let path = path(route);
            let _ = write!(items, "<li><a href=\"{path}\">{path}</a>{note}</li>");
        }
        if items.is_empty() {
            items.push_str("<li>no services discovered yet</li>");
        }
        let page = PAGE
            .replace("{routes}", &items)
            .replace("{service}", self.health.service());
        respond(StatusCode::OK, "text/html; charset=utf-8", page)
    }
}

const PAGE: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
    <title>{service}</title><style>body{font:1rem/1.6 system-ui;margin:3rem auto;max-width:40rem;\
    padding:0 1rem}</style><h1>{service}</h1><p>Services behind this gateway:</p>\
    <ul>{routes}</ul><p>More: <a href=\"/internal/routes\">routes</a>, \
    <a href=\"/internal/services\">services</a>, <a href=\"/internal/health\">health</a>.</p></html>";

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

fn path(route: &Route) -> String {
    format!("/{}/", route.service())
}

fn describe(found: &Result<Arc<Snapshot>, Error>) -> Value {
    let (state, detail) = match found.as_ref().map(|snapshot| snapshot.usable()) {
        Ok(Ok(_)) => ("ready", None),
        Ok(Err(error)) => (
            Problem::from_discovery(&error).reason,
            Some(error.to_string()),
        ),
        Err(error) => (
            Problem::from_discovery(error).reason,
            Some(error.to_string()),
        ),
    };
    let mut described = json!({"state": state});
    if let Some(detail) = detail {
        described["detail"] = json!(detail);
    }
    if let Ok(snapshot) = found {
        described["ready"] = json!(snapshot.ready().len());
        described["total"] = json!(snapshot.endpoints().len());
        described["freshness"] = freshness(snapshot.freshness());
    }
    described
}

fn instance(endpoint: &Endpoint) -> Value {
    let instance = endpoint.instance();
    json!({
        "id": instance.id().as_str(),
        "url": instance.url(),
        "health": instance.health(),
        "weight": instance.weight(),
        "version": instance.version(),
        "zone": instance.zone(),
        "tags": instance.tags().collect::<Vec<_>>(),
        "in_flight": endpoint.in_flight(),
    })
}

/// The source of an answer and its age.
fn freshness(freshness: &Freshness) -> Value {
    let mut described = json!({
        "provider": freshness.provider(),
        "generation": freshness.generation(),
        "stale": freshness.is_stale(),
        "age_seconds": freshness.age().map(seconds),
    });
    if let Some(failure) = freshness.failure() {
        described["failing_for_seconds"] = json!(seconds(failure.since().elapsed()));
        described["failed_attempts"] = json!(failure.attempts());
        described["error"] = json!(failure.error().to_string());
    }
    described
}

fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e3).round() / 1e3
}

fn json(status: StatusCode, body: &Value) -> Response<ResponseBody> {
    respond(status, "application/json", body.to_string())
}

fn respond(status: StatusCode, kind: &'static str, body: String) -> Response<ResponseBody> {
    let mut response = Response::new(Either::Left(Full::new(Bytes::from(body))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
