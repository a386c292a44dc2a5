//! `/v1/internal/ui`: the endpoints of Consul's web page.

use std::collections::{BTreeMap, BTreeSet};

use http::{Method, StatusCode};
use serde::Serialize;

use super::blocking::{QueryKind, QueryResult};
use super::request::ApiRequest;
use super::response::ApiError;
use super::route::{Handler, Route};
use super::select::Selection;
use crate::filter::{HEALTH, NODE_WITH_ALL};
use crate::store::{CheckStatus, FullNode, Instance, Topic, fold_case};
use crate::wire::{HealthService, StoredCheck, StoredService};

pub(super) const ROUTES: &[Route] = &[
    Route::new(
        "/v1/internal/ui/services",
        &[(
            Method::GET,
            Handler::blocking(QueryKind::Ui, |_| Topic::Checks, services),
        )],
    ),
    Route::new(
        "/v1/internal/ui/nodes",
        &[(
            Method::GET,
            Handler::blocking(QueryKind::Ui, |_| Topic::Checks, nodes),
        )],
    ),
    Route::new(
        "/v1/internal/ui/node/",
        &[(
            Method::GET,
            Handler::blocking(QueryKind::Ui, ApiRequest::node_topic, node),
        )],
    ),
];

/// A summary of a service.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ServiceSummary {
    #[serde(skip_serializing_if = "String::is_empty")]
    kind: String,
    name: String,
    tags: Option<BTreeSet<String>>,
    nodes: Vec<String>,
    instance_count: usize,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    proxy_for: BTreeSet<String>,
    checks_passing: usize,
    checks_warning: usize,
    checks_critical: usize,
    external_sources: Option<BTreeSet<String>>,
    gateway_config: EmptyObject,
}

#[derive(Serialize)]
struct EmptyObject {}

/// A node with its services and checks.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct FullNodeView<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    #[serde(rename = "Node")]
    name: &'a str,
    address: &'a str,
    tagged_addresses: &'a Option<BTreeMap<String, String>>,
    meta: &'a Option<BTreeMap<String, String>>,
    services: Vec<StoredService<'a>>,
    checks: Vec<StoredCheck<'a>>,
}

fn services(request: &ApiRequest) -> Result<QueryResult, ApiError> {
    let selection = Selection::of(request, &HEALTH)?;
    let (index, instances) = request.app.store.read(|state| {
        let names = state.catalog.service_names();
        let instances: Vec<Vec<Instance>> = names
            .iter()
            .map(|name| state.catalog.instances(name).collect())
            .collect();
        (state.catalog.full_nodes().0, instances)
    });
    let summaries = instances.iter().filter_map(|instances| {
        let selected = selection.select(instances, HealthService::from);
        Some(ServiceSummary::of(
            selected.first()?.service.name.clone(),
            &selected,
        ))
    });
    let summaries: Vec<_> = summaries.collect();
    let body = request.json_body(&summaries)?;
    Ok(QueryResult { index, body })
}

fn nodes(request: &ApiRequest) -> Result<QueryResult, ApiError> {
    let selection = Selection::of(request, &NODE_WITH_ALL)?;
    let (index, nodes) = request.app.store.read(|state| {
        let (index, nodes) = state.catalog.full_nodes();
        (index, nodes.collect::<Vec<_>>())
    });
    let nodes: Vec<_> = nodes
        .iter()
        .map(FullNodeView::from)
        .filter(|node| selection.matches_filter(|| node))
        .collect();
    let body = request.json_body(&nodes)?;
    Ok(QueryResult { index, body })
}

fn node(request: &ApiRequest) -> Result<QueryResult, ApiError> {
    let name = fold_case(request.required_suffix("node name")?);
    request.app.store.read(|state| {
        let (index, mut nodes) = state.catalog.full_nodes();
        let Some(found) = nodes.find(|full| fold_case(&full.node.name) == name) else {
            return Err(ApiError::new(StatusCode::NOT_FOUND, ""));
        };
        let body = request.json_body(&FullNodeView::from(&found))?;
        Ok(QueryResult { index, body })
    })
}

impl ServiceSummary {
    fn of(name: String, instances: &[&Instance]) -> Self {
        let sources = instances.iter().filter_map(|instance| {
            let meta = instance.service.meta.as_ref()?;
            Some(meta.get("external-source")?.clone())
        });
        let sources: BTreeSet<String> = sources.collect();
        let tags = instances.iter().flat_map(|it| it.service.tags.clone());
        let tags: BTreeSet<String> = tags.collect();
        let checks = || instances.iter().flat_map(|instance| &instance.checks);
        let count = |status| checks().filter(|check| check.status == status).count();
        Self {
            kind: instances
                .last()
                .map(|it| it.service.kind.clone())
                .unwrap_or_default(),
            proxy_for: instances
                .iter()
                .filter_map(|it| it.service.proxied_service())
                .map(str::to_owned)
                .collect(),
            name,
            tags: Some(tags).filter(|tags| !tags.is_empty()),
            nodes: instances.iter().map(|it| it.node.name.clone()).collect(),
            instance_count: instances.len(),
            checks_passing: count(CheckStatus::Passing),
            checks_warning: count(CheckStatus::Warning),
            checks_critical: count(CheckStatus::Critical),
            external_sources: Some(sources).filter(|sources| !sources.is_empty()),
            gateway_config: EmptyObject {},
        }
    }
}

impl<'a> From<&'a FullNode> for FullNodeView<'a> {
    fn from(full: &'a FullNode) -> Self {
        let FullNode {
            node,
            services,
            checks,
        } = full;
        Self {
            id: &node.id,
            name: &node.name,
            address: &node.address,
            tagged_addresses: &node.tagged_addresses,
            meta: &node.meta,
            services: services.iter().map(|it| (&**it).into()).collect(),
            checks: checks.iter().map(|it| (&**it).into()).collect(),
        }
    }
}
