//! The routes: one for each service that the registry has named.
//!
//! Names that come in a request are only looked up here. So nobody outside can make the gateway
//! ask the registry about names of their own invention.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::StatusCode;
use tower::retry::budget::{Budget, TpsBudget};
use waypost::{
    Balancer, Catalog, Error, Explanation, Freshness, InstanceId, Pick, ServiceDiscoveryClient,
    ServiceName,
};

use crate::avoid::Avoid;
use crate::config::Config;
use crate::problem::Problem;

/// First segments that are the gateway's own; a service of such a name gets no route.
pub(crate) const RESERVED: [&str; 4] = ["internal", "health", "livez", "readyz"];

/// How many names that have left the registry are remembered.
const REMEMBERED: usize = 10_000;
/// The time over which retries are held against requests.
const BUDGET_WINDOW: Duration = Duration::from_secs(10);
/// Retries a second that are always allowed, since a share of few requests is none.
const BUDGET_RESERVE: u32 = 10;

/// All routes; they follow the registry's list of names.
pub(crate) struct Routes {
    client: ServiceDiscoveryClient,
    /// Services that are not shown to the outside.
    hidden: Vec<ServiceName>,
    retry_share: f32,
    table: ArcSwap<Table>,
}

#[derive(Default)]
struct Table {
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
            retry_share: config.retry_share,
            table: ArcSwap::default(),
        }
    }

    /// Keeps the routes in step with the registry, for ever.
    pub(crate) async fn follow(&self) {
        let mut names = self.client.directory().subscribe_catalog();
        loop {
            let catalog = names.changed().await;
            self.adopt(&catalog);
        }
    }

    /// The route of a service.
    ///
    /// # Errors
    /// If the registry has never named it, or can't say.
    pub(crate) async fn find(&self, service: &str) -> Result<Arc<Route>, Problem> {
        if let Some(route) = self.table.load().routes.get(service) {
            return Ok(Arc::clone(route));
        }
        // At the very start the registry may not have answered yet; all who ask wait for its one
        // answer, which is in memory ever after.
        let catalog = self
            .client
            .directory()
            .catalog()
            .await
            .map_err(|e| Problem::from_discovery(&e))?;
        if !self.has_adopted(&catalog) {
            self.adopt(&catalog);
        }
        match self.table.load().routes.get(service) {
            Some(route) => Ok(Arc::clone(route)),
            None => Err(self.unknown(service, catalog.freshness())),
        }
    }

    /// All routes in order of names, those of services that have left among them.
    pub(crate) fn all(&self) -> Vec<Arc<Route>> {
        let mut all: Vec<_> = self.table.load().routes.values().cloned().collect();
        all.sort_by(|a, b| a.service.cmp(&b.service));
        all
    }

    /// How far the list of names can be trusted; `None` before the registry's first word.
    pub(crate) fn freshness(&self) -> Option<Freshness> {
        self.table.load().freshness.clone()
    }

    fn has_adopted(&self, catalog: &Catalog) -> bool {
        let table = self.table.load();
        table.freshness.as_ref().is_some_and(|freshness| {
            freshness.is_known() && freshness.generation() >= catalog.freshness().generation()
        })
    }

    fn adopt(&self, catalog: &Catalog) {
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
            let mut gone = routes.values().filter(|route| !route.is_listed()).count();
            routes.retain(|_, route| {
                let keep = route.is_listed() || gone <= REMEMBERED;
                gone -= usize::from(!keep);
                keep
            });
            Table {
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
            budget: TpsBudget::new(BUDGET_WINDOW, BUDGET_RESERVE, self.retry_share),
            avoid: Avoid::default(),
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
                format!("{} knows no service {service:?}", freshness.provider()),
            ),
            // It may have come since; "not found" would be a guess.
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

/// What leads to one service.
pub(crate) struct Route {
    service: ServiceName,
    client: ServiceDiscoveryClient,
    /// Begins with the first request, so that services which nobody calls are not watched.
    balancer: OnceLock<Balancer>,
    listed: AtomicBool,
    budget: TpsBudget,
    avoid: Avoid,
}

impl Route {
    pub(crate) fn service(&self) -> &ServiceName {
        &self.service
    }

    /// Whether the registry's list of services has it now.
    pub(crate) fn is_listed(&self) -> bool {
        self.listed.load(Ordering::Relaxed)
    }

    /// The instances that have just refused a connection.
    pub(crate) fn avoided(&self) -> Vec<InstanceId> {
        self.avoid.ids()
    }

    /// What the balancer does with each instance, if the route has been used.
    pub(crate) fn explain(&self) -> Option<Explanation> {
        self.balancer.get().map(Balancer::explain)
    }

    /// Follows the service, and counts a request in the retry budget.
    ///
    /// # Errors
    /// If nothing is known of the service and the registry doesn't answer.
    pub(crate) async fn enter(&self) -> Result<&Balancer, Error> {
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

    /// Chooses an instance: one neither tried nor avoided, else one not tried, else any.
    pub(crate) fn pick(&self, balancer: &Balancer, tried: &[InstanceId]) -> Result<Pick, Error> {
        let avoided = self.avoid.ids();
        if avoided.is_empty() {
            return if tried.is_empty() {
                balancer.pick()
            } else {
                balancer.pick_except(tried)
            };
        }
        let shunned = [tried, &avoided].concat();
        let pick = balancer.pick_except(&shunned)?;
        if shunned.contains(pick.id()) {
            balancer.pick_except(tried)
        } else {
            Ok(pick)
        }
    }

    /// Whether the budget has room for one more retry.
    pub(crate) fn may_retry(&self) -> bool {
        self.budget.withdraw()
    }

    pub(crate) fn refused_by(&self, instance: &InstanceId) {
        self.avoid.add(instance);
    }

    pub(crate) fn answered_by(&self, instance: &InstanceId) {
        self.avoid.forgive(instance);
    }
}
