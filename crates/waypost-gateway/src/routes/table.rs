//! Finds the route of a request.

use std::cmp::Reverse;
use std::sync::Arc;

use foldhash::HashMap;
use http::{HeaderMap, Method};
use waypost::ServiceName;
use waypost::snapshot::Freshness;

use super::pattern::{PathPattern, bare_host, lowercase};
use super::route::{Guard, Route};

/// All routes at one moment.
#[derive(Default)]
pub(super) struct RouteTable {
    explicit: Arc<ExplicitTable>,
    /// The routes of discovered services, by the first segment of the path.
    pub(super) discovered: HashMap<ServiceName, Arc<Route>>,
    /// The freshness of the list of services.
    pub(super) freshness: Option<Freshness>,
}

/// The routes of the routes file, of HTTPRoutes and of tags.
#[derive(Default)]
struct ExplicitTable {
    /// In order of precedence.
    routes: Vec<Arc<Route>>,
    /// The positions of the routes that can match a path, by its first segment.
    by_segment: HashMap<String, Vec<usize>>,
    /// The positions for all other first segments.
    by_no_segment: Vec<usize>,
    guarded: GuardedPaths,
}

/// The paths of the explicit routes with a guard, in lower case.
#[derive(Default)]
struct GuardedPaths {
    by_segment: HashMap<String, Vec<GuardedPath>>,
    /// The patterns without a literal first segment.
    others: Vec<GuardedPath>,
}

struct GuardedPath {
    path: PathPattern,
    /// The position of the route in the table.
    at: usize,
}

impl RouteTable {
    /// Replaces the routes of the file, of HTTPRoutes and of tags.
    pub(super) fn with_explicit(&self, routes: Vec<Arc<Route>>) -> Self {
        Self {
            explicit: Arc::new(ExplicitTable::new(routes)),
            discovered: self.discovered.clone(),
            freshness: self.freshness.clone(),
        }
    }

    /// Replaces the discovered routes.
    pub(super) fn with_discovered(
        &self,
        discovered: HashMap<ServiceName, Arc<Route>>,
        freshness: Freshness,
    ) -> Self {
        Self {
            explicit: Arc::clone(&self.explicit),
            discovered,
            freshness: Some(freshness),
        }
    }

    /// Whether there are routes other than those of discovered services.
    pub(super) fn has_explicit(&self) -> bool {
        !self.explicit.routes.is_empty()
    }

    /// The route that matches a request.
    pub(super) fn find(
        &self,
        host: Option<&str>,
        path: &str,
        query: Option<&str>,
        method: &Method,
        headers: &HeaderMap,
    ) -> Option<&Arc<Route>> {
        let segment = first_segment(path);
        if !self.has_explicit() {
            return self.discovered.get(segment);
        }
        let host = host.map(bare_host);
        let explicit = (self.explicit.candidates(segment))
            .find(|route| route.matches(host.as_deref(), path, query, method, headers));
        match explicit {
            Some(route) if route.precedes_discovered() => Some(route),
            explicit => self.discovered.get(segment).or(explicit),
        }
    }

    /// A route with a different guard that would match instead of `route` if letter case were ignored. A service
    /// that ignores letter case would respond to the request as if it had passed that guard. Two routes whose
    /// paths differ only in letter case were configured on purpose, so neither counts for the other.
    pub(super) fn guarded_in_other_case(
        &self,
        route: &Arc<Route>,
        host: Option<&str>,
        path: &str,
        query: Option<&str>,
        method: &Method,
        headers: &HeaderMap,
    ) -> Option<&Arc<Route>> {
        let ExplicitTable {
            routes, guarded, ..
        } = &*self.explicit;
        if guarded.is_empty() {
            return None;
        }
        let lowercase = lowercase(path);
        let host = host.map(bare_host);
        let precedes = |at: usize, other: &Route| {
            let position = routes.iter().position(|it| Arc::ptr_eq(it, route));
            position.map_or(other.precedes_discovered(), |position| at < position)
        };
        guarded.matching(&lowercase).find_map(|guarded| {
            let other = routes.get(guarded.at)?;
            let is_bypassed = !other.path().matches(path)
                && other.matches_beside_path(host.as_deref(), query, method, headers)
                && other.guard != route.guard
                && other.shares_service(route)
                && guarded.path != route.path().lowercase()
                && precedes(guarded.at, other);
            is_bypassed.then_some(other)
        })
    }

    /// All routes: those of the file in order of precedence, then the discovered ones by name.
    pub(super) fn all(&self) -> Vec<Arc<Route>> {
        let mut discovered: Vec<_> = self.discovered.values().cloned().collect();
        discovered.sort_by(|a, b| a.name().cmp(b.name()));
        [self.explicit.routes.as_slice(), &discovered].concat()
    }
}

impl ExplicitTable {
    fn new(mut routes: Vec<Arc<Route>>) -> Self {
        // The sort is stable, so the order of `routes` decides between equals.
        routes.sort_by_key(|route| Reverse(route.rank()));
        let mut by_segment: HashMap<String, Vec<usize>> = HashMap::default();
        for route in &routes {
            if let Some(segment) = route.path().first_segment() {
                by_segment.entry(segment.to_owned()).or_default();
            }
        }
        let mut by_no_segment = Vec::new();
        for (at, route) in routes.iter().enumerate() {
            match route.path().first_segment() {
                Some(segment) => by_segment.entry(segment.to_owned()).or_default().push(at),
                None => {
                    by_no_segment.push(at);
                    by_segment.values_mut().for_each(|list| list.push(at));
                }
            }
        }
        Self {
            guarded: GuardedPaths::of(&routes),
            routes,
            by_segment,
            by_no_segment,
        }
    }

    /// The routes that can match a path with this first segment, in order of precedence.
    fn candidates(&self, segment: &str) -> impl Iterator<Item = &Arc<Route>> {
        let positions = self.by_segment.get(segment).unwrap_or(&self.by_no_segment);
        positions.iter().filter_map(|at| self.routes.get(*at))
    }
}

impl GuardedPaths {
    fn of(routes: &[Arc<Route>]) -> Self {
        let mut paths = Self::default();
        let is_guarded = |route: &Route| route.guard != Guard::default();
        for (at, route) in routes.iter().enumerate() {
            // A route for all paths has no letters.
            if !is_guarded(route) || route.path().is_everything() {
                continue;
            }
            let path = route.path().lowercase();
            let segment = path.first_segment().map(str::to_owned);
            let list = match segment {
                Some(segment) => paths.by_segment.entry(segment).or_default(),
                None => &mut paths.others,
            };
            list.push(GuardedPath { path, at });
        }
        paths
    }

    fn is_empty(&self) -> bool {
        self.by_segment.is_empty() && self.others.is_empty()
    }

    /// Those that match a path in lower case.
    fn matching(&self, path: &str) -> impl Iterator<Item = &GuardedPath> {
        let of_segment = self.by_segment.get(first_segment(path));
        let all = of_segment.into_iter().flatten().chain(&self.others);
        all.filter(move |guarded| guarded.path.matches(path))
    }
}

/// The first segment of a path that begins with a slash.
pub(super) fn first_segment(path: &str) -> &str {
    let path = path.strip_prefix('/').unwrap_or(path);
    let end = memchr::memchr(b'/', path.as_bytes());
    path.get(..end.unwrap_or(path.len())).unwrap_or_default()
}
