//! `/v1/health`: checks, and instances with their checks.

use std::sync::Arc;

use http::Method;

use super::blocking::{QueryKind, QueryResult};
use super::json;
use super::request::ApiRequest;
use super::response::{ApiError, ResponseBody};
use super::route::{Handler, Route};
use super::select::Selection;
use crate::filter::{CATALOG_SERVICE, CHECK, HEALTH};
use crate::store::{CacheKey, CachedBody, Check, CheckStatus, Instance, State, Topic, View};
use crate::wire::{CatalogService, HealthService};

const CATALOG: QueryKind = QueryKind::Catalog;

pub(super) const ROUTES: &[Route] = &[
    Route::new(
        "/v1/health/node/",
        &[(
            Method::GET,
            Handler::blocking(CATALOG, ApiRequest::node_topic, node),
        )],
    ),
    Route::new(
        "/v1/health/checks/",
        &[(
            Method::GET,
            Handler::blocking(CATALOG, ApiRequest::service_topic, checks),
        )],
    ),
    Route::new(
        "/v1/health/state/",
        &[(
            Method::GET,
            Handler::blocking(CATALOG, |_| Topic::Checks, state),
        )],
    ),
    Route::new(
        "/v1/health/service/",
        &[(
            Method::GET,
            Handler::cached(CATALOG, ApiRequest::service_topic, service),
        )],
    ),
    Route::new(
        "/v1/health/connect/",
        &[(
            Method::GET,
            Handler::cached(CATALOG, ApiRequest::service_topic, connect),
        )],
    ),
];

fn node(request: &ApiRequest) -> Result<QueryResult, ApiError> {
    let name = request.required_suffix("node name")?;
    list_checks(request, |state| state.catalog.checks_of_node(name))
}

fn checks(request: &ApiRequest) -> Result<QueryResult, ApiError> {
    let name = request.required_suffix("service name")?;
    list_checks(request, |state| state.catalog.checks_of_service(name))
}

fn state(request: &ApiRequest) -> Result<QueryResult, ApiError> {
    let name = request.required_suffix("check state")?;
    list_checks(request, |state| match (name, CheckStatus::parse(name)) {
        ("any", _) => state.catalog.checks_in_state(None),
        (_, Some(status)) => state.catalog.checks_in_state(Some(status)),
        (_, None) => (state.catalog.checks_in_state(None).0, Vec::new()),
    })
}

fn service(request: &ApiRequest) -> Result<QueryResult, ApiError> {
    instances(request, View::Health, false)
}

fn connect(request: &ApiRequest) -> Result<QueryResult, ApiError> {
    instances(request, View::Health, true)
}

fn list_checks(
    request: &ApiRequest,
    query: impl FnOnce(&State) -> (u64, Vec<Arc<Check>>),
) -> Result<QueryResult, ApiError> {
    let selection = Selection::of(request, &CHECK)?;
    let (index, mut checks) = request.app.store.read(|state| {
        let (index, mut checks) = query(state);
        if !selection.is_unconditional() {
            checks.retain(|check| {
                let node = state.catalog.node(&check.node);
                node.is_some_and(|(_, node, _)| selection.matches_node(node))
            });
            selection.sort(state, &mut checks, |check| &check.node);
        }
        (index, checks)
    });
    checks.retain(|check| selection.matches_filter(|| check));
    Ok(QueryResult {
        index,
        body: request.json_body(&checks)?,
    })
}

/// The instances of a service. Queries without conditions, which nearly all are, share cached
/// responses.
pub(super) fn instances(
    request: &ApiRequest,
    view: View,
    connect: bool,
) -> Result<QueryResult, ApiError> {
    let name = request.required_suffix("service name")?;
    let selection = match view {
        View::Health => Selection::with_passing(request, &HEALTH)?,
        View::Catalog => Selection::of(request, &CATALOG_SERVICE)?,
    };
    let selection = selection.for_connect(connect);
    let key = CacheKey {
        view,
        passing: selection.passing(),
        pretty: request.is_pretty(),
    };
    let (index, slot, instances) = request.app.store.read(|state| {
        let slot = state.catalog.cache_slot(name, &key);
        let slot = slot.filter(|_| selection.is_unconditional());
        let mut instances = match slot.as_ref().and_then(|slot| slot.get()) {
            Some(_) => Vec::new(),
            None if connect => state.catalog.connect_instances(name),
            None => state.catalog.instances(name).collect(),
        };
        selection.sort(state, &mut instances, |instance: &Instance| {
            &instance.node.name
        });
        let index = if connect {
            state.catalog.connect_index(name)
        } else {
            state.catalog.service_index(name)
        };
        (index, slot, instances)
    });
    let body = match slot {
        Some(slot) => {
            let cached = slot.get_or_init(|| {
                // Rows of the store can always be serialized.
                let text = serialize(&instances, &selection, &key);
                Arc::new(CachedBody::new(text.unwrap_or_default()))
            });
            ResponseBody::Shared(Arc::clone(cached))
        }
        None => ResponseBody::Owned(serialize(&instances, &selection, &key)?.into()),
    };
    Ok(QueryResult { index, body })
}

fn serialize(
    instances: &[Instance],
    selection: &Selection,
    key: &CacheKey,
) -> serde_json::Result<Vec<u8>> {
    match key.view {
        View::Health => {
            let selected = selection.select(instances, HealthService::from).into_iter();
            let views: Vec<_> = selected.map(HealthService::from).collect();
            json::to_vec(&views, key.pretty)
        }
        View::Catalog => {
            let selected = selection
                .select(instances, CatalogService::from)
                .into_iter();
            let views: Vec<_> = selected.map(CatalogService::from).collect();
            json::to_vec(&views, key.pretty)
        }
    }
}
