//! `/internal/services` and `/internal/routes`: the known services and routes, page by page.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use http::{Response, StatusCode};
use serde_json::{Value, json};
use waypost::snapshot::{Endpoint, Freshness, Snapshot};
use waypost::{Error, ServiceDiscoveryClient, ServiceName};

use super::query::{number, parameter};
use super::response::json_response;
use crate::problem::Problem;
use crate::response_body::ResponseBody;
use crate::routes::Routes;
use crate::service::Service;

/// The number of services that are looked up concurrently.
const CONCURRENT_LOOKUPS: usize = 16;
/// The default and maximum number of entries on a page.
const PAGE: usize = 100;
const MAX_PAGE: usize = 1000;
/// The maximum number of instances that are listed for a service.
const MAX_INSTANCES: usize = 1000;

/// Lists services and routes. A page looks up only the services on it, so that a list of thousands
/// doesn't watch them all.
pub(super) struct Listing {
    client: ServiceDiscoveryClient,
    routes: Arc<Routes>,
}

impl Listing {
    pub(super) fn new(client: ServiceDiscoveryClient, routes: Arc<Routes>) -> Self {
        Self { client, routes }
    }

    pub(super) async fn services(
        &self,
        query: Option<&str>,
    ) -> Result<Response<ResponseBody>, Problem> {
        let catalog = self.client.services().await;
        let catalog = catalog.map_err(|error| Problem::from_discovery(&error))?;
        let names: Vec<_> = catalog.names().iter().cloned().collect();
        let (names, next) = page(names, query, ServiceName::as_str)?;
        let services = stream::iter(names)
            .map(|name| async move {
                let found = self.client.directory().lookup(&name).await;
                let mut service = describe(&found);
                service["name"] = json!(name);
                if let Ok(snapshot) = &found {
                    let instances = snapshot.endpoints().iter().take(MAX_INSTANCES);
                    service["instances"] = instances.map(|endpoint| instance(endpoint)).collect();
                }
                service
            })
            .buffered(CONCURRENT_LOOKUPS)
            .collect::<Vec<_>>()
            .await;
        let registry = freshness(catalog.freshness());
        let body = json!({"registry": registry, "services": services, "next": next});
        Ok(json_response(StatusCode::OK, &body))
    }

    pub(super) async fn routes(
        &self,
        query: Option<&str>,
    ) -> Result<Response<ResponseBody>, Problem> {
        let (routes, next) = page(self.routes.all(), query, |route| route.name())?;
        let routes = stream::iter(routes)
            .map(|route| async move {
                let mut services = Vec::new();
                for destination in route.destinations() {
                    services.push(self.describe_service(&destination.service).await);
                }
                // Most routes have one service, whose state is the route's.
                let mut described = match services.len() {
                    1 => services.remove(0),
                    _ => json!({"services": services}),
                };
                described["name"] = json!(&**route.name());
                described["path"] = json!(route.path().to_string());
                described
            })
            .buffered(CONCURRENT_LOOKUPS)
            .collect::<Vec<_>>()
            .await;
        let body = json!({"registry": self.registry(), "routes": routes, "next": next});
        Ok(json_response(StatusCode::OK, &body))
    }

    async fn describe_service(&self, service: &Service) -> Value {
        let found = self.client.directory().lookup(service.name()).await;
        let mut described = describe(&found);
        described["service"] = json!(service.name());
        described["listed"] = json!(service.is_listed());
        described["balancing"] = json!(service.explain());
        if let Some(instances) = described["balancing"]["instances"].as_array_mut() {
            instances.truncate(MAX_INSTANCES);
        }
        described["avoided"] = service
            .recently_refused()
            .iter()
            .map(|id| json!(id.as_str()))
            .collect();
        described
    }

    /// The source of the list of services and its age.
    pub(super) fn registry(&self) -> Value {
        self.routes
            .freshness()
            .as_ref()
            .map_or(Value::Null, freshness)
    }
}

/// The entries after `after`, at most `limit`, and the `after` of the next page if there is one.
fn page<T: Clone>(
    entries: Vec<T>,
    query: Option<&str>,
    name: impl Fn(&T) -> &str,
) -> Result<(Vec<T>, Option<String>), Problem> {
    let limit = number(query, "limit", PAGE, MAX_PAGE)?;
    let after = parameter(query, "after").unwrap_or_default();
    let only = parameter(query, "service");
    let mut rest = entries
        .into_iter()
        .filter(|entry| name(entry) > after)
        .filter(|entry| only.is_none_or(|only| name(entry) == only));
    let entries: Vec<T> = rest.by_ref().take(limit).collect();
    let last = entries.last().map(|entry| name(entry).to_owned());
    let next = rest.next().and(last);
    Ok((entries, next))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_without_a_gap() {
        let names: Vec<String> = (0..250).map(|n| format!("s{n:03}")).collect();
        let mut query = "limit=100".to_owned();
        let mut seen = Vec::new();
        loop {
            let (entries, next) = page(names.clone(), Some(&query), |name| name).unwrap();
            seen.extend(entries);
            match next {
                Some(next) => query = format!("limit=100&after={next}"),
                None => break,
            }
        }
        assert_eq!(seen, names);
        let (one, next) = page(names.clone(), Some("service=s007"), |name| name).unwrap();
        assert_eq!((one, next), (vec!["s007".to_owned()], None));
        for bad in ["limit=0", "limit=x", "limit=100000"] {
            assert!(
                page(names.clone(), Some(bad), |name| name).is_err(),
                "{bad}"
            );
        }
    }
}
