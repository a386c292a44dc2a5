//! The routes: one for each service that the registry has listed.
//!
//! Names in requests are only looked up here. Clients therefore can't make the gateway query the
//! registry for arbitrary names.

mod route;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use http::StatusCode;
use tokio::runtime::Handle;
use waypost::snapshot::{Catalog, Freshness};
use waypost::{ServiceDiscoveryClient, ServiceName};

use crate::config::Config;
use crate::problem::Problem;
use crate::service::Service;
use crate::similar;

pub(crate) use route::{Limits, Route};

/// First segments of the gateway's own paths. A service with such a name gets no route.
pub(crate) const RESERVED: [&str; 5] = ["internal", "health", "livez", "readyz", "metrics"];

/// The number of routes that are kept for services no longer listed by the registry.
const MAX_UNLISTED: usize = 10_000;

/// All routes, kept in step with the registry's list of services.
pub(crate) struct Routes {
    client: ServiceDiscoveryClient,
    runtime: Handle,
    /// Services that get no route.
    hidden: Vec<ServiceName>,
    limits: Limits,
    next_index: AtomicUsize,
    table: ArcSwap<RouteTable>,
    /// Held while a new table is made.
    updating: Mutex<()>,
}

#[derive(Default)]
struct RouteTable {
    /// By the first segment of the path.
    discovered: HashMap<ServiceName, Arc<Route>>,
    freshness: Option<Freshness>,
}

impl Routes {
    /// Must be called within the runtime that watches run on.
    pub(crate) fn new(client: ServiceDiscoveryClient, config: &Config) -> Self {
        let mut hidden = config.hidden.clone();
        hidden.push(config.service.clone());
        Self {
            client,
            runtime: Handle::current(),
            hidden,
            limits: Limits::new(config),
            next_index: AtomicUsize::new(0),
            table: ArcSwap::default(),
            updating: Mutex::default(),
        }
    }

    /// Applies each change of the registry's list of services. Never returns.
    pub(crate) async fn follow(&self) {
        let mut names = self.client.directory().subscribe_catalog();
        loop {
            let catalog = names.changed().await;
            self.update(&catalog);
        }
    }

    /// The route of a request for this path.
    ///
    /// # Errors
    /// If the registry has never listed the service, or does not answer.
    pub(crate) async fn find(&self, path: &str) -> Result<Arc<Route>, Problem> {
        let service = first_segment(path);
        if let Some(route) = self.table.load().discovered.get(service) {
            return Ok(Arc::clone(route));
        }
        if RESERVED.contains(&service) {
            let detail = format!(
                "\"/{service}\" is a path of the gateway itself; a service of that name gets no route"
            );
            let problem = Problem::new(StatusCode::NOT_FOUND, "reserved_name", detail);
            return Err(problem.with("service", service));
        }
        // At startup the registry may not have answered yet. All requests wait for that first
        // answer; later ones find it in memory.
        let catalog = self
            .client
            .directory()
            .catalog()
            .await
            .map_err(|e| Problem::from_discovery(&e))?;
        if !self.has_applied(&catalog) {
            self.update(&catalog);
        }
        match self.table.load().discovered.get(service) {
            Some(route) => Ok(Arc::clone(route)),
            None => Err(self.unknown(service, catalog.freshness())),
        }
    }

    /// All routes in order of names, including those of services no longer listed.
    pub(crate) fn all(&self) -> Vec<Arc<Route>> {
        let mut all: Vec<_> = self.table.load().discovered.values().cloned().collect();
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all
    }

    /// The freshness of the list of services; `None` before the registry's first answer.
    pub(crate) fn freshness(&self) -> Option<Freshness> {
        self.table.load().freshness.clone()
    }

    fn has_applied(&self, catalog: &Catalog) -> bool {
        let table = self.table.load();
        table.freshness.as_ref().is_some_and(|freshness| {
            freshness.is_known() && freshness.generation() >= catalog.freshness().generation()
        })
    }

    fn update(&self, catalog: &Catalog) {
        let _updating = self.updating.lock().unwrap_or_else(PoisonError::into_inner);
        let mut discovered = self.table.load().discovered.clone();
        for (name, route) in &discovered {
            route.service().set_listed(catalog.names().contains(name));
        }
        for name in catalog.names() {
            if !discovered.contains_key(name) && self.may_have_route(name) {
                let route = Route::discovered(self.new_service(name), self.limits.clone());
                discovered.insert(name.clone(), Arc::new(route));
            }
        }
        let mut unlisted = discovered
            .values()
            .filter(|route| !route.service().is_listed())
            .count();
        discovered.retain(|_, route| {
            let keep = route.service().is_listed() || unlisted <= MAX_UNLISTED;
            unlisted -= usize::from(!keep);
            keep
        });
        self.table.store(Arc::new(RouteTable {
            discovered,
            freshness: Some(catalog.freshness().clone()),
        }));
    }

    fn may_have_route(&self, name: &ServiceName) -> bool {
        !RESERVED.contains(&name.as_str()) && !self.hidden.contains(name)
    }

    fn new_service(&self, name: &ServiceName) -> Arc<Service> {
        let index = self.next_index.fetch_add(1, Ordering::Relaxed);
        let (client, runtime) = (self.client.clone(), self.runtime.clone());
        Arc::new(Service::new(name.clone(), index, client, runtime))
    }

    fn unknown(&self, service: &str, freshness: &Freshness) -> Problem {
        let problem = match freshness.failure() {
            None => Problem::new(
                StatusCode::NOT_FOUND,
                "unknown_service",
                format!("{} has no service {service:?}", freshness.provider()),
            ),
            // The service may have registered since, so 404 would be a guess.
            Some(failure) => Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "registry_unreachable",
                format!(
                    "service {service:?} was unknown when the registry was last reached: {}",
                    failure.error()
                ),
            ),
        };
        let table = self.table.load();
        let names = table.discovered.keys().map(ServiceName::as_str);
        problem
            .with("service", service)
            .with("similar_services", similar::closest(service, names))
    }
}

/// The first segment of a path that begins with a slash.
pub(crate) fn first_segment(path: &str) -> &str {
    let path = path.strip_prefix('/').unwrap_or(path);
    path.split('/').next().unwrap_or_default()
}
