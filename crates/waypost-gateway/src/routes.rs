//! The routes: one for each service that the registry has listed.
//!
//! Names in requests are only looked up here. Clients therefore can't make the gateway query the
//! registry for arbitrary names.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::StatusCode;
use tower::retry::budget::{Budget, TpsBudget};
use waypost::balance::Explanation;
use waypost::snapshot::{Catalog, Freshness};
use waypost::{Balancer, Error, InstanceId, Pick, ServiceDiscoveryClient, ServiceName};

use crate::config::Config;
use crate::problem::Problem;
use crate::recently_refused::RecentlyRefused;

/// First segments of the gateway's own paths. A service with such a name gets no route.
pub(crate) const RESERVED: [&str; 4] = ["internal", "health", "livez", "readyz"];

/// The number of routes that are kept for services no longer listed by the registry.
const MAX_UNLISTED: usize = 10_000;
/// The period over which retries are compared with requests.
const BUDGET_WINDOW: Duration = Duration::from_secs(10);
/// The retries per second that are always allowed, for services with few requests.
const BUDGET_MIN_PER_SECOND: u32 = 10;

/// All routes, updated with each change of the registry's list of services.
pub(crate) struct Routes {
    client: ServiceDiscoveryClient,
    /// Services that get no route.
    hidden: Vec<ServiceName>,
    retry_ratio: f32,
    table: ArcSwap<RouteTable>,
}

#[derive(Default)]
struct RouteTable {
    routes: HashMap<ServiceName, Arc<Route>>,
    freshness: Option<Freshness>,
}

impl Routes {
    pub(crate) fn new(client: ServiceDiscoveryClient, config: &Config) -> Self {
        let mut hidden = config.hidden.clone();
        hidden.push(config.service.clone());
        Self {
            client,
            hidden,
            retry_ratio: config.retry_ratio,
            table: ArcSwap::default(),
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

    /// The route of a service.
    ///
    /// # Errors
    /// If the registry has never listed it, or does not answer.
    pub(crate) async fn find(&self, service: &str) -> Result<Arc<Route>, Problem> {
        if let Some(route) = self.table.load().routes.get(service) {
            return Ok(Arc::clone(route));
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
        match self.table.load().routes.get(service) {
            Some(route) => Ok(Arc::clone(route)),
            None => Err(self.unknown(service, catalog.freshness())),
        }
    }

    /// All routes in order of names, including those of services no longer listed.
    pub(crate) fn all(&self) -> Vec<Arc<Route>> {
        let mut all: Vec<_> = self.table.load().routes.values().cloned().collect();
        all.sort_by(|a, b| a.service.cmp(&b.service));
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
        self.table.rcu(|table| {
            let mut routes = table.routes.clone();
            for route in routes.values() {
                route
                    .listed
                    .store(catalog.names().contains(&route.service), Ordering::Relaxed);
            }
            for name in catalog.names() {
                if !routes.contains_key(name) && self.may_have_route(name) {
                    routes.insert(name.clone(), Arc::new(self.route(name)));
                }
            }
            let mut unlisted = routes.values().filter(|route| !route.is_listed()).count();
            routes.retain(|_, route| {
                let keep = route.is_listed() || unlisted <= MAX_UNLISTED;
                unlisted -= usize::from(!keep);
                keep
            });
            RouteTable {
                routes,
                freshness: Some(catalog.freshness().clone()),
            }
        });
    }

    fn may_have_route(&self, name: &ServiceName) -> bool {
        !RESERVED.contains(&name.as_str()) && !self.hidden.contains(name)
    }

    fn route(&self, service: &ServiceName) -> Route {
        Route {
            service: service.clone(),
            client: self.client.clone(),
            balancer: OnceLock::new(),
            listed: AtomicBool::new(true),
            budget: TpsBudget::new(BUDGET_WINDOW, BUDGET_MIN_PER_SECOND, self.retry_ratio),
            refused: RecentlyRefused::default(),
        }
    }

    fn unknown(&self, service: &str, freshness: &Freshness) -> Problem {
        let known: Vec<_> = self
            .all()
            .iter()
            .map(|route| route.service.as_str().to_owned())
            .collect();
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
        problem
            .with("service", service)
            .with("known_services", known)
    }
}

/// The route to one service.
pub(crate) struct Route {
    service: ServiceName,
    client: ServiceDiscoveryClient,
    /// Created by the first request, so that unused services are not watched.
    balancer: OnceLock<Balancer>,
    listed: AtomicBool,
    budget: TpsBudget,
    refused: RecentlyRefused,
}

impl Route {
    pub(crate) fn service(&self) -> &ServiceName {
        &self.service
    }

    /// Whether the registry lists the service now.
    pub(crate) fn is_listed(&self) -> bool {
        self.listed.load(Ordering::Relaxed)
    }

    /// The instances that have recently refused a connection.
    pub(crate) fn recently_refused(&self) -> Vec<InstanceId> {
        self.refused.ids()
    }

    /// The balancer's state of each instance, if the route has been used.
    pub(crate) fn explain(&self) -> Option<Explanation> {
        self.balancer.get().map(Balancer::explain)
    }

    /// The balancer, once it knows the service's instances. Counts a request in the retry budget.
    ///
    /// # Errors
    /// If the instances are unknown and the registry does not answer.
    pub(crate) async fn ready_balancer(&self) -> Result<&Balancer, Error> {
        self.budget.deposit();
        let balancer = self.balancer()?;
        if !balancer.snapshot().freshness().is_known() {
            balancer.ready().await?;
        }
        Ok(balancer)
    }

    fn balancer(&self) -> Result<&Balancer, Error> {
        if let Some(balancer) = self.balancer.get() {
            return Ok(balancer);
        }
        let balancer = self.client.balancer(&self.service)?;
        Ok(self.balancer.get_or_init(|| balancer))
    }

    /// Picks an instance: preferably one that is neither in `tried` nor recently refused a
    /// connection, otherwise one that is not in `tried`, otherwise any.
    pub(crate) fn pick(&self, balancer: &Balancer, tried: &[InstanceId]) -> Result<Pick, Error> {
        let refused = self.refused.ids();
        if refused.is_empty() {
            return if tried.is_empty() {
                balancer.pick()
            } else {
                balancer.pick_except(tried)
            };
        }
        let excluded = [tried, &refused].concat();
        let pick = balancer.pick_except(&excluded)?;
        if excluded.contains(pick.id()) {
            balancer.pick_except(tried)
        } else {
            Ok(pick)
        }
    }

    /// Takes one retry from the budget; false if it is spent.
    pub(crate) fn withdraw_retry(&self) -> bool {
        self.budget.withdraw()
    }

    /// Records that an instance could not be connected to.
    pub(crate) fn connection_refused(&self, instance: &InstanceId) {
        self.refused.add(instance);
    }

    /// Records that an instance responded.
    pub(crate) fn connection_accepted(&self, instance: &InstanceId) {
        self.refused.remove(instance);
    }
}
