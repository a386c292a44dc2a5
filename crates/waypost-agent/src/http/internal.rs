//! `/v1/internal/ui`: what Consul's own web page asks for.

use std::collections::{BTreeMap, BTreeSet};

use http::{Method, StatusCode};
use serde::Serialize;

use super::blocking::{About, Found, Read};
use super::call::Call;
use super::reply::Refusal;
use super::route::{Handler, Route};
use super::select::Selection;
use crate::filter::{HEALTH, NODE_WITH_ALL};
use crate::store::{Instance, Status, Topic, WholeNode, fold};
use crate::wire::{HealthService, StoredCheck, StoredService};

pub(super) const ROUTES: &[Route] = &[
    Route::new(
        "/v1/internal/ui/services",
        &[(Method::GET, read(|_| Topic::Checks, services))],
    ),
    Route::new(
        "/v1/internal/ui/nodes",
        &[(Method::GET, read(|_| Topic::Checks, nodes))],
    ),
    Route::new(
        "/v1/internal/ui/node/",
        &[(
            Method::GET,
            read(|call| Topic::Node(fold(&call.rest)), node),
        )],
    ),
];

const fn read(topic: fn(&Call) -> Topic, look: fn(&Call) -> Result<Found, Refusal>) -> Handler {
    Handler::Blocking(Read {
        topic,
        look,
        about: About::Ui,
    })
}

/// A service in one line.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Summary {
    name: String,
    tags: Option<BTreeSet<String>>,
    nodes: Vec<String>,
    instance_count: usize,
    checks_passing: usize,
    checks_warning: usize,
    checks_critical: usize,
    external_sources: Option<BTreeSet<String>>,
    gateway_config: Nothing,
}

#[derive(Serialize)]
struct Nothing {}

/// A node with all that is on it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct NodeWithAll<'a> {
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

fn services(call: &Call) -> Result<Found, Refusal> {
    let selection = Selection::of(call, &HEALTH)?;
    let (index, instances) = call.app.store.read(|state| {
        let names = state.catalog.service_names();
        let instances: Vec<Vec<Instance>> = names
            .iter()
            .map(|name| state.catalog.instances(name).collect())
            .collect();
        (state.catalog.everything().0, instances)
    });
    let summaries = instances.iter().filter_map(|instances| {
        let chosen = selection.choose(instances, HealthService::from);
        Some(Summary::of(chosen.first()?.service.name.clone(), &chosen))
    });
    let summaries: Vec<_> = summaries.collect();
    let body = call.json_body(&summaries)?;
    Ok(Found { index, body })
}

fn nodes(call: &Call) -> Result<Found, Refusal> {
    let selection = Selection::of(call, &NODE_WITH_ALL)?;
    call.app.store.read(|state| {
        let (index, rows) = state.catalog.everything();
        let nodes: Vec<_> = rows
            .map(NodeWithAll::from)
            .filter(|node| selection.takes_shown(|| node))
            .collect();
        let body = call.json_body(&nodes)?;
        Ok(Found { index, body })
    })
}

fn node(call: &Call) -> Result<Found, Refusal> {
    let name = fold(call.name("node name")?);
    call.app.store.read(|state| {
        let (index, mut rows) = state.catalog.everything();
        let Some(row) = rows.find(|(node, ..)| fold(&node.name) == name) else {
            return Err(Refusal::new(StatusCode::NOT_FOUND, ""));
        };
        let body = call.json_body(&NodeWithAll::from(row))?;
        Ok(Found { index, body })
    })
}

impl Summary {
    fn of(name: String, instances: &[&Instance]) -> Self {
        let sources = instances.iter().filter_map(|instance| {
            let meta = instance.service.meta.as_ref()?;
            Some(meta.get("external-source")?.clone())
        });
        let sources: BTreeSet<String> = sources.collect();
        let tags = instances.iter().flat_map(|it| it.service.tags.clone());
        let tags: BTreeSet<String> = tags.collect();
        let checks = || instances.iter().flat_map(|instance| &instance.checks);
        let count = |wanted| checks().filter(|check| check.status == wanted).count();
        Self {
            name,
            tags: Some(tags).filter(|tags| !tags.is_empty()),
            nodes: instances.iter().map(|it| it.node.name.clone()).collect(),
            instance_count: instances.len(),
            checks_passing: count(Status::Passing),
            checks_warning: count(Status::Warning),
            checks_critical: count(Status::Critical),
            external_sources: Some(sources).filter(|sources| !sources.is_empty()),
            gateway_config: Nothing {},
        }
    }
}

impl<'a> From<WholeNode<'a>> for NodeWithAll<'a> {
    fn from((node, services, checks): WholeNode<'a>) -> Self {
        Self {
            id: &node.id,
            name: &node.name,
            address: &node.address,
            tagged_addresses: &node.tagged_addresses,
            meta: &node.meta,
            services: services.into_iter().map(|it| (&**it).into()).collect(),
            checks: checks.into_iter().map(|it| (&**it).into()).collect(),
        }
    }
}
