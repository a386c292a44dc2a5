//! `/v1/catalog`: all nodes and services of the cluster.

use std::sync::Arc;

use http::Method;

use super::blocking::{QueryKind, QueryResult};
use super::health::instances;
use super::json;
use super::request::ApiRequest;
use super::response::{ApiError, ApiResponse, ResponseBody};
use super::route::{Handler, Route};
use super::select::Selection;
use super::unsupported::mesh_error;
use crate::decode::{CatalogDeregistration, CatalogRegistration};
use crate::filter::{NODE, SERVICE};
use crate::store::{CachedBody, Node, Service, Topic, View};
use crate::wire::{NodeServices, Pairs};

const CATALOG: QueryKind = QueryKind::Catalog;

pub(super) const ROUTES: &[Route] = &[
    Route::new(
        "/v1/catalog/datacenters",
        &[(Method::GET, Handler::Sync(datacenters))],
    )
    .without_namespace(),
    Route::new(
        "/v1/catalog/register",
        &[(Method::PUT, Handler::Sync(register))],
    ),
    Route::new(
        "/v1/catalog/deregister",
        &[(Method::PUT, Handler::Sync(deregister))],
    ),
    Route::new(
        "/v1/catalog/nodes",
        &[(
            Method::GET,
            Handler::blocking(CATALOG, |_| Topic::Nodes, nodes),
        )],
    )
    .without_namespace(),
    Route::new(
        "/v1/catalog/services",
        &[(
            Method::GET,
            Handler::cached(CATALOG, |_| Topic::Services, services),
        )],
    ),
    Route::new(
        "/v1/catalog/service/",
        &[(
            Method::GET,
            Handler::cached(CATALOG, ApiRequest::service_topic, service),
        )],
    ),
    Route::new(
        "/v1/catalog/connect/",
        &[(
            Method::GET,
            Handler::cached(CATALOG, ApiRequest::service_topic, connect),
        )],
    ),
    Route::new(
        "/v1/catalog/node/",
        &[(
            Method::GET,
            Handler::blocking(CATALOG, ApiRequest::node_topic, node),
        )],
    ),
    Route::new(
        "/v1/catalog/node-services/",
        &[(
            Method::GET,
            Handler::blocking(CATALOG, ApiRequest::node_topic, node_services),
        )],
    ),
];

fn datacenters(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    let response = request.json(&[&request.app.datacenter])?;
    Ok(if request.query.has("cached") {
        response.cache_hit()
    } else {
        response
    })
}

fn register(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    let mut registration: CatalogRegistration = request.decode()?;
    require_local_datacenter(request, &registration.datacenter)?;
    registration.complete().map_err(ApiError::internal)?;
    let mut entry = registration.entry;
    if entry
        .service
        .as_ref()
        .is_some_and(Service::is_proxy_or_gateway)
    {
        return Err(mesh_error());
    }
    entry.node.datacenter.clone_from(&request.app.datacenter);
    let done = request
        .app
        .store
        .write(|state, changes| entry.register(&mut state.catalog, changes));
    done.map_err(ApiError::internal)?;
    request.json(&true)
}

fn deregister(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    let target: CatalogDeregistration = request.decode()?;
    require_local_datacenter(request, &target.datacenter)?;
    if target.node.is_empty() {
        return Err(ApiError::internal("Must provide node"));
    }
    let (node, service, check) = (&target.node, &target.service_id, &target.check_id);
    request.app.store.write(|state, changes| {
        let catalog = &mut state.catalog;
        match (service.as_str(), check.as_str()) {
            ("", "") => catalog.remove_node(node, changes),
            ("", check) => catalog.remove_check(node, check, changes),
            (service, _) => catalog.remove_service(node, service, changes),
        };
    });
    request.json(&true)
}

/// Checks the datacenter in a body. `?dc` is ignored here.
fn require_local_datacenter(request: &ApiRequest, datacenter: &str) -> Result<(), ApiError> {
    if datacenter.is_empty() || datacenter == request.app.datacenter {
        Ok(())
    } else {
        Err(ApiError::internal("No path to datacenter"))
    }
}

fn nodes(request: &ApiRequest) -> Result<QueryResult, ApiError> {
    let selection = Selection::of(request, &NODE)?;
    let (index, mut nodes) = request.app.store.read(|state| {
        let (index, nodes) = state.catalog.nodes();
        let nodes = nodes.filter(|node| selection.matches_node(node));
        let mut nodes: Vec<_> = nodes.cloned().collect();
        selection.sort(state, &mut nodes, |node| &node.name);
        (index, nodes)
    });
    nodes.retain(|node| selection.matches_filter(|| node));
    Ok(QueryResult {
        index,
        body: request.json_body(&nodes)?,
    })
}

fn services(request: &ApiRequest) -> Result<QueryResult, ApiError> {
    let selection = Selection::without_filter(request);
    let pretty = request.is_pretty();
    request.app.store.read(|state| {
        if !selection.is_unconditional() {
            let (index, services) = state
                .catalog
                .services_on(|node| selection.matches_node(node));
            let body = request.json_body(&services)?;
            return Ok(QueryResult { index, body });
        }
        let (index, slot) = state.catalog.services_cache_slot(pretty);
        let body = slot.get_or_init(|| {
            let (_, services) = state.catalog.services();
            // Names and tags can always be serialized.
            let text = json::to_vec(&services, pretty);
            Arc::new(CachedBody::new(text.unwrap_or_default()))
        });
        let body = ResponseBody::Shared(Arc::clone(body));
        Ok(QueryResult { index, body })
    })
}

fn service(request: &ApiRequest) -> Result<QueryResult, ApiError> {
    instances(request, View::Catalog, false)
}

fn connect(request: &ApiRequest) -> Result<QueryResult, ApiError> {
    instances(request, View::Catalog, true)
}

/// A node and its services by id.
fn node(request: &ApiRequest) -> Result<QueryResult, ApiError> {
    let (index, found) = find_node(request)?;
    let found = found.map(|(node, services)| {
        let pairs = services
            .into_iter()
            .map(|service| (service.id.clone(), service));
        let services = Pairs(pairs.collect());
        NodeServices { node, services }
    });
    let body = request.json_body(&found)?;
    Ok(QueryResult { index, body })
}

/// A node and a list of its services.
fn node_services(request: &ApiRequest) -> Result<QueryResult, ApiError> {
    let (index, found) = find_node(request)?;
    let (node, services) = found.unzip();
    let services = services.filter(|services| request.has_filter() || !services.is_empty());
    let body = request.json_body(&NodeServices { node, services })?;
    Ok(QueryResult { index, body })
}

/// The index, and the node with its services if it exists.
type FoundNode = (u64, Option<(Arc<Node>, Vec<Arc<Service>>)>);

fn find_node(request: &ApiRequest) -> Result<FoundNode, ApiError> {
    let name = request.required_suffix("node name")?;
    let selection = Selection::of(request, &SERVICE)?;
    let (index, mut found) = request.app.store.read(|state| {
        let Some((index, node, services)) = state.catalog.node(name) else {
            // Consul responds with index 1, so that blocking queries miss the removal of a node.
            return (state.catalog.nodes().0, None);
        };
        let services: Vec<_> = services.cloned().collect();
        (index, Some((Arc::clone(node), services)))
    });
    if let Some((_, services)) = &mut found {
        services.retain(|service| selection.matches_filter(|| service));
    }
    Ok((index, found))
}
