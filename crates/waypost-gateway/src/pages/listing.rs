//! `/internal/services` and `/internal/routes`: the known services and routes, page by page.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::{Response, StatusCode};
use serde_json::{Value, json};
use waypost::snapshot::{Endpoint, Freshness, Snapshot};
use waypost::{Error, ServiceDiscoveryClient, ServiceName};

use super::ignored::describe_ignored;
use super::query::{number, parameter};
use super::response::json_response;
use crate::problem::Problem;
use crate::response_body::ResponseBody;
use crate::routes::Routes;
use crate::service::Service;

/// The default and maximum number of entries on a page.
const PAGE: usize = 100;
const MAX_PAGE: usize = 1000;
/// The maximum number of instances on a page, of all its services together.
const MAX_INSTANCES: usize = 1000;
/// The state of a service whose instances the gateway doesn't know, since it has not been called yet.
const NOT_WATCHED: &str = "not_watched";

/// Lists services and routes, with what the gateway knows about them already. Only a service that the
/// request names is looked up: otherwise each page would start up to a thousand watches.
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
        let known = self.known(names.iter(), query).await;
        let mut remaining = MAX_INSTANCES;
        let services = names.iter().map(|name| {
            let found = known.get(name);
            let mut service = describe(found);
            service["name"] = json!(name);
            if let Some(Ok(snapshot)) = found {
                let endpoints = snapshot.endpoints();
                let instances = endpoints.iter().take(remaining);
                service["instances"] = instances.map(|endpoint| instance(endpoint)).collect();
                leave_out(&mut service, endpoints.len(), &mut remaining);
            }
            service
        });
        let services: Vec<_> = services.collect();
        let registry = freshness(catalog.freshness());
        let ignored = self.client.directory().provider().ignored_names();
        let body = json!({
            "registry": registry,
            "services": services,
            "ignored": describe_ignored(&ignored),
            "next": next,
        });
        Ok(json_response(StatusCode::OK, &body))
    }

    pub(super) async fn routes(
        &self,
        query: Option<&str>,
    ) -> Result<Response<ResponseBody>, Problem> {
        let mut routes = self.routes.all();
        // Pages follow each other by name.
        routes.sort_by(|a, b| a.name().cmp(b.name()));
        let (routes, next) = page(routes, query, |route| route.name())?;
        let destinations = routes.iter().flat_map(|route| route.destinations());
        let names = destinations.map(|destination| destination.service.name());
        let known = self.known(names, query).await;
        let mut remaining = MAX_INSTANCES;
        let routes = routes.iter().map(|route| {
            let services = route.destinations().iter().map(|destination| {
                let service = &destination.service;
                describe_service(service, known.get(service.name()), &mut remaining)
            });
            let mut services: Vec<_> = services.collect();
            // Most routes have one service, whose state is the route's.
            let mut described = match services.len() {
                1 => services.remove(0),
                _ => json!({"services": services}),
            };
            described["name"] = json!(&**route.name());
            described["path"] = json!(route.path().to_string());
            described["source"] = json!(route.source().to_string());
            if !route.hosts().is_empty() {
                let hosts = route.hosts().iter().map(ToString::to_string);
                described["hosts"] = json!(hosts.collect::<Vec<_>>());
            }
            described
        });
        let routes: Vec<_> = routes.collect();
        let mut body = json!({"registry": self.registry(), "routes": routes, "next": next});
        if let Some(state) = self.routes.objects_state() {
            body["http_routes"] = json!({
                "known": state.is_known,
                "stale": state.error.is_some(),
                "age_seconds": state.confirmed_at.map(|at| seconds(at.elapsed())),
                "error": state.error,
            });
        }
        Ok(json_response(StatusCode::OK, &body))
    }

    /// What is known about watched services, and about `services`, which are looked up if the request names
    /// one.
    async fn known(
        &self,
        services: impl Iterator<Item = &ServiceName>,
        query: Option<&str>,
    ) -> Known {
        let directory = self.client.directory();
        let watched = directory.watched().into_iter();
        let mut known: Known = watched
            .map(|snapshot| (snapshot.service().clone(), Ok(snapshot)))
            .collect();
        if parameter(query, "service").is_some() {
            for name in services {
                let found = directory.lookup(name).await;
                known.insert(name.clone(), found);
            }
        }
        known
    }

    /// The source of the list of services and its age.
    pub(super) fn registry(&self) -> Value {
        self.routes
            .freshness()
            .as_ref()
            .map_or(Value::Null, freshness)
    }
}

/// The snapshots of watched services, and the results of look-ups.
type Known = HashMap<ServiceName, Result<Arc<Snapshot>, Error>>;

/// A service of a route. `remaining` is the number of instances that still fit on the page.
fn describe_service(
    service: &Service,
    found: Option<&Result<Arc<Snapshot>, Error>>,
    remaining: &mut usize,
) -> Value {
    let mut described = describe(found);
    described["service"] = json!(service.name());
    described["listed"] = json!(service.is_listed());
    described["balancing"] = Value::Null;
    if let Some(mut balancing) = service.explain() {
        let instances = balancing.instances.len();
        balancing.instances.truncate(*remaining);
        described["balancing"] = json!(balancing);
        leave_out(&mut described, instances, remaining);
    }
    described["avoided"] = service
        .recently_refused()
        .iter()
        .map(|id| json!(id.as_str()))
        .collect();
    described
}

/// Records how many of a service's instances no longer fit on the page.
fn leave_out(service: &mut Value, instances: usize, remaining: &mut usize) {
    let left_out = instances.saturating_sub(*remaining);
    *remaining = remaining.saturating_sub(instances);
    if left_out > 0 {
        service["left_out"] = json!(left_out);
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

fn describe(found: Option<&Result<Arc<Snapshot>, Error>>) -> Value {
    let Some(found) = found else {
        return json!({"state": NOT_WATCHED});
    };
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
