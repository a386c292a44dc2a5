//! The routes: those of the routes file, and one for each service that the registry has listed.
//!
//! Names in requests are only looked up here. Clients therefore can't make the gateway query the
//! registry for arbitrary names.

mod auth_spec;
mod document;
mod expression;
mod file;
mod http_route;
mod pattern;
mod redirect;
mod route;
mod source;
mod table;
mod tagged;
mod target_rewrite;
mod values;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use tokio::runtime::Handle;
use tokio::time::Instant;
use waypost::snapshot::{Catalog, Freshness};
use waypost::{ConfigError, Environment, Invalid, ServiceDiscoveryClient, ServiceName};

use crate::config::Config;
use crate::problem::Problem;
use crate::service::Service;
use crate::similar;
use crate::target::normalized_path;
use crate::upstream::ClientTls;

#[cfg(any(test, feature = "fuzz", feature = "kubernetes"))]
pub(crate) use expression::Expression;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) use file::parse as parse_routes;
pub(crate) use http_route::HttpRouteSpec;
#[cfg(feature = "kubernetes")]
pub(crate) use http_route::{PathChange, RuleAction};
#[cfg(any(test, feature = "fuzz"))]
pub(crate) use pattern::bare_host;
#[cfg(any(test, feature = "fuzz", feature = "kubernetes"))]
pub(crate) use pattern::{Conditions, PathPattern, ValuePattern};
pub(crate) use pattern::{HostPattern, decode_unreserved};
#[cfg(feature = "kubernetes")]
pub(crate) use redirect::Redirect;
pub(crate) use route::{Limits, MirrorTo, Route, Subset};

use self::auth_spec::{AuthResources, Surroundings};
use self::table::{RouteTable, first_segment};
use self::tagged::TaggedRoute;

/// First segments of the gateway's own paths. A service with such a name gets no route.
pub(crate) const RESERVED: [&str; 5] = ["internal", "health", "livez", "readyz", "metrics"];

/// The number of routes that are kept for services no longer listed by the registry.
const MAX_UNLISTED: usize = 10_000;

/// How often the routes file is read.
const FILE_INTERVAL: Duration = Duration::from_secs(1);

/// All routes. They follow changes of the registry's list of services and of the routes file.
pub(crate) struct Routes {
    client: ServiceDiscoveryClient,
    runtime: Handle,
    auth: AuthResources,
    environment: Environment,
    /// Services that get no route of their own.
    hidden: Vec<ServiceName>,
    /// The only services that get a route of their own; empty for all.
    only: Vec<ServiceName>,
    /// Whether services get routes of their own.
    discovers: bool,
    /// Whether clients are told the names of services that resemble an unknown one.
    suggests: bool,
    limits: Limits,
    file: Option<PathBuf>,
    /// Whether routes are read from the tags of instances.
    reads_tags: bool,
    explicit: Mutex<ExplicitRoutes>,
    /// The state of the HTTPRoutes; `None` if they aren't used.
    objects: ArcSwapOption<ObjectsState>,
    table: ArcSwap<RouteTable>,
    /// Also held while a new table is made.
    services: Mutex<HashMap<ServiceName, Arc<Service>>>,
}

/// What is known about the HTTPRoutes of a cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct ObjectsState {
    /// Whether all objects have been listed once, or restored from a file.
    pub(crate) is_known: bool,
    /// Why they may be outdated, or why they are unknown.
    pub(crate) error: Option<String>,
    /// When the API server last confirmed them.
    pub(crate) confirmed_at: Option<Instant>,
}

#[cfg(feature = "kubernetes")]
fn uses_objects(config: &Config) -> bool {
    config.gateway_api.is_some()
}

#[cfg(not(feature = "kubernetes"))]
fn uses_objects(_: &Config) -> bool {
    false
}

/// The routes of the routes file, of HTTPRoutes and of tags, in contrast to those of discovered services.
#[derive(Default)]
struct ExplicitRoutes {
    from_file: Vec<Arc<Route>>,
    /// Those of HTTPRoutes, and what they were made from.
    from_objects: (Vec<HttpRouteSpec>, Vec<Arc<Route>>),
    /// Those from the tags of instances.
    tagged: BTreeMap<ServiceName, (TaggedRoute, Arc<Route>)>,
}

impl Routes {
    /// Must be called within the runtime that watches run on.
    ///
    /// # Errors
    /// If the routes file can't be read or is invalid.
    pub(crate) fn new(
        client: ServiceDiscoveryClient,
        config: &Config,
        tls: &Arc<ClientTls>,
    ) -> Result<Self, ConfigError> {
        let mut hidden = config.hidden.clone();
        hidden.push(config.service.clone());
        let routes = Self {
            client,
            runtime: Handle::current(),
            environment: config.environment.clone(),
            auth: AuthResources::new(Handle::current(), Arc::clone(tls)),
            hidden,
            only: config.only.clone(),
            discovers: config.discovered_routes,
            suggests: config.error_details,
            limits: Limits::new(config),
            file: config.routes_file.clone(),
            reads_tags: config.routes_from_tags,
            explicit: Mutex::default(),
            objects: ArcSwapOption::from(uses_objects(config).then(Arc::default)),
            table: ArcSwap::default(),
            services: Mutex::default(),
        };
        if let Some(path) = &routes.file {
            let content = read(path)?;
            routes.apply_file(path, &content)?;
        }
        Ok(routes)
    }

    /// Applies each change of the routes file. A file with an error is reported once, and the previous
    /// routes are kept. Never returns.
    pub(crate) async fn follow_file(&self) {
        let Some(path) = &self.file else {
            return std::future::pending().await;
        };
        let mut applied = read(path).map_err(|error| error.to_string());
        loop {
            tokio::time::sleep(FILE_INTERVAL).await;
            let content = read(path).map_err(|error| error.to_string());
            if content == applied {
                continue;
            }
            let result = match &content {
                Ok(content) => self
                    .apply_file(path, content)
                    .map_err(|error| error.to_string()),
                Err(error) => Err(error.clone()),
            };
            match result {
                Ok(()) => tracing::info!(file = %path.display(), "routes reloaded"),
                Err(error) => {
                    tracing::error!("{error}; keeping the previous routes");
                }
            }
            applied = content;
        }
    }

    fn apply_file(&self, path: &Path, content: &str) -> Result<(), ConfigError> {
        let file = file::parse(path, content)?;
        let around = surroundings(path, &self.environment);
        let name: Arc<str> = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into();
        let mut services = self.services();
        let routes = file.routes.into_iter().enumerate().map(|(index, spec)| {
            let mut service = |name: &ServiceName| self.service(&mut services, name);
            let access = (spec.auth.clone())
                .build(around, &self.auth, &mut service)
                .map_err(|problem| document::located(path, spec.position, &problem))?;
            let route = Route::from_file(spec, index, &name, &self.limits, access, service);
            Ok(Arc::new(route))
        });
        let routes = routes.collect::<Result<_, ConfigError>>()?;
        self.explicit().from_file = routes;
        self.use_explicit(&services);
        Ok(())
    }

    /// Uses these routes in place of earlier ones from HTTPRoutes. Between equally specific ones, their
    /// order decides.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn apply_http_routes(&self, specs: Vec<HttpRouteSpec>) {
        let mut services = self.services();
        if self.explicit().from_objects.0 != specs {
            let route = |spec: &HttpRouteSpec| {
                let service = |name: &ServiceName| self.service(&mut services, name);
                Arc::new(spec.route(&self.limits, service))
            };
            let routes = specs.iter().map(route).collect();
            self.explicit().from_objects = (specs, routes);
            self.use_explicit(&services);
        }
    }

    /// Whether HTTPRoutes are used, and what is known about them.
    pub(crate) fn objects_state(&self) -> Option<Arc<ObjectsState>> {
        self.objects.load_full()
    }

    #[cfg(feature = "kubernetes")]
    pub(crate) fn set_objects_state(&self, state: ObjectsState) {
        self.objects.store(Some(Arc::new(state)));
    }

    /// Whether the HTTPRoutes are known, if they are used at all.
    pub(crate) fn are_objects_known(&self) -> bool {
        self.objects_state().is_none_or(|state| state.is_known)
    }

    /// Keeps the routes that are defined by the tags of instances up to date. Never returns.
    ///
    /// This watches every service, which a gateway otherwise does only for those that are called.
    pub(crate) async fn follow_tags(&self) {
        if !self.reads_tags {
            return std::future::pending().await;
        }
        let mut names = self.client.directory().subscribe_catalog();
        let mut known = HashSet::new();
        let mut following = FuturesUnordered::new();
        loop {
            let catalog = tokio::select! {
                catalog = names.changed() => catalog,
                Some(()) = following.next() => continue,
            };
            for name in catalog.names() {
                if self.may_ask(name) && known.insert(name.clone()) {
                    following.push(self.follow_tags_of(name.clone()));
                }
            }
        }
    }

    async fn follow_tags_of(&self, name: ServiceName) {
        let mut instances = self.client.directory().subscribe(&name);
        loop {
            let snapshot = instances.changed().await;
            // Without instances, as during an outage, the route stays.
            if snapshot.instances().len() == 0 {
                continue;
            }
            match tagged::tagged_route(&snapshot) {
                Ok(tagged) => self.apply_tagged(&name, tagged),
                Err(error) => {
                    tracing::warn!(service = %name, "the route in its tags is invalid: {error}");
                }
            }
        }
    }

    fn apply_tagged(&self, name: &ServiceName, tagged: Option<TaggedRoute>) {
        let mut services = self.services();
        let service = self.service(&mut services, name);
        let mut explicit = self.explicit();
        let applied = explicit.tagged.get(name).map(|(tagged, _)| tagged);
        if applied == tagged.as_ref() {
            return;
        }
        match tagged {
            None => drop(explicit.tagged.remove(name)),
            Some(tagged) => {
                let route = Arc::new(Route::tagged(service, tagged.clone(), self.limits.clone()));
                explicit.tagged.insert(name.clone(), (tagged, route));
            }
        }
        drop(explicit);
        self.use_explicit(&services);
    }

    /// Puts the explicit routes into the table. The lock on the services keeps others from doing so at the
    /// same time.
    fn use_explicit(&self, _services: &HashMap<ServiceName, Arc<Service>>) {
        let explicit = self.explicit();
        let tagged = explicit.tagged.values().map(|(_, route)| route);
        let written = explicit.from_file.iter().chain(&explicit.from_objects.1);
        let routes = written.chain(tagged).cloned().collect();
        self.table
            .store(Arc::new(self.table.load().with_explicit(routes)));
    }

    fn explicit(&self) -> MutexGuard<'_, ExplicitRoutes> {
        self.explicit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a service may have a route.
    fn may_ask(&self, name: &ServiceName) -> bool {
        !self.hidden.contains(name) && (self.only.is_empty() || self.only.contains(name))
    }

    /// Applies each change of the registry's list of services. Never returns.
    pub(crate) async fn follow(&self) {
        let mut names = self.client.directory().subscribe_catalog();
        loop {
            let catalog = names.changed().await;
            self.update(&catalog);
        }
    }

    /// The route of a request.
    ///
    /// # Errors
    /// If there is none and the registry has never listed the service, or does not answer; or if a server
    /// that normalizes the path or ignores letter case could take it for a path of another route, whose
    /// policies would be bypassed.
    pub(crate) async fn find(
        &self,
        host: Option<&str>,
        uri: &Uri,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<Arc<Route>, Problem> {
        let (path, query) = (uri.path(), uri.query());
        let table = self.table.load();
        if let Some(route) = table.find(host, path, query, method, headers) {
            if !table.has_explicit() {
                return Ok(Arc::clone(route));
            }
            let normalized = normalized_path(path);
            if let Some(normalized) = &normalized
                && let Some(other) = table.find(host, normalized, query, method, headers)
                && !Arc::ptr_eq(route, other)
            {
                return Err(ambiguous_path(normalized, other));
            }
            let path = normalized.as_deref().unwrap_or(path);
            return match table.guarded_in_other_case(route, host, path, query, method, headers) {
                Some(other) => Err(ambiguous_path(&path.to_ascii_lowercase(), other)),
                None => Ok(Arc::clone(route)),
            };
        }
        drop(table);
        // Boxed, so that the future of a request with a route is small.
        Box::pin(self.find_or_explain(host, uri, method, headers)).await
    }

    /// Waits for the registry's list of services if it is unknown, and says why there is no route.
    async fn find_or_explain(
        &self,
        host: Option<&str>,
        uri: &Uri,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<Arc<Route>, Problem> {
        let path = uri.path();
        let service = first_segment(path);
        if RESERVED.contains(&service) {
            let detail = format!(
                "\"/{service}\" is a path of the gateway itself; a service of that name gets no route"
            );
            let problem = Problem::new(StatusCode::NOT_FOUND, "reserved_name", detail);
            return Err(problem.with("service", service));
        }
        if let Some(state) = self.objects_state().filter(|state| !state.is_known) {
            let why = state.error.clone();
            let detail = why.unwrap_or_else(|| "the API server has not answered yet".into());
            let status = StatusCode::SERVICE_UNAVAILABLE;
            let problem = Problem::new(status, "routes_unknown", "the routes are not known yet");
            let detail = format!("the HTTPRoutes are not known yet: {detail}");
            return Err(problem.internal_detail(detail));
        }
        if !self.discovers {
            return Err(Problem::new(
                StatusCode::NOT_FOUND,
                "no_route",
                format!("no route matches {path:?}"),
            ));
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
        match (self.table.load()).find(host, path, uri.query(), method, headers) {
            Some(route) => Ok(Arc::clone(route)),
            None => Err((self.other_letter_case(service, uri))
                .unwrap_or_else(|| self.unknown(service, catalog.freshness()))),
        }
    }

    /// The redirect to the only service whose name differs from the requested one in letter case alone.
    /// Consul finds services in any letter case.
    ///
    /// It is a redirect rather than a route, so that a request in another case can't bypass the policies of
    /// a route for the registered name.
    fn other_letter_case(&self, service: &str, uri: &Uri) -> Option<Problem> {
        let table = self.table.load();
        let mut names = table.discovered.keys().map(ServiceName::as_str);
        let is_same = |name: &&str| name.eq_ignore_ascii_case(service);
        let name = names.find(is_same)?;
        if names.any(|other| is_same(&other)) {
            return None;
        }
        let target = uri.path_and_query()?.as_str();
        let rest = target.strip_prefix('/')?.strip_prefix(service)?;
        let location = HeaderValue::try_from(format!("/{name}{rest}")).ok()?;
        let detail = format!("the service is registered as {name:?}");
        let problem = Problem::new(StatusCode::PERMANENT_REDIRECT, "other_letter_case", detail);
        Some(problem.with("service", name).location(location))
    }

    /// All routes: those of the file in order of precedence, then those of services by name, including
    /// services no longer listed.
    pub(crate) fn all(&self) -> Vec<Arc<Route>> {
        self.table.load().all()
    }

    /// The services of all routes, in order of names.
    pub(crate) fn all_services(&self) -> Vec<Arc<Service>> {
        let mut all: Vec<_> = self.services().values().cloned().collect();
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all
    }

    /// The names in the registry's list that get no route, because they aren't valid names of services.
    pub(crate) fn ignored_names(&self) -> Vec<Invalid> {
        if self.discovers && self.only.is_empty() {
            self.client.directory().provider().ignored_names()
        } else {
            Vec::new()
        }
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
        let mut services = self.services();
        let table = self.table.load();
        let mut discovered = table.discovered.clone();
        for (name, service) in services.iter() {
            service.set_listed(catalog.names().contains(name));
        }
        for name in catalog.names() {
            if !discovered.contains_key(name) && self.may_have_route(name) {
                let service = self.service(&mut services, name);
                let route = Route::discovered(service, self.limits.clone());
                discovered.insert(name.clone(), Arc::new(route));
            }
        }
        let is_listed = |name: &ServiceName| catalog.names().contains(name);
        let mut unlisted = discovered.keys().filter(|name| !is_listed(name)).count();
        discovered.retain(|name, _| {
            let keep = is_listed(name) || unlisted <= MAX_UNLISTED;
            unlisted -= usize::from(!keep);
            keep
        });
        let table = table.with_discovered(discovered, catalog.freshness().clone());
        self.table.store(Arc::new(table));
    }

    fn may_have_route(&self, name: &ServiceName) -> bool {
        self.discovers && !RESERVED.contains(&name.as_str()) && self.may_ask(name)
    }

    fn services(&self) -> MutexGuard<'_, HashMap<ServiceName, Arc<Service>>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The service of a name, which several routes may share.
    fn service(
        &self,
        services: &mut HashMap<ServiceName, Arc<Service>>,
        name: &ServiceName,
    ) -> Arc<Service> {
        let index = services.len();
        let service = services.entry(name.clone()).or_insert_with(|| {
            let (client, runtime) = (self.client.clone(), self.runtime.clone());
            Arc::new(Service::new(name.clone(), index, client, runtime))
        });
        Arc::clone(service)
    }

    fn unknown(&self, service: &str, freshness: &Freshness) -> Problem {
        let problem = match freshness.failure() {
            None => Problem::new(
                StatusCode::NOT_FOUND,
                "unknown_service",
                format!("there is no service {service:?}"),
            )
            .internal_detail(format!(
                "{} has no service {service:?}",
                freshness.provider()
            )),
            // The service may have registered since, so 404 would be a guess.
            Some(failure) => Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "registry_unreachable",
                format!("whether there is a service {service:?} is unknown at the moment"),
            )
            .internal_detail(format!(
                "service {service:?} was unknown when the registry was last reached: {}",
                failure.error()
            )),
        };
        let problem = problem.with("service", service);
        if !self.suggests {
            return problem;
        }
        let table = self.table.load();
        let names = table.discovered.keys().map(ServiceName::as_str);
        problem.with_internal("similar_services", similar::closest(service, names))
    }
}

/// The refusal of a path that a server could normalize to `normalized`, a path of the route `other`.
fn ambiguous_path(normalized: &str, other: &Route) -> Problem {
    let reading = format!("a service could read the path as {normalized:?}, which is for");
    let detail = format!("{reading} another route");
    Problem::new(StatusCode::BAD_REQUEST, "ambiguous_path", detail)
        .internal_detail(format!("{reading} the route {:?}", &**other.name()))
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path)
        .map_err(|error| ConfigError::new(path.display().to_string(), error.to_string()))
}

fn surroundings<'a>(file: &'a Path, environment: &'a Environment) -> Surroundings<'a> {
    Surroundings {
        folder: file.parent().unwrap_or(Path::new("")),
        environment,
    }
}

/// Checks a routes file with the files and variables that it names, and returns the number of its routes.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("routes.yaml");
/// std::fs::write(&path, "routes: [{service: auth, match: {path: /login}}]")?;
/// assert_eq!(waypost_gateway::check_routes(&path)?, 1);
///
/// std::fs::write(&path, "routes: [{servcie: auth}]")?;
/// let error = waypost_gateway::check_routes(&path).unwrap_err();
/// assert!(error.to_string().contains("routes.yaml:1:"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If it can't be read, or what is wrong with it and at which line.
pub fn check_routes(path: &Path) -> Result<usize, ConfigError> {
    let file = file::parse(path, &read(path)?)?;
    let environment = Environment::of_this_process();
    for route in &file.routes {
        let checked = route.auth.check_sources(surroundings(path, &environment));
        checked.map_err(|problem| document::located(path, route.position, &problem))?;
    }
    Ok(file.routes.len())
}
