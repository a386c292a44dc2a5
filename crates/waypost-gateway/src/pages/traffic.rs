//! `/internal/traffic`: the last minutes, the routes, and then each second as it passes, as server-sent
//! events.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use waypost::balance::Selection;

use super::ignored::describe_ignored;
use super::query::number;
use super::response::respond;
use crate::problem::Problem;
use crate::response_body::ResponseBody;
use crate::routes::{Route, Routes};
use crate::service::Service;
use crate::traffic::{History, InstanceCounts, SECONDS, Second, ServiceCounts, Traffic};

/// The number of routes that are described.
const MAX_ROUTES: usize = 500;

/// Who reads the stream.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Audience {
    /// Operators, who may know the addresses of instances.
    Internal,
    /// Anyone who can reach the gateway.
    Public,
}

/// Streams `snapshot` and then `second` events, and `routes` after the first one and after each change.
/// `?seconds=` is the length of the history in `snapshot`.
pub(super) fn stream(
    routes: &Arc<Routes>,
    traffic: &Arc<Traffic>,
    query: Option<&str>,
    audience: Audience,
) -> Result<Response<ResponseBody>, Problem> {
    let seconds = number(query, "seconds", SECONDS, SECONDS)?;
    let subscription =
        Subscription::new(Arc::clone(routes), Arc::clone(traffic), seconds, audience);
    let events = stream::unfold(subscription, |mut subscription| async move {
        subscription.next().await.map(|event| (event, subscription))
    });
    let body = ResponseBody::Stream(events.boxed());
    Ok(respond(StatusCode::OK, "text/event-stream", body))
}

struct Subscription {
    routes: Arc<Routes>,
    traffic: Arc<Traffic>,
    seconds: usize,
    audience: Audience,
    /// The data of the last `routes` event.
    described_routes: Value,
    /// The history, which is sent first.
    snapshot: Option<History>,
    following: broadcast::Receiver<Arc<Second>>,
    /// The last data that was sent about the instances of each service.
    instances: HashMap<Arc<str>, Value>,
}

impl Subscription {
    fn new(routes: Arc<Routes>, traffic: Arc<Traffic>, seconds: usize, audience: Audience) -> Self {
        let (history, following) = traffic.subscribe();
        Self {
            routes,
            traffic,
            seconds,
            audience,
            described_routes: Value::Null,
            snapshot: Some(history),
            following,
            instances: HashMap::new(),
        }
    }

    /// The next events; `None` when the gateway ends.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(history) = self.snapshot.take() {
            return Some(self.with_routes(event("snapshot", &snapshot(&history, self.seconds))));
        }
        let traffic = Arc::clone(&self.traffic);
        let received = tokio::select! {
            received = self.following.recv() => received,
            () = traffic.ended() => return None,
        };
        let next = match received {
            Ok(second) => event("second", &self.describe(&second)),
            Err(RecvError::Closed) => return None,
            Err(RecvError::Lagged(_)) => {
                // The reader was too slow. It gets a new snapshot, which has the missed seconds.
                let (history, following) = self.traffic.subscribe();
                self.following = following;
                event("snapshot", &snapshot(&history, self.seconds))
            }
        };
        Some(self.with_routes(next))
    }

    /// An event, followed by one with the routes if they have changed.
    fn with_routes(&mut self, next: String) -> Bytes {
        let mut described = describe_routes(&self.routes);
        if described == self.described_routes {
            return next.into();
        }
        self.described_routes = described.clone();
        // It changes all the time, so it doesn't count as a change.
        let age = self
            .routes
            .freshness()
            .and_then(|freshness| freshness.age());
        described["age_seconds"] = json!(age.map(|age| age.as_secs()));
        (next + &event("routes", &described)).into()
    }

    /// The data of one second: services with traffic, and services whose instances have changed.
    fn describe(&mut self, second: &Second) -> Value {
        let mut services = Map::new();
        for service in self.routes.all_services() {
            let Some(balancer) = service.used_balancer() else {
                continue;
            };
            let name: Arc<str> = service.name().as_str().into();
            let none = ServiceCounts::default();
            let counts = second.services.get(&name).unwrap_or(&none);
            let explained = balancer.explain().instances;
            let instances: Map<String, Value> = explained
                .iter()
                .map(|instance| {
                    let counts = counts.instances.get(instance.id.as_str());
                    let counts = counts.copied().unwrap_or_default();
                    let is_ejected = instance.selection == Selection::Ejected;
                    let described = describe(counts, instance.in_flight, is_ejected);
                    (host_and_port(&instance.url).to_owned(), described)
                })
                .collect();
            let instances = match self.audience {
                Audience::Internal => Value::Object(instances),
                Audience::Public => json!({}),
            };
            let has_changed = self.instances.get(&name) != Some(&instances);
            if counts.requests == 0 && !has_changed {
                continue;
            }
            let latencies = &counts.latencies;
            let callers: Map<String, Value> = counts
                .callers
                .0
                .iter()
                .map(|(name, count)| (name.to_string(), json!(count)))
                .collect();
            services.insert(
                name.as_ref().to_owned(),
                json!({
                    "requests": counts.requests,
                    "failures": counts.failures,
                    "p50_ms": latencies.quantile_ms(0.5),
                    "p99_ms": latencies.quantile_ms(0.99),
                    "callers": callers,
                    "instances": instances,
                }),
            );
            self.instances.insert(name, instances);
        }
        json!({"second": second.unix_second, "services": services})
    }
}

fn describe(counts: InstanceCounts, in_flight: usize, is_ejected: bool) -> Value {
    json!({
        "requests": counts.requests,
        "failures": counts.failures,
        "in_flight": in_flight,
        "ejected": is_ejected,
    })
}

fn snapshot(history: &History, seconds: usize) -> Value {
    let since = history.last_second.saturating_sub(seconds as u64);
    let services: Map<String, Value> = history
        .services
        .iter()
        .map(|(name, buckets)| {
            let buckets: Vec<_> = buckets
                .iter()
                .filter(|bucket| bucket.unix_second > since)
                .map(|bucket| {
                    json!([
                        bucket.unix_second,
                        bucket.requests,
                        bucket.failures,
                        bucket.p50_ms,
                        bucket.p99_ms,
                    ])
                })
                .collect();
            (name.as_ref().to_owned(), json!({"buckets": buckets}))
        })
        .collect();
    json!({"second": history.last_second, "services": services})
}

/// The host and port of `scheme://host:port/path`.
fn host_and_port(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

fn event(name: &str, data: &Value) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

/// The routes with the state of their services, and why the registry can't be read.
fn describe_routes(routes: &Routes) -> Value {
    let all = routes.all();
    let described = all.iter().take(MAX_ROUTES).flat_map(|route| {
        let destinations = route.destinations().iter();
        destinations.map(|destination| describe_route(route, &destination.service))
    });
    let described: Vec<_> = described.collect();
    let freshness = routes.freshness();
    let failure = freshness.as_ref().and_then(|freshness| freshness.failure());
    json!({
        "routes": described,
        "left_out": all.len().saturating_sub(MAX_ROUTES),
        "ignored": describe_ignored(&routes.ignored_names()),
        "outage": failure.map(|failure| failure.error().to_string()),
    })
}

/// `instances` and `usable` are null if the service hasn't been used, since the registry isn't asked.
fn describe_route(route: &Route, service: &Service) -> Value {
    let mut described = json!({
        "path": route.path().to_string(),
        "source": route.source().to_string(),
        "service": service.name().as_str(),
        "instances": null,
        "usable": null,
        "error": null,
    });
    match service.used_balancer() {
        None if service.is_listed() => {}
        None => described["error"] = json!("the registry lists no such service"),
        Some(balancer) => {
            let snapshot = balancer.snapshot();
            let usable = snapshot.usable();
            described["instances"] = json!(snapshot.endpoints().len());
            described["usable"] = json!(usable.as_ref().map_or(0, |usable| usable.len()));
            described["error"] = json!(usable.err().map(|error| error.to_string()));
        }
    }
    described
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::Bucket;

    #[test]
    fn a_snapshot_has_the_seconds_that_were_asked_for() {
        let bucket = |unix_second| Bucket {
            unix_second,
            requests: 1,
            failures: 0,
            p50_ms: 0.5,
            p99_ms: 2.0,
        };
        let history = History {
            last_second: 100,
            services: HashMap::from([("shop".into(), (90..=100).map(bucket).collect())]),
        };
        let seconds = |wanted| -> Vec<u64> {
            let snapshot = snapshot(&history, wanted);
            assert_eq!(snapshot["second"], 100);
            let buckets = snapshot["services"]["shop"]["buckets"].as_array().unwrap();
            buckets.iter().map(|it| it[0].as_u64().unwrap()).collect()
        };
        assert_eq!(seconds(1), [100]);
        assert_eq!(seconds(3), [98, 99, 100]);
        assert_eq!(seconds(900).len(), 11);
        let all = snapshot(&history, 1);
        assert_eq!(
            all["services"]["shop"]["buckets"],
            json!([[100, 1, 0, 0.5, 2.0]])
        );
    }

    #[test]
    fn an_instance_is_named_by_its_host_and_port() {
        for (url, expected) in [
            ("http://192.0.2.1:80", "192.0.2.1:80"),
            ("https://[::1]:443/base/path", "[::1]:443"),
            ("192.0.2.1:80/x", "192.0.2.1:80"),
        ] {
            assert_eq!(host_and_port(url), expected);
        }
    }
}
